"""A subclass that decides something of a group itself is asked in every step."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import onepass
from onepass import _core, schedule
from onepass.hyper.spec import Group
from tests.helpers import gradients, parameters, twin

SHAPES = [(5, 7), (70,)]


class Checked(onepass.AdamW):
    """Refuses what its `limit` says."""

    limit = 1.0
    asked = 0

    def check(self, group: Group) -> None:
        self.asked += 1
        super().check(group)
        if group["lr"] > self.limit:
            message = "too fast"
            raise ValueError(message)


class Chosen(onepass.Adam):
    """Chooses its rule by something that is not in the group."""

    largest = False

    def rule(self, group: Group) -> str:  # noqa: ARG002
        return "amsgrad" if self.largest else "adam"


class Renamed(onepass.AdamW):
    """Overrides nothing."""


def test_check_is_called_in_every_step() -> None:
    params = parameters(SHAPES)
    optimizer = Checked(params, lr=0.1)
    gradients(params)
    for _ in range(4):
        before = optimizer.asked
        optimizer.step()
        assert optimizer.asked == before + 1
    optimizer.limit = 0.01
    weights = [p.detach().clone() for p in params]
    with pytest.raises(ValueError, match="too fast"):
        optimizer.step()
    assert all(torch.equal(p, w) for p, w in zip(params, weights, strict=True))
    assert not optimizer._stepper.remembers


def test_rule_is_called_in_every_step() -> None:
    params = parameters(SHAPES)
    optimizer = Chosen(params, lr=0.1)
    gradients(params)
    for _ in range(4):
        optimizer.step()
    assert "max_exp_avg_sq" not in optimizer.state[params[0]]
    optimizer.largest = True
    optimizer.step()
    assert "max_exp_avg_sq" in optimizer.state[params[0]]


@pytest.mark.parametrize("hook", ["check", "rule"])
def test_hooks_of_an_instance(hook: str) -> None:
    """Set when its groups are remembered already, and taken away again."""
    params = parameters(SHAPES)
    optimizer: Any = onepass.Adam(params, lr=0.1)
    gradients(params)
    for _ in range(4):
        optimizer.step()
    assert optimizer._stepper.remembers
    asked = []
    original = getattr(optimizer, hook)

    def watched(group: Group) -> Any:
        asked.append(group)
        return original(group)

    setattr(optimizer, hook, watched)
    for count in (1, 2, 3):
        optimizer.step()
        assert len(asked) == count
    delattr(optimizer, hook)
    for _ in range(3):
        optimizer.step()
    assert len(asked) == 3
    assert optimizer._stepper.remembers


def test_a_subclass_that_overrides_nothing_repeats() -> None:
    params = parameters(SHAPES)
    optimizer = Renamed(params)
    gradients(params)
    for _ in range(3):
        optimizer.step()
    assert optimizer._stepper.remembers


def test_a_hook_sees_numbers() -> None:
    """What a schedule gives, in a copy of the group: whatever is done to that changes nothing."""
    seen = []

    class Watching(onepass.SGD):
        def check(self, group: Group) -> None:
            super().check(group)
            seen.append(group["lr"])
            group["lr"] = 100.0

    params = parameters(SHAPES)
    optimizer = Watching(params, lr=schedule.Linear(1.0, 10))
    gradients(params)
    optimizer.step()
    optimizer.step()
    assert seen[-2:] == [1.0, 0.9]
    assert optimizer.param_groups[0]["lr"] == 0.8


@pytest.mark.parametrize("betas", [False, True])
def test_a_schedule_put_into_a_group(betas: bool) -> None:
    ours = parameters(SHAPES)
    others = twin(ours)
    moving = schedule.Linear(0.5, 10, final=0.1)
    key, value = ("betas", (moving, 0.99)) if betas else ("lr", moving)
    optimizer, other = onepass.AdamW(ours), onepass.AdamW(others, **{key: value})  # type: ignore[arg-type]
    optimizer.param_groups[0][key] = value
    for _ in range(4):
        gradients(ours, others)
        optimizer.step()
        other.step()
    for p, q in zip(ours, others, strict=True):
        assert torch.equal(p, q)
    assert optimizer.param_groups[0][key] == other.param_groups[0][key]


def test_a_step_uses_the_snapshot() -> None:
    """What is written into a group while it steps belongs to the next step."""
    ours = parameters(SHAPES)
    others = twin(ours)

    class Written(onepass.SGD):
        def rule(self, group: Group) -> str:
            self.param_groups[0]["lr"] = 0.25  # as another thread might
            return super().rule(group)

    optimizer, other = Written(ours, lr=0.5), onepass.SGD(others, lr=0.5)
    for _ in range(3):
        gradients(ours, others)
        optimizer.step()
        other.step()
        other.param_groups[0]["lr"] = 0.25
    for p, q in zip(ours, others, strict=True):
        assert torch.equal(p, q)


def test_what_is_written_during_a_step_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the kernels run, another thread writes: that is not remembered beside the number of before."""
    ours = parameters(SHAPES)
    others = twin(ours)
    optimizer, other = onepass.SGD(ours, lr=0.5), onepass.SGD(others, lr=0.5)
    real, lrs = _core.step, iter([0.25, 0.125])

    def written(*arguments: Any) -> Any:
        done = real(*arguments)
        for lr in lrs:
            optimizer.param_groups[0]["lr"] = lr
            break
        return done

    monkeypatch.setattr(_core, "step", written)
    gradients(ours, others)
    for _ in range(4):
        optimizer.step()
    monkeypatch.undo()
    for lr in (0.5, 0.25, 0.25, 0.25):
        other.param_groups[0]["lr"] = lr
        other.step()
    for p, q in zip(ours, others, strict=True):
        assert torch.equal(p, q)


def test_copies_keep_their_hooks() -> None:
    params = parameters(SHAPES)
    optimizer = copy.deepcopy(Checked(params, lr=0.1))
    gradients(optimizer.param_groups[0]["params"])
    optimizer.step()
    assert optimizer.asked == 1
