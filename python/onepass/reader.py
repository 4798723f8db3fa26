"""Which tensors the kernels may read directly, and how."""

from __future__ import annotations

from typing import Any

import torch

from onepass import _core


def is_plain(kind: type) -> bool:
    """Return whether a tensor subclass keeps its numbers in ordinary memory of its own.

    A subclass that intercepts torch's operations (DTensor, FakeTensor, functional tensors, ...) may hold its
    numbers elsewhere or want to see every operation: it is left to torch's own step.
    """
    if not issubclass(kind, torch.Tensor):
        return False
    if kind.__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        return False
    function: Any = kind.__torch_function__
    default: Any = torch.Tensor.__torch_function__
    return (
        function is torch._C._disabled_torch_function_impl
        or getattr(function, "__func__", None) is default.__func__
    )


def make_reader(*, way: str = "native", module: Any = _core) -> _core.Reader:
    """Return a reader of tensors, for the functions of `module`."""
    reader: _core.Reader = module.Reader(
        tensor_types=(torch.Tensor, torch.nn.Parameter), is_plain=is_plain, way=way
    )
    return reader


READER = make_reader()
