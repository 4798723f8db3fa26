"""state_dtype: what the states are kept in, how far the 8-bit code may be off, and conversions in all directions."""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
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


# The code. The momentum buffer of a first step is the gradient, the sum of Adagrad its square, and so is AMSGrad's
# maximum without memory.

KINDS = {
    "signed": False,
    "nonnegative": True,
    "maximum": True,
}  # what it tests, and whether it is never negative
kinds = pytest.mark.parametrize("kind", list(KINDS))


def stored(values: torch.Tensor, kind: str = "signed") -> torch.Tensor:
    """Return what is left of numbers after a step that stores them (or their squares) in 8 bits."""
    p = torch.nn.Parameter(torch.zeros_like(values))
    p.grad = values.clone()
    optimizer: Any
    if kind == "signed":
        optimizer = onepass.SGD([p], lr=0.0, momentum=0.9, state_dtype="8bit")
    elif kind == "nonnegative":
        optimizer = onepass.Adagrad([p], lr=0.0, state_dtype="8bit")
    else:
        optimizer = onepass.Adam([p], lr=0.0, betas=(0.0, 0.0), amsgrad=True, state_dtype="8bit")
    optimizer.step()
    key = {"signed": "momentum_buffer", "nonnegative": "sum", "maximum": "max_exp_avg_sq"}[kind]
    found: torch.Tensor = oracle.states(optimizer, p)[key]
    return found


def exact_of(values: torch.Tensor, kind: str) -> torch.Tensor:
    return (values * values if KINDS[kind] else values).double()


def varied(n: int, spread: float) -> torch.Tensor:
    return torch.randn(n) * torch.exp2((torch.rand(n) - 0.5) * 2 * spread)


def largest_of_block(x: torch.Tensor) -> torch.Tensor:
    blocks = torch.split(x.abs(), oracle.BLOCK)
    return torch.cat([b.max().expand(b.numel()) for b in blocks])


@pytest.mark.parametrize("nonnegative", [False, True])
def test_levels(nonnegative: bool) -> None:
    """The code read bit by bit is the one from the formula."""
    codes = torch.arange(256 if nonnegative else 128, dtype=torch.uint8)
    found = oracle.decode(codes, torch.tensor([0.5]), nonnegative=nonnegative)
    assert found.tolist() == (oracle.levels(nonnegative=nonnegative) / 2).tolist()
    if not nonnegative:
        negative = oracle.decode(codes + 128, torch.tensor([0.5]), nonnegative=False)
        assert torch.equal(negative, -found)


@kinds
@pytest.mark.parametrize("spread", [0.0, 2.0, 7.0, 12.0])
@pytest.mark.parametrize("count", [1, 255, 256, 257, 5000])
def test_error_of_the_code(count: int, spread: float, kind: str) -> None:
    """One of the two neighbours; the nearer one for a maximum; what is not zero does not become that by a square."""
    values = varied(count, spread)
    found, exact = stored(values, kind), exact_of(values, kind)
    nonnegative = KINDS[kind]
    scale = oracle.scale_of(largest_of_block(exact).numpy(), nonnegative=nonnegative)
    levels = oracle.levels(nonnegative=nonnegative)
    relative = exact.abs().numpy() / scale
    below = np.searchsorted(levels, relative, side="right") - 1
    lower, upper = levels[below], levels[np.minimum(below + 1, len(levels) - 1)]
    got = found.abs().numpy() / scale
    assert np.all((got == lower) | (got == upper))
    assert bool((found * exact >= 0).all())  # the sign stays
    step = oracle.code_step(exact, largest_of_block(exact).numpy(), nonnegative=nonnegative)
    assert bool(((found - exact).abs() <= step).all())
    assert bool((step <= (1.125 * torch.from_numpy(scale) + exact.abs()) / 16 * 2).all())
    if nonnegative:
        assert bool((found > 0).all())
    if kind == "maximum":
        near = np.abs(got - relative) <= (upper - lower) / 2 + 2.0**-22 * (relative + 1)
        assert np.all(near | (got == levels[1]))


@kinds
def test_relative_error_near_the_top(kind: str) -> None:
    """Root of the mean square, in the highest powers of two."""
    values = torch.randn(200_000).abs() + 0.5
    values[:: oracle.BLOCK] = 7.9
    found, exact = stored(values, kind), exact_of(values, kind)
    error = ((found - exact) / exact).square().mean().sqrt().item()
    assert 0.005 < error < (0.015 if kind == "maximum" else 0.025)


def test_largest_maximum_of_a_block_stays_below_its_power_of_two() -> None:
    """So that storing a number again and again does not let its block grow."""
    values = torch.full((oracle.BLOCK,), 2 - 2.0**-22)
    found, exact = stored(values, "maximum"), exact_of(values, "maximum")
    assert found.max() < 4.0
    assert bool((found >= exact * 15 / 16).all())


def test_order_is_kept_by_a_maximum() -> None:
    values = varied(256, 10.0).abs().sort().values
    assert bool((stored(values, "maximum").diff() >= 0).all())


def test_what_the_code_can_hold_it_keeps() -> None:
    """Writing again what was read changes nothing."""
    values = varied(1000, 6.0)
    values[:: oracle.BLOCK] = 1.5 * 2.0**10
    found = stored(values)
    assert torch.equal(stored(found.float()), found)


@pytest.mark.parametrize("power", [-100, -30, 1, 30, 127])
def test_error_does_not_depend_on_the_scale(power: int) -> None:
    values = varied(300, 3.0)
    values = values / values.abs().max()
    assert torch.equal(stored(values * 2.0**power), stored(values) * 2.0**power)


def test_dither_averages_out_over_the_steps() -> None:
    values = varied(600, 2.0)
    p = torch.nn.Parameter(torch.zeros(600))
    p.grad = values
    optimizer = onepass.Adam([p], lr=0.0, betas=(0.0, 0.0), amsgrad=True, state_dtype="8bit")
    steps = 500
    sums = {key: torch.zeros(600, dtype=torch.float64) for key in ("exp_avg", "exp_avg_sq")}
    maxima = []
    for _ in range(steps):
        optimizer.step()
        found = oracle.states(optimizer, p)
        for key, total in sums.items():
            total += found[key]
        maxima.append(found["max_exp_avg_sq"])
    for key, exact in (("exp_avg", values.double()), ("exp_avg_sq", (values * values).double())):
        largest = largest_of_block(exact).numpy()
        nonnegative = key in oracle.NONNEGATIVE
        step = oracle.code_step(exact, largest, nonnegative=nonnegative)
        error = (sums[key] / steps - exact).abs()
        inside = exact.abs() >= torch.from_numpy(oracle.scale_of(largest, nonnegative=True)) / 16
        assert bool((error <= 0.02 * step)[inside | (not nonnegative)].all())
    assert torch.equal(maxima[0], maxima[-1])  # a maximum does not climb


@pytest.mark.parametrize("kind", ["signed", "nonnegative"])
def test_dither_averages_out_over_a_block(kind: str) -> None:
    values = torch.full((oracle.BLOCK,), 1.234)
    found, exact = stored(values, kind), exact_of(values, kind)
    step = oracle.code_step(exact, exact.max().item(), nonnegative=KINDS[kind])
    assert len(set(found.tolist())) == 2
    assert abs(found.mean() - exact[0]) <= 0.02 * step[0]


def test_slow_average_does_not_stand_still() -> None:
    """With beta2 = 0.999 an average moves by less than half a step of the code, so rounding to nearest would hold it."""
    p = torch.nn.Parameter(torch.zeros(2 * oracle.BLOCK))
    optimizer = onepass.Adam([p], lr=0.0, betas=(0.9, 0.999), state_dtype="8bit")
    for step in range(4000):
        p.grad = torch.full_like(p, 1.0 if step < 200 else 0.1)
        optimizer.step()
    found = oracle.states(optimizer, p)["exp_avg_sq"].mean().item()
    start = 1 - 0.999**200
    exact = start * 0.999**3800 + 0.01 * (1 - 0.999**3800)
    assert found == pytest.approx(exact, rel=0.05)


def test_second_moments_never_vanish() -> None:
    values = torch.logspace(-18, 3, oracle.BLOCK)
    for kind in ("nonnegative", "maximum"):
        assert bool((stored(values, kind) > 0).all())
    p = torch.nn.Parameter(torch.zeros(oracle.BLOCK))
    p.grad = values
    optimizer = onepass.Adam([p], betas=(0.9, 0.5), state_dtype="8bit")
    optimizer.step()
    p.grad = torch.zeros_like(p)
    for _ in range(20):
        optimizer.step()
        assert bool((oracle.states(optimizer, p)["exp_avg_sq"] > 0).all())


@cases.classes
def test_split_at_whole_blocks(case: Case) -> None:
    """The dither depends on the step and on the place in the block, not on the tensor."""
    values, grads = torch.randn(1100), torch.randn(3, 1100)
    results = []
    for sizes in ([1100], [256, 844], [512, 256, 332]):
        params = [torch.nn.Parameter(x.clone()) for x in torch.split(values, sizes)]
        optimizer = case.ours(params, state_dtype="8bit")
        for row in grads:
            for p, g in zip(params, torch.split(row, sizes), strict=True):
                p.grad = g.clone()
            optimizer.step()
        results.append(
            {
                key: torch.cat([optimizer.state[p][key] for p in params])
                for key in optimizer.state[params[0]]
                if key != "step"
            }
            | {"param": torch.cat([p.detach() for p in params])}
        )
    for other in results[1:]:
        for key, value in results[0].items():
            tolerances.exact(other[key], value)


@cases.classes
def test_resumes_exactly(case: Case) -> None:
    """The dither goes on where it was, also for SGD, whose state has no count."""
    params = parameters([(700,)])
    optimizer = stepped(case, params, 3, state_dtype="8bit")
    others = twin(params)
    other = case.ours(others)
    other.load_state_dict(saved(optimizer.state_dict()))
    assert other.param_groups[0]["steps_applied"] == 3
    for _ in range(3):
        gradients(params, others)
        optimizer.step()
        other.step()
    tolerances.exact(others[0], params[0])
    for key, value in optimizer.state[params[0]].items():
        assert torch.equal(torch.as_tensor(other.state[others[0]][key]), torch.as_tensor(value))


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
                assert bool(value[256:512].isnan().all())
                assert bool(value[:256].isfinite().all())
                assert bool(value[512:].isfinite().all())
    assert not bool(p[300].isfinite())
    assert bool(p[:256].isfinite().all())
    assert bool(p[512:].isfinite().all())


@pytest.mark.parametrize("size", [1e-45, 1e-40, 1e-38])
def test_numbers_that_are_too_small_stay_small(size: float) -> None:
    values = torch.full((300,), size)
    for kind, nonnegative in KINDS.items():
        found, exact = stored(values, kind), exact_of(values, kind)
        assert bool(
            ((found - exact).abs() <= oracle.code_step(exact, size, nonnegative=nonnegative)).all()
        )


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


ERROR = {None: 0.0, torch.float32: 0.0, torch.bfloat16: 2.0**-8, "8bit": 0.0}


def coded(to: Any, key: str, terms: torch.Tensor) -> torch.Tensor:
    """Return by how much one writing of a state in 8 bits may be off; 0 in floating point."""
    if to != "8bit" or not terms.numel():
        return torch.zeros_like(terms)
    return oracle.code_step(terms, terms.max().item(), nonnegative=key in oracle.NONNEGATIVE)


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
            limit = coded(to, key, terms)
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
        limit = coded(to, key, before[key].abs())
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
