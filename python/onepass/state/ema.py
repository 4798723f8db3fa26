"""The averages of the weights, for evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from onepass.hyper.spec import Group
from onepass.state.batch_norm import re_estimated
from onepass.state.names import EMA, States


@contextmanager
def ema_in_place(
    groups: list[Group],
    state: States,
    model: torch.nn.Module | None,
    data: Iterable[Any] | None,
) -> Iterator[None]:
    """Put the averages of the weights in their place, and the weights back at the end."""
    averaged = [p for group in groups for p in group["params"] if EMA in state.get(p, {})]
    weights = [(p, p.detach().clone()) for p in averaged]
    try:
        for p in averaged:
            p.detach().copy_(state[p][EMA])  # no `no_grad`, which an interrupt may leave on
        with re_estimated(model, data):
            yield
    finally:
        try:
            _put_back(weights)
        finally:
            _put_back(weights)  # what an interrupt has left


def _put_back(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Copy the second tensor of each pair into the first, and take the pair from the list; in the end raise what failed."""
    error: Exception | None = None
    while pairs:
        tensor, value = pairs[-1]
        try:
            tensor.detach().copy_(value)
        except Exception as impossible:
            error = error or impossible
        pairs.pop()
    if error is not None:
        raise error
