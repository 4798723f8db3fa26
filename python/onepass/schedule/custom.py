"""A schedule that is any function of t; wherever it is copied or saved, its name stands for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import CodeType, FunctionType
from typing import Any, SupportsFloat

from .base import Schedule
from .check import check, number
from .traced import Traced

__all__ = ["Custom", "named"]

_FUNCTIONS: dict[str, Callable[[Any], SupportsFloat]] = {}
"""The functions of all that were made in this process, by their names."""


def _name(name: str, value: Any) -> str:
    message = f"{name} must be a string that is not empty, got {value!r}"
    if not isinstance(value, str):
        raise TypeError(message)
    if not value:
        raise ValueError(message)
    return value


@dataclass(frozen=True, slots=True, repr=False, init=False)
class Custom(Schedule):
    r"""Any pure function of ``t``.

    .. math:: s(t) = function(t)

    A checkpoint holds the name only; loading it needs a ``Custom`` of the same name that was made
    before in the process. So do pickle and copies, which therefore take lambdas too. Schedules of
    one name are equal, and a name belongs to one function. Running the same definition again, as in
    a notebook, is no other function: its code, defaults and closed-over values are compared (not
    the globals that it reads), and the newer one is taken.

    Args:
        function: takes t, an integer of at least 0 (with `Schedule.over` a fraction in [0, 1]), and
            returns a finite number of at least 0. It must be pure: t alone decides.
        name: what stands for the function; not empty.

    Raises:
        ValueError: the name belongs to another function or is empty. When a value is used: it is
            negative or not finite, or a device that counts the steps itself is to compute it.
        TypeError: an argument has the wrong type; when a value is used, it is no number.

    Example:
        >>> from onepass.schedule import Custom
        >>> s = Custom(lambda t: 0.1 / (1 + t // 10), "a tenth, then a twentieth")
        >>> s(0), s(10), s.warmup(2)(0)
        (0.1, 0.05, 0.05)
        >>> s.to_dict()
        {'schedule': 'Custom', 'name': 'a tenth, then a twentieth'}

    Difference from torch: ``LambdaLR`` saves nothing of a function and multiplies by it; here the
    value is absolute, and a checkpoint of another function's name is refused.
    """

    name: str = field(metadata=check(_name))

    def __init__(self, function: Callable[[Any], SupportsFloat], name: str) -> None:
        if not callable(function):
            message = f"function must be a function of t, got {function!r}"
            raise TypeError(message)
        object.__setattr__(self, "name", name)
        self.__post_init__()
        known = _FUNCTIONS.get(self.name, function)
        if not _is_same(known, function):
            message = (
                f"name must be one of this function's own: {self.name!r} already stands for "
                f"{known!r}, which is not {function!r}"
            )
            raise ValueError(message)
        _FUNCTIONS[self.name] = function

    def _value(self, t: float) -> float:
        if isinstance(t, Traced):
            message = (
                f"{self!r} can only be evaluated on the host, but a device counts the steps here "
                "(capturable, fused, max_grad_norm or skip_nonfinite): leave those out, or give the "
                "values as a Piecewise"
            )
            raise ValueError(message)
        return number(f"{self!r} at t = {t}", _FUNCTIONS[self.name](t))

    def __repr__(self) -> str:
        function = _FUNCTIONS[self.name]
        return f"Custom({getattr(function, '__name__', repr(function))}, {self.name!r})"

    def __reduce__(self) -> tuple[Callable[[str], Custom], tuple[str]]:
        return named, (self.name,)


def named(name: str) -> Custom:
    """Return the `Custom` of a name.

    Raises:
        ValueError: None was made in this process.
    """
    if _name("name", name) not in _FUNCTIONS:
        message = (
            f"the schedule Custom(..., {name!r}) is not known in this process: make "
            f"onepass.schedule.Custom(function, {name!r}) first, with the function that it was "
            "saved with"
        )
        raise ValueError(message)
    return Custom(_FUNCTIONS[name], name)


def _is_same(a: object, b: object) -> bool:
    """Return whether two functions are one, or were made by the same definition with the same values."""
    try:
        return a is b or bool(_definition(a) == _definition(b))
    except Exception:  # arrays have no equality that is yes or no, what calls itself has no end
        return False


def _definition(function: object) -> Any:
    if not isinstance(function, FunctionType):
        return function
    cells = [_definition(cell.cell_contents) for cell in function.__closure__ or ()]
    return _code(function.__code__), function.__defaults__, function.__kwdefaults__, cells


def _code(code: CodeType) -> CodeType:
    """Return code without the lines it stood on."""
    parts = tuple(_code(c) if isinstance(c, CodeType) else c for c in code.co_consts)
    return code.replace(co_consts=parts, co_filename="", co_firstlineno=1, co_linetable=b"")
