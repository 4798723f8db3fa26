"""Which extension updates a parameter group: the one for the CPU, or the one for the device of its parameters."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import torch

from onepass.hyper.spec import Group
from onepass.reader import make_reader

CPU = -1
"""In the place of a device's number: parameters are on none, or on one that no extension can use."""


class Memory:
    """What an optimizer keeps on a device: tables that its kernels read, counts that they write."""

    def __init__(self, extension: Extension, device: int) -> None:
        self._extension, self._device = extension, device
        self._tensors: list[torch.Tensor] = []
        self._stream: int | None = None
        self.core = extension.module.Memory(self._allocate)

    def _allocate(self, size: int, on_host: bool) -> torch.Tensor:
        tensor = self._extension.allocate(self._device, size, on_host)
        if not on_host:
            self._tensors.append(tensor)
        return tensor

    def stream(self) -> int:
        """Return the current stream, which may use this memory from now on."""
        stream = self._extension.stream(self._device)
        if stream != self._stream:
            if self._stream is not None:
                for tensor in self._tensors:
                    self._extension.share(tensor, self._device)
            self._stream = stream
        return stream


class Extension:
    """The extension for CUDA, with what it needs of torch."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.reader = make_reader(module=module)
        self._covered: dict[int, bool] = {}

    def device_of(self, tensor: torch.Tensor) -> int:
        """Return the number of the device that a tensor is on, or CPU."""
        if not tensor.is_cuda:
            return CPU
        device = tensor.get_device()
        if device not in self._covered:
            self._covered[device] = bool(self.module.can_run(device))
        return device if self._covered[device] else CPU

    def stream(self, device: int) -> int:
        """Return the current stream of a device."""
        return int(torch._C._cuda_getCurrentRawStream(device))

    def share(self, tensor: torch.Tensor, device: int) -> None:
        """Keep a tensor's memory from other uses until the current stream is done with it."""
        tensor.record_stream(torch.cuda.current_stream(device))

    def is_capturing(self) -> bool:
        """Return whether what is launched now goes into a CUDA graph."""
        return torch.cuda.is_current_stream_capturing()

    def allocate(self, device: int, size: int, on_host: bool) -> torch.Tensor:
        """Return memory of a device, or of the host from where a device can copy while the host goes on."""
        if on_host:
            return torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=True)
        return torch.empty(size, dtype=torch.uint8, device=torch.device("cuda", device))


def cuda_module() -> Any:
    """Return the compiled part for CUDA, or None where it was not built."""
    try:
        return importlib.import_module("onepass._cuda")
    except ImportError:
        return None


@functools.cache
def cuda() -> Extension | None:
    """Return the extension for CUDA where it was built and can run."""
    module = cuda_module()
    return None if module is None or module.driver_problem() else Extension(module)


_stand_in: Extension | None = None  # tests put one here that takes tensors of the CPU


def extension() -> Extension | None:
    """Return the extension for devices, if there is one."""
    return cuda() if _stand_in is None else _stand_in


seen = False
"""Whether any parameters were on a device so far: what is done for that costs no time before."""


def device_of(group: Group) -> int:
    """Return where the first parameter of a group is; the kernels refuse others that are elsewhere."""
    global seen
    params = group["params"]
    if not params or not (params[0].is_cuda or _stand_in is not None):
        return CPU
    found = extension()
    seen = found is not None
    return CPU if found is None else found.device_of(params[0])


def is_on(value: Any, device: int) -> bool:
    """Return whether a number is a tensor that the kernels of a device can read where it is."""
    found = extension()
    return (
        isinstance(value, torch.Tensor)
        and found is not None
        and value.numel() == 1
        and value.dtype in (torch.float32, torch.float64)
        and found.device_of(value) == device
    )


def counts_steps(group: Group, defaults: Group) -> bool:
    """Return whether the steps of a group on a device are counted there: torch does, or the device may skip one."""
    get = group.get
    return bool(
        get("capturable")
        or get("fused")
        or defaults.get("fused")  # RMSprop's groups do not have it
        or get("skip_nonfinite")
        or get("max_grad_norm") is not None
    )
