"""Copies of optimizers are whole, and have nothing in common with what they were made from."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch

import onepass
from onepass.schedule import Constant, Linear
from tests import cases
from tests.cases import Case
from tests.helpers import gradients, parameters

Copy = Callable[[Any], Any]
copies = pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"]
)


def stepped(case: Case, **options: Any) -> Any:
    params = parameters([(5,), (2, 3)])
    optimizer = case.ours(params, **options)
    for _ in range(3):
        gradients(params)
        optimizer.step()
    return optimizer


@copies
@pytest.mark.parametrize("policy", ["keep", "checkpoint"])
def test_policy(copied: Copy, policy: str) -> None:
    optimizer = stepped(cases.CLASSES[0], lr=Constant(0.1))
    optimizer.on_schedule_mismatch = policy
    assert copied(optimizer).on_schedule_mismatch == policy
    assert type(optimizer).on_schedule_mismatch == "error"


@copies
@cases.classes
def test_count(case: Case, copied: Copy) -> None:
    """A schedule that is put into a group later goes by it, also where no state holds a count."""
    optimizer = stepped(case)
    twin = copied(optimizer)
    assert twin.steps_applied == twin.report.steps_applied == 3
    for each in (optimizer, twin):
        each.param_groups[0]["lr"] = Linear(1.0, 10)
        each.step()
        assert each.param_groups[0]["lr"] == pytest.approx(0.6)


@cases.classes
def test_a_live_state_dict_is_copied(case: Case) -> None:
    """Every tensor of it: torch shares the count, and all that has the right type already."""
    optimizer = stepped(case, ema_decay=0.5)
    for state in optimizer.state.values():
        state["note"] = torch.zeros(3)
    other = case.ours(
        [p.detach().clone().requires_grad_() for p in optimizer.param_groups[0]["params"]]
    )
    other.load_state_dict(optimizer.state_dict())
    ours = [t for s in optimizer.state.values() for t in s.values() if isinstance(t, torch.Tensor)]
    theirs = [t for s in other.state.values() for t in s.values() if isinstance(t, torch.Tensor)]
    assert len(ours) == len(theirs) >= 4
    assert not {t.data_ptr() for t in ours} & {t.data_ptr() for t in theirs}
    before = copy.deepcopy(optimizer.state_dict()["state"])
    params = other.param_groups[0]["params"]
    gradients(params)
    other.step()
    after = optimizer.state_dict()["state"]
    for i, state in before.items():
        for key, value in state.items():
            assert torch.equal(after[i][key], value), key


def test_groups_of_a_copy_reduce_for_themselves() -> None:
    optimizer = onepass.SGD(parameters([(3,)]), lr=1.0 * onepass.schedule.Plateau(patience=0))
    twin = copy.deepcopy(optimizer)
    for metric in (1.0, 2.0):
        twin.observe(metric)
    assert [o.param_groups[0]["lr"] for o in (optimizer, twin)] == [1.0, 0.1]
