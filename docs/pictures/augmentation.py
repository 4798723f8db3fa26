"""Draws the pictures of docs/augmentation.md from photographs that ship with scikit-learn.

python docs/pictures/augmentation.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from sklearn.datasets import load_sample_image

from onepass.augment import Augmenter

mpl.use("Agg")
from matplotlib import pyplot as plt

HERE = Path(__file__).parent
SIDE = 160
Photograph = np.ndarray[Any, np.dtype[np.uint8]]

PARAMETERS: list[tuple[str, dict[str, Any]]] = [
    ("rotation_range=30", {"rotation_range": 30}),
    ("width_shift_range=0.3", {"width_shift_range": 0.3}),
    ("height_shift_range=0.3", {"height_shift_range": 0.3}),
    ("shear_range=30", {"shear_range": 30}),
    ("zoom_range=0.5", {"zoom_range": 0.5}),
    ("horizontal_flip=True", {"horizontal_flip": True}),
    ("vertical_flip=True", {"vertical_flip": True}),
    ("crop=(96, 96)", {"crop": (96, 96)}),
    ("crop=(160, 160), crop_padding=40", {"crop": (160, 160), "crop_padding": 40}),
    (
        "all of them",
        {
            "rotation_range": 20,
            "width_shift_range": 0.1,
            "height_shift_range": 0.1,
            "shear_range": 10,
            "zoom_range": 0.2,
            "horizontal_flip": True,
            "crop": (128, 128),
        },
    ),
]


def photograph(name: str, top: int, left: int) -> Photograph:
    """A square of a sample photograph, at half its resolution."""
    image = load_sample_image(name)[top : top + 2 * SIDE, left : left + 2 * SIDE]
    halves = image.reshape(SIDE, 2, SIDE, 2, 3).mean((1, 3))
    return halves.round().astype(np.uint8)


def show(axis: Any, picture: Any, title: str = "") -> None:
    """One picture without axes."""
    axis.imshow(np.clip(picture, 0, 1))
    axis.set_title(title, fontsize=10)
    axis.set_axis_off()


def save(figure: Any, name: str) -> None:
    """As JPEG beside this script."""
    path = HERE / name
    jpeg = {"quality": 75, "optimize": True}
    figure.savefig(path, dpi=90, pil_kwargs=jpeg)
    plt.close(figure)
    print(f"{path.name}: {path.stat().st_size // 1000} kB")


def parameters(image: Photograph) -> None:
    """Four epochs of one picture for each parameter, whose name stands above its row."""
    heights = [0.25] + [1.6] * len(PARAMETERS)
    figure = plt.figure(figsize=(7, sum(heights)), layout="constrained")
    head, *rows = figure.subfigures(len(heights), 1, height_ratios=heights)
    for column, text in enumerate(("the picture", *(f"epoch {epoch}" for epoch in range(4)))):
        head.text((column + 0.5) / 5, 0.4, text, ha="center", va="center", fontsize=10)
    for row, (title, options) in zip(rows, PARAMETERS, strict=True):
        row.suptitle(title, x=0.012, ha="left", fontsize=10.5, fontfamily="monospace")
        first, *others = row.subplots(1, 5)
        aug = Augmenter(**options, fill_mode="constant", cval=230)
        show(first, image / 255)
        for epoch, axis in enumerate(others):
            show(axis, aug(image[None], [3], epoch)[0].permute(1, 2, 0).numpy())
    save(figure, "augmentation_parameters.jpg")


def fill_modes(image: Photograph) -> None:
    """The same warp, turned and made small, with what each mode puts around the picture's outline."""
    figure, axes = plt.subplots(1, 5, figsize=(7, 1.6), layout="constrained")
    matrix = Augmenter(rotation_range=30).sample([1], 0, (SIDE, SIDE)).numpy()
    centre = np.array([(SIDE - 1) / 2] * 2)
    matrix[0, :, :2] *= 1.9
    matrix[0, :, 2] = centre - matrix[0, :, :2] @ centre
    edge = np.array([[0, 0], [SIDE, 0], [SIDE, SIDE], [0, SIDE], [0, 0]]) - 0.5
    outline = np.linalg.solve(matrix[0, :, :2], (edge - matrix[0, :, 2]).T)
    for axis, mode in zip(axes, ("nearest", "reflect", "mirror", "wrap", "constant"), strict=True):
        aug = Augmenter(fill_mode=mode, cval=230)
        show(axis, aug.apply(image[None], matrix)[0].permute(1, 2, 0).numpy(), f'"{mode}"')
        axis.plot(*outline, color="white", linewidth=1, linestyle="--")
    save(figure, "augmentation_fill_modes.jpg")


def one_warp_or_four(image: Photograph) -> None:
    """One interpolation keeps detail that a chain of them loses."""
    turns = Augmenter(rotation_range=40).sample(range(4), 2, (SIDE, SIDE)).numpy()
    full = np.concatenate([turns, np.broadcast_to([[[0.0, 0, 1]]], (4, 1, 3))], 1)
    together = np.linalg.multi_dot(list(full))[None, :2]
    aug = Augmenter(mean=0.0, std=1.0)
    chained = image[None]
    for turn in turns:  # matrices map output to input: the first to be applied is the leftmost
        warped = aug.apply(chained, turn[None]).mul(255).round().byte()
        chained = warped.permute(0, 2, 3, 1).numpy()
    once = aug.apply(image[None], together)[0].permute(1, 2, 0).numpy()
    figure, axes = plt.subplots(1, 2, figsize=(7, 3.7), layout="constrained")
    part = slice(40, 120)
    show(axes[0], once[part, part], "four warps composed, one interpolation")
    show(axes[1], chained[0, part, part] / 255, "the same warps one after the other")
    save(figure, "augmentation_one_warp.jpg")


if __name__ == "__main__":
    flower, china = photograph("flower.jpg", 20, 160), photograph("china.jpg", 60, 180)
    parameters(china)
    fill_modes(flower)
    one_warp_or_four(china)
