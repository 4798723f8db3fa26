"""The picture: a panel for every chapter, and one for the seconds. matplotlib is imported when it is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from onepass.demo.chapter import Chapter
from onepass.demo.pair import Outcome, Pair

THEIRS, OURS = "#e69f00", "#0b3c6f"
"""Orange and blue, which also differ in lightness."""
_WIDE, _NARROW = 4.5, 1.1
"""Widths of lines: torch.optim's stays visible around the one that covers it."""
_STYLE: Any = {
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
}


def save(chapters: Sequence[Chapter], file: Path) -> None:
    """Draw two panels in a row; one that is left over is as wide as two."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.lines import Line2D

    draws = [draw for chapter in chapters for draw in chapter.panels]
    draws.insert(1, partial(seconds, chapters))
    rows = -(-len(draws) // 2)
    with rc_context(_STYLE):
        layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08, wspace=0.03, hspace=0.03)
        figure = Figure(figsize=(8.0, 2.8 * rows + 0.4), layout=layout)
        lines = [
            Line2D([], [], color=THEIRS, linewidth=_WIDE, label="torch.optim"),
            Line2D([], [], color=OURS, linewidth=_NARROW, label="onepass"),
        ]
        figure.legend(handles=lines, loc="outside upper center", ncols=2, frameon=False)
        grid = figure.add_gridspec(rows, 2)
        for number, draw in enumerate(draws):
            alone = number == len(draws) - 1 and number % 2 == 0
            draw(figure.add_subplot(grid[number // 2, :] if alone else grid[divmod(number, 2)]))
        figure.savefig(file, dpi=200)


def curves(panel: Any, theirs: Sequence[float], ours: Sequence[float]) -> None:
    """Draw two curves, one over the other."""
    for values, colour, width in ((theirs, THEIRS, _WIDE), (ours, OURS, _NARROW)):
        panel.plot(values, color=colour, linewidth=width)
    panel.grid(alpha=0.3)


def seconds(chapters: Sequence[Chapter], panel: Any) -> None:
    """Draw what the chapters took: two bars for each, of which the part at the axis is `step()`."""
    longest = max(_sums(c.pairs, side)[0] for c in chapters for side in ("torch", "onepass"))
    for row, chapter in enumerate(chapters):
        ends = []
        for place, colour, side in ((row - 0.2, THEIRS, "torch"), (row + 0.2, OURS, "onepass")):
            whole, step = _sums(chapter.pairs, side)
            panel.barh(place, whole, 0.36, color=colour, alpha=0.35, linewidth=0)
            panel.barh(place, step, 0.36, color=colour, linewidth=0)
            ends.append(whole)
        text = f"saved {ends[0] - ends[1]:.1f} s, {1 - ends[1] / ends[0]:.0%}"
        panel.text(max(ends) + 0.02 * longest, row, text, verticalalignment="center")
    panel.set(
        title="training time; dark: in step()",
        xlabel="time (s)",
        xlim=(0, 1.7 * longest),
        yticks=range(len(chapters)),
        yticklabels=[chapter.name for chapter in chapters],
        ylim=(len(chapters) - 0.4, -0.6),
    )
    panel.tick_params(axis="y", length=0)
    panel.grid(axis="x", alpha=0.3)


def accuracies(panel: Any, rows: Sequence[tuple[str, Pair]]) -> None:
    """Draw the test accuracies of pairs, a ring for torch.optim around a dot for onepass, and onepass's seconds."""
    lowest = 100.0
    for row, (_, pair) in enumerate(rows):
        theirs, ours = 100 * pair.torch.accuracy, 100 * pair.onepass.accuracy
        panel.plot(theirs, row, "o", markersize=13, color=THEIRS)
        panel.plot(ours, row, "o", markersize=5, color=OURS)
        lowest = min(lowest, theirs, ours)
        text = f"{theirs:.2f}" if theirs == ours else f"{theirs:.2f}, {ours:.2f}"
        panel.annotate(
            f"{text} % in {pair.onepass.seconds:.1f} s",
            ((theirs + ours) / 2, row),
            (0, -11),
            textcoords="offset points",
            horizontalalignment="center",
            verticalalignment="top",
        )
    panel.set(
        xlabel="test accuracy (%), and time with onepass",
        # whole fives at the left, room for the text on both sides
        xlim=(5 * math.floor(lowest / 5 - 0.3), 100.5),
        yticks=range(len(rows)),
        yticklabels=[name for name, _ in rows],
        ylim=(len(rows) - 0.3, -0.6),
    )
    panel.tick_params(axis="y", length=0)
    panel.grid(alpha=0.3)


def note(panel: Any, x: float, y: float, text: str, **how: Any) -> None:
    """Write into the panel, whose sides are 1 long."""
    panel.text(x, y, text, transform=panel.transAxes, **how)


def _sums(pairs: Sequence[Pair], side: str) -> tuple[float, float]:
    """Return the seconds of the trainings and those in `step()`."""
    outcomes: list[Outcome] = [getattr(pair, side) for pair in pairs]
    return sum(o.seconds for o in outcomes), sum(o.step_seconds for o in outcomes)
