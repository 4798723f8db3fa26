"""The table on the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from onepass.bench import report

_WIDE = 180
"""Columns where the output is no terminal and does not say how many it has."""


def show(document: report.Document) -> None:
    """Print table and notes."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDE)
    headings, rows = report.table(document, spread=False)
    title = "One optimizer step. Peers: their time divided by that of onepass"
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index < 2 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for note in report.notes(document):
        console.print(note, highlight=False, markup=False)
