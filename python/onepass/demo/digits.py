"""The data: scikit-learn's handwritten digits, 1797 images of 8 x 8 pixels, which come with the package."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import Tensor

TEST_IMAGES = 360


class Digits(NamedTuple):
    """Images (N, 1, 8, 8) in [0, 1] and their digits."""

    images: Tensor
    labels: Tensor

    def batches(self, size: int, epochs: int, seed: int) -> Iterator[Digits]:
        """Yield shuffled batches of `size`; an epoch's incomplete last batch is left out."""
        generator = torch.Generator().manual_seed(seed)
        for _ in range(epochs):
            order = torch.randperm(len(self.labels), generator=generator)
            for index in order[: len(order) // size * size].view(-1, size):
                yield Digits(self.images[index], self.labels[index])


def load(seed: int) -> tuple[Digits, Digits]:
    """Return the images to train on and those to test with."""
    data = load_digits()
    images = torch.from_numpy(data.images).float().unsqueeze(1) / 16.0  # a pixel counts 0 to 16
    labels = torch.from_numpy(data.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    test, train = order[:TEST_IMAGES], order[TEST_IMAGES:]
    return Digits(images[train], labels[train]), Digits(images[test], labels[test])
