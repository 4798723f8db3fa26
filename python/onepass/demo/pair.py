"""One model trained twice on the same batches: by an optimizer of torch.optim and by its twin of onepass."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from onepass.demo.digits import Digits


class Outcome(NamedTuple):
    """What a training ended with."""

    losses: list[float]
    """Of every batch, before its step."""
    final_loss: float
    """Mean over the training images, after the last step."""
    accuracy: float
    """On the test images."""
    step_share: float
    """Time in `optimizer.step()` over the time of the whole training."""


class Pair(NamedTuple):
    """The outcomes of the two libraries."""

    model: str
    parameters: int
    optimizer: str
    torch: Outcome
    onepass: Outcome
    difference: float
    """The largest absolute difference between two weights after the last step."""


class Training:
    """A training loop with two clocks: around the loop's body, and around `optimizer.step()` alone."""

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        self.model = model
        self.optimizer = optimizer
        self.losses: list[float] = []
        self._seconds = 0.0
        self._step_seconds = 0.0

    def step(self, batch: Digits) -> None:
        """Train on one batch."""
        start = time.perf_counter()
        self.optimizer.zero_grad()
        loss = cross_entropy(self.model(batch.images), batch.labels)
        loss.backward()  # type: ignore[no-untyped-call]
        before = time.perf_counter()
        self.optimizer.step()
        self._step_seconds += time.perf_counter() - before
        self.losses.append(loss.item())
        self._seconds += time.perf_counter() - start

    @torch.no_grad()
    def outcome(self, train: Digits, test: Digits) -> Outcome:
        """Evaluate the model as it is now."""
        return Outcome(
            losses=self.losses,
            final_loss=cross_entropy(self.model(train.images), train.labels).item(),
            accuracy=(self.model(test.images).argmax(1) == test.labels).float().mean().item(),
            step_share=self._step_seconds / self._seconds,
        )


def train_pair(
    name: str,
    model: nn.Module,
    optimizers: tuple[type[Optimizer], type[Optimizer]],
    arguments: dict[str, float],
    batches: Iterable[Digits],
    data: tuple[Digits, Digits],
    after_batch: Callable[[float, float], None],
) -> Pair:
    """Train two copies of `model` in turns, batch by batch, so that both meet the same load of the machine.

    Args:
        name: Of the model.
        model: The initial weights; left as it is.
        optimizers: The class of torch.optim and that of onepass.
        arguments: For both of them.
        batches: What both train on.
        data: Images to train on and to test with, for the evaluation at the end.
        after_batch: Called after every batch with the two losses.
    """
    torch_side, our_side = (
        Training(twin, kind(twin.parameters(), **arguments))  # type: ignore[arg-type]
        for kind, twin in ((kind, copy.deepcopy(model)) for kind in optimizers)
    )
    for number, batch in enumerate(batches):
        # whoever comes second finds the batch in the cache
        for side in (torch_side, our_side) if number % 2 else (our_side, torch_side):
            side.step(batch)
        after_batch(torch_side.losses[-1], our_side.losses[-1])
    weights = zip(torch_side.model.parameters(), our_side.model.parameters(), strict=True)
    return Pair(
        model=name,
        parameters=sum(p.numel() for p in model.parameters()),
        optimizer=optimizers[1].__name__,
        torch=torch_side.outcome(*data),
        onepass=our_side.outcome(*data),
        difference=max((theirs - ours).abs().max().item() for theirs, ours in weights),
    )
