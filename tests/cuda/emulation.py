"""A device that is the host: the code of the GPU's kernels, run thread by thread on tensors of the CPU."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from onepass.device import extension
from onepass.reader import make_reader


def emulated() -> Any:
    """Return the extension, or skip: it is there in development builds (ONEPASS_EMULATED) only."""
    return pytest.importorskip(
        "onepass._emulated",
        reason="built without ONEPASS_EMULATED",
        exc_type=ImportError,
    )


class StandIn(extension.Extension):
    """Takes the tensors of the CPU for those of device 0."""

    def __init__(self) -> None:
        self.module = importlib.import_module("onepass._emulated")
        self.reader = make_reader(module=self.module)
        self.current = 1
        self.devices: dict[int, int] = {}  # of tensors by their size, where it is not device 0
        self.shared: list[torch.Tensor] = []
        self.allocated: list[tuple[int, bool]] = []

    def device_of(self, tensor: torch.Tensor) -> int:
        return self.devices.get(tensor.numel(), 0)

    def stream(self, device: int) -> int:  # noqa: ARG002
        return self.current

    def share(self, tensor: torch.Tensor, device: int) -> None:  # noqa: ARG002
        self.shared.append(tensor)

    def is_capturing(self) -> bool:
        return bool(self.module.is_capturing())

    def allocate(self, device: int, size: int, on_host: bool) -> torch.Tensor:  # noqa: ARG002
        self.allocated.append((size, on_host))
        return torch.full((size,), 0xCC, dtype=torch.uint8)  # nothing may rely on zeros


@contextlib.contextmanager
def on_emulated_device() -> Iterator[StandIn]:
    """Have all steps run on the emulated device."""
    emulated()
    before = extension._stand_in
    stand_in = StandIn()
    extension._stand_in, extension.seen = stand_in, True
    try:
        yield stand_in
    finally:
        extension._stand_in = before
