"""The averages of the weights, for evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from onepass.hyper.spec import Group
from onepass.state.batch_norm import re_estimated
from onepass.state.names import EMA, States

Pair = tuple[torch.Tensor, torch.Tensor]


@contextmanager
def ema_in_place(
    groups: list[Group],
    state: States,
    model: torch.nn.Module | None,
    data: Iterable[Any] | None,
) -> Iterator[None]:
    """Put the averages of the weights in their place, and the weights back at the end."""
    averaged = [p for group in groups for p in group["params"] if EMA in state.get(p, {})]
    weights = [p.detach().clone() for p in averaged]
    try:
        with torch.no_grad():
            for p in averaged:
                p.copy_(state[p][EMA])
        with re_estimated(model, data):
            yield
    finally:
        put_back(list(zip(averaged, weights, strict=True)))


def put_back(pairs: list[Pair]) -> None:
    """Copy the second tensor of each pair into the first, whatever happens meanwhile; then raise what has happened."""
    error: BaseException | None = None
    while pairs:
        try:
            with torch.no_grad():
                while pairs:
                    tensor, value = pairs[-1]
                    tensor.copy_(value)
                    pairs.pop()
        except Exception as impossible:
            error = error or impossible
            pairs.pop()
        except BaseException as interrupt:
            error = interrupt
    if error is not None:
        raise error
