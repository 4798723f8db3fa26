"""Schedules without an end: constant, steps, exponential, inverse square root."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from .base import Schedule
from .check import FLAG, NONNEGATIVE, POSITIVE, POSITIVE_COUNT, check, count
from .curves import geometric
from .traced import sqrt

__all__ = ["Constant", "Exponential", "InverseSqrt", "MultiStep", "Step"]


@dataclass(frozen=True, slots=True, repr=False)
class Constant(Schedule):
    r"""The same value for ever.

    .. math:: s(t) = v

    Args:
        v: the value, at least 0.

    Raises:
        ValueError: ``v`` is negative or not finite.
        TypeError: ``v`` is not a number.

    Example:
        >>> from onepass.schedule import Constant
        >>> Constant(0.1).warmup(2).table(3)
        [(0, 0.05), (1, 0.1), (2, 0.1)]
    """

    v: float = field(metadata=NONNEGATIVE)

    def _value(self, t: float) -> float:  # noqa: ARG002 - the one schedule that does not look
        return self.v


@dataclass(frozen=True, slots=True, repr=False)
class Step(Schedule):
    r"""Multiply by ``gamma`` every ``step_size`` steps.

    .. math:: s(t) = v\,\gamma^{\lfloor t / S \rfloor}

    Args:
        v: the first value, at least 0.
        step_size: S, number of steps between two changes, at least 1.
        gamma: factor of each change, at least 0. Default: 0.1.

    Raises:
        ValueError: an argument is out of range.
        TypeError: an argument has the wrong type.

    Example:
        >>> from onepass.schedule import Step
        >>> s = Step(1.0, 30, gamma=0.5)
        >>> s(29), s(30), s(60)
        (1.0, 0.5, 0.25)

    Difference from torch: ``StepLR`` multiplies the last value again and again; here each value is
    computed afresh.
    """

    v: float = field(metadata=NONNEGATIVE)
    step_size: int = field(metadata=POSITIVE_COUNT)
    gamma: float = field(default=0.1, metadata=NONNEGATIVE)

    def _value(self, t: float) -> float:
        return geometric(self.v, self.gamma, t // self.step_size)


def _milestones(name: str, value: Any) -> tuple[int, ...]:
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        message = f"{name} must be a sequence of integers >= 0, got {value!r}"
        raise TypeError(message)
    numbers = tuple(count(f"{name}[{i}]", m) for i, m in enumerate(value))
    if any(a >= b for a, b in pairwise(numbers)):
        message = f"{name} must be strictly increasing, got {list(numbers)!r}"
        raise ValueError(message)
    return numbers


@dataclass(frozen=True, slots=True, repr=False)
class MultiStep(Schedule):
    r"""Multiply by ``gamma`` at each milestone.

    .. math:: s(t) = v\,\gamma^{\#\{i : m_i \le t\}}

    Args:
        v: the first value, at least 0.
        milestones: m, strictly increasing step numbers, at least 0; kept as a tuple.
        gamma: factor of each change, at least 0. Default: 0.1.

    Raises:
        ValueError: an argument is out of range, or the milestones do not increase.
        TypeError: an argument has the wrong type.

    Example:
        >>> from onepass.schedule import MultiStep
        >>> s = MultiStep(1.0, [30, 80], gamma=0.5)
        >>> s(29), s(30), s(80)
        (1.0, 0.5, 0.25)
        >>> s
        MultiStep(1.0, (30, 80), gamma=0.5)

    Difference from torch: ``MultiStepLR`` takes a repeated milestone as two changes; here that is
    an error.
    """

    v: float = field(metadata=NONNEGATIVE)
    milestones: Sequence[int] = field(metadata=check(_milestones))
    gamma: float = field(default=0.1, metadata=NONNEGATIVE)

    def _value(self, t: float) -> float:
        return geometric(self.v, self.gamma, bisect_right(self.milestones, t))


@dataclass(frozen=True, slots=True, repr=False)
class Exponential(Schedule):
    r"""Multiply by ``gamma`` over every ``decay_steps`` steps, smoothly or in a staircase.

    .. math::
        s(t) = v\,\gamma^{t / S} \qquad \text{or, as a staircase,} \qquad
        s(t) = v\,\gamma^{\lfloor t / S \rfloor}

    Args:
        v: the first value, at least 0.
        gamma: factor over ``decay_steps`` steps, at least 0. Above 1 the value grows, at last to
            inf, as a search for the learning rate wants it.
        decay_steps: S, at least 1. Default: 1.
        staircase: change only every ``decay_steps`` steps. Default: False.

    Raises:
        ValueError: an argument is out of range.
        TypeError: an argument has the wrong type.

    Example:
        >>> from onepass.schedule import Exponential
        >>> Exponential(1.0, 0.25, decay_steps=2).table(4)
        [(0, 1.0), (1, 0.5), (2, 0.25), (3, 0.125)]
        >>> Exponential(1.0, 0.25, decay_steps=2, staircase=True).table(4)
        [(0, 1.0), (1, 1.0), (2, 0.25), (3, 0.25)]

    Difference from torch: ``ExponentialLR`` knows only S = 1, and its product of t factors has
    lost 0.2 % after 10^5 steps when the learning rate is a float32 tensor.
    """

    v: float = field(metadata=NONNEGATIVE)
    gamma: float = field(metadata=NONNEGATIVE)
    decay_steps: int = field(default=1, metadata=POSITIVE_COUNT)
    staircase: bool = field(default=False, metadata=FLAG)

    def _value(self, t: float) -> float:
        exponent = t // self.decay_steps if self.staircase else t / self.decay_steps
        return geometric(self.v, self.gamma, exponent)


@dataclass(frozen=True, slots=True, repr=False)
class InverseSqrt(Schedule):
    r"""Decay as one over the square root of time.

    .. math:: s(t) = v \sqrt{\tau / (\tau + t)}

    Args:
        v: the first value, at least 0.
        timescale: tau, steps until the value is v / sqrt(2), above 0.

    Raises:
        ValueError: an argument is out of range.
        TypeError: an argument has the wrong type.

    Example:
        >>> from onepass.schedule import InverseSqrt
        >>> InverseSqrt(1.0, 100)(300)
        0.5
        >>> s = InverseSqrt(1.0, 4000).warmup(4000)  # the Transformer's shape
        >>> s(1999), s(3999), s(16000)
        (0.5, 1.0, 0.5)

    Reference: Vaswani et al., Attention Is All You Need, 2017, equation 3 (with the warm-up).

    Difference from torch: torch has none; Hugging Face's ``get_inverse_sqrt_schedule`` is
    ``InverseSqrt(v, timescale=W).warmup(W)`` with its warm-up one step later.
    """

    v: float = field(metadata=NONNEGATIVE)
    timescale: float = field(metadata=POSITIVE)

    def _value(self, t: float) -> float:
        root: float = sqrt(self.timescale / (self.timescale + t))
        return self.v * root
