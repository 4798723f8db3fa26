"""Schedules as values: pure functions of the number of applied steps, exact at any step."""

from __future__ import annotations

from .anneals import Cosine, Linear, Polynomial, WarmRestarts
from .base import Schedule
from .decays import Constant, Exponential, InverseSqrt, MultiStep, Step
from .phases import WSD, OneCycle
from .plain import from_dict
from .plateau import Plateau
from .torch_scheduler import as_torch_scheduler

__all__ = [
    "WSD",
    "Constant",
    "Cosine",
    "Exponential",
    "InverseSqrt",
    "Linear",
    "MultiStep",
    "OneCycle",
    "Plateau",
    "Polynomial",
    "Schedule",
    "Step",
    "WarmRestarts",
    "as_torch_scheduler",
    "from_dict",
]
