"""The compiled part: kernels, work list, tensor reading."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

version: str
compiler: str
"""Name and version of the compiler that built it."""

class Reader:
    """Reads address, dtype and strides of tensors, for `step`.

    `tensor_types`: `torch.Tensor` and the subclasses known to be plain. `is_plain(type)` decides of others. `way` is "native",
    "functions" or "dlpack".
    """

    def __init__(
        self, *, tensor_types: tuple[type, ...], is_plain: Callable[[type], bool], way: str
    ) -> None: ...
    @property
    def way(self) -> str:
        """The way that works here."""

class Memory:
    """What an optimizer keeps from one step to the next: how many were applied, and what makes them faster."""

    steps_applied: int
    """Counted by `step` and `repeat` in the very call that applies a step."""

class StepFailure:
    """Why a step was not done; nothing has been written. Pairs are (group, index in the group)."""

    @property
    def unsupported(self) -> list[int]:
        """Groups that hold something the kernels do not cover."""
    @property
    def missing_state(self) -> list[tuple[int, int]]:
        """Parameters whose state is missing or cannot be used as it is."""
    @property
    def mismatch(self) -> list[tuple[int, int]]:
        """Parameters that do not fit their gradient or have no memory."""

class Clip:
    """A request to measure the global gradient norm, and to clip by it; and what came of it.

    `unscale` is the factor that the gradients in memory still lack.
    """

    norm: float
    coefficient: float
    skipped: bool
    unscale: float

    def __init__(self, max_norm: float, skip_nonfinite: bool, unscale: float) -> None: ...
    @property
    def max_norm(self) -> float: ...
    @property
    def skip_nonfinite(self) -> bool: ...

def step(
    reader: Reader,
    memory: Memory,
    groups: Sequence[tuple[Any, ...]],
    state: dict[torch.Tensor, Any],
    dry: bool,
    clip: Clip | None,
    first_steps: set[tuple[int, int]],
    first_emas: set[tuple[int, int]],
    seed: int,
    counts: bool,
) -> StepFailure | None:
    """Do one step for all groups, or none of it and return why.

    A group is a row of `onepass.step.row.GroupRow`: `(params, rule, states, counted, numbers, extras, ...)`.

    A `dry` step only looks: it writes nothing. `first_steps` holds the uncounted parameters for which this is the
    first step, `first_emas` those whose average starts. `seed` and the number of the step choose the
    random numbers of stochastic rounding. `counts`: the step in `memory`, once it is applied.
    """

def remember(
    reader: Reader,
    memory: Memory,
    groups: list[dict[str, Any]],
    rows: Sequence[tuple[Any, ...]],
    varying: Sequence[Mapping[str, tuple[int, float]]],
    seed: int,
) -> bool:
    """Remember what parameter groups, snapshots that nobody else changes, were packed as for `step`.

    `varying` says for each group which of its values only decide one of the numbers of its row: with the slot of the first, and what
    they have to stay below; with the slot -1 those that decide nothing. Return False, with nothing remembered, if another value might change and still be the same
    object, as a tensor or a list does.
    """

def repeat(
    reader: Reader,
    memory: Memory,
    groups: list[dict[str, Any]],
    state: dict[torch.Tensor, Any],
    clip: Clip | None,
) -> bool:
    """Do one step for all groups, with the numbers that they have now, if all else is as it was remembered.

    Return False if it is not, or if something is out of the ordinary; nothing has been written then.
    """

def drop_gradients(reader: Reader, groups: list[dict[str, Any]]) -> None:
    """Set the `.grad` of every parameter to None."""

def sorted_gradients(
    reader: Reader, groups: list[dict[str, Any]]
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return the gradients that have only to be filled with zeros, and the others.

    The others are sparse, foreign subclasses, or followed by autograd.
    """

class Stream:
    """The streaming limit: reads and writes what a step would, in the same chunks, and changes nothing.

    `tensors` holds a tuple `(param, grad, *states)` for each parameter, dense, of one shape, layout and dtype.
    They are kept alive, but must not be resized, moved or converted while this object lives.
    """

    def __init__(self, reader: Reader, tensors: list[tuple[torch.Tensor, ...]]) -> None: ...
    def run(self) -> None:
        """Do it once, with the threads that a step would use."""

def measure(reader: Reader, params: list[torch.Tensor], clip: Clip) -> None:
    """Have `clip` measure the gradients of all parameters that the kernels can read."""

def quantize(
    reader: Reader,
    values: torch.Tensor,
    codes: torch.Tensor,
    scales: torch.Tensor,
    kind: int,
    back: bool,
) -> None:
    """Write float32 `values` in 8 bits into `codes` and `scales`, or `back`.

    `kind` is 0 for numbers with a sign, 1 for numbers that are never negative, 2 for a running maximum.
    """

def use_huge_pages(address: int, bytes: int) -> None:
    """Ask for 2 MiB pages in memory that has not been touched yet."""

quantized_block: int

def evaluate(program: bytes, steps: float) -> float:
    """Return what a device makes of a schedule's instructions; csrc/program.hpp."""

def specs() -> dict[str, tuple[int, tuple[tuple[str, int], ...], tuple[str, ...]]]:
    """Return what each update rule is, by its name: (number, states, hyper-parameters).

    A state is (name, kind), with `quantize`'s kinds. Hyper-parameters are names, "lr" first.
    """

def number_slots() -> dict[str, int]:
    """Return the index of each of a group's numbers, by its name; those of the rule stand from "hyper" on."""

def isa() -> str:
    """Return the instruction set in use."""

def isas() -> dict[str, bool]:
    """Return the instruction sets that were built in, and whether this processor has them."""

def available_threads() -> int:
    """Return how many threads a step may use now."""

def openmp_runtime() -> str:
    """Return the file of the OpenMP runtime whose threads are used, torch's; empty if torch has none."""

def in_forked_child() -> bool:
    """Return whether this process was forked from one that had loaded the extension."""

# The augmentation: csrc/binding/augment.cpp.

def philox(
    counter: tuple[int, int, int, int], key: tuple[int, int], /
) -> tuple[int, int, int, int]: ...
def sample_warps(
    index: NDArray[np.int64],
    *,
    epoch: int,
    size: tuple[int, int],
    out_size: tuple[int, int],
    rotation: float,
    shear: float,
    shift: tuple[float, float],
    zoom: tuple[float, float],
    flip: tuple[bool, bool],
    padding: int,
    seed: int,
) -> NDArray[np.float64]: ...
def largest_stretch(matrices: NDArray[np.float64]) -> float: ...
def warp(
    *,
    images: NDArray[np.generic],
    rows: NDArray[np.int64] | None,
    matrices: NDArray[np.float64],
    out: NDArray[np.generic],
    fill: str,
    bilinear: bool,
    mean: Sequence[float] | None,
    std: Sequence[float],
    cval: float,
    outside: int,
) -> None: ...
