"""One model trained twice on the same batches: by an optimizer of torch.optim and by its twin of onepass."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from onepass.demo.digits import Digits


class Outcome(NamedTuple):
    """What a training ended with."""

    losses: list[float]
    """Of every batch, before its step."""
    rates: list[list[float]]
    """The learning rates of every step, for each parameter group."""
    final_loss: float
    """Mean over the training images, after the last step."""
    accuracy: float
    """On the test images."""
    seconds: float
    """Of the whole training."""
    step_seconds: float
    """Of these in `optimizer.step()`, and in its scheduler's."""

    @property
    def step_share(self) -> float:
        """The share of `step_seconds`."""
        return self.step_seconds / self.seconds


class Pair(NamedTuple):
    """The outcomes of the two libraries."""

    title: str
    torch: Outcome
    onepass: Outcome
    difference: float
    """The largest absolute difference between two weights after the last step."""
    shows: str = ""
    """What the chapter is about, as the table shows it."""
    comparable: bool = True
    """Whether both libraries compute the same, so that they have to agree."""


class Training:
    """A training loop with two clocks: around the loop's body, and around `optimizer.step()` alone.

    Args:
        model: Is trained in the mode that it is in.
        optimizer: Of one library or the other.
        scheduler: For a library whose optimizers take numbers only.
        penalty: What comes to the loss, for a library whose optimizers have no L1.
        before_step: Called with the number of the step, for a library whose optimizers have no `train_from`.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Optimizer,
        scheduler: LRScheduler | None = None,
        penalty: Callable[[], Tensor] | None = None,
        before_step: Callable[[int], None] | None = None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.penalty = penalty
        self.before_step = before_step
        self.losses: list[float] = []
        self.rates: list[list[float]] = []
        self._seconds = 0.0
        self._step_seconds = 0.0

    def step(self, batch: Digits) -> None:
        """Train on one batch."""
        self.rates.append([group["lr"] for group in self.optimizer.param_groups])
        start = time.perf_counter()
        if self.before_step:
            self.before_step(len(self.losses))
        self.optimizer.zero_grad()
        loss = cross_entropy(self.model(batch.images), batch.labels)
        (loss + self.penalty() if self.penalty else loss).backward()  # type: ignore[no-untyped-call]
        before = time.perf_counter()
        self.optimizer.step()
        if self.scheduler:
            self.scheduler.step()
        self._step_seconds += time.perf_counter() - before
        self.losses.append(loss.item())
        self._seconds += time.perf_counter() - start

    @torch.no_grad()
    def outcome(self, train: Digits, test: Digits) -> Outcome:
        """Evaluate the model as it is now; it is left in evaluation mode."""
        self.model.eval()
        return Outcome(
            losses=self.losses,
            rates=[list(rates) for rates in zip(*self.rates, strict=True)],
            final_loss=cross_entropy(self.model(train.images), train.labels).item(),
            accuracy=(self.model(test.images).argmax(1) == test.labels).float().mean().item(),
            seconds=self._seconds,
            step_seconds=self._step_seconds,
        )


def train_pair(
    title: str,
    sides: tuple[Training, Training],
    batches: Iterable[Digits],
    data: tuple[Digits, Digits],
    after_batch: Callable[[float, float], None] = lambda *_: None,
) -> Pair:
    """Train two models in turns, batch by batch, so that both meet the same load of the machine.

    Args:
        title: Of the pair.
        sides: The training by torch.optim and that by onepass, from the same weights.
        batches: What both train on.
        data: Images to train on and to test with, for the evaluation at the end.
        after_batch: Called after every batch with the two losses. Default: does nothing.
    """
    for number, batch in enumerate(batches):
        # whoever comes second finds the batch in the cache
        for side in sides if number % 2 else sides[::-1]:
            side.step(batch)
        after_batch(sides[0].losses[-1], sides[1].losses[-1])
    weights = zip(*(side.model.parameters() for side in sides), strict=True)
    difference = max((theirs - ours).abs().max().item() for theirs, ours in weights)
    theirs, ours = (side.outcome(*data) for side in sides)
    return Pair(title, theirs, ours, difference, shows=scientific(difference))


def scientific(number: float) -> str:
    """Return a number as the table shows how small it is."""
    return f"{number:.0e}" if number else "0"


def mean(title: str, pairs: Sequence[Pair]) -> Pair:
    """Return several pairs, which differ by their seeds, as one."""

    def average(outcomes: Sequence[Outcome]) -> Outcome:
        numbers = [
            sum(values) / len(values) for values in zip(*(o[2:] for o in outcomes), strict=True)
        ]
        return Outcome(outcomes[0].losses, outcomes[0].rates, *numbers)

    return Pair(
        title,
        average([pair.torch for pair in pairs]),
        average([pair.onepass for pair in pairs]),
        max(pair.difference for pair in pairs),
    )
