"""A network trained with augmentation against one without, where there are few examples.

Every epoch shows each image rotated, shifted, sheared and zoomed anew, in one warp. What it draws depends on the seed, the
epoch and the number of the image alone, so that a run can be repeated and resumed. The test images are only
normalised. Digits are not flipped: a mirrored 2 is no 2.

    python examples/augmentation.py
    python examples/augmentation.py --data mnist/ --per-class 20 --picture accuracy.png
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from statistics import mean, stdev

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

import common
import onepass
from onepass.augment import AugmentedDataset, Augmenter
from onepass.schedule import Cosine

BATCH = 20


def network(data: common.Data) -> nn.Module:
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


def augmenters(train: common.Data, seed: int) -> dict[str, Augmenter]:
    """Return what is compared; both scale the pixels to mean 0 and variance 1."""
    std, mean = (x.item() for x in torch.std_mean(train.inputs()))
    plain = Augmenter(mean=mean, std=std, seed=seed)
    warping = replace(
        plain,
        rotation_range=10,
        width_shift_range=0.1,
        height_shift_range=0.1,
        shear_range=5,
        zoom_range=0.1,
        fill_mode="constant",
    )
    return {"without": plain, "with": warping}


def fit(title: str, augmenter: Augmenter, train: common.Data, epochs: int) -> nn.Module:
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


def gallery(train: common.Data, seed: int) -> Tensor:
    """Return the first image and eleven warps of it, side by side."""
    same = train.images[:1].expand(12, -1, -1, -1).contiguous()
    warps = replace(augmenters(train, seed)["with"], mean=None, std=None)
    shown = warps(same, index=range(12))
    shown[0] = train.inputs()[0]
    rows: Tensor = pad(shown, (1, 1, 1, 1), value=1.0).unflatten(0, (3, 4)).permute(0, 3, 1, 4, 2)
    return rows.flatten(2, 3).flatten(0, 1).squeeze(-1)


def main(args: argparse.Namespace) -> None:
    """Train on a few examples of every class, with several seeds, and compare."""
    everything, test = common.load(args)
    epochs, seeds = (100, 2) if args.fast else (200, 5)
    found: dict[str, list[float]] = {"without": [], "with": []}
    for seed in range(args.seed, args.seed + seeds):
        order = torch.randperm(
            len(everything.labels), generator=torch.Generator().manual_seed(seed)
        )
        train = everything.take(order).first(args.per_class)
        for name, augmenter in augmenters(train, seed).items():
            model = fit(f"seed {seed}, {name}", augmenter, train, epochs)
            inputs = augmenter(test.images, range(len(test.images)), train=False)
            found[name].append(common.accuracy(model, test, inputs))
    rows = [
        (f"{name} augmentation", *(f"{a:.2%}" for a in accuracies), f"{mean(accuracies):.2%}")
        for name, accuracies in found.items()
    ]
    columns = ("test accuracy", *(f"seed {args.seed + s}" for s in range(seeds)), "mean")
    common.table(f"{args.per_class} examples of every class", columns, rows)
    gains = [b - a for a, b in zip(found["without"], found["with"], strict=True)]
    common.console.print(f"\nGain: {mean(gains):+.2%}, standard deviation {stdev(gains):.2%}")
    with common.picture(args.picture, 2) as (left, right):
        for place, (name, accuracies) in enumerate(found.items()):
            left.plot([place] * seeds, accuracies, "o", label=name)
        left.set(title="test accuracy", xticks=(0, 1), xticklabels=found, xlim=(-0.5, 1.5))
        right.imshow(gallery(train, args.seed), cmap="gray")
        right.set(title="an image and eleven warps of it", xticks=(), yticks=())


if __name__ == "__main__":
    parser = common.arguments("A CNN with augmentation against one without.")
    parser.add_argument("--per-class", type=int, default=10, help="examples to train on")
    main(common.parse(parser))
