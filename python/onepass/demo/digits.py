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

    def take(self, index: Tensor) -> Digits:
        """Return some of the images."""
        return Digits(self.images[index], self.labels[index])

    def first(self, per_digit: int) -> Digits:
        """Return the first images of every digit."""
        digits = range(int(self.labels.max()) + 1)
        rows = [torch.nonzero(self.labels == digit)[:per_digit, 0] for digit in digits]
        return self.take(torch.cat(rows))

    def between(self, first: int, last: int) -> Digits:
        """Return the images of some digits, which are numbered from 0."""
        kept = self.take((self.labels >= first) & (self.labels <= last))
        return Digits(kept.images, kept.labels - first)

    def shuffled(self, seed: int) -> Digits:
        """Return the images in another order."""
        order = torch.randperm(len(self.labels), generator=torch.Generator().manual_seed(seed))
        return self.take(order)

    def numbers(self, size: int, epochs: int, seed: int) -> Iterator[tuple[int, Tensor]]:
        """Yield epochs, and numbers of shuffled images in batches; an incomplete last batch is left out."""
        generator = torch.Generator().manual_seed(seed)
        for epoch in range(epochs):
            order = torch.randperm(len(self.labels), generator=generator)
            for index in order[: len(order) // size * size].view(-1, size):
                yield epoch, index

    def batches(self, size: int, epochs: int, seed: int) -> Iterator[Digits]:
        """Yield shuffled batches of `size`."""
        return (self.take(index) for _, index in self.numbers(size, epochs, seed))


def load(seed: int) -> tuple[Digits, Digits]:
    """Return the images to train on and those to test with."""
    data = load_digits()
    images = torch.from_numpy(data.images).float().unsqueeze(1) / 16.0  # a pixel counts 0 to 16
    digits = Digits(images, torch.from_numpy(data.target)).shuffled(seed)
    test, train = slice(TEST_IMAGES), slice(TEST_IMAGES, None)
    return Digits(*(x[train] for x in digits)), Digits(*(x[test] for x in digits))
