"""How the kernels read tensors: the way that was chosen, and which tensors they may read directly."""

from __future__ import annotations

import os
import warnings
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from onepass import _core

TESTED_TORCH = ("2.9", "2.10", "2.11", "2.12", "2.13", "2.14", "2.15")
"""Versions of torch that passed all tests: only these are read by what torch does not promise to keep.

Those are places in its objects, and two functions of its C++ interface. The next version is read through DLPack, which is
public, until it stands here.
"""
WAYS = ("native", "functions", "dlpack")


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


def is_tested(version: str) -> bool:
    """Return whether a version of torch is one that passed all tests."""
    return ".".join(version.split(".")[:2]) in TESTED_TORCH


def wanted_way(version: str = torch.__version__) -> str:
    """Return the way in which tensors shall be read with a version of torch.

    Raises:
        ValueError: The environment variable ONEPASS_READER asks for a way that there is not.
    """
    asked = os.environ.get("ONEPASS_READER", "")
    if asked and asked not in WAYS:
        message = f"ONEPASS_READER={asked}: must be one of {', '.join(WAYS)}"
        raise ValueError(message)
    return asked or ("native" if is_tested(version) else "dlpack")


def make_reader(*, way: str | None = None, module: Any = _core) -> _core.Reader:
    """Return a reader of tensors, for the functions of `module`.

    Args:
        way: "native" (torch's own functions and objects), "functions" (the functions alone), "dlpack" (torch's exchange
            table and methods of tensors). Default: what `wanted_way` says. Where it does not work, the next one is
            taken; the reader's `way` is "none" where none does.
        module: The extension.
    """
    # The import may stand in a mode in which tensors are not what they seem; the search for their places must not.
    with torch.inference_mode(False), _disable_current_modes(), torch._C.DisableTorchFunction():
        reader: _core.Reader = module.Reader(
            tensor_types=(torch.Tensor, torch.nn.Parameter),
            is_plain=is_plain,
            way=way or wanted_way(),
        )
    return reader


READER = make_reader()


def reason_for_way(reader: _core.Reader = READER, version: str = torch.__version__) -> str | None:
    """Return why tensors are not read in the fastest way, or None if they are."""
    if reader.way == "native":
        return None
    if os.environ.get("ONEPASS_READER"):
        return f"ONEPASS_READER={os.environ['ONEPASS_READER']}"
    if not is_tested(version):
        return f"torch {version} is not among the tested versions, {TESTED_TORCH[0]} to {TESTED_TORCH[-1]}"
    return f"torch {version} is not here as it was where it was tested"


_told = False


def warn_if_slow() -> None:
    """Warn, once in a process, if steps are slower than they could be."""
    global _told
    if _told:
        return
    _told = True
    reason = None if os.environ.get("ONEPASS_READER") else reason_for_way()
    if reason is not None:
        consequence = (
            "no tensor can be read, and every step is torch's own"
            if READER.way == "none"
            else "steps of many small tensors take several times as long"
        )
        warnings.warn(f"onepass: {reason}: {consequence}", RuntimeWarning, stacklevel=5)
