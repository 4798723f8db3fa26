"""Tests of onepass. Oracles are formulas in float64 and torch.optim's for-loop, never our own output."""

from __future__ import annotations
