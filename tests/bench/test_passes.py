"""Torch's passes around a step, against the formulas in float64, and where there are none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from onepass.bench import contestants, passes
from onepass.bench.cases import OPTIMIZERS, OPTIONS, Case, Configuration
from onepass.bench.models import Model
from onepass.bench.peers import PEERS, NotOffered, Params

LR, LARGEST, L1, DECAY, SCALE = 0.5, 2.0, 0.25, 0.75, 64.0
MODEL = Model("two", "two", ((4, 3), (5,)))


def sgd(grad_scale: float = 1.0, **own: Any) -> Configuration:
    """Plain SGD: the weights show what became of the gradient."""
    return Configuration("SGD", "SGD", (), {"lr": LR}, own, grad_scale)


def parameters() -> Params:
    generator = torch.Generator().manual_seed(3)
    found = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in MODEL.shapes]
    for p in found:
        p.grad = torch.randn(p.shape, generator=generator)
    return found


def composed(configuration: Configuration, params: Params) -> passes.Passes:
    step = torch.optim.SGD(params, lr=LR).step
    return passes.around(step, Case(MODEL, configuration), params)


def wide(tensors: Any) -> torch.Tensor:
    return torch.cat([t.detach().double().reshape(-1) for t in tensors])


def close(params: Any, expected: torch.Tensor) -> None:
    torch.testing.assert_close(wide(params), expected, rtol=1e-6, atol=1e-7)


def test_clipping_limits_the_norm_over_all_tensors() -> None:
    params = parameters()
    p, g = wide(params), wide(q.grad for q in params)
    whole = composed(sgd(max_grad_norm=LARGEST), params)
    assert g.norm() > LARGEST
    whole.step()
    close(params, p - LR * g * LARGEST / (g.norm() + 1e-6))
    assert whole.spoils


def test_subgradient_is_added_to_the_gradient() -> None:
    params = parameters()
    p, g = wide(params), wide(q.grad for q in params)
    composed(sgd(l1_decay=L1, l1_mode="subgradient"), params).step()
    close(params, p - LR * (g + L1 * p.sign()))


def test_proximal_shrinks_after_the_step() -> None:
    params = parameters()
    p, g = wide(params), wide(q.grad for q in params)
    whole = composed(sgd(l1_decay=L1), params)
    whole.step()
    moved = p - LR * g
    close(params, moved.sign() * (moved.abs() - LR * L1).clamp_min(0))
    assert (wide(params) == 0).any()
    assert not whole.spoils


def test_average_starts_with_the_first_step() -> None:
    params = parameters()
    g = wide(q.grad for q in params)
    whole = composed(sgd(ema_decay=DECAY), params)
    whole.step()
    first = wide(params)
    close(whole.averages, first)
    whole.step()
    close(whole.averages, first + (1 - DECAY) * (wide(params) - first))
    close(params, first - LR * g)


def test_unscaling_divides_and_skips_what_is_not_finite() -> None:
    params = parameters()
    p, g = wide(params), wide(q.grad for q in params)
    step = composed(sgd(SCALE, skip_nonfinite=True), params).step
    step()
    close(params, p - LR * g / SCALE)
    before = wide(params)
    assert params[0].grad is not None
    params[0].grad[0, 0] = float("inf")
    step()
    assert torch.equal(wide(params), before)


def test_everything_in_the_order_of_a_training_loop() -> None:
    params = parameters()
    p, g = wide(params), wide(q.grad for q in params) / SCALE
    own = {"skip_nonfinite": True, "max_grad_norm": LARGEST / SCALE, "ema_decay": DECAY}
    whole = composed(sgd(SCALE, **own, l1_decay=L1, l1_mode="subgradient"), params)
    whole.step()
    clipped = g * min(1.0, LARGEST / SCALE / (float(g.norm()) + 1e-6))
    close(params, p - LR * (clipped + L1 * p.sign()))
    close(whole.averages, wide(params))


@pytest.mark.parametrize("name", ["torch", "torch-foreach", "torch-fused"])
def test_without_options_the_step_is_the_peers_own(name: str) -> None:
    params = parameters()
    step = PEERS[name].make(OPTIMIZERS["AdamW"], params)
    whole = passes.around(step, Case(MODEL, OPTIMIZERS["AdamW"]), params)
    assert whole.step is step
    assert (whole.averages, whole.spoils) == ([], False)


@pytest.mark.parametrize("name", [n for n, c in OPTIONS.items() if c.reduced])
def test_nobody_keeps_numbers_in_fewer_bits_by_passes(name: str) -> None:
    case = Case(MODEL, OPTIONS[name], OPTIONS[name].dtype(torch.float32))
    for peer in ("torch", "torch-foreach", "torch-fused", "optimi"):
        with pytest.raises(NotOffered, match=name):
            contestants.theirs(case, PEERS[peer])


@pytest.mark.parametrize(
    ("name", "dtype", "reason"),
    [
        ("ema", torch.bfloat16, "dtype of the weights"),
        ("everything", torch.float16, "float"),
    ],
)
def test_what_torch_does_otherwise_in_low_precision(
    name: str, dtype: torch.dtype, reason: str
) -> None:
    with pytest.raises(NotOffered, match=reason):
        contestants.theirs(Case(MODEL, OPTIONS[name], dtype), PEERS["torch"])


def test_unscaling_of_float16_is_not_offered() -> None:
    """Torch's own GradScaler refuses it too."""
    case = Case(MODEL, replace(OPTIONS["clip"], grad_scale=SCALE), torch.float16)
    with pytest.raises(NotOffered, match="float16"):
        contestants.theirs(case, PEERS["torch"])
    params = [torch.nn.Parameter(torch.ones(2, dtype=torch.float16))]
    params[0].grad = torch.ones(2, dtype=torch.float16)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(torch.zeros(()))
    with pytest.raises(ValueError, match="FP16"):
        scaler.unscale_(torch.optim.SGD(params))
