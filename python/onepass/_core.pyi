"""The compiled part: kernels, work list, tensor reading."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

version: str

class Reader:
    """Reads address, dtype and strides of tensors, for `step`.

    `tensor_types`: `torch.Tensor` and the subclasses known to be plain. `is_plain(type)` decides of others.
    `dtypes`: float32, float64, bfloat16, float16 of torch, in this order.
    """

    def __init__(
        self,
        *,
        tensor_types: tuple[type, ...],
        is_plain: Callable[[type], bool],
        dtypes: tuple[torch.dtype, ...],
        use_dlpack: bool,
    ) -> None: ...
    @property
    def uses_dlpack(self) -> bool: ...

class Memory:
    """What an optimizer keeps from one step to the next to read its small states faster."""

class Trouble:
    """Why a step was not done; nothing has been written. Pairs are (group, index in the group)."""

    @property
    def uncovered(self) -> list[int]:
        """Groups that hold something the kernels do not cover."""
    @property
    def repair(self) -> list[tuple[int, int]]:
        """Parameters whose state is missing or cannot be used as it is."""
    @property
    def invalid(self) -> list[tuple[int, int]]:
        """Parameters that do not fit their gradient or have no memory."""

def step(
    reader: Reader,
    memory: Memory,
    groups: list[tuple[Any, ...]],
    state: dict[torch.Tensor, Any],
    fresh: set[tuple[int, int]],
    dry: bool,
) -> list[list[torch.Tensor]] | Trouble:
    """Do one step for all groups; return the updated parameters of each group.

    A group is `(params, rule, keys, counted, numbers)`: the list of parameters, the rule's number, the names
    of its states in `state[parameter]`, whether a "step" is kept beside them, and the numbers
    `(scale, coupled, shrink, subgradient, l1_decay, *hyper)` (csrc/segment.hpp, csrc/rules.hpp). `fresh` holds
    the uncounted parameters for which this is the first step. A `dry` step only looks: it writes nothing.
    """

class Stream:
    """The streaming limit: reads and writes what a step would, in the same chunks, and changes nothing.

    `tensors` holds a tuple `(param, grad, *states)` for each parameter, dense, of one shape, layout and dtype.
    They are kept alive, but must not be resized, moved or converted while this object lives.
    """

    def __init__(self, reader: Reader, tensors: list[tuple[torch.Tensor, ...]]) -> None: ...
    def run(self) -> None:
        """Do it once, with the threads that a step would use."""

def rules() -> dict[str, int]:
    """Return the number of each update rule by its name."""

def isa() -> str:
    """Return the instruction set in use."""

def isas() -> dict[str, bool]:
    """Return the instruction sets that were built in, and whether this processor has them."""

def available_threads() -> int:
    """Return how many threads a step may use now."""
