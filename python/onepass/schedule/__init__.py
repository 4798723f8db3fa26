"""Schedules as values: pure functions of the number of applied steps, exact at any step."""

from __future__ import annotations

from .anneals import Cosine, Linear, Polynomial, WarmRestarts
from .base import Schedule
from .custom import Custom
from .decays import Constant, Exponential, InverseSqrt, MultiStep, Step
from .phases import WSD, OneCycle
from .piecewise import Piecewise
from .plain import from_dict
from .plateau import Plateau
from .range_test import RangeTest, range_test
from .torch_scheduler import as_torch_scheduler

__all__ = [
    "WSD",
    "Constant",
    "Cosine",
    "Custom",
    "Exponential",
    "InverseSqrt",
    "Linear",
    "MultiStep",
    "OneCycle",
    "Piecewise",
    "Plateau",
    "Polynomial",
    "RangeTest",
    "Schedule",
    "Step",
    "WarmRestarts",
    "as_torch_scheduler",
    "from_dict",
    "range_test",
]
