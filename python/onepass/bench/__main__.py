"""``python -m onepass.bench``."""

from __future__ import annotations

from onepass.bench.command import main

raise SystemExit(main())
