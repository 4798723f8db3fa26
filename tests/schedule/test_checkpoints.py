"""Schedules in checkpoints: a training that was killed goes on, and what is loaded is compared with what is there."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch

import onepass
from onepass.schedule import (
    WSD,
    Constant,
    Cosine,
    Exponential,
    Linear,
    MultiStep,
    Schedule,
    Step,
    as_torch_scheduler,
)
from tests import cases, tolerances
from tests.cases import Case
from tests.helpers import gradients, host_decides, parameters, twin
from tests.schedule.scheduled import (
    BETA1,
    BETA2,
    DECAY,
    L1,
    LR,
    MOMENTUM,
    SHAPES,
    Options,
    at,
    numbers,
    scheduled,
    through_a_file,
)


def killed_and_resumed(make: Callable[[list[Any]], Any], at_step: int, steps: int) -> None:
    params = parameters(SHAPES)
    start = twin(params)
    optimizer = make(params)
    torch.manual_seed(7)
    every = [[torch.randn(p.shape) for p in params] for _ in range(steps)]

    def step(opt: Any, own: list[Any], t: int) -> None:
        for p, grad in zip(own, every[t], strict=True):
            p.grad = grad.clone()
        opt.step()

    for t in range(steps):
        step(optimizer, params, t)

    others = start
    other = make(others)
    for t in range(at_step):
        step(other, others, t)
    file = through_a_file({"model": [p.detach() for p in others], "opt": other.state_dict()})
    del other
    fresh = [torch.nn.Parameter(x) for x in file["model"]]
    resumed = make(fresh)
    resumed.load_state_dict(file["opt"])
    for t in range(at_step, steps):
        step(resumed, fresh, t)
    for p, q in zip(params, fresh, strict=True):
        tolerances.exact(p, q)
    keys = ("lr", "weight_decay", "betas", "momentum", "l1_decay", "schedules", "steps_applied")
    for a, b in zip(optimizer.param_groups, resumed.param_groups, strict=True):
        assert {k: a.get(k) for k in keys} == {k: b.get(k) for k in keys}


@pytest.mark.parametrize("at_step", range(8))
@cases.classes
def test_killed_at_every_step(case: Case, at_step: int) -> None:
    options = scheduled(case)
    killed_and_resumed(lambda params: case.ours(params, **options), at_step, 8)


@pytest.mark.parametrize("at_step", range(6))
@cases.classes
def test_killed_with_groups_of_their_own(case: Case, at_step: int) -> None:
    options = scheduled(case)

    def make(params: list[Any]) -> Any:
        groups = [
            {"params": params[:1], **options},
            {"params": params[1:2], "lr": WSD(0.1, 1, 2, 3)},
            {"params": params[2:]},
        ]
        return case.ours(groups, lr=0.02)

    killed_and_resumed(make, at_step, 6)


@cases.classes
def test_number_of_the_next_step_after_loading(case: Case) -> None:
    params = parameters(SHAPES)
    options = scheduled(case)
    optimizer = case.ours(params, **options)
    for _ in range(3):
        gradients(params)
        optimizer.step()
    other = case.ours(twin(params), **options)
    other.load_state_dict(through_a_file(optimizer.state_dict()))
    expected = {key: at(v, 3) for key, v in options.items()}
    assert numbers(other.param_groups[0], options) == expected
    assert other.report.steps_applied == 3


@cases.classes
def test_state_is_plain_data(case: Case) -> None:
    params = parameters(SHAPES)
    optimizer = case.ours(params, **scheduled(case))
    gradients(params)
    optimizer.step()

    def check(value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                assert type(key) in (str, int)
                check(item)
        elif isinstance(value, list | tuple):
            for item in value:
                check(item)
        else:
            assert type(value) in (torch.Tensor, int, float, bool, str, type(None)), value

    check(optimizer.state_dict())
    check(optimizer.defaults)


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
@cases.classes
def test_copies_go_on(case: Case, way: str) -> None:
    params = parameters(SHAPES)
    options = scheduled(case)
    optimizer = case.ours(params, **options)
    for _ in range(2):
        gradients(params)
        optimizer.step()
    other = copy.deepcopy(optimizer) if way == "deepcopy" else pickle.loads(pickle.dumps(optimizer))
    others = other.param_groups[0]["params"]
    for t in range(2, 5):
        expected = {key: at(v, t) for key, v in options.items()}
        assert numbers(other.param_groups[0], options) == expected
        gradients(params, others)
        optimizer.step()
        other.step()
        for p, q in zip(params, others, strict=True):
            tolerances.exact(p, q)


@cases.classes
def test_no_trace_without_schedules(case: Case) -> None:
    params = parameters(SHAPES)
    optimizer = case.ours(params)
    gradients(params)
    optimizer.step()
    assert list(optimizer.param_groups[0]) == list(case.torchs(params).param_groups[0])


# Other schedules in the checkpoint


def pair(case: Case, theirs: Options, own: Options) -> tuple[Any, dict[str, Any]]:
    """Return an optimizer with options `own`, and a checkpoint of 3 steps with options `theirs`."""
    params = parameters(SHAPES)
    source = case.ours(params, **theirs)
    for _ in range(3):
        gradients(params)
        source.step()
    return case.ours(twin(params), **own), through_a_file(source.state_dict())


OTHER: Schedule = Linear(0.5, 10)
MISMATCHES: list[tuple[str, Options, Options]] = [
    ("other", {"lr": OTHER}, {"lr": LR}),
    ("number-here", {"lr": OTHER}, {"lr": 0.3}),
    ("one-of-two", {"lr": LR, "weight_decay": OTHER}, {"lr": LR, "weight_decay": DECAY}),
]
mismatches = pytest.mark.parametrize(
    ("name", "theirs", "own"), MISMATCHES, ids=[name for name, _, _ in MISMATCHES]
)


@mismatches
@cases.classes
def test_mismatch_is_an_error(case: Case, name: str, theirs: Options, own: Options) -> None:
    del name
    optimizer, state = pair(case, theirs, own)
    before = copy.deepcopy(optimizer.state_dict()["param_groups"])
    field = next(key for key in theirs if theirs[key] != own[key])
    with pytest.raises(
        ValueError,
        match=rf"(?s){field} of parameter group 0.*Linear\(0\.5, 10.*on_schedule_mismatch",
    ):
        optimizer.load_state_dict(state)
    assert optimizer.state_dict()["param_groups"] == before
    assert not any("exp_avg" in s for s in optimizer.state.values())
    assert optimizer.report.steps_applied == 0


@mismatches
@cases.classes
def test_mismatch_keep(case: Case, name: str, theirs: Options, own: Options) -> None:
    del name
    optimizer, state = pair(case, theirs, own)
    optimizer.on_schedule_mismatch = "keep"
    optimizer.load_state_dict(state)
    for t in range(3, 6):
        assert numbers(optimizer.param_groups[0], own) == {k: at(v, t) for k, v in own.items()}
        gradients(optimizer.param_groups[0]["params"])
        optimizer.step()


@mismatches
@cases.classes
def test_mismatch_checkpoint(case: Case, name: str, theirs: Options, own: Options) -> None:
    del name
    optimizer, state = pair(case, theirs, own)
    optimizer.on_schedule_mismatch = "checkpoint"
    optimizer.load_state_dict(state)
    for t in range(3, 6):
        assert numbers(optimizer.param_groups[0], theirs) == {
            k: at(v, t) for k, v in theirs.items()
        }
        gradients(optimizer.param_groups[0]["params"])
        optimizer.step()


@pytest.mark.parametrize("policy", ["error", "keep", "checkpoint"])
@cases.classes
def test_same_schedule_is_no_mismatch(case: Case, policy: str) -> None:
    options = scheduled(case)
    optimizer, state = pair(case, options, options)
    optimizer.on_schedule_mismatch = policy
    optimizer.load_state_dict(state)
    expected = {key: at(v, 3) for key, v in options.items()}
    assert numbers(optimizer.param_groups[0], options) == expected


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("policy", ["keep", "checkpoint"])
def test_mismatch_of_one_beta(policy: str, index: int) -> None:
    theirs: list[Any] = [0.8, 0.98]
    theirs[index] = Linear(0.2, 6, final=0.7)
    optimizer, state = pair(
        cases.BY_ID["adam"], {"betas": tuple(theirs)}, {"betas": (BETA1, BETA2)}
    )
    with pytest.raises(ValueError, match=rf"betas\.{index}"):
        optimizer.load_state_dict(state)
    optimizer.on_schedule_mismatch = policy
    optimizer.load_state_dict(state)
    expected: list[Any] = [BETA1, BETA2]
    if policy == "checkpoint":
        expected[index] = theirs[index]
    for t in range(3, 6):
        assert optimizer.param_groups[0]["betas"] == at(tuple(expected), t)
        gradients(optimizer.param_groups[0]["params"])
        optimizer.step()


def test_unknown_policy_is_an_error() -> None:
    optimizer, state = pair(cases.BY_ID["adam"], {"lr": OTHER}, {"lr": LR})
    optimizer.on_schedule_mismatch = "ignore"
    with pytest.raises(ValueError, match=r"(?s)on_schedule_mismatch.*'keep'.*'ignore'"):
        optimizer.load_state_dict(state)


@pytest.mark.parametrize("policy", ["error", "keep", "checkpoint"])
@pytest.mark.parametrize("torchs", [False, True])
@cases.classes
def test_numbers_in_the_checkpoint_keep_the_schedule(case: Case, torchs: bool, policy: str) -> None:
    """Counted from the loaded steps, as far as the checkpoint tells: that of SGD does not."""
    params = parameters(SHAPES)
    source = case.torchs(params) if torchs else case.ours(params)
    for _ in range(3):
        gradients(params)
        source.step()
    options = scheduled(case)
    optimizer = case.ours(twin(params), **options)
    optimizer.on_schedule_mismatch = policy
    optimizer.load_state_dict(through_a_file(source.state_dict()))
    first = 0 if case.name == "SGD" else 3
    for t in range(first, first + 3):
        group = optimizer.param_groups[0]
        assert numbers(group, options) == {key: at(v, t) for key, v in options.items()}
        gradients(group["params"])
        optimizer.step()


@cases.classes
def test_checkpoint_of_a_run_with_a_torch_scheduler(case: Case) -> None:
    """It leaves "initial_lr" in the groups, which is no reason to refuse the schedule here."""
    params = parameters(SHAPES)
    source = case.torchs(params)
    scheduler = torch.optim.lr_scheduler.StepLR(source, 2)
    for _ in range(3):
        gradients(params)
        source.step()
        scheduler.step()
    optimizer = case.ours(twin(params), lr=LR)
    optimizer.load_state_dict(through_a_file(source.state_dict()))
    first = 0 if case.name == "SGD" else 3
    for t in range(first, first + 2):
        assert optimizer.param_groups[0]["lr"] == LR(t)
        gradients(optimizer.param_groups[0]["params"])
        optimizer.step()


@cases.classes
def test_schedules_survive_a_training_with_torch(case: Case) -> None:
    """Ours, torch's, ours again: the steps that torch has done count, where the states tell."""
    if case.name == "SGD":
        pytest.skip("torch's SGD counts no steps")
    params = parameters(SHAPES)
    optimizer = case.ours(params, lr=LR)
    torchs = case.torchs(params)
    back = case.ours(params, lr=LR)
    for opt, source in ((optimizer, None), (torchs, optimizer), (back, torchs)):
        if source is not None:
            opt.load_state_dict(through_a_file(source.state_dict()))
        for _ in range(2):
            if opt is not back:
                gradients(params)
                opt.step()
    assert back.param_groups[0]["lr"] == LR(4)
    assert back.report.steps_applied == 4


@cases.classes
def test_a_schedule_that_no_step_has_seen_is_plain_in_checkpoints(case: Case) -> None:
    """Also where a group waits, whose states a checkpoint shows."""
    (p, q) = parameters([(3,), (4,)])
    optimizer = case.ours([{"params": [p]}, {"params": [q], "train_from": 5}])
    gradients([p, q])
    optimizer.step()
    optimizer.param_groups[1]["lr"] = LR
    for saved in (optimizer.state_dict(), copy.deepcopy(optimizer).state_dict()):
        (_, group) = saved["param_groups"]
        assert group["lr"] == LR(1)
        assert group["schedules"] == {"lr": LR.to_dict()}
        assert group["steps_applied"] == 1


@pytest.mark.parametrize("lr", ["fast", None, -1.0])
def test_a_checkpoint_of_a_spoiled_group_that_waits(lr: Any) -> None:
    """The next step says what is wrong."""
    (p, q) = parameters([(3,), (4,)])
    optimizer = cases.BY_ID["adam"].ours([{"params": [p]}, {"params": [q], "train_from": 5}])
    gradients([p, q])
    optimizer.step()
    optimizer.param_groups[1]["lr"] = lr
    assert len(optimizer.state_dict()["state"]) == 2
    with pytest.raises((TypeError, ValueError), match="learning rate"):
        optimizer.step()
