"""The table: what the two libraries reached, column beside column."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich import box
from rich.console import Console
from rich.table import Table

from onepass.demo.pair import Pair

LEGEND = """\
test        accuracy on the test images
loss        mean over the training images after the last step
step()      share of the training's time spent in optimizer.step()
difference  largest absolute difference between two weights after the last step"""


def show(console: Console, pairs: Sequence[Pair]) -> None:
    """Print the table, a section for every model."""
    table = Table(box=box.HORIZONTALS, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("\n", no_wrap=True)
    for heading in ("test", "loss", "step()"):
        for library in ("torch", "onepass"):
            table.add_column(f"{heading}\n{library}", justify="right", no_wrap=True)
    table.add_column("weights'\ndifference", justify="right", no_wrap=True)
    for _, group in groupby(pairs, lambda pair: pair.model):
        table.add_section()
        for pair in group:
            table.add_row(*_cells(pair))
    console.print()
    console.print(table)
    console.print(LEGEND, style="dim")


def _cells(pair: Pair) -> list[str]:
    theirs, ours = pair.torch, pair.onepass
    return [
        f"{pair.model} {pair.optimizer}",
        f"{theirs.accuracy:.2%}",
        f"{ours.accuracy:.2%}",
        f"{theirs.final_loss:.5f}",
        f"{ours.final_loss:.5f}",
        f"{theirs.step_share:.0%}",
        f"{ours.step_share:.0%}",
        f"{pair.difference:.0e}",
    ]
