"""Every optimizer on two models, beside its twin of torch.optim."""

from __future__ import annotations

from typing import Any

import torch

import onepass
from onepass.demo.chapter import Chapter, Stage
from onepass.demo.models import cnn, mlp, seeded
from onepass.demo.pair import Training, scientific
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
SHOWN = "CNN AdamW"
"""The pair whose losses the picture shows."""


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
    shown = next(pair for pair in pairs if pair.title == SHOWN)

    def losses(panel: Any) -> None:
        curves(panel, shown.torch.losses, shown.onepass.losses)
        panel.set(
            title=f"{SHOWN}: the same losses",
            xlabel="step",
            ylabel="loss of the batch",
            yscale="log",
        )
        apart = scientific(max(pair.difference for pair in pairs))
        text = f"after all {len(pairs)} trainings\nno weight differs\nby more than {apart}"
        note(panel, 0.97, 0.95, text, horizontalalignment="right", verticalalignment="top")

    return Chapter("optimizers", "weights apart", pairs, [losses])


def side(library: Any, model: str, optimizer: str, seed: int) -> Training:
    """Return the training by one of the two libraries."""
    made = seeded(seed, MODELS[model])
    return Training(made, getattr(library, optimizer)(made.parameters(), **ARGUMENTS[optimizer]))
