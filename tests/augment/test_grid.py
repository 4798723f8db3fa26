"""The path of CUDA tensors: torch's own operations, run here on the CPU, against the core."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from onepass.augment import Augmenter, _grid

from . import oracle

# Places are rounded to float32 by grid_sample: 1e-5 pixels on pictures of this size.
PLACES = 1e-5


def both(aug: Augmenter, images: torch.Tensor, spread: float) -> tuple[torch.Tensor, torch.Tensor]:
    size = images.shape[2], images.shape[3]
    matrices = aug.sample(range(len(images)), 0, size)
    matrices[:, :, 2] *= spread
    channels = images.shape[1]
    options: dict[str, Any] = {
        "fill": aug.fill_mode,
        "bilinear": aug.interpolation == "bilinear",
        "mean": (0.2,) * channels,
        "std": (0.5,) * channels,
        "cval": aug.cval,
    }
    return aug.apply(images, matrices), _grid.warp_images(
        images, matrices, aug.crop or size, **options
    )


@pytest.mark.parametrize("fill", oracle.FILLS)
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("shape", [(6, 3, 20, 31), (4, 1, 1, 1), (2, 2, 1, 9)])
@pytest.mark.parametrize("spread", [1, 25])
def test_agrees(
    shape: tuple[int, ...], dtype: torch.dtype, interpolation: str, fill: str, spread: float
) -> None:
    whole = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0))
    images = whole.to(torch.uint8) if dtype == torch.uint8 else whole.to(dtype) / 255
    aug = Augmenter(
        30,
        0.2,
        0.2,
        10,
        0.3,
        True,
        crop=(12, 14),
        crop_padding=9,
        fill_mode=fill,
        cval=0.5,
        interpolation=interpolation,
        mean=0.2,
        std=0.5,
    )
    expected, got = both(aug, images, spread)
    torch.testing.assert_close(got, expected, rtol=0, atol=4 * PLACES)
    if interpolation == "nearest":
        assert torch.equal(got, expected)


@pytest.mark.parametrize("fill", oracle.FILLS)
def test_masks_agree(fill: str) -> None:
    aug = Augmenter(40, 0.4, 0.4, fill_mode=fill)
    masks = torch.randint(-50, 50, (5, 2, 11, 9), dtype=torch.int16)
    matrices = aug.sample(range(5), 0, (11, 9))
    outside = torch.tensor(-3, dtype=torch.int16)
    got = _grid.warp_masks(masks, matrices, (11, 9), fill=fill, outside=outside)
    assert torch.equal(got, aug.apply_mask(masks, matrices, cval=-3))


def test_parts_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    aug = Augmenter(30, mean=0.2, std=0.5)
    images = torch.randint(0, 256, (7, 1, 8, 8), dtype=torch.uint8)
    _, together = both(aug, images, 1)
    monkeypatch.setattr(_grid, "_CHUNK", 150)
    assert torch.equal(both(aug, images, 1)[1], together)


def test_overflowing_places_are_safe() -> None:
    images = torch.ones(1, 1, 4, 4)
    matrices = torch.full((1, 2, 3), 1.7e308, dtype=torch.float64)
    for fill in oracle.FILLS:
        for bilinear in (False, True):
            out = _grid.warp_images(
                images, matrices, (9, 9), fill=fill, bilinear=bilinear, mean=(0,), std=(1,), cval=1
            )
            assert out.eq(1).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda() -> None:
    images = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8)
    aug = Augmenter(15, 0.1, 0.1, 5, 0.1, True, mean=0.2, std=0.5)
    on_gpu = aug(images.cuda(), range(16), 3)
    assert on_gpu.device.type == "cuda"
    torch.testing.assert_close(on_gpu.cpu(), aug(images, range(16), 3), rtol=0, atol=4 * PLACES)
    matrices = aug.sample(range(16), 3, (32, 32))
    masks = images[:, 0]
    assert torch.equal(
        aug.apply_mask(masks.cuda(), matrices).cpu(), aug.apply_mask(masks, matrices)
    )
    assert torch.equal(
        aug.points(torch.ones(16, 1, 2).cuda(), matrices).cpu(),
        aug.points(torch.ones(16, 1, 2), matrices),
    )
