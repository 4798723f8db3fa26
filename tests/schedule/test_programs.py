"""What a device makes of a schedule is what the schedule says, to the last bit: it has only one formula."""

from __future__ import annotations

import pytest

from onepass.schedule import (
    WSD,
    Constant,
    Cosine,
    Exponential,
    InverseSqrt,
    Linear,
    MultiStep,
    OneCycle,
    Piecewise,
    Polynomial,
    Schedule,
    Step,
    WarmRestarts,
)
from onepass.schedule.program import program, run

SCHEDULES: list[Schedule] = [
    Constant(0.3),
    Step(0.1, 7, gamma=0.5),
    MultiStep(0.1, [3, 9, 10, 400], gamma=0.3),
    MultiStep(0.1, []),
    Exponential(0.1, 0.97),
    Exponential(0.1, 0.5, decay_steps=30, staircase=True),
    Exponential(0.1, 2.0),  # up to infinity
    Exponential(0.0, 2.0),
    InverseSqrt(0.1, 100),
    Linear(0.1, 50, final=0.01),
    Polynomial(0.1, 50, 1.7, final=0.01),
    Cosine(0.1, 50, final=0.01),
    WarmRestarts(0.1, 10),
    WarmRestarts(0.1, 3, multiplier=3, final=0.02),
    OneCycle(0.1, 100),
    OneCycle(0.1, 100, anneal_strategy="linear", three_phase=True),
    OneCycle(0.1, 1),
    *(
        WSD(0.1, 10, 20, 30, shape=shape, final=0.01)
        for shape in ("1-sqrt", "linear", "cosine", "exponential")
    ),
    Cosine(0.1, 50).warmup(10, start=0.01),
    Cosine(0.1, 50).warmup(0),
    (Linear(0.1, 20).then(WarmRestarts(0.05, 5, multiplier=2), at=30) * 2).warmup(7),
    Constant(0.1) * 0,
    *(
        Piecewise([(3, 0.1), (7.5, 0.7), (8, 0.0), (50, 0.3), (365, 0.2)], kind=kind)
        for kind in ("linear", "cosine", "step")
    ),
    Piecewise([(5, 0.1)]),
    Piecewise([(0, 0.0), (0.1, 0.3), (1, 0.1)], kind="cosine").over(99).warmup(5),
    *(s.over(77) for s in (Cosine(0.1, 1), Polynomial(0.1, 1, 1.7), Exponential(0.1, 0.3))),
    *(s.over(77) for s in (Step(0.1, 1), WarmRestarts(0.1, 1), WSD(0.1, 0, 0, 1))),
]
STEPS = [*range(130), 365, 401, 999, 5000, 10**6, 10**9, 2**40]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_same_value(schedule: Schedule) -> None:
    instructions = program(schedule)
    for t in STEPS:
        assert run(instructions, t) == schedule(t), t


def test_programs_of_equal_schedules_are_one() -> None:
    """They are part of a table that is compared with what was sent before."""
    assert program(Cosine(0.1, 50)) is program(Cosine(0.1, 50))


def test_what_is_too_much_for_a_device() -> None:
    with pytest.raises(ValueError, match="too many cases"):
        program(MultiStep(0.1, list(range(5000))))


def test_many_points_are_few_cases() -> None:
    """They are searched by halving: a case for each stretch, and twelve questions to find one of 1000."""
    s = Piecewise([(3 * i, float(i % 7)) for i in range(1000)])
    assert len(program(s)) // 16 < 25 * 1000
    assert all(run(program(s), t) == s(t) for t in range(0, 3100, 7))
