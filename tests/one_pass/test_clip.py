"""max_grad_norm and max_grad_value against torch.nn.utils, which change the gradients; ours leave them as they are."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import onepass
from tests import cases, tolerances
from tests.cases import Case
from tests.helpers import assert_same, gradients, parameters, twin
from tests.one_pass import oracle

SHAPES = [(5, 7), (700,), (), (0, 3)]
NAN, INF = float("nan"), float("inf")


def grouped(params: list[Any]) -> list[dict[str, Any]]:
    return [{"params": params[:2]}, {"params": params[2:]}]


@pytest.mark.parametrize("largest", [0.3, 5.0, 1e3])
@cases.all_cases
def test_norm_as_torch(case: Case, largest: float) -> None:
    ours = parameters(SHAPES)
    theirs = twin(ours)
    optimizer = case.ours(grouped(ours), max_grad_norm=largest)
    torchs = case.torchs(grouped(theirs))
    for _ in range(4):
        gradients(ours, theirs)
        kept = [p.grad.clone() for p in ours if p.grad is not None]
        norm = torch.nn.utils.clip_grad_norm_(theirs, largest)
        torchs.step()
        optimizer.step()
        assert optimizer.report.grad_norm == pytest.approx(norm.item(), rel=1e-6)
        coefficient = min(1.0, largest / (norm.item() + 1e-6))
        assert optimizer.report.clip_coefficient == pytest.approx(coefficient, rel=1e-6)
        for p, grad in zip(ours, kept, strict=True):
            assert p.grad is not None
            tolerances.exact(p.grad, grad)
    assert_same(optimizer, torchs, **tolerances.accumulated(4))


@pytest.mark.parametrize("largest", [0.1, 2.0])
@cases.all_cases
def test_value_as_torch(case: Case, largest: float) -> None:
    ours = parameters(SHAPES)
    theirs = twin(ours)
    optimizer = case.ours(grouped(ours), max_grad_value=largest)
    torchs = case.torchs(grouped(theirs))
    for _ in range(4):
        gradients(ours, theirs)
        kept = [p.grad.clone() for p in ours if p.grad is not None]
        torch.nn.utils.clip_grad_value_(theirs, largest)
        torchs.step()
        optimizer.step()
        for p, grad in zip(ours, kept, strict=True):
            assert p.grad is not None
            tolerances.exact(p.grad, grad)
    if case.id == "rmsprop-centered" or case.id == "rmsprop-centered-momentum":
        # equal gradients leave a variance of 0, where rounding is all there is: see test_order
        for p, q in zip(ours, theirs, strict=True):
            torch.testing.assert_close(
                optimizer.state[p]["square_avg"],
                torchs.state[q]["square_avg"],
                **tolerances.accumulated(4),
            )
    else:
        assert_same(optimizer, torchs, **tolerances.accumulated(4))


@cases.classes
def test_norm_and_value_as_torch(case: Case) -> None:
    """The norm first: torch's usual order, and the documented one."""
    ours = parameters(SHAPES)
    theirs = twin(ours)
    optimizer = case.ours(ours, max_grad_norm=20.0, max_grad_value=0.9)
    torchs = case.torchs(theirs)
    for _ in range(3):
        gradients(ours, theirs)
        torch.nn.utils.clip_grad_norm_(theirs, 20.0)
        torch.nn.utils.clip_grad_value_(theirs, 0.9)
        torchs.step()
        optimizer.step()
    if "centered" not in case.id:
        assert_same(optimizer, torchs, **tolerances.accumulated(3))


@cases.all_dtypes
@cases.classes
def test_norm_that_is_not_reached_changes_no_bit(case: Case, dtype: torch.dtype) -> None:
    clipped = parameters(SHAPES, dtype)
    plain = twin(clipped)
    a, b = case.ours(clipped, max_grad_norm=1e4), case.ours(plain)
    for _ in range(3):
        gradients(clipped, plain)
        a.step()
        b.step()
        assert a.report.clip_coefficient == 1.0
    for p, q in zip(clipped, plain, strict=True):
        tolerances.exact(p, q)


@pytest.mark.parametrize("bad", [INF, -INF, NAN])
@pytest.mark.parametrize("option", ["max_grad_norm", "max_grad_value"])
def test_nonfinite_gradients_as_torch(option: str, bad: float) -> None:
    """An infinite norm makes the coefficient 0, which leaves NaN where the infinity was; a NaN spreads to all."""
    (p, q), (r, s) = parameters([(70,), (3,)]), parameters([(70,), (3,)])
    with torch.no_grad():
        r.copy_(p)
        s.copy_(q)
    optimizer = onepass.SGD([("a", p), ("b", q)], lr=0.1, **{option: 1.0})  # type: ignore[arg-type]
    torchs = torch.optim.SGD([r, s], lr=0.1, foreach=False)
    gradients([p, q], [r, s])
    p.grad[5] = r.grad[5] = bad  # type: ignore[index]
    if option == "max_grad_norm":
        torch.nn.utils.clip_grad_norm_([r, s], 1.0)
    else:
        torch.nn.utils.clip_grad_value_([r, s], 1.0)
    optimizer.step()
    torchs.step()
    for mine, theirs in ((p, r), (q, s)):
        torch.testing.assert_close(mine, theirs, equal_nan=True, **tolerances.accumulated(1))
    report = optimizer.report
    assert report.applied
    if option == "max_grad_norm":
        assert report.grad_norm is not None
        assert report.clip_coefficient is not None
        assert report.nonfinite == ["a"]
        assert math.isnan(report.grad_norm) if math.isnan(bad) else report.grad_norm == INF
        if math.isnan(bad):
            assert math.isnan(report.clip_coefficient)
            assert bool(p.isnan().all())
        else:
            assert report.clip_coefficient == 0.0
            assert int(p.isnan().sum()) == 1


def test_norm_of_all_groups_and_dtypes() -> None:
    params = [p for dtype in cases.DTYPES for p in parameters([(300,), ()], dtype)]
    optimizer = onepass.SGD([{"params": [p]} for p in params], max_grad_norm=1.0)
    for seed in range(3):
        torch.manual_seed(seed)
        gradients(params)
        params[seed].grad = None
        optimizer.step()
        expected = math.sqrt(oracle.square_sum(params))
        assert optimizer.report.grad_norm == pytest.approx(expected, rel=1e-14)
        assert optimizer.report.clip_coefficient == pytest.approx(1 / (expected + 1e-6), rel=1e-14)


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e25, 3e38])
def test_norm_of_very_small_and_large_gradients(size: float) -> None:
    """Squares that float32 cannot hold."""
    (p,) = parameters([(70,)])
    optimizer = onepass.SGD([p], lr=1.0, max_grad_norm=1.0)
    p.grad = torch.full_like(p, size)
    before = p.detach().clone()
    optimizer.step()
    norm = p.grad[0].item() * math.sqrt(70)
    assert optimizer.report.grad_norm == pytest.approx(norm, rel=1e-14)
    torch.testing.assert_close(
        p.detach(), before - size / max(norm, 1.0), **tolerances.accumulated(1)
    )


def test_norm_of_gradients_of_any_layout() -> None:
    params = parameters([(6, 10), (6, 10), (2, 3, 4, 4), (50,), (6, 10)])
    params[0].grad = torch.randn(10, 6).t()
    params[1].grad = torch.randn(1).expand(6, 10)
    params[2].grad = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    params[3].grad = torch.randn(150)[::3]
    params[4].grad = torch.randn(6, 23)[:, 2:22:2]
    optimizer = onepass.Adam(params, max_grad_norm=1.0)
    for _ in range(2):  # the first one makes states
        optimizer.step()
        expected = math.sqrt(oracle.square_sum(params))
        assert optimizer.report.grad_norm == pytest.approx(expected, rel=1e-14)


@cases.classes
def test_without_gradients(case: Case) -> None:
    params = parameters(SHAPES)
    optimizer = case.ours(params, max_grad_norm=1.0)
    optimizer.step()
    assert optimizer.report.applied
    assert optimizer.report.grad_norm == 0.0
    assert optimizer.report.clip_coefficient == 1.0


def test_changed_between_steps() -> None:
    (p,) = parameters([(9,)])
    optimizer = onepass.SGD([p], lr=1.0, max_grad_norm=1.0)
    p.grad = torch.full_like(p, 2.0)
    for largest in (1.0, 3.0, 100.0):
        optimizer.param_groups[0]["max_grad_norm"] = largest
        optimizer.step()
        assert optimizer.report.grad_norm == 6.0
        assert optimizer.report.clip_coefficient == pytest.approx(min(1.0, largest / 6), rel=1e-6)
    optimizer.param_groups[0]["max_grad_norm"] = None
    optimizer.step()
    assert optimizer.report.grad_norm is None
    assert optimizer.report.clip_coefficient is None


@cases.classes
def test_norm_is_of_the_gradients_alone(case: Case) -> None:
    """Decay and L1 are added after clipping, whatever their size."""
    (p,) = parameters([(9,)])
    optimizer = case.ours(
        [p], max_grad_norm=1.0, weight_decay=100.0, l1_decay=50.0, l1_mode="subgradient"
    )
    p.grad = torch.full_like(p, 1 / 9)
    optimizer.step()
    assert optimizer.report.grad_norm == pytest.approx(1 / 3, rel=1e-6)
    assert optimizer.report.clip_coefficient == 1.0
