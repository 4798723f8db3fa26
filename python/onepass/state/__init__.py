"""What parameters keep between steps: made, checked, saved and loaded."""

from __future__ import annotations
