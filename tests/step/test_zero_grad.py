"""zero_grad() does what torch's does, for any gradient."""

from __future__ import annotations

import copy
import weakref
from typing import Any, ClassVar

import pytest
import torch

import onepass
from onepass import _core
from onepass.reader import WAYS, make_reader
from tests.helpers import parameters


class Labelled(torch.nn.Parameter):
    """A subclass without behaviour of its own."""


class Watching(torch.Tensor):
    """A tensor that says when its gradient is written."""

    written: ClassVar[list[Any]] = []

    @property
    def grad(self) -> Any:
        return self.__dict__.get("own_grad")

    @grad.setter
    def grad(self, value: Any) -> None:
        Watching.written.append(value)
        self.__dict__["own_grad"] = value


def mixed() -> list[torch.nn.Parameter]:
    """Return parameters with gradients of all kinds, and one without."""
    plain, half, strided, sparse, empty, none = parameters(
        [(3, 4), (5,), (4, 6), (6, 2), (0,), (2,)]
    )
    half.data = half.data.bfloat16()
    labelled = Labelled(torch.randn(3))
    for p in (plain, half, labelled, empty):
        p.grad = torch.randn_like(p)
    strided.grad = torch.randn(6, 4).t()
    sparse.grad = torch.randn(6, 2).to_sparse()
    return [plain, half, strided, sparse, labelled, empty, none]


def followed(p: torch.nn.Parameter) -> None:
    """Give a parameter a gradient that autograd follows."""
    loss: Any = (p**2).sum()
    loss.backward(create_graph=True)


@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph=True:UserWarning")
@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("foreach", [None, False, True])
def test_gradients_are_those_that_torch_leaves(set_to_none: bool, foreach: bool | None) -> None:
    ours, theirs = mixed(), mixed()
    for params in (ours, theirs):
        params.append(torch.nn.Parameter(torch.ones(3)))
        followed(params[-1])
        params.append(torch.nn.Parameter(torch.ones(2)))
        params[-1].grad = torch.ones(2, requires_grad=True)
    before = [p.grad for p in ours]
    versions = [0 if p.grad is None else p.grad._version for p in ours]
    groups = [{"params": ours[:3]}, {"params": ours[3:]}]
    onepass.SGD(groups, lr=0.1, foreach=foreach).zero_grad(set_to_none)
    torch.optim.SGD(theirs, lr=0.1, foreach=foreach).zero_grad(set_to_none)
    for p, q, old, version in zip(ours, theirs, before, versions, strict=True):
        if q.grad is None:
            assert p.grad is None
            continue
        assert p.grad is not None
        assert p.grad is old
        assert (p.grad.requires_grad, p.grad.grad_fn) == (False, None)
        assert (p.grad.layout, p.grad.shape, p.grad.dtype) == (
            q.grad.layout,
            q.grad.shape,
            q.grad.dtype,
        )
        assert not p.grad.to_dense().any()
        if p.grad.numel() and not p.grad.is_sparse:
            assert p.grad._version == version + 1


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_reading(way: str) -> None:
    reader = make_reader(way=way)
    params = mixed()
    plain, others = _core.sorted_gradients(reader, [{"params": params}])
    assert {id(grad) for grad in others} == {id(params[3].grad)}
    assert len(plain) == len(params) - 2
    _core.drop_gradients(reader, [{"params": params[:2]}, {"params": tuple(params[2:])}])
    assert all(p.grad is None for p in params)


def test_memory_of_the_gradients_is_freed() -> None:
    (p,) = parameters([(1000,)])
    p.grad = torch.ones(1000)
    gone = weakref.ref(p.grad.untyped_storage())
    view = weakref.ref(p.grad)
    onepass.SGD([p], lr=0.1).zero_grad()
    assert (gone(), view()) == (None, None)


@pytest.mark.parametrize("set_to_none", [True, False])
def test_gradient_that_is_a_property(set_to_none: bool) -> None:
    watching = torch.ones(3).as_subclass(Watching).requires_grad_()
    optimizer = onepass.SGD([watching], lr=0.1)
    watching.grad = torch.ones(3)
    Watching.written.clear()
    optimizer.zero_grad(set_to_none)
    assert Watching.written == ([None] if set_to_none else [])
    optimizer.zero_grad()
    assert watching.grad is None
    Watching.written.clear()
    optimizer.zero_grad()
    assert Watching.written == []  # there was nothing to forget


def test_finalizer_edits_the_groups() -> None:
    params = parameters([(2,)] * 5)
    optimizer = onepass.SGD(params, lr=0.1)
    for p in params:
        p.grad = torch.ones(2)
    group = optimizer.param_groups[0]
    weakref.finalize(params[0].grad, lambda: group["params"].__delitem__(slice(3, None)))
    weakref.finalize(params[1].grad, optimizer.param_groups.clear)
    optimizer.zero_grad()
    assert [p.grad is None for p in params] == [True] * 3 + [False] * 2


def test_profiler_sees_it() -> None:
    (p,) = parameters([(2,)])
    p.grad = torch.ones(2)
    optimizer = onepass.Adam([p])
    with torch.profiler.profile() as profile:
        optimizer.zero_grad()
    assert p.grad is None
    assert "Optimizer.zero_grad#Adam.zero_grad" in {event.key for event in profile.key_averages()}


def test_copied_optimizer() -> None:
    params = parameters([(2,), (3,)])
    twins = copy.deepcopy(onepass.Adam(params))
    for group in twins.param_groups:
        for p in group["params"]:
            p.grad = torch.ones_like(p)
    twins.zero_grad()
    assert [p.grad for p in twins.param_groups[0]["params"]] == [None, None]


def test_parameter_without_the_attribute() -> None:
    optimizer = onepass.SGD(parameters([(2,)]), lr=0.1)
    optimizer.param_groups[0]["params"] = ["no tensor"]
    with pytest.raises(AttributeError, match="grad"):
        optimizer.zero_grad()
