"""What holds for every schedule, composed ones included."""

from __future__ import annotations

import copy
import io
import json
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onepass import schedule
from onepass.schedule import Schedule, from_dict

settings.register_profile("schedule", deadline=None)  # a shared machine may stall
settings.load_profile("schedule")


def slow_fall(t: float) -> float:
    return 3.0 / (1 + t)


def triangle(t: float) -> float:
    return abs(t % 20 - 10.0)


NAMES = {**vars(schedule), "slow_fall": slow_fall, "triangle": triangle}  # that a repr may have

value = st.floats(0, 1e3)
factor = st.floats(0, 1)
length = st.integers(1, 10**6)
wait = st.integers(0, 10**6)
when = st.integers(0, 10**7)
milestones = st.lists(wait, max_size=4, unique=True).map(sorted)
anneal = st.sampled_from(["cos", "linear"])
shape = st.sampled_from(["1-sqrt", "linear", "cosine", "exponential"])
divisor = st.floats(0.5, 1e5)
kind = st.sampled_from(["linear", "cosine", "step"])
time = st.one_of(st.floats(0, 1e6), wait.map(float))
points = st.dictionaries(time, value, min_size=1, max_size=5).map(lambda p: sorted(p.items()))

simple: st.SearchStrategy[Schedule] = st.one_of(
    st.builds(schedule.Constant, value),
    st.builds(schedule.Step, value, length, factor),
    st.builds(schedule.MultiStep, value, milestones, factor),
    st.builds(schedule.Exponential, value, factor, length, st.booleans()),
    st.builds(schedule.Cosine, value, length, value),
    st.builds(schedule.Linear, value, length, value),
    st.builds(schedule.Polynomial, value, length, st.floats(0.1, 5), value),
    st.builds(schedule.InverseSqrt, value, st.floats(0.1, 1e6)),
    st.builds(schedule.WarmRestarts, value, length, st.integers(1, 10), value),
    st.builds(schedule.OneCycle, value, length, factor, anneal, divisor, divisor),
    st.builds(
        schedule.OneCycle,
        value,
        length,
        st.floats(0, 0.5),
        anneal,
        divisor,
        divisor,
        three_phase=st.just(True),
    ),
    st.builds(schedule.WSD, value, wait, wait, length, shape, value),
    st.builds(schedule.Piecewise, points, kind),
    st.sampled_from([slow_fall, triangle]).map(lambda f: schedule.Custom(f, f"{f.__name__}/1")),
)
any_schedule: st.SearchStrategy[Schedule] = st.recursive(
    simple,
    lambda inner: st.one_of(
        st.builds(lambda s, n, start: s.warmup(n, start), inner, wait, value),
        st.builds(lambda s, other, at: s.then(other, at=at), inner, inner, wait),
        st.builds(lambda s, k: s * k, inner, value),
        st.builds(
            lambda s, steps: s.over(steps), inner.filter(lambda s: s._takes_fractions()), length
        ),
    ),
    max_leaves=4,
)


@given(any_schedule)
def test_repr_is_the_constructor_call(s: Schedule) -> None:
    again = eval(repr(s), NAMES.copy())
    assert again == s
    assert hash(again) == hash(s)
    assert repr(again) == repr(s)


@given(any_schedule)
def test_dict_round_trip(s: Schedule) -> None:
    d = s.to_dict()
    assert from_dict(d) == s
    assert from_dict(json.loads(json.dumps(d))) == s
    buffer = io.BytesIO()
    torch.save({"lr": d}, buffer)
    buffer.seek(0)
    assert from_dict(torch.load(buffer, weights_only=True)["lr"]) == s


@given(any_schedule, any_schedule)
def test_dict_is_equal_where_the_schedules_are(a: Schedule, b: Schedule) -> None:
    assert (a.to_dict() == b.to_dict()) == (a == b)


@given(any_schedule)
def test_copies_are_equal(s: Schedule) -> None:
    assert copy.deepcopy(s) == copy.copy(s) == pickle.loads(pickle.dumps(s)) == s


@given(any_schedule, when)
def test_value_is_a_finite_float_of_at_least_zero(s: Schedule, t: int) -> None:
    x = s(t)
    assert type(x) is float
    assert math.isfinite(x)
    assert x >= 0.0


@given(any_schedule, when)
def test_value_depends_on_t_alone(s: Schedule, t: int) -> None:
    first = s(t)
    s(0), s(t + 1), s(2**63 - 1)
    assert s(t) == s(np.int64(t)) == first


@given(any_schedule, st.integers(0, 30))
def test_table_is_the_calls(s: Schedule, n: int) -> None:
    assert s.table(n) == [(t, s(t)) for t in range(n)]


@given(any_schedule, wait, value, when)
def test_warmup_equals_its_parts(s: Schedule, n: int, start: float, t: int) -> None:
    warm = s.warmup(n, start=start)
    assert warm(n + t) == s(t)
    if t < n:
        low, high = sorted((start, s(0)))
        slack = 1e-12 * high
        assert low - slack <= warm(t) <= high + slack
        want = start + (s(0) - start) * (t + 1) / n
        assert warm(t) == pytest.approx(want, rel=1e-12, abs=slack)


@given(any_schedule, any_schedule, wait, when)
def test_then_equals_its_parts(a: Schedule, b: Schedule, at: int, t: int) -> None:
    s = a.then(b, at=at)
    assert s(at + t) == b(t)
    if t < at:
        assert s(t) == a(t)


@given(any_schedule, value, when)
def test_scaled_equals_its_parts(s: Schedule, k: float, t: int) -> None:
    assert (s * k)(t) == k * s(t)
    assert k * s == s * k == np.float64(k) * s


@given(value, wait, wait, length, value, when)
def test_wsd_is_its_composition(v: float, w: int, n: int, d: int, final: float, t: int) -> None:
    parts = schedule.Constant(v).then(schedule.Linear(v, d, final), at=n).warmup(w)
    assert schedule.WSD(v, w, n, d, "linear", final)(t) == pytest.approx(parts(t), rel=1e-14)


@given(value, length, length, when)
def test_staircase_is_step(v: float, size: int, scale: int, t: int) -> None:
    gamma = 1 / scale
    stairs = schedule.Exponential(v, gamma, size, staircase=True)
    assert stairs(t) == schedule.Step(v, size, gamma)(t)
    assert schedule.Exponential(v, gamma, size)(size * (t // size)) == stairs(t)


@settings(max_examples=30)
@given(any_schedule)
def test_immutable(s: Schedule) -> None:
    before = repr(s)
    name = next(iter(s.to_dict().keys() - {"schedule"}))
    with pytest.raises(AttributeError):
        setattr(s, name, 1)
    with pytest.raises(AttributeError):
        delattr(s, name)
    s.to_dict()[name] = "changed"
    assert repr(s) == before


def test_equality_is_by_kind_and_value() -> None:
    ten: Any = np.int32(10)
    steps: Any = np.array([2, 3])
    linear = schedule.Linear(0.1, 10)
    assert linear == schedule.Linear(0.1, 10, 0.0) == schedule.Linear(np.float64(0.1), ten)
    assert linear not in [schedule.Cosine(0.1, 10), schedule.Linear(0.1, 11), 0.1, linear * 1]
    assert repr(schedule.Constant(-0.0)) == repr(schedule.Constant(0)) == "Constant(0.0)"
    assert len({linear, schedule.Linear(0.1, 10), schedule.Linear(0.2, 10)}) == 2
    assert schedule.MultiStep(1, [2, 3]) == schedule.MultiStep(1.0, steps)


@pytest.mark.parametrize(
    "text",
    [
        "Cosine(0.1, 100).warmup(5)",
        "Cosine(0.1, 100, final=0.01).warmup(5, start=0.001)",
        "(Cosine(0.1, 100) * 0.5).warmup(5).then(Constant(0.1) * 2.0, at=20) * 3.0",
        "WSD(0.1, 10, 100, 50, shape='linear')",
        "MultiStep(0.1, (30, 60))",
        "Exponential(0.1, 0.9, decay_steps=10, staircase=True)",
        "Piecewise(((0.0, 0.1), (0.5, 0.2)), kind='cosine').over(100).warmup(5)",
    ],
)
def test_repr_text(text: str) -> None:
    assert repr(eval(text, vars(schedule).copy())) == text


def test_every_public_schedule_is_in_the_strategy() -> None:
    kinds = {
        name
        for name in schedule.__all__
        if isinstance(kind := getattr(schedule, name), type)
        and issubclass(kind, Schedule)
        and kind is not Schedule
    }
    assert len(kinds) == 13
    seen = set()

    @settings(max_examples=500, database=None, derandomize=True)
    @given(simple)
    def collect(s: Schedule) -> None:
        seen.add(type(s).__name__)

    collect()
    assert seen == kinds
