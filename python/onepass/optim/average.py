"""The averages of the weights, for evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from onepass.optim.states import EMA

if TYPE_CHECKING:
    from onepass.optim.base import OnePass


@contextmanager
def averages_in_place(optimizer: OnePass) -> Iterator[None]:
    """Put the averages of the weights in their place, and the weights back at the end."""
    averaged = [
        p
        for group in optimizer.param_groups
        for p in group["params"]
        if EMA in optimizer.state.get(p, {})
    ]
    with torch.no_grad():
        weights = [p.detach().clone() for p in averaged]
        for p in averaged:
            p.copy_(optimizer.state[p][EMA])
    try:
        yield
    finally:
        with torch.no_grad():
            for p, weight in zip(averaged, weights, strict=True):
                p.copy_(weight)
