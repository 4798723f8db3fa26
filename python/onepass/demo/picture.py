"""The picture: every chapter's panels, the curves of both libraries on top of one another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from onepass.demo.chapter import Chapter
from onepass.demo.pair import Pair

THEIRS, OURS = "#f4a259", "#1d3557"
_WIDTH, _HEIGHT = 13.0, 2.7  # of the picture, of a row of panels; inches
_BESIDE = 2  # so many panels in a row leave room for another chapter


def save(chapters: Sequence[Chapter], file: Path) -> None:
    """Draw all panels: a large chapter in a band of its own, small ones side by side."""
    bands = list(_bands(chapters))
    rows = [len(band[0].panels) for band in bands]
    figure = Figure(figsize=(_WIDTH, _HEIGHT * sum(rows) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    whole = figure.subfigures(len(bands) + 1, 1, squeeze=False, height_ratios=[0.1, *rows])
    lines = [
        Line2D([], [], color=THEIRS, linewidth=3.5, label="torch.optim"),
        Line2D([], [], color=OURS, linewidth=0.8, label="onepass"),
    ]
    whole[0, 0].legend(handles=lines, loc="center", ncols=2, frameon=False)
    for band, place in zip(bands, whole[1:, 0], strict=True):
        parts = place.subfigures(1, len(band), squeeze=False)[0]
        for chapter, part in zip(band, parts, strict=True):
            part.suptitle(chapter.name, fontweight="bold")
            panels = part.subplots(len(chapter.panels), len(chapter.panels[0]), squeeze=False)
            for draws, row in zip(chapter.panels, panels, strict=True):
                for draw, panel in zip(draws, row, strict=True):
                    panel.spines[["top", "right"]].set_visible(False)
                    draw(panel)
    figure.savefig(file, dpi=110)


def _bands(chapters: Sequence[Chapter]) -> Iterator[list[Chapter]]:
    small: list[Chapter] = []
    for chapter in chapters:
        if len(chapter.panels) > 1 or len(chapter.panels[0]) > _BESIDE:
            yield [chapter]
        else:
            small.append(chapter)
    for i in range(0, len(small), 2):
        yield small[i : i + 2]


def curves(
    panel: Any,
    theirs: Sequence[float],
    ours: Sequence[float],
    *,
    log: bool = False,
    style: str = "-",
) -> None:
    """Draw two curves: the wide line stays visible around the narrow one that covers it."""
    panel.plot(theirs, color=THEIRS, linewidth=3.5)
    panel.plot(ours, style, color=OURS, linewidth=0.8)
    if log:
        panel.set_yscale("log")
    panel.grid(alpha=0.25)


def bars(panel: Any, rows: Sequence[tuple[str, Pair]]) -> None:
    """Draw the test accuracies of pairs, side by side."""
    for shift, colour, side in ((-0.2, THEIRS, "torch"), (0.2, OURS, "onepass")):
        heights = [getattr(pair, side).accuracy for _, pair in rows]
        drawn = panel.bar([i + shift for i in range(len(rows))], heights, 0.4, color=colour)
        panel.bar_label(drawn, [f"{height:.1%}" for height in heights], fontsize=7)
    lowest = min(min(pair.torch.accuracy, pair.onepass.accuracy) for _, pair in rows)
    panel.set(
        title="test accuracy",
        xticks=range(len(rows)),
        xticklabels=[name for name, _ in rows],
        ylim=(max(0.0, lowest - 0.1), 1.0),
    )


def note(panel: Any, text: str) -> None:
    """Write into the upper right corner."""
    panel.text(
        0.97,
        0.97,
        text,
        transform=panel.transAxes,
        horizontalalignment="right",
        verticalalignment="top",
        fontsize=8,
    )


def smooth(losses: Sequence[float], size: int) -> list[float]:
    """Return the means of `size` losses after one another."""
    return [sum(losses[i : i + size]) / size for i in range(0, len(losses) - size + 1, size)]
