"""State of parameters: made when it is first needed, checked before it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from onepass.optim.base import Group, OnePass

_READABLE = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def name_of(groups: list[Group], g: int, i: int) -> str:
    """Return how messages call a parameter."""
    names = groups[g].get("param_names")
    name = f" ({names[i]!r})" if names else ""
    return f"parameter {i} of group {g}{name}"


def refuse(groups: list[Group], g: int, i: int) -> None:
    """Raise for a parameter whose gradient does not fit it, or without memory."""
    p = groups[g]["params"][i]
    grad = p.grad
    if grad.shape != p.shape:
        problem = f"has shape {tuple(p.shape)}, its gradient {tuple(grad.shape)}"
    else:
        problem = "or its gradient has no memory: its storage was resized to 0"
    message = f"{name_of(groups, g, i)} {problem}; nothing was updated"
    raise RuntimeError(message)


def diagnose(
    optimizer: OnePass, groups: list[Group], g: int, i: int, keys: tuple[str, ...]
) -> None:
    """Raise if the state of a parameter cannot be completed or converted."""
    p = groups[g]["params"][i]
    state = optimizer.state.get(p, {})
    problem = _problem(state, p, optimizer.core_keys, keys, optimizer.counted)
    if problem:
        message = f"state of {name_of(groups, g, i)}: {problem}; nothing was updated"
        raise RuntimeError(message)


def _problem(
    state: Any, p: torch.Tensor, core: tuple[str, ...], keys: tuple[str, ...], counted: bool
) -> str | None:
    if not isinstance(state, dict):
        return f"must be a dict, got {type(state).__name__}"
    missing = [key for key in core if state.get(key) is None]
    if missing and len(missing) < len(core):
        return f"{missing[0]!r} is missing"
    for key in keys:
        value = state.get(key)
        if value is None:
            continue
        if not isinstance(value, torch.Tensor):
            return f"{key!r} must be a tensor, got {type(value).__name__}"
        if value.shape != p.shape:
            return f"{key!r} has shape {tuple(value.shape)}, the parameter {tuple(p.shape)}"
        if value.dtype not in _READABLE:
            return f"{key!r} must be float32, float64, bfloat16 or float16, got {value.dtype}"
        if value.numel() and value.device.type == "cpu" and value.untyped_storage().size() == 0:
            return f"{key!r} has no memory: its storage was resized to 0"
    step = state.get("step")
    if counted and step is not None:
        size = step.numel() if isinstance(step, torch.Tensor) else 1
        if size != 1:
            return f"'step' must hold one number, got {size}"
    return None


def complete(optimizer: OnePass, group: Group, i: int, keys: tuple[str, ...]) -> bool:
    """Make the states that are missing and convert those that the kernels cannot read.

    Returns:
        Whether this was the parameter's first step.
    """
    p = group["params"][i]
    state = optimizer.state[p]
    first = any(state.get(key) is None for key in optimizer.core_keys)
    with torch.no_grad():
        step = state.get("step")
        if optimizer.counted and not (
            isinstance(step, torch.Tensor)
            and step.device.type == "cpu"
            and step.dtype in (torch.float32, torch.float64)
        ):
            wide = torch.get_default_dtype() == torch.float64  # as torch chooses
            state["step"] = torch.tensor(
                float(step or 0.0), dtype=torch.float64 if wide else torch.float32
            )
        for key in keys:
            if state.get(key) is None:
                state[key] = torch.full_like(
                    p, optimizer.initial_value(key, group), memory_format=torch.preserve_format
                )
            else:
                state[key] = _own_memory(state[key], p)
    return first


def _own_memory(value: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """Return a state as the kernels can write it: on the parameter's device, one address per element."""
    plain = torch.empty_like(p, dtype=value.dtype, memory_format=torch.preserve_format)
    return value if _usable(value) else plain.copy_(value)


def _usable(value: torch.Tensor) -> bool:
    strides = sorted(zip(value.stride(), value.shape, strict=True))
    reach = 0
    for stride, size in strides:
        if size > 1 and stride <= reach:
            return False
        reach += (size - 1) * stride
    return value.device.type == "cpu" and value.layout is torch.strided and not value.is_neg()


def check_loaded(optimizer: OnePass, state_dict: dict[str, Any]) -> None:
    """Raise ValueError if a checkpoint's states are not those of the optimizer's parameters."""
    groups = optimizer.param_groups
    for g, (own, saved) in enumerate(zip(groups, state_dict["param_groups"], strict=False)):
        for i, (p, key) in enumerate(zip(own["params"], saved["params"], strict=False)):
            state = state_dict["state"].get(key)
            if not state:
                continue
            tensors = {k: v for k, v in state.items() if k in optimizer.state_keys}
            problem = _problem(tensors, p, optimizer.core_keys, tuple(tensors), counted=False)
            if problem:
                message = f"checkpoint does not fit {name_of(groups, g, i)}: {problem}; nothing was loaded"
                raise ValueError(message)
