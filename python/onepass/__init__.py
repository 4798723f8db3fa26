"""Optimizers for PyTorch with the whole update in one pass over memory."""

from __future__ import annotations
