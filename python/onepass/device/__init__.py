"""Devices other than the CPU: the extension for them, and what it is asked to do."""

from __future__ import annotations
