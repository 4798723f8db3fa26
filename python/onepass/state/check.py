"""Whether parameter, gradient and state fit together: what cannot be mended is an error that names the parameter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from onepass import _core
from onepass.hyper.spec import Group, Spec
from onepass.state.names import ANCHOR, EMA, MASTER, READABLE, States, code_key, name_of, scale_key


def fits_storage(tensor: torch.Tensor) -> bool:
    """Return whether the storage of a tensor is large enough for it; that of another kind of tensor is not looked at."""
    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter)
    if not plain or tensor.device.type not in ("cpu", "cuda") or tensor.layout != torch.strided:
        return True
    if tensor.numel() == 0:
        return True
    last = sum(
        (size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )
    end = (tensor.storage_offset() + last + 1) * tensor.itemsize
    return tensor.untyped_storage().nbytes() >= end


def refuse(groups: list[Group], g: int, i: int) -> None:
    """Raise for a parameter whose gradient does not fit it, or where one of both lacks memory."""
    p = groups[g]["params"][i]
    if p.is_inference():
        problem = (
            "is an inference tensor, which cannot be changed in place outside of inference mode"
        )
    elif p.grad.shape != p.shape:
        problem = f"has shape {tuple(p.shape)}, its gradient {tuple(p.grad.shape)}"
    elif not fits_storage(p):
        problem = _storage_problem(p)
    elif not fits_storage(p.grad):
        problem = f"cannot be stepped: its gradient {_storage_problem(p.grad)}"
    else:
        problem = "or its gradient has no memory"
    message = f"{name_of(groups, g, i)} {problem}; nothing was updated"
    raise RuntimeError(message)


def _storage_problem(tensor: torch.Tensor) -> str:
    size = tensor.untyped_storage().nbytes()
    if size == 0:
        return "has no memory: its storage was resized to 0"
    return f"does not fit its storage, which was resized to {size} bytes"


def is_for_torch(p: torch.Tensor) -> bool:
    """Return whether torch's step can do what the kernels cannot: a zero without memory, an inference tensor in its mode."""
    zero = p.grad is not None and p.grad._is_zerotensor()
    return zero or (p.is_inference() and torch.is_inference_mode_enabled())


def diagnose(spec: Spec, groups: list[Group], states: States, g: int, i: int) -> None:
    """Raise if the state of a parameter cannot be completed or converted."""
    p = groups[g]["params"][i]
    problem = problem_of(spec, states.get(p, {}), p)
    if problem:
        message = f"state of {name_of(groups, g, i)}: {problem}; nothing was updated"
        raise RuntimeError(message)


def problem_of(spec: Spec, state: Any, p: torch.Tensor) -> str | None:
    """Return what is wrong with the state of a parameter, if anything is that `complete` cannot mend."""
    if not isinstance(state, dict):
        return f"must be a dict, got {type(state).__name__}"
    return _step_problem(spec, state) or _missing(spec, state) or _misfit(spec, state, p)


def is_missing(state: Mapping[str, Any], key: str) -> bool:
    """Return whether a state is there neither as numbers nor in 8 bits."""
    return state.get(key) is None and state.get(code_key(key)) is None


def _step_problem(spec: Spec, state: Mapping[str, Any]) -> str | None:
    if not spec.counted:
        return None
    if "step" not in state:
        known = next((key for key in spec.states if not is_missing(state, key)), None)
        return None if known is None else "'step' is missing"
    step = state["step"]
    if isinstance(step, torch.Tensor):
        if step.numel() != 1:
            return f"'step' must hold one number, got {step.numel()}"
        if step.device.type == "meta":
            return "'step' is on the device meta"
        if not fits_storage(step):
            return f"'step' {_storage_problem(step)}"
    elif not hasattr(step, "__float__"):
        return f"'step' must be a number >= 0, got {step!r}"
    number = float(step)
    return None if 0 <= number < math.inf else f"'step' must be a number >= 0, got {number!r}"


def _missing(spec: Spec, state: Mapping[str, Any]) -> str | None:
    """Name a part that every parameter has once it has stepped, where this one has."""
    if not spec.counted:  # without a count, a parameter that has no state has not stepped
        return None
    missing = [key for key in spec.core if is_missing(state, key)]
    stepped = (
        float(state.get("step", 0)) > 0
        or any(not is_missing(state, key) for key in spec.states)
        or state.get(MASTER) is not None  # while an average may be given before the first step
    )
    return f"{missing[0]!r} is missing" if missing and stepped else None


def _misfit(spec: Spec, state: Mapping[str, Any], p: torch.Tensor) -> str | None:
    for key in (*spec.states, *map(code_key, spec.states), EMA, MASTER, ANCHOR):
        value = state.get(key)
        if value is None:
            continue
        if not isinstance(value, torch.Tensor):
            return f"{key!r} must be a tensor, got {type(value).__name__}"
        if value.shape != p.shape:
            return f"{key!r} has shape {tuple(value.shape)}, the parameter {tuple(p.shape)}"
        if value.device.type == "meta" != p.device.type:
            return f"{key!r} has no memory: it is on the device meta"
        if key in spec.states and p.dtype in READABLE and value.dtype not in READABLE:
            return f"{key!r} must be float32, float64, bfloat16 or float16, got {value.dtype}"
        if not fits_storage(value):
            return f"{key!r} {_storage_problem(value)}"
    for key in spec.states:
        if state.get(code_key(key)) is None:
            continue
        scales, blocks = state.get(scale_key(key)), -(-p.numel() // _core.quantized_block)
        if (
            not isinstance(scales, torch.Tensor)
            or scales.dtype != torch.float32
            or scales.numel() != blocks
            or scales.device.type == "meta" != p.device.type
            or not fits_storage(scales)
        ):
            return f"{scale_key(key)!r} must be a float32 tensor of {blocks} elements"
    return None
