"""Plateau: against torch's ReduceLROnPlateau, beside schedules, in checkpoints."""

from __future__ import annotations

import copy
import io
import json
import math
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import onepass
from onepass.hyper.schedules import Schedules
from onepass.schedule import Constant, Cosine, Linear, Plateau
from onepass.schedule.program import run
from tests import cases
from tests.cases import Case
from tests.helpers import gradients, parameters


def lrs(optimizer: Any) -> list[float]:
    return [group["lr"] for group in optimizer.param_groups]


@given(
    metrics=st.lists(
        st.sampled_from([0.5, 0.9, 0.99995, 1.0, 1.5, 7.0, math.inf, math.nan]), max_size=30
    ),
    factor=st.sampled_from([0.1, 0.5, 0.9]),
    patience=st.integers(0, 3),
    threshold=st.sampled_from([0.0, 1e-4, 0.1]),
    mode=st.sampled_from(["min", "max"]),
    cooldown=st.integers(0, 3),
    floor=st.sampled_from([0.0, 0.05, 2.0]),
)
def test_against_torch(metrics: list[float], floor: float, **arguments: Any) -> None:
    (p, q) = parameters([(3,), (3,)])
    ours = onepass.SGD([p], lr=1.0 * Plateau(floor=floor, **arguments))
    theirs = torch.optim.SGD([q], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        theirs, min_lr=floor, eps=0.0, **arguments
    )
    for metric in metrics:
        ours.observe(metric)
        scheduler.step(metric)
        assert lrs(ours) == pytest.approx(lrs(theirs), rel=1e-12)


def test_a_negative_metric_that_is_worse_is_worse() -> None:
    """By torch, -0.99995 is better than -1."""
    optimizer = onepass.SGD(parameters([(3,)]), lr=1.0 * Plateau(patience=0))
    for metric in (-1.0, -0.99995):
        optimizer.observe(metric)
    assert lrs(optimizer) == [0.1]


@cases.classes
def test_steps_use_the_reduced_rate(case: Case) -> None:
    ours = parameters([(5,), (3,)])
    theirs = copy.deepcopy(ours)
    optimizer = case.ours(ours, lr=0.1 * Plateau(factor=0.5, patience=0))
    reference = case.torchs(theirs, lr=0.1)
    for t in range(6):
        gradients(ours, theirs)
        optimizer.step()
        reference.param_groups[0]["lr"] = 0.1 * 0.5 ** max(0, t - 1)
        reference.step()
        optimizer.observe(1.0)
        assert lrs(optimizer)[0] == pytest.approx(0.1 * 0.5**t)
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("how", ["product", "other product", "option", "group", "later"])
def test_beside_a_schedule(how: str) -> None:
    s, plateau = Cosine(1.0, 10), Plateau(factor=0.5, patience=0)
    (p,) = parameters([(3,)])
    if how == "product":
        optimizer = onepass.SGD([p], lr=s * plateau)
    elif how == "other product":
        optimizer = onepass.SGD([p], lr=plateau * s)
    elif how == "option":
        optimizer = onepass.SGD([p], lr=s, plateau=plateau)
    elif how == "group":
        optimizer = onepass.SGD([{"params": [p], "plateau": plateau}], lr=s)
    else:
        optimizer = onepass.SGD([p], lr=s)
        optimizer.param_groups[0]["plateau"] = plateau
    for t in range(8):
        assert lrs(optimizer) == pytest.approx([s(t) * (0.5 if t > 2 else 1.0)])
        gradients([p])
        optimizer.step()
        if t in (1, 2):
            optimizer.observe(1.0)
    assert optimizer.steps_applied == 8


def test_groups_of_their_own() -> None:
    p, q, r = parameters([(3,)] * 3)
    groups: list[dict[str, Any]] = [
        {"params": [p]},
        {"params": [q], "lr": 0.5},
        {"params": [r], "plateau": None},
    ]
    optimizer = onepass.SGD(groups, lr=1.0, plateau=Plateau(patience=0))
    optimizer.add_param_group({"params": parameters([(2,)]), "lr": 0.25})
    for metric in (1.0, 1.0):
        optimizer.observe(metric)
    assert lrs(optimizer) == pytest.approx([0.1, 0.05, 1.0, 0.025])


def test_the_floor_does_not_raise_a_schedule() -> None:
    optimizer = onepass.SGD(parameters([(3,)]), lr=Linear(1.0, 4) * Plateau(floor=0.5, patience=0))
    for metric in (1.0, 1.0):
        optimizer.observe(metric)
    found = []
    for _ in range(5):
        found += lrs(optimizer)
        gradients(optimizer.param_groups[0]["params"])
        optimizer.step()
    assert found == [0.5, 0.5, 0.5, 0.25, 0.0]


@cases.classes
def test_goes_on_after_a_resume(case: Case) -> None:
    optimizers = []
    for resumes in (False, True):
        torch.manual_seed(0)
        params = parameters([(5,)])
        optimizer = case.ours(params, lr=0.1 * Plateau(patience=2))
        for i in range(12):
            gradients(params)
            optimizer.step()
            optimizer.observe(1.0)
            if resumes and i % 4 == 1:
                file = io.BytesIO()
                torch.save(optimizer.state_dict(), file)
                file.seek(0)
                optimizer = case.ours(params, lr=0.1 * Plateau(patience=2))
                optimizer.load_state_dict(torch.load(file, weights_only=True))
        optimizers.append(optimizer)
    assert lrs(optimizers[0]) == lrs(optimizers[1]) == pytest.approx([1e-4])
    for a, b in zip(*[o.param_groups[0]["params"] for o in optimizers], strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("policy", ["error", "keep", "checkpoint"])
def test_another_plateau_in_the_checkpoint(policy: str) -> None:
    saved = onepass.SGD(parameters([(3,)]), lr=1.0 * Plateau(factor=0.5, patience=0))
    for metric in (1.0, 1.0):
        saved.observe(metric)
    other = onepass.SGD(parameters([(3,)]), lr=1.0 * Plateau(factor=0.1, patience=0))
    other.on_schedule_mismatch = policy
    if policy == "error":
        with pytest.raises(ValueError, match="plateau of parameter group 0"):
            other.load_state_dict(saved.state_dict())
        assert lrs(other) == [1.0]
        return
    other.load_state_dict(saved.state_dict())
    assert lrs(other) == [0.5]
    other.observe(1.0)
    assert lrs(other) == pytest.approx([0.25 if policy == "checkpoint" else 0.05])


def test_a_checkpoint_of_torch_leaves_it() -> None:
    params = parameters([(3,)])
    optimizer = onepass.Adam(params, lr=1.0 * Plateau(patience=0))
    optimizer.load_state_dict(torch.optim.Adam(parameters([(3,)])).state_dict())
    for metric in (1.0, 1.0):
        optimizer.observe(metric)
    assert lrs(optimizer) == [0.1]


def test_reads_as_it_is_written() -> None:
    plateau = Plateau(factor=0.5, mode="max", floor=0.01)
    assert eval(repr(plateau)) == plateau
    assert eval(repr(Constant(0.1) * plateau)) == Constant(0.1) * plateau
    assert numpy.float64(2.0) * plateau == 2 * plateau == Constant(2.0) * plateau
    assert 2 * (Constant(1.0) * plateau) == Constant(1.0) * 2 * plateau
    assert json.loads(json.dumps(plateau.start()))["mode"] == "max"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"factor": 1.0}, ValueError),
        ({"factor": 0.0}, ValueError),
        ({"factor": "a"}, TypeError),
        ({"patience": -1}, ValueError),
        ({"patience": 1.5}, TypeError),
        ({"threshold": -1e-3}, ValueError),
        ({"mode": "least"}, ValueError),
        ({"cooldown": -1}, ValueError),
        ({"floor": -0.1}, ValueError),
    ],
    ids=str,
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(arguments))):
        Plateau(**arguments)


@pytest.mark.parametrize("value", ["x", {"factor": 0.1}, 0.5, Constant(1.0)], ids=str)
def test_bad_plateaus(value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="plateau"):
        onepass.SGD(parameters([(3,)]), lr=0.1, plateau=value)
    params = parameters([(3,)])
    optimizer = onepass.SGD(params, lr=0.1)
    optimizer.param_groups[0]["plateau"] = value
    gradients(params)
    before = params[0].detach().clone()
    with pytest.raises((TypeError, ValueError), match="plateau"):
        optimizer.step()
    assert torch.equal(params[0], before)


@pytest.mark.parametrize("metric", ["x", None, True, torch.ones(2), 1j], ids=str)
def test_bad_metrics(metric: Any) -> None:
    optimizer = onepass.SGD(parameters([(3,)]), lr=1.0 * Plateau(patience=0))
    with pytest.raises(TypeError, match="metric"):
        optimizer.observe(metric)
    optimizer.observe(torch.tensor(1.0))
    assert optimizer.param_groups[0]["plateau"]["best"] == 1.0


def test_without_a_plateau() -> None:
    with pytest.raises(RuntimeError, match="no parameter group has a plateau"):
        onepass.SGD(parameters([(3,)]), lr=0.1).observe(1.0)


def test_two_at_once() -> None:
    with pytest.raises(ValueError, match="plateau"):
        onepass.SGD(parameters([(3,)]), lr=0.1 * Plateau(), plateau=Plateau())


@pytest.mark.parametrize("floor", [0.0, 0.3, 2.0])
def test_devices_evaluate_reduced_schedules(floor: float) -> None:
    (p,) = parameters([(3,)])
    optimizer = onepass.SGD([p], lr=Cosine(1.0, 8) * Plateau(factor=0.5, patience=0, floor=floor))
    for metric in (1.0, 1.0):
        optimizer.observe(metric)
    (group,) = optimizer.param_groups
    instructions = Schedules().for_device(group)["lr"]
    for t in range(10):
        assert run(instructions, t) == pytest.approx(lrs(optimizer)[0], rel=1e-12, abs=1e-15)
        gradients([p])
        optimizer.step()
