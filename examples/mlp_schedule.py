"""A learning rate that changes: one network, three schedules.

The network is a classic for MNIST, 128 hidden units and dropout, trained by Adam. A schedule is a value that goes in
the place of the number; the optimizer counts the steps itself.

    python examples/mlp_schedule.py
    python examples/mlp_schedule.py --data mnist/ --picture schedules.png
"""

from __future__ import annotations

import argparse

import common  # first, for a Ctrl-C while torch is imported

# isort: split
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import images
import onepass
from onepass.schedule import Constant, Cosine, Exponential, Schedule

BATCH = 32
Curve = list[float]


def network(train: images.Data) -> nn.Module:
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
        "exponential": Exponential(0.01, gamma=0.1, decay_steps=(steps + 1) // 2),  # to a hundredth
        "warm-up and cosine": Cosine(0.01, steps - warmup).warmup(warmup),
    }


def fit(
    title: str, lr: Schedule, train: images.Data, epochs: int, seed: int
) -> tuple[nn.Module, Curve, Curve]:
    """Train a new network; return it with the loss of every epoch and the learning rate of every step."""
    torch.manual_seed(seed)  # the same weights and dropout for every schedule
    model = network(train)
    optimizer = onepass.Adam(model.parameters(), lr=lr)
    losses, rates = [], []
    with common.bar(title, epochs) as advance:
        for epoch in range(epochs):
            total, count = 0.0, 0
            for inputs, labels in images.batches(train, BATCH, seed=seed + epoch):
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
    train, test = images.load(args)
    rows = []
    with common.picture(args.picture, 2) as (left, right):
        left.set(xlabel="step", title="learning rate")
        right.set(xlabel="epoch", title="loss")
        for title, lr in schedules(args.epochs * images.steps(train, BATCH)).items():
            model, losses, rates = fit(title, lr, train, args.epochs, args.seed)
            rows.append(
                (title, repr(lr), f"{losses[-1]:.4f}", f"{images.accuracy(model, test):.2%}")
            )
            left.plot(rates, label=title)
            right.semilogy(losses, label=title)
            right.legend(frameon=False)
    common.table("An MLP, three schedules", ("", "lr", "loss", "test accuracy"), rows)


if __name__ == "__main__":
    parser = images.parser("An MLP with a learning-rate schedule.", epochs=30)
    main(common.parse(parser, epochs=3))
