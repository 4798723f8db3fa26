"""The adapter to torch's LRScheduler: factors, late groups, tensor rates, resuming."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import ChainedScheduler, ConstantLR, LRScheduler

from onepass.schedule import Constant, Cosine, Linear, Schedule, as_torch_scheduler

S = Cosine(0.5, 20, final=0.01).warmup(3)


def parameter() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.ones(2))


def optimizer(*groups: dict[str, Any], lr: float | torch.Tensor = 0.1) -> torch.optim.Adam:
    return torch.optim.Adam([{"params": [parameter()], **group} for group in groups or [{}]], lr=lr)


def rates(opt: torch.optim.Optimizer) -> list[float]:
    return [float(group["lr"]) for group in opt.param_groups]


def advance(opt: torch.optim.Optimizer, scheduler: LRScheduler, n: int) -> None:
    for _ in range(n):
        opt.step()
        scheduler.step()


@pytest.mark.parametrize(
    ("groups", "factors"),
    [
        ([{}], [1.0]),
        ([{"lr": 3.0}], [1.0]),
        ([{}, {}], [1.0, 1.0]),
        ([{"lr": 1e-3}, {"lr": 1e-2}], [0.1, 1.0]),
        ([{"lr": 0.2}, {}], [1.0, 0.5]),
        ([{"lr": 0.0}, {"lr": 0.0}], [1.0, 1.0]),
        ([{"lr": 0.0}, {}], [0.0, 1.0]),
        ([{"lr_factor": 0.25}, {}, {"lr": 0.7}], [0.25, 1.0, 1.0]),
        ([{"lr_factor": 3}, {"lr_factor": 0}], [3.0, 0.0]),
    ],
)
def test_each_group_keeps_its_factor(groups: list[dict[str, Any]], factors: list[float]) -> None:
    opt = optimizer(*groups)
    scheduler = as_torch_scheduler(opt, S)
    assert isinstance(scheduler, LRScheduler)
    for t in range(30):
        assert rates(opt) == pytest.approx([S(t) * f for f in factors], rel=1e-15)
        assert scheduler.get_last_lr() == rates(opt)
        advance(opt, scheduler, 1)


def test_one_group_gets_the_schedule_exactly() -> None:
    opt = optimizer()
    scheduler = as_torch_scheduler(opt, S)
    for t in range(30):
        assert rates(opt) == [S(t)]
        advance(opt, scheduler, 1)


def test_a_changed_lr_factor_counts_at_the_next_step() -> None:
    opt = optimizer({"lr_factor": 1.0}, {})
    scheduler = as_torch_scheduler(opt, Constant(0.5))
    opt.param_groups[0]["lr_factor"] = 0.5
    advance(opt, scheduler, 1)
    assert rates(opt) == [0.25, 0.5]


@pytest.mark.parametrize(
    ("first", "late", "factor"),
    [
        ({}, {}, 1.0),
        ({}, {"lr": 0.01}, 0.1),
        ({"lr": 0.05}, {"lr": 0.2}, 4.0),
        ({}, {"lr_factor": 0.3}, 0.3),
        ({"lr_factor": 1.0}, {"lr": 0.7}, 1.0),
        ({"lr": 0.0}, {"lr": 0.7}, 1.0),
    ],
)
@pytest.mark.parametrize("tensor", [False, True])
def test_late_group(
    first: dict[str, Any], late: dict[str, Any], factor: float, *, tensor: bool
) -> None:
    opt = optimizer(first, lr=torch.tensor(0.1, dtype=torch.float64) if tensor else 0.1)
    scheduler = as_torch_scheduler(opt, S)
    advance(opt, scheduler, 5)
    for _ in range(2):
        opt.add_param_group({"params": [parameter()], **late})
        assert rates(opt)[-1] == late.get("lr", 0.1)  # as given, until the next step
        advance(opt, scheduler, 1)
        t = scheduler.last_epoch
        assert rates(opt)[1:] == pytest.approx([S(t) * factor] * (t - 5), rel=1e-15)
    assert rates(opt)[0] == S(7)


def test_tensor_rate_is_filled_in_place() -> None:
    lr = torch.tensor(0.1, dtype=torch.float64)
    opt = optimizer(lr=lr)
    scheduler = as_torch_scheduler(opt, S)
    for t in range(25):
        assert opt.param_groups[0]["lr"] is lr
        assert lr.item() == S(t)
        advance(opt, scheduler, 1)
    scheduler.load_state_dict(scheduler.state_dict() | {"last_epoch": 3})
    assert opt.param_groups[0]["lr"] is lr
    assert lr.item() == S(3)


def test_groups_that_share_a_tensor_get_their_own_rates() -> None:
    lr = torch.tensor(0.1, dtype=torch.float64)
    opt = optimizer({"lr_factor": 0.5}, {"lr_factor": 0.25}, {}, lr=lr)
    scheduler = as_torch_scheduler(opt, Constant(1.0))
    assert rates(opt) == [0.5, 0.25, 1.0]
    advance(opt, scheduler, 1)
    assert rates(opt) == [0.5, 0.25, 1.0]
    assert opt.defaults["lr"].item() == 0.1


def test_a_second_phase_keeps_the_ratios_after_a_decay_to_zero() -> None:
    opt = optimizer({"lr": 0.01}, {"lr": 0.1})
    advance(opt, as_torch_scheduler(opt, Linear(0.1, 3)), 3)
    assert rates(opt) == [0.0, 0.0]
    as_torch_scheduler(opt, Constant(1.0))
    assert rates(opt) == pytest.approx([0.1, 1.0], rel=1e-15)


def saved(thing: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(thing.state_dict(), buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


Load = Callable[[torch.optim.Optimizer, Any, Any], LRScheduler]


def scheduler_last(opt: torch.optim.Optimizer, o: Any, s: Any) -> LRScheduler:
    scheduler = as_torch_scheduler(opt, S)
    opt.load_state_dict(o)
    scheduler.load_state_dict(s)
    return scheduler


def optimizer_last(opt: torch.optim.Optimizer, o: Any, s: Any) -> LRScheduler:
    scheduler = as_torch_scheduler(opt, S)
    scheduler.load_state_dict(s)
    opt.load_state_dict(o)
    return scheduler


def optimizer_before_construction(opt: torch.optim.Optimizer, o: Any, s: Any) -> LRScheduler:
    opt.load_state_dict(o)
    scheduler = as_torch_scheduler(opt, S)
    scheduler.load_state_dict(s)
    return scheduler


def scheduler_only(opt: torch.optim.Optimizer, _: Any, s: Any) -> LRScheduler:
    scheduler = as_torch_scheduler(opt, S)
    scheduler.load_state_dict(s)
    return scheduler


@pytest.mark.parametrize(
    "load", [scheduler_last, optimizer_last, optimizer_before_construction, scheduler_only]
)
@pytest.mark.parametrize("tensor", [False, True])
def test_resume_at_every_step(load: Load, *, tensor: bool) -> None:
    def fresh() -> torch.optim.Adam:
        small: Any = torch.tensor(0.03) if tensor else 0.03
        return optimizer({"lr": small}, {}, lr=torch.tensor(0.1) if tensor else 0.1)

    opt = fresh()
    scheduler = as_torch_scheduler(opt, S)
    history = [rates(opt)]
    states = [(saved(opt), saved(scheduler))]
    for _ in range(25):
        advance(opt, scheduler, 1)
        history.append(rates(opt))
        states.append((saved(opt), saved(scheduler)))
    for t in range(0, 26, 3):
        again = fresh()
        resumed = load(again, *states[t])
        assert resumed.state_dict() == states[t][1]
        seen = [rates(again)]
        for _ in range(25 - t):
            advance(again, resumed, 1)
            seen.append(rates(again))
        assert seen == history[t:]


def test_resume_with_a_late_group() -> None:
    opt = optimizer()
    scheduler = as_torch_scheduler(opt, S)
    advance(opt, scheduler, 4)
    opt.add_param_group({"params": [parameter()], "lr": 0.02})
    advance(opt, scheduler, 4)
    state = saved(scheduler)

    again = optimizer({"lr": 0.7}, {})  # the state's factors count, not these
    resumed = as_torch_scheduler(again, S)
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    assert rates(again) == rates(opt)
    advance(opt, scheduler, 1)
    advance(again, resumed, 1)
    assert rates(again) == rates(opt)


def test_state_is_plain() -> None:
    scheduler = as_torch_scheduler(optimizer(lr=torch.tensor(0.1)), S)

    def plain(x: Any) -> bool:
        if isinstance(x, dict):
            return all(isinstance(k, str) and plain(v) for k, v in x.items())
        if isinstance(x, list):
            return all(plain(v) for v in x)
        return type(x) in (int, float, str, bool)

    assert plain(scheduler.state_dict())


def test_another_schedule_in_the_state_is_an_error() -> None:
    opt = optimizer()
    state = as_torch_scheduler(optimizer(), Linear(0.1, 10)).state_dict() | {"last_epoch": 4}
    scheduler = as_torch_scheduler(opt, Linear(0.1, 20))
    before = copy.deepcopy(scheduler.state_dict())
    with pytest.raises(ValueError, match=r"'steps': 10.*'steps': 20.*delete"):
        scheduler.load_state_dict(state)
    assert scheduler.state_dict() == before
    assert rates(opt) == [0.1]
    del state["schedule"]
    scheduler.load_state_dict(state)
    assert rates(opt) == [Linear(0.1, 20)(4)]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"last_epoch": -1}, ValueError, "last_epoch must be an integer"),
        ({"last_epoch": 1.5}, TypeError, "last_epoch must be an integer"),
        ({"lr_factors": [float("nan")]}, ValueError, "lr_factors must be a finite number"),
        ({"reference_lr": None}, TypeError, "reference_lr must be a finite number"),
    ],
)
def test_bad_state(change: dict[str, Any], error: type[Exception], message: str) -> None:
    scheduler = as_torch_scheduler(optimizer(), S)
    before = scheduler.state_dict()
    with pytest.raises(error, match=message):
        scheduler.load_state_dict(before | change)
    assert scheduler.state_dict() == before


def test_state_of_another_class() -> None:
    scheduler = as_torch_scheduler(optimizer(), S)
    with pytest.raises(ValueError, match="not the state of a ScheduleLR: missing"):
        scheduler.load_state_dict(ConstantLR(optimizer()).state_dict())


def test_bad_arguments() -> None:
    wrong: Any = 0.1
    with pytest.raises(TypeError, match=r"s must be a schedule, got 0\.1"):
        as_torch_scheduler(optimizer(), wrong)
    with pytest.raises(TypeError, match=r"opt must be a torch\.optim\.Optimizer, got float"):
        as_torch_scheduler(wrong, S)
    with pytest.raises(ValueError, match=r"lr_factor of group 0 must be .* >= 0, got -1"):
        as_torch_scheduler(optimizer({"lr_factor": -1}), S)


def test_works_inside_chained_scheduler() -> None:
    opt = optimizer()
    chain = ChainedScheduler([as_torch_scheduler(opt, S)], optimizer=opt)
    for t in range(5):
        assert rates(opt) == [S(t)]
        opt.step()
        chain.step()


def test_deepcopy_goes_on_alone() -> None:
    opt = optimizer()
    scheduler = as_torch_scheduler(opt, S)
    advance(opt, scheduler, 1)
    other = copy.deepcopy(scheduler)
    advance(other.optimizer, other, 2)
    assert rates(other.optimizer) == [S(3)]
    assert rates(opt) == [S(1)]


def test_schedule_type_is_public() -> None:
    assert isinstance(as_torch_scheduler(optimizer(), S).schedule, Schedule)
