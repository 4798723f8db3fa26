"""The picture: every chapter's panels, the curves of both libraries on top of one another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from onepass.demo.chapter import Chapter
from onepass.demo.pair import Pair

THEIRS, OURS = "#56b4e9", "#d55e00"
_WIDE, _NARROW = 4.0, 1.1  # of lines, in points
_PANEL = (4.2, 3.3)  # inches
_BESIDE = 3  # panels


def save(chapters: Sequence[Chapter], file: Path) -> None:
    """Draw the panels of all chapters, a few in a row."""
    draws = [draw for chapter in chapters for draw in chapter.panels]
    columns = min(_BESIDE, len(draws))
    rows = math.ceil(len(draws) / columns)
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    size = (_PANEL[0] * columns, _PANEL[1] * rows + 0.5)
    figure = Figure(figsize=size, layout=layout, dpi=120)
    FigureCanvasAgg(figure)
    lines = [
        Line2D([], [], color=THEIRS, linewidth=_WIDE, label="torch.optim"),
        Line2D([], [], color=OURS, linewidth=_NARROW, label="onepass"),
    ]
    figure.legend(handles=lines, loc="outside upper center", ncols=2, frameon=False, fontsize=11)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for draw, panel in zip(draws, panels, strict=False):
        panel.spines[["top", "right"]].set_visible(False)
        draw(panel)
    for panel in panels[len(draws) :]:
        panel.set_axis_off()
    figure.savefig(file)


def curves(
    panel: Any,
    theirs: Sequence[float],
    ours: Sequence[float],
    *,
    style: Any = "-",
) -> None:
    """Draw two curves: the wide line stays visible around the narrow one that covers it."""
    panel.plot(theirs, color=THEIRS, linewidth=_WIDE, solid_capstyle="round")
    panel.plot(ours, linestyle=style, color=OURS, linewidth=_NARROW)
    panel.grid(alpha=0.25)


def bars(panel: Any, rows: Sequence[tuple[str, float, float]], form: str) -> None:
    """Draw two numbers for each name, torch's and ours, as horizontal bars that begin at 0.

    Args:
        panel: Where.
        rows: Name and numbers, from the top down.
        form: How a number is written beside its bar.
    """
    for side, (shift, colour) in enumerate(((-0.2, THEIRS), (0.2, OURS)), 1):
        numbers = [row[side] for row in rows]
        drawn = panel.barh([i + shift for i in range(len(rows))], numbers, 0.38, color=colour)
        labels = [format(number, form) for number in numbers]
        panel.bar_label(drawn, labels, padding=3, fontsize=9)
    panel.set_yticks(range(len(rows)), [row[0] for row in rows])
    panel.invert_yaxis()
    panel.margins(x=0.16)
    panel.tick_params(axis="y", length=0)


def accuracies(panel: Any, rows: Sequence[tuple[str, Pair]], title: str) -> None:
    """Draw the accuracies of pairs."""
    numbers = [
        (name, 100 * pair.torch.accuracy, 100 * pair.onepass.accuracy) for name, pair in rows
    ]
    bars(panel, numbers, ".1f")
    panel.set(title=title, xlabel="test accuracy, %")
