"""state_dtype: what the states are kept in, how far the 8-bit code may be off, and conversions in all directions."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch

import onepass
from tests import cases, tolerances
from tests.cases import Case
from tests.helpers import gradients, parameters, twin
from tests.one_pass import oracle

SHAPES = [(5, 7), (700,), (), (0, 3)]
CHOICES = [None, torch.float32, torch.bfloat16, "8bit"]
with_states = pytest.mark.parametrize("case", [c for c in cases.RULES if c.state_keys], ids=str)


def stepped(case: Case, params: list[Any], steps: int = 1, **options: Any) -> Any:
    optimizer = case.ours(params, **options)
    for _ in range(steps):
        gradients(params)
        optimizer.step()
    return optimizer


@cases.all_dtypes
@with_states
def test_memory_of_8_bits(case: Case, dtype: torch.dtype) -> None:
    (p,) = parameters([(10_000,)], dtype)
    optimizer = stepped(case, [p], state_dtype="8bit", master_weights=True, ema_decay=0.9)
    own = optimizer.state[p]
    used = sum(
        v.numel() * v.element_size()
        for key, v in own.items()
        if key not in ("step", "ema", "master")
    )
    assert 1.0 < used / (10_000 * len(case.state_keys)) <= 1.05
    assert own["ema"].dtype == torch.float32
    for key in case.state_keys:
        assert own[f"{key}_code"].shape == p.shape
        assert own[f"{key}_scale"].dtype == torch.float32


@cases.all_dtypes
@pytest.mark.parametrize("chosen", CHOICES, ids=str)
@pytest.mark.parametrize("master", [False, True])
@with_states
def test_dtype(case: Case, chosen: Any, master: bool, dtype: torch.dtype) -> None:
    params = parameters(SHAPES, dtype)
    optimizer = stepped(case, params, 2, state_dtype=chosen, master_weights=master)
    for p in params:
        for key in case.state_keys:
            own = optimizer.state[p]
            if chosen == "8bit":
                assert key not in own
                assert own[f"{key}_code"].dtype == torch.uint8
            else:
                wide = torch.float32 if master and dtype in cases.HALVES else dtype
                assert own[key].dtype == (chosen or wide)


# The code. The momentum buffer of a first step is the gradient, and the sum of Adagrad its square.


def stored(values: torch.Tensor, *, squared: bool = False) -> tuple[torch.Tensor, Any]:
    """Return what is left of numbers after a step that stores them (or their squares) in 8 bits."""
    p = torch.nn.Parameter(torch.zeros_like(values))
    p.grad = values.clone()
    optimizer: Any
    if squared:
        optimizer = onepass.Adagrad([p], lr=0.0, state_dtype="8bit")
    else:
        optimizer = onepass.SGD([p], lr=0.0, momentum=0.9, state_dtype="8bit")
    optimizer.step()
    return oracle.states(optimizer, p)["sum" if squared else "momentum_buffer"], optimizer


def varied(n: int, spread: float) -> torch.Tensor:
    return torch.randn(n) * torch.exp2((torch.rand(n) - 0.5) * 2 * spread)


def largest_of_block(x: torch.Tensor) -> torch.Tensor:
    blocks = torch.split(x.abs(), oracle.BLOCK)
    return torch.cat([b.max().expand(b.numel()) for b in blocks])


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("spread", [0.0, 2.0, 7.0, 12.0])
@pytest.mark.parametrize("count", [1, 255, 256, 257, 5000])
def test_error_of_the_code(count: int, spread: float, squared: bool) -> None:
    """At most 1/16 of the value; what is too small for the block becomes 0."""
    values = varied(count, spread)
    found, _ = stored(values, squared=squared)
    exact = values.double().square() if squared else values.double()
    limit = oracle.SMALLEST[squared] * largest_of_block(exact)
    rounding = 1e-6 * exact.abs()  # the square itself is one of float32
    error = (found - exact).abs()
    bound = torch.where(exact.abs() >= limit, oracle.CODE_ERROR * exact.abs(), limit)
    assert bool((error <= bound + rounding).all())
    assert bool((found * exact >= 0).all())  # the sign stays


def test_error_of_the_code_is_not_overstated() -> None:
    """1/16 is reached up to a little: halfway between 1 and 1 + 1/8."""
    values = torch.tensor([2.0, 1.0624, 1.0626])
    found, _ = stored(values)
    assert found.tolist() == [2.0, 1.0, 1.125]


@pytest.mark.parametrize("squared", [False, True])
def test_largest_of_a_block_is_exact(squared: bool) -> None:
    values = varied(1000, 5.0)
    found, _ = stored(values, squared=squared)
    exact = values * values if squared else values
    for a, b in zip(
        torch.split(found, oracle.BLOCK), torch.split(exact.double(), oracle.BLOCK), strict=True
    ):
        place = b.abs().argmax()
        assert a[place].item() == b[place].item()


@pytest.mark.parametrize("squared", [False, True])
def test_order_is_kept(squared: bool) -> None:
    values = varied(256, 10.0).sort().values
    found, _ = stored(values, squared=squared)
    order = values.abs().argsort() if squared else torch.arange(256)
    assert bool((found[order].diff() >= 0).all())


def test_what_the_code_can_hold_it_keeps() -> None:
    """Writing again what was read changes nothing: no drift."""
    values = varied(1000, 6.0)
    found, _ = stored(values)
    again, _ = stored(found.float())
    assert torch.equal(again, found)


@pytest.mark.parametrize("scale", [1e-37, 1e-30, 1e-10, 1e10, 1e30, 2e38])
def test_error_does_not_depend_on_the_scale(scale: float) -> None:
    values = varied(300, 3.0)
    values = values / values.abs().max() * scale
    found, _ = stored(values)
    assert bool(((found - values.double()).abs() <= oracle.CODE_ERROR * values.abs()).all())


@with_states
def test_zero_stays_zero(case: Case) -> None:
    """A state that is exactly zero, beside others that are not."""
    (p,) = parameters([(600,)])
    optimizer = (
        case.ours([p], state_dtype="8bit", initial_accumulator_value=0.0)
        if (case.name == "Adagrad")
        else case.ours([p], state_dtype="8bit")
    )
    optimizer.param_groups[0]["weight_decay"] = 0.0
    zero = torch.arange(600) % 3 == 0
    before = p.detach().clone()
    for _ in range(3):
        p.grad = torch.randn(600).masked_fill(zero, 0.0)
        optimizer.step()
        for key, value in oracle.states(optimizer, p).items():
            if key != "step":
                assert bool((value[zero] == 0).all())
    tolerances.exact(p[zero], before[zero])


@with_states
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_can_be_seen(case: Case, bad: float) -> None:
    """They do not turn into a number; other blocks are not touched by them."""
    (p,) = parameters([(1000,)])
    optimizer = case.ours([p], state_dtype="8bit")
    for step in range(2):
        gradients([p])
        if step == 0:
            p.grad[300] = bad  # type: ignore[index]
        optimizer.step()
        for key, value in oracle.states(optimizer, p).items():
            if key != "step":
                assert not bool(value[300].isfinite())
                assert bool(value[:256].isfinite().all())
                assert bool(value[512:].isfinite().all())
    assert not bool(p[300].isfinite())
    assert bool(p[:256].isfinite().all())
    assert bool(p[512:].isfinite().all())


@pytest.mark.parametrize("size", [1e-45, 1e-40, 1e-38])
def test_numbers_that_are_too_small_become_zero(size: float) -> None:
    values = torch.full((300,), size)
    found, _ = stored(values)
    assert bool(((found == 0) | ((found - size).abs() <= size / 16)).all())


@with_states
def test_rare_large_gradients_do_not_blow_up_others(case: Case) -> None:
    """An element whose state was too small for its block goes on with a step of the usual size."""
    steps = {}
    for chosen in (torch.float32, "8bit"):
        torch.manual_seed(0)
        p = torch.nn.Parameter(torch.zeros(256))
        optimizer = case.ours([p], lr=1e-3, state_dtype=chosen)
        optimizer.param_groups[0]["weight_decay"] = 0.0
        largest = 0.0
        for step in range(60):
            p.grad = torch.randn(256)
            if step == 5:
                p.grad[0] = 1e6
            if step % 10 == 9:
                p.grad[5] = 0.0
            before = p.detach().clone()
            optimizer.step()
            largest = max(largest, (p.detach() - before)[1:].abs().max().item())
        steps[chosen] = largest
    assert steps["8bit"] < 100 * steps[torch.float32]


@cases.classes
def test_training_is_as_good(case: Case) -> None:
    """A small network: the loss is that of float32 states within a few percent, and far below the first one."""
    x = torch.randn(128, 16)
    y = torch.tanh(x @ torch.randn(16, 4)) + 0.3 * torch.randn(128, 4)
    losses = {}
    plain = {"maximize": False, "weight_decay": 0.0, "lr_decay": 0.0}
    for state in (torch.float32, torch.bfloat16, "8bit"):
        torch.manual_seed(1)
        model = torch.nn.Sequential(
            torch.nn.Linear(16, 24), torch.nn.Tanh(), torch.nn.Linear(24, 4)
        )
        known = {key: value for key, value in plain.items() if key in case.hyper}
        optimizer = case.ours(model.parameters(), state_dtype=state, **known)
        for _ in range(120):
            optimizer.zero_grad()
            loss: Any = (model(x) - y).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.param_groups[0]["lr"] *= 0.97
        losses[state] = loss.item()
    assert losses[torch.float32] < 0.3
    assert losses[torch.bfloat16] < 1.02 * losses[torch.float32]
    assert losses["8bit"] < 1.05 * losses[torch.float32]


# Conversions


def saved(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


ERROR = {None: 0.0, torch.float32: 0.0, torch.bfloat16: 2.0**-9, "8bit": oracle.CODE_ERROR}


@pytest.mark.parametrize("to", CHOICES, ids=str)
@pytest.mark.parametrize("source", CHOICES, ids=str)
@with_states
def test_conversion_through_a_checkpoint(case: Case, source: Any, to: Any) -> None:
    """The numbers survive; a step with lr = 0 and no gradient to speak of shows what the states have become."""
    params = parameters(SHAPES)
    optimizer = stepped(case, params, 3, state_dtype=source)
    before = [oracle.states(optimizer, p) for p in params]
    state = saved(optimizer.state_dict())
    for group in state["param_groups"]:
        group.pop("state_dtype", None)  # so that the optimizer's own choice stays
    others = twin(params)
    other = case.ours(others, state_dtype=to)
    other.load_state_dict(state)
    assert other.param_groups[0].get("state_dtype") == to
    gradients(params, others)
    rules = [oracle.expected_step(case, optimizer)[p] for p in params]
    other.step()
    for p, old, want in zip(others, before, rules, strict=True):
        found = oracle.states(other, p)
        assert found["step"] == old["step"] + 1 if "step" in old else "step" not in found
        for key in case.state_keys:
            own = other.state[p]
            assert (f"{key}_code" in own) == (to == "8bit")
            assert (key in own) == (to != "8bit")
            if key == "momentum_buffer" and case.name == "RMSprop":
                continue  # made with the converted variance: a rounding there is one of any size here
            converted = 2.2 * ERROR[to] + 1e-5  # once on loading, once on writing
            terms = want.state[key].abs() + old[key].abs()
            tiny = terms.max() if terms.numel() and to == "8bit" else torch.tensor(0.0)
            limit = oracle.SMALLEST[key in oracle.NONNEGATIVE] * tiny
            error = (found[key] - want.state[key]).abs()
            assert bool((error <= converted * terms + 2 * limit + 1e-6).all())


@pytest.mark.parametrize("to", CHOICES, ids=str)
@pytest.mark.parametrize("source", CHOICES, ids=str)
@with_states
def test_conversion_between_steps(case: Case, source: Any, to: Any) -> None:
    """Changed in the group, it takes effect at once where the storage has another name, and never loses numbers."""
    (p,) = parameters([(700,)])
    optimizer = stepped(case, [p], 3, state_dtype=source)
    before = oracle.states(optimizer, p)
    optimizer.param_groups[0].update(
        state_dtype=to, lr=0.0, weight_decay=0.0, ema_decay=0.5
    )  # lr = 0: only the states move
    p.grad = torch.zeros_like(p)
    optimizer.step()
    found = oracle.states(optimizer, p)
    kept = {
        "momentum_buffer": case.hyper.get("momentum", 0.0),
        "exp_avg": case.hyper["betas"][0] if "betas" in case.hyper else 0.0,
        "exp_avg_sq": case.hyper["betas"][1] if "betas" in case.hyper else 0.0,
        "max_exp_avg_sq": 1.0,
        "sum": 1.0,
        "square_avg": case.hyper.get("alpha", 0.0),
        "grad_avg": case.hyper.get("alpha", 0.0),
    }
    for key in case.state_keys:
        error = 2.2 * max(ERROR[to], ERROR[source] if to != "8bit" else 0.0) + 1e-6
        limit = oracle.SMALLEST[key in oracle.NONNEGATIVE] * before[key].abs().max()
        limit = limit if to == "8bit" else 0 * limit
        expected = kept[key] * before[key]
        assert bool(((found[key] - expected).abs() <= error * before[key].abs() + 2 * limit).all())
        assert (f"{key}_code" in optimizer.state[p]) == (to == "8bit")


@cases.halves
@pytest.mark.parametrize("to", [None, "8bit"], ids=str)
@with_states
def test_checkpoint_of_another_parameter_dtype(case: Case, to: Any, dtype: torch.dtype) -> None:
    """A float32 run continued with low-precision parameters, master weights and small states."""
    params = parameters(SHAPES)
    optimizer = stepped(case, params, 2)
    before = [oracle.states(optimizer, p) for p in params]
    low = [torch.nn.Parameter(p.detach().to(dtype)) for p in params]
    other = case.ours(low, state_dtype=to, master_weights=True)
    other.load_state_dict(saved(optimizer.state_dict()))
    for p, old in zip(low, before, strict=True):
        for key in case.state_keys:
            if to is None:
                tolerances.exact(other.state[p][key].double(), old[key])
    gradients(low)
    other.step()
    for p in low:
        assert other.state[p]["master"].shape == p.shape
