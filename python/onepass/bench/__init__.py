"""``onepass bench``: times optimizer steps against those of other packages and against the machine's limit."""

from __future__ import annotations

from onepass.bench.command import main

__all__ = ["main"]
