"""Schedules through points, and schedules stretched over a run."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from onepass.schedule import (
    WSD,
    Constant,
    Cosine,
    Exponential,
    InverseSqrt,
    Linear,
    MultiStep,
    Piecewise,
    Polynomial,
    Schedule,
    Step,
    WarmRestarts,
    from_dict,
)
from tests.schedule.test_properties import factor, length, points, value, wait, when

Points = list[tuple[float, float]]
SOME: Points = [(2, 0.5), (4.5, 1.0), (10, 0.1)]


@given(points, when)
def test_linear_is_numpys_interpolation(p: Points, t: int) -> None:
    s = Piecewise(p)
    for at in (t, *(math.ceil(x) for x, _ in p)):
        want = float(np.interp(at, [x for x, _ in p], [v for _, v in p]))
        assert s(at) == pytest.approx(want, rel=1e-12, abs=1e-12 * max(v for _, v in p))


@given(points, when)
def test_step_has_the_value_of_the_last_point_reached(p: Points, t: int) -> None:
    reached = [v for x, v in p if x <= t]
    assert Piecewise(p, kind="step")(t) == (reached or [p[0][1]])[-1]


@given(points, when)
def test_cosine_is_half_a_cosine_from_point_to_point(p: Points, t: int) -> None:
    s = Piecewise(p, kind="cosine")
    inside = [pair for pair in pairwise(p) if pair[0][0] <= t < pair[1][0]]
    if not inside:
        assert s(t) == (p[0][1] if t < p[0][0] else p[-1][1])
        return
    (start, before), (end, after) = inside[0]
    half = (1 + math.cos(math.pi * (t - start) / (end - start))) / 2
    slack = 1e-12 * max(before, after)
    assert s(t) == pytest.approx(after + (before - after) * half, rel=1e-12, abs=slack)


@pytest.mark.parametrize("kind", ["linear", "cosine", "step"])
def test_points_are_exact(kind: Any) -> None:
    s = Piecewise([(3, 0.1), (7, 0.7), (8, 0.3)], kind)
    assert [s(t) for t in (0, 3, 7, 8, 9, 2**63 - 1)] == [0.1, 0.1, 0.7, 0.3, 0.3, 0.3]


def test_one_point_is_a_constant() -> None:
    assert {Piecewise([(5, 0.2)])(t) for t in (0, 4, 5, 6)} == {0.2}


def test_points_are_kept_as_floats_in_tuples() -> None:
    array: Any = np.array(SOME)
    s = Piecewise(array)
    assert s == Piecewise(SOME) == Piecewise(iter(SOME))  # type: ignore[arg-type]
    assert repr(s) == "Piecewise(((2.0, 0.5), (4.5, 1.0), (10.0, 0.1)))"
    assert repr(Piecewise(SOME, "cosine")).endswith(", kind='cosine')")


def test_dict_is_lists() -> None:
    d = Piecewise(SOME).over(7).to_dict()
    assert d["of"]["points"] == [[2.0, 0.5], [4.5, 1.0], [10.0, 0.1]]
    assert json.loads(json.dumps(d)) == d
    assert from_dict(d) == Piecewise(SOME).over(7)


# Over a run


@given(points, st.sampled_from(["linear", "cosine", "step"]), st.integers(0, 40), when)
def test_over_stretches_the_points(p: Points, kind: Any, log_steps: int, t: int) -> None:
    """By a power of two, which rounds nothing, inside of the run."""
    steps, last = 2**log_steps, p[-1][0] or 1.0
    power = 2.0 ** math.ceil(math.log2(last))
    shape = Piecewise([(x / power, v) for x, v in p], kind)
    stretched = Piecewise([(x / power * steps, v) for x, v in p], kind)
    assume(all(a < b for (a, _), (b, _) in pairwise(stretched.points)))
    t = min(t, steps)
    assert shape.over(steps)(t) == pytest.approx(stretched(t), rel=1e-12)


@given(value, value, length, when)
def test_over_of_what_ends_at_one(v: float, final: float, steps: int, t: int) -> None:
    for one, whole in (
        (Cosine(v, 1, final), Cosine(v, steps, final)),
        (Linear(v, 1, final), Linear(v, steps, final)),
        (Polynomial(v, 1, 1.7, final), Polynomial(v, steps, 1.7, final)),
        (WSD(v, 0, 0, 1, final=final), WSD(v, 0, 0, steps, final=final)),
    ):
        slack = 1e-9 * max(v, final)  # 1 - t/T has lost digits where little is left
        assert one.over(steps)(t) == pytest.approx(whole(t), rel=1e-9, abs=slack)
        assert [one.over(steps)(x) for x in (0, steps, steps + 1)] == [v, final, final]


@given(value, factor, length, wait, when)
def test_over_of_decays(v: float, gamma: float, steps: int, tau: int, t: int) -> None:
    t = min(t, steps)
    smooth = Exponential(v, gamma, decay_steps=steps)
    assert Exponential(v, gamma).over(steps)(t) == smooth(t)
    assert Exponential(v, gamma).over(steps)(steps + 5) == smooth(steps)
    want = v * math.sqrt((tau + 1) / (tau + 1 + t / steps))
    assert InverseSqrt(v, tau + 1).over(steps)(t) == pytest.approx(want, rel=1e-14)


@given(length, when)
def test_over_of_what_changes_at_whole_numbers(steps: int, t: int) -> None:
    ended = t >= steps
    for s in (Step(1.0, 1, 0.5), MultiStep(1.0, [1], 0.5), Constant(1.0).then(Constant(0.5), at=1)):
        assert s.over(steps)(t) == (0.5 if ended else 1.0)
    assert WarmRestarts(1.0, 1).over(steps)(steps) == 1.0


@given(points, length, wait, value, when)
def test_over_composes(p: Points, steps: int, n: int, k: float, t: int) -> None:
    s = Piecewise(p).over(steps)
    assert s.warmup(n)(n + t) == s(t)
    assert s.then(Constant(k), at=n)(n + t) == k
    assert (Piecewise(p) * k).over(steps)(t) == (s * k)(t)
    assert s.over(1)(t) == s(min(t, 1))


def test_over_text() -> None:
    s = Piecewise([(0.5, 1.0)]).over(1000)
    assert repr(s) == "Piecewise(((0.5, 1.0),)).over(1000)"
    assert repr((Constant(1.0) * 2).over(5)) == "(Constant(1.0) * 2.0).over(5)"
    assert s != Piecewise([(0.5, 1.0)]).over(1001)
    assert len({s, Piecewise([(0.5, 1.0)]).over(1000)}) == 1


WHOLE: list[Schedule] = [
    Cosine(0.1, 1).warmup(1),
    Constant(1.0).then(Linear(0.1, 1).warmup(1) * 2, at=1),
    WSD(0.1, 1, 1, 1),
]


@pytest.mark.parametrize("s", WHOLE, ids=repr)
def test_over_refuses_what_counts_whole_steps(s: Schedule) -> None:
    with pytest.raises(ValueError, match=r"of must be a schedule for t in \[0, 1\].*warm-up"):
        s.over(10)
    with pytest.raises(ValueError, match="counts whole steps"):
        from_dict({"schedule": "Over", "of": s.to_dict(), "steps": 10})


def test_over_takes_a_warmup_of_nothing() -> None:
    assert Cosine(0.1, 1).warmup(0).over(10)(5) == Cosine(0.1, 1).over(10)(5)
