"""Points go where the warped picture shows them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onepass.augment import Augmenter


def test_the_image_of_an_impulse() -> None:
    aug = Augmenter(25, 0.1, 0.1, 15, 0.2, True, True, crop=(50, 60), crop_padding=2)
    matrices = aug.sample(range(20), 0, (52, 64))
    at = np.array([[30.0, 20.0]])
    images = torch.zeros(20, 1, 52, 64)
    # A blob that is linear around its top, so that its centre of mass is found to a fraction of a pixel.
    y, x = np.mgrid[:52, :64]
    images[:] = torch.from_numpy(np.maximum(0, 1 - np.hypot(x - at[0, 0], y - at[0, 1]) / 6))
    out = aug.apply(images, matrices).numpy().astype(np.float64)[:, 0]
    total = out.sum((1, 2))
    found = np.stack([(out.sum(1) * np.arange(60)).sum(1), (out.sum(2) * np.arange(50)).sum(1)], 1)
    moved = aug.points(np.tile(at, (20, 1, 1)), matrices).numpy()[:, 0]
    np.testing.assert_allclose(moved, found / total[:, None], atol=0.02)


def test_whole_moves_are_exact() -> None:
    aug = Augmenter(crop=(4, 4))
    matrices = np.array([[[-1.0, 0, 6], [0, 1, 2]], [[0, 1, 0], [1, 0, 0]]])
    moved = aug.points([[[6, 2], [3, 5]], [[1, 2], [0, 3]]], matrices)
    assert moved.dtype == torch.float64
    assert moved.tolist() == [[[0, 0], [3, 3]], [[2, 1], [3, 0]]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_there_and_back(dtype: torch.dtype) -> None:
    aug = Augmenter(40, 0.3, 0.3, 20, 0.3, True)
    matrices = aug.sample(range(9), 2, (30, 20))
    xy = torch.rand(9, 5, 2, generator=torch.Generator().manual_seed(0)).mul(20).to(dtype)
    moved = aug.points(xy, matrices)
    assert moved.dtype == dtype
    back = moved.double() @ matrices[:, :, :2].transpose(1, 2) + matrices[:, None, :, 2]
    torch.testing.assert_close(back.to(dtype), xy, rtol=0, atol=40 * torch.finfo(dtype).eps * 2)


def test_no_points() -> None:
    aug = Augmenter()
    assert aug.points(np.zeros((0, 3, 2)), np.zeros((0, 2, 3))).shape == (0, 3, 2)
    assert aug.points(torch.zeros(2, 0, 2), aug.sample([0, 1], 0, (5, 5))).shape == (2, 0, 2)
