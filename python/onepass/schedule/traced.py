"""A stand-in for the number of steps that notes what is done with it, so that a formula can be taken apart."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Union

__all__ = ["Answers", "Traced", "code_of", "cos", "expm1", "power", "sin", "sqrt"]

Number = Union[float, "Traced"]
Code = list[tuple[str, float]]


class Traced:
    """A number that depends on the steps done: what was done to get it, and which answers it gives to questions."""

    __slots__ = ("answers", "code")

    def __init__(self, code: Code, answers: Answers) -> None:
        self.code, self.answers = code, answers

    def _with(self, op: str, *others: Number, first: bool = True) -> Traced:
        parts = [self, *others] if first else [*others, self]
        return Traced([i for part in parts for i in code_of(part)] + [(op, 0.0)], self.answers)

    def __add__(self, other: Number) -> Traced:
        return self._with("add", other)

    __radd__ = __add__

    def __sub__(self, other: Number) -> Traced:
        return self._with("subtract", other)

    def __rsub__(self, other: Number) -> Traced:
        return self._with("subtract", other, first=False)

    def __mul__(self, other: Number) -> Traced:
        return self._with("multiply", other)

    def __rmul__(self, other: Number) -> Traced:
        return self._with("multiply", other, first=False)

    def __truediv__(self, other: Number) -> Traced:
        return self._with("divide", other)

    def __rtruediv__(self, other: Number) -> Traced:
        return self._with("divide", other, first=False)

    def __floordiv__(self, other: Number) -> Traced:
        return self._with("floor_divide", other)

    def __mod__(self, other: Number) -> Traced:
        return self._with("remainder", other)

    def __pow__(self, other: Number) -> Traced:
        return self._with("power", other)

    def __rpow__(self, other: Number) -> Traced:
        return self._with("power", other, first=False)

    def __lt__(self, other: Number) -> bool:
        return self.answers.ask(self._with("less", other))

    def __le__(self, other: Number) -> bool:
        return self.answers.ask(self._with("less_equal", other))

    def __gt__(self, other: Number) -> bool:
        return self.answers.ask(self._with("less", other, first=False))

    def __ge__(self, other: Number) -> bool:
        return self.answers.ask(self._with("less_equal", other, first=False))

    def applied(self, function: str) -> Traced:
        """Return a function of this number, by its name."""
        return self._with(function)


def code_of(number: Number) -> Code:
    """Return the instructions that push a number."""
    return number.code if isinstance(number, Traced) else [("constant", float(number))]


class Answers:
    """The answers that one run of a formula gets to its questions, and these; where there is none left, it is yes."""

    def __init__(self, given: list[bool]) -> None:
        self.given, self.asked = given, list[Traced]()

    def ask(self, question: Traced) -> bool:
        """Note a question and return its answer."""
        self.asked.append(question)
        return self.given[len(self.asked) - 1] if len(self.asked) <= len(self.given) else True


def function(name: str, plain: Callable[[float], float]) -> Callable[[Number], Any]:
    """Return a function of numbers that can be taken apart, too."""

    def either(x: Number) -> Any:
        return x.applied(name) if isinstance(x, Traced) else plain(x)

    return either


sin = function("sine", math.sin)
cos = function("cosine", math.cos)
sqrt = function("root", math.sqrt)
expm1 = function("exp_minus_1", math.expm1)


def power(base: float, exponent: Number) -> Any:
    """Return a power, as `math.pow`."""
    return base**exponent if isinstance(exponent, Traced) else math.pow(base, exponent)
