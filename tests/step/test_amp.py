"""torch.amp.GradScaler: with `fused=True` the step unscales and skips by itself, otherwise the scaler does."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests import cases, tolerances
from tests.cases import Case
from tests.helpers import assert_same, gradients, host_decides, parameters, twin

SHAPES = [(5, 7), (70,), ()]
fused = pytest.mark.parametrize("fused", [None, False, True])


def scale(params: list[Any], factor: float) -> None:
    for p in params:
        p.grad.mul_(factor)


@cases.classes
def test_attribute_is_set_with_fused_only(case: Case) -> None:
    """Lightning refuses to clip when it is set."""
    for value in (None, False):
        assert not hasattr(case.ours(parameters(SHAPES), fused=value), "_step_supports_amp_scaling")
    assert case.ours(parameters(SHAPES), fused=True)._step_supports_amp_scaling is True


@cases.all_cases
@fused
def test_scaled_training(case: Case, fused: bool | None) -> None:
    ours = parameters(SHAPES)
    theirs = twin(ours)
    optimizer, torchs = case.ours(ours, fused=fused), case.torchs(theirs)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(torch.zeros(1))
    for step in range(5):
        gradients(ours, theirs)
        scale(ours, scaler.get_scale())
        kept = [p.grad.clone() for p in ours if p.grad is not None]
        if step == 2:
            assert ours[0].grad is not None
            ours[0].grad[1, 1] = float("inf")
        else:
            torchs.step()
        scaler.step(optimizer)
        scaler.update()
        assert "grad_scale" not in vars(optimizer)
        assert "found_inf" not in vars(optimizer)
        if fused and step != 2:
            for p, grad in zip(ours, kept, strict=True):
                assert p.grad is not None
                tolerances.exact(p.grad, grad)
    assert scaler.get_scale() == 512.0
    assert_same(optimizer, torchs, **tolerances.accumulated(5))


@host_decides
@cases.all_cases
@fused
def test_skipped_first_step_leaves_no_trace(case: Case, fused: bool | None) -> None:
    """Torch's fused SGD keeps an uninitialised momentum buffer after a first step that was skipped."""
    ours = parameters(SHAPES)
    theirs = twin(ours)
    optimizer, torchs = case.ours(ours, fused=fused), case.torchs(theirs)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(torch.zeros(1))
    gradients(ours)
    ours[1].grad[3] = float("nan")  # type: ignore[index]
    versions = [p._version for p in ours]
    scaler.step(optimizer)
    scaler.update()
    assert [p._version for p in ours] == versions
    assert_same(optimizer, torchs, rtol=0, atol=0)
    if case.name != "Adagrad":
        assert not optimizer.state
    for _ in range(2):
        gradients(ours, theirs)
        scale(ours, scaler.get_scale())
        scaler.step(optimizer)
        scaler.update()
        torchs.step()
    assert_same(optimizer, torchs, **tolerances.accumulated(2))


@cases.classes
@pytest.mark.parametrize("found", [1.0, 2.0, 8.0])
def test_found_inf_above_one(case: Case, found: float) -> None:
    """found_inf may be a sum over devices; torch's fused CPU kernel only compares it to 1."""
    (p,) = parameters([(5,)])
    optimizer = case.ours([p], fused=True)
    gradients([p])
    before = p.detach().clone()
    optimizer.grad_scale = torch.tensor(2.0)
    optimizer.found_inf = torch.tensor(found)
    optimizer.step()
    tolerances.exact(p, before)
    optimizer.found_inf = torch.tensor(0.0)
    optimizer.step()
    assert not torch.equal(p, before)


@cases.classes
def test_after_unscale(case: Case) -> None:
    """After `scaler.unscale_` grad_scale is None: the gradients are as they should be."""
    ours = parameters(SHAPES)
    theirs = twin(ours)
    optimizer, torchs = case.ours(ours, fused=True), case.torchs(theirs)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    scaler.scale(torch.zeros(1))
    for _ in range(3):
        gradients(ours, theirs)
        scale(ours, 64.0)
        scaler.unscale_(optimizer)
        for params in (ours, theirs):
            torch.nn.utils.clip_grad_norm_(params, 1.0)
        scaler.step(optimizer)
        scaler.update()
        torchs.step()
    assert_same(optimizer, torchs, **tolerances.accumulated(3))


@cases.halves
def test_scaled_low_precision_gradients(dtype: torch.dtype) -> None:
    """Unscaling happens in float32: a gradient that would underflow in the parameter's dtype still counts."""
    case = cases.BY_ID["sgd"]
    p = torch.nn.Parameter(torch.zeros(70, dtype=dtype))
    optimizer = case.ours([p], lr=2.0**20, fused=True)
    p.grad = torch.full((70,), 2.0**-10, dtype=dtype)
    optimizer.grad_scale = torch.tensor(2.0**20)
    optimizer.found_inf = torch.tensor(0.0)
    optimizer.step()
    assert p.tolist() == [-(2.0**-10)] * 70


@cases.classes
def test_loss_of_the_closure_comes_back_from_a_skipped_step(case: Case) -> None:
    (p,) = parameters([(5,)])
    optimizer = case.ours([p], fused=True)
    optimizer.found_inf = torch.tensor(1.0)
    assert optimizer.step(lambda: 2.5) == 2.5


@cases.classes
def test_group_that_falls_back(case: Case) -> None:
    """Torch's for-loop asserts that nobody gave it a scale: its gradients are unscaled for it."""
    (p,) = parameters([(5,)])
    c = torch.nn.Parameter(torch.randn(3, dtype=torch.complex64))
    ours, theirs = [p, c], twin([p, c])
    optimizer = case.ours([{"params": [p]}, {"params": [c]}], fused=True)
    torchs = case.torchs([{"params": theirs[:1]}, {"params": theirs[1:]}])
    for step in range(3):
        for params in (ours, theirs):
            torch.manual_seed(step)
            params[0].grad = torch.randn(5)
            params[1].grad = torch.randn(3, dtype=torch.complex64)
        torchs.step()
        scale(ours, 8.0)
        kept = [q.grad for q in ours]
        bits = [q.grad.clone() for q in ours if q.grad is not None]
        optimizer.grad_scale, optimizer.found_inf = torch.tensor(8.0), torch.tensor(0.0)
        optimizer.step()
        del optimizer.grad_scale, optimizer.found_inf
        for q, grad, old in zip(ours, kept, bits, strict=True):
            assert q.grad is grad
            assert torch.equal(grad, old)  # type: ignore[arg-type]
    assert_same(optimizer, torchs, **tolerances.accumulated(3))


def test_sparse_group_that_falls_back() -> None:
    case = cases.BY_ID["sgd"]
    ours, theirs = torch.nn.Embedding(6, 3, sparse=True), torch.nn.Embedding(6, 3, sparse=True)
    theirs.load_state_dict(ours.state_dict())
    optimizer, torchs = case.ours(ours.parameters(), fused=True), case.torchs(theirs.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
    for _ in range(3):
        index = torch.tensor([1, 4, 4])
        for model, opt in ((ours, optimizer), (theirs, torchs)):
            opt.zero_grad()
            loss: Any = model(index).square().sum()
            (scaler.scale(loss) if opt is optimizer else loss).backward()
        scaler.step(optimizer)
        scaler.update()
        torchs.step()
    assert_same(optimizer, torchs, **tolerances.accumulated(3))


@cases.classes
def test_autocast_training(case: Case) -> None:
    """The usual loop, with autocast: the loss falls as with torch."""
    results = []
    for make in (case.ours, case.torchs):
        torch.manual_seed(4)
        model = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
        fused = {"fused": True} if make == case.ours else {}
        optimizer = make(model.parameters(), maximize=False, **fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
        for _ in range(10):
            x = torch.randn(32, 6)
            with torch.autocast("cpu", torch.bfloat16):
                loss: Any = (model(x).squeeze(1) - x.sum(1)).square().mean()
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        results.append(loss.item())
    assert results[0] == pytest.approx(results[1], rel=0.02)
