"""Schedules that the user draws: through points, over a run, by a function."""

from __future__ import annotations

import copy
import itertools
import json
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import onepass
from onepass.schedule import (
    Constant,
    Cosine,
    Custom,
    Exponential,
    Linear,
    Piecewise,
    Polynomial,
    Schedule,
    from_dict,
)
from onepass.schedule.program import program, run

value = st.floats(0, 1e3)


def interpolated(t: float, points: Any) -> float:
    x, y = zip(*points, strict=True)
    return float(np.interp(t, x, y))


points = st.lists(
    st.tuples(st.integers(0, 100), value), min_size=1, max_size=6, unique_by=lambda p: p[0]
).map(sorted)
fresh = map("function {}".format, itertools.count())


@given(points, st.integers(0, 110))
def test_linear_is_numpys_interpolation(points: list[Any], t: int) -> None:
    want = interpolated(t, points)
    assert Piecewise(points)(t) == pytest.approx(want, rel=1e-12, abs=1e-12)


@given(points, st.integers(0, 110))
def test_steps_are_the_last_point_before(points: list[Any], t: int) -> None:
    before = [v for at, v in points if at <= t]
    assert Piecewise(points, "step")(t) == (before[-1] if before else points[0][1])


@given(points, st.integers(0, 110))
def test_cosines_are_half_ones(points: list[Any], t: int) -> None:
    want = interpolated(t, points)
    for (a, v), (b, w) in itertools.pairwise(points):
        if a <= t <= b:
            want = w + (v - w) * (1 + math.cos(math.pi * (t - a) / (b - a))) / 2
    assert Piecewise(points, "cosine")(t) == pytest.approx(want, rel=1e-9, abs=1e-9)


@given(points, st.sampled_from(["linear", "cosine", "step"]), st.integers(0, 110))
def test_devices_evaluate_points(points: list[Any], kind: Any, t: int) -> None:
    for s in (Piecewise(points, kind), Piecewise([(a / 100, v) for a, v in points], kind).over(90)):
        assert run(program(s), t) == pytest.approx(s(t), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("n", [1, 7, 1000])
@pytest.mark.parametrize(
    ("s", "of_x"),
    [
        (Linear(2.0, 1, final=0.5), lambda x: 2 - 1.5 * x),
        (Cosine(2.0, 1), lambda x: 1 + math.cos(math.pi * x)),
        (Polynomial(2.0, 1, 3.0), lambda x: 2 * (1 - x) ** 3),
        (Exponential(2.0, 0.1), lambda x: 2 * 0.1**x),
        (
            Piecewise([(0, 1.0), (0.25, 3.0), (1, 0.0)]),
            lambda x: np.interp(x, [0, 0.25, 1], [1, 3, 0]),
        ),
        (Custom(lambda x: 1 + x * x, "1 + x^2"), lambda x: 1 + x * x),
        (Constant(0.5), lambda _: 0.5),
    ],
    ids=lambda value: repr(value) if isinstance(value, Schedule) else "",
)
def test_over_a_run(s: Any, of_x: Any, n: int) -> None:
    stretched = s.over(n)
    for t in {0, 1, n // 3, n - 1, n, n + 5, 10 * n}:
        assert stretched(t) == pytest.approx(of_x(min(t, n) / n), rel=1e-12, abs=1e-12)
    assert stretched == s.over(n) != s.over(n + 1)
    assert stretched.warmup(3)(3 + n) == stretched(n)


def test_custom_values() -> None:
    s = Custom(lambda t: 1 / (1 + t), next(fresh))
    assert s.table(3) == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    single: Any = np.float32(0.5)
    assert type(Custom(lambda _: single, next(fresh))(0)) is float


def test_custom_goes_by_its_name() -> None:
    s = Custom(math.sqrt, next(fresh))
    assert s.to_dict() == {"schedule": "Custom", "name": s.name}
    again = from_dict(json.loads(json.dumps((s * 2).warmup(3).to_dict())))
    assert again == (s * 2).warmup(3)
    assert again(12) == 6.0
    for copied in (copy.deepcopy(s), copy.copy(s), pickle.loads(pickle.dumps(s))):
        assert copied == s
        assert copied(9) == 3.0
    assert s != Custom(math.sqrt, next(fresh))
    assert hash(s) == hash(Custom(math.sqrt, s.name))


def test_a_name_stands_for_one_function() -> None:
    def made(power: float) -> Any:
        return lambda t: (1 + t) ** power

    name = next(fresh)
    first = Custom(made(-1.0), name)
    assert Custom(made(-1.0), name) == first  # a notebook's cell that runs again
    for other in (made(-2.0), lambda t: t, math.sqrt):
        with pytest.raises(ValueError, match="stands for another function"):
            Custom(other, name)
    assert from_dict(first.to_dict())(1) == 0.5


def test_an_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"Custom\(function, 'nobody'\) is not known here"):
        from_dict({"schedule": "Custom", "name": "nobody"})


def test_custom_in_an_optimizer() -> None:
    p = torch.nn.Parameter(torch.zeros(1))
    name = next(fresh)
    opt = onepass.SGD([p], lr=Custom(lambda t: 0.5**t, name))
    used = []
    for _ in range(3):
        p.grad = torch.ones(1)
        used.append(opt.param_groups[0]["lr"])
        opt.step()
    assert used == [1.0, 0.5, 0.25]
    again = onepass.SGD([p], lr=Custom(lambda t: 0.5**t, name + "'"))
    with pytest.raises(ValueError, match="lr of parameter group 0 is Custom"):
        again.load_state_dict(opt.state_dict())
    again.on_schedule_mismatch = "checkpoint"
    again.load_state_dict(opt.state_dict())
    assert again.param_groups[0]["lr"] == 0.125


@pytest.mark.parametrize(
    ("result", "error"),
    [
        (-0.1, ValueError),
        (math.nan, ValueError),
        (math.inf, ValueError),
        ("x", TypeError),
        (None, TypeError),
        (True, TypeError),
        (1j, TypeError),
    ],
    ids=str,
)
def test_results_that_are_none(result: Any, error: type[Exception]) -> None:
    name = next(fresh)
    s = Custom(lambda t: result if t == 3 else 0.5, name)
    assert s(2) == 0.5
    with pytest.raises(error, match=rf"{name}.*must give a finite number >= 0.*t = 3"):
        s(3)
    p = torch.nn.Parameter(torch.zeros(1))
    opt = onepass.SGD([p], lr=s)
    for _ in range(2):
        p.grad = torch.ones(1)
        opt.step()
    with pytest.raises(error, match=name):
        opt.step()


def test_a_function_is_not_for_devices() -> None:
    with pytest.raises(ValueError, match="cannot evaluate"):
        program(Custom(lambda _: 0.5, next(fresh)))


@pytest.mark.parametrize(
    ("points", "error"),
    [
        ([], ValueError),
        ([(0, 1.0), (0, 2.0)], ValueError),
        ([(2, 1.0), (1, 2.0)], ValueError),
        ([(0, 1.0, 2.0)], ValueError),
        ([(-1, 1.0)], ValueError),
        ([(0, -1.0)], ValueError),
        ([(0, math.nan)], ValueError),
        ([(math.inf, 1.0)], ValueError),
        ([0, 1], TypeError),
        (["ab"], TypeError),
        ([("a", 1.0)], TypeError),
        (5, TypeError),
        ("ab", TypeError),
    ],
    ids=str,
)
def test_bad_points(points: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="points"):
        Piecewise(points)


def test_other_bad_arguments() -> None:
    bad: Any = "spline"
    with pytest.raises(ValueError, match="kind must be one of"):
        Piecewise([(0, 1.0)], bad)
    for steps in (0, -1):
        with pytest.raises(ValueError, match="steps"):
            Constant(1.0).over(steps)
    bad = 1.5
    with pytest.raises(TypeError, match="steps"):
        Constant(1.0).over(bad)
    with pytest.raises(TypeError, match="function must be a function"):
        Custom(bad, "x")
    with pytest.raises(TypeError, match="name must be a string"):
        Custom(math.sqrt, bad)
    with pytest.raises(ValueError, match="name must be a string that is not empty"):
        Custom(math.sqrt, "")
