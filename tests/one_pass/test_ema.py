"""ema_decay: the average of the weights, and `ema_weights()`, which evaluates with it."""

from __future__ import annotations

import copy
import signal
from typing import Any

import pytest
import torch

import onepass
from tests import cases, tolerances
from tests.cases import Case
from tests.helpers import gradients, parameters

SHAPES = [(5, 7), (70,), ()]


@cases.all_dtypes
@cases.classes
def test_against_the_formula(case: Case, dtype: torch.dtype) -> None:
    """Float32 and float64 weights are stored as they are, so the formula may start from them."""
    params = parameters(SHAPES, dtype)
    optimizer = case.ours(params, ema_decay=0.75, master_weights=True)
    averages: list[torch.Tensor] = []
    for step in range(4):
        gradients(params)
        optimizer.step()
        for i, p in enumerate(params):
            weight = p.detach().clone().double()
            if dtype in cases.HALVES:
                master = optimizer.state[p]["master"]
                high = p.detach().view(torch.int16).int() << 16
                weight = (
                    (high + master.int()).view(torch.float32) if dtype == torch.bfloat16 else master
                ).double()
            if step == 0:
                averages.append(weight)
            else:
                averages[i] = averages[i] + 0.25 * (weight - averages[i])
            ema = optimizer.state[p]["ema"]
            assert ema.dtype == torch.float32
            torch.testing.assert_close(
                ema.double(), averages[i], **tolerances.accumulated(step + 2)
            )


@cases.classes
def test_first_step_copies(case: Case) -> None:
    params = parameters(SHAPES)
    optimizer = case.ours(params, ema_decay=0.999)
    gradients(params)
    optimizer.step()
    for p in params:
        assert torch.equal(optimizer.state[p]["ema"], p)


@cases.classes
def test_switched_on_during_training(case: Case) -> None:
    """The average starts with the step that first has it, not with zeros."""
    params = parameters(SHAPES)
    optimizer = case.ours(params)
    for step in range(3):
        if step == 1:
            optimizer.param_groups[0]["ema_decay"] = 0.5
        gradients(params)
        before = [p.detach().clone() for p in params]
        optimizer.step()
        assert not torch.equal(params[0], before[0])
        if step == 1:
            assert torch.equal(optimizer.state[params[0]]["ema"], params[0])


@cases.classes
def test_left_alone_without_a_gradient(case: Case) -> None:
    p, q = parameters([(5,), (70,)])
    optimizer = case.ours([p, q], ema_decay=0.5)
    gradients([p, q])
    q.grad = None
    optimizer.step()
    assert "ema" not in optimizer.state.get(q, {})
    gradients([p, q])
    optimizer.step()
    assert torch.equal(optimizer.state[q]["ema"], q)  # its first step
    kept = optimizer.state[q]["ema"].clone()
    with torch.no_grad():
        q.add_(1.0)
    q.grad = None
    gradients([p])
    optimizer.step()
    tolerances.exact(optimizer.state[q]["ema"], kept)


def test_decay_of_one_keeps_the_first_weights() -> None:
    (p,) = parameters([(70,)])
    optimizer = onepass.SGD([p], lr=0.1, ema_decay=1.0)
    gradients([p])
    optimizer.step()
    first = p.detach().clone()
    for _ in range(3):
        optimizer.step()
    tolerances.exact(optimizer.state[p]["ema"], first)


@cases.classes
def test_does_not_change_the_training(case: Case) -> None:
    with_average = parameters(SHAPES, torch.bfloat16)
    without = copy.deepcopy(with_average)
    a, b = case.ours(with_average, ema_decay=0.9), case.ours(without)
    for _ in range(3):
        gradients(with_average, without)
        a.step()
        b.step()
    for p, q in zip(with_average, without, strict=True):
        tolerances.exact(p, q)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("when", ["before the first step", "between steps"])
def test_average_of_another_dtype_goes_on(when: str, dtype: torch.dtype) -> None:
    """An average that was made elsewhere, by torch.optim.swa_utils in float64 say, is read or converted."""
    (p,) = parameters([(70,)])
    optimizer = onepass.Adam([p], ema_decay=0.5)
    gradients([p])
    if when == "between steps":
        optimizer.step()
    old = torch.randn(70).to(dtype)
    optimizer.state[p]["ema"] = old.clone()
    optimizer.step()
    expected = old.double() + 0.5 * (p.detach().double() - old.double())
    found = optimizer.state[p]["ema"]
    found = found.float() if found.dtype == torch.float64 else found  # computed in float32
    tolerances.one_rounding(found, expected, expected.abs() + old.double().abs())


# ema_weights()


def trained(dtype: torch.dtype = torch.float32, **options: Any) -> tuple[Any, Any]:
    model = torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.Linear(9, 4)).to(dtype)
    optimizer = onepass.AdamW(model.parameters(), lr=0.1, ema_decay=0.5, **options)
    for _ in range(3):
        gradients(list(model.parameters()))
        optimizer.step()
    return model, optimizer


@cases.all_dtypes
def test_swaps_in_and_back(dtype: torch.dtype) -> None:
    model, optimizer = trained(dtype)
    before = [p.detach().clone() for p in model.parameters()]
    averages = [optimizer.state[p]["ema"].clone() for p in model.parameters()]
    state = copy.deepcopy(optimizer.state_dict()["state"])
    with optimizer.ema_weights():
        for p, ema, old in zip(model.parameters(), averages, before, strict=True):
            tolerances.exact(p, ema.to(dtype))
            assert not torch.equal(p, old)
    for p, old in zip(model.parameters(), before, strict=True):
        tolerances.exact(p, old)
    for i, own in optimizer.state_dict()["state"].items():
        for key, value in own.items():
            tolerances.exact(value, state[i][key])


@cases.all_dtypes
def test_every_bit_pattern_comes_back(dtype: torch.dtype) -> None:
    """Infinities, -0.0 and subnormal weights, too."""
    values = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    bits: torch.Tensor = values
    if dtype.itemsize > 2:
        wide = {4: torch.int32, 8: torch.int64}[dtype.itemsize]
        bits = values.to(wide) << (8 * dtype.itemsize - 16)
    p = torch.nn.Parameter(bits.view(dtype).clone())
    p.grad = torch.zeros_like(p)
    optimizer = onepass.SGD([p], ema_decay=0.5)
    optimizer.step()
    before = p.detach().clone()
    optimizer.state[p]["ema"].zero_()
    with optimizer.ema_weights():
        assert not bool(p.any())
    tolerances.exact(p, before)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_swaps_back_when_the_block_raises(error: type[BaseException]) -> None:
    model, optimizer = trained(torch.bfloat16)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(error), optimizer.ema_weights():
        raise error
    for p, old in zip(model.parameters(), before, strict=True):
        tolerances.exact(p, old)


def test_parameters_without_an_average_stay() -> None:
    p, q = parameters([(5,), (6,)])
    groups: list[dict[str, Any]] = [{"params": [p], "ema_decay": 0.5}, {"params": [q]}]
    optimizer = onepass.SGD(groups, lr=0.1)
    gradients([p, q])
    optimizer.step()
    optimizer.state[p]["ema"].fill_(3.0)
    before = q.detach().clone()
    with optimizer.ema_weights():
        assert p.tolist() == [3.0] * 5
        tolerances.exact(q, before)


def test_before_the_first_step_nothing_happens() -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = onepass.AdamW(model.parameters(), ema_decay=0.5)
    before = [p.detach().clone() for p in model.parameters()]
    with optimizer.ema_weights():
        for p, old in zip(model.parameters(), before, strict=True):
            tolerances.exact(p, old)
    assert not optimizer.state


def test_layout_and_gradients_stay() -> None:
    """The parameters are the same objects with the same memory."""
    weight = torch.nn.Parameter(torch.randn(4, 6).t())
    optimizer = onepass.SGD([weight], lr=0.1, ema_decay=0.5)
    weight.grad = torch.randn(6, 4)
    optimizer.step()
    optimizer.step()
    address, stride, grad = weight.data_ptr(), weight.stride(), weight.grad
    with optimizer.ema_weights():
        assert (weight.data_ptr(), weight.stride()) == (address, stride)
        tolerances.exact(weight, optimizer.state[weight]["ema"])
    assert (weight.data_ptr(), weight.stride()) == (address, stride)
    assert weight.grad is grad


def test_autograd_sees_the_swap() -> None:
    """A backward pass through weights that were swapped is an error, not a wrong gradient."""
    model, optimizer = trained()
    loss = model(torch.ones(2, 6)).square().sum()
    with optimizer.ema_weights(), pytest.raises(RuntimeError, match="modified by an inplace"):
        loss.backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_training_goes_on_as_without(dtype: torch.dtype) -> None:
    """Master halves belong to the weights, which come back."""
    results = []
    for evaluates in (False, True):
        torch.manual_seed(1)
        model, optimizer = trained(dtype, master_weights=True)
        if evaluates:
            with optimizer.ema_weights():
                model(torch.ones(2, 6, dtype=dtype))
        gradients(list(model.parameters()))
        optimizer.step()
        results.append([p.detach().clone() for p in model.parameters()])
    for p, q in zip(*results, strict=True):
        tolerances.exact(p, q)


def interrupted(delay: float, optimizer: Any) -> bool:
    """Enter and leave `ema_weights()` with a Ctrl-C underway; return whether it came."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, delay)
        with optimizer.ema_weights():
            pass
    except KeyboardInterrupt:
        return True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return False


def test_swaps_back_when_the_exchange_is_interrupted() -> None:
    params = parameters([(3_000_000,)] * 3)
    optimizer = onepass.SGD(params, lr=1.0, ema_decay=0.5)
    for _ in range(2):
        gradients(params)
        optimizer.step()
    before = [p.detach().clone() for p in params]
    for milliseconds in range(1, 25):
        interrupted(milliseconds / 1000, optimizer)
        assert torch.is_grad_enabled()
        for p, old in zip(params, before, strict=True):
            tolerances.exact(p, old)


def test_swaps_back_when_an_average_does_not_fit() -> None:
    p, q, r = parameters([(4,)] * 3)
    optimizer = onepass.SGD([p, q, r], lr=1.0, ema_decay=0.5)
    for _ in range(3):
        gradients([p, q, r])
        optimizer.step()
    q.data = torch.zeros(5)  # an embedding that has grown
    before = [x.detach().clone() for x in (p, q, r)]
    with pytest.raises(RuntimeError), optimizer.ema_weights():
        pytest.fail("it was entered")
    for x, old in zip((p, q, r), before, strict=True):
        tolerances.exact(x, old)


# BatchNorm


class Net(torch.nn.Module):
    """Two BatchNorm layers with statistics, one without, and something else with a buffer."""

    calls: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.a, self.first = torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5)
        self.b, self.second = torch.nn.Linear(5, 4), torch.nn.BatchNorm1d(4, momentum=0.3)
        self.other = torch.nn.BatchNorm1d(4, track_running_stats=False)
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.add_(1)
        return self.other(self.second(self.b(self.first(self.a(x)))))  # type: ignore[no-any-return]


def normalized() -> tuple[Net, Any, list[torch.Tensor]]:
    torch.manual_seed(3)
    net = Net()
    optimizer = onepass.AdamW(net.parameters(), lr=0.1, ema_decay=0.9)
    batches = [torch.randn(8, 3) * 2 + 1 for _ in range(4)]
    for x in batches * 3:
        optimizer.zero_grad()
        net(x).square().sum().backward()
        optimizer.step()
    return net, optimizer, batches


def buffers(net: Net) -> dict[str, torch.Tensor]:
    return {name: b.clone() for name, b in net.named_buffers()}


@pytest.mark.parametrize("kind", ["tensors", "pairs", "dicts", "generator"])
@pytest.mark.parametrize("mode", [True, False])
def test_batch_norm_has_the_statistics_of_the_averages(kind: str, mode: bool) -> None:
    net, optimizer, batches = normalized()
    net.train(mode)
    net.second.eval()
    before, modes = buffers(net), [m.training for m in net.modules()]
    data: Any = {
        "tensors": batches,
        "pairs": [(x, torch.zeros(8)) for x in batches],
        "dicts": [{"x": x} for x in batches],
        "generator": (x for x in batches),
    }[kind]
    with optimizer.ema_weights(net, data):
        assert [m.training for m in net.modules()] == modes
        assert net.calls == before["calls"]
        assert (net.first.momentum, net.second.momentum) == (0.1, 0.3)
        with torch.no_grad():
            layers = [net.a(x).double() for x in batches]
            mean = sum(y.mean(0) for y in layers) / len(layers)
            variance = sum(y.var(0) for y in layers) / len(layers)
        torch.testing.assert_close(net.first.running_mean, mean.float())
        torch.testing.assert_close(net.first.running_var, variance.float())
        assert net.first.num_batches_tracked == len(batches)
        assert not torch.equal(buffers(net)["second.running_mean"], before["second.running_mean"])
    for name, value in buffers(net).items():
        tolerances.exact(value, before[name])
    assert [m.training for m in net.modules()] == modes


def test_a_frozen_batch_norm_keeps_its_statistics() -> None:
    net, optimizer, batches = normalized()
    onepass.transfer.freeze(net, "first")
    before = buffers(net)
    with optimizer.ema_weights(net, batches):
        inside = buffers(net)
        tolerances.exact(inside["first.running_mean"], before["first.running_mean"])
        assert not torch.equal(inside["second.running_mean"], before["second.running_mean"])


@pytest.mark.parametrize("data", [None, [], iter(())], ids=["none", "no batch", "no iteration"])
def test_batch_norm_without_data(data: Any) -> None:
    net, optimizer, _ = normalized()
    before = {name: x.clone() for name, x in net.state_dict().items()}
    with pytest.raises(ValueError, match="data must"), optimizer.ema_weights(net, data):
        pytest.fail("it was entered")
    for name, value in net.state_dict().items():
        tolerances.exact(value, before[name])


def test_batch_norm_when_the_model_raises() -> None:
    net, optimizer, batches = normalized()
    before = {name: x.clone() for name, x in net.state_dict().items()}
    with pytest.raises(RuntimeError), optimizer.ema_weights(net, [*batches, torch.zeros(2, 99)]):
        pytest.fail("it was entered")
    assert net.first.momentum == 0.1
    for name, value in net.state_dict().items():
        tolerances.exact(value, before[name])


def test_a_model_without_batch_norm_needs_no_data() -> None:
    model, optimizer = trained()
    with optimizer.ema_weights(model):
        tolerances.exact(model[0].weight, optimizer.state[model[0].weight]["ema"])
    with pytest.raises(TypeError, match="model"), optimizer.ema_weights("model"):
        pytest.fail("it was entered")


def test_without_averages() -> None:
    optimizer = onepass.SGD(parameters([(3,)]), lr=0.1)
    with pytest.raises(RuntimeError, match="keeps no averages; give it ema_decay"):
        optimizer.ema_weights()
