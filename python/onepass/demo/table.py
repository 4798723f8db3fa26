"""The tables: what the two libraries reached and how long they took, chapter after chapter; 60 columns are enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from onepass.demo.chapter import Chapter
from onepass.demo.pair import Pair

REACHED = """\
test     accuracy on the test images
loss     mean over the training images after the last step,
         without penalties
shows    what the chapter is about; of two values torch's is
         the left one"""
TIMES = """\
seconds  of a training; saved is what onepass takes less
step()   its share, scheduler included: no optimizer can
         save more than that"""


def show(console: Console, chapters: Sequence[Chapter]) -> None:
    """Print both tables, with a section for every chapter."""
    reached = _table({"test": ("torch", "onepass"), "loss": ("torch", "onepass"), "": ("shows",)})
    _fill(reached, chapters, lambda chapter: ["", "", "", "", chapter.about], _reached)
    times = _table(
        {"seconds": ("torch", "onepass"), "step()": ("torch", "onepass"), "saved": ("s", "%")}
    )
    _fill(times, chapters, lambda _: [""] * 6, _times)
    times.add_section()
    times.add_row("all", *_saved([pair for chapter in chapters for pair in chapter.pairs]))
    for table, legend in ((reached, REACHED), (times, TIMES)):
        console.print()
        console.print(table)
        console.print(legend, style="dim", soft_wrap=True)


def _table(columns: dict[str, tuple[str, ...]]) -> Table:
    table = Table(box=box.HORIZONTALS, show_edge=False, pad_edge=False, padding=0)
    table.add_column("\n", no_wrap=True)
    for heading, parts in columns.items():
        for part in parts:
            table.add_column(f"{heading}\n{part}", justify="right", no_wrap=True)
    return table


def _fill(
    table: Table,
    chapters: Sequence[Chapter],
    heading: Callable[[Chapter], list[str]],
    cells: Callable[[Pair], list[str]],
) -> None:
    for chapter in chapters:
        table.add_section()
        table.add_row(chapter.name, *heading(chapter), style="bold")
        for pair in chapter.pairs:
            table.add_row(pair.title, *cells(pair))


def _reached(pair: Pair) -> list[str]:
    theirs, ours = pair.torch, pair.onepass
    accuracies = [f"{side.accuracy:.2%}" for side in (theirs, ours)]
    return [*accuracies, f"{theirs.final_loss:.4f}", f"{ours.final_loss:.4f}", pair.shows]


def _times(pair: Pair) -> list[str]:
    return _saved([pair])


def _saved(pairs: Sequence[Pair]) -> list[str]:
    """Return seconds, shares of step() and what is saved, of several trainings together."""
    theirs, ours = ([getattr(pair, side) for pair in pairs] for side in ("torch", "onepass"))
    seconds = [sum(outcome.seconds for outcome in side) for side in (theirs, ours)]
    steps = [sum(outcome.step_seconds for outcome in side) for side in (theirs, ours)]
    saved = seconds[0] - seconds[1]
    return [
        *(f"{number:.2f}" for number in seconds),
        *(f"{step / whole:.0%}" for step, whole in zip(steps, seconds, strict=True)),
        f"{saved:.2f}",
        f"{saved / seconds[0]:.0%}",
    ]
