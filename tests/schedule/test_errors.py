"""Bad input: the exception's type, and a message with argument, range and value."""

from __future__ import annotations

import re
import sys
from typing import Any

import numpy as np
import pytest
import torch

from onepass import schedule
from onepass.schedule import Cosine, from_dict

nan, inf = float("nan"), float("inf")
names: dict[str, Any] = {**vars(schedule), "np": np, "torch": torch, "nan": nan, "inf": inf}

VALUE = [  # (call, message)
    ("Constant(-0.1)", "v must be a finite number >= 0, got -0.1"),
    ("Constant(nan)", "v must be a finite number >= 0, got nan"),
    ("Constant(inf)", "v must be a finite number >= 0, got inf"),
    ("Step(0.1, 0)", "step_size must be an integer in [1, 2**63 - 1], got 0"),
    ("Step(0.1, 2**63)", "step_size must be an integer in [1, 2**63 - 1], got 9223372036854775808"),
    ("Step(0.1, 30, gamma=-1)", "gamma must be a finite number >= 0, got -1"),
    ("MultiStep(0.1, [30, 20])", "milestones must be strictly increasing, got [30, 20]"),
    ("MultiStep(0.1, [30, 30])", "milestones must be strictly increasing, got [30, 30]"),
    ("MultiStep(0.1, [-1])", "milestones[0] must be an integer in [0, 2**63 - 1], got -1"),
    ("Exponential(0.1, -0.9)", "gamma must be a finite number >= 0, got -0.9"),
    ("Exponential(0.1, 0.9, decay_steps=0)", "decay_steps must be an integer in [1, "),
    ("Cosine(0.1, 0)", "steps must be an integer in [1, 2**63 - 1], got 0"),
    ("Cosine(0.1, 10, final=-1)", "final must be a finite number >= 0, got -1"),
    ("Linear(0.1, -5)", "steps must be an integer in [1, 2**63 - 1], got -5"),
    ("Polynomial(0.1, 10, 0)", "power must be a finite number > 0, got 0"),
    ("InverseSqrt(0.1, 0.0)", "timescale must be a finite number > 0, got 0.0"),
    ("WarmRestarts(0.1, 0)", "period must be an integer in [1, 2**63 - 1], got 0"),
    ("WarmRestarts(0.1, 10, 0)", "multiplier must be an integer in [1, 2**63 - 1], got 0"),
    ("OneCycle(0.1, 0)", "steps must be an integer in [1, 2**63 - 1], got 0"),
    ("OneCycle(0.1, 10, 1.5)", "pct_start must be a finite number in [0, 1], got 1.5"),
    (
        "OneCycle(0.1, 10, 0.6, three_phase=True)",
        "pct_start must be in [0, 0.5] with three_phase, got 0.6",
    ),
    (
        "OneCycle(0.1, 10, anneal_strategy='cosine')",
        "anneal_strategy must be one of 'cos', 'linear', got 'cosine'",
    ),
    ("OneCycle(0.1, 10, div_factor=0)", "div_factor must be a finite number > 0, got 0"),
    ("OneCycle(0.1, 10, final_div_factor=0)", "final_div_factor must be a finite number > 0"),
    ("WSD(0.1, -1, 10, 10)", "warmup must be an integer in [0, 2**63 - 1], got -1"),
    ("WSD(0.1, 1, -1, 10)", "stable must be an integer in [0, 2**63 - 1], got -1"),
    ("WSD(0.1, 1, 1, 0)", "decay must be an integer in [1, 2**63 - 1], got 0"),
    (
        "WSD(0.1, 1, 1, 1, 'sqrt')",
        "shape must be one of '1-sqrt', 'linear', 'cosine', 'exponential', got 'sqrt'",
    ),
    ("Piecewise([])", "points must hold at least one (t, value), got []"),
    ("Piecewise([(0, 1), (5, -1)])", "value of points[1] must be a finite number >= 0, got -1"),
    ("Piecewise([(-1, 1)])", "t of points[0] must be a finite number >= 0, got -1"),
    ("Piecewise([(inf, 1)])", "t of points[0] must be a finite number >= 0, got inf"),
    ("Piecewise([(0, nan)])", "value of points[0] must be a finite number >= 0, got nan"),
    ("Piecewise([(0, 1, 2)])", "points[0] must be a pair (t, value), got (0, 1, 2)"),
    ("Piecewise([(5, 1), (5, 2)])", "t of points must be strictly increasing, got [5.0, 5.0]"),
    ("Piecewise([(5, 1), (4, 2)])", "t of points must be strictly increasing, got [5.0, 4.0]"),
    (
        "Piecewise([(0, 1)], 'cubic')",
        "kind must be one of 'linear', 'cosine', 'step', got 'cubic'",
    ),
    ("Custom(abs, '')", "name must be a string that is not empty, got ''"),
    (
        "Custom(lambda t: t - 1.0, 'falls')(0)",
        "Custom(<lambda>, 'falls') at t = 0 must be a finite",
    ),
    ("Custom(lambda t: nan, 'no number')(3)", "at t = 3 must be a finite number >= 0, got nan"),
    ("Custom(lambda t: 2 * inf, 'all')(3)", "at t = 3 must be a finite number >= 0, got inf"),
    ("Constant(0.1).over(0)", "steps must be an integer in [1, 2**63 - 1], got 0"),
    ("OneCycle(0.1, 1).over(5)", "of must be a schedule for t in [0, 1], got OneCycle(0.1, 1), "),
    ("Constant(0.1).warmup(-1)", "n must be an integer in [0, 2**63 - 1], got -1"),
    ("Constant(0.1).warmup(5, start=-1)", "start must be a finite number >= 0, got -1"),
    ("Constant(0.1).then(Constant(0.2), at=-1)", "at must be an integer in [0, 2**63 - 1], got -1"),
    ("Constant(0.1) * -2", "factor must be a finite number >= 0, got -2"),
    ("Constant(0.1) * nan", "factor must be a finite number >= 0, got nan"),
    ("Constant(0.1)(-1)", "t must be an integer in [0, 2**63 - 1], got -1"),
    ("Constant(0.1)(2**63)", "t must be an integer in [0, 2**63 - 1], got 9223372036854775808"),
    ("Constant(0.1).table(-1)", "n must be an integer in [0, 2**63 - 1], got -1"),
]
TYPE = [
    ("Constant('0.1')", "v must be a finite number >= 0, got '0.1'"),
    ("Constant(None)", "v must be a finite number >= 0, got None"),
    ("Constant(True)", "v must be a finite number >= 0, got True"),
    ("Constant(1j)", "v must be a finite number >= 0, got 1j"),
    ("Constant(torch.tensor(0.1))", "v must be a finite number >= 0, got tensor(0.1"),
    ("Constant(Constant(0.1))", "v must be a finite number >= 0, got Constant(0.1)"),
    ("Cosine(0.1, 10.0)", "steps must be an integer in [1, 2**63 - 1], got 10.0"),
    ("Cosine(0.1, True)", "steps must be an integer in [1, 2**63 - 1], got True"),
    ("MultiStep(0.1, 30)", "milestones must be a sequence of integers >= 0, got 30"),
    ("MultiStep(0.1, '30')", "milestones must be a sequence of integers >= 0, got '30'"),
    ("MultiStep(0.1, [1.5])", "milestones[0] must be an integer in [0, 2**63 - 1], got 1.5"),
    ("Exponential(0.1, 0.9, staircase=1)", "staircase must be True or False, got 1"),
    ("OneCycle(0.1, 10, three_phase='no')", "three_phase must be True or False, got 'no'"),
    ("WSD(0.1, 1, 1, 1, None)", "shape must be one of "),
    ("Piecewise(0.1)", "points must be a sequence of (t, value), got 0.1"),
    ("Piecewise('ab')", "points must be a sequence of (t, value), got 'ab'"),
    ("Piecewise([0.1])", "points[0] must be a pair (t, value), got 0.1"),
    ("Piecewise(['ab'])", "points[0] must be a pair (t, value), got 'ab'"),
    ("Piecewise([(0, '1')])", "value of points[0] must be a finite number >= 0, got '1'"),
    ("Piecewise([(True, 1)])", "t of points[0] must be a finite number >= 0, got True"),
    ("Piecewise([(0, 1)], None)", "kind must be one of "),
    ("Custom(0.1, 'tenth')", "function must be a function of t, got 0.1"),
    ("Custom(abs, None)", "name must be a string that is not empty, got None"),
    ("Custom(lambda t: '1', 'text')(7)", "at t = 7 must be a finite number >= 0, got '1'"),
    (
        "Custom(lambda t: None, 'none').table(1)",
        "Custom(<lambda>, 'none') at t = 0 must be a finite",
    ),
    ("from_dict({'schedule': 'Custom', 'name': 1})", "name must be a string that is not empty"),
    ("Constant(0.1).over(5.0)", "steps must be an integer in [1, 2**63 - 1], got 5.0"),
    ("Constant(0.1).then(0.2, at=5)", "other must be a schedule, got 0.2"),
    ("Constant(0.1).warmup(5.0)", "n must be an integer in [0, 2**63 - 1], got 5.0"),
    ("Constant(0.1)(1.0)", "t must be an integer in [0, 2**63 - 1], got 1.0"),
    ("Constant(0.1)(np.float32(1))", "t must be an integer in [0, 2**63 - 1], got np.float32(1.0)"),
    ("Constant(0.1)(True)", "t must be an integer in [0, 2**63 - 1], got True"),
    ("Constant(0.1)(None)", "t must be an integer in [0, 2**63 - 1], got None"),
    ("Constant(0.1) * None", "unsupported operand type(s) for *"),
    ("Constant(0.1) * Constant(2)", "unsupported operand type(s) for *"),
    ("Constant(0.1) * True", "unsupported operand type(s) for *"),
    ("np.ones(2) * Constant(0.1)", "unsupported operand type(s) for *"),
    ("Schedule()", "abstract"),
    ("from_dict('Cosine(0.1, 10)')", "a schedule's dict is expected, got 'Cosine(0.1, 10)'"),
    ("from_dict({'schedule': 'Constant', 'v': '1'})", "v must be a finite number >= 0, got '1'"),
    ("from_dict({'schedule': 'Scaled', 'of': 1, 'factor': 2})", "of must be a schedule, got 1"),
]


@pytest.mark.parametrize(("call", "message"), VALUE)
def test_value_error(call: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        eval(call, names)


@pytest.mark.parametrize(("call", "message"), TYPE)
def test_type_error(call: str, message: str) -> None:
    with pytest.raises(TypeError, match=re.escape(message)):
        eval(call, names)


@pytest.mark.parametrize(
    ("d", "message"),
    [
        ({}, "'schedule' must be one of Constant, Step, "),
        ({"schedule": "Cosin"}, "'schedule' must be one of "),
        ({"schedule": ["Cosine"]}, "got ['Cosine']"),
        ({"schedule": "Schedule"}, "got 'Schedule'"),
        (
            {"schedule": "Custom", "name": "nobody's"},
            'make onepass.schedule.Custom(function, "nobody\'s") first',
        ),
        ({"schedule": "Custom", "function": "f"}, "missing: ['name'], unknown: ['function']"),
        ({"schedule": "Cosine", "v": 0.1}, "missing: ['steps'], unknown: []"),
        (
            {"schedule": "Cosine", "v": 0.1, "steps": 5, "T_max": 5},
            "Cosine takes the entries v, steps, final; missing: [], unknown: ['T_max']",
        ),
        ({"schedule": "Cosine", "v": 0.1, "steps": 0}, "steps must be an integer in [1, "),
        (
            {"schedule": "Warmup", "of": {"schedule": "?"}, "steps": 5},
            "'schedule' must be one of ",
        ),
    ],
)
def test_from_dict(d: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        from_dict(d)


def test_tensor_and_numpy_integers_are_step_numbers() -> None:
    s = Cosine(0.1, 10)
    assert s(3) == s(np.int8(3)) == s(np.uint64(3)) == s(torch.tensor(3))


def test_plot_draws_the_table() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    s = Cosine(0.1, 10)
    figure, ax = pyplot.subplots()
    try:
        assert s.plot(20, ax) is ax
        assert s.plot(5) is ax  # pyplot's current Axes
        line, other = ax.lines
        rows = zip(*(np.asarray(d).tolist() for d in line.get_data()), strict=True)
        assert list(rows) == s.table(20)
        assert line.get_label() == "Cosine(0.1, 10)"
        assert np.shape(other.get_xdata()) == (5,)
    finally:
        pyplot.close(figure)


def test_plot_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        Cosine(0.1, 10).plot(5)
