"""The table: what the two libraries reached, column beside column, chapter after chapter."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from onepass.demo.chapter import Chapter
from onepass.demo.pair import Pair

LEGEND = """\
test    accuracy on the test images
loss    mean over the training images after the last step, without penalties
step()  share of the training's time in optimizer.step(), scheduler included
shows   what the chapter is about; two values are torch's and ours"""


def show(console: Console, chapters: Sequence[Chapter]) -> None:
    """Print the table, a section for every chapter."""
    table = Table(box=box.HORIZONTALS, show_edge=False, pad_edge=False, padding=0)
    table.add_column("\n", no_wrap=True)
    for heading in ("test", "loss", "step()"):
        for library in ("torch", "onepass"):
            table.add_column(f"{heading}\n{library}", justify="right", no_wrap=True)
    table.add_column("\nshows", justify="right", no_wrap=True)
    for chapter in chapters:
        table.add_section()
        table.add_row(chapter.name, *[""] * 6, chapter.about, style="bold")
        for pair in chapter.pairs:
            table.add_row(*_cells(pair))
    console.print()
    console.print(table)
    console.print(LEGEND, style="dim")


def _cells(pair: Pair) -> list[str]:
    theirs, ours = pair.torch, pair.onepass
    return [
        pair.title,
        f"{theirs.accuracy:.2%}",
        f"{ours.accuracy:.2%}",
        f"{theirs.final_loss:.5f}",
        f"{ours.final_loss:.5f}",
        f"{theirs.step_share:.0%}",
        f"{ours.step_share:.0%}",
        pair.shows,
    ]
