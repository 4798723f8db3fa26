"""Our own options: L1 by the proximal step or by the subgradient, in every optimizer."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests import cases, tolerances
from tests.cases import Case
from tests.helpers import expected_step, gradients, parameters, twin

modes = pytest.mark.parametrize("mode", ["proximal", "subgradient"])


@cases.all_dtypes
@modes
@cases.all_cases
def test_against_formula(case: Case, mode: str, dtype: torch.dtype) -> None:
    options = {"l1_decay": 0.7, "l1_mode": mode}
    params = parameters([(67,), (600,), ()], dtype)
    with torch.no_grad():
        params[0][:9] = 0.0
        params[0][9:12] = -0.0
    optimizer = case.ours(params, **options)
    for _ in range(3):
        gradients(params)
        want = [expected_step(case, optimizer, p, **options) for p in params]
        optimizer.step()
        for p, (value, magnitude, _) in zip(params, want, strict=True):
            tolerances.one_rounding(p, value, magnitude)


@cases.all_dtypes
@cases.classes
def test_proximal_zeros_are_exact(case: Case, dtype: torch.dtype) -> None:
    """Weights within the threshold become 0, not something small; those outside move towards it."""
    p = torch.nn.Parameter(torch.linspace(-2, 2, 301, dtype=torch.float64).to(dtype))
    optimizer = case.ours([p], lr=0.5, l1_decay=1.0, weight_decay=0.0)
    (q,) = twin([p])
    plain = case.ours([q], lr=0.5, weight_decay=0.0)
    p.grad, q.grad = torch.zeros_like(p), torch.zeros_like(q)
    optimizer.step()
    plain.step()
    inside = q.detach().abs() < 0.45
    outside = q.detach().abs() > 0.55
    assert bool((p.detach()[inside] == 0).all())
    torch.testing.assert_close(
        p.detach()[outside],
        (q.detach().sign() * (q.detach().abs() - 0.5))[outside],
        rtol=torch.finfo(dtype).eps * 2,
        atol=torch.finfo(dtype).eps * 2,
    )


def test_threshold_follows_the_decayed_rate_of_adagrad() -> None:
    """The proximal step uses the rate of this step: lr / (1 + (t - 1) * lr_decay)."""
    case = cases.BY_ID["adagrad"]
    p = torch.nn.Parameter(torch.ones(70, dtype=torch.float64))
    optimizer = case.ours([p], lr=0.1, lr_decay=1.0, l1_decay=1.0)
    expected = 1.0
    for t in range(1, 5):
        p.grad = torch.zeros_like(p)
        optimizer.step()
        expected -= 0.1 / t
        torch.testing.assert_close(p.detach(), torch.full_like(p, expected))


def test_lasso() -> None:
    """Proximal gradient descent solves the lasso: the optimality conditions hold, zeros are exact."""
    x = torch.randn(200, 20, dtype=torch.float64)
    truth = torch.zeros(20, dtype=torch.float64)
    truth[:3] = torch.tensor([2.0, -3.0, 1.5], dtype=torch.float64)
    w = torch.nn.Parameter(torch.randn(20, dtype=torch.float64))
    strength = 0.3
    optimizer = cases.BY_ID["sgd"].ours([w], lr=0.2, l1_decay=strength)
    for _ in range(500):
        w.grad = x.T @ (x @ w.detach() - x @ truth) / 200
        optimizer.step()
    slope = x.T @ (x @ w.detach() - x @ truth) / 200
    active = w.detach() != 0
    assert active.tolist() == [True] * 3 + [False] * 17
    torch.testing.assert_close(slope[active], -strength * w.detach()[active].sign())
    assert bool((slope[~active].abs() <= strength).all())


@cases.classes
def test_per_group(case: Case) -> None:
    params = parameters([(70,), (70,), (70,)])
    plain = twin(params)
    optimizer = case.ours(
        [
            {"params": params[:1]},
            {"params": params[1:2], "l1_decay": 0.5},
            {"params": params[2:], "l1_decay": 0.4, "l1_mode": "subgradient"},
        ]
    )
    options: list[dict[str, Any]] = [
        {},
        {"l1_decay": 0.5},
        {"l1_decay": 0.4, "l1_mode": "subgradient"},
    ]
    others = [case.ours([p], **more) for p, more in zip(plain, options, strict=True)]
    for _ in range(3):
        gradients(params, plain)
        optimizer.step()
        for other in others:
            other.step()
    for p, q in zip(params, plain, strict=True):
        tolerances.exact(p, q)


@cases.classes
def test_changed_between_steps(case: Case) -> None:
    """Switched on, off and over in a running group."""
    (p,) = parameters([(70,)])
    optimizer = case.ours([p])
    changes: list[dict[str, Any]] = [
        {},
        {"l1_decay": 0.3},
        {"l1_decay": 0.3, "l1_mode": "subgradient"},
        {"l1_decay": 0.0, "l1_mode": "subgradient"},
        {"l1_decay": 0.2, "l1_mode": "proximal"},
    ]
    for options in changes:
        optimizer.param_groups[0].update(options)
        gradients([p])
        value, magnitude, _ = expected_step(case, optimizer, p, **options)
        optimizer.step()
        tolerances.one_rounding(p, value, magnitude)


@modes
@cases.classes
def test_zero_strength_is_bit_equal_to_none(case: Case, mode: str) -> None:
    (p,) = parameters([(70,)])
    (q,) = twin([p])
    optimizer, plain = case.ours([p], l1_decay=0.0, l1_mode=mode), case.ours([q])
    for _ in range(3):
        gradients([p], [q])
        optimizer.step()
        plain.step()
    tolerances.exact(p, q)


@modes
@cases.classes
def test_nan_and_infinity(case: Case, mode: str) -> None:
    """The threshold neither hides a NaN nor makes one of an infinite weight."""
    p = torch.nn.Parameter(torch.tensor([float("nan"), float("inf"), -float("inf"), 1.0]))
    optimizer = case.ours([p], l1_decay=0.5, l1_mode=mode, weight_decay=0.0)
    p.grad = torch.zeros(4)
    optimizer.step()
    assert bool(p[0].isnan())
    assert p[1].item() == float("inf")
    assert p[2].item() == -float("inf")
    assert bool(p[3].isfinite())


@cases.classes
def test_l1_with_strided_operands(case: Case) -> None:
    p = torch.nn.Parameter(torch.randn(9, 14).t())
    q = torch.nn.Parameter(p.detach().contiguous())
    optimizers = [case.ours([x], l1_decay=0.2) for x in (p, q)]
    for _ in range(3):
        grad = torch.randn(14, 9)
        for x, optimizer in zip((p, q), optimizers, strict=True):
            x.grad = grad.clone()
            optimizer.step()
    tolerances.exact(p, q)
    assert int((p == 0).sum()) == int((q == 0).sum())
