"""Schedules that the user draws: through points, or by a function."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from numbers import Real
from typing import Any, Literal

from .base import Schedule
from .check import LAST_STEP, check, choice, number
from .curves import half_cosine, mix
from .traced import Traced

__all__ = ["Custom", "Piecewise", "custom_named"]


def _points(name: str, value: Any) -> tuple[tuple[float, float], ...]:
    message = f"{name} must be a sequence of pairs (t, value), got {value!r}"
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise TypeError(message)
    points = []
    for i, pair in enumerate(value):
        if isinstance(pair, str | bytes) or not isinstance(pair, Iterable):
            raise TypeError(message)
        both = tuple(pair)
        if len(both) != 2:
            raise ValueError(message)
        t = number(f"{name}[{i}][0]", both[0], high=float(LAST_STEP))
        points.append((t, number(f"{name}[{i}][1]", both[1])))
    if not points:
        raise ValueError(message)
    if any(a[0] >= b[0] for a, b in pairwise(points)):
        message = f"{name} must have strictly increasing t, got {[t for t, _ in points]!r}"
        raise ValueError(message)
    return tuple(points)


@dataclass(frozen=True, slots=True, repr=False)
class Piecewise(Schedule):
    r"""Go from point to point, then stay.

    Between two points, with :math:`x = (t - t_i) / (t_{i+1} - t_i)`:

    .. math:: s(t) = v_{i+1} + (v_i - v_{i+1})\,c(x), \qquad
        c(x) = 1 - x, \quad \frac{1 + \cos \pi x}{2} \quad \text{or, as steps,} \quad 1

    Before the first point it has the first value, after the last one the last.

    Args:
        points: :math:`(t_i, v_i)` with t strictly increasing and both numbers at least 0; t may be a fraction, for
            :meth:`Schedule.over`. Kept as a tuple of tuples.
        kind: ``"linear"``, ``"cosine"`` or ``"step"``: how to go between two points. Default: ``"linear"``.

    Raises:
        ValueError: an argument is out of range, there is no point, or t does not increase.
        TypeError: an argument has the wrong type.

    Example:
        >>> Piecewise([(0, 0.0), (2, 1.0), (6, 0.0)]).table(8)
        [(0, 0.0), (1, 0.5), (2, 1.0), (3, 0.75), (4, 0.5), (5, 0.25), (6, 0.0), (7, 0.0)]
        >>> run = Piecewise([(0, 0.1), (0.3, 1.0), (1, 0.0)]).over(1000)
        >>> run(0), run(300), run(1000)
        (0.1, 1.0, 0.0)

    Difference from torch: torch has none; ``SequentialLR`` chains schedulers.
    """

    points: Sequence[tuple[float, float]] = field(metadata=check(_points))
    kind: Literal["linear", "cosine", "step"] = field(
        default="linear", metadata=choice("linear", "cosine", "step")
    )

    def _value(self, t: float) -> float:
        start, value = self.points[0]
        if t <= start:
            return value
        for end, following in self.points[1:]:
            if t < end:
                if self.kind == "step":
                    return value
                left = (end - t) / (end - start)
                weight = half_cosine(left) if self.kind == "cosine" else left
                return mix(value, following, weight)
            start, value = end, following
        return value


_functions: dict[str, Callable[[Any], float]] = {}


def _function(name: str, value: Any) -> Callable[[Any], float]:
    if not callable(value):
        message = f"{name} must be a function of t, got {value!r}"
        raise TypeError(message)
    return value  # type: ignore[no-any-return]


def _name(name: str, value: Any) -> str:
    message = f"{name} must be a string that is not empty, got {value!r}"
    if not isinstance(value, str):
        raise TypeError(message)
    if not value:
        raise ValueError(message)
    return value


@dataclass(frozen=True, slots=True, repr=False)
class Custom(Schedule):
    """Any pure function of t, under a name.

    A checkpoint holds the name alone. To load it, the process must have made a ``Custom`` of this name before, with
    the same function: a name stands for one function in a process.

    Args:
        function: called with t, an int (a float in :meth:`Schedule.over`), as often as anybody asks; it returns a
            finite number of at least 0, the same for the same t.
        name: what the function is called in checkpoints.

    Raises:
        ValueError: ``name`` is empty, or stands for another function already.
        TypeError: an argument has the wrong type.

    Example:
        >>> s = Custom(lambda t: 1 / (1 + t) ** 0.7, "slow decay")
        >>> s.to_dict()
        {'schedule': 'Custom', 'name': 'slow decay'}
        >>> from onepass.schedule import from_dict
        >>> from_dict(s.to_dict())(0)
        1.0

    Difference from torch: ``LambdaLR`` multiplies the first learning rate by what the function returns, and leaves the
    function out of its checkpoint without a word.
    """

    function: Callable[[Any], float] = field(metadata=check(_function), compare=False)
    name: str = field(metadata=check(_name))

    def __post_init__(self) -> None:
        Schedule.__post_init__(self)
        known = _functions.setdefault(self.name, self.function)
        if known is not self.function and not _is_same(known, self.function):
            message = (
                f"name {self.name!r} stands for another function already, {known!r}: a checkpoint could not tell them "
                "apart; give this one a name of its own"
            )
            raise ValueError(message)

    def _value(self, t: float) -> float:
        if isinstance(t, Traced):
            message = f"{self!r} is a function of Python, which a device that counts the steps cannot evaluate"
            raise ValueError(message)
        value = self.function(t)
        message = f"{self!r} must give a finite number >= 0, got {value!r} at t = {t}"
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(message)
        result = float(value)
        if not 0.0 <= result < math.inf:
            raise ValueError(message)
        return result

    def to_dict(self) -> dict[str, Any]:
        """Return the name, as plain data."""
        return {"schedule": "Custom", "name": self.name}

    def __reduce__(self) -> tuple[Any, ...]:
        return custom_named, (self.name,)

    def __repr__(self) -> str:
        return f"Custom({getattr(self.function, '__qualname__', self.function)}, {self.name!r})"


def custom_named(name: Any) -> Custom:
    """Return the schedule that has been made under a name.

    Raises:
        ValueError: There is none.
    """
    if name not in _functions:
        message = (
            f"the schedule Custom(function, {name!r}) is not known here: make it before you load it"
        )
        raise ValueError(message)
    return Custom(_functions[name], name)


def _is_same(a: Any, b: Any) -> bool:
    """Return whether two functions are one that was defined twice, as by a notebook's cell that runs again."""
    parts = ("__code__", "__defaults__", "__kwdefaults__")
    if not all(hasattr(f, part) for f in (a, b) for part in parts):
        return bool(a == b)
    if any(getattr(a, part) != getattr(b, part) for part in parts):
        return False
    cells = [[c.cell_contents for c in f.__closure__ or ()] for f in (a, b)]
    return bool(cells[0] == cells[1]) and a.__globals__ is b.__globals__
