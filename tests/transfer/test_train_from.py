"""Groups that wait: bit-equal for n applied steps, then as if they began there."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import onepass
from onepass.schedule import Cosine
from onepass.transfer import param_groups
from tests.cases import CLASSES, Case

classes = pytest.mark.parametrize("case", CLASSES, ids=str)
WAIT = 3


def model() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def make(case: Case, net: nn.Module, **more: Any) -> Any:
    groups = param_groups(net, [("0.*", {"train_from": WAIT})], lr=more.pop("lr", 0.05))
    return case.kind(groups, **{**{k: v for k, v in case.options.items() if k != "lr"}, **more})


def step(net: nn.Module, opt: Any, x: Tensor) -> None:
    opt.zero_grad()
    net(x).square().mean().backward()
    opt.step()


def states(net: nn.Sequential, opt: Any) -> list[dict[str, list[float]]]:
    """Return what is kept for the layer that waits."""
    return [{k: v.tolist() for k, v in opt.state.get(p, {}).items()} for p in net[0].parameters()]


@classes
def test_waits_then_moves(case: Case) -> None:
    net, x = model(), torch.randn(6, 3)
    opt = make(case, net)
    start = [p.detach().clone() for p in net.parameters()]
    before = states(net, opt)  # Adagrad's are there from the start
    for t in range(WAIT + 1):
        assert all(torch.equal(p, q) for p, q in zip(net[0].parameters(), start[:2], strict=True))
        assert states(net, opt) == before, t
        step(net, opt, x)
    assert not any(torch.equal(p, q) for p, q in zip(net.parameters(), start, strict=True))


@classes
def test_its_moments_start_then(case: Case) -> None:
    """From there on it goes as in an optimizer that is new."""
    net, x = model(), torch.randn(6, 3)
    opt = make(case, net, weight_decay=0.1)
    for _ in range(WAIT):
        step(net, opt, x)
    fresh = case.torchs([p.detach().clone().requires_grad_() for p in net[0].parameters()], lr=0.05)
    decays = {id(p): g["weight_decay"] for g in opt.param_groups for p in g["params"]}
    for _ in range(3):
        step(net, opt, x)
        for p, q in zip(net[0].parameters(), fresh.param_groups[0]["params"], strict=True):
            q.grad = p.grad
            # each has its own decay
            fresh.param_groups[0]["weight_decay"] = decays[id(p)]
            others = [r for r in fresh.param_groups[0]["params"] if r is not q]
            kept = [r.grad for r in others]
            for r in others:
                r.grad = None
            fresh.step()
            for r, grad in zip(others, kept, strict=True):
                r.grad = grad
    for p, q in zip(net[0].parameters(), fresh.param_groups[0]["params"], strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


@classes
@pytest.mark.parametrize("at", [1, WAIT, WAIT + 2])
def test_resume(case: Case, at: int) -> None:
    x = torch.randn(6, 3)
    net = model()
    opt = make(case, net, lr=Cosine(0.05, 10))
    for _ in range(at):
        step(net, opt, x)
    file = io.BytesIO()
    torch.save((net.state_dict(), opt.state_dict()), file)
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    twin = model()
    twin.load_state_dict(weights)
    again = make(case, twin, lr=Cosine(0.05, 10))
    again.load_state_dict(state)
    for _ in range(WAIT + 3):
        step(net, opt, x)
        step(twin, again, x)
        for p, q in zip(net.parameters(), twin.parameters(), strict=True):
            assert torch.equal(p, q)


def test_skipped_steps_do_not_count() -> None:
    net, x = model(), torch.randn(6, 3)
    opt = make(CLASSES[0], net, skip_nonfinite=True)
    start = net[0].weight.detach().clone()
    for _ in range(WAIT):
        step(net, opt, x)
        step(net, opt, x * float("nan"))
    assert opt.report.steps_applied == WAIT
    assert torch.equal(net[0].weight, start)
    step(net, opt, x)
    assert not torch.equal(net[0].weight, start)


def test_a_waiting_group_is_not_in_the_average() -> None:
    net, x = model(), torch.randn(6, 3)
    opt = make(CLASSES[0], net, ema_decay=0.9)
    step(net, opt, x)
    before = net[0].weight.detach().clone()
    with opt.ema_weights():
        assert torch.equal(net[0].weight, before)


def test_refused() -> None:
    with pytest.raises(ValueError, match=r"train_from.*-1"):
        onepass.SGD(param_groups(model(), lr=0.1, train_from=-1))


def test_a_group_that_waits_does_not_count_in_the_norm() -> None:
    p, q = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    groups: list[dict[str, Any]] = [{"params": [p], "train_from": 1}, {"params": [q]}]
    opt = onepass.SGD(groups, lr=0.1, max_grad_norm=1.0)
    for expected in (6.0, 10.0):
        p.grad, q.grad = torch.tensor([8.0, 0.0]), torch.tensor([0.0, 6.0, 0.0])
        opt.step()
        assert opt.report.grad_norm == expected
