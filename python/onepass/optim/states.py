"""State of parameters: made when it is first needed, checked before it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from onepass import _core
from onepass.optim.reading import READER

if TYPE_CHECKING:
    from onepass.optim.base import OnePass
    from onepass.optim.work import Group

EMA, MASTER, ANCHOR = "ema", "master", "anchor"
READABLE = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_KINDS = {
    "exp_avg_sq": 1,
    "sum": 1,
    "square_avg": 1,
    "max_exp_avg_sq": 2,
}  # of the 8-bit code; others have a sign
_HUGE = 4 << 20  # bytes from which a state asks for 2 MiB pages


class Extras(NamedTuple):
    """Names of what a group keeps beyond the states of its rule."""

    scales: tuple[str, ...] = ()
    ema: str | None = None
    master: str | None = None
    anchor: str | None = None


class First(NamedTuple):
    """What completing the state of a parameter has started."""

    step: bool
    average: bool


def code_key(key: str) -> str:
    """Return the name of the bytes of an 8-bit state."""
    return f"{key}_code"


def scale_key(key: str) -> str:
    """Return the name of the block scales of an 8-bit state."""
    return f"{key}_scale"


def name_of(groups: list[Group], g: int, i: int) -> str:
    """Return how messages call a parameter."""
    names = groups[g].get("param_names")
    name = f" ({names[i]!r})" if names else ""
    return f"parameter {i} of group {g}{name}"


def refuse(groups: list[Group], g: int, i: int) -> None:
    """Raise for a parameter whose gradient does not fit it, or without memory."""
    p = groups[g]["params"][i]
    if p.grad.shape != p.shape:
        problem = f"has shape {tuple(p.shape)}, its gradient {tuple(p.grad.shape)}"
    else:
        problem = "or its gradient has no memory: its storage was resized to 0"
    message = f"{name_of(groups, g, i)} {problem}; nothing was updated"
    raise RuntimeError(message)


def has_zero_gradient(p: torch.Tensor) -> bool:
    """Return whether a gradient is torch's zero without memory."""
    return p.grad is not None and p.grad._is_zerotensor()


def diagnose(optimizer: OnePass, groups: list[Group], g: int, i: int) -> None:
    """Raise if the state of a parameter cannot be completed or converted."""
    p = groups[g]["params"][i]
    problem = problem_of(optimizer, optimizer.state.get(p, {}), p)
    if problem:
        message = f"state of {name_of(groups, g, i)}: {problem}; nothing was updated"
        raise RuntimeError(message)


def problem_of(optimizer: OnePass, state: Any, p: torch.Tensor) -> str | None:
    """Return what is wrong with the state of a parameter, if anything is that `complete` cannot mend."""
    if not isinstance(state, dict):
        return f"must be a dict, got {type(state).__name__}"
    core = optimizer.core_keys
    missing = [key for key in core if state.get(key) is None and state.get(code_key(key)) is None]
    if missing and len(missing) < len(core):
        return f"{missing[0]!r} is missing"
    shaped = [*optimizer.state_keys, *map(code_key, optimizer.state_keys), EMA, MASTER, ANCHOR]
    for key in shaped:
        value = state.get(key)
        if value is None:
            continue
        if not isinstance(value, torch.Tensor):
            return f"{key!r} must be a tensor, got {type(value).__name__}"
        if value.shape != p.shape:
            return f"{key!r} has shape {tuple(value.shape)}, the parameter {tuple(p.shape)}"
        if key in optimizer.state_keys and p.dtype in READABLE and value.dtype not in READABLE:
            return f"{key!r} must be float32, float64, bfloat16 or float16, got {value.dtype}"
        plain = type(value) is torch.Tensor and value.device.type in ("cpu", "cuda")
        if plain and value.numel() and value.untyped_storage().size() == 0:
            return f"{key!r} has no memory: its storage was resized to 0"
    for key in optimizer.state_keys:
        if state.get(code_key(key)) is None:
            continue
        scales, blocks = state.get(scale_key(key)), -(-p.numel() // _core.quantised_block)
        if (
            not isinstance(scales, torch.Tensor)
            or scales.dtype != torch.float32
            or scales.numel() != blocks
        ):
            return f"{scale_key(key)!r} must be a float32 tensor of {blocks} elements"
    step = state.get("step")
    if optimizer.counted and step is not None:
        size = step.numel() if isinstance(step, torch.Tensor) else 1
        if size != 1:
            return f"'step' must hold one number, got {size}"
    return None


def complete(
    optimizer: OnePass, group: Group, i: int, keys: Iterable[str], extras: Extras, counted: int
) -> First:
    """Make the states that are missing and convert those that the kernels cannot read.

    `counted` is 0 where steps are not counted, 1 where it is on the CPU, 2 on the device of the parameter.
    """
    p = group["params"][i]
    state = optimizer.state[p]
    core = optimizer.core_keys
    first = First(
        step=all(state.get(key) is None and state.get(code_key(key)) is None for key in core),
        average=extras.ema is not None and state.get(EMA) is None,
    )
    with torch.no_grad(), _no_pool_after_fork():
        if counted:
            _complete_step(state, p.device if counted == 2 else torch.device("cpu"))
        for key in keys:
            if extras.scales:
                _complete_quantised(state, key.removesuffix("_code"), p, optimizer, group)
            else:
                _complete_float(state, key, p, optimizer, group)
        if extras.ema:
            _keep(state, EMA, p, torch.float32)
        if extras.master and p.dtype in (torch.bfloat16, torch.float16):
            _keep(state, MASTER, p, torch.int16 if p.dtype == torch.bfloat16 else torch.float32)
    return first


@contextmanager
def _no_pool_after_fork() -> Iterator[None]:
    """Keep torch from waiting for threads that fork has not copied."""
    threads = torch.get_num_threads()
    if _core.in_forked_child() and threads > 1:
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
    else:
        yield


def _complete_step(state: dict[str, Any], device: torch.device) -> None:
    step = state.get("step")
    floating = isinstance(step, torch.Tensor) and step.dtype in (torch.float32, torch.float64)
    if not floating or step.device != device:  # type: ignore[union-attr]
        wide = torch.get_default_dtype() == torch.float64  # as torch chooses
        dtype = torch.float64 if wide else torch.float32
        number = float(step if step is not None else 0.0)
        state["step"] = torch.tensor(number, dtype=dtype, device=device)


def _complete_float(
    state: dict[str, Any], key: str, p: torch.Tensor, optimizer: OnePass, group: Group
) -> None:
    codes = state.pop(code_key(key), None)
    if state.get(key) is not None:
        state[key] = _own_memory(state[key], p)
    elif codes is not None:
        values = torch.empty_like(codes, dtype=torch.float32, device="cpu")
        scales = state.pop(scale_key(key)).cpu()
        _core.quantise(READER, values, codes.cpu(), scales, _KINDS.get(key, 0), True)
        state[key] = values.to(p.device, state_dtype(group, p))
    else:
        state[key] = _filled(p, state_dtype(group, p), optimizer.initial_value(key, group))


def _complete_quantised(
    state: dict[str, Any], key: str, p: torch.Tensor, optimizer: OnePass, group: Group
) -> None:
    code, scale = code_key(key), scale_key(key)
    if state.get(code) is not None and state.get(scale) is not None:
        state[code], state[scale] = (
            _own_memory(state[code], p),
            state[scale].to(p.device).contiguous(),
        )
        return
    others = (state.get(code_key(other)) for other in optimizer.state_keys)
    like = next(
        (other for other in others if other is not None), p
    )  # blocks follow the memory of the first state
    codes = torch.empty_like(
        like, dtype=torch.uint8, device="cpu", memory_format=torch.preserve_format
    )
    values = torch.empty_like(codes, dtype=torch.float32)
    known = state.pop(key, None)
    if known is None:
        values.fill_(optimizer.initial_value(key, group))
    else:
        values.copy_(known)
    scales = torch.zeros(-(-p.numel() // _core.quantised_block), device="cpu")
    _core.quantise(READER, values, codes, scales, _KINDS.get(key, 0), False)
    state[code], state[scale] = codes.to(p.device), scales.to(p.device)


def state_dtype(group: Group, p: torch.Tensor) -> torch.dtype:
    """Return the dtype of new states that are kept as floating-point numbers."""
    chosen = group.get("state_dtype")
    if isinstance(chosen, torch.dtype):
        return chosen
    low = p.dtype in (torch.bfloat16, torch.float16)
    return torch.float32 if low and group.get("master_weights", False) else p.dtype


def _keep(state: dict[str, Any], key: str, p: torch.Tensor, dtype: torch.dtype) -> None:
    value = state.get(key)
    if value is None or (value.dtype != dtype and key == MASTER):
        state[key] = _filled(p, dtype, 0)
    else:
        state[key] = _own_memory(value.to(dtype), p)


def _filled(p: torch.Tensor, dtype: torch.dtype, value: float) -> torch.Tensor:
    """Return a tensor laid out as `p`; a large one on huge pages, which save up to half of a step's time."""
    tensor = torch.empty_like(p, dtype=dtype, memory_format=torch.preserve_format)
    size = tensor.numel() * tensor.itemsize
    if size >= _HUGE and tensor.device.type == "cpu":
        _core.use_huge_pages(tensor.data_ptr(), size)
    return tensor.fill_(value)


def prefer_huge_pages(optimizer: OnePass, key: str) -> None:
    """Move large states that torch has made to memory of ours."""
    for state in optimizer.state.values():
        value = state[key]
        if (
            type(value) is torch.Tensor
            and value.dtype in READABLE
            and value.device.type == "cpu"
            and value.numel() * value.itemsize >= _HUGE
        ):
            state[key] = _filled(value, value.dtype, 0).copy_(value)


def _own_memory(value: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """Return a state as the kernels can write it: on the parameter's device, one address per element."""
    strides = sorted(zip(value.stride(), value.shape, strict=True))
    reach, overlaps = 0, False
    for stride, size in strides:
        overlaps = overlaps or (size > 1 and stride <= reach)
        reach += (size - 1) * stride
    if value.device == p.device and not overlaps and not value.is_neg():
        return value
    return torch.empty_like(p, dtype=value.dtype, memory_format=torch.preserve_format).copy_(value)
