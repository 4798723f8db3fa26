"""Pictures as callers give them: torch tensors or NumPy arrays, either layout, any strides."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch

from onepass.augment._checks import on_host, refuse

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
# What the core reads, or what torch reads on a GPU; always (N, C, H, W).
Pictures: TypeAlias = Array | torch.Tensor

_WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def torch_dtype(name: str, value: Array | torch.Tensor) -> torch.dtype:
    """The dtype as torch calls it; TypeError if torch has none or its values are not 1 to 8 bytes."""
    dtype = value.dtype
    if not isinstance(dtype, torch.dtype):
        try:
            dtype = torch.from_numpy(np.empty(0, dtype)).dtype
        except (TypeError, ValueError):
            message = f"{name} has dtype {value.dtype}, which torch does not know"
            raise TypeError(message) from None
    if dtype.itemsize not in _WHOLE:
        message = f"{name} has dtype {dtype}; values of at most 8 bytes can be moved"
        raise TypeError(message)
    return dtype


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """The same memory as whole numbers of the same size: NumPy lacks some of torch's dtypes."""
    return tensor.view(_WHOLE[tensor.dtype.itemsize])


def check_kind(name: str, value: Any) -> torch.device:
    """Where the pictures are; refuses what is neither tensor nor array, or has no memory to read."""
    if isinstance(value, np.ndarray):
        return torch.device("cpu")
    if not isinstance(value, torch.Tensor):
        refuse(name, "a torch tensor or a NumPy array", type(value))
    if value.device.type not in ("cpu", "cuda"):
        refuse(name, "on the CPU or a CUDA device", value.device)
    if value.layout != torch.strided or value.is_nested:
        refuse(name, "a dense tensor", value.layout)
    if value.numel() > 0:
        last = sum((n - 1) * stride for n, stride in zip(value.shape, value.stride(), strict=True))
        needed = (value.storage_offset() + last + 1) * value.dtype.itemsize
        if value.untyped_storage().nbytes() < needed:
            refuse(name, f"backed by {needed} bytes", value.untyped_storage().nbytes())
    return value.device


def to_host(tensor: torch.Tensor) -> Array:
    """A NumPy view of a CPU tensor."""
    return tensor.detach().resolve_neg().numpy()


def channels_first(name: str, value: Array | torch.Tensor, layout: str | None) -> Pictures:
    """The (N, C, H, W) view of pictures of the given layout; None finds it by the axis of at most 4."""
    shape = tuple(value.shape)
    if len(shape) != 4:
        hint = "; one channel: [:, None] adds the axis" if len(shape) == 3 else ""
        refuse(name, f"of rank 4, (N, C, H, W) or (N, H, W, C){hint}", f"shape {shape}")
    if layout is None:
        if shape[1] <= 4:
            layout = "NCHW"
        elif shape[3] <= 4:
            layout = "NHWC"
        else:
            refuse("layout", f"given for {name} with neither axis 1 nor axis 3 <= 4", f"{shape}")
    if 0 in shape[1:]:
        refuse(name, "pictures of at least one pixel and one channel", f"shape {shape}")
    if layout == "NCHW":
        return value
    if isinstance(value, torch.Tensor):
        return value.permute(0, 3, 1, 2)
    return value.transpose(0, 3, 1, 2)


def as_matrices(value: Any, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Matrices (N, 2, 3) for `count` pictures."""
    must = f"numbers of shape ({count}, 2, 3)"
    try:
        matrices = np.ascontiguousarray(on_host(value), np.float64)
    except (TypeError, ValueError, RuntimeError):
        refuse("matrices", must, value)
    if matrices.shape != (count, 2, 3):
        refuse("matrices", must, f"shape {matrices.shape}")
    return matrices
