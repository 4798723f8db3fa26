"""Masks: nearest, with dtype and values kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onepass.augment import Augmenter

from . import oracle

DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.uint16,
    torch.int32,
    torch.uint32,
    torch.int64,
    torch.uint64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
]


def labels(dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    high = 2 if dtype == torch.bool else 120
    whole = torch.randint(0, high, shape, generator=torch.Generator().manual_seed(0))
    return whole.to(torch.float64).to(dtype)


@pytest.mark.parametrize("fill", oracle.FILLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_against_scipy(dtype: torch.dtype, fill: str) -> None:
    aug = Augmenter(30, 0.2, 0.2, 10, 0.3, True, crop=(12, 10), fill_mode=fill)
    masks = labels(dtype, (4, 14, 11))
    matrices = aug.sample(range(4), 0, (14, 11))
    out = aug.apply_mask(masks, matrices, cval=1)
    assert out.dtype == dtype
    values = masks.to(torch.complex128).real.numpy()[:, None]
    expected = oracle.warp(values, matrices.numpy(), (12, 10), fill=fill, order=0, cval=1)
    np.testing.assert_array_equal(out.to(torch.complex128).real.numpy(), expected[:, 0])


def test_the_same_pixels_as_the_image() -> None:
    aug = Augmenter(30, 0.2, 0.2, interpolation="nearest", horizontal_flip=True)
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(5, -1, -1, -1)
    matrices = aug.sample(range(5), 0, (16, 16))
    mask = aug.apply_mask(images, matrices)
    assert mask.shape == (5, 1, 16, 16)
    assert torch.equal(mask / 255, aug.apply(images, matrices))


def test_numpy_and_channels() -> None:
    aug = Augmenter(vertical_flip=True)
    matrices = np.tile(np.array([[1.0, 0, 0], [0, -1, 4]]), (2, 1, 1))
    masks = np.arange(120, dtype=np.uint16).reshape(2, 5, 4, 3)[:, ::-1]
    assert torch.equal(
        aug.apply_mask(masks, matrices, layout="NHWC"),
        torch.from_numpy(np.ascontiguousarray(masks[:, ::-1].transpose(0, 3, 1, 2))),
    )
    assert aug.apply_mask(np.zeros((0, 5, 4), bool), np.zeros((0, 2, 3))).shape == (0, 5, 4)


@pytest.mark.parametrize(
    ("dtype", "cval"),
    [(torch.uint8, 256), (torch.uint8, 0.5), (torch.bool, 2), (torch.int8, -129)],
)
def test_a_fill_value_that_is_none(dtype: torch.dtype, cval: float) -> None:
    aug = Augmenter(fill_mode="constant")
    with pytest.raises(ValueError, match="cval must be a value of"):
        aug.apply_mask(labels(dtype, (1, 4, 4)), aug.sample([0], 0, (4, 4)), cval=cval)


def test_negative_fill_value() -> None:
    aug = Augmenter(fill_mode="constant", crop=(1, 3))
    out = aug.apply_mask(
        torch.ones(1, 1, 1, dtype=torch.int16), np.array([[[1.0, 0, -1], [0, 1, 0]]]), cval=-100
    )
    assert out.tolist() == [[[-100, 1, -100]]]
