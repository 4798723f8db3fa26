"""The compiled part for CUDA devices. `Reader`, `StepFailure` and groups are those of `_core`."""

from collections.abc import Callable
from typing import Any

import torch

architectures: str
"""What it was compiled for, with commas between."""

def driver_problem() -> str:
    """Return why no device can be used, or an empty string."""

def can_run(device: int) -> bool:
    """Return whether there is code for the architecture of a device."""

class Reader: ...

class Memory:
    """What an optimizer keeps on a device.

    `allocate(size, on_host)` gives memory as a tensor of bytes: of the device, or of the host from where a device
    can copy while the host goes on. It is kept as long as this object.
    """

    def __init__(self, allocate: Callable[[int, bool], torch.Tensor]) -> None: ...
    @property
    def counts(self) -> bool:
        """Whether the device counts the steps, since the host does not know whether they are applied."""
    @property
    def sent(self) -> int:
        """How often a table was sent."""

class Clip:
    """As `_core.Clip`; only `measure` fills it."""

    def __init__(self, max_norm: float, skip_nonfinite: bool, unscale: float) -> None: ...
    @property
    def norm(self) -> float: ...
    @property
    def coefficient(self) -> float: ...
    @property
    def skipped(self) -> bool: ...

class StepFailure: ...

def step(
    reader: Reader,
    memory: Memory,
    groups: list[tuple[Any, ...]],
    state: dict[torch.Tensor, Any],
    dry: bool,
    clip: Clip | None,
    first_steps: set[tuple[int, int]],
    first_emas: set[tuple[int, int]],
    seed: int,
    applied: int,
    device: int,
    stream: int,
    grad_scale: torch.Tensor | None,
    found_inf: torch.Tensor | None,
    count: bool,
) -> StepFailure | None:
    """Enqueue one step in a stream, as `_core.step`.

    A group's numbers may be tensors of one element on the device, or programs (csrc/program.hpp). `grad_scale` and
    `found_inf` are GradScaler's. `count` has the device count the steps in any case; `applied` is where it begins.
    """

def measure(
    reader: Reader,
    memory: Memory,
    params: list[torch.Tensor],
    clip: Clip,
    device: int,
    stream: int,
    grad_scale: torch.Tensor | None,
    found_inf: torch.Tensor | None,
) -> None:
    """Have `clip` measure the gradients of all parameters that the kernels can read, and wait for it."""

def outcome(
    memory: Memory, device: int, stream: int
) -> tuple[int, float, float, bool, int, int] | None:
    """Wait for the last step and return (skip, norm, coefficient, finite, steps applied, steps skipped).

    `skip` is 1 for its own gradients, 2 for GradScaler's word. None where the device does not count.
    """
