"""Values against closed forms in 60 digits, written here from the formulas of the papers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction

import mpmath
import pytest
from mpmath import mp, mpf

from onepass.schedule import (
    WSD,
    Constant,
    Cosine,
    Exponential,
    InverseSqrt,
    Linear,
    MultiStep,
    OneCycle,
    Polynomial,
    Schedule,
    Step,
    WarmRestarts,
)

Exact = Callable[[int], mpf]
BILLION = 10**9
# sin, cos, pow and the products around them are each right to about one unit in the last place;
# pow magnifies the rounding of its exponent by |ln(gamma^n)| < 745.
FEW_ULP = 2e-15
POW = 2e-13


@pytest.fixture(autouse=True)
def sixty_digits() -> Iterator[None]:
    with mpmath.workdps(60):
        yield


def ratio(a: int, b: int) -> mpf:
    return mpf(a) / mpf(b)


def cosine(v: float, final: float, x: mpf) -> mpf:
    return mpf(final) + (mpf(v) - mpf(final)) * (1 + mpmath.cos(mp.pi * x)) / 2


def restart_position(t: int, period: int, multiplier: int) -> tuple[int, int]:
    """Return (position, length) in the cycle of ``t``, by listing the restarts."""
    start, length = 0, period
    while start + length <= t:
        start, length = start + length, length * multiplier
    return t - start, length


def one_cycle(v: float, steps: int, t: int) -> mpf:
    """Two phases with the defaults 0.3, 25 and 10^4."""
    peak, low = mpf(v), mpf(v) / 25
    top, last = mpf(0.3) * steps - 1, mpf(steps - 1)
    at = min(mpf(t), last)
    if at <= top:
        return peak + (low - peak) * (1 + mpmath.cos(mp.pi * at / top)) / 2
    end = low / 10000
    return end + (peak - end) * (1 + mpmath.cos(mp.pi * (at - top) / (last - top))) / 2


def wsd(shape: str, t: int) -> mpf:
    """V 0.3, warm-up 10, stable 20, decay 40, final 0.01."""
    v, final = mpf(0.3), mpf(0.01)
    if t < 10:
        return v * (t + 1) / 10
    x = min(max(ratio(t - 30, 40), mpf(0)), mpf(1))
    falls = {
        "1-sqrt": 1 - mpmath.sqrt(x),
        "linear": 1 - x,
        "cosine": (1 + mpmath.cos(mp.pi * x)) / 2,
        "exponential": 2 * mpf(2) ** (-x) - 1,
    }
    return final + (v - final) * falls[shape]


CASES: list[tuple[Schedule, Exact, float]] = [
    (Constant(0.1), lambda _: mpf(0.1), 0.0),
    (Step(0.1, 30), lambda t: mpf(0.1) * mpf(0.1) ** (t // 30), POW),
    (Step(0.1, 7, gamma=0.97), lambda t: mpf(0.1) * mpf(0.97) ** (t // 7), POW),
    (
        MultiStep(0.1, [3, 99, 100], gamma=0.3),
        lambda t: mpf(0.1) * mpf(0.3) ** sum(m <= t for m in (3, 99, 100)),
        FEW_ULP,
    ),
    (Exponential(0.1, 0.99), lambda t: mpf(0.1) * mpf(0.99) ** t, POW),
    (
        Exponential(0.1, 0.9999, decay_steps=1000),
        lambda t: mpf(0.1) * mpf(0.9999) ** ratio(t, 1000),
        POW,
    ),
    (
        Exponential(0.1, 0.5, decay_steps=100, staircase=True),
        lambda t: mpf(0.1) * mpf(0.5) ** (t // 100),
        FEW_ULP,
    ),
    (Cosine(0.1, 100), lambda t: cosine(0.1, 0, ratio(min(t, 100), 100)), FEW_ULP),
    (Cosine(0.1, 33, final=0.02), lambda t: cosine(0.1, 0.02, ratio(min(t, 33), 33)), FEW_ULP),
    (Cosine(0.1, BILLION), lambda t: cosine(0.1, 0, ratio(min(t, BILLION), BILLION)), FEW_ULP),
    (
        Polynomial(0.1, 100, 0.9),
        lambda t: mpf(0.1) * (1 - ratio(min(t, 100), 100)) ** mpf(0.9),
        FEW_ULP,
    ),
    (
        Polynomial(0.1, BILLION, 2, final=0.01),
        lambda t: mpf(0.01) + (mpf(0.1) - mpf(0.01)) * (1 - ratio(min(t, BILLION), BILLION)) ** 2,
        FEW_ULP,
    ),
    (InverseSqrt(0.1, 4000), lambda t: mpf(0.1) * mpmath.sqrt(ratio(4000, 4000 + t)), FEW_ULP),
    (OneCycle(0.1, 100), lambda t: one_cycle(0.1, 100, t), FEW_ULP),
    (OneCycle(0.1, 33), lambda t: one_cycle(0.1, 33, t), FEW_ULP),
    (WSD(0.3, 10, 20, 40, final=0.01), lambda t: wsd("1-sqrt", t), FEW_ULP),
    (
        WSD(0.1, 0, 0, BILLION),
        lambda t: mpf(0.1) * (1 - mpmath.sqrt(ratio(min(t, BILLION), BILLION))),
        FEW_ULP,
    ),
    (WSD(0.3, 10, 20, 40, "linear", 0.01), lambda t: wsd("linear", t), FEW_ULP),
    (WSD(0.3, 10, 20, 40, "cosine", 0.01), lambda t: wsd("cosine", t), FEW_ULP),
    (WSD(0.3, 10, 20, 40, "exponential", 0.01), lambda t: wsd("exponential", t), FEW_ULP),
]
STEPS = [*range(110), 999, 1000, 1001, 123_456, BILLION // 2, BILLION - 1, BILLION, BILLION + 1]


@pytest.mark.parametrize(("s", "exact", "rel"), CASES, ids=[repr(s) for s, _, _ in CASES])
def test_closed_form(s: Schedule, exact: Exact, rel: float) -> None:
    for t in STEPS:
        want = exact(t)
        if abs(want) < mpf(10) ** -290:  # below that a double has lost digits, or is 0
            assert s(t) == pytest.approx(float(want), abs=1e-290)
        else:
            assert abs(mpf(s(t)) - want) <= rel * abs(want), t


@pytest.mark.parametrize("steps", [1, 7, 100, BILLION])
def test_linear_in_fractions(steps: int) -> None:
    v, final = Fraction(0.1), Fraction(0.03)
    s = Linear(0.1, steps, final=0.03)
    for t in STEPS:
        want = final + (v - final) * (1 - Fraction(min(t, steps), steps))
        assert abs(Fraction(s(t)) - want) <= Fraction(FEW_ULP) * want


@pytest.mark.parametrize(
    ("period", "multiplier"), [(1, 1), (7, 1), (1, 2), (10, 2), (1, 3), (3, 3), (1, 10), (5, 7)]
)
def test_warm_restarts_find_their_cycle(period: int, multiplier: int) -> None:
    s = WarmRestarts(0.1, period, multiplier, final=0.01)
    restarts: list[int] = []
    start, length = 0, period
    while start <= 10**17 and len(restarts) < 400:
        restarts.append(start)
        start, length = start + length, length * multiplier
    for restart in restarts:
        assert s(restart) == 0.1
        for t in (restart - 1, restart + 1, restart + period // 2):
            if t >= 0:
                position, cycle = restart_position(t, period, multiplier)
                want = cosine(0.1, 0.01, ratio(position, cycle))
                assert abs(mpf(s(t)) - want) <= FEW_ULP * want


def test_cycle_at_the_boundary_of_a_floating_logarithm() -> None:
    # log(121 * 2 + 1, 3) is 4.999999999999999: a scheduler that rounds it down is a cycle off
    assert WarmRestarts(0.1, 1, 3)(121) == 0.1
    assert WarmRestarts(0.1, 1, 10)(111) == 0.1


@pytest.mark.parametrize(
    "s",
    [
        Linear(0.1, 3, final=0.7),
        Polynomial(0.1, 3, 1.7, final=0.7),
        Cosine(0.1, 3, final=0.7),
        WSD(0.1, 0, 0, 3, "1-sqrt", 0.7),
        WSD(0.1, 0, 0, 3, "linear", 0.7),
        WSD(0.1, 0, 0, 3, "cosine", 0.7),
        WSD(0.1, 0, 0, 3, "exponential", 0.7),
    ],
    ids=repr,
)
def test_ends_are_exact(s: Schedule) -> None:
    assert s(0) == 0.1
    assert s(2) < 0.7
    assert [s(t) for t in (3, 4, BILLION, 2**63 - 1)] == [0.7] * 4


def test_warmup_is_the_contract_formula() -> None:
    s = Cosine(0.3, 50).warmup(7, start=0.05)
    for t in range(7):
        want = Fraction(0.05) + (Fraction(0.3) - Fraction(0.05)) * (t + 1) / 7
        assert abs(Fraction(s(t)) - want) <= Fraction(FEW_ULP) * want
    assert s(6) == s(7) == 0.3
    assert [s(t) for t in range(7, 70)] == [Cosine(0.3, 50)(t) for t in range(63)]


def test_small_cases_by_hand() -> None:
    assert [v for _, v in Step(1.0, 2, gamma=0.5).table(5)] == [1.0, 1.0, 0.5, 0.5, 0.25]
    assert [v for _, v in Linear(1.0, 2).warmup(2).table(5)] == [0.5, 1.0, 1.0, 0.5, 0.0]
    assert [v for _, v in WSD(1.0, 2, 1, 2, "linear").table(6)] == [0.5, 1.0, 1.0, 1.0, 0.5, 0.0]
    assert MultiStep(1.0, [])(10) == 1.0
    assert OneCycle(1.0, 1).table(2) == [(0, 1 / 25 / 1e4), (1, 1 / 25 / 1e4)]
    assert OneCycle(1.0, 2, pct_start=0.5)(0) == 1.0  # the rise has no length


def test_growth_ends_at_infinity_without_an_exception() -> None:
    grows = Exponential(1e-7, 1.1)
    assert grows(100) == pytest.approx(1e-7 * 1.1**100, rel=1e-13)
    assert grows(10**6) == float("inf")
    assert (grows * 0)(10**6) == 0.0
    assert Exponential(0.0, 1.1)(10**6) == 0.0
