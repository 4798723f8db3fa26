"""What goes to a device and when: tables, buffers, streams, work that waits, graphs. On the emulated device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from onepass.device import extension
from onepass.schedule import Cosine, Linear, Step
from tests import cases, tolerances
from tests.cuda.emulation import StandIn, on_emulated_device


@pytest.fixture
def device() -> Iterator[StandIn]:
    with on_emulated_device() as stand_in:
        yield stand_in
        stand_in.module.capture(False)
        stand_in.module.defer(False)
        stand_in.module.run_waiting()


def made(*sizes: int) -> list[torch.nn.Parameter]:
    params = [torch.nn.Parameter(torch.randn(n)) for n in sizes]
    for p in params:
        p.grad = torch.randn_like(p)
    return params


def copies(params: list[torch.nn.Parameter]) -> list[torch.nn.Parameter]:
    same = [torch.nn.Parameter(p.detach().clone()) for p in params]
    for p, q in zip(params, same, strict=True):
        assert p.grad is not None
        q.grad = p.grad.clone()
    return same


def on_cpu(optimizer: Any) -> None:
    stand_in, extension._stand_in = extension._stand_in, None
    try:
        optimizer.step()
    finally:
        extension._stand_in = stand_in


def sent(optimizer: Any) -> int:
    count: int = optimizer._stepper.memories[0].core.sent
    return count


@pytest.mark.usefixtures("device")
@cases.classes
def test_table_is_sent_only_when_it_changes(case: cases.Case) -> None:
    params = made(100, 3000)
    optimizer = case.ours(params)
    optimizer.step()
    first = sent(optimizer)
    for group in optimizer.param_groups:
        group["lr"] *= 0.5
    optimizer.step()
    optimizer.step()
    assert sent(optimizer) == first  # neither a learning rate nor a count is part of it
    old = params[0].grad
    params[0].grad = torch.randn(100)
    optimizer.step()
    assert sent(optimizer) == first + 1
    del old
    params[1].grad = None
    optimizer.step()
    optimizer.step()
    assert sent(optimizer) == first + 2


def test_no_memory_is_asked_for_in_later_steps(device: StandIn) -> None:
    params = made(100, 3000)
    optimizer = cases.BY_ID["adam"].ours(params, max_grad_norm=1.0)
    for _ in range(3):
        optimizer.step()
    before = list(device.allocated)
    for _ in range(20):
        optimizer.step()
    assert device.allocated == before


@pytest.mark.parametrize("options", [{}, {"max_grad_norm": 0.1}, {"capturable": True}], ids=str)
def test_host_runs_ahead(device: StandIn, options: dict[str, Any]) -> None:
    """Steps wait in the stream while the host goes on: what they read must not have been written over."""
    params, groups = made(*range(1, 200)), []
    twins = copies(params)
    for own in (params, twins):
        groups.append([{"params": own[i : i + 5], "lr": 0.01} for i in range(0, len(own), 5)])
    ahead, beside = (cases.BY_ID["adam"].ours(g, **options) for g in groups)
    grads = [[torch.randn_like(p) for p in params] for _ in range(40)]
    for optimizer, own, defer in ((ahead, params, True), (beside, twins, False)):
        for step in range(40):
            if step == 1:
                device.module.defer(defer)
            for p, g in zip(own, grads[step], strict=True):
                p.grad = g
            for group in optimizer.param_groups:
                group["lr"] = 0.01 / (step + 1)
            optimizer.step()
        device.module.run_waiting()
        device.module.defer(False)
    for p, q in zip(params, twins, strict=True):
        tolerances.exact(p, q)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("adam", {"capturable": True}),
        ("adamw-amsgrad", {"capturable": True, "max_grad_norm": 0.5, "ema_decay": 0.9}),
        ("rmsprop-momentum", {"capturable": True, "state_dtype": "8bit"}),
        ("sgd-nesterov", {}),
        ("sgd", {}),
    ],
)
def test_graph(device: StandIn, name: str, options: dict[str, Any]) -> None:
    """A captured step, replayed, goes on where it was; eager steps in between disturb nothing."""
    case = cases.BY_ID[name]
    params = made(100, 3000)
    twins = copies(params)
    ours = case.ours(params, **options)
    cpu = case.ours(twins, **{k: v for k, v in options.items() if k != "capturable"})
    ours.step()
    on_cpu(cpu)
    device.module.capture(True)
    ours.step()
    device.module.capture(False)

    def check() -> None:
        for p, q in zip(params, twins, strict=True):
            tolerances.exact(p, q)

    for round in range(3):
        for _ in range(4):
            for p, q in zip(params, twins, strict=True):
                assert p.grad is not None
                assert q.grad is not None
                p.grad.copy_(torch.randn_like(p))
                q.grad.copy_(p.grad)
            device.module.replay()
            on_cpu(cpu)
            check()
        static = [p.grad for p in params]
        for p, q in zip(params, twins, strict=True):
            p.grad, q.grad = torch.randn_like(p), None
            q.grad = p.grad.clone()
        ours.step()
        on_cpu(cpu)
        check()
        for p, q, g in zip(params, twins, static, strict=True):
            p.grad, q.grad = g, torch.empty_like(q)
        if case.kind.spec.counted and round == 2:
            assert ours.report.steps_applied == cpu.report.steps_applied == 16


def test_lr_in_a_tensor(device: StandIn) -> None:
    """It is read where it is, in every replay; decoupled decay and the shrinking of L1 follow it."""
    params = made(500)
    twins = copies(params)
    lr = torch.tensor(0.01)
    options = {"weight_decay": 0.1, "l1_decay": 0.05}
    ours = cases.BY_ID["adamw"].ours(params, lr=lr, capturable=True, **options)
    cpu = cases.BY_ID["adamw"].ours(twins, lr=float(lr), **options)
    ours.step()
    on_cpu(cpu)
    device.module.capture(True)
    ours.step()
    device.module.capture(False)
    for value in (0.01, 0.004, 0.02):
        lr.fill_(value)
        cpu.param_groups[0]["lr"] = float(lr)
        device.module.replay()
        on_cpu(cpu)
        tolerances.exact(params[0], twins[0])


def test_what_cannot_go_into_a_graph(device: StandIn) -> None:
    first = cases.BY_ID["adam"].ours(made(10), capturable=True)
    device.module.capture(True)
    with pytest.raises(RuntimeError, match="one step before the capture"):
        first.step()
    device.module.capture(False)
    counted = cases.BY_ID["adam"].ours(made(10))
    counted.step()
    before = counted.param_groups[0]["params"][0].detach().clone()
    device.module.capture(True)
    with pytest.raises(RuntimeError, match="capturable=True"):
        counted.step()
    device.module.capture(False)
    tolerances.exact(counted.param_groups[0]["params"][0], before)
    assert float(counted.state[counted.param_groups[0]["params"][0]]["step"]) == 1


def test_another_stream(device: StandIn) -> None:
    """Memory that a new stream uses is kept from others until that stream is done with it."""
    optimizer = cases.BY_ID["adam"].ours(made(10))
    optimizer.step()
    assert device.shared == []
    device.current = 2
    optimizer.step()
    memory = optimizer._stepper.memories[0]
    assert device.shared == memory._tensors
    optimizer.step()
    assert len(device.shared) == len(memory._tensors)


@pytest.mark.usefixtures("device")
def test_parameters_that_share_memory() -> None:
    """Tensors are updated in no order: torch's own step takes those that overlap."""
    base = torch.randn(10)
    params = [torch.nn.Parameter(base[:6]), torch.nn.Parameter(base[4:])]
    for p in params:
        p.grad = torch.ones_like(p)
    expected = base.clone()
    expected[:6] -= 0.05
    expected[4:] -= 0.05
    cases.BY_ID["sgd"].ours(params).step()
    torch.testing.assert_close(base, expected)
    with pytest.raises(RuntimeError, match="l1_decay"):
        cases.BY_ID["sgd"].ours(params, l1_decay=0.1).step()


@pytest.mark.usefixtures("device")
def test_places_of_counts() -> None:
    """As torch: on the CPU unless capturable or fused; and where the device may skip a step."""
    for options, there in (
        ({}, False),
        ({"fused": True}, True),
        ({"capturable": True}, True),
        ({"skip_nonfinite": True}, True),
        ({"max_grad_norm": 1.0}, True),
    ):
        optimizer = cases.BY_ID["adam"].ours(made(10), **options)
        optimizer.step()
        assert optimizer._stepper.memories[0].core.counts == there


@pytest.mark.usefixtures("device")
def test_state_dict_knows_the_count() -> None:
    """Steps that the device skipped are not counted, and the host learns of it when it saves."""
    params = made(300)
    optimizer = cases.BY_ID["adam"].ours(params, state_dtype="8bit", skip_nonfinite=True)
    for step in range(5):
        assert params[0].grad is not None
        params[0].grad[3] = float("nan") if step in (1, 3) else 1.0
        optimizer.step()
    assert optimizer.state_dict()["param_groups"][0]["steps_applied"] == 3
    report = optimizer.report
    assert (report.steps_applied, report.steps_skipped, report.applied) == (3, 2, True)


SCHEDULES = {
    "lr": Cosine(0.05, 9, final=0.001).warmup(3),
    "weight_decay": Linear(0.2, 8),
    "l1_decay": Step(0.02, 3),
}


def test_schedules_in_a_graph(device: StandIn) -> None:
    """The device evaluates them from its own count, so that a replay moves on."""
    params = made(300, 2100)
    twins = copies(params)
    ours = cases.BY_ID["adamw"].ours(params, capturable=True, **SCHEDULES)
    cpu = cases.BY_ID["adamw"].kind(twins, **SCHEDULES)
    ours.step()
    on_cpu(cpu)
    device.module.capture(True)
    ours.step()
    device.module.capture(False)
    for _ in range(12):
        device.module.replay()
        on_cpu(cpu)
        for p, q in zip(params, twins, strict=True):
            tolerances.exact(p, q)
    assert ours.report.steps_applied == 13
    assert ours.state_dict()["param_groups"][0]["lr"] == cpu.param_groups[0]["lr"]


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("name", ["sgd-momentum", "rmsprop-momentum", "adam"])
def test_schedules_where_steps_are_skipped(name: str) -> None:
    case = cases.BY_ID[name]
    own = dict(SCHEDULES)
    if name == "adam":
        own["betas"] = (Linear(0.9, 20, final=0.8), 0.99)  # type: ignore[assignment]
    else:
        own["momentum"] = Linear(0.9, 20, final=0.5)
    params = made(300, 2100)
    twins = copies(params)
    ours = case.ours(params, skip_nonfinite=True, **own)
    cpu = case.ours(twins, skip_nonfinite=True, **own)
    for step in range(9):
        for p, q in zip(params, twins, strict=True):
            p.grad = torch.randn_like(p)
            if step in (2, 3, 6):
                p.grad[7] = float("inf")
            q.grad = p.grad.clone()
        ours.step()
        on_cpu(cpu)
    for p, q in zip(params, twins, strict=True):
        tolerances.exact(p, q)
    assert ours.report == cpu.report


def test_several_places(device: StandIn) -> None:
    """Groups on the CPU and on two devices; nothing is written anywhere if one of them cannot step."""
    device.devices = {100: extension.CPU, 3000: 1}
    params = made(50, 100, 3000)
    twins = copies(params)
    ours = cases.BY_ID["adam"].ours([{"params": [p]} for p in params])
    cpu = cases.BY_ID["adam"].ours([{"params": [q]} for q in twins])
    for _ in range(3):
        ours.step()
        on_cpu(cpu)
    assert sorted(ours._stepper.memories) == [0, 1]
    for p, q in zip(params, twins, strict=True):
        tolerances.exact(p, q)
    params[2].grad = torch.ones(3000).to_sparse()
    ours.param_groups[2]["l1_decay"] = 0.1
    with pytest.raises(RuntimeError, match="nothing was updated"):
        ours.step()
    for p, q in zip(params, twins, strict=True):
        tolerances.exact(p, q)


@pytest.mark.parametrize("options", [{"max_grad_norm": 1.0}, {"skip_nonfinite": True}])
@cases.classes
def test_norm_needs_one_place(device: StandIn, case: cases.Case, options: dict[str, Any]) -> None:
    device.devices = {100: extension.CPU}
    params = made(50, 100)
    before = [p.detach().clone() for p in params]
    optimizer = case.ours([{"params": [p]} for p in params], **options)
    states = len(optimizer.state)
    with pytest.raises(RuntimeError, match="one device, found the CPU, cuda:0; nothing was"):
        optimizer.step()
    assert len(optimizer.state) == states
    for p, value in zip(params, before, strict=True):
        tolerances.exact(p.detach(), value)
