"""Imitations of what real libraries do to an optimizer."""

from __future__ import annotations

import copy
import functools
import inspect
import types
from collections import defaultdict
from typing import Any

import pytest
import torch
from torch import nn

from tests import cases, tolerances
from tests.cases import Case
from tests.helpers import assert_same, gradients, parameters, twin

SHAPES = [(5, 7), (70,)]


@cases.classes
def test_list_of_groups_exchanged(case: Case) -> None:
    """Wrappers put other group dicts, with unknown keys, in the place of the list."""
    ours = parameters(SHAPES)
    theirs = twin(ours)
    optimizer, torchs = case.ours(ours), case.torchs(theirs)
    for step in range(4):
        gradients(ours, theirs)
        optimizer.step()
        torchs.step()
        if step == 1:
            for opt in (optimizer, torchs):
                opt.param_groups = [
                    {
                        **opt.param_groups[0],
                        "params": [p],
                        "lr": 0.01 * (i + 1),
                        "lr_scale": 2.0,
                        "initial_lr": 1.0,
                    }
                    for i, p in enumerate(opt.param_groups[0]["params"])
                ]
    assert_same(optimizer, torchs, **tolerances.accumulated(4))
    assert optimizer.param_groups[1]["lr_scale"] == 2.0


@cases.classes
def test_foreign_state(case: Case) -> None:
    """Keys of others in `state[p]` stay, also those that were there before the first step."""
    ours = parameters(SHAPES)
    theirs = twin(ours)
    optimizer, torchs = case.ours(ours), case.torchs(theirs)
    gradients(ours, theirs)
    optimizer.step()
    torchs.step()
    marks = []
    for p in ours:
        optimizer.state[p]["slow"] = torch.ones_like(p)
        optimizer.state[p]["note"] = ["anything"]
        marks.append(optimizer.state[p]["slow"])
    for _ in range(2):
        gradients(ours, theirs)
        optimizer.step()
        torchs.step()
    for p, q, mark in zip(ours, theirs, marks, strict=True):
        torch.testing.assert_close(p, q, **tolerances.accumulated(3))
        assert optimizer.state[p]["slow"] is mark
        assert bool((mark == 1).all())
        assert optimizer.state[p]["note"] == ["anything"]


@cases.classes
def test_step_replaced_on_the_instance(case: Case) -> None:
    """Schedulers and accelerate take `step.__func__`, wrap it and put it on the instance."""
    (p,) = parameters([(5,)])
    (q,) = twin([p])
    optimizer, torchs = case.ours([p]), case.torchs([q])
    calls: list[int] = []

    def counted(method: Any) -> Any:
        function, instance = method.__func__, method.__self__

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            calls.append(1)
            return function.__get__(instance, type(instance))(*args, **kwargs)

        return wrapper

    optimizer.step = counted(optimizer.step)
    optimizer.register_step_post_hook(lambda *_: calls.append(10))
    for _ in range(2):
        gradients([p], [q])
        optimizer.step()
        torchs.step()
    optimizer.step = types.MethodType(lambda self: calls.append(100), optimizer)  # noqa: ARG005
    optimizer.step()
    del optimizer.step
    optimizer.step()
    torchs.step()
    assert sum(calls) == 2 * 11 + 100 + 10
    assert_same(optimizer, torchs, **tolerances.accumulated(3))


@cases.classes
def test_class_made_by_type_as_lightning_does(case: Case) -> None:
    """`type("Lightning" + name, (Wrapper, type(optimizer)), {})`, with the `__dict__` of the wrapped one."""

    class Wrapper:
        def __init__(self, optimizer: Any) -> None:
            self.__class__ = type(
                "Lightning" + type(optimizer).__name__, (type(self), type(optimizer)), {}
            )
            self.__dict__ = {k: v for k, v in optimizer.__dict__.items() if k != "step"}
            self._optimizer = optimizer
            self.strategy: list[str] = []

        def step(self, closure: Any = None, **kwargs: Any) -> Any:
            self.strategy.append("step")
            return self._optimizer.step(closure=closure, **kwargs)

    (p,) = parameters([(5,)])
    (q,) = twin([p])
    inner, torchs = case.ours([p]), case.torchs([q])
    wrapped: Any = Wrapper(inner)
    assert isinstance(wrapped, case.torch_kind)
    scheduler = torch.optim.lr_scheduler.StepLR(inner, 1)
    torchs_scheduler = torch.optim.lr_scheduler.StepLR(torchs, 1)
    for _ in range(3):
        gradients([p], [q])
        assert wrapped.step(lambda: 3.0) == 3.0
        torchs.step()
        scheduler.step()
        torchs_scheduler.step()
    assert wrapped.strategy == ["step"] * 3
    assert wrapped.state is inner.state
    assert_same(inner, torchs, **tolerances.accumulated(3))
    wrapped.zero_grad()
    assert p.grad is None


@cases.classes
def test_sam(case: Case) -> None:
    """SAM constructs from group dicts with more keys, shares `state` and leaves `state[p] == {}` behind."""

    class SAM(torch.optim.Optimizer):
        def __init__(self, params: Any, make: Any) -> None:
            super().__init__(params, {"rho": 0.05})
            self.base = make(self.param_groups)
            self.param_groups = self.base.param_groups
            self.base.state = self.state

        @torch.no_grad()
        def first(self) -> None:
            for group in self.param_groups:
                for p in group["params"]:
                    self.state[p]["old_p"] = p.clone()
                    p.add_(p.grad, alpha=group["rho"])

        @torch.no_grad()
        def second(self) -> None:
            for group in self.param_groups:
                for p in group["params"]:
                    p.copy_(self.state[p].pop("old_p"))
            self.base.step()

    ours = parameters(SHAPES)
    theirs = twin(ours)
    optimizers = [SAM(ours, case.ours), SAM(theirs, case.torchs)]
    if case.name == "Adagrad":
        pytest.skip("torch's Adagrad makes its state in the constructor, which SAM then replaces")
    for _ in range(3):
        gradients(ours, theirs)
        for optimizer in optimizers:
            optimizer.first()
        gradients(ours, theirs)
        for optimizer in optimizers:
            optimizer.second()
    assert optimizers[0].base.state is optimizers[0].state
    assert_same(optimizers[0].base, optimizers[1].base, **tolerances.accumulated(3))


@cases.classes
def test_lookahead(case: Case) -> None:
    """Timm's Lookahead does not call `Optimizer.__init__`, shares the groups and writes into `state[p]`."""

    class Lookahead(torch.optim.Optimizer):
        def __init__(self, base: Any) -> None:
            self._optimizer_step_pre_hooks = {}
            self._optimizer_step_post_hooks = {}
            self._base = base
            self.param_groups = base.param_groups
            self.defaults = base.defaults
            self.defaults.update({"lookahead_step": 0})
            self.state = defaultdict(dict)
            for group in self.param_groups:
                group["lookahead_step"] = 0

        @torch.no_grad()
        def step(self, closure: Any = None) -> Any:
            loss = self._base.step(closure)
            for group in self.param_groups:
                group["lookahead_step"] += 1
                if group["lookahead_step"] % 2 == 0:
                    for p in group["params"]:
                        state = self._base.state[p]
                        if "lookahead_slow_buff" not in state:
                            state["lookahead_slow_buff"] = p.clone()
                        slow = state["lookahead_slow_buff"]
                        slow.add_(p - slow, alpha=0.5)
                        p.copy_(slow)
            return loss

    results = []
    start = parameters(SHAPES)
    for make in (case.ours, case.torchs):
        torch.manual_seed(6)
        params = twin(start)
        base = make(params)
        optimizer = Lookahead(base)
        for _ in range(5):
            gradients(params)
            optimizer.step()
        saved = copy.deepcopy(base.state_dict())
        assert "lookahead_slow_buff" in saved["state"][0]
        base.load_state_dict(saved)
        gradients(params)
        optimizer.step()
        results.append(base)
    assert_same(*results, **tolerances.accumulated(6))


@cases.classes
def test_construction_as_zero_redundancy_optimizer_does(case: Case) -> None:
    """The class is called with a list of group dicts and keyword options; parameters become views of a bucket."""
    ours = parameters(SHAPES)
    theirs = twin(ours)
    groups = [{"params": [p], "lr": 0.01 * (i + 1), "own": i} for i, p in enumerate(ours)]
    optimizer = case.kind(groups, **case.options)
    torchs = case.torchs([{"params": [p], "lr": 0.01 * (i + 1)} for i, p in enumerate(theirs)])
    assert "_allow_empty_param_list" not in inspect.signature(case.kind).parameters
    bucket = torch.empty(sum(p.numel() for p in ours))
    offset = 0
    for step in range(4):
        gradients(ours, theirs)
        optimizer.step()
        torchs.step()
        if step == 1:
            for p in ours:
                view = bucket[offset : offset + p.numel()].view(p.shape)
                view.copy_(p.detach())
                p.data = view
                offset += p.numel()
    assert_same(optimizer, torchs, **tolerances.accumulated(4))
    assert torch.equal(bucket, torch.cat([p.detach().flatten() for p in ours]))


@cases.classes
def test_empty_groups(case: Case) -> None:
    """Transformers and peft pass groups without parameters."""
    (p,) = parameters([(5,)])
    optimizer = case.ours([{"params": []}, {"params": [p], "weight_decay": 0.0}])
    gradients([p])
    before = p.detach().clone()
    optimizer.step()
    assert not torch.equal(p, before)
    optimizer.load_state_dict(optimizer.state_dict())


@cases.classes
def test_distributed_checkpoint(case: Case) -> None:
    """It fills an empty state by a step with lr 0, which must move nothing, then loads into it."""
    from torch.distributed.checkpoint.state_dict import (
        get_optimizer_state_dict,
        set_optimizer_state_dict,
    )

    torch.manual_seed(2)
    source = nn.Linear(5, 3)
    optimizer = case.ours(source.parameters())
    gradients(list(source.parameters()))
    optimizer.step()
    gradients(list(source.parameters()))
    optimizer.step()
    saved: Any = get_optimizer_state_dict(source, optimizer)
    if case.state_keys:
        assert case.state_keys[0] in saved["state"]["weight"]
    for make in (case.ours, case.torchs):
        target = nn.Linear(5, 3)
        target.load_state_dict(source.state_dict())
        resumed = make(target.parameters())
        set_optimizer_state_dict(target, resumed, copy.deepcopy(saved))
        for p, q in zip(source.parameters(), target.parameters(), strict=True):
            tolerances.exact(p, q)
        assert resumed.param_groups[0]["lr"] == case.hyper["lr"]
        same = copy.deepcopy((list(source.parameters()), optimizer))
        gradients(same[0], list(target.parameters()))
        same[1].step()
        resumed.step()
        assert_same(resumed, same[1], **tolerances.accumulated(3))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # on torch's import
@cases.classes
def test_optimizer_in_backward(case: Case) -> None:
    """One optimizer per parameter, stepped by a hook of autograd during the backward pass."""
    from torch.distributed.optim.apply_optimizer_in_backward import (
        _apply_optimizer_in_backward,
    )

    results = []
    for kind in (case.kind, case.torch_kind):
        torch.manual_seed(2)
        model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1))
        options = {**case.options, "maximize": False, "foreach": False}
        _apply_optimizer_in_backward(kind, model.parameters(), options)
        for _ in range(3):
            loss: Any = model(torch.randn(6, 5)).square().mean()
            loss.backward()
        results.append([p.detach() for p in model.parameters()])
        assert all(p.grad is None for p in model.parameters())
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@cases.classes
def test_attributes_forwarded_by_wrappers(case: Case) -> None:
    """Accelerate and opacus forward `state`, `param_groups` and `defaults` by properties with setters."""
    ours = parameters(SHAPES)
    theirs = twin(ours)
    optimizer, torchs = case.ours(ours), case.torchs(theirs)
    for step in range(3):
        gradients(ours, theirs)
        optimizer.step()
        torchs.step()
        if step == 0:
            optimizer.state = dict(optimizer.state)  # no longer a defaultdict
            optimizer.defaults = dict(optimizer.defaults)
            optimizer.param_groups = list(optimizer.param_groups)
    assert "set_to_none" in inspect.signature(optimizer.zero_grad).parameters
    assert_same(optimizer, torchs, **tolerances.accumulated(3))


@cases.classes
def test_state_is_a_plain_dict_before_the_first_step(case: Case) -> None:
    ours = parameters(SHAPES)
    optimizer = case.ours(ours)
    if case.name != "Adagrad":
        optimizer.state = {p: {} for p in ours}
    gradients(ours)
    optimizer.step()
    assert all(len(optimizer.state[p]) for p in ours)


@cases.classes
def test_gradients_that_are_views_of_a_bucket(case: Case) -> None:
    """DistributedDataParallel with `gradient_as_bucket_view`."""
    ours = parameters(SHAPES)
    theirs = twin(ours)
    optimizer, torchs = case.ours(ours), case.torchs(theirs)
    bucket = torch.zeros(sum(p.numel() for p in ours) + 1)
    for _ in range(3):
        gradients(theirs)
        offset = 1
        for p, q in zip(ours, theirs, strict=True):
            view = bucket[offset : offset + p.numel()].view(p.shape)
            assert q.grad is not None
            p.grad = view.copy_(q.grad)
            offset += p.numel()
        optimizer.step()
        torchs.step()
    assert_same(optimizer, torchs, **tolerances.accumulated(3))


@cases.classes
def test_averages_of_weights(case: Case) -> None:
    """torch_ema and swa_utils read the weights and copy into them between steps."""
    torch.manual_seed(2)
    model = nn.Linear(5, 3)
    optimizer = case.ours(model.parameters())
    averaged: Any = torch.optim.swa_utils.AveragedModel(model)
    seen = []
    for _ in range(3):
        gradients(list(model.parameters()))
        optimizer.step()
        averaged.update_parameters(model)
        seen.append(model.weight.detach().clone())
    torch.testing.assert_close(averaged.module.weight.detach(), torch.stack(seen).mean(0))
    with torch.no_grad():
        model.weight.copy_(averaged.module.weight)
    kept = model.weight.detach().clone()
    gradients(list(model.parameters()))
    model.weight.grad = None
    optimizer.step()
    tolerances.exact(model.weight, kept)


@cases.classes
def test_constructed_in_the_ways_of_training_libraries(case: Case) -> None:
    """A generator, named parameters, one group, `functools.partial`, keyword `params`."""
    model = nn.Linear(5, 3)
    for optimizer in (
        case.kind(model.parameters()),
        case.kind(params=list(model.parameters()), lr=0.1),
        case.kind(model.named_parameters(), 0.1),
        case.kind([{"params": model.parameters()}]),
        case.kind(iter([{"params": model.weight}, {"params": [model.bias], "lr": 1.0}])),
        functools.partial(case.kind, lr=0.1)(model.parameters()),
    ):
        gradients(list(model.parameters()))
        before = model.weight.detach().clone()
        optimizer.step()
        assert not torch.equal(before, model.weight)
        assert type(optimizer).__name__ == case.name
        assert type(optimizer).__module__.split(".")[0] == "onepass"
        assert "lr" in optimizer.defaults


@cases.classes
def test_no_methods_that_trainers_react_to(case: Case) -> None:
    """Transformers calls `train()` and `eval()` of an optimizer that has them."""
    optimizer = case.ours(parameters(SHAPES))
    assert not hasattr(optimizer, "train")
    assert not hasattr(optimizer, "eval")
