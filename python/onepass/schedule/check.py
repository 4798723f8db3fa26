"""Checks of the arguments that users meet; every message names argument, range and value."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from functools import partial
from numbers import Real
from typing import Any

__all__ = [
    "COUNT",
    "FLAG",
    "FRACTION",
    "LAST_STEP",
    "NONNEGATIVE",
    "POSITIVE",
    "POSITIVE_COUNT",
    "check",
    "choice",
    "count",
    "number",
    "step_number",
]

LAST_STEP = 2**63 - 1  # what a checkpoint's int64 counter can hold

Check = Callable[[str, Any], Any]


def number(
    name: str, value: Any, low: float = 0.0, high: float = math.inf, *, open_low: bool = False
) -> float:
    """Return ``value`` as a finite float in ``[low, high]`` (``(low, high]`` if ``open_low``)."""
    allowed = f"{'>' if open_low else '>='} {low:g}"
    if high < math.inf:
        allowed = f"in {'(' if open_low else '['}{low:g}, {high:g}]"
    message = f"{name} must be a finite number {allowed}, got {value!r}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(message)
    result = float(value) + 0.0  # -0.0 becomes 0.0, so that equal values print alike
    if not math.isfinite(result) or not low <= result <= high or (open_low and result == low):
        raise ValueError(message)
    return result


def count(name: str, value: Any, low: int = 0) -> int:
    """Return ``value`` as an int in ``[low, 2**63 - 1]``; a float is no count, even 3.0."""
    allowed = f"in [{low}, 2**63 - 1]"
    message = f"{name} must be an integer {allowed}, got {value!r}"
    try:
        result = operator.index(value)
    except TypeError:
        raise TypeError(message) from None
    if isinstance(value, bool):
        raise TypeError(message)
    if not low <= result <= LAST_STEP:
        raise ValueError(message)
    return result


def step_number(t: Any) -> int:
    """Return ``t``, the number of steps already applied, as an int."""
    return count("t", t)


def flag(name: str, value: Any) -> bool:
    """Return ``value`` if it is True or False."""
    if not isinstance(value, bool):
        message = f"{name} must be True or False, got {value!r}"
        raise TypeError(message)
    return value


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    message = f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}"
    if not isinstance(value, str):
        raise TypeError(message)
    if value not in allowed:
        raise ValueError(message)
    return value


def check(function: Check) -> Mapping[str, Check]:
    """Return the metadata that makes a dataclass field checked by ``function(name, value)``."""
    return {"check": function}


def choice(*allowed: str) -> Mapping[str, Check]:
    """Return the metadata of a field that is one of the strings ``allowed``."""
    return check(partial(_one_of, allowed=allowed))


NONNEGATIVE = check(number)
POSITIVE = check(partial(number, open_low=True))
FRACTION = check(partial(number, high=1.0))
COUNT = check(count)
POSITIVE_COUNT = check(partial(count, low=1))
FLAG = check(flag)
