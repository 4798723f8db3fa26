"""L1 on one layer and L2 on another, and what it leaves: exact zeros.

Strengths belong to parameter groups. Written as a loss, the network minimises

    cross entropy + l1 * sum |W1| + l2 * sum W2^2

`l1_decay` is the l1 of that formula. The gradient of l2 * W^2 is 2 * l2 * W, and `weight_decay` is what
stands before W, so that `weight_decay=2 * l2`. Biases get neither.

A gradient step on |W| never hits zero, it jumps back and forth across it (`l1_mode="subgradient"`, and what autograd does
with a term of the loss). The default, "proximal", shrinks each weight by lr * l1 after the step and stops at zero.
Both minimise the same formula with plain SGD, as here. Momentum and Adam make the step longer or shorter than lr
times the gradient, and the shrinkage stays what it is: there, l1 is measured against the step and wants tuning.

    python examples/l1_l2.py
    python examples/l1_l2.py --l1 0.001 --l2 0.001 --picture weights.png
"""

from __future__ import annotations

import argparse
from collections import OrderedDict
from typing import Any

import common  # first, for a Ctrl-C while torch is imported

# isort: split
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import images
import onepass
from onepass.schedule import Cosine
from onepass.transfer import param_groups

BATCH = 32


def network(train: images.Data) -> Any:
    """Return a classifier of two layers."""
    layers = {
        "flatten": nn.Flatten(),
        "first": nn.Linear(train.images[0].numel(), 128),
        "relu": nn.ReLU(),
        "second": nn.Linear(128, len(train.names)),
    }
    return nn.Sequential(OrderedDict(layers))


def fit(
    title: str,
    first: dict[str, Any],
    second: dict[str, Any],
    train: images.Data,
    epochs: int,
    seed: int,
) -> Any:
    """Train a new network with these options for its two layers."""
    torch.manual_seed(seed)
    model = network(train)
    steps = epochs * images.steps(train, BATCH)
    groups = param_groups(model, [("first.*", first), ("second.*", second)], lr=Cosine(0.5, steps))
    optimizer = onepass.SGD(groups)
    with common.bar(title, epochs) as advance:
        for epoch in range(epochs):
            for inputs, labels in images.batches(train, BATCH, seed=seed + epoch):
                optimizer.zero_grad()
                loss = cross_entropy(model(inputs), labels)
                loss.backward()
                optimizer.step()
            zeros = (model.first.weight == 0).float().mean().item()
            advance(f"loss {loss.item():.4f}  zeros {zeros:.1%}")
    return model


def draw(panels: list[Any], titles: list[str], weights: list[Tensor], channels: int) -> None:
    """Draw the weights of the first layer on one scale: a row for each unit, exact zeros in grey."""
    # the few largest weights would make the others pale
    limit = np.quantile(np.abs([weight.numpy() for weight in weights]), 0.99)
    for panel, title, weight in zip(panels, titles, weights, strict=True):
        shown = np.ma.masked_equal(weight.numpy(), 0.0)
        panel.set_facecolor("0.6")
        image = panel.imshow(shown, aspect="auto", cmap="PuOr", vmin=-limit, vmax=limit)
        panel.set(title=title, xlabel="pixel")
        if channels == 3:
            pixels = weight.shape[1] // 3
            panel.set_xticks([pixels * (i + 0.5) - 0.5 for i in range(3)], ["red", "green", "blue"])
            panel.tick_params(axis="x", length=0)
            for border in (pixels - 0.5, 2 * pixels - 0.5):
                panel.axvline(border, color="black", linewidth=1)
    panels[0].set_ylabel("unit")
    for panel in panels[1:]:
        panel.set_yticks([])
    bar = panels[0].figure.colorbar(image, ax=panels, extend="both", aspect=30)
    bar.set_label("weight (grey: exactly 0)")


def main(args: argparse.Namespace) -> None:
    """Train without, with L1 as a gradient, and with the proximal step; compare."""
    train, test = images.load(args)
    l2 = {"weight_decay": 2 * args.l2}
    settings: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "neither": ({}, {}),
        "L1 gradient, L2": ({"l1_decay": args.l1, "l1_mode": "subgradient"}, l2),
        "L1 proximal, L2": ({"l1_decay": args.l1}, l2),
    }
    rows, weights = [], []
    with common.picture(args.picture, len(settings), width=2.8) as panels:
        for title, (first, second) in settings.items():
            model = fit(title, first, second, train, args.epochs, args.seed)
            weight = model.first.weight.detach()
            zero = weight == 0
            rows.append(
                (
                    title,
                    f"{images.accuracy(model, test):.2%}",
                    f"{zero.float().mean().item():.1%}",
                    f"{zero.all(1).sum().item()} of {len(weight)}",
                    f"{weight.abs().sum().item():.1f}",
                    f"{model.second.weight.detach().square().sum().item():.1f}",
                )
            )
            weights.append(weight)
        titles = [f"{title}\n{zeros} exact zeros" for title, _, zeros, *_ in rows]
        draw(panels, titles, weights, channels=train.images.shape[1])
    columns = ("", "test", "zeros in W1", "units cut off", "sum |W1|", "sum W2²")
    common.table("L1 on the first layer, L2 on the second", columns, rows)


if __name__ == "__main__":
    parser = images.parser("L1 on one layer and L2 on another.", epochs=80)
    strength = common.number("of at least 0", lambda value: value >= 0)
    parser.add_argument("--l1", type=strength, default=0.0007, help="strength on the first layer")
    parser.add_argument("--l2", type=strength, default=0.001, help="strength on the second layer")
    main(common.parse(parser, epochs=4))
