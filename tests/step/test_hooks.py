"""Hooks, profiler ranges, and `step` as an ordinary method."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from tests import cases, tolerances
from tests.cases import Case
from tests.helpers import gradients, parameters, twin


@cases.classes
def test_step_hooks_run_in_order(case: Case) -> None:
    (p,) = parameters([(5,)])
    optimizer = case.ours([p])
    seen: list[str] = []
    handles = [
        register_optimizer_step_pre_hook(lambda *_: seen.append("global pre")),
        register_optimizer_step_post_hook(lambda *_: seen.append("global post")),
        optimizer.register_step_pre_hook(lambda *_: seen.append("pre")),
        optimizer.register_step_post_hook(lambda *_: seen.append("post")),
    ]
    gradients([p])
    before = p.detach().clone()
    try:
        optimizer.step()
    finally:
        for handle in handles:
            handle.remove()
    assert seen == ["global pre", "pre", "post", "global post"]
    assert not torch.equal(before, p)
    optimizer.step()
    assert len(seen) == 4


@cases.classes
@pytest.mark.parametrize("how", ["none", "positional", "keyword"])
def test_hooks_see_what_torchs_hooks_see(case: Case, how: str) -> None:
    calls = []
    for make in (case.ours, case.torchs):
        (p,) = parameters([(5,)])
        gradients([p])
        optimizer = make([p])
        seen: list[Any] = []

        def closure() -> float:
            return 3.0

        def hook(
            opt: Any, args: Any, kwargs: Any, seen: list[Any] = seen, own: Any = optimizer
        ) -> None:
            assert opt is own
            seen.append((["self" if a is opt else a.__name__ for a in args], sorted(kwargs)))

        optimizer.register_step_pre_hook(hook)
        optimizer.register_step_post_hook(hook)
        if how == "none":
            assert optimizer.step() is None
        elif how == "positional":
            assert optimizer.step(closure) == 3.0
        else:
            assert optimizer.step(closure=closure) == 3.0
        calls.append(seen)
    assert calls[0] == calls[1]


@cases.classes
def test_pre_hook_may_replace_the_arguments(case: Case) -> None:
    (p,) = parameters([(5,)])
    optimizer = case.ours([p])
    optimizer.register_step_pre_hook(lambda opt, args, kwargs: ((opt, lambda: 7.0), {}))  # noqa: ARG005
    assert optimizer.step(lambda: 1.0) == 7.0


@cases.classes
def test_pre_hook_may_change_gradients_and_groups(case: Case) -> None:
    (p,) = parameters([(5,)])
    (q,) = twin([p])
    optimizer, plain = case.ours([p]), case.ours([q], lr=0.5)

    def hook(opt: Any, *_: Any) -> None:
        opt.param_groups[0]["lr"] = 0.5
        p.grad.mul_(2)  # type: ignore[union-attr]

    optimizer.register_step_pre_hook(hook)
    gradients([p], [q])
    assert q.grad is not None
    q.grad.mul_(2)
    optimizer.step()
    plain.step()
    tolerances.exact(p, q)


@cases.classes
def test_invalid_result_of_a_pre_hook_is_an_error(case: Case) -> None:
    (p,) = parameters([(5,)])
    optimizer = case.ours([p])
    gradients([p])
    before = p.detach().clone()
    optimizer.register_step_pre_hook(lambda *_: 3)
    with pytest.raises(RuntimeError, match="must return None or a tuple"):
        optimizer.step()
    tolerances.exact(p, before)


@cases.classes
def test_profiler_range(case: Case) -> None:
    (p,) = parameters([(5,)])
    optimizer = case.ours([p])
    gradients([p])
    with torch.autograd.profiler.profile() as profile:
        optimizer.step()
        optimizer.step()
    names = [event.name for event in profile.function_events]
    assert names.count(f"Optimizer.step#{case.name}.step") == 2


@cases.classes
def test_step_is_an_ordinary_method(case: Case) -> None:
    optimizer = case.ours(parameters([(5,)]))
    assert optimizer.step.__func__ is type(optimizer).step
    assert optimizer.step.__self__ is optimizer
    assert optimizer.step.__name__ == "step"


@cases.classes
def test_overriding_subclass_runs_hooks_once(case: Case) -> None:
    """Torch wraps the outer `step`; the inner one must not call the hooks again."""

    class Mine(case.kind):  # type: ignore[misc,name-defined]
        def step(self, closure: Any = None) -> Any:
            self.calls = getattr(self, "calls", 0) + 1
            return super().step(closure)

    (p,) = parameters([(5,)])
    optimizer = Mine([p], **case.options)
    seen: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("pre"))
    optimizer.register_step_post_hook(lambda *_: seen.append("post"))
    gradients([p])
    before = p.detach().clone()
    with torch.autograd.profiler.profile() as profile:
        assert optimizer.step(lambda: 4.0) == 4.0
    assert seen == ["pre", "post"]
    assert optimizer.calls == 1
    assert not torch.equal(p, before)
    assert [e.name for e in profile.function_events].count("Optimizer.step#Mine.step") == 1


@cases.classes
def test_plain_subclass_runs_hooks_once(case: Case) -> None:
    kind = type("Mine", (case.kind,), {})
    (p,) = parameters([(5,)])
    optimizer = kind([p], **case.options)
    seen: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("pre"))
    gradients([p])
    with torch.autograd.profiler.profile() as profile:
        optimizer.step()
    assert seen == ["pre"]
    assert [e.name for e in profile.function_events].count("Optimizer.step#Mine.step") == 1


@cases.classes
def test_torchs_own_class_keeps_its_hooks(case: Case) -> None:
    """Making one of ours must not alter the class it descends from."""
    case.ours(parameters([(5,)]))
    (p,) = parameters([(5,)])
    gradients([p])
    torchs = case.torchs([p])
    seen: list[str] = []
    torchs.register_step_post_hook(lambda *_: seen.append("post"))
    torchs.step()
    assert seen == ["post"]


@cases.classes
def test_hooks_run_once_when_a_group_falls_back(case: Case) -> None:
    (p,) = parameters([(5,)])
    c = torch.nn.Parameter(torch.randn(3, dtype=torch.complex64))
    optimizer = case.ours([{"params": [p]}, {"params": [c]}])
    seen: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("pre"))
    optimizer.register_step_post_hook(lambda *_: seen.append("post"))
    p.grad, c.grad = torch.ones(5), torch.ones(3, dtype=torch.complex64)
    before = c.detach().clone()
    with torch.autograd.profiler.profile() as profile:
        optimizer.step()
    assert seen == ["pre", "post"]
    assert not torch.equal(c, before)
    assert [e.name for e in profile.function_events].count(f"Optimizer.step#{case.name}.step") == 1


@cases.classes
def test_hook_of_removed_gradients(case: Case) -> None:
    (p,) = parameters([(5,)])
    optimizer = case.ours([p])
    optimizer.register_step_pre_hook(lambda opt, *_: opt.zero_grad())
    gradients([p])
    before = p.detach().clone()
    optimizer.step()
    tolerances.exact(p, before)


@cases.classes
def test_error_in_a_closure_changes_nothing(case: Case) -> None:
    (p,) = parameters([(5,)])
    optimizer = case.ours([p])
    gradients([p])
    before = p.detach().clone()

    def closure() -> float:
        message = "from the closure"
        raise ZeroDivisionError(message)

    with pytest.raises(ZeroDivisionError, match="from the closure"):
        optimizer.step(closure)
    tolerances.exact(p, before)
    assert torch.is_grad_enabled()


@cases.classes
def test_grad_mode_is_as_before(case: Case) -> None:
    (p,) = parameters([(5,)])
    optimizer = case.ours([p])
    gradients([p])
    modes: list[bool] = []
    optimizer.step(lambda: modes.append(torch.is_grad_enabled()))
    with torch.no_grad():
        optimizer.step(lambda: modes.append(torch.is_grad_enabled()))
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()
    assert modes == [True, True]
