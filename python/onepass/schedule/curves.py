"""The few formulas that schedules share, written to keep their digits at both ends."""

from __future__ import annotations

import math

from .traced import cos, power, sin

__all__ = ["geometric", "half_cosine", "mix"]


def mix(start: float, end: float, weight: float) -> float:
    """Return ``start`` at weight 1 and ``end`` at weight 0, both exactly, linear between."""
    return start * weight + end * (1.0 - weight)


def half_cosine(left: float) -> float:
    """Return ``(1 + cos(pi * (1 - left))) / 2`` where ``left`` is the part of the way to go.

    Near the end that sum cancels (one step of 10^9 before it, it is 0), so there its equal
    ``sin(pi * left / 2) ** 2`` is taken.
    """
    if left < 0.25:
        sine: float = sin(0.5 * math.pi * left)
        return sine * sine
    whole: float = 0.5 + 0.5 * cos(math.pi * (1.0 - left))
    return whole


def geometric(v: float, gamma: float, exponent: float) -> float:
    """Return ``v * gamma ** exponent``, inf (no exception) where that exceeds a double."""
    if not v:
        return 0.0
    try:
        value: float = v * power(gamma, exponent)
        return value
    except OverflowError:
        return math.inf
