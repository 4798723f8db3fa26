"""What every schedule is: an immutable value that is a function of the step number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import MISSING, dataclass, field, fields
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, SupportsIndex, cast

from .check import COUNT, LAST_STEP, NONNEGATIVE, POSITIVE_COUNT, check, count, step_number
from .curves import mix

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from matplotlib.axes import Axes

__all__ = ["Over", "Scaled", "Schedule", "Then", "Warmup", "current_axes"]


class Schedule(ABC):
    r"""A hyper-parameter as a function of the number of steps already applied.

    ``s(t)`` is the value that the step after ``t`` applied steps uses: ``s(0)`` in the first step.
    It is computed in double from ``t`` alone, so any ``t`` may be asked for, in any order.

    Schedules are immutable, hashable and compared by value; ``eval(repr(s)) == s``. They compose:

    * ``s.warmup(n, start=0.0)`` rises to ``s(0)`` in ``n`` steps, then runs ``s`` from its start,
    * ``s.then(other, at=n)`` runs ``other`` from its own start after ``n`` steps,
    * ``s * k`` and ``k * s`` scale the values,
    * ``s.over(n)`` stretches what was written for ``t`` in [0, 1] over ``n`` steps.

    All values are at least 0.

    Example:
        >>> from onepass.schedule import Constant, Cosine
        >>> s = Cosine(1.0, 100).warmup(4)
        >>> [s(t) for t in (0, 3, 4, 54, 104)]
        [0.25, 1.0, 1.0, 0.5, 0.0]
        >>> s.then(Constant(0.001), at=50) * 2
        Cosine(1.0, 100).warmup(4).then(Constant(0.001), at=50) * 2.0

    Difference from torch: a scheduler there counts its own calls and writes into an optimizer; a
    schedule here is a value, and whoever counts the steps asks it.
    """

    __slots__ = ()
    __array_ufunc__: ClassVar[None] = None  # numpy.float64(2) * s is ours, not an object array

    def __call__(self, t: SupportsIndex) -> float:
        """Return the value used by the step after ``t`` applied steps, ``t >= 0`` an integer."""
        if type(t) is not int or not 0 <= t <= LAST_STEP:
            t = step_number(t)
        return self._value(t)

    @abstractmethod
    def _value(self, t: float) -> float:
        """Return the value at ``t``, which has been checked; a fraction where `_takes_fractions`."""

    def _takes_fractions(self) -> bool:
        """Return whether the formula also holds between two steps, as `over` asks for it."""
        parts = (getattr(self, f.name) for f in fields(cast("DataclassInstance", self)))
        return all(part._takes_fractions() for part in parts if isinstance(part, Schedule))

    def __post_init__(self) -> None:
        for f in fields(cast("DataclassInstance", self)):
            checked = f.metadata["check"](f.name, getattr(self, f.name))
            object.__setattr__(self, f.name, checked)

    def __repr__(self) -> str:
        arguments = []
        for f in fields(cast("DataclassInstance", self)):
            value = getattr(self, f.name)
            if f.default is MISSING:
                arguments.append(repr(value))
            elif value != f.default:
                arguments.append(f"{f.name}={value!r}")
        return f"{type(self).__name__}({', '.join(arguments)})"

    def warmup(self, n: int, start: float = 0.0) -> Warmup:
        r"""Return this schedule after a linear rise over ``n`` steps.

        .. math:: start + (s(0) - start)\,(t + 1)/n \quad (t < n), \qquad s(t - n) \quad (t \ge n)

        The first step already moves, step ``n - 1`` is at the peak, and the whole run is ``n``
        steps longer than ``s``.

        Args:
            n: length of the rise in steps, at least 0.
            start: the value that the rise starts above, at least 0. Default: 0.

        Raises:
            ValueError: an argument is out of range.
            TypeError: an argument has the wrong type.

        Example:
            >>> from onepass.schedule import Constant
            >>> Constant(1.0).warmup(4).table(6)
            [(0, 0.25), (1, 0.5), (2, 0.75), (3, 1.0), (4, 1.0), (5, 1.0)]

        Reference: Goyal et al., Accurate, Large Minibatch SGD, 2017, section 2.2.

        Difference from torch: ``LinearLR(start_factor=f, total_iters=n)`` has the factor ``f`` in
        the first step and is at the peak after ``n`` steps, one later than here.
        """
        return Warmup(self, count("n", n), start)

    def then(self, other: Schedule, at: int) -> Then:
        """Return this schedule for ``t < at`` and ``other(t - at)`` from ``at`` on.

        Args:
            other: the schedule that follows; it starts at its own 0.
            at: number of steps before it, at least 0.

        Raises:
            ValueError: ``at`` is out of range.
            TypeError: an argument has the wrong type.

        Example:
            >>> from onepass.schedule import Constant, Linear
            >>> Constant(1.0).then(Linear(1.0, 2), at=2).table(5)
            [(0, 1.0), (1, 1.0), (2, 1.0), (3, 0.5), (4, 0.0)]
        """
        return Then(self, other, at)

    def over(self, steps: int) -> Over:
        r"""Return this schedule, written for ``t`` in [0, 1], stretched over a run of ``steps``.

        .. math:: s(\min(t, T) / T)

        The first step has ``s(0)``, and all from ``t = steps`` on have ``s(1)``. So the shape of a
        run is written once, for runs of any length. A warm-up of so many steps goes around it:
        ``s.over(N - W).warmup(W)``.

        Args:
            steps: T, length of the run, at least 1.

        Raises:
            ValueError: ``steps`` is out of range, or this schedule counts whole steps, as warm-ups
                and `OneCycle` do.
            TypeError: ``steps`` is no integer.

        Example:
            >>> from onepass.schedule import Cosine, Piecewise
            >>> shape = Piecewise([(0, 0.0), (0.1, 1.0), (1, 0.2)])
            >>> [round(shape.over(20)(t), 3) for t in (0, 1, 2, 11, 20, 30)]
            [0.0, 0.5, 1.0, 0.6, 0.2, 0.2]
            >>> Cosine(1.0, 1).over(100)(50) == Cosine(1.0, 100)(50)
            True
        """
        return Over(self, steps)

    def __mul__(self, factor: float) -> Scaled:
        if isinstance(factor, bool) or not isinstance(factor, Real):
            return NotImplemented
        return Scaled(self, factor)

    __rmul__ = __mul__

    def to_dict(self) -> dict[str, Any]:
        """Return the schedule as strings, numbers, lists and dicts; `from_dict` reads it.

        ``torch.load(weights_only=True)`` and JSON take it.

        Example:
            >>> from onepass.schedule import Cosine
            >>> Cosine(0.1, 100).to_dict()
            {'schedule': 'Cosine', 'v': 0.1, 'steps': 100, 'final': 0.0}
        """
        plain: dict[str, Any] = {"schedule": type(self).__name__}
        for f in fields(cast("DataclassInstance", self)):
            value = getattr(self, f.name)
            plain[f.name] = value.to_dict() if isinstance(value, Schedule) else _lists(value)
        return plain

    def table(self, n: int) -> list[tuple[int, float]]:
        """Return ``(t, value)`` for ``t < n``."""
        return [(t, self._value(t)) for t in range(count("n", n))]

    def plot(self, n: int, ax: Axes | None = None) -> Axes:
        """Draw the first ``n`` values and return the Axes.

        Args:
            n: number of steps to draw, at least 0.
            ax: matplotlib Axes to draw on. Default: pyplot's current ones, so that several plots
                share a picture.

        Raises:
            ImportError: matplotlib is missing.
        """
        values = [value for _, value in self.table(n)]
        if ax is None:
            ax = current_axes()
        ax.plot(range(len(values)), values, drawstyle="steps-post", label=repr(self))
        ax.set_xlabel("steps already applied")
        return ax


def current_axes() -> Axes:
    """Return pyplot's current Axes, for a ``plot``."""
    try:
        from matplotlib import pyplot
    except ImportError as error:
        message = "plot() needs matplotlib; install it with: pip install matplotlib"
        raise ImportError(message) from error
    return pyplot.gca()


def _lists(value: Any) -> Any:
    return [_lists(v) for v in value] if isinstance(value, tuple) else value


def _schedule(name: str, value: Any) -> Schedule:
    if not isinstance(value, Schedule):
        message = f"{name} must be a schedule, got {value!r}"
        raise TypeError(message)
    return value


@dataclass(frozen=True, slots=True, repr=False)
class Warmup(Schedule):
    """``of`` after a linear rise; made by `Schedule.warmup`."""

    of: Schedule = field(metadata=check(_schedule))
    steps: int = field(metadata=COUNT)
    start: float = field(default=0.0, metadata=NONNEGATIVE)

    def _value(self, t: float) -> float:
        if t < self.steps:
            return mix(self.of._value(0), self.start, (t + 1) / self.steps)
        return self.of._value(t - self.steps)

    def _takes_fractions(self) -> bool:
        return not self.steps and self.of._takes_fractions()

    def __repr__(self) -> str:
        start = f", start={self.start!r}" if self.start else ""
        return f"{_operand(self.of)}.warmup({self.steps}{start})"


@dataclass(frozen=True, slots=True, repr=False)
class Then(Schedule):
    """``first``, and from ``at`` on ``other``; made by `Schedule.then`."""

    first: Schedule = field(metadata=check(_schedule))
    other: Schedule = field(metadata=check(_schedule))
    at: int = field(metadata=COUNT)

    def _value(self, t: float) -> float:
        if t < self.at:
            return self.first._value(t)
        return self.other._value(t - self.at)

    def __repr__(self) -> str:
        return f"{_operand(self.first)}.then({self.other!r}, at={self.at})"


@dataclass(frozen=True, slots=True, repr=False)
class Scaled(Schedule):
    """``factor`` times ``of``; made by ``s * k``."""

    of: Schedule = field(metadata=check(_schedule))
    factor: float = field(metadata=NONNEGATIVE)

    def _value(self, t: float) -> float:
        # 0 * inf is NaN, but nothing of a schedule that has overflowed is still nothing
        return self.factor * self.of._value(t) if self.factor else 0.0

    def __repr__(self) -> str:
        return f"{self.of!r} * {self.factor!r}"


def _of_fractions(name: str, value: Any) -> Schedule:
    if not _schedule(name, value)._takes_fractions():
        message = (
            f"{name} must be a schedule for t in [0, 1], got {value!r}, which counts whole steps: "
            "put a warm-up around it, s.over(steps).warmup(n)"
        )
        raise ValueError(message)
    return cast("Schedule", value)


@dataclass(frozen=True, slots=True, repr=False)
class Over(Schedule):
    """``of``, written for [0, 1], over ``steps``; made by `Schedule.over`."""

    of: Schedule = field(metadata=check(_of_fractions))
    steps: int = field(metadata=POSITIVE_COUNT)

    def _value(self, t: float) -> float:
        return self.of._value(min(t, self.steps) / self.steps)

    def __repr__(self) -> str:
        return f"{_operand(self.of)}.over({self.steps})"


def _operand(s: Schedule) -> str:
    return f"({s!r})" if isinstance(s, Scaled) else repr(s)
