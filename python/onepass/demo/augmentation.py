"""Training with augmentation against training without, where there are few examples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.functional import pad
from torch.optim.lr_scheduler import CosineAnnealingLR

import onepass
from onepass.augment import Augmenter
from onepass.demo.chapter import Chapter, Stage
from onepass.demo.digits import Digits
from onepass.demo.models import cnn, twins
from onepass.demo.pair import Pair, Training, mean
from onepass.schedule import Cosine

PER_DIGIT, BATCH, LR = 10, 20, 0.002
SHOWN, EPOCHS = [2, 3, 4, 5], 6
"""Digits and epochs in the picture."""


def warping(seed: int) -> Augmenter:
    """Return the augmenter. A mirrored 2 is no 2: nothing is flipped."""
    return Augmenter(
        rotation_range=10,
        width_shift_range=0.1,
        height_shift_range=0.1,
        shear_range=5,
        zoom_range=0.1,
        fill_mode="constant",
        seed=seed,
    )


def warped(train: Digits, epochs: int, seed: int) -> Iterator[Digits]:
    """Yield the batches of `train.batches` with every image as it comes in that epoch."""
    augmenter = warping(seed)
    for epoch, index in train.numbers(BATCH, epochs, seed):
        yield Digits(augmenter(train.images[index], index, epoch=epoch), train.labels[index])


def train(stage: Stage) -> Chapter:
    """Train with some seeds, without and with augmentation; compare the means."""
    epochs, seeds = (80, 1) if stage.fast else (150, 3)
    stage.announce(
        "augmentation",
        f"AdamW on the CNN, {PER_DIGIT} images of each digit, our augmenter for both",
    )
    found: dict[str, list[Pair]] = {"without": [], "with": []}
    for run in range(seeds):
        seed = stage.seed + run
        few = stage.train.shuffled(seed).first(PER_DIGIT)
        steps = epochs * (len(few.labels) // BATCH)
        for name, pairs in found.items():
            theirs, ours = twins(seed, cnn)
            adamw = torch.optim.AdamW(theirs.parameters(), lr=LR)
            pair = stage.pair(
                f"{name}, {run + 1}" if seeds > 1 else name,
                Training(theirs, adamw, CosineAnnealingLR(adamw, steps)),
                Training(ours, onepass.AdamW(ours.parameters(), lr=Cosine(LR, steps))),
                warped(few, epochs, seed) if name == "with" else few.batches(BATCH, epochs, seed),
                steps,
                (few, stage.test),
            )
            pairs.append(pair)
    rows = [mean(f"{name}, mean" if seeds > 1 else name, pairs) for name, pairs in found.items()]
    gains = [
        after.accuracy - before.accuracy
        for before, after in zip(rows[0][1:3], rows[1][1:3], strict=True)
    ]
    rows[1] = rows[1]._replace(shows="|".join(f"{gain:+.2%}" for gain in gains))

    def gallery(panel: Any) -> None:
        panel.imshow(pictures(stage).numpy(), cmap="gray_r", vmin=0, vmax=1)
        panel.set(title="augmentation: anew in every epoch", yticks=())
        width = 10  # of a digit and its margins
        places = [width * (column + 0.5) - 0.5 for column in range(EPOCHS + 1)]
        panel.set_xticks(places, ["as is", *map(str, range(EPOCHS))])
        before, after = (100 * row.onepass.accuracy for row in rows)
        panel.set_xlabel(f"epoch\ntest accuracy {before:.1f} % without, {after:.1f} % with")
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)

    return Chapter("augmentation", "gain", rows, [gallery])


def pictures(stage: Stage) -> torch.Tensor:
    """Return a row for each of some digits: as it is, then as it comes in the first epochs."""
    digits = stage.train.first(1).images[SHOWN]
    shown = [digits, *(warping(stage.seed)(digits, SHOWN, epoch=epoch) for epoch in range(EPOCHS))]
    return torch.cat([torch.cat(list(pad(column, (1, 1, 1, 1))[:, 0])) for column in shown], dim=1)
