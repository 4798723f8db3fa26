"""A schedule through given points: straight, along half cosines, or in steps."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import itemgetter
from typing import Any, Literal

from .base import Schedule
from .check import check, choice, number
from .curves import half_cosine, mix

__all__ = ["Piecewise"]

Points = tuple[tuple[float, float], ...]
_TIME = itemgetter(0)


def _parts(name: str, value: Any, wanted: str) -> list[Any]:
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        message = f"{name} must be {wanted}, got {value!r}"
        raise TypeError(message)
    return list(value)


def _points(name: str, value: Any) -> Points:
    points = []
    for i, point in enumerate(_parts(name, value, "a sequence of (t, value)")):
        pair = _parts(f"{name}[{i}]", point, "a pair (t, value)")
        if len(pair) != 2:
            message = f"{name}[{i}] must be a pair (t, value), got {point!r}"
            raise ValueError(message)
        t, v = pair
        points.append((number(f"t of {name}[{i}]", t), number(f"value of {name}[{i}]", v)))
    if not points:
        message = f"{name} must hold at least one (t, value), got {value!r}"
        raise ValueError(message)
    if any(a >= b for (a, _), (b, _) in pairwise(points)):
        message = f"t of {name} must be strictly increasing, got {[t for t, _ in points]!r}"
        raise ValueError(message)
    return tuple(points)


@dataclass(frozen=True, slots=True, repr=False)
class Piecewise(Schedule):
    r"""Go through given points, and stay before the first and after the last.

    Between the points :math:`(t_i, v_i)` and :math:`(t_{i+1}, v_{i+1})`, with
    :math:`x = (t - t_i) / (t_{i+1} - t_i)`:

    .. math::
        s(t) = v_{i+1} + (v_i - v_{i+1})\,c(x), \qquad
        c(x) = 1 - x, \quad \frac{1 + \cos \pi x}{2} \quad \text{or} \quad 1

    Args:
        points: pairs (t, value) with t strictly increasing, at least one; t and value are at least
            0, and t may be a fraction, for `Schedule.over`. Kept as a tuple of tuples of floats.
        kind: ``"linear"``, ``"cosine"`` or ``"step"`` (the value of the last point that has been
            reached). Default: ``"linear"``.

    Raises:
        ValueError: an argument is out of range, a point is no pair, or t does not increase.
        TypeError: an argument has the wrong type.

    Example:
        >>> from onepass.schedule import Piecewise
        >>> s = Piecewise([(0, 0.0), (4, 1.0), (6, 0.5)])
        >>> [value for _, value in s.table(8)]
        [0.0, 0.25, 0.5, 0.75, 1.0, 0.75, 0.5, 0.5]
        >>> Piecewise([(2, 1.0), (4, 0.1)], kind="step").table(5)
        [(0, 1.0), (1, 1.0), (2, 1.0), (3, 1.0), (4, 0.1)]

    Reference: ``numpy.interp``, of which the linear kind has the values.

    Difference from torch: torch has none; a ``LambdaLR`` over ``numpy.interp`` saves no points.
    """

    points: Sequence[tuple[float, float]] = field(metadata=check(_points))
    kind: Literal["linear", "cosine", "step"] = field(
        default="linear", metadata=choice("linear", "cosine", "step")
    )

    def _value(self, t: float) -> float:
        i = bisect_right(self.points, t, key=_TIME)
        if i == 0 or i == len(self.points) or self.kind == "step":
            return self.points[max(i - 1, 0)][1]
        (start, before), (end, after) = self.points[i - 1], self.points[i]
        left = (end - t) / (end - start)
        return mix(before, after, half_cosine(left) if self.kind == "cosine" else left)
