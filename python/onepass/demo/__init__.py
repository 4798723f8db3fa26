"""``onepass demo``: real trainings on real data, with torch.optim and with onepass side by side.

A chapter (`optimizers`, `schedule`, `l1_l2`, `augmentation`, `transfer`) trains pairs on a `chapter.Stage` and returns a
`chapter.Chapter`; `table` and `picture` show all of them. It imports what the extra ``demo`` installs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console

import onepass
from onepass.demo import augmentation, digits, l1_l2, optimizers, picture, schedule, table, transfer
from onepass.demo.chapter import Chapter, Stage
from onepass.demo.pair import train_pair
from onepass_cli import INTERRUPTED

__all__ = ["CHAPTERS", "TOLERANCE", "run", "verdict"]

CHAPTERS: Mapping[str, Callable[[Stage], Chapter]] = {
    "optimizers": optimizers.train,
    "schedule": schedule.train,
    "l1-l2": l1_l2.train,
    "augmentation": augmentation.train,
    "transfer": transfer.train,
}

TOLERANCE = 0.01
"""How far the two test accuracies of a pair may lie apart: one percentage point, 3 of the 360 test images.

The two libraries round differently in the last bit, and training amplifies that: an image on the border
between two digits may fall to either side. A wrong update moves more images than that.
"""


def run(*, seed: int, fast: bool, picture_file: Path, chapters: Sequence[str] = ()) -> int:
    """Train, print the table, save the picture.

    Args:
        seed: Of weights, test set and batches.
        fast: Train shorter, and with one seed where a chapter takes the mean of several.
        picture_file: The file of the picture; its ending chooses the format.
        chapters: Names of `CHAPTERS`, which come in the order there. Default: all.

    Returns:
        The exit status: 0, 1 where the libraries disagree or a promise is broken, 130 after Ctrl-C: table and
        picture show the chapters that were finished before.
    """
    console = Console(highlight=False)
    threads = torch.get_num_threads()
    # The same bits on any number of cores; and on a busy machine threads wait for one another.
    torch.set_num_threads(1)
    found: list[Chapter] = []
    interrupted = False
    try:
        stage = Stage(console, seed, fast, *digits.load(seed))
        console.print(
            f"Handwritten digits: {len(stage.train.labels)} images to train on, {len(stage.test.labels)} to test "
            "with; on one thread. Losses are torch's|ours",
            soft_wrap=True,
        )
        _warm_up(stage)
        for name, train in CHAPTERS.items():
            if name in (chapters or CHAPTERS):
                found.append(train(stage))
    except KeyboardInterrupt:
        interrupted = True
    finally:
        torch.set_num_threads(threads)
    if interrupted and not found:
        print(
            "onepass demo: interrupted before the first chapter was finished, nothing was saved",
            file=sys.stderr,
        )
        return INTERRUPTED
    table.show(console, found)
    console.print("\nDrawing ...")
    picture.save(found, picture_file)
    console.print(f"Picture: {picture_file}", markup=False, soft_wrap=True)
    if interrupted:
        names = ", ".join(chapter.name for chapter in found)
        print(
            f"onepass demo: interrupted, {picture_file} shows what was finished: {names}",
            file=sys.stderr,
        )
        return INTERRUPTED
    return verdict(found)


def _warm_up(stage: Stage) -> None:
    """Train for a batch that no clock sees: torch's first is slow, whichever library trains with it."""
    for name in optimizers.MODELS:
        sides = [optimizers.side(library, name, "SGD", 0) for library in (torch.optim, onepass)]
        batches = stage.train.batches(optimizers.BATCH, 1, 0)
        train_pair(name, (sides[0], sides[1]), [next(batches)], (stage.train, stage.test))


def verdict(chapters: Sequence[Chapter]) -> int:
    """Return the exit status; say which pairs disagree and which promises are broken, if any."""
    problems = []
    for chapter in chapters:
        problems += [
            f"{chapter.name}, {pair.title}: test accuracy {pair.torch.accuracy:.2%} with torch.optim but "
            f"{pair.onepass.accuracy:.2%} with onepass, more than {TOLERANCE:.0%} apart"
            for pair in chapter.pairs
            if pair.comparable and abs(pair.torch.accuracy - pair.onepass.accuracy) > TOLERANCE
        ]
        problems += [f"{chapter.name}: {broken}" for broken in chapter.broken]
    for text in problems:
        print(f"onepass demo: {text}", file=sys.stderr)
    return 1 if problems else 0
