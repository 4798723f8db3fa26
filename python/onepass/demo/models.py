"""The models: small enough for seconds, real enough to learn.

Activations are smooth and nothing takes a maximum: a kink would turn a difference in the last bit of a weight
into a different gradient, and the two trainings would drift apart for a reason that is not the optimizer.
"""

from __future__ import annotations

import torch
from torch import nn


def cnn() -> nn.Module:
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


def mlp() -> nn.Module:
    """Return three linear layers."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(8 * 8, 256),
        nn.GELU(),
        nn.Linear(256, 128),
        nn.GELU(),
        nn.Linear(128, 10),
    )


MODELS = {"CNN": cnn, "MLP": mlp}


def build(name: str, seed: int) -> nn.Module:
    """Return a new model whose weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MODELS[name]()
