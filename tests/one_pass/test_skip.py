"""Steps that are skipped: skip_nonfinite, GradScaler; and what `report` says in all situations."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch

import onepass
from tests import cases, tolerances
from tests.cases import Case
from tests.helpers import assert_same, gradients, host_decides, parameters, twin

SHAPES = [(5, 7), (70,), ()]
NAN, INF = float("nan"), float("inf")
bad = pytest.mark.parametrize("bad", [NAN, INF, -INF])

EVERYTHING = {
    "ema_decay": 0.9,
    "l1_decay": 0.01,
    "max_grad_norm": 1.0,
    "max_grad_value": 0.5,
    "rounding": "stochastic",
    "master_weights": True,
    "state_dtype": "8bit",
}


def assert_untouched(optimizer: Any, params: list[Any], before: list[Any], state: Any) -> None:
    for p, (value, version, grad) in zip(params, before, strict=True):
        tolerances.exact(p, value)
        assert p._version == version
        if grad is not None:
            tolerances.exact(p.grad, grad)
    after = optimizer.state_dict()
    assert after["param_groups"] == state["param_groups"]
    assert after["state"].keys() == state["state"].keys()
    for i, own in state["state"].items():
        assert after["state"][i].keys() == own.keys()
        for key, value in own.items():
            tolerances.exact(after["state"][i][key], value)


def noted(params: list[Any]) -> list[Any]:
    return [
        (p.detach().clone(), p._version, None if p.grad is None else p.grad.clone()) for p in params
    ]


@host_decides
@bad
@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["alone", "with-everything"])
@cases.rules
def test_skipped_step_changes_and_counts_nothing(
    case: Case, options: dict[str, Any], bad: float
) -> None:
    params = parameters(SHAPES, torch.bfloat16)
    optimizer = case.ours(params, skip_nonfinite=True, **options)
    for good in range(3):
        gradients(params)
        kept = params[1].grad[13].clone()  # type: ignore[index]
        params[1].grad[13] = bad  # type: ignore[index]
        before, state = noted(params), copy.deepcopy(optimizer.state_dict())
        optimizer.step()
        assert_untouched(optimizer, params, before, state)
        if good == 0 and case.name != "Adagrad":  # it makes its state when it is constructed
            assert not any(optimizer.state.values())  # nothing allocated
        report = optimizer.report
        assert not report.applied
        assert (report.steps_applied, report.steps_skipped) == (good, good + 1)
        assert report.nonfinite == ["1"]
        assert report.grad_norm is not None
        assert not math.isfinite(report.grad_norm)
        assert report.clip_coefficient is None
        params[1].grad[13] = kept  # type: ignore[index]
        optimizer.step()
        report = optimizer.report
        assert report.applied
        assert (report.steps_applied, report.steps_skipped) == (good + 1, good + 1)
        assert report.nonfinite == []
    for p in params:
        assert "step" not in optimizer.state[p] or float(optimizer.state[p]["step"]) == 3


@cases.classes
def test_skipping_is_the_same_as_not_stepping(case: Case) -> None:
    ours = parameters(SHAPES)
    theirs = twin(ours)
    optimizer, torchs = case.ours(ours, skip_nonfinite=True), case.torchs(theirs)
    for step in range(6):
        gradients(ours, theirs)
        if step in (0, 3):
            ours[0].grad[2, 2] = INF  # type: ignore[index]
        else:
            torchs.step()
        optimizer.step()
    assert_same(optimizer, torchs, **tolerances.accumulated(4))


@cases.classes
def test_names_of_the_parameters(case: Case) -> None:
    model: Any = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    optimizer = case.ours(
        [
            {"params": list(model[0].named_parameters(prefix="0"))},
            {"params": list(model[1].named_parameters(prefix="1"))},
        ],
        skip_nonfinite=True,
    )
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    model[0].bias.grad[2] = NAN
    model[1].weight.grad[1, 1] = INF
    optimizer.step()
    assert optimizer.report.nonfinite == ["0.bias", "1.weight"]


def test_numbers_count_through_the_groups() -> None:
    params = parameters([(2,), (3,), (4,)])
    optimizer = onepass.SGD([{"params": params[:1]}, {"params": params[1:]}], skip_nonfinite=True)
    gradients(params)
    params[2].grad[0] = NAN  # type: ignore[index]
    optimizer.step()
    assert optimizer.report.nonfinite == ["2"]


@cases.all_dtypes
def test_largest_finite_gradients_are_finite(dtype: torch.dtype) -> None:
    """Whether a gradient holds inf or NaN does not depend on whether its square can be represented."""
    (p,) = parameters([(70,)], dtype)
    optimizer = onepass.SGD([p], lr=0.0, skip_nonfinite=True)
    p.grad = torch.full_like(p, torch.finfo(dtype).max)
    optimizer.step()
    assert optimizer.report.applied
    assert optimizer.report.nonfinite == []


@pytest.mark.parametrize("count", [1, 31, 32, 33, 511, 513, 70001])
def test_a_single_nan_is_found_wherever_it_is(count: int) -> None:
    (p,) = parameters([(count,)])
    optimizer = onepass.SGD([p], lr=1.0, skip_nonfinite=True)
    for place in {0, count // 2, count - 1}:
        p.grad = torch.zeros(count)
        p.grad[place] = NAN
        optimizer.step()
        assert not optimizer.report.applied


def test_hidden_behind_gradients_that_are_not_there() -> None:
    """The neighbours of a strided gradient are not part of it."""
    (p,) = parameters([(5, 3)])
    base = torch.full((5, 6), NAN)
    base[:, ::2] = 1.0
    p.grad = base[:, ::2]
    optimizer = onepass.SGD([p], skip_nonfinite=True)
    optimizer.step()
    assert optimizer.report.applied
    p.grad = base[:, 1::2]
    optimizer.step()
    assert not optimizer.report.applied


@cases.classes
def test_closure_of_a_skipped_step(case: Case) -> None:
    (p,) = parameters([(5,)])
    optimizer = case.ours([p], skip_nonfinite=True)

    def closure() -> float:
        p.grad = torch.full_like(p, NAN)
        return 2.5

    assert optimizer.step(closure) == 2.5
    assert optimizer.report.steps_skipped == 1


@cases.classes
def test_hooks_see_the_report_of_their_step(case: Case) -> None:
    (p,) = parameters([(5,)])
    optimizer = case.ours([p], skip_nonfinite=True)
    seen: list[tuple[bool, int]] = []
    optimizer.register_step_post_hook(
        lambda o, _a, _k: seen.append((o.report.applied, o.report.steps_applied))
    )
    for value in (1.0, NAN, 2.0):
        p.grad = torch.full_like(p, value)
        optimizer.step()
    assert seen == [(True, 1), (False, 1), (True, 2)]


# GradScaler


class Loop:
    """GradScaler's loop, with gradients from outside."""

    def __init__(self, optimizer: Any, scale: float = 1024.0) -> None:
        self.optimizer = optimizer
        self.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        self.scaler.scale(torch.zeros(1))

    def step(self, params: list[Any], *, unscale: bool = False) -> None:
        for p in params:
            if p.grad is not None:
                p.grad.mul_(self.scaler.get_scale())
        if unscale:
            self.scaler.unscale_(self.optimizer)
        self.scaler.step(self.optimizer)
        self.scaler.update()


@pytest.mark.parametrize("unscale", [False, True])
@pytest.mark.parametrize("options", [{}, {"fused": True}, {"fused": False}], ids=str)
@cases.all_cases
def test_scaled_and_clipped_training(case: Case, options: dict[str, Any], unscale: bool) -> None:
    """The same as torch's unscale_, clip_grad_norm_, step; a step with an infinity is skipped."""
    ours = parameters(SHAPES)
    theirs = twin(ours)
    optimizer, torchs = case.ours(ours, max_grad_norm=1.5, **options), case.torchs(theirs)
    mine, other = Loop(optimizer), Loop(torchs)
    for step in range(5):
        gradients(ours, theirs)
        if step in (0, 3):
            for params in (ours, theirs):
                params[0].grad[1, 1] = INF  # type: ignore[index]
        for p in theirs:
            p.grad.mul_(other.scaler.get_scale())  # type: ignore[union-attr]
        other.scaler.unscale_(torchs)
        norm = torch.nn.utils.clip_grad_norm_(theirs, 1.5)
        other.scaler.step(torchs)
        other.scaler.update()
        mine.step(ours, unscale=unscale)
        report = optimizer.report
        assert report.applied == (step not in (0, 3))
        if report.applied:
            assert report.grad_norm == pytest.approx(norm.item(), rel=1e-6)
    assert mine.scaler.get_scale() == other.scaler.get_scale() == 256.0
    assert optimizer.report.steps_applied == 3
    assert optimizer.report.steps_skipped == 2
    assert_same(optimizer, torchs, **tolerances.accumulated(5))


@cases.classes
def test_attribute_is_set_by_max_grad_norm(case: Case) -> None:
    params = parameters(SHAPES)
    assert case.ours(params, max_grad_norm=1.0)._step_supports_amp_scaling is True
    for options in ({"max_grad_value": 1.0}, {"skip_nonfinite": True}, {"ema_decay": 0.9}):
        assert not hasattr(case.ours(params, **options), "_step_supports_amp_scaling")


@host_decides
@cases.rules
@pytest.mark.parametrize("found", [1.0, 3.0, 8.0])
def test_found_inf_changes_and_counts_nothing(case: Case, found: float) -> None:
    """found_inf may be a sum over devices."""
    params = parameters(SHAPES, torch.bfloat16)
    optimizer = case.ours(params, fused=True, **EVERYTHING)
    optimizer.grad_scale = torch.tensor(2.0)
    for good in range(2):
        gradients(params)
        params[0].grad[0, 0] = NAN  # type: ignore[index]
        before, state = noted(params), copy.deepcopy(optimizer.state_dict())
        optimizer.found_inf = torch.tensor(found)
        optimizer.step()
        assert_untouched(optimizer, params, before, state)
        report = optimizer.report
        assert (report.applied, report.steps_applied, report.steps_skipped) == (
            False,
            good,
            good + 1,
        )
        assert report.nonfinite == ["0"]
        assert report.grad_norm is None
        gradients(params)
        optimizer.found_inf = torch.tensor(0.0)
        optimizer.step()
        assert optimizer.report.applied


@cases.classes
def test_norm_is_that_of_the_unscaled_gradients(case: Case) -> None:
    (p,) = parameters([(9,)])
    optimizer = case.ours([p], max_grad_norm=2.0)
    p.grad = torch.full_like(p, 64.0)
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(64.0), torch.tensor(0.0)
    optimizer.step()
    assert optimizer.report.grad_norm == pytest.approx(3.0, rel=1e-6)
    assert optimizer.report.clip_coefficient == pytest.approx(2 / (3 + 1e-6), rel=1e-6)
    assert p.grad.tolist() == [64.0] * 9


@cases.classes
def test_skip_nonfinite_inside_grad_scaler(case: Case) -> None:
    """Both may ask for the same skip; it is one."""
    ours = parameters(SHAPES)
    theirs = twin(ours)
    optimizer = case.ours(ours, fused=True, skip_nonfinite=True)
    torchs = case.torchs(theirs)
    loop = Loop(optimizer)
    for step in range(4):
        gradients(ours, theirs)
        if step == 1:
            ours[0].grad[1, 1] = INF  # type: ignore[index]
        else:
            torchs.step()
        loop.step(ours)
    assert optimizer.report.steps_skipped == 1
    assert_same(optimizer, torchs, **tolerances.accumulated(3))


# The report


def test_report_before_the_first_step() -> None:
    report = onepass.SGD(parameters(SHAPES), max_grad_norm=1.0).report
    assert not report.applied
    assert report.grad_norm is None
    assert report.clip_coefficient is None
    assert report.steps_applied == report.steps_skipped == 0
    assert report.nonfinite == []


@cases.classes
def test_report_without_options(case: Case) -> None:
    params = parameters(SHAPES)
    optimizer = case.ours(params)
    for step in range(3):
        gradients(params)
        optimizer.step()
        report = optimizer.report
        assert (report.applied, report.steps_applied, report.steps_skipped) == (
            True,
            step + 1,
            0,
        )
        assert report.grad_norm is None
        assert report.clip_coefficient is None


def test_coefficient_is_none_where_nobody_clips() -> None:
    (p,) = parameters([(4,)])
    optimizer = onepass.SGD([p], skip_nonfinite=True)
    p.grad = torch.ones(4)
    optimizer.step()
    assert optimizer.report.grad_norm == 2.0
    assert optimizer.report.clip_coefficient is None


def test_report_is_a_value() -> None:
    (p,) = parameters([(4,)])
    optimizer = onepass.SGD([p], skip_nonfinite=True)
    p.grad = torch.full((4,), NAN)
    optimizer.step()
    first = optimizer.report
    first.nonfinite.append("mine")
    assert optimizer.report.nonfinite == ["0"]
    p.grad = torch.ones(4)
    optimizer.step()
    assert (first.applied, first.steps_skipped) == (False, 1)
    with pytest.raises(AttributeError):
        first.applied = True  # type: ignore[misc]
    with pytest.raises(AttributeError):
        optimizer.report = first  # type: ignore[misc]


def test_a_step_that_raises_is_not_counted() -> None:
    p, q = parameters([(4,), (5,)])
    optimizer = onepass.SGD([p, q], max_grad_norm=1.0)
    gradients([p, q])
    optimizer.step()
    before = optimizer.report
    values = p.detach().clone()
    q.data = torch.zeros(6)
    with pytest.raises(RuntimeError, match="parameter 1 of group 0"):
        optimizer.step()
    assert optimizer.report == before
    tolerances.exact(p, values)


@cases.classes
def test_counts_after_loading(case: Case) -> None:
    """`steps_applied` includes the steps of the checkpoint, where it holds a count."""
    params = parameters(SHAPES)
    optimizer = case.ours(params, max_grad_norm=1.0)
    for _ in range(3):
        gradients(params)
        optimizer.step()
    other = case.ours(twin(params), max_grad_norm=1.0)
    other.load_state_dict(optimizer.state_dict())
    assert other.report.steps_applied == (0 if case.name == "SGD" else 3)
    if case.name != "SGD":
        assert copy.deepcopy(optimizer).report.steps_applied == 3


@cases.classes
@pytest.mark.parametrize("options", [{"state_dtype": "8bit"}, {"rounding": "stochastic"}], ids=str)
def test_counts_after_loading_where_the_next_step_needs_them(
    case: Case, options: dict[str, Any]
) -> None:
    params = parameters(SHAPES)
    optimizer = case.ours(params, **options)
    for _ in range(3):
        gradients(params)
        optimizer.step()
    other = case.ours(twin(params))
    other.load_state_dict(optimizer.state_dict())
    assert other.report.steps_applied == 3
