"""One step against the formula in float64: every optimizer, every dtype."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import cases, reference, tolerances
from tests.cases import Case
from tests.helpers import allow_gradients_of, expected_step, gradients, parameters, state_of
from tests.reference import State


@cases.all_dtypes
@cases.all_cases
def test_steps(case: Case, dtype: torch.dtype) -> None:
    """Each step starts from the state as it is stored, so that only the one rounding on write may be seen."""
    (p,) = parameters([(67,)], dtype)
    optimizer = case.ours([p])
    for _ in range(4):
        gradients([p])
        value, magnitude, state = expected_step(case, optimizer, p)
        optimizer.step()
        tolerances.one_rounding(p, value, magnitude)
        stored = optimizer.state.get(p, {})
        assert {key for key in stored if key != "step"} == set(case.state_keys)
        for key in case.state_keys:
            assert stored[key].dtype == dtype
            if key == "momentum_buffer":
                size = magnitude / case.hyper["lr"]
            else:  # made of terms like g and g^2, of the order of 1
                size = state[key].abs() + 4
            tolerances.one_rounding(stored[key], state[key], size)
        if "step" in stored:
            assert float(stored["step"]) == state["step"]


@cases.all_cases
def test_long_training_in_float64(case: Case) -> None:
    (p,) = parameters([(5, 7)], torch.float64)
    optimizer = case.ours([p])
    value, state = p.detach().clone(), State()
    for _ in range(100):
        p.grad = torch.randn_like(p) + p.detach()
        value, _ = reference.step(case.name, case.hyper, value, p.grad, state)
        optimizer.step()
    torch.testing.assert_close(p.detach(), value, **tolerances.accumulated(100, torch.float64))


@cases.all_cases
def test_long_training_in_float32(case: Case) -> None:
    (p,) = parameters([(5, 7)])
    optimizer = case.ours([p])
    value, state = p.detach().to(torch.float64), State()
    for _ in range(100):
        p.grad = torch.randn_like(p) + p.detach()
        value, _ = reference.step(case.name, case.hyper, value, p.grad, state)
        optimizer.step()
    torch.testing.assert_close(p.detach().to(torch.float64), value, **tolerances.accumulated(100))


@cases.halves
@cases.all_cases
def test_every_element_of_low_precision_moves(case: Case, dtype: torch.dtype) -> None:
    """Torch's fused SGD on the CPU leaves whole vectors of bfloat16 and float16 parameters as they were."""
    p = torch.nn.Parameter(torch.ones(131, dtype=dtype))
    optimizer = case.ours([p], lr=0.5)
    before = p.detach().clone()
    for _ in range(3):
        p.grad = torch.full_like(p, -1.0 if case.hyper["maximize"] else 1.0)
        optimizer.step()
        assert bool((p.detach() < before).all())
        assert bool((p.detach() == p.detach()[0]).all())
        before = p.detach().clone()


@cases.halves
@cases.rules
def test_float32_gradients_on_low_precision_parameters(case: Case, dtype: torch.dtype) -> None:
    """Gradients of float32 are used as they are, not rounded to the parameter's dtype first."""
    (p,) = parameters([(67,)], dtype)
    allow_gradients_of(p, torch.float32)
    optimizer = case.ours([p])
    for _ in range(3):
        p.grad = torch.randn(67)
        value, magnitude, _ = expected_step(case, optimizer, p)
        optimizer.step()
        assert p.dtype == dtype
        tolerances.one_rounding(p, value, magnitude)


@cases.all_dtypes
@pytest.mark.parametrize("case", [cases.BY_ID["sgd"], cases.BY_ID["adam"]], ids=str)
def test_zero_gradient_leaves_every_bit_pattern(case: Case, dtype: torch.dtype) -> None:
    """Widening and narrowing are each other's inverse: subnormal numbers, infinities, -0.0 included."""
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    if dtype.itemsize > 2:  # all the exponents of the wider types, with varied digits
        wide = {4: torch.int32, 8: torch.int64}[dtype.itemsize]
        bits = (bits.to(wide) << (8 * dtype.itemsize - 16)) + (bits.to(wide) & 0xFFF)
    start = bits.view(dtype)
    p = torch.nn.Parameter(start.clone())
    p.grad = torch.zeros_like(p)
    case.ours([p]).step()
    number = ~start.isnan()
    tolerances.exact(p[number], start[number])
    assert bool(p[~number].isnan().all())


@given(
    values=st.lists(st.floats(width=32), min_size=1, max_size=80),
    dtype=st.sampled_from(cases.HALVES),
)
def test_writes_round_to_nearest_even(values: list[float], dtype: torch.dtype) -> None:
    """The written number is the float32 result rounded as torch rounds it: ties, overflow, subnormal numbers."""
    x = torch.tensor(values, dtype=torch.float32)
    p = torch.nn.Parameter(torch.zeros(len(values), dtype=dtype))
    allow_gradients_of(p, torch.float32)
    p.grad = -x
    cases.BY_ID["sgd"].ours([p], lr=1.0).step()
    expected = (torch.zeros_like(x) + x).to(dtype)
    number = ~expected.isnan()
    tolerances.exact(p[number], expected[number])
    assert bool(p[~number].isnan().all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@cases.rules
def test_gradients_of_very_different_size(case: Case, dtype: torch.dtype) -> None:
    """A running average must not lose a small gradient in the rounding errors of a large one before."""
    p = torch.nn.Parameter(torch.ones(70, dtype=dtype))
    optimizer = case.ours([p])
    sign = -1 if case.hyper["maximize"] else 1
    for size in (1e-3, 1e3, 1e-3, 1e-3):
        p.grad = torch.full_like(p, sign * size)
        value, magnitude, _ = expected_step(case, optimizer, p)
        optimizer.step()
        tolerances.one_rounding(p, value, magnitude)


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("name", ["adam", "adamw-amsgrad"])
def test_small_beta1_forgets_large_gradients(name: str, beta: float) -> None:
    """With beta1 = 0 the first moment is the gradient, whatever came before."""
    case = cases.BY_ID[name]
    (p,) = parameters([(70,)])
    optimizer = case.ours([p], betas=(beta, 0.5))
    for size in (1.0, 1e6, 1e-2, 1e-2, 1e-2, 1e-2, 1e-2, 1e-2):
        p.grad = torch.randn_like(p) * size
        state = state_of(optimizer, p)
        expected = beta * state.get("exp_avg", torch.zeros(70, dtype=torch.float64)) + (
            1 - beta
        ) * p.grad.to(torch.float64)
        optimizer.step()
        terms = beta * state.get("exp_avg", torch.zeros(())).abs() + p.grad.abs()
        tolerances.one_rounding(optimizer.state[p]["exp_avg"], expected, terms)


@cases.all_cases
def test_nan_and_infinity_stay_where_they_are(case: Case) -> None:
    (p,) = parameters([(67,)])
    optimizer = case.ours([p])
    (q,) = parameters([(67,)])
    with torch.no_grad():
        q.copy_(p)
    theirs = case.torchs([q])
    for bad in (float("nan"), float("inf"), -float("inf")):
        gradients([p], [q])
        assert p.grad is not None
        assert q.grad is not None
        p.grad[13] = q.grad[13] = bad
        optimizer.step()
        theirs.step()
    assert p.isfinite().sum() == 66
    torch.testing.assert_close(p, q, equal_nan=True, **tolerances.accumulated(3))


@cases.rules
def test_empty_and_scalar_parameters(case: Case) -> None:
    """0-d, 1-element and empty tensors, among others."""
    params = parameters([(), (1,), (0,), (1, 1, 1), (3, 0, 4), (2, 2), (0, 3)])
    optimizer = case.ours(params)
    for _ in range(3):
        gradients(params)
        want = [expected_step(case, optimizer, p) for p in params]
        optimizer.step()
        for p, (value, magnitude, state) in zip(params, want, strict=True):
            assert p.shape == value.shape
            tolerances.one_rounding(p, value, magnitude)
            if case.name != "SGD":
                assert float(optimizer.state[p]["step"]) == state["step"]
