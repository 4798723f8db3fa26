"""The table on the terminal: of one row for each case where there is room, of a few lines for each where there is none."""

from __future__ import annotations

import os
from collections.abc import Iterator

from rich import box
from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from onepass.bench import report

_WIDE = 220
"""Columns where the output is no terminal and nothing says how many it has."""
_UNBOUNDED = 10_000
_TITLE = (
    "One optimizer step. Peers: their time divided by that of onepass, median and quartiles of "
    "the rounds"
)


def show(document: report.Document) -> None:
    """Print table and notes."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(highlight=False, width=_WIDE)
    headings, rows = report.table(document)
    table = _table(headings, rows)
    needed = Measurement.get(console, console.options.update(width=_UNBOUNDED), table).maximum
    console.print(Text(f"{_TITLE}\n", style="italic"))
    for part in [table] if needed <= console.width else _blocks(headings, rows):
        console.print(part)
    console.print()
    for note in report.notes(document):
        console.print(note, markup=False)


def _table(headings: list[str], rows: list[list[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index < 2 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _blocks(headings: list[str], rows: list[list[str]]) -> Iterator[RenderableType]:
    """Yield for each case its name, our figures in one sentence, and a line for each peer."""
    ours = headings.index("onepass")
    peers = headings.index("x float32" if "x float32" in headings else "x empty step") + 1
    for row in rows:
        yield Text(", ".join(row[:ours]), style="bold")
        figures = zip(row[ours + 1 : peers], headings[ours + 1 : peers], strict=True)
        units = [f"{value} {unit}" for value, unit in figures if value]
        yield Text(f"  onepass {', '.join([row[ours], *units])}")
        lines = Table.grid(padding=(0, 2, 0, 0))
        for name, value in zip(headings[peers:], row[peers:], strict=True):
            if value not in ("", "-"):
                lines.add_row(f"  {name}", value)
        if lines.row_count:
            yield lines
