"""Every optimizer on two models, beside its twin of torch.optim."""

from __future__ import annotations

from typing import Any

import torch

import onepass
from onepass.demo.chapter import Chapter, Draw, Stage
from onepass.demo.models import cnn, mlp, seeded
from onepass.demo.pair import Pair, Training
from onepass.demo.picture import curves, note

MODELS = {"CNN": cnn, "MLP": mlp}
ARGUMENTS: dict[str, dict[str, float]] = {
    "SGD": {"lr": 0.1, "momentum": 0.9},
    "Adagrad": {"lr": 0.02},
    "RMSprop": {"lr": 0.001},
    "Adam": {"lr": 0.003},
    "AdamW": {"lr": 0.003, "weight_decay": 0.01},
}
BATCH = 64


def train(stage: Stage) -> Chapter:
    """Train all pairs."""
    epochs = 3 if stage.fast else 10
    stage.announce("optimizers", "each of the five on a CNN and on an MLP")
    pairs = []
    for name in MODELS:
        for optimizer in ARGUMENTS:
            theirs = side(torch.optim, name, optimizer, stage.seed)
            ours = side(onepass, name, optimizer, stage.seed)
            batches = stage.train.batches(BATCH, epochs, stage.seed)
            steps = len(stage.train.labels) // BATCH * epochs
            pairs.append(stage.pair(f"{name} {optimizer}", theirs, ours, batches, steps))
    rows = [pairs[: len(ARGUMENTS)], pairs[len(ARGUMENTS) :]]
    panels = [[_panel(pair, row) for pair in row] for row in rows]
    return Chapter("optimizers", "weights apart", pairs, panels)


def side(library: Any, model: str, optimizer: str, seed: int) -> Training:
    """Return the training by one of the two libraries."""
    made = seeded(seed, MODELS[model])
    return Training(made, getattr(library, optimizer)(made.parameters(), **ARGUMENTS[optimizer]))


def _panel(pair: Pair, row: list[Pair]) -> Draw:
    lowest = min(min(p.torch.losses) for p in row)

    def draw(panel: Any) -> None:
        curves(panel, pair.torch.losses, pair.onepass.losses, log=True)
        # the loss starts at log(10) = 2.3: room for the text
        panel.set(title=pair.title, xlabel="step", ylim=(lowest, 30))
        if pair is row[0]:
            panel.set_ylabel("loss of the batch")
        note(
            panel,
            f"test accuracy\ntorch.optim {pair.torch.accuracy:.2%}\nonepass {pair.onepass.accuracy:.2%}\n"
            f"weights within {pair.difference:.0e}",
        )

    return draw
