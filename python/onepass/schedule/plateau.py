"""Reduction of a learning rate where a metric has stopped to improve: not a function of the step number alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from numbers import Real
from typing import Any, ClassVar, Literal

import torch

from .base import Schedule
from .check import COUNT, NONNEGATIVE, check, choice, number
from .decays import Constant

__all__ = ["Plateau", "Reduced"]


@dataclass(frozen=True, slots=True)
class Plateau:
    r"""Multiply the learning rate by ``factor`` whenever a metric has not improved for a while.

    ``lr=0.1 * Plateau(...)``, ``lr=Cosine(0.1, 100) * Plateau(...)``, or the option ``plateau`` of an optimizer or a
    parameter group. The metric comes from ``opt.observe(metric)``, once for each validation. After more than
    ``patience`` metrics in a row that were no better than the best one,

    .. math:: f \leftarrow f \cdot factor, \qquad lr(t) = \max(f\, s(t), \min(floor, s(t)))

    where s is the schedule (or number) of the learning rate. The state, f among it, lives in ``group["plateau"]`` as
    plain data, so that `state_dict()` holds it.

    Args:
        factor: of each reduction, in (0, 1). Default: 0.1.
        patience: how many metrics in a row may fail to improve without a reduction, at least 0. Default: 10.
        threshold: part of the best metric by which a better one has to differ, at least 0. Default: 1e-4.
        mode: "min" where less is better, "max" where more is. Default: "min".
        cooldown: how many metrics after a reduction are not counted as failures, at least 0. Default: 0.
        floor: learning rate below which no reduction goes, at least 0; a schedule may. Default: 0.

    Raises:
        ValueError: an argument is out of range.
        TypeError: an argument has the wrong type.

    Example:
        >>> from onepass.schedule import Plateau
        >>> import onepass, torch
        >>> opt = onepass.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.5 * Plateau(factor=0.5, patience=1))
        >>> for loss in (1.0, 0.9, 0.9, 0.9):
        ...     opt.observe(loss)
        >>> opt.param_groups[0]["lr"]
        0.25

    Difference from torch: ``ReduceLROnPlateau`` writes into a learning rate that a schedule would overwrite, and has a
    state of its own to save; with a negative metric it takes one for better that is worse by less than the threshold.
    There ``threshold_mode="abs"`` exists, and reductions below 1e-8 are left out.
    """

    __array_ufunc__: ClassVar[None] = (
        None  # numpy.float64(2) * plateau is ours, not an object array
    )

    factor: float = field(default=0.1, metadata=check(partial(number, high=1.0, open_low=True)))
    patience: int = field(default=10, metadata=COUNT)
    threshold: float = field(default=1e-4, metadata=NONNEGATIVE)
    mode: Literal["min", "max"] = field(default="min", metadata=choice("min", "max"))
    cooldown: int = field(default=0, metadata=COUNT)
    floor: float = field(default=0.0, metadata=NONNEGATIVE)

    def __post_init__(self) -> None:
        for f in fields(self):
            object.__setattr__(self, f.name, f.metadata["check"](f.name, getattr(self, f.name)))
        if self.factor == 1.0:
            message = "factor must be a number in (0, 1), got 1.0"
            raise ValueError(message)

    def __mul__(self, lr: Any) -> Reduced:
        if isinstance(lr, Schedule):
            return Reduced(lr, self)
        if isinstance(lr, bool) or not isinstance(lr, Real):
            return NotImplemented
        return Reduced(Constant(float(lr)), self)

    __rmul__ = __mul__

    def start(self) -> dict[str, Any]:
        """Return the state before the first metric, with the arguments, as plain data."""
        return {**asdict(self), "best": None, "bad": 0, "cooling": 0, "reduction": 1.0}


@dataclass(frozen=True, slots=True)
class Reduced:
    """A schedule of the learning rate with what reduces it: ``schedule * plateau``."""

    schedule: Schedule
    plateau: Plateau

    def __repr__(self) -> str:
        return f"{self.schedule!r} * {self.plateau!r}"

    def __mul__(self, factor: float) -> Reduced:
        scaled = self.schedule.__mul__(factor)
        return NotImplemented if scaled is NotImplemented else Reduced(scaled, self.plateau)

    __rmul__ = __mul__


STATE = ("best", "bad", "cooling", "reduction")
"""What changes with each metric."""


def config(state: Any) -> Plateau:
    """Return the arguments that a state was started with.

    Raises:
        TypeError, ValueError: It is not what `Plateau.start` and `observed` return.
    """
    names = {f.name for f in fields(Plateau)}
    if not isinstance(state, Mapping) or state.keys() != names | set(STATE):
        message = f"plateau must be None, a Plateau, or its state in a checkpoint, got {state!r}"
        raise TypeError(message)
    if state["best"] is not None:
        metric_of(state["best"])
    number("reduction", state["reduction"], high=1.0)
    return Plateau(**{name: state[name] for name in names})


def metric_of(metric: Any) -> float:
    """Return a metric as a number; NaN, which is never better, is one."""
    if isinstance(metric, torch.Tensor) and metric.numel() == 1:
        metric = metric.item()
    if isinstance(metric, bool) or not isinstance(metric, Real):
        message = f"metric must be a number, got {metric!r}"
        raise TypeError(message)
    return float(metric)


def observed(state: Mapping[str, Any], metric: float) -> dict[str, Any]:
    """Return the state after one more metric."""
    plateau, found = config(state), dict(state)
    found["cooling"] = max(found["cooling"] - 1, 0)
    if _improves(plateau, found["best"], metric):
        found["best"], found["bad"] = metric, 0
    else:
        found["bad"] += 1
    if state["cooling"]:
        found["bad"] = 0
    if found["bad"] > plateau.patience:
        found["reduction"] *= plateau.factor
        found["bad"], found["cooling"] = 0, plateau.cooldown
    return found


def _improves(plateau: Plateau, best: float | None, metric: float) -> bool:
    sign = 1.0 if plateau.mode == "min" else -1.0
    if best is None:
        return sign * metric < math.inf
    margin = math.copysign(plateau.threshold, sign * best)
    return sign * metric < sign * best * (1.0 - margin)


@dataclass(frozen=True, slots=True, repr=False)
class Lowered(Schedule):
    """A schedule of the learning rate with all reductions so far."""

    of: Schedule
    reduction: float
    floor: float

    def __post_init__(self) -> None:
        """Take what has been checked."""

    def _value(self, t: float) -> float:
        lr = self.of._value(t)
        return max(lr * self.reduction, min(self.floor, lr))


def lowered(state: Mapping[str, Any] | None, schedule: Schedule) -> Schedule:
    """Return a schedule of the learning rate as the state of a group's plateau, if it has one, has reduced it."""
    if state is None:
        return schedule
    return Lowered(schedule, float(state["reduction"]), float(state["floor"]))
