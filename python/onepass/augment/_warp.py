"""Pictures and matrices to warped pictures: the compiled core for the CPU, torch for a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from onepass import _core
from onepass.augment import _grid
from onepass.augment._checks import refuse
from onepass.augment._pictures import Array, Pictures, bits, to_host

Matrices = np.ndarray[Any, np.dtype[np.float64]]
Rows = np.ndarray[Any, np.dtype[np.int64]]


def warp_images(
    images: Pictures,
    rows: Rows | None,
    matrices: Matrices,
    size: tuple[int, int],
    *,
    fill: str,
    bilinear: bool,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    cval: float,
) -> torch.Tensor:
    """Warp images (N, C, H, W), or those that `rows` names, to normalised float32 (N, C, *size)."""
    if isinstance(images, torch.Tensor) and images.device.type != "cpu":
        chosen = images if rows is None else images[torch.from_numpy(rows).to(images.device)]
        return _grid.warp_images(
            chosen,
            torch.from_numpy(matrices).to(images.device),
            size,
            fill=fill,
            bilinear=bilinear,
            mean=mean,
            std=std,
            cval=cval,
        )
    out = torch.empty((len(matrices), images.shape[1], *size), dtype=torch.float32, device="cpu")
    _core.warp(
        images=images if isinstance(images, np.ndarray) else to_host(images),
        rows=rows,
        matrices=matrices,
        out=out.numpy(),
        fill=fill,
        bilinear=bilinear,
        mean=mean,
        std=std,
        cval=cval,
        outside=0,
    )
    return out


def warp_masks(
    masks: Pictures,
    matrices: Matrices,
    size: tuple[int, int],
    *,
    dtype: torch.dtype,
    fill: str,
    cval: float,
) -> torch.Tensor:
    """Move the values of masks (N, C, H, W) of torch's `dtype` to (N, C, *size)."""
    outside = bits(_as_value(cval, dtype))
    if isinstance(masks, torch.Tensor) and masks.device.type != "cpu":
        on_device = torch.from_numpy(matrices).to(masks.device)
        moved = _grid.warp_masks(bits(masks), on_device, size, fill=fill, outside=outside)
        return moved.view(dtype)
    out = torch.empty((len(matrices), masks.shape[1], *size), dtype=dtype, device="cpu")
    width = 8 * dtype.itemsize
    whole: Array = masks if isinstance(masks, np.ndarray) else to_host(bits(masks))
    _core.warp(
        images=whole,
        rows=None,
        matrices=matrices,
        out=bits(out).numpy(),
        fill=fill,
        bilinear=False,
        mean=None,
        std=(),
        cval=0.0,
        outside=int(outside.item()) % (1 << width),
    )
    return out


def _as_value(cval: float, dtype: torch.dtype) -> torch.Tensor:
    """`cval` as a 0-d tensor of the masks' dtype."""
    must = f"a value of {dtype}"
    if dtype == torch.bool:
        low, high = 0, 1
    elif dtype.is_floating_point or dtype.is_complex:
        return torch.tensor(cval, dtype=dtype, device="cpu")
    else:
        low, high = torch.iinfo(dtype).min, torch.iinfo(dtype).max
    if cval != int(cval) or not low <= int(cval) <= high:
        refuse("cval", must, cval)
    return torch.tensor(int(cval), dtype=dtype, device="cpu")
