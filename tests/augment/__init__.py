"""Tests of onepass.augment."""

from __future__ import annotations
