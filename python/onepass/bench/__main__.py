"""``python -m onepass.bench``."""

from __future__ import annotations

from onepass.bench.command import main

if __name__ == "__main__":
    raise SystemExit(main())
