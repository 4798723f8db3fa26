"""Training with augmentation against training without, where there are few examples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

import onepass
from onepass.augment import Augmenter
from onepass.demo.chapter import Chapter, Stage
from onepass.demo.digits import Digits
from onepass.demo.models import cnn, twins
from onepass.demo.pair import Pair, Training, mean
from onepass.schedule import Cosine

PER_DIGIT, BATCH, LR = 10, 20, 0.002


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
        before, after = (row.onepass.accuracy for row in rows)
        panel.imshow(pictures(stage).numpy(), cmap="gray_r", vmin=0, vmax=1)
        panel.set(title=f"Augmentation: {before:.1%} without, {after:.1%} with", xticks=())
        panel.set_yticks([4, 28], ["image", "epochs"], fontsize=9)
        panel.tick_params(axis="y", length=0)
        panel.spines[:].set_visible(False)

    return Chapter("augmentation", "gain", rows, [gallery])


def pictures(stage: Stage) -> torch.Tensor:
    """Return a column for each digit: as it is, then as it comes in the first epochs."""
    digits = stage.train.first(1).images
    index = range(len(digits))
    shown = [digits, *(warping(stage.seed)(digits, index, epoch=epoch) for epoch in range(6))]
    return torch.cat([torch.cat(list(row[:, 0]), dim=1) for row in shown])
