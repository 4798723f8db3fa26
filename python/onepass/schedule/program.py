"""Schedules for devices that count the steps themselves: a schedule's own formula, taken apart into instructions.

`Schedule._value` is run on a stand-in for the number of steps. Where the formula decides, by an ``if`` on that number, it
is run once for each answer. So there is no second copy of any formula.
"""

from __future__ import annotations

import functools
import struct
from typing import Any

from .base import Schedule
from .traced import Answers, Code, Number, Traced, code_of

__all__ = ["Program", "program", "run"]

STACK = 24
"""Numbers that the machine in csrc/rules/program.hpp holds at most."""
_OPS = [
    "constant",
    "steps",
    "add",
    "subtract",
    "multiply",
    "divide",
    "floor_divide",
    "remainder",
    "power",
    "less",
    "less_equal",
    "sine",
    "cosine",
    "root",
    "exp_minus_1",
    "jump_unless",
    "jump",
    "end",
]
_CODE = {name: i for i, name in enumerate(_OPS)}
_MOST_BRANCHES = 4096


class Program(bytes):
    """The instructions of a schedule, each an operation and a number; in the place of a number that is above 0."""

    def __gt__(self, other: Any) -> bool:
        return isinstance(other, int | float) or super().__gt__(other)


def _trace(schedule: Schedule, given: list[bool], runs: list[int]) -> Code:
    """Return the instructions from the first question that `given` does not answer on."""
    runs[0] += 1
    if runs[0] > _MOST_BRANCHES:
        message = f"{schedule!r} has too many cases for a device"
        raise ValueError(message)
    answers = Answers(given)
    steps: Any = Traced([("steps", 0.0)], answers)
    result: Number = schedule._value(steps)
    if len(answers.asked) <= len(given):
        return code_of(result)
    yes = _trace(schedule, [*given, True], runs)
    no = _trace(schedule, [*given, False], runs)
    question = answers.asked[len(given)].code
    return [*question, ("jump_unless", len(yes) + 1.0), *yes, ("jump", float(len(no))), *no]


@functools.lru_cache(maxsize=256)
def program(schedule: Schedule) -> Program:
    """Return the instructions of a schedule; they hold for fewer than 2**53 steps.

    Raises:
        ValueError: It has more than some thousand cases, or nests too deeply.
    """
    code = [*_trace(schedule, [], [0]), ("end", 0.0)]
    depth = deepest = 0
    for op, _ in code:
        if op in ("constant", "steps"):
            depth += 1
        elif op in _OPS[_CODE["add"] : _CODE["sine"]] or op in ("jump_unless", "jump"):
            depth -= 1  # the other branch pushes the result of this one anew
        deepest = max(deepest, depth)
    if deepest > STACK:
        message = f"{schedule!r} nests too deeply for a device"
        raise ValueError(message)
    return Program(b"".join(struct.pack("=qd", _CODE[op], value) for op, value in code))


def run(instructions: Program, steps: int) -> float:
    """Return what the machine of csrc/rules/program.hpp makes of a program: for tests."""
    from onepass import _core

    return _core.evaluate(instructions, float(steps))
