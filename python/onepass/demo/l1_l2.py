"""L1 on one layer and L2 on another: a penalty in the loss, as torch has it, beside the proximal step."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import onepass
from onepass.demo.chapter import Chapter, Stage
from onepass.demo.models import mlp, twins
from onepass.demo.pair import Training
from onepass.demo.picture import curves, note

BATCH, LR = 32, 0.3
L1 = 0.00035
"""What stands before the sum of the absolute weights of the first layer in the loss."""
L2 = 0.001
"""What stands before the sum of the squared weights of the other layers; its gradient is twice that times the weight."""


def train(stage: Stage) -> Chapter:
    """Train without, with L1 as a gradient, and with the proximal step."""
    epochs = 4 if stage.fast else 40
    stage.announce("l1-l2", "SGD on the MLP, L1 on its first layer, L2 on the others")
    settings: dict[str, dict[str, Any]] = {
        "neither": {},
        "L1 as gradient": {"l1_decay": L1, "l1_mode": "subgradient"},
        "L1 proximal": {"l1_decay": L1},
    }
    pairs, weights = [], []
    for title, options in settings.items():
        weight_decay = 2 * L2 if options else 0.0
        theirs, ours = twins(stage.seed, mlp)
        first = [next(model.parameters()) for model in (theirs, ours)]
        pair = stage.pair(
            title,
            Training(
                theirs,
                torch.optim.SGD(groups(theirs, {}, weight_decay), lr=LR),
                penalty=partial(penalty, first[0]) if options else None,
            ),
            Training(ours, onepass.SGD(groups(ours, options, weight_decay), lr=LR)),
            stage.train.batches(BATCH, epochs, stage.seed),
            len(stage.train.labels) // BATCH * epochs,
        )
        weights.append([weight.detach() for weight in first])
        shows = "|".join(f"{zeros(weight):.1%}" for weight in weights[-1])
        pairs.append(pair._replace(shows=shows, comparable=title != "L1 proximal"))
    broken = () if zeros(weights[-1][1]) else ("proximal L1 has left no exact zeros",)

    def sizes(panel: Any) -> None:
        curves(panel, *(_by_size(weight) for weight in weights[-1]))
        panel.set(
            title="L1: exact zeros in one layer",
            xlabel="weights, from the largest (%)",
            ylabel="absolute value",
            yscale="log",
        )
        theirs, ours = (f"{zeros(weight):.1%}" for weight in weights[-1])
        text = (
            f"exactly zero:\n{theirs} with the penalty in the loss,\n{ours} with the proximal step"
        )
        note(panel, 0.03, 0.05, text)

    return Chapter("l1-l2", "exact zeros", pairs, [sizes], broken)


def groups(model: nn.Module, first: dict[str, Any], weight_decay: float) -> list[dict[str, Any]]:
    """Return parameter groups: the first layer's weights, those of the others, and the biases."""
    weights = [p for p in model.parameters() if p.ndim > 1]
    return [
        {"params": weights[:1], **first},
        {"params": weights[1:], "weight_decay": weight_decay},
        {"params": [p for p in model.parameters() if p.ndim == 1]},
    ]


def penalty(weight: Tensor) -> Tensor:
    """Return what L1 adds to the loss."""
    return L1 * weight.abs().sum()


def zeros(weight: Tensor) -> float:
    """Return the share of weights that are exactly zero."""
    return (weight == 0).float().mean().item()


def _by_size(weight: Tensor) -> list[float]:
    """Return the absolute values in percentiles, the largest first, and no zeros: they have no logarithm."""
    sizes = weight.abs().flatten().sort(descending=True).values
    places = torch.linspace(0, len(sizes) - 1, 101).long()
    return [size for size in sizes[places].tolist() if size]
