"""What was learned on the digits 0 to 4 helps with 5 to 9: by hand with torch, with `onepass.transfer` beside it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

import onepass
from onepass.demo.chapter import Chapter, Stage
from onepass.demo.digits import Digits
from onepass.demo.models import normed_cnn, seeded, twins
from onepass.demo.pair import Pair, Training, mean
from onepass.demo.picture import accuracies
from onepass.schedule import Cosine
from onepass.transfer import freeze, param_groups, replace_head, unfreeze

LR = 0.002
LAYER_DECAY = 0.5
"""What the learning rate of a layer is to that of the next."""
WAIT = {"[01].*": 0.5, "[34].*": 0.25}
"""Names of the parameters of the base, and the part of the last training that they wait for."""
STAGES = ("0 to 4", "5 to 9 alone", "base frozen", "unfrozen")


class Task(NamedTuple):
    """Images to train on and to test with, and how."""

    train: Digits
    test: Digits
    batch: int
    epochs: int

    @property
    def steps(self) -> int:
        """How many steps a training takes."""
        return len(self.train.labels) // self.batch * self.epochs


def train(stage: Stage) -> Chapter:
    """Transfer with some seeds; compare the means with a start from scratch."""
    seeds = 1 if stage.fast else 3
    stage.announce(
        "transfer",
        "Adam on a CNN with BatchNorm: the digits 0 to 4, then 5 to 9 with a new head",
    )
    runs, moves = [], []
    for run in range(seeds):
        pairs, moved = transfer(stage, stage.seed + run, f", {run + 1}" if seeds > 1 else "")
        runs.append(pairs)
        moves.append(moved)
    rows = [
        mean(title, pairs) for title, pairs in zip(STAGES, zip(*runs, strict=True), strict=True)
    ]
    for number, row in enumerate(zip(*moves, strict=True), 2):
        rows[number] = rows[number]._replace(
            shows="|".join(str(max(m)) for m in zip(*row, strict=True))
        )
    broken = ("the frozen base has moved",) if any(frozen[1] for frozen, _ in moves) else ()

    def reached(panel: Any) -> None:
        names = ("alone", "base frozen", "unfrozen")
        accuracies(panel, list(zip(names, rows[1:], strict=True)))
        panel.set(title="transfer: 5 to 9 after 0 to 4")

    return Chapter("transfer", "base moved", rows, [reached], broken)


def transfer(stage: Stage, seed: int, suffix: str) -> tuple[list[Pair], list[tuple[int, int]]]:
    """Return a pair for each of the stages, and how many numbers of the bases the last two have moved."""
    old = Task(stage.train.between(0, 4), stage.test.between(0, 4), 32, 2 if stage.fast else 5)
    new = Task(stage.train.between(5, 9), stage.test.between(5, 9), 32, 4 if stage.fast else 10)

    def fit(title: str, task: Task, sides: tuple[Training, Training]) -> Pair:
        batches = task.train.batches(task.batch, task.epochs, seed)
        data = (task.train, task.test)
        return stage.pair(title + suffix, *sides, batches, task.steps, data)

    models = twins(seed, lambda: normed_cnn(5))
    pairs = [fit(STAGES[0], old, whole(*models, old.steps))]
    longer = new._replace(epochs=2 * new.epochs)
    others = twins(seed + 1, lambda: normed_cnn(5))
    pairs.append(fit(STAGES[1], longer, whole(*others, longer.steps)))
    moved = []
    for title, sides in zip(STAGES[2:], (frozen, unfrozen), strict=True):
        before = [base(model) for model in models]
        pairs.append(fit(title, new, sides(*models, new.steps)))
        theirs, ours = (differing(b, base(model)) for b, model in zip(before, models, strict=True))
        moved.append((theirs, ours))
    return pairs, moved


def whole(theirs: nn.Sequential, ours: nn.Sequential, steps: int) -> tuple[Training, Training]:
    """Return trainings of everything at one rate."""
    adam = torch.optim.Adam(theirs.parameters(), lr=LR)
    return (
        Training(theirs, adam, CosineAnnealingLR(adam, steps)),
        Training(ours, onepass.Adam(ours.parameters(), lr=Cosine(LR, steps))),
    )


def frozen(theirs: nn.Sequential, ours: nn.Sequential, steps: int) -> tuple[Training, Training]:
    """Freeze the bases; return trainings of new heads."""
    theirs.requires_grad_(False)
    theirs.eval()  # for BatchNorm, and until somebody says train()
    theirs[-1] = seeded(0, lambda: nn.Linear(1024, 5))
    adam = torch.optim.Adam(theirs[-1].parameters(), lr=LR)

    seeded(0, lambda: replace_head(freeze(ours, ours), 5))
    ours.train()
    groups = param_groups(ours, lr=Cosine(LR, steps))
    return (
        Training(theirs, adam, CosineAnnealingLR(adam, steps)),
        Training(ours, onepass.Adam(groups)),
    )


def unfrozen(theirs: nn.Sequential, ours: nn.Sequential, steps: int) -> tuple[Training, Training]:
    """Return trainings of everything, from the top down and at lower rates the deeper the layer."""
    start = {number: int(part * steps) for number, part in enumerate(WAIT.values())}
    layers = [theirs[0:2], theirs[3:5], theirs[-1:]]
    rates = [LR * LAYER_DECAY ** (len(layers) - 1 - i) for i in range(len(layers))]
    adam = torch.optim.Adam(
        {"params": list(layer.parameters()), "lr": rate}
        for layer, rate in zip(layers, rates, strict=True)
    )
    theirs.train()

    def thaw(step: int) -> None:
        for number, first in start.items():
            if step == first:
                layers[number].requires_grad_(True)

    unfreeze(ours, ours)
    ours.train()
    rules = [(name, {"train_from": int(part * steps)}) for name, part in WAIT.items()]
    groups = param_groups(ours, rules, lr=Cosine(LR, steps), layer_decay=LAYER_DECAY, no_decay=None)
    return (
        Training(theirs, adam, CosineAnnealingLR(adam, steps), before_step=thaw),
        Training(ours, onepass.Adam(groups)),
    )


def base(model: nn.Sequential) -> list[Tensor]:
    """Return copies of all that stands before the head, weights and statistics of BatchNorm."""
    return [value.clone() for value in model[:-1].state_dict().values()]


def differing(before: list[Tensor], after: list[Tensor]) -> int:
    """Return how many numbers differ."""
    return sum(int((a != b).sum()) for a, b in zip(before, after, strict=True))
