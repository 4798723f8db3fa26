"""master_weights: bfloat16 and float16 parameters on the trajectory of float32 weights."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import onepass
from tests import cases, tolerances
from tests.cases import Case
from tests.helpers import allow_gradients_of, parameters
from tests.one_pass import oracle

SHAPES = [(5, 7), (700,), ()]


def without_ties(x: torch.Tensor) -> torch.Tensor:
    """Return float32 numbers as bfloat16 and 16 more bits hold them.

    Halfway between two bfloat16 numbers of which the lower one is even there is one number in 2^17 that has no pair
    of its own; it becomes its neighbour below in magnitude.
    """
    bits = x.detach().view(torch.int32)
    tie = ((bits & 0x1FFFF) == 0x8000) & x.isfinite()
    return (bits - tie.to(torch.int32)).view(torch.float32)


def whole(optimizer: Any, p: torch.Tensor) -> torch.Tensor:
    return oracle.weights(optimizer, p).to(torch.float32)


def pair(
    case: Case, dtype: torch.dtype, shapes: Any = SHAPES, **options: Any
) -> tuple[list[Any], Any, list[Any], Any]:
    """Return low-precision parameters with master weights, and float32 ones that start the same."""
    low = parameters(shapes, dtype)
    full = [torch.nn.Parameter(p.detach().to(torch.float32)) for p in low]
    return low, case.ours(low, master_weights=True, **options), full, case.ours(full, **options)


def same_gradients(low: list[Any], full: list[Any], dtype: torch.dtype) -> None:
    for p, q in zip(low, full, strict=True):
        grad = torch.randn(p.shape).to(dtype)
        allow_gradients_of(p, dtype)
        p.grad, q.grad = grad, grad.to(torch.float32)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"state_dtype": torch.bfloat16},
    {"state_dtype": "8bit"},
    {"weight_decay": 0.1, "l1_decay": 0.05, "max_grad_norm": 3.0, "max_grad_value": 0.1},
    {"l1_decay": 0.05, "l1_mode": "subgradient", "ema_decay": 0.5},
    {"rounding": "stochastic"},  # has nothing to round where there is a master
]


@pytest.mark.parametrize("gradients", ["its-own", "float32"])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o) or "plain")
@cases.halves
@cases.rules
def test_trajectory_is_that_of_float32(
    case: Case, dtype: torch.dtype, options: dict[str, Any], gradients: str
) -> None:
    low, a, full, b = pair(case, dtype, **options)
    for _ in range(4):
        same_gradients(low, full, dtype if gradients == "its-own" else torch.float32)
        a.step()
        b.step()
        for p, q in zip(low, full, strict=True):
            if dtype == torch.bfloat16:
                with torch.no_grad():
                    q.copy_(without_ties(q))
            tolerances.exact(whole(a, p), q)
            tolerances.exact(p, q.to(dtype))  # as torch rounds
            for key, value in b.state.get(q, {}).items():
                tolerances.exact(a.state[p][key], value)


@cases.halves
@cases.classes
def test_small_updates_add_up(case: Case, dtype: torch.dtype) -> None:
    """Updates below the last digit of the parameter: without master weights nothing would move."""
    p = torch.nn.Parameter(torch.ones(9, dtype=dtype))
    q = torch.nn.Parameter(torch.ones(9))
    optimizer = case.ours([p], lr=1e-5, master_weights=True)
    other = case.ours([q], lr=1e-5)
    sign = -1.0 if case.hyper["maximize"] else 1.0
    for _ in range(1000):
        p.grad, q.grad = torch.full_like(p, sign), torch.full_like(q, sign)
        optimizer.step()
        other.step()
    assert q[0].item() < 1 - 5e-5
    assert whole(optimizer, p).tolist() == pytest.approx(q.tolist(), rel=1e-6)


@cases.halves
def test_memory(dtype: torch.dtype) -> None:
    (p,) = parameters([(1000,)], dtype)
    optimizer = onepass.SGD([p], master_weights=True)
    p.grad = torch.ones_like(p)
    optimizer.step()
    bytes_used = sum(v.numel() * v.element_size() for v in optimizer.state[p].values())
    assert bytes_used == {torch.bfloat16: 2, torch.float16: 4}[dtype] * 1000


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@cases.classes
def test_wide_parameters_have_none(case: Case, dtype: torch.dtype) -> None:
    (p,) = parameters([(70,)], dtype)
    q = copy.deepcopy(p)
    a, b = case.ours([p], master_weights=True), case.ours([q])
    for _ in range(2):
        p.grad = torch.randn_like(p)
        q.grad = p.grad.clone()
        a.step()
        b.step()
    assert "master" not in a.state[p]
    tolerances.exact(p, q)


def set_to(values: torch.Tensor, dtype: torch.dtype) -> tuple[torch.nn.Parameter, Any]:
    """Return a parameter whose float32 has been set to any numbers: 0 - 1 * (-x)."""
    p = torch.nn.Parameter(torch.zeros(values.shape, dtype=dtype))
    allow_gradients_of(p, torch.float32)
    p.grad = -values
    optimizer = onepass.SGD([p], lr=1.0, master_weights=True)
    optimizer.step()
    p.grad = torch.zeros_like(values)
    return p, optimizer


def many_floats() -> torch.Tensor:
    """Return float32 numbers of every exponent and sign, with low bits around the halfway points."""
    high = torch.arange(0, 2**15, 5, dtype=torch.int32) << 16
    low = torch.tensor([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF, 0x1234], dtype=torch.int32)
    bits = (high[:, None] | low[None, :]).reshape(-1)
    values = bits.view(torch.float32)
    values = values[values.isfinite()]
    return torch.cat([values, -values])


def test_every_float32_is_kept_by_bfloat16() -> None:
    values = many_floats()
    p, optimizer = set_to(values, torch.bfloat16)
    for _ in range(3):  # reading and writing again changes nothing
        assert torch.equal(whole(optimizer, p), without_ties(values))
        assert torch.equal(p.detach(), values.to(torch.bfloat16))
        optimizer.step()


def test_every_float32_is_kept_by_float16() -> None:
    """Those beyond the range of float16, too, whose parameter is infinite."""
    values = many_floats()
    p, optimizer = set_to(values, torch.float16)
    for _ in range(3):
        assert torch.equal(whole(optimizer, p), values)
        assert torch.equal(p.detach(), values.to(torch.float16))
        optimizer.step()


def test_the_one_value_that_collapses() -> None:
    even, odd = 1 + 2.0**-8, 1 + 2.0**-7 + 2.0**-8  # halfway, above an even and an odd bfloat16
    p, optimizer = set_to(torch.tensor([even, -even, odd, -odd]), torch.bfloat16)
    below = even - 2.0**-23
    assert whole(optimizer, p).tolist() == [below, -below, odd, -odd]
    assert p.tolist() == [1.0, -1.0, 1 + 2.0**-6, -1 - 2.0**-6]


@cases.halves
def test_nonfinite_numbers(dtype: torch.dtype) -> None:
    inf = float("inf")
    p, optimizer = set_to(torch.tensor([inf, -inf, float("nan"), 1.1]), dtype)
    for _ in range(2):
        assert p.tolist()[:2] == [inf, -inf]
        assert bool(p[2].isnan())
        assert whole(optimizer, p)[3].item() == torch.tensor(1.1).item()
        optimizer.step()


@cases.halves
def test_weights_that_others_have_written_count(dtype: torch.dtype) -> None:
    """Loading a model, or resetting a layer, must not be undone by the master: at most half an ulp remains of it."""
    p, optimizer = set_to(torch.full((4,), 1.001), dtype)
    with torch.no_grad():
        p.fill_(3.0)
    optimizer.step()
    assert p.tolist() == [3.0] * 4
    half_ulp = tolerances.spacing(torch.tensor(3.0, dtype=torch.float64), dtype).item() / 2
    assert whole(optimizer, p).tolist() == pytest.approx([3.0] * 4, abs=half_ulp)


@cases.halves
@cases.classes
def test_switched_on_during_training_starts_from_the_parameter(
    case: Case, dtype: torch.dtype
) -> None:
    (p,) = parameters([(70,)], dtype)
    optimizer = case.ours([p], state_dtype=torch.float32)
    p.grad = torch.randn(70).to(dtype)
    optimizer.step()
    optimizer.param_groups[0]["master_weights"] = True
    (q,) = [torch.nn.Parameter(p.detach().float())]
    other = case.ours([q])
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    other.param_groups[0]["master_weights"] = False
    p.grad = torch.randn(70).to(dtype)
    q.grad = p.grad.float()
    optimizer.step()
    other.step()
    expected = without_ties(q) if dtype == torch.bfloat16 else q
    tolerances.exact(whole(optimizer, p), expected.detach())


def test_exact_zeros_of_l1_stay_zeros() -> None:
    for dtype in cases.HALVES:
        p, optimizer = set_to(torch.tensor([0.01, -0.01, 1.0]), dtype)
        optimizer.param_groups[0]["l1_decay"] = 0.5
        optimizer.step()
        assert p.tolist() == [0.0, 0.0, 0.5]
        assert whole(optimizer, p).tolist() == [0.0, 0.0, 0.5]
