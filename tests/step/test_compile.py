"""torch.compile around a training step: the step is hidden from it, and happens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests import cases, tolerances
from tests.cases import Case
from tests.helpers import assert_same


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Any:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


pytestmark = [
    # torch's own: its compiler asks for attributes that are deprecated
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*"),
    pytest.mark.filterwarnings("ignore::FutureWarning:torch.*"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),
]


def train(make: Any, wrap: Any, steps: int = 4) -> Any:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = make(model.parameters())

    def step(x: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        loss: Any = (model(x) - x.sum(1, keepdim=True)).square().mean()
        loss.backward()
        optimizer.step()
        return loss  # type: ignore[no-any-return]

    run = wrap(step)
    for _ in range(steps):
        run(torch.randn(16, 5))
    return optimizer


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@cases.classes
def test_compiled_training_step(case: Case, backend: str) -> None:
    """An undeclared change in place is silently dropped by the compiler: weights would not move."""
    compiled = train(
        lambda p: case.ours(p, maximize=False), lambda step: torch.compile(step, backend=backend)
    )
    plain = train(lambda p: case.torchs(p, maximize=False), lambda step: step)
    assert_same(compiled, plain, rtol=1e-3, atol=1e-4)


@cases.classes
def test_compiled_step_alone(case: Case) -> None:
    compiled = train(lambda p: case.ours(p, maximize=False), lambda step: step, 1)
    plain = train(lambda p: case.torchs(p, maximize=False), lambda step: step, 1)
    step: Any = torch.compile(lambda: compiled.step(), backend="eager")  # type: ignore[misc]
    for _ in range(3):
        step()
        plain.step()
    assert_same(compiled, plain, rtol=1e-3, atol=1e-4)


def test_compiled_method() -> None:
    """`torch.compile(optimizer.step)`."""
    case = cases.BY_ID["adam"]
    compiled = train(case.ours, lambda step: step, 1)
    plain = train(case.torchs, lambda step: step, 1)
    step: Any = torch.compile(compiled.step, backend="eager")
    for _ in range(3):
        step()
        plain.step()
    assert_same(compiled, plain, rtol=1e-3, atol=1e-4)


def test_compiled_model_with_hooks_and_scheduler() -> None:
    """The learning rate changes and hooks run, without compiling anew for each value."""
    case = cases.BY_ID["adamw"]
    optimizers = []
    for make, wrap in (
        (case.ours, lambda step: torch.compile(step, backend="eager")),
        (case.torchs, lambda step: step),
    ):
        torch.manual_seed(2)
        model = nn.Linear(5, 1)
        optimizer = make(model.parameters())
        seen: list[int] = []
        optimizer.register_step_post_hook(lambda *_, seen=seen: seen.append(1))
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)

        def step(x: torch.Tensor, model: Any = model, optimizer: Any = optimizer) -> None:
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()

        run = wrap(step)
        for _ in range(4):
            run(torch.randn(6, 5))
            scheduler.step()
        assert len(seen) == 4
        optimizers.append(optimizer)
    assert_same(*optimizers, rtol=1e-3, atol=1e-4)


def test_compiled_model_only() -> None:
    case = cases.BY_ID["adam"]
    results = []
    for make in (case.ours, case.torchs):
        torch.manual_seed(2)
        model = nn.Linear(5, 1)
        optimizer = make(model.parameters())
        compiled = torch.compile(model, backend="aot_eager")
        for _ in range(3):
            optimizer.zero_grad()
            compiled(torch.randn(6, 5)).square().mean().backward()
            optimizer.step()
        results.append(model.weight.detach())
    torch.testing.assert_close(*results, **tolerances.accumulated(30))
