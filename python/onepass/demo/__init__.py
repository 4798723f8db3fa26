"""``onepass demo``: real trainings on real data, with torch.optim and with onepass side by side.

`optimizers` trains and returns pairs; `table` and `picture` show pairs, `augmented` shows digits. All of it imports what
``pip install 'onepass[demo]'`` installs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from onepass.demo import augmented, optimizers, picture, table
from onepass.demo.pair import Pair

__all__ = ["TOLERANCE", "run", "verdict"]

TOLERANCE = 0.01
"""How far the two test accuracies of a pair may lie apart: one percentage point, 3 of the 360 test images.

The two libraries round differently in the last bit, and training amplifies that: an image on the border
between two digits may fall to either side. A wrong update moves more images than that.
"""


def run(*, seed: int, fast: bool, picture_file: Path) -> int:
    """Train, print the table, save the pictures.

    Args:
        seed: Of weights, test set and batches.
        fast: Train for 3 epochs instead of 10.
        picture_file: The file for the loss curves; its ending chooses the format. The augmented digits go into a
            file beside it.

    Returns:
        The exit status: 0, 1 where accuracies differ by more than `TOLERANCE`, 2 where the picture cannot
        be saved.
    """
    problem = picture.problem(picture_file)
    if problem:
        print(f"onepass demo: --picture {picture_file}: {problem}", file=sys.stderr)
        return 2
    console = Console(highlight=False)
    threads = torch.get_num_threads()
    # The same bits on any number of cores; and on a busy machine threads wait for one another.
    torch.set_num_threads(1)
    try:
        pairs = optimizers.train(console, seed=seed, epochs=3 if fast else 10)
    finally:
        torch.set_num_threads(threads)
    table.show(console, pairs)
    picture.save(pairs, picture_file)
    console.print(f"Loss curves: {picture_file}", markup=False, soft_wrap=True)
    augmented.save(augmented.beside(picture_file), seed)
    console.print(
        f"Augmented digits: {augmented.beside(picture_file)}", markup=False, soft_wrap=True
    )
    return verdict(pairs)


def verdict(pairs: Sequence[Pair]) -> int:
    """Return the exit status; say which pairs disagree, if any."""
    apart = [pair for pair in pairs if abs(pair.torch.accuracy - pair.onepass.accuracy) > TOLERANCE]
    for pair in apart:
        print(
            f"onepass demo: {pair.model} with {pair.optimizer}: test accuracy {pair.torch.accuracy:.2%} with "
            f"torch.optim but {pair.onepass.accuracy:.2%} with onepass, more than {TOLERANCE:.0%} apart",
            file=sys.stderr,
        )
    return 1 if apart else 0
