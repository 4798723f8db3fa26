"""torch.distributed.checkpoint takes for complete what an optimizer shows it: a run goes on as if it had not stopped."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from onepass import schedule
from onepass.transfer import anchor_decay
from tests import cases, tolerances
from tests.cases import Case

Make = Callable[[Case, nn.Module], Any]
pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning", "ignore:.*:FutureWarning")


def model(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 4), nn.Linear(4, 1)).to(dtype)


def train(net: nn.Module, optimizer: Any, steps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    dtype = next(net.parameters()).dtype
    for _ in range(steps):
        optimizer.zero_grad()
        net(torch.randn(8, 4, generator=generator).to(dtype)).square().mean().backward()
        optimizer.step()


def moved(net: nn.Module, optimizer: Any, fresh: nn.Module, its: Any) -> None:
    """Take model and optimizer to others through a checkpoint."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weights, state = get_state_dict(net, optimizer)
        dcp.state_dict_saver.save({"m": weights, "o": state}, checkpoint_id=folder, no_dist=True)
        weights, state = get_state_dict(fresh, its)
        dcp.state_dict_loader.load({"m": weights, "o": state}, checkpoint_id=folder, no_dist=True)
        set_state_dict(fresh, its, model_state_dict=weights, optim_state_dict=state)


def plain(case: Case, net: nn.Module, **more: Any) -> Any:
    return case.ours(net.named_parameters(), **more)


def anchored(case: Case, net: nn.Module, part: str | None = None, **more: Any) -> Any:
    optimizer = plain(case, net, **{"weight_decay": 0.0, **more})
    anchor_decay(optimizer, 0.1, part)
    return optimizer


def waiting(case: Case, net: Any, start: int = 3, **more: Any) -> Any:
    groups = [
        {"params": list(net[0].parameters()), "train_from": start},
        {"params": list(net[1].parameters()), "train_from": 100},
        {"params": list(net[2].parameters())},
    ]
    return case.ours(groups, **more)


OPTIONS: dict[str, tuple[Make, torch.dtype]] = {
    "nothing": (plain, torch.float32),
    "anchors": (anchored, torch.float32),
    "anchors of a part": (lambda case, net: anchored(case, net, "1"), torch.float32),
    "anchors and averages": (
        lambda case, net: anchored(case, net, ema_decay=0.5),
        torch.float32,
    ),
    "waits": (waiting, torch.float32),
    "waits on": (lambda case, net: waiting(case, net, 7), torch.float32),
    "all wait": (lambda case, net: plain(case, net, train_from=6), torch.float32),
    "waits, averages": (lambda case, net: waiting(case, net, 7, ema_decay=0.5), torch.float32),
    "waits, 8 bit": (lambda case, net: waiting(case, net, 7, state_dtype="8bit"), torch.float32),
    "waits, masters": (lambda case, net: waiting(case, net, 7, master_weights=True), torch.bfloat16),
    "waits, masters of float16": (
        lambda case, net: waiting(case, net, 7, master_weights=True),
        torch.float16,
    ),
    "averages": (lambda case, net: plain(case, net, ema_decay=0.5), torch.float32),
    "schedule": (lambda case, net: plain(case, net, lr=schedule.Linear(0.1, 20)), torch.float32),
    "plateau": (lambda case, net: plain(case, net, lr=0.1 * schedule.Plateau()), torch.float32),
}  # fmt: skip


@pytest.mark.parametrize("steps", [0, 5])
@pytest.mark.parametrize("name", OPTIONS)
@cases.classes
def test_a_run_goes_on(case: Case, name: str, steps: int) -> None:
    if name == "schedule" and not steps:
        pytest.skip(
            "to fill the state, torch steps with a learning rate of 0, and writes the old number back"
        )
    make, dtype = OPTIONS[name]
    net, fresh = model(dtype), model(dtype)
    optimizer, its = make(case, net), make(case, fresh)
    train(net, optimizer, steps, 0)
    moved(net, optimizer, fresh, its)
    for seed in (1, 2):
        train(net, optimizer, 4, seed)
        train(fresh, its, 4, seed)
    for p, q in zip(net.parameters(), fresh.parameters(), strict=True):
        tolerances.exact(p, q)
        ours, theirs = optimizer.state.get(p, {}), its.state.get(q, {})
        for key, value in ours.items():
            tolerances.exact(value, theirs[key])


@cases.classes
def test_nothing_is_made_for_the_run_itself(case: Case) -> None:
    """The states that a checkpoint shows of a group that waits are not those of the optimizer."""
    net = model()
    optimizer = waiting(case, net)
    train(net, optimizer, 1, 0)
    before = {p: dict(state) for p, state in optimizer.state.items()}
    saved = optimizer.state_dict()
    assert {p: dict(state) for p, state in optimizer.state.items()} == before
    if case.state_keys:
        assert set(saved["state"]) == set(range(6))


def test_a_lazy_layer_that_waits() -> None:
    """Nobody knows yet what its states will be."""
    net: Any = nn.Sequential(nn.Linear(3, 4), nn.LazyLinear(2))
    groups = [{"params": net[0].parameters()}, {"params": net[1].parameters(), "train_from": 3}]
    optimizer = cases.BY_ID["adam"].ours(groups)
    net[0](torch.ones(2, 3)).sum().backward()
    optimizer.step()
    assert set(optimizer.state_dict()["state"]) == {0, 1}
    net(torch.ones(2, 3))
    assert set(optimizer.state_dict()["state"]) == {0, 1, 2, 3}


@cases.classes
def test_plain_checkpoints_of_what_has_not_begun(case: Case) -> None:
    """Averages begin with a copy, and momentum with the first gradient, also in a run that was saved before."""
    more = {"dampening": 0.5} if case.name == "SGD" and not case.hyper.get("nesterov") else {}
    nets = [model(), model()]
    optimizers = [waiting(case, net, 2, ema_decay=0.5, **more) for net in nets]
    for net, optimizer in zip(nets, optimizers, strict=True):
        train(net, optimizer, 1, 0)
        anchor_decay(optimizer, 0.1)
    other = waiting(case, nets[1], 2, ema_decay=0.5, **more)
    other.load_state_dict(optimizers[1].state_dict())
    train(nets[0], optimizers[0], 3, 1)
    train(nets[1], other, 3, 1)
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        tolerances.exact(p, q)


@cases.classes
def test_torch_takes_anchors_before_the_first_step(case: Case) -> None:
    net = model()
    optimizer = anchored(case, net, "0")
    twin = model()
    torchs = case.torchs(twin.named_parameters(), weight_decay=0.0)
    torchs.load_state_dict(optimizer.state_dict())
    train(twin, torchs, 2, 0)
    other = model()
    reference = case.torchs(other.named_parameters(), weight_decay=0.0)
    train(other, reference, 2, 0)
    for p, q in zip(twin.parameters(), other.parameters(), strict=True):
        tolerances.exact(p, q)
