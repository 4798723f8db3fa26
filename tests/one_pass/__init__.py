"""The library's own options, and everything that happens to one element in one pass."""

from __future__ import annotations
