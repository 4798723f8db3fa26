"""The epoch of a data set, in memory that it shares with its worker processes."""

from __future__ import annotations

from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch


class SharedEpoch:
    """A number that worker processes see change, those that live on through several epochs included.

    `copy.deepcopy` and pickle give one with shared memory of its own. Only what starts or feeds a process
    (a DataLoader's workers, queues) passes the memory itself on.
    """

    def __init__(self, memory: torch.Tensor) -> None:
        self._memory = (
            memory  # the epoch, and how many passes have begun, or -1 where somebody sets the epoch
        )

    def get(self) -> int:
        """The epoch."""
        return int(self._memory[0])

    def set(self, epoch: int) -> None:
        """Write it for all processes; from now on no pass counts."""
        self._memory[0], self._memory[1] = epoch, _SET

    def begin_pass(self) -> None:
        """Count a pass as an epoch, unless somebody sets the epochs."""
        passes = int(self._memory[1])
        if passes != _SET:
            self._memory[0], self._memory[1] = passes, passes + 1

    def __reduce__(self) -> tuple[Any, ...]:
        return shared_epoch, tuple(self._memory.tolist())


_SET = -1


def shared_epoch(epoch: int, passes: int = 0) -> SharedEpoch:
    """One with memory of its own."""
    memory = torch.tensor([epoch, passes], dtype=torch.int64, device="cpu")
    return SharedEpoch(memory.share_memory_())  # type: ignore[no-untyped-call]


def _with_its_memory(epoch: SharedEpoch) -> tuple[Any, ...]:
    return SharedEpoch, (epoch._memory,)


ForkingPickler.register(SharedEpoch, _with_its_memory)
