"""torch's default device and dtype change nothing: the same bits, on the pictures' device."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from onepass.augment import AugmentedDataset, Augmenter, _grid

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 9, 8, 2), np.uint8)
FLOATS = torch.rand(6, 2, 9, 8)
MASKS: list[Any] = [
    np.random.default_rng(1).integers(-9, 9, (6, 9, 8)),
    torch.rand(6, 9, 8) > 0.5,
    torch.rand(6, 2, 9, 8, dtype=torch.float16),
]
LABELS: list[Any] = [range(6), np.arange(6.0), torch.arange(6), list(torch.arange(6))]
NUMBERS = torch.arange(6)
STATISTICS = torch.tensor([0.25, 0.5], dtype=torch.bfloat16)
POINTS: list[Any] = [[[[2, 5]]] * 6, np.ones((6, 3, 2), np.float32), torch.ones(6, 1, 2)]
OPTIONS: dict[str, Any] = {
    "rotation_range": 30,
    "zoom_range": 0.2,
    "horizontal_flip": True,
    "crop": (7, 7),
    "crop_padding": 2,
    "cval": 1.0,
}


def of_the_augmenter() -> Iterator[torch.Tensor]:
    for fill in ("nearest", "constant"):
        aug = Augmenter(**OPTIONS, fill_mode=fill, mean=STATISTICS, std=list(STATISTICS))
        matrices = aug.sample(NUMBERS, 3, (9, 8))
        yield matrices
        for images in (IMAGES, FLOATS):
            yield aug(images, range(6), 3)
            yield aug(images, list(NUMBERS), train=False)
            yield aug.apply(images, list(matrices), "nearest")
        for masks in MASKS:
            yield aug.apply_mask(masks, matrices, cval=1)
        for xy in POINTS:
            yield aug.points(xy, matrices)


def of_a_dataset() -> Iterator[torch.Tensor]:
    for labels in LABELS:
        original = AugmentedDataset(IMAGES, labels, Augmenter(**OPTIONS))
        for dataset in (original, copy.deepcopy(original), pickle.loads(pickle.dumps(original))):
            dataset.set_epoch(2)
            for index in (4, [4, 1], NUMBERS, NUMBERS[3]):
                yield from dataset[index]
            for pair in dataset.__getitems__(list(NUMBERS)):
                yield from pair


def of_loaders() -> Iterator[torch.Tensor]:
    dataset = AugmentedDataset(IMAGES, range(6), Augmenter(**OPTIONS))
    for options in ({}, {"num_workers": 1}, {"shuffle": True}, {"sampler": NUMBERS}):
        loader = dataset.loader(4, **options)
        for epoch in (0, 1):
            dataset.set_epoch(epoch)
            for pair in loader:
                yield from pair


def of_the_grid() -> Iterator[torch.Tensor]:
    """What CUDA tensors go through, run on the CPU's."""
    matrices = torch.from_numpy(Augmenter(30).sample(range(6), 0, (9, 8)).numpy())
    for fill in ("nearest", "reflect", "mirror", "wrap", "constant"):
        for bilinear in (True, False):
            yield _grid.warp_images(
                FLOATS,
                matrices,
                (7, 7),
                fill=fill,
                bilinear=bilinear,
                mean=(0.1, 0.2),
                std=(1, 2),
                cval=1,
            )
        outside = FLOATS[0, 0, 0, 0]
        yield _grid.warp_masks(FLOATS, matrices, (7, 7), fill=fill, outside=outside)


PARTS = [of_the_augmenter, of_a_dataset, of_loaders, of_the_grid]
CUDA = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    ],
)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("device", ["meta", CUDA])
def test_default_device(part: Any, device: str) -> None:
    expected = list(part())
    with torch.device(device):
        got = list(part())
    compare(got, expected)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_default_dtype(part: Any, dtype: torch.dtype) -> None:
    expected = list(part())
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        got = list(part())
    finally:
        torch.set_default_dtype(before)
    compare(got, expected)


def compare(got: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    assert len(expected) > 10
    for ours, plain in zip(got, expected, strict=True):
        assert ours.device == plain.device == torch.device("cpu")
        assert ours.dtype == plain.dtype
        assert torch.equal(ours, plain)
