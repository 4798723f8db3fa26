"""Whole trainings beside torch.optim's for-loop: the same losses, weights and states."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests import cases, tolerances
from tests.cases import Case
from tests.helpers import (
    Optimizer,
    assert_same,
    gradients,
    parameters,
    skip_where_torch_begins_no_state,
    twin,
)

STEPS = 12
SHAPES = [(5, 7), (7,), (2, 3, 2, 2), (1,), (), (130,)]


def models() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(1)
    ours = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 1))
    theirs = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 1))
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def train(model: nn.Module, optimizer: Optimizer, steps: int = STEPS) -> list[float]:
    generator = torch.Generator().manual_seed(2)
    losses = []
    for _ in range(steps):
        x = torch.randn(16, 6, generator=generator)
        loss = (model(x).squeeze(1) - x.sin().sum(1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@cases.all_cases
def test_training(case: Case) -> None:
    if case.hyper["maximize"]:
        pytest.skip("maximising an unbounded loss")
    ours, theirs = models()
    optimizer, torchs = case.ours(ours.parameters()), case.torchs(theirs.parameters())
    a, b = train(ours, optimizer), train(theirs, torchs)
    assert a == pytest.approx(b, rel=1e-4)
    assert_same(optimizer, torchs, rtol=1e-3, atol=1e-4)


@cases.all_cases
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_given_gradients(case: Case, dtype: torch.dtype) -> None:
    ours = parameters(SHAPES, dtype)
    theirs = twin(ours)
    optimizer, torchs = case.ours(ours), case.torchs(theirs)
    for _ in range(STEPS):
        gradients(ours, theirs)
        optimizer.step()
        torchs.step()
    assert_same(optimizer, torchs, **tolerances.accumulated(STEPS, dtype))


@cases.classes
def test_several_groups(case: Case) -> None:
    skip_where_torch_begins_no_state(case)
    ours = parameters(SHAPES)
    theirs = twin(ours)
    optimizers: list[Optimizer] = []
    for make, params in ((case.ours, ours), (case.torchs, theirs)):
        groups: list[dict[str, Any]] = [
            {"params": params[:2], "lr": 0.03},
            {"params": params[2:4], "weight_decay": 0.2, "maximize": True},
            {"params": params[4:5]},
        ]
        if case.name in ("Adam", "AdamW"):
            groups[2] |= {"betas": (0.5, 0.6), "amsgrad": True}
        if case.name == "RMSprop":
            groups[2] |= {"centered": False, "momentum": 0.0, "alpha": 0.5}
        if case.name == "SGD":
            groups[2] |= {"momentum": 0.0}
        optimizer = make(groups)
        optimizer.add_param_group({"params": params[5:], "lr": 0.01})
        optimizers.append(optimizer)
    for _ in range(STEPS):
        gradients(ours, theirs)
        for optimizer in optimizers:
            optimizer.step()
    assert_same(*optimizers, **tolerances.accumulated(STEPS))


@cases.classes
def test_tensor_lr(case: Case) -> None:
    """A tensor lr that is filled in place, of no dimension or of one."""
    for shape in ((), (1,)):
        ours = parameters(SHAPES)
        theirs = twin(ours)
        a, b = torch.full(shape, 0.03), torch.full(shape, 0.03)
        optimizer, torchs = case.ours(ours, lr=a), case.torchs(theirs, lr=b)
        assert optimizer.param_groups[0]["lr"] is a
        for i in range(5):
            gradients(ours, theirs)
            a.fill_(0.01 * (i + 1))
            b.fill_(0.01 * (i + 1))
            optimizer.step()
            torchs.step()
        assert_same(optimizer, torchs, **tolerances.accumulated(STEPS))
        torch.testing.assert_close(a, torch.full(shape, 0.05))


@pytest.mark.parametrize("name", ["adam", "adamw-amsgrad"])
def test_tensor_betas(name: str) -> None:
    case = cases.BY_ID[name]
    ours = parameters(SHAPES)
    theirs = twin(ours)
    betas = (torch.tensor(0.8, dtype=torch.float64), torch.tensor(0.9, dtype=torch.float64))
    optimizer, torchs = case.ours(ours, betas=betas), case.torchs(theirs, betas=betas)
    for _ in range(5):
        gradients(ours, theirs)
        optimizer.step()
        torchs.step()
    assert_same(optimizer, torchs, **tolerances.accumulated(5))


def test_tensor_weight_decay_of_sgd() -> None:
    case = cases.BY_ID["sgd-momentum"]
    ours = parameters(SHAPES)
    theirs = twin(ours)
    decay = torch.tensor(0.1)
    optimizer = case.ours(ours, weight_decay=decay)
    torchs = case.torchs(theirs, weight_decay=decay)
    for _ in range(5):
        gradients(ours, theirs)
        optimizer.step()
        torchs.step()
    assert_same(optimizer, torchs, **tolerances.accumulated(5))


@cases.classes
def test_closure(case: Case) -> None:
    """The closure runs with gradients enabled, may be given by keyword, and its loss comes back."""
    ours, theirs = models()
    optimizer, torchs = case.ours(ours.parameters()), case.torchs(theirs.parameters())
    x = torch.randn(4, 6)
    for model, opt in ((ours, optimizer), (theirs, torchs)):
        for _ in range(4):

            def closure(model: nn.Module = model, opt: Optimizer = opt) -> Any:
                opt.zero_grad()
                loss: Any = model(x).square().mean()
                loss.backward()
                return loss

            with torch.no_grad():
                loss = opt.step(closure)
            keyword = opt.step(closure=closure)
            assert isinstance(loss, torch.Tensor)
            assert isinstance(keyword, torch.Tensor)
            assert keyword.item() != loss.item()
    assert optimizer.step() is None
    torchs.step()
    assert_same(optimizer, torchs, rtol=1e-3, atol=1e-4)


def _schedulers() -> dict[str, Any]:
    s = torch.optim.lr_scheduler
    return {
        "LambdaLR": lambda o: s.LambdaLR(o, lambda t: 0.9**t),
        "MultiplicativeLR": lambda o: s.MultiplicativeLR(o, lambda _: 0.9),
        "StepLR": lambda o: s.StepLR(o, 2),
        "MultiStepLR": lambda o: s.MultiStepLR(o, [2, 5]),
        "ConstantLR": lambda o: s.ConstantLR(o, 0.5, 3),
        "LinearLR": lambda o: s.LinearLR(o),
        "ExponentialLR": lambda o: s.ExponentialLR(o, 0.8),
        "PolynomialLR": lambda o: s.PolynomialLR(o, 10),
        "CosineAnnealingLR": lambda o: s.CosineAnnealingLR(o, 10),
        "CosineAnnealingWarmRestarts": lambda o: s.CosineAnnealingWarmRestarts(o, 3),
        "CyclicLR": lambda o: s.CyclicLR(o, 0.001, 0.05, step_size_up=3),
        "OneCycleLR": lambda o: s.OneCycleLR(o, 0.05, total_steps=20),
        "ReduceLROnPlateau": lambda o: s.ReduceLROnPlateau(o, patience=0),
        "SequentialLR": lambda o: s.SequentialLR(
            o, [s.ConstantLR(o, 0.1, 2), s.ExponentialLR(o, 0.9)], milestones=[2]
        ),
        "ChainedScheduler": lambda o: s.ChainedScheduler(
            [s.ConstantLR(o, 0.1, 2), s.ExponentialLR(o, 0.9)]
        ),
        "SWALR": lambda o: torch.optim.swa_utils.SWALR(o, 0.01, anneal_epochs=3),
    }


SCHEDULERS = _schedulers()


def test_every_scheduler_is_in_the_list() -> None:
    found = set(torch.optim.lr_scheduler.__all__) - {"LRScheduler"}
    assert found <= set(SCHEDULERS)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@cases.classes
def test_schedulers(case: Case, scheduler: str) -> None:
    """Schedulers write lr, momentum and betas into the groups, and wrap `step` on the instance."""
    ours = parameters([(5,), (3, 4)])
    theirs = twin(ours)
    optimizer, torchs = case.ours(ours), case.torchs(theirs)
    if scheduler in ("CyclicLR", "OneCycleLR") and case.name == "Adagrad":
        with pytest.raises(ValueError, match="momentum"):  # torch's own demand
            SCHEDULERS[scheduler](optimizer)
        return
    pairs = [(o, SCHEDULERS[scheduler](o)) for o in (optimizer, torchs)]
    rates = set()
    for i in range(10):
        gradients(ours, theirs)
        rates.add(optimizer.param_groups[0]["lr"])
        for opt, s in pairs:
            opt.step()
            if scheduler == "ReduceLROnPlateau":
                s.step(1.0 + i)
            else:
                s.step()
    assert optimizer.param_groups[0]["lr"] == torchs.param_groups[0]["lr"]
    assert len(rates) > 1
    assert_same(optimizer, torchs, **tolerances.accumulated(10))


@cases.classes
def test_momentum_and_betas_written_into_groups(case: Case) -> None:
    """Every hyper-parameter is read at every step."""
    ours = parameters([(5,), (3, 4)])
    theirs = twin(ours)
    optimizer, torchs = case.ours(ours), case.torchs(theirs)
    changes: dict[str, list[Any]] = {
        "lr": [0.1, 0.02],
        "weight_decay": [0.3, 0.0],
        "maximize": [True, False],
        "momentum": [0.3, 0.7],
        "dampening": [0.5, 0.0],
        "nesterov": [True, False],
        "alpha": [0.5, 0.8],
        "centered": [False, True],
        "eps": [1e-3, 1e-6],
        "lr_decay": [0.5, 0.2],
        "betas": [(0.5, 0.6), (0.9, 0.99)],
        "decoupled_weight_decay": [True, False],
    }
    for key, values in changes.items():
        if key not in torchs.param_groups[0]:
            continue
        for value in values:
            for opt in (optimizer, torchs):
                opt.param_groups[0][key] = value
            gradients(ours, theirs)
            optimizer.step()
            torchs.step()
    assert_same(optimizer, torchs, **tolerances.accumulated(30))


@cases.classes
def test_foreach_and_capturable_make_no_difference(case: Case) -> None:
    params = parameters([(70,)])
    plain, foreach, capturable = params, twin(params), twin(params)
    optimizers = [case.ours(plain), case.ours(foreach, foreach=True)]
    groups = [plain, foreach]
    if case.name in ("RMSprop", "Adam", "AdamW"):
        optimizers.append(case.ours(capturable, capturable=True))
        groups.append(capturable)
    for _ in range(3):
        gradients(*groups)
        for optimizer in optimizers:
            optimizer.step()
    for group in groups[1:]:
        tolerances.exact(group[0], plain[0])


@cases.classes
def test_duplicated_parameter_steps_twice(case: Case) -> None:
    """Torch warns and then updates the parameter once per entry."""
    (p,) = parameters([(5,)])
    (q,) = twin([p])
    with pytest.warns(UserWarning, match="duplicate parameters"):
        optimizer = case.ours([p, p])
    with pytest.warns(UserWarning, match="duplicate parameters"):
        torchs = case.torchs([q, q])
    for _ in range(3):
        gradients([p], [q])
        optimizer.step()
        torchs.step()
    assert_same(optimizer, torchs, **tolerances.accumulated(3))
