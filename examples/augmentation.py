"""A network trained with augmentation against one without, where there are few examples.

Every epoch shows each image rotated, shifted, sheared and zoomed anew, in one warp. What it draws depends on the seed, the
epoch and the number of the image alone, so that a run can be repeated and resumed. The test images are only
normalised. What lies beside an image is black beside a digit, as its background is, and the mirror image of a photograph,
in which a black corner would be a thing to learn. Nothing is flipped unless --flip says so: a mirrored 2 is no 2.

    python examples/augmentation.py
    python examples/augmentation.py --data mnist/ --per-class 20 --picture accuracy.png
    python examples/augmentation.py --data photos/ --flip
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from statistics import mean, stdev
from typing import Any

import common  # first, for a Ctrl-C while torch is imported

# isort: split
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

import images
import onepass
from onepass.augment import AugmentedDataset, Augmenter
from onepass.schedule import Cosine

BATCH = 20


def network(data: images.Data) -> nn.Module:
    """Return a CNN with two convolutions and two linear layers."""
    _, channels, height, width = data.images.shape
    features = 64 * (-(-height // 4)) * (-(-width // 4))
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Flatten(),
        nn.Linear(features, 64),
        nn.ReLU(),
        nn.Linear(64, len(data.names)),
    )


def fill_mode(args: argparse.Namespace) -> str:
    """Return how to fill what lies beside an image, as --fill says or as suits the data."""
    return args.fill or ("reflect" if images.of_folders(args.data) else "constant")


def augmenters(train: images.Data, fill: str, flip: bool, seed: int) -> dict[str, Augmenter]:
    """Return what is compared; both scale the pixels to mean 0 and variance 1."""
    mean, std = train.scale()
    plain = Augmenter(mean=mean, std=std, seed=seed)
    warping = replace(
        plain,
        rotation_range=10,
        width_shift_range=0.1,
        height_shift_range=0.1,
        shear_range=5,
        zoom_range=0.1,
        horizontal_flip=flip,
        fill_mode=fill,
    )
    return {"without": plain, "with": warping}


def normalised(augmenter: Augmenter, pictures: Tensor) -> Tensor:
    """Return pictures as a model takes them in a test."""
    return augmenter(pictures, range(len(pictures)), train=False)


def fit(title: str, augmenter: Augmenter, train: images.Data, epochs: int) -> nn.Module:
    """Train a new network; everything random comes from the augmenter's seed."""
    torch.manual_seed(augmenter.seed)
    model = network(train)
    dataset = AugmentedDataset(train.images, train.labels, augmenter)
    loader = dataset.loader(BATCH, shuffle=True)
    optimizer = onepass.AdamW(model.parameters(), lr=Cosine(0.002, epochs * len(loader)))
    with common.bar(title, epochs) as advance:
        for epoch in range(epochs):
            dataset.set_epoch(epoch)
            for inputs, labels in loader:
                optimizer.zero_grad()
                loss = cross_entropy(model(inputs), labels)
                loss.backward()
                optimizer.step()
            advance(f"loss {loss.item():.4f}")
    return model


def gallery(train: images.Data, augmenter: Augmenter) -> Tensor:
    """Return the first image and eleven warps of it, side by side."""
    same = train.images[:1].expand(12, -1, -1, -1).contiguous()
    shown = replace(augmenter, mean=None, std=None)(same, index=range(12))
    shown[0] = train.inputs()[0]
    rows: Tensor = pad(shown, (1, 1, 1, 1), value=1.0).unflatten(0, (3, 4)).permute(0, 3, 1, 4, 2)
    return rows.flatten(2, 3).flatten(0, 1).squeeze(-1)


def draw(panel: Any, found: dict[str, list[float]]) -> None:
    """Draw the accuracies of every seed and their means, on an axis that ends at 100 %."""
    percent = {name: [100 * a for a in accuracies] for name, accuracies in found.items()}
    for pair in zip(*percent.values(), strict=True):
        panel.plot([0, 1], pair, "o-", color="0.6", markersize=5, linewidth=1)
    for place, accuracies in enumerate(percent.values()):
        panel.plot(place, mean(accuracies), "D", color="#0b3c6f", markersize=9)
        shift, side = ((-10, "right"), (10, "left"))[place]
        panel.annotate(
            f"mean {mean(accuracies):.1f}",
            (place, mean(accuracies)),
            (shift, 0),
            textcoords="offset points",
            horizontalalignment=side,
            verticalalignment="center",
        )
    lowest = min(map(min, percent.values()))
    panel.set(
        title=f"{len(percent['with'])} seeds, and their means",
        xlabel="augmentation",
        ylabel="test accuracy (%)",
        xticks=(0, 1),
        xticklabels=percent,
        xlim=(-0.7, 1.7),
        ylim=(min(10 * (lowest // 10), 90), 100.5),
    )
    panel.grid(axis="y", alpha=0.3)


def main(args: argparse.Namespace) -> None:
    """Train on a few examples of every class, with several seeds, and compare."""
    everything, test = images.load(args)
    fill = fill_mode(args)
    seeds = range(args.seed, args.seed + args.seeds)
    found: dict[str, list[float]] = {"without": [], "with": []}
    with common.picture(args.picture, 2) as (left, right):
        right.set(title="an image (top left) and eleven warps of it", xticks=(), yticks=())
        right.spines[:].set_visible(False)
        for seed in seeds:
            order = torch.randperm(
                len(everything.labels), generator=torch.Generator().manual_seed(seed)
            )
            train = everything.take(order).first(args.per_class)
            compared = augmenters(train, fill, args.flip, seed)
            if seed == args.seed:
                right.imshow(gallery(train, compared["with"]).numpy(), cmap="gray")
            for name, augmenter in compared.items():
                model = fit(f"seed {seed}, {name}", augmenter, train, args.epochs)
                found[name].append(images.accuracy(model, test, partial(normalised, augmenter)))
        draw(left, found)
    rows = [
        (f"{name} augmentation", *(f"{a:.2%}" for a in accuracies), f"{mean(accuracies):.2%}")
        for name, accuracies in found.items()
    ]
    columns = ("test accuracy", *(f"seed {seed}" for seed in seeds), "mean")
    few = min(train.counts().values()) < args.per_class
    title = f"{'At most ' * few}{args.per_class} examples of every class"
    common.table(title, columns, rows)
    gains = [b - a for a, b in zip(found["without"], found["with"], strict=True)]
    common.console.print(f"\nGain: {mean(gains):+.2%}, standard deviation {stdev(gains):.2%}")


if __name__ == "__main__":
    parser = images.parser("A CNN with augmentation against one without.", epochs=200)
    parser.add_argument(
        "--per-class", type=common.whole(1), default=10, help="examples to train on"
    )
    parser.add_argument(
        "--seeds", type=common.whole(2, 1000), default=5, help="trainings with each"
    )
    parser.add_argument(
        "--fill",
        choices=["reflect", "nearest", "mirror", "wrap", "constant"],
        help="what lies beside an image; default: reflect for folders of images, else constant: black",
    )
    parser.add_argument("--flip", action="store_true", help="mirror half of the images")
    main(common.parse(parser, epochs=100, seeds=2))
