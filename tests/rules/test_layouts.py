"""Strides. torch's fused step walks the memory of every tensor from its start, whatever the strides say.

Each docstring names what torch 2.13's fused CPU step does in the situation.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests import cases, tolerances
from tests.cases import Case
from tests.helpers import ANY_GRADIENT, assert_same, expected_step, gradients, parameters, twin

Layout = Callable[[torch.Tensor], torch.Tensor]


def transposed(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(0, -1).contiguous().transpose(0, -1)


def sliced(x: torch.Tensor) -> torch.Tensor:
    """Return every second column of a larger tensor, away from its start."""
    whole = torch.full((x.shape[0] + 2, *x.shape[1:-1], 2 * x.shape[-1] + 3), 55.0, dtype=x.dtype)
    view = whole[1:-1, ..., 1:-2:2]
    return view.copy_(x)


def rows(x: torch.Tensor) -> torch.Tensor:
    """Return rows with gaps between them."""
    whole = torch.full((*x.shape[:-1], x.shape[-1] + 5), 55.0, dtype=x.dtype)
    return whole[..., 2:-3].copy_(x)


def channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def offset(x: torch.Tensor) -> torch.Tensor:
    whole = torch.full((x.numel() + 3,), 55.0, dtype=x.dtype)
    return whole[3:].view(x.shape).copy_(x)


LAYOUTS: list[Layout] = [torch.Tensor.contiguous, transposed, sliced, rows, channels_last, offset]
layouts = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
SHAPE = (3, 5, 4, 6)


def around(view: torch.Tensor) -> torch.Tensor:
    """Return the numbers in a view's storage that do not belong to it."""
    storage = view.detach().untyped_storage()
    whole = torch.empty(0, dtype=view.dtype).set_(storage)
    mine = torch.zeros(whole.shape, dtype=torch.bool)
    mine.as_strided(view.shape, view.stride(), view.storage_offset()).fill_(True)
    return whole[~mine]


@cases.all_dtypes
@layouts
@cases.rules
def test_parameter(case: Case, layout: Layout, dtype: torch.dtype) -> None:
    """Fused torch updates the wrong elements of a transposed parameter and writes between those of a slice."""
    p = nn.Parameter(layout(torch.randn(SHAPE).to(dtype)))
    assert p.stride() == layout(torch.empty(SHAPE)).stride()
    optimizer = case.ours([p])
    gap = around(p).clone()
    for _ in range(3):
        gradients([p])
        value, magnitude, _ = expected_step(case, optimizer, p)
        optimizer.step()
        tolerances.one_rounding(p, value, magnitude)
    tolerances.exact(around(p), gap)


@layouts
@cases.rules
def test_gradient(case: Case, layout: Layout) -> None:
    """Fused torch reads a gradient of other strides than the parameter's in the wrong order."""
    p = nn.Parameter(torch.randn(SHAPE))
    optimizer = case.ours([p])
    for _ in range(3):
        p.grad = layout(torch.randn(SHAPE))
        kept, bits = p.grad, p.grad.clone()
        value, magnitude, _ = expected_step(case, optimizer, p)
        optimizer.step()
        tolerances.one_rounding(p, value, magnitude)
        assert p.grad is kept
        tolerances.exact(kept, bits)


@layouts
@cases.rules
def test_state(case: Case, layout: Layout) -> None:
    """Fused torch reads state of other strides than the parameter's in the wrong order (a resumed checkpoint)."""
    if not case.state_keys:
        pytest.skip("no state")
    p = nn.Parameter(torch.randn(SHAPE))
    optimizer = case.ours([p])
    gradients([p])
    optimizer.step()
    state = optimizer.state[p]
    for key in case.state_keys:
        state[key] = layout(state[key])
    views = {key: state[key] for key in case.state_keys}
    gaps = {key: around(view).clone() for key, view in views.items()}
    for _ in range(2):
        gradients([p])
        value, magnitude, want = expected_step(case, optimizer, p)
        optimizer.step()
        tolerances.one_rounding(p, value, magnitude)
        for key, view in views.items():
            assert state[key] is view  # in place: whoever shares the state sees it
            torch.testing.assert_close(view.to(torch.float64), want[key], rtol=1e-5, atol=1e-5)
            tolerances.exact(around(view), gaps[key])


@cases.classes
def test_expanded_gradient(case: Case) -> None:
    """Fused torch reads beyond the end of an expanded gradient (`loss = p.sum()`), values like 1e22 appear."""
    ours = parameters([SHAPE, (70,), (8, 9), (64, 3)])
    theirs = twin(ours)
    optimizer, torchs = case.ours(ours), case.torchs(theirs)
    for i in range(4):
        for params, opt in ((ours, optimizer), (theirs, torchs)):
            params[0].grad = torch.tensor(i + 1.0).expand(SHAPE)
            params[1].grad = torch.tensor([i - 1.5]).expand(70)
            params[2].grad = torch.arange(1.0, 10.0).expand(8, 9)
            params[3].grad = torch.arange(64.0)[:, None].expand(64, 3)
            opt.step()
    assert_same(optimizer, torchs, **tolerances.accumulated(4))


@cases.rules
def test_broadcast_inside_gradient(case: Case) -> None:
    """A gradient with a stride of 0 in one dimension only."""
    p = nn.Parameter(torch.randn(6, 5, 7))
    optimizer = case.ours([p])
    for grad in (
        torch.randn(6, 1, 7).expand(6, 5, 7),
        torch.randn(1, 5, 1).expand(6, 5, 7),
        torch.randn(5, 7).expand(6, 5, 7),
        torch.randn(6, 5, 1).expand(6, 5, 7),
    ):
        p.grad = grad
        value, magnitude, _ = expected_step(case, optimizer, p)
        optimizer.step()
        tolerances.one_rounding(p, value, magnitude)


def convolutional() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 4, 3), nn.Flatten(1)
    )


def train_once(model: nn.Module, optimizer: Any, seed: int) -> None:
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    loss: Any = (model(x) - x.mean()).square().mean()
    loss.backward()
    optimizer.step()


@cases.classes
def test_model_converted_to_channels_last_during_training(case: Case) -> None:
    """Fused torch goes on with contiguous state: parameters are off by 0.07 after five steps of Adam."""
    ours, theirs = convolutional(), convolutional()
    maximize = {"maximize": False}
    optimizer = case.ours(ours.parameters(), **maximize)
    torchs = case.torchs(theirs.parameters(), **maximize)
    for step in range(6):
        if step == 3:
            ours = ours.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            theirs = theirs.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        train_once(ours, optimizer, step)
        train_once(theirs, torchs, step)
    weight = next(iter(ours.parameters()))
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    assert_same(optimizer, torchs, rtol=1e-3, atol=1e-4)


@cases.classes
def test_checkpoint_resumed_into_a_channels_last_model(case: Case) -> None:
    """Fused torch reads the contiguous state of the checkpoint in the order of channels_last."""
    source = convolutional()
    maximize = {"maximize": False}
    first = case.torchs(source.parameters(), **maximize)
    for step in range(3):
        train_once(source, first, step)
    optimizers = []
    for make in (case.ours, case.torchs):
        model = convolutional()
        model.load_state_dict(source.state_dict())
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = make(model.parameters(), **maximize)
        optimizer.load_state_dict(copy.deepcopy(first.state_dict()))
        for step in range(3, 6):
            train_once(model, optimizer, step)
        optimizers.append(optimizer)
    assert_same(*optimizers, rtol=1e-3, atol=1e-4)


@cases.classes
def test_new_state_has_the_layout_of_the_parameter(case: Case) -> None:
    """As torch's `preserve_format`, which also is the fast way."""
    p = nn.Parameter(channels_last(torch.randn(SHAPE)))
    (q,) = twin([p])
    optimizer, torchs = case.ours([p]), case.torchs([q])
    p.grad = channels_last(torch.randn(SHAPE))
    q.grad = p.grad.clone()
    optimizer.step()
    torchs.step()
    for key in case.state_keys:
        assert optimizer.state[p][key].stride() == torchs.state[q][key].stride() == p.stride()


def test_two_parameters_in_one_storage() -> None:
    """Interleaved slices of one tensor: every element is written once, by its own parameter."""
    base = torch.zeros(6, 40)
    params = [nn.Parameter(base[:, 0::2]), nn.Parameter(base[:, 1::2])]
    optimizer = cases.BY_ID["sgd"].ours(params, lr=1.0)
    for p, value in zip(params, (1.0, 2.0), strict=True):
        p.grad = torch.full((6, 20), -value)
    optimizer.step()
    assert torch.equal(base, torch.tensor([1.0, 2.0]).repeat(6, 20))


@st.composite
def views(draw: st.DrawFn, shape: tuple[int, ...]) -> torch.Tensor:
    """Return a tensor of a shape: dimensions in any order in memory, with steps, gaps and an offset."""
    dims = len(shape)
    order = draw(st.permutations(range(dims)))
    steps = [draw(st.integers(1, 3)) for _ in shape]
    gaps = [draw(st.integers(0, 2)) for _ in shape]
    start = draw(st.integers(0, 3))
    whole = torch.full([n * s + g for n, s, g in zip(shape, steps, gaps, strict=True)], 9.0)
    memory = whole.permute(order).contiguous()
    extended = torch.full((memory.numel() + start + 2,), 9.0)
    inner = extended[start : start + memory.numel()].view(memory.shape)
    back = inner.permute([order.index(d) for d in range(dims)])
    index = tuple(slice(0, n * s, s) for n, s in zip(shape, steps, strict=True))
    view = back[index]
    assert view.shape == shape
    return view


shapes = st.lists(st.integers(0, 5), min_size=0, max_size=5).map(tuple)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Case, list[list[torch.Tensor]], list[list[torch.dtype]]]:
    case = draw(st.sampled_from(cases.RULES))
    tensors, dtypes = [], []
    for _ in range(draw(st.integers(1, 3))):
        shape = draw(shapes)
        tensors.append([draw(views(shape)) for _ in range(2 + len(case.state_keys))])
        own = draw(st.sampled_from(cases.DTYPES))
        dtypes.append(
            [own, draw(st.sampled_from([own, torch.float32]))]
            + [draw(st.sampled_from([own, *cases.DTYPES])) for _ in case.state_keys]
        )
    return case, tensors, dtypes


@given(problem=problems())
def test_any_layouts_and_dtypes(
    problem: tuple[Case, list[list[torch.Tensor]], list[list[torch.dtype]]],
) -> None:
    """Parameter, gradient and states each in a layout and (states: any) dtype of their own."""
    case, tensors, dtypes = problem
    params = []
    for views_, types in zip(tensors, dtypes, strict=True):
        p = nn.Parameter(relaid(views_[0], types[0]))
        with torch.no_grad():
            p.normal_()
        if ANY_GRADIENT:
            p.grad_dtype = None
        p.grad = relaid(views_[1], types[int(ANY_GRADIENT)]).normal_()
        params.append(p)
    optimizer = case.ours(params)
    for p, views_, types in zip(params, tensors, dtypes, strict=True):
        state = optimizer.state[p]
        for key, view, dtype in zip(case.state_keys, views_[2:], types[2:], strict=True):
            state[key] = relaid(view, dtype)
            state[key].uniform_(0.1, 0.2).mul_(0.5 if key == "grad_avg" else 1.0)
        if case.name != "SGD":
            state["step"] = torch.tensor(3.0)
    gaps = [around(p).clone() for p in params]
    want = [expected_step(case, optimizer, p) for p in params]
    optimizer.step()
    for p, (value, magnitude, state), gap in zip(params, want, gaps, strict=True):
        tolerances.one_rounding(p, value, magnitude)
        tolerances.exact(around(p), gap)
        for key in case.state_keys:
            stored = optimizer.state[p][key]
            size = state[key].abs() + 20 + magnitude / case.hyper["lr"]
            if p.dtype != torch.float64 and stored.dtype == torch.float64:
                stored = stored.to(torch.float32)  # computed in float32
            tolerances.one_rounding(stored, state[key], size)


def relaid(view: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a tensor of another dtype that lies in its storage as `view` does."""
    size = view.untyped_storage().size() // view.element_size()
    whole = torch.full((size,), 9.0, dtype=dtype)
    return whole.as_strided(view.shape, view.stride(), view.storage_offset())
