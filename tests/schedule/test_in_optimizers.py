"""Schedules inside the optimizers: counted by applied steps."""

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

ONE_BY_ONE: list[tuple[str, Options]] = [
    ("lr", {"lr": LR}),
    ("weight_decay", {"weight_decay": DECAY}),
    ("l1_decay", {"l1_decay": L1}),
    ("l1_decay-subgradient", {"l1_decay": L1, "l1_mode": "subgradient"}),
    ("momentum", {"momentum": MOMENTUM}),
    ("beta1", {"betas": (BETA1, 0.99)}),
    ("beta2", {"betas": (0.9, BETA2)}),
    ("both-betas", {"betas": (BETA1, BETA2)}),
]


def knows(case: Case, options: Options) -> bool:
    return all(name in case.hyper or name.startswith("l1") for name in options) and not (
        "momentum" in options and case.hyper.get("nesterov") and not case.hyper["momentum"]
    )


@pytest.mark.parametrize("where", ["defaults", "group"])
@pytest.mark.parametrize(("name", "options"), ONE_BY_ONE, ids=[n for n, _ in ONE_BY_ONE])
@cases.rules
def test_as_the_same_numbers_by_hand(case: Case, name: str, options: Options, where: str) -> None:
    if not knows(case, options):
        pytest.skip(f"no {name}")
    a, b = parameters(SHAPES), parameters(SHAPES)
    for p, q in zip(a, b, strict=True):
        q.data.copy_(p.data)
    if where == "defaults":
        optimizer = case.ours(a, **options)
        other = case.ours(b, **{key: at(v, 0) for key, v in options.items()})
    else:
        optimizer = case.ours([{"params": a[:1]}, {"params": a[1:], **options}])
        other = case.ours(
            [{"params": b[:1]}, {"params": b[1:], **{k: at(v, 0) for k, v in options.items()}}]
        )
    for t in range(7):
        other.param_groups[-1].update({key: at(v, t) for key, v in options.items()})
        assert numbers(optimizer.param_groups[-1], options) == numbers(
            other.param_groups[-1], options
        )
        gradients(a, b)
        optimizer.step()
        other.step()
        for p, q in zip(a, b, strict=True):
            tolerances.exact(p, q)
    if where == "group":
        assert "schedules" not in optimizer.param_groups[0]


@cases.classes
def test_all_at_once(case: Case) -> None:
    options = scheduled(case)
    a = parameters(SHAPES)
    b = twin(a)
    optimizer = case.ours(a, **options)
    other = case.ours(b, **{key: at(v, 0) for key, v in options.items()})
    for t in range(8):
        for group in (optimizer.param_groups[0],):
            assert numbers(group, options) == {key: at(v, t) for key, v in options.items()}
        other.param_groups[0].update({key: at(v, t) for key, v in options.items()})
        gradients(a, b)
        optimizer.step()
        other.step()
        for p, q in zip(a, b, strict=True):
            tolerances.exact(p, q)
        assert optimizer.report.steps_applied == t + 1


ZERO_AT_FIRST: Schedule = Linear(0.0, 4, final=0.4)


@pytest.mark.parametrize("field", ["lr", "weight_decay", "l1_decay", "momentum", "betas"])
@pytest.mark.parametrize("where", ["defaults", "group"])
@cases.classes
def test_schedule_that_starts_at_zero(case: Case, field: str, where: str) -> None:
    """Its first number is also the default of some options."""
    if field not in case.hyper and field != "l1_decay":
        pytest.skip(f"no {field}")
    value: Any = (ZERO_AT_FIRST, 0.9) if field == "betas" else ZERO_AT_FIRST
    a = parameters(SHAPES)
    b = twin(a)
    first = at(value, 0)
    if where == "defaults":
        optimizer, other = case.ours(a, **{field: value}), case.ours(b, **{field: first})
    else:
        optimizer = case.ours([{"params": a, field: value}])
        other = case.ours([{"params": b, field: first}])
    for t in range(6):
        assert optimizer.param_groups[0][field] == at(value, t)
        other.param_groups[0][field] = at(value, t)
        gradients(a, b)
        optimizer.step()
        other.step()
        for p, q in zip(a, b, strict=True):
            tolerances.exact(p, q)


@pytest.mark.parametrize("field", ["lr", "weight_decay", "l1_decay", "momentum", "betas"])
@cases.classes
def test_put_into_a_group_during_training(case: Case, field: str) -> None:
    """Groups are read at every step; a schedule that has come since counts from the steps applied."""
    if field not in case.hyper and field != "l1_decay":
        pytest.skip(f"no {field}")
    value: Any = (BETA1, 0.99) if field == "betas" else Linear(0.4, 8)
    a = parameters(SHAPES)
    b = twin(a)
    optimizer, other = case.ours(a), case.ours(b)
    for t in range(5):
        if t == 2:
            optimizer.param_groups[0][field] = value
        if t >= 2:
            other.param_groups[0][field] = at(value, t)
        gradients(a, b)
        optimizer.step()
        other.step()
        for p, q in zip(a, b, strict=True):
            tolerances.exact(p, q)
        if t >= 2:
            assert optimizer.param_groups[0][field] == at(value, t + 1)


# Groups


@cases.classes
def test_groups_override_the_defaults(case: Case) -> None:
    a, b, c = parameters(SHAPES)
    other: Schedule = Exponential(0.1, 0.5)
    optimizer = case.ours(
        [{"params": [a]}, {"params": [b], "lr": 0.3}, {"params": [c], "lr": other}], lr=LR
    )
    for t in range(4):
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == [LR(t), 0.3, other(t)]
        gradients([a, b, c])
        optimizer.step()


@cases.classes
def test_late_group_joins_at_the_current_step(case: Case) -> None:
    a, b, c = parameters(SHAPES)
    options = scheduled(case)
    optimizer = case.ours([a], **options)
    for _ in range(3):
        gradients([a])
        optimizer.step()
    own: Schedule = Linear(1.0, 10)
    optimizer.add_param_group({"params": [b]})
    optimizer.add_param_group({"params": [c], "lr": own})
    for t in range(3, 6):
        for group in optimizer.param_groups[:2]:
            assert numbers(group, options) == {key: at(v, t) for key, v in options.items()}
        assert optimizer.param_groups[2]["lr"] == own(t)
        gradients([a, b, c])
        optimizer.step()


@cases.classes
def test_the_callers_group_may_be_used_twice(case: Case) -> None:
    p, q = parameters([(3,), (4,)])
    options = {"lr": LR}
    first = case.ours([{"params": [p], **options}])
    gradients([p])
    first.step()
    second = case.ours([{"params": [q], **options}])
    assert first.param_groups[0]["lr"] == LR(1)
    assert second.param_groups[0]["lr"] == LR(0)


@cases.classes
def test_exchanged_groups(case: Case) -> None:
    """Clients put other dicts, with the same content, into the place of the groups."""
    params = parameters(SHAPES)
    optimizer = case.ours(params, lr=LR)
    for t in range(4):
        assert optimizer.param_groups[0]["lr"] == LR(t)
        optimizer.param_groups = [dict(group) for group in optimizer.param_groups]
        if t == 2:
            optimizer.param_groups = copy.deepcopy(optimizer.param_groups)
            optimizer.param_groups[0]["params"] = params
        gradients(params)
        optimizer.step()


def test_number_written_by_hand_is_used_once() -> None:
    """As with a torch scheduler: the next step sees it, the schedule goes on after it."""
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = onepass.SGD([p], lr=LR)
    p.grad = torch.ones(3)
    optimizer.param_groups[0]["lr"] = 0.25
    optimizer.step()
    assert p.tolist() == [0.75] * 3
    assert optimizer.param_groups[0]["lr"] == LR(1)


# Steps that do not count

SKIPS: dict[str, Options] = {
    "skip_nonfinite": {"skip_nonfinite": True},
    "fused": {"fused": True},
    "max_grad_norm": {"max_grad_norm": 1.0},
    "scaler": {},
}


@host_decides
@pytest.mark.parametrize("how", list(SKIPS))
@cases.classes
def test_skipped_steps_do_not_advance(case: Case, how: str) -> None:
    params = parameters(SHAPES)
    options = scheduled(case)
    optimizer = case.ours(params, **options, **SKIPS[how])
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, enabled=how != "skip_nonfinite")
    scaler.scale(torch.zeros(1))
    t = 0
    for bad in (True, False, True, True, False, False):
        gradients(params)
        if bad:
            params[1].grad[3] = float("inf")  # type: ignore[index]
        scaler.step(optimizer)
        scaler.update()
        t += not bad
        group = optimizer.param_groups[0]
        assert numbers(group, options) == {key: at(v, t) for key, v in options.items()}
        assert optimizer.report.steps_applied == t


@cases.classes
def test_a_step_that_raises_does_not_advance(case: Case) -> None:
    p, q = parameters([(4,), (5,)])
    optimizer = case.ours([p, q], lr=LR)
    gradients([p, q])
    optimizer.step()
    values = q.data
    q.data = torch.zeros(6)
    with pytest.raises(RuntimeError, match="parameter 1 of group 0"):
        optimizer.step()
    assert optimizer.param_groups[0]["lr"] == LR(1)
    q.data = values
    optimizer.step()
    assert optimizer.param_groups[0]["lr"] == LR(2)


@cases.classes
def test_step_without_gradients_counts(case: Case) -> None:
    """It was applied, to no parameter."""
    params = parameters(SHAPES)
    optimizer = case.ours(params, lr=LR)
    optimizer.step()
    assert optimizer.param_groups[0]["lr"] == LR(1)


@cases.classes
def test_groups_that_fall_back_follow_the_schedule(case: Case) -> None:
    results = []
    start = torch.randn(5, dtype=torch.complex64)
    for ours in (True, False):
        torch.manual_seed(3)
        c = torch.nn.Parameter(start.clone())
        optimizer = case.ours([c], lr=LR) if ours else case.torchs([c], lr=LR(0))
        for t in range(5):
            assert optimizer.param_groups[0]["lr"] == LR(t)
            c.grad = torch.randn(5, dtype=torch.complex64)
            optimizer.step()
            if not ours:
                optimizer.param_groups[0]["lr"] = LR(t + 1)
        results.append(c.detach())
    torch.testing.assert_close(*results)


# torch's schedulers


@pytest.mark.parametrize("where", ["defaults", "group"])
@cases.classes
def test_torch_scheduler_and_schedule_is_an_error(case: Case, where: str) -> None:
    params = parameters(SHAPES)
    groups = [{"params": params[:1]}, {"params": params[1:]}]
    if where == "group":
        groups[1]["lr"] = LR
    optimizer = case.ours(groups, lr=LR if where == "defaults" else 0.1)
    gradients(params)
    before = [p.detach().clone() for p in params]

    def use() -> None:
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
        optimizer.step()
        scheduler.step()

    with pytest.raises(RuntimeError, match=r"(?s)lr of parameter group \d.*schedule.*LRScheduler"):
        use()
    for p, old in zip(params, before, strict=True):
        tolerances.exact(p, old)


@cases.classes
def test_as_torch_scheduler_and_schedule_is_an_error(case: Case) -> None:
    params = parameters(SHAPES)
    optimizer = case.ours(params, lr=LR)
    gradients(params)

    def use() -> None:
        scheduler = as_torch_scheduler(optimizer, LR)
        optimizer.step()
        scheduler.step()

    with pytest.raises(RuntimeError, match=r"(?s)lr of parameter group 0.*schedule.*LRScheduler"):
        use()


@cases.classes
def test_torch_scheduler_with_a_number(case: Case) -> None:
    ours = parameters(SHAPES)
    theirs = twin(ours)
    optimizer, torchs = case.ours(ours), case.torchs(theirs)
    schedulers = [torch.optim.lr_scheduler.StepLR(o, 2, gamma=0.3) for o in (optimizer, torchs)]
    for _ in range(5):
        gradients(ours, theirs)
        for opt, scheduler in zip((optimizer, torchs), schedulers, strict=True):
            opt.step()
            scheduler.step()
        assert optimizer.param_groups[0]["lr"] == torchs.param_groups[0]["lr"]
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, **tolerances.accumulated(5))


@cases.classes
def test_torch_scheduler_beside_another_schedule(case: Case) -> None:
    """Only lr is torch's."""
    params = parameters(SHAPES)
    optimizer = case.ours(params, lr=0.1, weight_decay=DECAY)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)
    for t in range(5):
        group = optimizer.param_groups[0]
        assert group["lr"] == pytest.approx(0.1 * 0.5 ** (t // 2))
        assert group["weight_decay"] == DECAY(t)
        gradients(params)
        optimizer.step()
        scheduler.step()


@cases.classes
def test_as_torch_scheduler(case: Case) -> None:
    """The closed form for loops that insist on a scheduler: the numbers of the schedule, by their own count."""
    ours = parameters(SHAPES)
    theirs = twin(ours)
    optimizer, other = case.ours(ours, lr=LR), case.ours(theirs, lr=0.1)
    scheduler = as_torch_scheduler(other, LR)
    for t in range(5):
        assert other.param_groups[0]["lr"] == pytest.approx(LR(t), rel=1e-15)
        gradients(ours, theirs)
        optimizer.step()
        other.step()
        scheduler.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, **tolerances.accumulated(5))


# Bad input


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Adam", {"betas": (Constant(1.0), 0.9)}),
        ("Adam", {"betas": (0.9, Linear(1.5, 4))}),
        ("Adam", {"eps": Constant(1e-8)}),
        ("RMSprop", {"alpha": Constant(0.9)}),
        ("Adagrad", {"lr_decay": Constant(0.1)}),
        ("SGD", {"max_grad_value": Constant(1.0)}),
        ("SGD", {"anchor_decay": Constant(0.9)}),
    ],
    ids=str,
)
def test_schedules_where_they_do_not_belong(name: str, options: Options) -> None:
    """Refused when the optimizer is made, not in the middle of the training."""
    with pytest.raises((TypeError, ValueError)):
        getattr(onepass, name)(parameters([(3,)]), lr=0.1, **options)


@pytest.mark.parametrize("index", [0, 1])
def test_beta_that_reaches_one_is_refused(index: int) -> None:
    """The correction of the bias divides by 1 - beta^t; at the latest the step says so, before it writes anything."""
    betas: list[Any] = [0.9, 0.99]
    betas[index] = Linear(0.5, 3, final=1.0)
    (p,) = parameters([(5,)])

    def train() -> None:
        optimizer = onepass.Adam([p], betas=tuple(betas))
        for _ in range(6):
            gradients([p])
            optimizer.step()

    with pytest.raises(ValueError, match=r"(?s)beta.*1\.0"):
        train()
    assert bool(p.isfinite().all())


# Schedules of ema_decay and max_grad_norm


@pytest.mark.parametrize("name", ["ema_decay", "max_grad_norm"])
@pytest.mark.parametrize("where", ["constructor", "group", "later"])
@cases.classes
def test_schedules_of_options(case: Case, where: str, name: str) -> None:
    """Step for step what the same number, written into the groups by hand, gives."""
    s = Linear(0.5, 8, final=0.9)
    ours = parameters(SHAPES)
    theirs = twin(ours)
    options: Any = {name: s} if where == "constructor" else {}
    optimizer = case.ours([{"params": ours[:1]}, {"params": ours[1:]}], **options)
    reference = case.ours([{"params": theirs[:1]}, {"params": theirs[1:]}])
    if where == "group":
        groups: Any = [{"params": ours[:1], name: s}, {"params": ours[1:], name: s}]
        optimizer = case.ours(groups, **({name: s} if name == "max_grad_norm" else {}))
    if where == "later":
        for group in optimizer.param_groups:
            group[name] = s
    for t in range(10):
        for group in reference.param_groups:
            group[name] = s(t)
        gradients(ours, theirs)
        optimizer.step()
        reference.step()
        assert [g[name] for g in optimizer.param_groups] == [s(t + 1)] * 2
        if t == 4:
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for p, q in zip(ours, theirs, strict=True):
        tolerances.exact(p, q)
        if name == "ema_decay":
            tolerances.exact(optimizer.state[p]["ema"], reference.state[q]["ema"])
    assert optimizer.report.grad_norm == reference.report.grad_norm


def test_a_group_that_comes_late_joins_a_scheduled_norm() -> None:
    params = parameters(SHAPES)
    optimizer = onepass.SGD(params[:1], lr=0.1, max_grad_norm=Linear(1.0, 4, final=0.5))
    for _ in range(2):
        gradients(params)
        optimizer.step()
    optimizer.add_param_group({"params": params[1:]})
    assert [g["max_grad_norm"] for g in optimizer.param_groups] == [0.75, 0.75]
    with pytest.raises(ValueError, match="max_grad_norm belongs to the whole optimizer"):
        optimizer.add_param_group({"params": parameters([(2,)]), "max_grad_norm": 3.0})
    gradients(params)
    optimizer.step()
    assert optimizer.report.clip_coefficient is not None


# Live torch schedulers


@cases.classes
def test_a_scheduler_that_is_gone_is_none(case: Case) -> None:
    params = parameters(SHAPES)
    optimizer = case.ours(params, lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5)
    for _ in range(5):
        gradients(params)
        optimizer.step()
        scheduler.step()
    del scheduler
    optimizer.param_groups[0]["lr"] = Constant(0.01)
    for _ in range(3):
        gradients(params)
        optimizer.step()
    assert optimizer.param_groups[0]["lr"] == 0.01


@pytest.mark.parametrize("keeps", ["cycle", "nothing"])
def test_only_what_is_reachable_counts(keeps: str) -> None:
    params = parameters(SHAPES)
    optimizer = onepass.SGD(params, lr=LR)
    scheduler: Any = torch.optim.lr_scheduler.StepLR(optimizer, 5)
    if keeps == "cycle":
        scheduler.itself = scheduler
    del scheduler
    gradients(params)
    optimizer.step()


@pytest.mark.parametrize(
    "make",
    [
        lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, factor=0.5, patience=0),
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda t: 1 / (t + 1)),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 1.0, 10),
        lambda o: torch.optim.lr_scheduler.SequentialLR(
            o,
            [torch.optim.lr_scheduler.ConstantLR(o), torch.optim.lr_scheduler.StepLR(o, 2)],
            milestones=[2],
        ),
        lambda o: as_torch_scheduler(o, Constant(0.3)),
    ],
    ids=["plateau", "lambda", "one-cycle", "sequential", "ours"],
)
@pytest.mark.parametrize("steps", [0, 3])
def test_live_schedulers_are_refused_where_they_write(make: Any, steps: int) -> None:
    params = parameters(SHAPES)
    optimizer = onepass.SGD(params, lr=LR)
    for _ in range(steps):
        gradients(params)
        optimizer.step()
    scheduler = make(optimizer)
    plateau = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
    if plateau:
        scheduler.step(1.0)
        scheduler.step(1.0)
    gradients(params)
    before = [p.detach().clone() for p in params]
    for _ in range(2):  # again and again
        with pytest.raises(
            RuntimeError, match=r"lr of parameter group 0 is a schedule.*LRScheduler"
        ):
            optimizer.step()
    for p, old in zip(params, before, strict=True):
        tolerances.exact(p, old)
    del scheduler
    optimizer.step()


def test_a_rate_that_the_user_writes_is_used_once() -> None:
    """`torch.distributed.checkpoint` writes 0, and what was there before."""
    params = parameters(SHAPES)
    optimizer = onepass.SGD(params, lr=Constant(0.5))
    for rate in (0.0, 0.25, 0.125, 0.5, 0.0):
        before = [p.detach().clone() for p in params]
        gradients(params)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        assert optimizer.param_groups[0]["lr"] == 0.5
        for p, old in zip(params, before, strict=True):
            assert isinstance(p.grad, torch.Tensor)
            torch.testing.assert_close(p, old - rate * p.grad)


def test_schedules_that_are_edited_in_place() -> None:
    params = parameters(SHAPES)
    optimizer = onepass.SGD(params, lr=Constant(0.5))
    gradients(params)
    optimizer.step()
    optimizer.param_groups[0]["schedules"]["lr"]["v"] = 0.25
    optimizer.step()
    assert optimizer.param_groups[0]["lr"] == copy.deepcopy(optimizer).param_groups[0]["lr"] == 0.25
