"""The averages of the weights, for evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from onepass.hyper.spec import Group
from onepass.state.names import EMA, States


@contextmanager
def ema_in_place(groups: list[Group], state: States) -> Iterator[None]:
    """Put the averages of the weights in their place, and the weights back at the end."""
    swapped = [p for group in groups for p in group["params"] if EMA in state.get(p, {})]
    with torch.no_grad():
        weights = [p.detach().clone() for p in swapped]
        for p in swapped:
            p.copy_(state[p][EMA])
    try:
        yield
    finally:
        with torch.no_grad():
            for p, weight in zip(swapped, weights, strict=True):
                p.copy_(weight)
