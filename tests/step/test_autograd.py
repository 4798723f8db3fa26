"""Autograd must learn that parameters were changed in place."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests import cases
from tests.cases import Case
from tests.helpers import gradients, parameters


@cases.rules
def test_versions_move(case: Case) -> None:
    params = parameters([(5,), (70,), (3,)])
    optimizer = case.ours(params)
    for _ in range(3):
        gradients(params[:2])
        before = [p._version for p in params]
        optimizer.step()
        after = [p._version for p in params]
        assert after[0] > before[0]
        assert after[1] > before[1]
        assert after[2] == before[2]  # no gradient, not touched


@cases.classes
def test_versions_move_when_a_group_falls_back(case: Case) -> None:
    (p,) = parameters([(5,)])
    c = torch.nn.Parameter(torch.randn(3, dtype=torch.complex64))
    optimizer = case.ours([{"params": [p]}, {"params": [c]}])
    p.grad, c.grad = torch.ones(5), torch.ones(3, dtype=torch.complex64)
    before = p._version, c._version
    optimizer.step()
    assert p._version > before[0]
    assert c._version > before[1]


@cases.classes
def test_backward_after_a_step_is_refused(case: Case) -> None:
    """The graph needs the old weights: autograd raises instead of using the new ones."""
    (p,) = parameters([(5,)])
    optimizer = case.ours([p])
    loss: Any = (p * p).sum()
    p.grad = torch.ones(5)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@cases.classes
def test_hooks_do_not_keep_versions_from_moving(case: Case) -> None:
    (p,) = parameters([(5,)])
    optimizer = case.ours([p])
    optimizer.register_step_post_hook(lambda *_: None)
    p.grad = torch.ones(5)
    before = p._version
    optimizer.step()
    assert p._version > before


@cases.classes
def test_parameters_stay_leaves(case: Case) -> None:
    (p,) = parameters([(5,)])
    optimizer = case.ours([p])
    for _ in range(2):
        optimizer.zero_grad()
        loss: Any = (p * p).sum()
        loss.backward()
        optimizer.step()
    assert p.is_leaf
    assert p.requires_grad
    assert p.grad is not None
    assert not any(v.requires_grad for v in optimizer.state[p].values())


@cases.classes
def test_gradient_with_a_graph(case: Case) -> None:
    """`backward(create_graph=True)` leaves gradients that require grad themselves."""
    (p,) = parameters([(5,)])
    optimizer = case.ours([p])
    loss: Any = (p**3).sum()
    (grad,) = torch.autograd.grad(loss, p, create_graph=True)
    p.grad = grad
    assert p.grad.requires_grad
    for _ in range(2):
        optimizer.step()
    assert p.is_leaf
    assert not any(v.requires_grad for v in optimizer.state[p].values())
    p.grad = None


@cases.classes
def test_tensors_of_inference_mode_are_refused(case: Case) -> None:
    """As every in-place operation of torch does; nothing is written."""
    with torch.inference_mode():
        p, q = torch.ones(3), torch.ones(3)
        p.grad = torch.ones(3)
    q = torch.ones(3, requires_grad=True)
    q.grad = torch.ones(3)
    optimizer = case.ours([q, p])
    with pytest.raises(RuntimeError, match="inference tensor"):
        optimizer.step()
    assert p.tolist() == q.tolist() == [1.0] * 3
