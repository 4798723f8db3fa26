"""State of parameters, made when it is first needed, converted where the kernels cannot read it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from onepass import _core
from onepass.hyper.spec import Group, Spec
from onepass.reader import READER
from onepass.state.check import is_missing
from onepass.state.names import EMA, MASTER, READABLE, Extras, code_key, scale_key

_HUGE = 4 << 20  # bytes from which a state asks for 2 MiB pages


class First(NamedTuple):
    """What completing the state of a parameter has started."""

    step: bool
    ema: bool


def complete(
    spec: Spec,
    group: Group,
    state: dict[str, Any],
    p: torch.Tensor,
    keys: Iterable[str],
    extras: Extras,
    counted: int,
) -> First:
    """Make the states of a parameter that are missing and convert those that the kernels cannot read.

    `keys` are the names of the states of the rule (of their bytes, where `extras` names scales). `counted` is 0 where
    steps are not counted, 1 where it is on the CPU, 2 on the device of the parameter.
    """
    first = First(
        step=all(
            is_missing(state, key.removesuffix("_code") if extras.scales else key) for key in keys
        ),
        ema=extras.ema is not None and state.get(EMA) is None,
    )
    with torch.no_grad(), _no_pool_after_fork():
        if counted:
            _complete_step(state, p.device if counted == 2 else torch.device("cpu"))
        for key in keys:
            if extras.scales:
                _complete_quantized(spec, group, state, key.removesuffix("_code"), p)
            else:
                _complete_float(spec, group, state, key, p)
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
    spec: Spec, group: Group, state: dict[str, Any], key: str, p: torch.Tensor
) -> None:
    codes = state.pop(code_key(key), None)
    if state.get(key) is not None:
        state[key] = _own_memory(state[key], p)
    elif codes is not None:
        values = torch.empty_like(codes, dtype=torch.float32, device="cpu")
        scales = state.pop(scale_key(key)).cpu()
        _core.quantize(READER, values, codes.cpu(), scales, spec.kinds[key], True)
        state[key] = values.to(p.device, state_dtype(group, p))
    else:
        state[key] = _filled(p, state_dtype(group, p), spec.initial_value(key, group))


def _complete_quantized(
    spec: Spec, group: Group, state: dict[str, Any], key: str, p: torch.Tensor
) -> None:
    code, scale = code_key(key), scale_key(key)
    if state.get(code) is not None and state.get(scale) is not None:
        state[code], state[scale] = (
            _own_memory(state[code], p),
            state[scale].to(p.device).contiguous(),
        )
        return
    others = (state.get(code_key(other)) for other in spec.states)
    like = next(
        (other for other in others if other is not None), p
    )  # blocks follow the memory of the first state
    codes = torch.empty_like(
        like, dtype=torch.uint8, device="cpu", memory_format=torch.preserve_format
    )
    values = torch.empty_like(codes, dtype=torch.float32)
    known = state.pop(key, None)
    if known is None:
        values.fill_(spec.initial_value(key, group))
    else:
        values.copy_(known)
    scales = torch.zeros(-(-p.numel() // _core.quantized_block), device="cpu")
    _core.quantize(READER, values, codes, scales, spec.kinds[key], False)
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


def prefer_huge_pages(states: Iterable[dict[str, Any]], key: str) -> None:
    """Move large states that torch has made to memory of ours."""
    for state in states:
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
