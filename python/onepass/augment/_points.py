"""What a matrix does to points, and how far it draws pixels apart."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from onepass import _core
from onepass.augment._checks import on_host, refuse
from onepass.augment._pictures import Array, as_matrices


def finite_stretch(matrices: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """The largest singular value of any matrix; refuses matrices that are not finite."""
    stretch = _core.largest_stretch(matrices)
    if not math.isfinite(stretch):
        refuse("matrices", "finite", stretch)
    return stretch


def move(xy: Any, matrices: Any) -> torch.Tensor:
    """Points (N, K, 2) of the inputs, to where the outputs show them."""
    must = "numbers of shape (N, K, 2)"
    try:
        points = xy.detach() if isinstance(xy, torch.Tensor) else torch.from_numpy(_floats(xy))
    except (TypeError, ValueError):
        refuse("xy", must, xy)
    if points.ndim != 3 or points.shape[2] != 2 or points.is_complex():
        refuse("xy", must, f"shape {tuple(points.shape)}")
    checked = as_matrices(matrices, len(points))
    finite_stretch(checked)
    (a, b, tx), (c, d, ty) = checked.transpose(1, 2, 0)
    determinant = a * d - b * c
    if not determinant.all():
        refuse("matrices", "invertible to move points", checked[determinant == 0][0])
    inverse = np.array([[d, -b], [-c, a]]).transpose(2, 0, 1) / determinant[:, None, None]
    place = torch.from_numpy(inverse).to(points.device)
    origin = torch.from_numpy(np.stack([tx, ty], 1)[:, None]).to(points.device)
    moved = (points.to(torch.float64) - origin) @ place.transpose(1, 2)
    return moved.to(points.dtype) if points.is_floating_point() else moved


def _floats(values: Any) -> Array:
    array = np.array(on_host(values))
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)
