"""How a step is done."""

from __future__ import annotations
