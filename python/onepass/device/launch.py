"""The step of groups whose parameters are on a device: what its extension is asked for, and what is read back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from onepass import _core
from onepass.device import extension
from onepass.device.extension import CPU, Extension, Memory
from onepass.hyper.spec import Group
from onepass.state.names import States

Memories = dict[int, Memory]
"""What an optimizer keeps on each device."""


def _found() -> Extension:
    found = extension.extension()
    assert found is not None
    return found


def memory_on(memories: Memories, device: int) -> Memory:
    """Return what an optimizer keeps on a device."""
    memory = memories.get(device)
    if memory is None:
        memory = memories[device] = Memory(_found(), device)
    return memory


def step(
    memory: Memory,
    device: int,
    rows: list[Any],
    state: States,
    clip: _core.Clip | None,
    dry: bool,
    first_steps: set[tuple[int, int]],
    first_emas: set[tuple[int, int]],
    seed: int,
    applied: int,
    scaler: tuple[Any, Any] | None,
    capturable: bool,
) -> Any:
    """Enqueue a step of the rows, all of one device; see `_cuda.step`."""
    found = _found()
    grad_scale, found_inf = scaler or (None, None)
    own = None
    if clip is not None:
        own = found.module.Clip(clip.max_norm, clip.skip_nonfinite, clip.unscale)
    return found.module.step(
        found.reader,
        memory.core,
        rows,
        state,
        dry,
        own,
        first_steps,
        first_emas,
        seed,
        applied,
        device,
        memory.stream(),
        grad_scale,
        found_inf,
        capturable,
    )


def measure(memory: Memory, device: int, params: list[torch.Tensor], clip: _core.Clip) -> None:
    """Have `clip` measure the gradients of all parameters that the kernels can read, at once."""
    found = _found()
    own = found.module.Clip(clip.max_norm, clip.skip_nonfinite, clip.unscale)
    found.module.measure(
        found.reader, memory.core, params, own, device, memory.stream(), None, None
    )
    clip.norm, clip.coefficient, clip.skipped = own.norm, own.coefficient, own.skipped


def refuse_several(devices: list[int]) -> None:
    """Raise for a global norm over more than one device."""
    message = (
        "max_grad_norm and skip_nonfinite need all parameters on one device, found "
        f"{', '.join('the CPU' if d == CPU else f'cuda:{d}' for d in devices)}; nothing was updated"
    )
    raise RuntimeError(message)


def refuse_capture() -> None:
    """Raise if a step that has to make state is on its way into a CUDA graph, which would make it anew each time."""
    found = extension.extension()
    if found is not None and found.is_capturing():
        message = (
            "this step cannot go into a CUDA graph: state has to be made first, or a group falls back to torch's "
            "own step; do one step before the capture; nothing was updated"
        )
        raise RuntimeError(message)


def scaler_of(
    groups: list[Group], defaults: Group, counted: bool, attributes: Mapping[str, Any]
) -> tuple[Any, Any] | None:
    """Return GradScaler's numbers, if the one device of all parameters can read them, so that nobody has to wait.

    `attributes` are the optimizer's, where GradScaler leaves them; `counted` says whether its steps are.
    """
    scaler = attributes.get("grad_scale"), attributes.get("found_inf")
    devices = {extension.device_of(group) for group in groups if group["params"]}
    if len(devices) != 1 or devices == {CPU} or all(number is None for number in scaler):
        return None
    device = devices.pop()
    there = all(not counted or extension.counts_steps(group, defaults) for group in groups) and all(
        number is None or (extension.is_on(number, device) and number.dtype == torch.float32)
        for number in scaler
    )
    return scaler if there else None


def counts(memories: Memories) -> bool:
    """Return whether a device counts the steps: the host does not wait to learn whether one was skipped."""
    return any(memory.core.counts for memory in memories.values())


def outcome(memories: Memories) -> tuple[int, float, float, bool, int, int]:
    """Return (skip, norm, coefficient, finite, applied, skipped) of the last step; waits for the device that counts."""
    device, memory = next((k, m) for k, m in memories.items() if m.core.counts)
    result: tuple[int, float, float, bool, int, int] = _found().module.outcome(
        memory.core, device, memory.stream()
    )
    return result
