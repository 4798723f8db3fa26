"""The second picture: digits as the augmenter shows them to a training, epoch after epoch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

from onepass.augment import Augmenter

_EPOCHS = 9


def beside(file: Path) -> Path:
    """Return where the picture goes: beside the one of the loss curves."""
    return file.with_name(f"{file.stem}-augmented{file.suffix}")


def save(file: Path, seed: int) -> None:
    """Draw a row for each of the ten digits: as it is, then as it comes in the first epochs."""
    digits = (load_digits().images[:10] * (255 / 16)).astype(np.uint8)[:, None]
    augmenter = Augmenter(
        rotation_range=15,
        width_shift_range=0.1,
        height_shift_range=0.1,
        shear_range=10,
        zoom_range=0.1,
        fill_mode="constant",
        seed=seed,
    )
    index = np.arange(len(digits))
    columns = [augmenter(digits, index, train=False)]
    columns += [augmenter(digits, index, epoch=epoch) for epoch in range(_EPOCHS)]
    figure = Figure(figsize=(0.7 * len(columns), 0.7 * len(digits) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(digits), len(columns))
    for column, pictures in enumerate(columns):
        panels[0, column].set_title("given" if column == 0 else f"epoch {column}", fontsize=8)
        for panel, picture in zip(panels[:, column], pictures, strict=True):
            panel.imshow(picture[0], cmap="gray_r", vmin=0, vmax=1)
            panel.axis("off")
    figure.savefig(file, dpi=130)
