"""A learning rate that changes: one network, three schedules.

The network is a classic for MNIST, 128 hidden units and dropout, trained by Adam. A schedule is a value that goes in
the place of the number; the optimizer counts the steps itself.

    python examples/mlp_schedule.py
    python examples/mlp_schedule.py --data mnist/ --picture schedules.png
"""

from __future__ import annotations

import argparse

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import common
import onepass
from onepass.schedule import Constant, Cosine, Exponential, Schedule

BATCH = 32
Curve = list[float]


def network(train: common.Data) -> nn.Module:
    """Return the classifier."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(train.images[0].numel(), 128),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(128, len(train.names)),
    )


def schedules(steps: int) -> dict[str, Schedule]:
    """Return three learning rates for a training of so many steps."""
    warmup = steps // 20
    return {
        "constant": Constant(0.001),
        "exponential": Exponential(0.01, gamma=0.1, decay_steps=steps // 2),  # to a hundredth
        "warm-up and cosine": Cosine(0.01, steps - warmup).warmup(warmup),
    }


def fit(
    title: str, lr: Schedule, train: common.Data, epochs: int, seed: int
) -> tuple[nn.Module, Curve, Curve]:
    """Train a new network; return it with the loss of every epoch and the learning rate of every step."""
    torch.manual_seed(seed)  # the same weights and dropout for every schedule
    model = network(train)
    optimizer = onepass.Adam(model.parameters(), lr=lr)
    losses, rates = [], []
    with common.bar(title, epochs) as advance:
        for epoch in range(epochs):
            total, count = 0.0, 0
            for inputs, labels in common.batches(train, BATCH, seed=seed + epoch):
                rates.append(optimizer.param_groups[0]["lr"])
                optimizer.zero_grad()
                loss = cross_entropy(model(inputs), labels)
                loss.backward()
                optimizer.step()
                total, count = total + loss.item(), count + 1
            losses.append(total / count)
            advance(f"loss {losses[-1]:.4f}  lr {rates[-1]:.5f}")
    return model, losses, rates


def main(args: argparse.Namespace) -> None:
    """Train with every schedule, then compare."""
    train, test = common.load(args)
    epochs = 3 if args.fast else 30
    rows = []
    with common.picture(args.picture, 2) as (left, right):
        for title, lr in schedules(epochs * (len(train.labels) // BATCH)).items():
            model, losses, rates = fit(title, lr, train, epochs, args.seed)
            rows.append(
                (title, repr(lr), f"{losses[-1]:.4f}", f"{common.accuracy(model, test):.2%}")
            )
            left.plot(rates, label=title)
            right.semilogy(losses, label=title)
        left.set(xlabel="step", title="learning rate")
        right.set(xlabel="epoch", title="loss")
        right.legend(frameon=False)
    common.table("An MLP, three schedules", ("", "lr", "loss", "test accuracy"), rows)


if __name__ == "__main__":
    main(common.parse(common.arguments("An MLP with a learning-rate schedule.")))
