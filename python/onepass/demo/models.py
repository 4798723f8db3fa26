"""The models: small enough for seconds, real enough to learn.

Activations are smooth and nothing takes a maximum: a kink would turn a difference in the last bit of a weight
into a different gradient, and the two trainings would drift apart for a reason that is not the optimizer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

Made = TypeVar("Made")


def cnn() -> nn.Sequential:
    """Return two convolutions and two linear layers."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.GELU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 64),
        nn.GELU(),
        nn.Linear(64, 10),
    )


def normed_cnn(classes: int) -> nn.Sequential:
    """Return two convolutions with BatchNorm and a linear head."""
    return nn.Sequential(
        # BatchNorm takes a bias away again: its gradient would be rounding alone, which Adam makes large
        nn.Conv2d(1, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.GELU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(64 * 4 * 4, classes),
    )


def mlp() -> nn.Sequential:
    """Return three linear layers."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(8 * 8, 256),
        nn.GELU(),
        nn.Linear(256, 128),
        nn.GELU(),
        nn.Linear(128, 10),
    )


def seeded(seed: int, make: Callable[[], Made]) -> Made:
    """Return what `make` makes where the seed alone decides what is drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def twins(seed: int, make: Callable[[], Made]) -> tuple[Made, Made]:
    """Return two of them with the same weights."""
    return seeded(seed, make), seeded(seed, make)
