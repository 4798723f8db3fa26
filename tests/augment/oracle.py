"""What a warp must give: scipy.ndimage.affine_transform in float64, and Philox in plain Python."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import ndimage

FILLS = ("nearest", "reflect", "mirror", "wrap", "constant")

# Interpolation of values in [0, 1] in float32, against float64: a few roundings, and places that are rounded to 2**-17
# pixels on each axis where neighbours differ by all of the range.
ROUNDINGS = 2e-5

Array = np.ndarray[Any, np.dtype[Any]]


def warp(
    images: Array, matrices: Array, size: tuple[int, int], *, fill: str, order: int, cval: float = 0
) -> Array:
    """Images (N, C, H, W) by matrices that map (x, y); scipy's map (row, column)."""
    out = np.empty((*images.shape[:2], *size))
    for k, matrix in enumerate(matrices):
        for c in range(images.shape[1]):
            out[k, c] = ndimage.affine_transform(
                images[k, c].astype(np.float64),
                matrix[::-1, 1::-1],
                matrix[::-1, 2],
                output_shape=size,
                order=order,
                mode=fill,
                cval=cval,
            )
    return out


def random_matrices(
    rng: np.random.Generator, count: int, size: tuple[int, int], spread: float
) -> Array:
    """Matrices about identity; `spread` 1 leaves the picture by about half its size."""
    matrices = np.zeros((count, 2, 3))
    matrices[:, :, :2] = np.eye(2) + 0.3 * spread * rng.standard_normal((count, 2, 2))
    matrices[:, :, 2] = 0.3 * spread * rng.standard_normal((count, 2)) * size[::-1]
    return matrices


def philox(counter: tuple[int, ...], key: tuple[int, int]) -> tuple[int, ...]:
    """Philox4x32-10 as the paper's table 2 puts it."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = p1 >> 32 ^ c1 ^ k0, p1 % 2**32, p0 >> 32 ^ c3 ^ k1, p0 % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c0, c1, c2, c3


def uniforms(seed: int, epoch: int, index: int, slot: int) -> tuple[float, float]:
    """The two numbers of a slot, in [0, 1)."""
    key = (seed % 2**32, seed >> 32)
    words = philox((index % 2**32, index >> 32, epoch, slot), key)
    high, low = (words[0] << 32 | words[1]) >> 11, (words[2] << 32 | words[3]) >> 11
    return high / 2**53, low / 2**53


def matrix(
    seed: int,
    epoch: int,
    index: int,
    size: tuple[int, int],
    *,
    rotation: float,
    shear: float,
    shift: tuple[float, float],
    zoom: tuple[float, float],
    flip: tuple[bool, bool],
) -> Array:
    """The matrix of a sample without crop, by products of 3x3 matrices."""
    height, width = size
    draws = [uniforms(seed, epoch, index, slot) for slot in range(4)]
    theta = math.radians(rotation * (2 * draws[0][0] - 1))
    phi = math.radians(shear * (2 * draws[0][1] - 1))
    tx = shift[0] * (2 * draws[1][0] - 1) * width
    ty = shift[1] * (2 * draws[1][1] - 1) * height
    zx, zy = (zoom[0] + (zoom[1] - zoom[0]) * u for u in draws[2])
    fx, fy = (-1 if on and u < 0.5 else 1 for on, u in zip(flip, draws[3], strict=True))
    cx, cy = (width - 1) / 2, (height - 1) / 2
    rotate = [[math.cos(theta), -math.sin(theta), 0], [math.sin(theta), math.cos(theta), 0]]
    product = np.eye(3)
    for step in (
        [[1, 0, cx], [0, 1, cy]],
        rotate,
        [[1, 0, tx], [0, 1, ty]],
        [[1, -math.sin(phi), 0], [0, math.cos(phi), 0]],
        [[zx * fx, 0, 0], [0, zy * fy, 0]],
        [[1, 0, -cx], [0, 1, -cy]],
    ):
        product = product @ np.array([*step, [0, 0, 1]], np.float64)
    return product[:2]
