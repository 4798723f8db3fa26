"""Schedules that go to a final value in a given number of steps: linear, polynomial, cosine."""

from __future__ import annotations

from dataclasses import dataclass, field

from .base import Schedule
from .check import LAST_STEP, NONNEGATIVE, POSITIVE, POSITIVE_COUNT
from .curves import half_cosine, mix

__all__ = ["Cosine", "Linear", "Polynomial", "WarmRestarts"]


@dataclass(frozen=True, slots=True, repr=False)
class Linear(Schedule):
    r"""Go to ``final`` in a straight line, then stay.

    .. math:: s(t) = f + (v - f)\,(1 - \min(t, T) / T)

    Args:
        v: the first value, at least 0.
        steps: T, at least 1; ``s(T)`` is the first to be ``final``.
        final: f, absolute, at least 0; may be above ``v``. Default: 0.

    Raises:
        ValueError: an argument is out of range.
        TypeError: an argument has the wrong type.

    Example:
        >>> from onepass.schedule import Linear
        >>> Linear(1.0, 4).table(6)
        [(0, 1.0), (1, 0.75), (2, 0.5), (3, 0.25), (4, 0.0), (5, 0.0)]

    Difference from torch: ``LinearLR(start_factor=1, end_factor=f / v, total_iters=T)``.
    """

    v: float = field(metadata=NONNEGATIVE)
    steps: int = field(metadata=POSITIVE_COUNT)
    final: float = field(default=0.0, metadata=NONNEGATIVE)

    def _value(self, t: float) -> float:
        if t >= self.steps:
            return self.final
        return mix(self.v, self.final, (self.steps - t) / self.steps)


@dataclass(frozen=True, slots=True, repr=False)
class Polynomial(Schedule):
    r"""Go to ``final`` along a power of the steps left, then stay.

    .. math:: s(t) = f + (v - f)\,(1 - \min(t, T) / T)^p

    Args:
        v: the first value, at least 0.
        steps: T, at least 1; ``s(T)`` is the first to be ``final``.
        power: p, above 0.
        final: f, absolute, at least 0; may be above ``v``. Default: 0.

    Raises:
        ValueError: an argument is out of range.
        TypeError: an argument has the wrong type.

    Example:
        >>> from onepass.schedule import Polynomial
        >>> Polynomial(1.0, 4, 2).table(6)
        [(0, 1.0), (1, 0.5625), (2, 0.25), (3, 0.0625), (4, 0.0), (5, 0.0)]

    Difference from torch: ``PolynomialLR`` always goes to 0.
    """

    v: float = field(metadata=NONNEGATIVE)
    steps: int = field(metadata=POSITIVE_COUNT)
    power: float = field(metadata=POSITIVE)
    final: float = field(default=0.0, metadata=NONNEGATIVE)

    def _value(self, t: float) -> float:
        if t >= self.steps:
            return self.final
        return mix(self.v, self.final, ((self.steps - t) / self.steps) ** self.power)


@dataclass(frozen=True, slots=True, repr=False)
class Cosine(Schedule):
    r"""Go to ``final`` along half a cosine, then stay.

    .. math:: s(t) = f + (v - f)\,\frac{1 + \cos(\pi \min(t, T) / T)}{2}

    Args:
        v: the first value, at least 0.
        steps: T, at least 1; ``s(T)`` is the first to be ``final``.
        final: f, absolute, at least 0; may be above ``v``. Default: 0.

    Raises:
        ValueError: an argument is out of range.
        TypeError: an argument has the wrong type.

    Example:
        >>> from onepass.schedule import Cosine
        >>> s = Cosine(0.1, 100, final=0.01)
        >>> s(0), s(50), s(100), s(1000)
        (0.1, 0.055, 0.01, 0.01)

    Reference: Loshchilov and Hutter, SGDR, 2017, equation 5, without the restarts.

    Difference from torch: ``CosineAnnealingLR(T_max=T, eta_min=f)`` rises again after ``T_max``.
    """

    v: float = field(metadata=NONNEGATIVE)
    steps: int = field(metadata=POSITIVE_COUNT)
    final: float = field(default=0.0, metadata=NONNEGATIVE)

    def _value(self, t: float) -> float:
        if t >= self.steps:
            return self.final
        return mix(self.v, self.final, half_cosine((self.steps - t) / self.steps))


@dataclass(frozen=True, slots=True, repr=False)
class WarmRestarts(Schedule):
    r"""Half cosines one after another, each ``multiplier`` times as long as the one before.

    .. math::
        s(t) = f + (v - f)\,\frac{1 + \cos(\pi u / T_i)}{2}, \qquad
        T_i = T_0 m^i, \quad u = t - (T_0 + \dots + T_{i-1}) \in [0, T_i)

    Args:
        v: the value at each restart, at least 0.
        period: T_0, length of the first cycle in steps, at least 1.
        multiplier: m, an integer of at least 1. Default: 1.
        final: f, absolute, at least 0; the value that a cycle goes to, and does not reach, since
            the restart comes in its place. Default: 0.

    Raises:
        ValueError: an argument is out of range.
        TypeError: an argument has the wrong type.

    Example:
        >>> from onepass.schedule import WarmRestarts
        >>> s = WarmRestarts(1.0, 10, multiplier=2)
        >>> [t for t, value in s.table(100) if value == 1.0]
        [0, 10, 30, 70]

    Reference: Loshchilov and Hutter, SGDR, 2017, equation 5.

    Difference from torch: ``CosineAnnealingWarmRestarts.step(t)`` finds the cycle by a floating
    logarithm and is a whole cycle off at some restarts (T_0 = 1, T_mult = 3, t = 121); here the
    cycle is found in integers.
    """

    v: float = field(metadata=NONNEGATIVE)
    period: int = field(metadata=POSITIVE_COUNT)
    multiplier: int = field(default=1, metadata=POSITIVE_COUNT)
    final: float = field(default=0.0, metadata=NONNEGATIVE)

    def _value(self, t: float) -> float:
        length = self.period
        if self.multiplier == 1:
            t %= length
        else:
            while length <= LAST_STEP and t >= length:  # at most 63 times: it at least doubles
                t -= length
                length *= self.multiplier
        return mix(self.v, self.final, half_cosine((length - t) / length))
