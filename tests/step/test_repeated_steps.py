"""A step that finds its parameter groups as they were takes a shorter way: whatever has changed is seen."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import onepass
from onepass import _core, schedule
from onepass.step import row, stepper
from tests import cases, tolerances
from tests.cases import Case
from tests.helpers import (
    EMULATED,
    assert_same,
    gradients,
    parameters,
    skip_where_torch_begins_no_state,
    twin,
)

SHAPES = [(5, 7), (70,), (2, 3), (33,)]

pytestmark = pytest.mark.skipif(EMULATED, reason="steps on a device are packed each time")


def settled(case: Case, **more: Any) -> tuple[list[Any], list[Any], Any, Any]:
    """Return our and torch's parameters and optimizers, in two groups, after some steps that were all alike."""
    ours = parameters(SHAPES)
    theirs = twin(ours)
    optimizers = [
        make([{"params": params[:2]}, {"params": params[2:], "lr": 0.03}], **more)
        for make, params in ((case.ours, ours), (case.torchs, theirs))
    ]
    for _ in range(4):
        gradients(ours, theirs)
        for optimizer in optimizers:
            optimizer.step()
    return ours, theirs, *optimizers


class Packed:
    """Counts how often parameter groups are packed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0

        def pack(*arguments: Any) -> Any:
            self.count += 1
            return row.pack(*arguments)

        monkeypatch.setattr(stepper, "pack", pack)


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> Packed:
    return Packed(monkeypatch)


@cases.all_cases
def test_groups_are_packed_once(case: Case, packed: Packed) -> None:
    ours, theirs, optimizer, torchs = settled(case)
    before = packed.count
    for _ in range(3):
        gradients(ours, theirs)
        optimizer.step()
        torchs.step()
    assert packed.count == before
    assert optimizer.report.steps_applied == 7
    assert_same(optimizer, torchs, **tolerances.accumulated(7))


def _append(optimizer: Any) -> None:
    p = torch.nn.Parameter(torch.linspace(-1, 1, 11))
    p.grad = torch.full_like(p, 0.25)
    optimizer.param_groups[0]["params"].append(p)


def _add_group(optimizer: Any) -> None:
    p = torch.nn.Parameter(torch.linspace(-1, 1, 11))
    p.grad = torch.full_like(p, 0.25)
    optimizer.add_param_group({"params": [p], "lr": 0.5})


def _swap_groups(optimizer: Any) -> None:
    optimizer.param_groups.reverse()


def _new_lists(optimizer: Any) -> None:
    first, second = optimizer.param_groups
    first["params"], second["params"] = list(second["params"]), list(first["params"])


def _new_dicts(optimizer: Any) -> None:
    optimizer.param_groups[:] = [dict(group) for group in optimizer.param_groups]
    optimizer.param_groups[0]["lr"] = 0.2


def _without_state(optimizer: Any) -> None:
    optimizer.state.pop(optimizer.param_groups[0]["params"][0], None)


def _without_gradient(optimizer: Any) -> None:
    optimizer.param_groups[1]["params"][0].grad = None


def _double(optimizer: Any) -> None:
    p = optimizer.param_groups[0]["params"][1]
    gradient, p.grad = p.grad, None
    p.data = p.data.double()
    p.grad = gradient.double()


def _data(optimizer: Any) -> None:
    p = optimizer.param_groups[0]["params"][1]
    p.data = torch.ones_like(p)


def _in_group(name: str, value: Any) -> Callable[[Any], None]:
    def change(optimizer: Any) -> None:
        optimizer.param_groups[1][name] = value

    return change


def _momentum(value: float) -> Callable[[Any], None]:
    def change(optimizer: Any) -> None:
        group = optimizer.param_groups[1]
        if group.get("momentum"):  # torch cannot begin with it later
            group["momentum"] = value

    return change


CHANGES = {
    "lr": _in_group("lr", 0.5),
    "lr of an int": _in_group("lr", 1),
    "lr tensor": _in_group("lr", torch.tensor(0.125)),
    "weight_decay": _in_group("weight_decay", 0.3),
    "momentum": _momentum(0.25),
    "no momentum": _momentum(0.0),
    "betas": _in_group("betas", (0.5, 0.75)),
    "maximize": _in_group("maximize", True),
    "differentiable": _in_group("differentiable", True),
    "a key of the user's": _in_group("note", ["anything"]),
    "parameter": _append,
    "group": _add_group,
    "order of the groups": _swap_groups,
    "lists": _new_lists,
    "dicts": _new_dicts,
    "gradient": _without_gradient,
    "data": _data,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@cases.rules
def test_change_between_steps(case: Case, change: Callable[[Any], None]) -> None:
    if change in (_append, _add_group):
        skip_where_torch_begins_no_state(case)
    ours, theirs, optimizer, torchs = settled(case)
    gradients(ours, theirs)
    for each in (optimizer, torchs):
        change(each)
    for _ in range(3):
        optimizer.step()
        torchs.step()
    assert_same(optimizer, torchs, **tolerances.accumulated(8))


@cases.rules
def test_lost_state_starts_anew(case: Case) -> None:
    ours, theirs, optimizer, torchs = settled(case)
    if case.name == "Adagrad":  # torch's makes its state with the parameters
        return
    gradients(ours, theirs)
    for each in (optimizer, torchs):
        _without_state(each)
        each.step()
    assert_same(optimizer, torchs, **tolerances.accumulated(5))


@cases.rules
def test_another_dtype(case: Case) -> None:
    """The parameter's next step is in double, from its state in float."""
    ours, _, optimizer, _ = settled(case)
    gradients(ours)
    _double(optimizer)
    optimizer.step()
    assert ours[1].dtype == torch.float64


@pytest.mark.parametrize("name", ["lr", "weight_decay"])
def test_number_that_is_a_tensor(name: str) -> None:
    """The same object, another number."""
    case = Case("sgd", "SGD", {"lr": 0.1})
    ours, theirs, optimizer, torchs = settled(case)
    for value in (0.25, 0.0625):
        for each in (optimizer, torchs):
            number = each.param_groups[0][name]
            if isinstance(number, torch.Tensor):
                number.fill_(value)
            else:
                each.param_groups[0][name] = torch.tensor(value)
        for _ in range(3):
            gradients(ours, theirs)
            optimizer.step()
            torchs.step()
    assert_same(optimizer, torchs, **tolerances.accumulated(10))


def test_betas_in_a_list() -> None:
    case = Case("adamw", "AdamW", {"lr": 0.02})
    ours, theirs, optimizer, torchs = settled(case)
    for beta in (0.9, 0.5, 0.25):
        for each in (optimizer, torchs):
            betas = each.param_groups[0]["betas"]
            if isinstance(betas, list):
                betas[0] = beta
            else:
                each.param_groups[0]["betas"] = [beta, 0.999]
        gradients(ours, theirs)
        optimizer.step()
        torchs.step()
    assert_same(optimizer, torchs, **tolerances.accumulated(7))


def _schedule(optimizer: Any) -> None:
    optimizer.param_groups[0]["lr"] = schedule.Exponential(0.25, gamma=0.5)


OPTIONS: dict[str, Callable[[Any], Any]] = {
    "max_grad_norm": lambda optimizer: [
        group.update(max_grad_norm=1e-3) for group in optimizer.param_groups
    ],
    "l1_decay": _in_group("l1_decay", 0.5),
    "ema_decay": _in_group("ema_decay", 0.5),
    "train_from": _in_group("train_from", 100),
    "state_dtype": _in_group("state_dtype", "8bit"),
    "schedule": _schedule,
    "no l1_decay any more": lambda optimizer: optimizer.param_groups[1].pop("l1_decay"),
}


@pytest.mark.parametrize("change", OPTIONS.values(), ids=OPTIONS.keys())
@cases.rules
def test_option_between_steps(case: Case, change: Callable[[Any], None]) -> None:
    """As if the optimizer had been made anew, with its state and the option."""
    ours = parameters(SHAPES)
    optimizer = case.ours([{"params": ours[:2]}, {"params": ours[2:], "lr": 0.03}], l1_decay=0.1)
    for _ in range(4):
        gradients(ours)
        optimizer.step()
    others = twin(ours)
    other = case.ours([{"params": others[:2]}, {"params": others[2:], "lr": 0.03}], l1_decay=0.1)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    other.steps_applied = optimizer.steps_applied  # which no checkpoint of SGD holds
    for each in (optimizer, other):
        change(each)
    for _ in range(3):
        gradients(ours, others)
        optimizer.step()
        other.step()
    for p, q in zip(ours, others, strict=True):
        tolerances.exact(p, q)


NUMBERS = {
    "lr": st.sampled_from([0.01, 0.05, 0.3, 1]),
    "weight_decay": st.sampled_from([0.0, 0.1, 0.25]),
    "l1_decay": st.sampled_from([0.0, 0.01]),
    "l1_mode": st.sampled_from(["proximal", "subgradient"]),
    "maximize": st.booleans(),
    "ema_decay": st.sampled_from([None, 0.5, 0.9]),
    "max_grad_norm": st.sampled_from([None, 0.5]),
    "skip_nonfinite": st.booleans(),
    "max_grad_value": st.sampled_from([None, 0.5]),
    "state_dtype": st.sampled_from([None, torch.bfloat16, "8bit"]),
    "train_from": st.sampled_from([0, 3]),
}


OF_RULES = {
    "momentum": st.sampled_from([0.0, 0.5, 0.9]),
    "betas": st.sampled_from([(0.9, 0.999), (0.5, 0.9), (0.0, 0.9), (0.9, 0.75)]),
}  # a foreign key in the groups of others


@st.composite
def lives(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Options to begin with, and what is written into the groups before each step."""
    names = st.sampled_from(sorted(NUMBERS))
    first = {name: draw(NUMBERS[name]) for name in draw(st.lists(names, max_size=3, unique=True))}
    if draw(st.booleans()):
        first["lr"] = schedule.Exponential(0.25, gamma=0.5).warmup(3)
    changes = []
    for _ in range(draw(st.integers(4, 12))):
        changeable = {**NUMBERS, **OF_RULES}
        changed = draw(st.lists(st.sampled_from(sorted(changeable)), max_size=1))
        changes.append({name: draw(changeable[name]) for name in changed})
    return first, changes


def forget(optimizer: Any) -> None:
    stepper = optimizer._stepper
    applied, stepper.memory = stepper.memory.steps_applied, _core.Memory()
    stepper.memory.steps_applied = applied
    stepper.remembers, stepper._checked = False, []


@settings(max_examples=150)
@given(life=lives(), case=st.sampled_from(cases.RULES))
def test_a_memory_changes_nothing(life: Any, case: Case) -> None:
    """An optimizer that forgets between steps what it remembers does the same, to the bit."""
    first, changes = life
    torch.manual_seed(3)
    ours = parameters(SHAPES, torch.bfloat16)
    others = twin(ours)
    optimizer, forgetful = (case.ours(params, **first) for params in (ours, others))
    for number, change in enumerate(changes):
        gradients(ours, others)
        if number % 5 == 4:
            for params in (ours, others):
                params[0].grad.view(-1)[0] = torch.nan  # type: ignore[union-attr]
        for each in (optimizer, forgetful):
            for group in each.param_groups:
                group.update(change)
        forget(forgetful)
        optimizer.step()
        forgetful.step()
        for p, q in zip(ours, others, strict=True):
            tolerances.exact(p, q)
            state, its = optimizer.state[p], forgetful.state[q]
            assert state.keys() == its.keys()
            for key in state:
                tolerances.exact(state[key], its[key])
        assert repr(optimizer.report) == repr(forgetful.report)  # NaN is NaN here
        for a, b in zip(optimizer.param_groups, forgetful.param_groups, strict=True):
            assert {**a, "params": 0} == {**b, "params": 0}


@pytest.mark.parametrize(
    "options",
    [
        {"lr": schedule.Cosine(0.1, 100)},
        {"lr": schedule.Cosine(0.1, 100), "weight_decay": schedule.Linear(0.1, 50)},
        {"betas": (schedule.Cosine(0.9, 100, final=0.5), schedule.Linear(0.99, 50, final=0.9))},
        {"max_grad_norm": 0.5},
        {"skip_nonfinite": True},
        {"state_dtype": "8bit"},
        {"ema_decay": 0.9, "l1_decay": 0.01},
        {"train_from": 1},
    ],
    ids=str,
)
def test_options_are_packed_once(options: dict[str, Any], packed: Packed) -> None:
    case = Case("adamw", "AdamW", {"lr": 0.02})
    ours = parameters(SHAPES)
    optimizer = case.ours(ours, **options)
    for step in range(9):
        gradients(ours)
        optimizer.step()
        if step == 5:
            before = packed.count
    assert packed.count == before
    assert optimizer.report.steps_applied == 9


@pytest.mark.parametrize("name", ["SGD", "RMSprop"])
def test_scheduled_momentum_is_not_packed_anew(name: str, packed: Packed) -> None:
    case = Case(name, name, {"lr": 0.02, "momentum": 0.9})
    ours = parameters(SHAPES)
    theirs = twin(ours)
    moving = schedule.Linear(0.9, 20, final=0.5)
    optimizer, torchs = case.ours(ours, momentum=moving), case.torchs(theirs)
    for step in range(9):
        gradients(ours, theirs)
        torchs.param_groups[0]["momentum"] = moving(step)
        optimizer.step()
        torchs.step()
        if step == 5:
            before = packed.count
    assert packed.count == before
    assert_same(optimizer, torchs, **tolerances.accumulated(9))


def test_betas_that_leave_their_range() -> None:
    ours = parameters(SHAPES)
    optimizer = onepass.AdamW(ours, betas=(schedule.Linear(0.5, 8, final=1.5), 0.99))
    for _ in range(4):
        gradients(ours)
        optimizer.step()
    before = [p.detach().clone() for p in ours]
    with pytest.raises(ValueError, match="beta"):
        optimizer.step()
    for p, value in zip(ours, before, strict=True):
        tolerances.exact(p, value)


def test_other_learning_rates_are_not_packed_anew(packed: Packed) -> None:
    """Numbers that a scheduler writes are only read."""
    case = Case("adamw", "AdamW", {"lr": 0.02})
    ours, theirs, optimizer, torchs = settled(case)
    before = packed.count
    schedulers = [torch.optim.lr_scheduler.ExponentialLR(e, 0.7) for e in (optimizer, torchs)]
    for _ in range(6):
        gradients(ours, theirs)
        for each, its in zip((optimizer, torchs), schedulers, strict=True):
            each.step()
            its.step()
    assert packed.count <= before + 4  # both groups have got initial_lr
    assert_same(optimizer, torchs, **tolerances.accumulated(10))


def test_closure_hooks_and_scaler() -> None:
    """What surrounds a step is done however short its way is."""
    case = Case("adamw", "AdamW", {"lr": 0.02})
    ours, theirs, optimizer, torchs = settled(case)
    seen = []
    handle = optimizer.register_step_post_hook(lambda *_: seen.append("hook"))
    gradients(ours, theirs)
    assert optimizer.step(lambda: 3.0) == 3.0
    torchs.step()
    handle.remove()
    assert seen == ["hook"]
    optimizer.found_inf = torch.tensor(1.0)
    optimizer.step()
    assert optimizer.report.applied is False
    del optimizer.found_inf
    optimizer.step()
    torchs.step()
    optimizer.steps_applied = 7  # before anybody has asked what the last step did
    assert (optimizer.report.applied, optimizer.report.steps_skipped) == (True, 1)
    assert_same(optimizer, torchs, **tolerances.accumulated(6))


def test_error_leaves_everything() -> None:
    case = Case("adamw", "AdamW", {"lr": 0.02})
    ours, _, optimizer, _ = settled(case)
    gradients(ours)
    ours[3].data = torch.zeros(7)
    before = [p.detach().clone() for p in ours]
    with pytest.raises(RuntimeError, match="parameter 1 of group 1"):
        optimizer.step()
    for p, value in zip(ours, before, strict=True):
        tolerances.exact(p, value)
    assert optimizer.report.steps_applied == 4


def test_optimizer_in_its_parameters_hook_is_collected() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = onepass.AdamW([p])
    p.register_post_accumulate_grad_hook(lambda _: optimizer.step())  # type: ignore[no-untyped-call]
    for _ in range(4):
        p.sum().backward()  # type: ignore[no-untyped-call]
    assert optimizer.report.steps_applied == 4
    gone = weakref.ref(optimizer)
    del p, optimizer
    gc.collect()
    assert gone() is None
