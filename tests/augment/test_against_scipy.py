"""Every fill mode and both orders of interpolation against scipy in float64."""

from __future__ import annotations

import numpy as np
import pytest

from onepass.augment import Augmenter

from . import oracle

SIZES = [
    ((28, 28), (28, 28)),
    ((32, 40), (24, 30)),
    ((5, 3), (11, 13)),
    ((1, 1), (4, 4)),
    ((1, 9), (9, 1)),
    ((2, 1), (7, 7)),
    ((17, 600), (3, 700)),
    ((400, 300), (20, 16)),
]


@pytest.mark.filterwarnings("ignore:a warp shrinks")
@pytest.mark.parametrize("spread", [0.2, 1, 30])
@pytest.mark.parametrize(("size", "out"), SIZES)
@pytest.mark.parametrize("fill", oracle.FILLS)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_random_matrices(
    dtype: type, fill: str, size: tuple[int, int], out: tuple[int, int], spread: float
) -> None:
    rng = np.random.default_rng(1)
    images: oracle.Array = rng.integers(0, 256, (3, 2, *size)).astype(dtype)
    unit = 255 if dtype is np.uint8 else 1
    if dtype is np.float32:
        images = images / np.float32(256)
    matrices = oracle.random_matrices(rng, 3, size, spread)
    aug = Augmenter(fill_mode=fill, cval=0.4, crop=out, layout="NCHW")
    for order, name in enumerate(["nearest", "bilinear"]):
        expected = oracle.warp(images, matrices, out, fill=fill, order=order, cval=0.4) / unit
        got = aug.apply(images, matrices, name).numpy()
        tolerance = oracle.ROUNDINGS if name == "bilinear" else 1e-7  # of the division by 255
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("fill", oracle.FILLS)
def test_large_picture_to_a_hundredth_of_a_grey_level(fill: str) -> None:
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (2, 3, 224, 224), np.uint8)
    aug = Augmenter(20, 0.2, 0.2, 10, 0.2, True, True, fill_mode=fill)
    matrices = aug.sample([0, 1], 0, (224, 224)).numpy()
    expected = oracle.warp(images, matrices, (224, 224), fill=fill, order=1)
    got = 255.0 * aug.apply(images, matrices).numpy().astype(np.float64)
    assert np.abs(got - expected).max() < 0.01


@pytest.mark.parametrize("fill", oracle.FILLS)
@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("shift", [-41, -20.5, -10, -9, -5.5, -5, -0.5, 0.5, 4.5, 5, 9.5, 10, 36])
def test_ties_and_edges_are_scipys(fill: str, order: int, shift: float) -> None:
    images = np.arange(30, dtype=np.float32).reshape(1, 1, 5, 6)
    matrices = np.array([[[0.5, 0, shift], [0, 0.25, -shift]]])
    out = (40, 60)
    expected = oracle.warp(images, matrices, out, fill=fill, order=order, cval=-1)
    aug = Augmenter(fill_mode=fill, cval=-1, crop=out)
    got = aug.apply(images, matrices, ["nearest", "bilinear"][order]).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=0)


def test_mean_and_std() -> None:
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (4, 3, 12, 12), np.uint8)
    mean, std = [0.1, 0.5, 0.9], [0.2, 0.3, 2.0]
    aug = Augmenter(rotation_range=30, fill_mode="constant", cval=99, mean=mean, std=std)
    matrices = aug.sample(range(4), 1, (12, 12)).numpy()
    plain = oracle.warp(images, matrices, (12, 12), fill="constant", order=1, cval=99) / 255
    expected = (plain - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    got = aug.apply(images, matrices).numpy()
    np.testing.assert_allclose(got, expected, rtol=0, atol=10 * oracle.ROUNDINGS)
