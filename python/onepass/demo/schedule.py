"""A learning rate that changes: a scheduler of torch beside a schedule in the place of the number."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    LRScheduler,
    SequentialLR,
)

import onepass
from onepass.demo.chapter import Chapter, Stage
from onepass.demo.models import mlp, twins
from onepass.demo.pair import Pair, Training, scientific
from onepass.demo.picture import curves
from onepass.schedule import Constant, Cosine, Exponential, Schedule

BATCH, LR = 32, 0.003
RATES = 1e-12
"""How far the learning rates of the two libraries may lie apart: torch's follow from one another, and roundings add up."""


def schedules(steps: int) -> dict[str, Schedule]:
    """Return three learning rates for a training of so many steps."""
    warmup = steps // 10
    return {
        "constant": Constant(LR),
        "exponential": Exponential(LR, 0.01, decay_steps=steps),
        "warm-up, cosine": Cosine(LR, steps - warmup).warmup(warmup),
    }


def scheduler(name: str, optimizer: Optimizer, steps: int) -> LRScheduler | None:
    """Return torch's scheduler for one of them; the optimizer has its highest rate."""
    warmup = steps // 10
    if name == "constant":
        return None
    if name == "exponential":
        return ExponentialLR(optimizer, 0.01 ** (1 / steps))
    rise = LinearLR(optimizer, start_factor=1 / warmup, total_iters=warmup - 1)
    return SequentialLR(optimizer, [rise, CosineAnnealingLR(optimizer, steps - warmup)], [warmup])


def train(stage: Stage) -> Chapter:
    """Train an MLP with each of the learning rates."""
    epochs = 3 if stage.fast else 20
    steps = len(stage.train.labels) // BATCH * epochs
    stage.announce("schedule", "Adam on the MLP with three learning rates, torch's by schedulers")
    pairs = []
    for name, lr in schedules(steps).items():
        theirs, ours = twins(stage.seed, mlp)
        adam = torch.optim.Adam(theirs.parameters(), lr=LR)
        pair = stage.pair(
            name,
            Training(theirs, adam, scheduler(name, adam, steps)),
            Training(ours, onepass.Adam(ours.parameters(), lr=lr)),
            stage.train.batches(BATCH, epochs, stage.seed),
            steps,
        )
        pairs.append(pair._replace(shows=f"{pair.shows}, {scientific(_apart(pair))}"))
    broken = tuple(
        f"the learning rates of {pair.title} are {_apart(pair):.0e} apart"
        for pair in pairs
        if _apart(pair) > RATES
    )

    def rates(panel: Any) -> None:
        for pair in pairs:
            curves(panel, pair.torch.rates[0], pair.onepass.rates[0])
        panel.set(title="the same learning rates", xlabel="step", ylabel="learning rate")
        panel.set_ylim(top=1.2 * LR)
        # beside the curves, of which the exponential one has fallen to 0.33 here
        for x, y, name in (
            (0.98, 1.05, "constant"),
            (0.26, 0.33, "exponential"),
            (0.6, 0.6, "warm-up, cosine"),
        ):
            panel.text(
                x * steps,
                y * LR,
                name,
                horizontalalignment="right" if name == "constant" else "left",
            )

    return Chapter("schedule", "weights, lr", pairs, [rates], broken)


def _apart(pair: Pair) -> float:
    return max(abs(a - b) for a, b in zip(pair.torch.rates[0], pair.onepass.rates[0], strict=True))
