"""Schedules of several phases that carry a name of their own: 1cycle, warm-up-stable-decay."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from .base import Schedule
from .check import COUNT, FLAG, FRACTION, NONNEGATIVE, POSITIVE, POSITIVE_COUNT, choice, count
from .curves import half_cosine, mix
from .traced import expm1, sqrt

__all__ = ["WSD", "OneCycle"]


@dataclass(frozen=True, slots=True, repr=False)
class OneCycle(Schedule):
    r"""Rise from ``v / div_factor`` to ``v``, then fall to almost nothing.

    With T = ``steps``, the top at :math:`a = p T - 1` (not always an integer), and the low and last
    values :math:`l = v / d`, :math:`e = l / d_f`:

    .. math::
        s(t) = \begin{cases}
            v + (l - v)\,c(t / a) & t \le a \\
            e + (v - e)\,c((t - a) / (T - 1 - a)) & a < t \le T - 1 \\
            s(T - 1) & t \ge T
        \end{cases}
        \qquad c(x) = \frac{1 + \cos \pi x}{2} \text{ or } 1 - x

    With ``three_phase`` the fall is to l at 2a, and from there to e.

    Args:
        v: the peak, at least 0.
        steps: T, length of the run, at least 1; the last value is reached at ``t = steps - 1``.
        pct_start: p, the part of the run that rises, in [0, 1] (with ``three_phase`` in [0, 0.5]).
            Default: 0.3.
        anneal_strategy: ``"cos"`` or ``"linear"``. Default: ``"cos"``.
        div_factor: d, above 0. Default: 25.
        final_div_factor: d_f, above 0. Default: 10^4.
        three_phase: fall to the low value first. Default: False.

    Raises:
        ValueError: an argument is out of range.
        TypeError: an argument has the wrong type.

    Example:
        >>> from onepass.schedule import OneCycle
        >>> s = OneCycle(0.1, 100)
        >>> [f"{s(t):.2g}" for t in (0, 29, 64, 99)]
        ['0.004', '0.1', '0.05', '4e-07']

    Reference: Smith and Topin, Super-Convergence, 2018.

    Difference from torch: ``OneCycleLR`` also moves the momentum (give ``momentum`` its own
    schedule for that) and raises after ``total_steps``; here the last value stays.
    """

    v: float = field(metadata=NONNEGATIVE)
    steps: int = field(metadata=POSITIVE_COUNT)
    pct_start: float = field(default=0.3, metadata=FRACTION)
    anneal_strategy: Literal["cos", "linear"] = field(
        default="cos", metadata=choice("cos", "linear")
    )
    div_factor: float = field(default=25.0, metadata=POSITIVE)
    final_div_factor: float = field(default=1e4, metadata=POSITIVE)
    three_phase: bool = field(default=False, metadata=FLAG)

    def __post_init__(self) -> None:
        Schedule.__post_init__(self)
        if self.three_phase and self.pct_start > 0.5:
            message = f"pct_start must be in [0, 0.5] with three_phase, got {self.pct_start!r}"
            raise ValueError(message)

    def _value(self, t: float) -> float:
        last = self.steps - 1
        t = min(t, last)
        low = self.v / self.div_factor
        end = low / self.final_div_factor
        top = self.pct_start * self.steps - 1.0
        if t <= top:
            return self._anneal(low, self.v, top - t, top)
        if not self.three_phase:
            return self._anneal(self.v, end, last - t, last - top)
        down = 2.0 * top
        if t <= down:
            return self._anneal(self.v, low, down - t, down - top)
        return self._anneal(low, end, last - t, last - down)

    def _takes_fractions(self) -> bool:
        return False

    def _anneal(self, start: float, end: float, left: float, length: float) -> float:
        part = left / length if length else 0.0  # a phase of no length is over
        return mix(start, end, half_cosine(part) if self.anneal_strategy == "cos" else part)


_SHAPES = ("1-sqrt", "linear", "cosine", "exponential")


@dataclass(frozen=True, slots=True, repr=False, init=False)
class WSD(Schedule):
    r"""Warm up, stay stable, decay: the trapezoid.

    With the warm-up W, the stable phase S, the decay D and :math:`x = (t - W - S) / D`:

    .. math::
        s(t) = \begin{cases}
            v\,(t + 1) / W & t < W \\
            v & W \le t < W + S \\
            f + (v - f)\,c(x) & W + S \le t < W + S + D \\
            f & t \ge W + S + D
        \end{cases}

    where c is, by ``shape``, :math:`1 - \sqrt x`, :math:`1 - x`, :math:`(1 + \cos \pi x) / 2` or,
    for ``"exponential"``, :math:`2 \cdot 2^{-x} - 1`. All four go from v to f exactly.

    Args:
        v: the value of the stable phase, at least 0.
        warmup: W, steps of the rise, at least 0; the attribute is ``warmup_steps``.
        stable: S, steps at ``v``, at least 0.
        decay: D, steps of the decay, at least 1.
        shape: ``"1-sqrt"``, ``"linear"``, ``"cosine"`` or ``"exponential"``. Default: ``"1-sqrt"``.
        final: f, absolute, at least 0. Default: 0.

    Raises:
        ValueError: an argument is out of range.
        TypeError: an argument has the wrong type.

    Example:
        >>> from onepass.schedule import WSD
        >>> s = WSD(1.0, warmup=2, stable=2, decay=4)
        >>> [round(value, 2) for _, value in s.table(9)]
        [0.5, 1.0, 1.0, 1.0, 1.0, 0.5, 0.29, 0.13, 0.0]

    Reference: Hägele et al., Scaling Laws and Compute-Optimal Training Beyond Fixed Training
    Durations, 2024 (1-sqrt); Hu et al., MiniCPM, 2024 (the name). The four shapes are Megatron-LM's
    ``lr_wsd_decay_style``.

    Difference from torch: torch has none.
    """

    v: float = field(metadata=NONNEGATIVE)
    warmup_steps: int = field(metadata=COUNT)  # not "warmup", which is a method
    stable: int = field(metadata=COUNT)
    decay: int = field(metadata=POSITIVE_COUNT)
    shape: str = field(default="1-sqrt", metadata=choice(*_SHAPES))
    final: float = field(default=0.0, metadata=NONNEGATIVE)

    def __init__(
        self,
        v: float,
        warmup: int,
        stable: int,
        decay: int,
        shape: Literal["1-sqrt", "linear", "cosine", "exponential"] = "1-sqrt",
        final: float = 0.0,
    ) -> None:
        given = {"v": v, "warmup_steps": count("warmup", warmup), "stable": stable, "decay": decay}
        for name, value in (given | {"shape": shape, "final": final}).items():
            object.__setattr__(self, name, value)
        self.__post_init__()

    def _value(self, t: float) -> float:
        if t < self.warmup_steps:
            return self.v * ((t + 1) / self.warmup_steps)
        u = t - self.warmup_steps - self.stable
        if u <= 0:
            return self.v
        if u >= self.decay:
            return self.final
        left = (self.decay - u) / self.decay
        if self.shape == "linear":
            weight = left
        elif self.shape == "cosine":
            weight = half_cosine(left)
        elif self.shape == "exponential":
            weight = expm1(left * math.log(2.0))
        else:  # 1 - sqrt(x) without its cancellation near x = 1
            weight = left / (1.0 + sqrt(u / self.decay))
        return mix(self.v, self.final, weight)

    def _takes_fractions(self) -> bool:
        return not self.warmup_steps
