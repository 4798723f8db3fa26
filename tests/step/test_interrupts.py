"""Whatever comes between, a step has been applied and counted, or neither."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

import onepass
from onepass import _core, schedule
from onepass.device import extension
from onepass.step import slow_path
from tests import cases
from tests.cases import Case
from tests.helpers import EMULATED, gradients, parameters, twin
from tests.step.helpers import assert_alike, picture

pytestmark = pytest.mark.skipif(EMULATED, reason="the core's calls are interrupted")

SHAPES = [(5, 7), (70,), (33,)]
PACKAGE = str(Path(onepass.__file__).parent)

MADE: dict[str, Callable[[list[Any]], Any]] = {
    "sgd": lambda params: onepass.SGD(
        params, lr=schedule.Linear(0.5, 8), momentum=0.9, dampening=0.5, ema_decay=0.5
    ),
    "adamw": lambda params: onepass.AdamW(params, lr=schedule.Linear(0.5, 8)),
    "adam": lambda params: onepass.Adam(params, lr=0.1),
    "rmsprop": lambda params: onepass.RMSprop(params, lr=0.1, max_grad_norm=0.5),
    "adagrad": lambda params: onepass.Adagrad(params, lr=0.1, skip_nonfinite=True),
    "8bit": lambda params: onepass.AdamW(params, lr=0.1, state_dtype="8bit"),
}


class Interrupt:
    """Raises KeyboardInterrupt before a line of the package, as Ctrl-C may: the line with this number of the step."""

    def __init__(self, line: int) -> None:
        self.line, self.seen, self.raised = line, 0, False

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line" and not self.raised:
            self.seen += 1
            if self.seen == self.line:
                self.raised = True
                raise KeyboardInterrupt
        return self


def interrupted(optimizer: Any, line: int) -> bool:
    """Do a step that is interrupted at a line of it; return whether it has so many."""
    interrupt = Interrupt(line)
    before = sys.gettrace()
    sys.settrace(interrupt)
    try:
        optimizer.step()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return interrupt.raised


@pytest.mark.parametrize("steps", [0, 1, 4])
@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_any_line(make: Callable[[list[Any]], Any], steps: int) -> None:
    """Of a step that makes states, of one in full, of one that is repeated: and then it goes on as if nothing was."""
    start = parameters(SHAPES)
    gradients(start)
    plain = make(twin(start))
    pictures = []
    for _ in range(steps + 3):
        plain.step()
        pictures.append(picture(plain))
    line, applied_at = 0, []
    while True:
        line += 1
        optimizer = make(twin(start))
        for _ in range(steps):
            optimizer.step()
        if not interrupted(optimizer, line):
            break
        applied = optimizer.steps_applied
        assert applied in (steps, steps + 1), line
        applied_at.append(applied)
        if applied:
            group = optimizer.state_dict()["param_groups"][0]
            assert group["lr"] == plain_lr(make, start, applied), line
            found, want = picture(optimizer), pictures[applied - 1]
            assert_alike({**found, "report": 0}, {**want, "report": 0})
        else:
            assert all(torch.equal(p, q) for p, q in zip(params_of(optimizer), start, strict=True))
            assert optimizer.report.applied is False
        while optimizer.steps_applied < steps + 3:
            optimizer.step()
        assert_alike(picture(optimizer), pictures[-1])
    assert steps in applied_at
    assert steps + 1 in applied_at
    assert applied_at == sorted(applied_at)


def params_of(optimizer: Any) -> list[Any]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def plain_lr(make: Callable[[list[Any]], Any], start: list[Any], steps: int) -> float:
    optimizer = make(twin(start))
    for _ in range(steps):
        optimizer.step()
    lr: float = optimizer.param_groups[0]["lr"]
    return lr


@pytest.mark.parametrize("call", ["step", "repeat"])
@pytest.mark.parametrize("next_is", ["report", "state_dict", "step"])
@pytest.mark.parametrize("device_was_seen", [False, True])
def test_what_follows_is_made_up_for(
    call: str, next_is: str, device_was_seen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal comes as soon as the core has applied the step."""
    monkeypatch.setattr(extension, "seen", device_was_seen)
    params = parameters(SHAPES)
    moving = schedule.Linear(0.5, 10)
    optimizer = onepass.AdamW(params, lr=moving, max_grad_norm=0.5)
    gradients(params)
    for _ in range(4):
        optimizer.step()
    if call == "step":
        optimizer._stepper.remembers = False
    real = getattr(_core, call)

    def interrupted_after(*arguments: Any) -> Any:
        real(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(_core, call, interrupted_after)
        with pytest.raises(KeyboardInterrupt):
            optimizer.step()
    assert optimizer.steps_applied == 5
    if next_is == "report":
        assert optimizer.report.applied
        assert optimizer.report.grad_norm is not None
        assert optimizer.report.steps_applied == 5
    elif next_is == "state_dict":
        assert optimizer.state_dict()["param_groups"][0]["lr"] == moving(5)
    else:
        optimizer.step()
        assert optimizer.report.steps_applied == 6
        assert optimizer.param_groups[0]["lr"] == moving(6)


@pytest.mark.parametrize("call", ["step", "repeat"])
def test_an_interrupted_skip_is_counted(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    params = parameters(SHAPES)
    optimizer = onepass.AdamW(params, skip_nonfinite=True)
    gradients(params)
    for _ in range(4):
        optimizer.step()
    if call == "step":
        optimizer._stepper.remembers = False
    params[0].grad[0] = torch.nan  # type: ignore[index]
    real = getattr(_core, call)

    def interrupted_after(*arguments: Any) -> Any:
        real(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(_core, call, interrupted_after)
        with pytest.raises(KeyboardInterrupt):
            optimizer.step()
    report = optimizer.report
    assert (report.applied, report.steps_applied, report.steps_skipped) == (False, 4, 1)
    assert repr(optimizer.report) == repr(
        report
    )  # a norm of NaN equals itself nowhere but in print


@cases.rules
def test_states_of_a_step_that_failed_are_taken_out(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first step stays one: of the momentum, of the average."""
    params = parameters(SHAPES)
    optimizer = case.ours(params, ema_decay=0.5)
    gradients(params)
    before = copy.deepcopy(dict(enumerate(optimizer.state[p] for p in params)))
    optimizer.state.clear()
    if case.name == "Adagrad":
        optimizer.state.update({p: copy.deepcopy(before[i]) for i, p in enumerate(params)})
    known = picture(optimizer)
    real = _core.step

    def failing(*arguments: Any) -> Any:
        if not arguments[4] and len(arguments[6]) + len(arguments[7]):  # with new states
            raise MemoryError
        return real(*arguments)

    with monkeypatch.context() as context:
        context.setattr(_core, "step", failing)
        with pytest.raises(MemoryError):
            optimizer.step()
    assert_alike(picture(optimizer), known)


def test_an_error_of_torch_leaves_no_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group falls back, and torch refuses it."""
    params = parameters(SHAPES)
    groups: list[dict[str, Any]] = [
        {"params": params[:1], "differentiable": True},
        {"params": params[1:]},
    ]
    optimizer = onepass.Adam(groups)
    gradients(params)

    def refuse(_: Any) -> None:
        raise RuntimeError("no")  # noqa: EM101

    monkeypatch.setattr(torch.optim.Adam, "step", refuse)
    known = picture(optimizer)
    with pytest.raises(RuntimeError, match="no"):
        optimizer.step()
    assert_alike(picture(optimizer), known)


def test_conversions_are_taken_back() -> None:
    """A state that was converted for a step is as it was, and the same dict."""
    params = parameters(SHAPES)
    optimizer = onepass.AdamW(params)
    gradients(params)
    optimizer.step()
    state = optimizer.state[params[0]]
    before = dict(state)
    new = slow_path.NewStates(optimizer.spec, optimizer.state)
    group = {**optimizer.param_groups[0], "state_dtype": "8bit", "ema_decay": 0.5}
    from onepass.step.row import pack

    new.complete(group, pack(optimizer.spec, "adam", group, 1.0), 0, 0)
    assert "exp_avg_code" in state
    assert new.first_emas == {(0, 0)}
    new.take_back()
    assert optimizer.state[params[0]] is state
    assert state.keys() == before.keys()
    assert all(state[key] is value for key, value in before.items())


def test_a_step_that_torch_does_alone_counts_once() -> None:
    p = torch.nn.Parameter(torch.ones(3, dtype=torch.complex64))
    optimizer = onepass.Adam([p])
    p.grad = torch.ones_like(p)
    for count in (1, 2, 3):
        optimizer.step()
        assert optimizer.steps_applied == optimizer.report.steps_applied == count


def test_the_count_is_the_cores() -> None:
    params = parameters(SHAPES)
    optimizer = onepass.SGD(params, lr=schedule.Linear(1.0, 10))
    gradients(params)
    optimizer.step()
    optimizer.steps_applied = 4
    assert optimizer._stepper.memory.steps_applied == 4
    optimizer.step()
    assert optimizer.steps_applied == 5
    assert optimizer.param_groups[0]["lr"] == 0.5
