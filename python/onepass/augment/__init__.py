"""Augmentation in one pass: a random matrix per picture, one interpolation, normalised."""

from __future__ import annotations

from onepass.augment.augmenter import Augmenter
from onepass.augment.dataset import AugmentedDataset

__all__ = ["AugmentedDataset", "Augmenter"]
