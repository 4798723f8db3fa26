"""Hyper-parameters, options and schedules: what may stand in a parameter group."""

from __future__ import annotations
