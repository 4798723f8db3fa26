"""Whole-pixel moves are indexing, bit by bit, whatever the interpolation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onepass.augment import Augmenter

from . import oracle

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
# numpy.pad's names; scipy's wrap has no counterpart, since its period is one pixel shorter.
PADS = {"nearest": "edge", "reflect": "symmetric", "mirror": "reflect", "constant": "constant"}


def images(dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    whole = torch.randint(0, 256, (6, 3, 9, 13), generator=generator)
    return whole.to(dtype) if dtype == torch.uint8 else whole.to(dtype) / 255


def normalised(x: torch.Tensor) -> torch.Tensor:
    """The formula as torch computes it."""
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return ((x / 255 if x.dtype == torch.uint8 else x) - mean) / std


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(
    ("matrix", "indexed"),
    [
        ([[1, 0, 0], [0, 1, 0]], lambda x: x),
        ([[-1, 0, 12], [0, 1, 0]], lambda x: x.flip(3)),
        ([[1, 0, 0], [0, -1, 8]], lambda x: x.flip(2)),
        ([[1, 0, 3], [0, 1, 2]], lambda x: x[:, :, 2:, 3:]),
        ([[0, 1, 0], [1, 0, 0]], lambda x: x.transpose(2, 3)),
        ([[2, 0, 1], [0, 3, 2]], lambda x: x[:, :, 2::3, 1::2]),
    ],
)
def test_whole_pixels(
    matrix: object, indexed: object, dtype: torch.dtype, interpolation: str
) -> None:
    x = images(dtype)
    expected = normalised(indexed(x))  # type: ignore[operator]
    aug = Augmenter(
        crop=(expected.shape[2], expected.shape[3]), mean=MEAN, std=STD, interpolation=interpolation
    )
    matrices = np.tile(np.array(matrix, np.float64), (6, 1, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_args, **_options: None)  # one of them shrinks
        assert torch.equal(aug.apply(x, matrices), expected)


@pytest.mark.parametrize("fill", PADS)
def test_crop_is_pad_then_cut(fill: str) -> None:
    x = images()
    aug = Augmenter(crop=(9, 13), crop_padding=4, fill_mode=fill, cval=77, horizontal_flip=True)
    matrices = aug.sample(range(6), 5, (9, 13)).numpy()
    out = aug(x, range(6), epoch=5)
    options = {"constant_values": 77} if fill == "constant" else {}
    padded = np.pad(x.numpy(), [(0, 0), (0, 0), (4, 4), (4, 4)], PADS[fill], **options)  # type: ignore[call-overload]
    flipped = 0
    for k in range(6):
        step, _, x0 = matrices[k, 0]
        left, top = int(x0 + 4 - (12 if step < 0 else 0)), int(matrices[k, 1, 2] + 4)
        assert 0 <= left <= 8
        assert 0 <= top <= 8
        cut = padded[k, :, top : top + 9, left : left + 13]
        cut = cut[:, :, ::-1] if step < 0 else cut
        flipped += step < 0
        assert torch.equal(out[k], torch.from_numpy(cut.copy()) / 255)
    assert 0 < flipped < 6


def test_not_training_is_the_centre_normalised() -> None:
    x = images()
    aug = Augmenter(
        90, 0.5, 0.5, crop=(4, 6), crop_padding=2, mean=MEAN, std=STD, vertical_flip=True
    )
    assert torch.equal(aug(x, range(6), train=False), normalised(x[:, :, 2:6, 3:9]))
    larger = Augmenter(crop=(11, 15), fill_mode="constant", cval=51)(x, range(6), train=False)
    assert torch.equal(larger[:, :, 1:10, 1:14], x / 255)
    assert larger[:, :, 0].eq(51 / 255).all()


def test_nothing_asked_is_to_tensor() -> None:
    x = images()
    assert torch.equal(Augmenter()(x, range(6)), x / 255)
    assert torch.equal(Augmenter()(images(torch.float32), range(6)), images(torch.float32))


def test_special_values_stay_where_they_are() -> None:
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, 2], x[0, 0, 0, 4] = float("nan"), float("inf")
    flipped = Augmenter().apply(x, np.array([[[-1.0, 0, 4], [0, 1, 0]]]))
    assert torch.equal(flipped.nan_to_num(), x.flip(3).nan_to_num())


@pytest.mark.parametrize("fill", oracle.FILLS)
def test_constant_pictures_stay_constant(fill: str) -> None:
    x = torch.full((4, 1, 8, 8), 0.3)
    aug = Augmenter(40, 0.3, 0.3, 20, 0.4, fill_mode=fill, cval=float(np.float32(0.3)))
    assert torch.equal(aug(x, range(4)), x)
