"""Every optimizer on every model, beside its twin of torch.optim."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import onepass
from onepass.demo import digits
from onepass.demo.models import MODELS, build
from onepass.demo.pair import Pair, train_pair

ARGUMENTS: dict[str, dict[str, float]] = {
    "SGD": {"lr": 0.1, "momentum": 0.9},
    "Adagrad": {"lr": 0.02},
    "RMSprop": {"lr": 0.001},
    "Adam": {"lr": 0.003},
    "AdamW": {"lr": 0.003, "weight_decay": 0.01},
}
BATCH = 64


def train(console: Console, *, seed: int, epochs: int) -> list[Pair]:
    """Train all pairs, each under a progress bar of its own."""
    data = digits.load(seed)
    steps = len(data[0].labels) // BATCH * epochs
    console.print(
        f"Handwritten digits: {len(data[0].labels)} images to train on, {len(data[1].labels)} to test with; "
        f"{steps} steps\nof {BATCH} images, on one thread\n",
        soft_wrap=True,
    )
    pairs = []
    for model in MODELS:
        for optimizer, arguments in ARGUMENTS.items():
            with _bar(console, f"{model} {optimizer}", steps) as after_batch:
                pair = train_pair(
                    model,
                    build(model, seed),
                    (getattr(torch.optim, optimizer), getattr(onepass, optimizer)),
                    arguments,
                    data[0].batches(BATCH, epochs, seed),
                    data,
                    after_batch,
                )
            pairs.append(pair)
    return pairs


@contextmanager
def _bar(console: Console, title: str, steps: int) -> Iterator[Callable[[float, float], None]]:
    """Show a progress bar that ends as one line; where there is no terminal, that line is all."""
    progress = Progress(
        TextColumn("{task.description:<11}"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TextColumn("loss torch {task.fields[torch]:.4f} onepass {task.fields[onepass]:.4f}"),
        TimeElapsedColumn(),
        console=console,
    )
    with progress:
        bar = progress.add_task(title, total=steps, torch=0.0, onepass=0.0)
        yield lambda torch, onepass: progress.update(bar, advance=1, torch=torch, onepass=onepass)
