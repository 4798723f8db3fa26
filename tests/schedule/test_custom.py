"""Schedules of any function: what their names stand for, in copies, files and optimizers."""

from __future__ import annotations

import copy
import functools
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import onepass
from onepass.schedule import Constant, Custom, from_dict
from onepass.schedule.program import program
from tests import tolerances
from tests.helpers import gradients, parameters, twin
from tests.schedule.scheduled import SHAPES, through_a_file


def halves(t: float) -> float:
    return 0.1 / (1 + t)


def test_value_is_the_functions() -> None:
    s = Custom(halves, "halves")
    assert s.table(4) == [(t, 0.1 / (1 + t)) for t in range(4)]
    assert s.over(8)(4) == 0.1 / 1.5
    assert (2 * s).warmup(4)(1) == pytest.approx(0.1)
    numpys = Custom(lambda t: np.float32(t), "a number of numpy")
    assert numpys(3) == 3.0
    assert type(numpys(3)) is float


def test_the_function_is_asked_with_an_int() -> None:
    asked: list[Any] = []

    def function(t: float) -> float:
        asked.append(t)
        return 1.0

    s = Custom(function, "asked")
    s(np.int64(3)), s(torch.tensor(4)), s.over(4)(3)
    assert [(t, type(t)) for t in asked] == [(3, int), (4, int), (0.75, float)]


def test_equality_is_by_name() -> None:
    a, b = Custom(halves, "by name"), Custom(halves, "another name")
    assert a != b
    assert a == Custom(halves, "by name")
    assert len({a, b, Custom(halves, "by name")}) == 2


def test_repr() -> None:
    assert repr(Custom(halves, "halves").warmup(3)) == "Custom(halves, 'halves').warmup(3)"
    assert repr(Custom(lambda t: t, "same")) == "Custom(<lambda>, 'same')"
    partial = functools.partial(pow, 2)
    assert repr(Custom(partial, "powers")) == f"Custom({partial!r}, 'powers')"


CELL = """

scale = 0.5
def outer(k):
    def half(t):
        return t / 2
    def f(t, floor={floor}):
        terms = [x * k for x in (half(t), {number})]
        return max(floor, sum(terms) * scale)
    return f
made = Custom(outer({closed}), "cell {name}")
"""


def cell(name: str, **values: Any) -> Any:
    """Run a cell of a notebook; each run has its own file name and lines, as there."""
    text = CELL.format(name=name, **{"floor": 0.0, "number": 1.5, "closed": 2, **values})
    cell.runs += 1  # type: ignore[attr-defined]
    found: dict[str, Any] = {"Custom": Custom}
    exec(compile("\n" * cell.runs + text, f"<cell {cell.runs}>", "exec"), found)  # type: ignore[attr-defined]
    return found


cell.runs = 0  # type: ignore[attr-defined]


def test_the_same_cell_again_is_the_same_function_and_taken() -> None:
    first = cell("again")
    second = cell("again")
    assert first["made"] == second["made"]
    second["scale"] = 1.0  # a global, which tells whose function is asked
    assert first["made"](1) == second["made"](1) == 4.0


@pytest.mark.parametrize(
    "change", [{"floor": 5.0}, {"number": 1.25}, {"number": "t"}, {"closed": 3}], ids=str
)
def test_another_function_of_the_name_is_refused(change: dict[str, Any]) -> None:
    name = str(change)
    first = cell(name)["made"]
    before = first(1)
    with pytest.raises(ValueError, match=r"name must be .*already stands for <function .*f at"):
        cell(name, **change)
    assert first(1) == before
    assert cell(name + "!", **change)["made"](1) != before


def keyword_default(low: float) -> Callable[[float], float]:
    def f(t: float, *, low: float = low) -> float:
        return low + t

    return f


def holding(array: Any) -> Callable[[int], float]:
    return lambda t: array[t]


def calls_itself() -> Callable[[int], float]:
    def f(t: int) -> float:
        return 1.0 if t == 0 else f(t - 1) / 2

    return f


def test_what_counts_as_the_same() -> None:
    Custom(keyword_default(0.1), "keyword")
    Custom(keyword_default(0.1), "keyword")
    with pytest.raises(ValueError, match="already stands for"):
        Custom(keyword_default(0.2), "keyword")
    values = [0.1, 0.2]
    Custom(values.__getitem__, "bound")
    Custom(values.__getitem__, "bound")
    with pytest.raises(ValueError, match="already stands for"):
        Custom(abs, "bound")


@pytest.mark.parametrize("make", [lambda: holding(np.arange(3.0)), calls_itself])
def test_what_cannot_be_compared_is_another(make: Callable[[], Any]) -> None:
    function, name = make(), f"uncomparable {make}"
    assert Custom(function, name) == Custom(function, name)
    with pytest.raises(ValueError, match="already stands for"):
        Custom(make(), name)


def test_copies_go_by_the_name() -> None:
    s = Custom(lambda t: 1.0 * t, "lambda").warmup(3)
    for again in (copy.deepcopy(s), copy.copy(s), pickle.loads(pickle.dumps(s))):
        assert again == s
        assert again(10) == 7.0
    assert b"lambda" in pickle.dumps(s)


def test_another_process_needs_the_function_first() -> None:
    data = pickle.dumps(Custom(halves, "of that process"))
    code = (
        "import pickle\n"
        "from onepass.schedule import Custom\n"
        f"data = {data!r}\n"
        "try:\n"
        "    pickle.loads(data)\n"
        "except ValueError as error:\n"
        "    print(error)\n"
        "Custom(lambda t: 5.0, 'of that process')\n"
        "print(pickle.loads(data)(0))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    message, value = result.stdout.splitlines()
    assert "Custom(function, 'of that process') first" in message
    assert value == "5.0"


def test_a_device_cannot_evaluate_it() -> None:
    s = Custom(halves, "halves")
    for composed in (s, s.warmup(4) * 2, Constant(0.1).then(s, at=3), s.over(10)):
        with pytest.raises(ValueError, match=r"Custom\(halves, 'halves'\) .*on the host"):
            program(composed)


def test_in_an_optimizer_and_its_checkpoint() -> None:
    def make(params: list[Any]) -> Any:
        return onepass.AdamW(params, lr=Custom(halves, "halves").warmup(2))

    params = parameters(SHAPES)
    optimizer = make(params)
    for t in range(4):
        assert optimizer.param_groups[0]["lr"] == Custom(halves, "halves").warmup(2)(t)
        gradients(params)
        optimizer.step()
    others = twin(params)
    resumed = make(others)
    resumed.load_state_dict(through_a_file(optimizer.state_dict()))
    again = copy.deepcopy(optimizer)
    assert resumed.param_groups[0]["lr"] == again.param_groups[0]["lr"] == halves(2)
    gradients(params, others)
    optimizer.step()
    resumed.step()
    for p, q in zip(params, others, strict=True):
        tolerances.exact(p, q)


def test_a_checkpoint_of_another_name_is_refused() -> None:
    params = parameters(SHAPES)
    saved = onepass.SGD(params, lr=Custom(halves, "halves")).state_dict()
    other = onepass.SGD(params, lr=Custom(lambda t: 0.5 + 0 * t, "a half"))
    with pytest.raises(
        ValueError, match=r"lr of parameter group 0 is Custom\(<lambda>, 'a half'\)"
    ):
        other.load_state_dict(saved)


def test_from_dict_reads_what_is_inside() -> None:
    s = Custom(halves, "halves").over(5) * 2
    assert from_dict(s.to_dict()) == s
