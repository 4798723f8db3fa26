"""Every optimizer on two models, beside its twin of torch.optim."""

from __future__ import annotations

from typing import Any

import torch

import onepass
from onepass.demo.chapter import Chapter, Stage
from onepass.demo.models import cnn, mlp, seeded
from onepass.demo.pair import Outcome, Training
from onepass.demo.picture import bars, curves

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
    of_cnn, of_mlp = pairs[: len(ARGUMENTS)], pairs[len(ARGUMENTS) :]

    def losses(panel: Any) -> None:
        adamw = of_cnn[-1]
        curves(panel, adamw.torch.losses, adamw.onepass.losses)
        panel.set(title="CNN with AdamW", xlabel="step", ylabel="loss of the batch", yscale="log")

    def times(panel: Any) -> None:
        rows = [
            (pair.title.split()[1], 1e6 * mean_step(pair.torch), 1e6 * mean_step(pair.onepass))
            for pair in of_mlp
        ]
        bars(panel, rows, ".0f")
        panel.set(title="One step() on the MLP", xlabel="microseconds")

    return Chapter("optimizers", "weights apart", pairs, [losses, times])


def mean_step(outcome: Outcome) -> float:
    """Return the seconds of a step."""
    return outcome.step_seconds / len(outcome.losses)


def side(library: Any, model: str, optimizer: str, seed: int) -> Training:
    """Return the training by one of the two libraries."""
    made = seeded(seed, MODELS[model])
    return Training(made, getattr(library, optimizer)(made.parameters(), **ARGUMENTS[optimizer]))
