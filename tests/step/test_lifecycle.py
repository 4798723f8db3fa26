"""What happens to parameters, gradients and state between two steps: the next step sees it."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
import weakref
from typing import Any

import pytest
import torch
from torch import nn

from tests import cases, tolerances
from tests.cases import Case
from tests.helpers import assert_same, expected_step, gradients, parameters, state_of, twin

SHAPES = [(5, 7), (70,), (2, 3)]


def pair(case: Case, shapes: Any = SHAPES, **more: Any) -> tuple[list[Any], list[Any], Any, Any]:
    ours = parameters(shapes)
    theirs = twin(ours)
    return ours, theirs, case.ours(ours, **more), case.torchs(theirs, **more)


@cases.all_cases
def test_late_first_gradient(case: Case) -> None:
    """Torch's fused SGD with momentum raises TypeError when a parameter gets its first gradient after others."""
    ours, theirs, optimizer, torchs = pair(case)
    for step in range(6):
        for params in (ours, theirs):
            for p in params:
                p.grad = None
        count = 1 + step // 2
        gradients(ours[:count], theirs[:count])
        optimizer.step()
        torchs.step()
        if case.name != "Adagrad":  # makes its state at once
            assert [p in optimizer.state for p in ours] == [p in torchs.state for p in theirs]
    assert_same(optimizer, torchs, **tolerances.accumulated(6))


@cases.all_cases
def test_gradients_that_come_and_go(case: Case) -> None:
    """A parameter without gradient keeps its value, its state and its own step count."""
    ours, theirs, optimizer, torchs = pair(case)
    for step in range(9):
        gradients(ours, theirs)
        idle = step % 3
        ours[idle].grad = theirs[idle].grad = None
        value, state = (
            ours[idle].detach().clone(),
            copy.deepcopy(dict(optimizer.state.get(ours[idle], {}))),
        )
        optimizer.step()
        torchs.step()
        tolerances.exact(ours[idle], value)
        for key, tensor in state.items():
            tolerances.exact(optimizer.state[ours[idle]][key], tensor)
    assert_same(optimizer, torchs, **tolerances.accumulated(9))


@cases.classes
def test_no_gradients_at_all(case: Case) -> None:
    ours, _, optimizer, torchs = pair(case)
    before = [p.detach().clone() for p in ours]
    optimizer.step()
    torchs.step()
    for p, value in zip(ours, before, strict=True):
        tolerances.exact(p, value)
    assert_same(optimizer, torchs, rtol=0, atol=0)


@cases.classes
def test_frozen_parameters(case: Case) -> None:
    """A frozen parameter is not even decayed; one that has a gradient moves, whatever requires_grad says."""
    ours, theirs, optimizer, torchs = pair(case, weight_decay=0.1)
    for params in (ours, theirs):
        params[0].requires_grad_(False)
    for _ in range(3):
        gradients(ours[1:], theirs[1:])
        optimizer.step()
        torchs.step()
    gradients(ours, theirs)
    optimizer.step()
    torchs.step()
    assert_same(optimizer, torchs, **tolerances.accumulated(4))


@cases.classes
def test_data_swapped(case: Case) -> None:
    """`p.data = other`: the same parameter lives elsewhere, in another layout."""
    ours, theirs, optimizer, torchs = pair(case)
    for step in range(6):
        gradients(ours, theirs)
        optimizer.step()
        torchs.step()
        if step == 1:
            for p in (*ours, *theirs):
                p.data = p.data.clone()
        if step == 3:
            for p in (*ours, *theirs):
                if p.dim() == 2:
                    p.data = p.data.t().contiguous().t()
    assert_same(optimizer, torchs, **tolerances.accumulated(6))


@cases.classes
def test_old_memory_is_left_alone(case: Case) -> None:
    """No address is kept from one step to the next."""
    (p,) = parameters([(70,)])
    optimizer = case.ours([p])
    gradients([p])
    optimizer.step()
    old = p.data
    value = old.clone()
    p.data = old.clone()
    gradients([p])
    optimizer.step()
    tolerances.exact(old, value)
    assert not torch.equal(p.data, value)


@cases.classes
def test_vector_to_parameters(case: Case) -> None:
    """Parameters become views of one vector."""
    ours, theirs, optimizer, torchs = pair(case)
    for step in range(4):
        gradients(ours, theirs)
        optimizer.step()
        torchs.step()
        if step == 1:
            for params in (ours, theirs):
                vector = nn.utils.parameters_to_vector(params).detach().clone()
                nn.utils.vector_to_parameters(vector, params)
    assert_same(optimizer, torchs, **tolerances.accumulated(4))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
@cases.rules
def test_module_converted_to_another_dtype(case: Case, dtype: torch.dtype) -> None:
    """Torch's own Adam raises on `module.to(float64)` between steps; ours reads the state as it is."""
    module = nn.Linear(9, 7)
    optimizer = case.ours(module.parameters())
    for step in range(5):
        params = list(module.parameters())
        gradients(params)
        want = [expected_step(case, optimizer, p) for p in params]
        optimizer.step()
        for p, (value, magnitude, state) in zip(params, want, strict=True):
            tolerances.one_rounding(p, value, magnitude)
            for key in case.state_keys:
                stored = optimizer.state[p][key]
                assert stored.shape == p.shape
                near = 1e-2 if stored.dtype.itemsize == 2 else 1e-4
                torch.testing.assert_close(
                    stored.to(torch.float64), state[key], rtol=near, atol=near / 10
                )
        if step == 1:
            module.to(dtype)
            assert module.weight.dtype == dtype


@cases.classes
def test_conversion_to_float64_is_computed_in_float64(case: Case) -> None:
    """After the conversion float32 state must not make float64 parameters less exact than its own rounding."""
    module = nn.Linear(9, 7)
    optimizer = case.ours(module.parameters())
    gradients(list(module.parameters()))
    optimizer.step()
    module.to(torch.float64)
    (p, _) = params = list(module.parameters())
    gradients(params)
    value, magnitude, _ = expected_step(case, optimizer, p)
    optimizer.step()
    torch.testing.assert_close(p.detach(), value, rtol=1e-13, atol=1e-13 * float(magnitude.max()))


@cases.rules
def test_state_tensors_replaced(case: Case) -> None:
    ours, theirs, optimizer, torchs = pair(case)
    for step in range(6):
        gradients(ours, theirs)
        optimizer.step()
        torchs.step()
        for opt, params in ((optimizer, ours), (torchs, theirs)):
            for p in params:
                for key, value in opt.state[p].items():
                    if step == 1:
                        opt.state[p][key] = value.clone()
                    elif step == 2:
                        value.data = value.data.clone()
                    elif step == 3:
                        value.share_memory_()
                    elif step == 4:
                        value.mul_(0.5)
    assert_same(optimizer, torchs, **tolerances.accumulated(6))


@cases.rules
def test_state_is_updated_in_place(case: Case) -> None:
    """The tensors in `state[p]` are the state: clients that hold them see the step."""
    (p,) = parameters([(70,)])
    optimizer = case.ours([p])
    gradients([p])
    optimizer.step()
    held = dict(optimizer.state[p])
    addresses = {key: value.data_ptr() for key, value in held.items()}
    before = {key: value.clone() for key, value in held.items()}
    gradients([p])
    optimizer.step()
    assert set(optimizer.state[p]) == set(held)
    for key, value in held.items():
        assert optimizer.state[p][key] is value
        assert value.data_ptr() == addresses[key]
        assert not torch.equal(value, before[key])


@cases.rules
def test_shared_memory(case: Case) -> None:
    ours, theirs, optimizer, torchs = pair(case)
    for step in range(4):
        gradients(ours, theirs)
        optimizer.step()
        torchs.step()
        if step == 1:
            for p in ours:
                p.share_memory_()
                for value in optimizer.state[p].values():
                    value.share_memory_()
    assert all(p.is_shared() for p in ours)
    assert_same(optimizer, torchs, **tolerances.accumulated(4))


def test_adagrad_share_memory() -> None:
    case = cases.BY_ID["adagrad-all"]
    ours, theirs, optimizer, torchs = pair(case)
    optimizer.share_memory()
    assert all(optimizer.state[p]["sum"].is_shared() for p in ours)
    for _ in range(3):
        gradients(ours, theirs)
        optimizer.step()
        torchs.step()
    assert all(optimizer.state[p]["sum"].is_shared() for p in ours)
    assert_same(optimizer, torchs, **tolerances.accumulated(3))


@cases.classes
def test_state_cleared(case: Case) -> None:
    """`optimizer.state.clear()` or an emptied `state[p]` starts that parameter anew."""
    (p, q) = parameters([(70,), (70,)])
    optimizer = case.ours([p, q])
    gradients([p, q])
    optimizer.step()
    optimizer.state[p].clear()
    gradients([p, q])
    fresh = expected_step(case, optimizer, p)
    kept = expected_step(case, optimizer, q)
    optimizer.step()
    tolerances.one_rounding(p, *fresh[:2])
    tolerances.one_rounding(q, *kept[:2])
    optimizer.state.clear()
    gradients([p, q])
    want = [expected_step(case, optimizer, x) for x in (p, q)]
    optimizer.step()
    for x, (value, magnitude, _) in zip((p, q), want, strict=True):
        tolerances.one_rounding(x, value, magnitude)
        if case.name != "SGD":
            assert float(optimizer.state[x]["step"]) == 1


def test_momentum_buffer_of_none_is_a_first_step() -> None:
    """Torch's checkpoints hold `momentum_buffer: None` for parameters that have not stepped."""
    case = cases.BY_ID["sgd-dampening"]
    ours, theirs, optimizer, torchs = pair(case)
    for opt, params in ((optimizer, ours), (torchs, theirs)):
        for p in params:
            opt.state[p]["momentum_buffer"] = None
    for _ in range(2):
        gradients(ours, theirs)
        optimizer.step()
        torchs.step()
    assert_same(optimizer, torchs, **tolerances.accumulated(2))


@cases.classes
def test_add_param_group(case: Case) -> None:
    """Groups added during training, to Adagrad too, on which torch's own step fails (no state)."""
    ours = parameters(SHAPES)
    optimizer = case.ours(ours[:1])
    gradients(ours[:1])
    optimizer.step()
    optimizer.add_param_group({"params": ours[1:], "lr": 0.03})
    assert set(optimizer.param_groups[1]) == set(optimizer.param_groups[0])
    for _ in range(3):
        gradients(ours)
        want = [
            expected_step(case, optimizer, p, lr=0.03 if i else case.hyper["lr"])
            for i, p in enumerate(ours)
        ]
        optimizer.step()
        for p, (value, magnitude, _) in zip(ours, want, strict=True):
            tolerances.one_rounding(p, value, magnitude)


@cases.classes
def test_deepcopy(case: Case) -> None:
    (p,) = parameters([(70,)])
    optimizer = case.ours([p], l1_decay=0.01)
    gradients([p])
    optimizer.step()
    q, copied = copy.deepcopy((p, optimizer))
    assert copied.param_groups[0]["params"][0] is q
    assert type(copied) is type(optimizer)
    for _ in range(2):
        gradients([p], [q])
        optimizer.step()
        copied.step()
    tolerances.exact(p, q)
    for key in case.state_keys:
        assert copied.state[q][key] is not optimizer.state[p][key]
        tolerances.exact(copied.state[q][key], optimizer.state[p][key])


@cases.classes
def test_copies_of_states_that_are_empty(case: Case) -> None:
    """`state[p]` of a parameter without state leaves an empty one behind, which torch's Adagrad cannot copy."""
    p, q = parameters([(3,), (3,)])
    optimizer = case.ours([p])
    optimizer.state.clear()
    assert not optimizer.state[q]
    optimizer.add_param_group({"params": q})
    for copied in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        gradients(*[group["params"] for group in copied.param_groups])
        copied.step()
        assert all(set(case.state_keys) <= set(state) for state in copied.state.values())
    optimizer.load_state_dict(optimizer.state_dict())


@cases.classes
def test_pickle(case: Case) -> None:
    (p,) = parameters([(70,)])
    optimizer = case.ours([p], l1_decay=0.01)
    gradients([p])
    optimizer.step()
    q, restored = pickle.loads(pickle.dumps((p, optimizer)))
    for _ in range(2):
        gradients([p], [q])
        optimizer.step()
        restored.step()
    tolerances.exact(p, q)
    assert restored.defaults == optimizer.defaults
    assert repr(restored) == repr(optimizer)


@pytest.mark.parametrize("name", ["SGD", "Adagrad", "RMSprop", "Adam", "AdamW"])
def test_pickle_keeps_the_scaler_protocol(name: str) -> None:
    (case,) = [c for c in cases.CLASSES if c.name == name]
    restored = pickle.loads(pickle.dumps(case.ours(parameters([(2,)]), fused=True)))
    assert restored._step_supports_amp_scaling
    plain = pickle.loads(pickle.dumps(case.ours(parameters([(2,)]))))
    assert not getattr(plain, "_step_supports_amp_scaling", False)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_amsgrad_switched_on_later(name: str) -> None:
    """Torch's Adam fails with KeyError: the maximum starts at zero."""
    case = cases.BY_ID[name]
    (p,) = parameters([(70,)])
    optimizer = case.ours([p])
    for step in range(5):
        optimizer.param_groups[0]["amsgrad"] = step in (2, 3)
        gradients([p])
        value, magnitude, _ = expected_step(case, optimizer, p, amsgrad=step in (2, 3))
        optimizer.step()
        tolerances.one_rounding(p, value, magnitude)


@pytest.mark.parametrize("name", ["sgd", "rmsprop", "rmsprop-centered"])
def test_momentum_switched_on_and_off(name: str) -> None:
    case = cases.BY_ID[name]
    (p,) = parameters([(70,)])
    optimizer = case.ours([p])
    for step in range(7):
        momentum = 0.9 if step in (2, 3, 5) else 0.0
        optimizer.param_groups[0]["momentum"] = momentum
        gradients([p])
        value, magnitude, state = expected_step(case, optimizer, p, momentum=momentum)
        optimizer.step()
        tolerances.one_rounding(p, value, magnitude)
        stored = state_of(optimizer, p)
        if "momentum_buffer" in state:
            torch.testing.assert_close(
                stored["momentum_buffer"], state["momentum_buffer"], rtol=1e-4, atol=1e-5
            )
        else:
            assert "momentum_buffer" not in stored


def test_centered_switched_on_later() -> None:
    case = cases.BY_ID["rmsprop-momentum"]
    (p,) = parameters([(70,)])
    optimizer = case.ours([p])
    for step in range(5):
        optimizer.param_groups[0]["centered"] = step > 1
        gradients([p])
        value, magnitude, _ = expected_step(case, optimizer, p, centered=step > 1)
        optimizer.step()
        tolerances.one_rounding(p, value, magnitude)


@cases.classes
def test_lazy_modules(case: Case) -> None:
    """Parameters that get their shape in the first forward pass, after the optimizer was made."""
    if case.name == "Adagrad":
        pytest.skip("torch's Adagrad makes its state in the constructor, from the shape")
    for make in (case.ours, case.torchs):
        model = nn.LazyLinear(4)
        optimizer = make(model.parameters())
        optimizer.step()
        loss: Any = model(torch.randn(3, 5)).sum()
        loss.backward()
        before = model.weight.detach().clone()
        optimizer.step()
        assert not torch.equal(model.weight, before)


@cases.classes
def test_step_count_in_other_forms(case: Case) -> None:
    """A number, an integer tensor, float64, one dimension: read as it is or converted."""
    if case.name == "SGD":
        pytest.skip("SGD keeps no count")
    for form in (
        3,
        3.0,
        torch.tensor(3),
        torch.tensor(3.0, dtype=torch.float64),
        torch.tensor([3.0]),
        torch.tensor(3.0, dtype=torch.bfloat16),
    ):
        (p,) = parameters([(70,)])
        optimizer = case.ours([p])
        gradients([p])
        optimizer.step()
        optimizer.state[p]["step"] = form
        gradients([p])
        state = {
            key: value.to(torch.float64)
            for key, value in optimizer.state[p].items()
            if key != "step"
        }
        from tests import reference

        assert p.grad is not None
        value, magnitude = reference.step(
            case.name, case.hyper, p.detach().clone(), p.grad, {**state, "step": 3}
        )
        optimizer.step()
        tolerances.one_rounding(p, value, magnitude)
        assert float(optimizer.state[p]["step"]) == 4


def test_default_dtype_of_float64() -> None:
    """`torch.set_default_dtype(float64)` makes torch's step counts float64; so ours."""
    case = cases.BY_ID["adam"]
    torch.set_default_dtype(torch.float64)
    try:
        ours, theirs, optimizer, torchs = pair(case)
        for _ in range(2):
            gradients(ours, theirs)
            optimizer.step()
            torchs.step()
        assert optimizer.state[ours[0]]["step"].dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert_same(optimizer, torchs, **tolerances.accumulated(2))


@cases.rules
def test_steps_in_inference_mode(case: Case) -> None:
    ours, theirs, optimizer, torchs = pair(case)
    for _ in range(3):
        gradients(ours, theirs)
        with torch.inference_mode():
            optimizer.step()
            torchs.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, **tolerances.accumulated(3))


@cases.classes
def test_zero_grad(case: Case) -> None:
    (p,) = parameters([(5,)])
    optimizer = case.ours([p])
    gradients([p])
    optimizer.zero_grad(set_to_none=False)
    assert p.grad is not None
    assert not p.grad.any()
    optimizer.zero_grad()
    assert p.grad is None


@cases.classes
def test_nothing_is_kept_alive(case: Case) -> None:
    """A step leaves no reference to gradients or parameters behind."""
    (p, q) = parameters([(70,), (5,)])
    optimizer = case.ours([p, q])
    gradients([p, q])
    optimizer.step()
    counts = [sys.getrefcount(x) for x in (p, q)]
    for _ in range(20):
        gradients([p, q])
        optimizer.step()
    assert [sys.getrefcount(x) for x in (p, q)] == counts
    grad = weakref.ref(p.grad)
    p.data = torch.zeros(3)
    with pytest.raises(RuntimeError):
        optimizer.step()
    optimizer.zero_grad()
    gc.collect()
    assert grad() is None
