"""Draw every schedule over 100 steps into schedules.svg, beside this file."""

from __future__ import annotations

import io
import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot

from onepass.schedule import (
    WSD,
    Constant,
    Cosine,
    Custom,
    Exponential,
    InverseSqrt,
    Linear,
    MultiStep,
    OneCycle,
    Piecewise,
    Polynomial,
    Schedule,
    Step,
    WarmRestarts,
)

STEPS = 101
POINTS = [(0, 0.1), (0.2, 1.0), (0.5, 0.8), (0.6, 0.3), (0.9, 0.0)]
PANELS: list[tuple[str, dict[str, Schedule]]] = [
    ("Constant", {"": Constant(1), "warmup": Constant(1).warmup(20)}),
    ("Step", {"": Step(1, 25, gamma=0.5)}),
    ("MultiStep", {"": MultiStep(1, [50, 80], gamma=0.4)}),
    (
        "Exponential",
        {
            "": Exponential(1, 0.97),
            "staircase": Exponential(1, 0.97**20, decay_steps=20, staircase=True),
        },
    ),
    ("InverseSqrt", {"": InverseSqrt(1, 20), "warmup": InverseSqrt(1, 20).warmup(20)}),
    ("Linear", {"": Linear(1, 80), "final=0.2": Linear(1, 80, final=0.2)}),
    ("Polynomial", {"p=2": Polynomial(1, 80, 2), "p=0.5": Polynomial(1, 80, 0.5)}),
    ("Cosine", {"": Cosine(1, 80), "warmup": Cosine(1, 80).warmup(20)}),
    ("WarmRestarts", {"multiplier=2": WarmRestarts(1, 15, 2)}),
    ("OneCycle", {"": OneCycle(1, 100), "three_phase": OneCycle(1, 100, three_phase=True)}),
    ("WSD", {"1-sqrt": WSD(1, 20, 40, 40), "linear": WSD(1, 20, 40, 40, shape="linear")}),
    (
        "Piecewise",
        {
            "linear": Piecewise(POINTS).over(100),
            "cosine": Piecewise(POINTS, kind="cosine").over(100),
        },
    ),
    ("Piecewise", {"step": Piecewise(POINTS, kind="step").over(100)}),
    ("Custom", {"a sine": Custom(lambda t: (1 + math.sin(t / 4)) / (2 + t / 30), "sine")}),
    ("then", {"Constant, Cosine": Constant(1).then(Cosine(0.6, 60), at=40)}),
]
STYLES = (("#0b3c6f", "-"), ("#e69f00", (0, (4, 1.5))))
"""Colours that also differ in lightness, and dashes."""


def curve(schedule: Schedule) -> tuple[list[int], list[float]]:
    """Return the points of a schedule's line, two where it jumps: a value holds until the next step.

    A jump changes the value by more than four times what the steps before and after it do.
    """
    values = [value for _, value in schedule.table(STEPS)]
    changes = [abs(b - a) for a, b in pairwise(values)]
    places, drawn = [0], values[:1]
    for t, change in enumerate(changes, 1):
        beside = changes[max(t - 2, 0) : t - 1] + changes[t : t + 1]
        if change > 4 * max(beside) + 1e-9:
            places.append(t)
            drawn.append(values[t - 1])
        places.append(t)
        drawn.append(values[t])
    return places, drawn


def draw(panel: Any, title: str, schedules: dict[str, Schedule]) -> None:
    """Draw a panel; the legend stands in the line of the title, where no curve is."""
    for (label, schedule), (colour, dashes) in zip(schedules.items(), STYLES, strict=False):
        panel.plot(*curve(schedule), color=colour, linestyle=dashes, linewidth=1.6, label=label)
    panel.set_title(title, loc="left", fontweight="bold", fontsize=9.5)
    handles, labels = panel.get_legend_handles_labels()
    shown = [(h, label) for h, label in zip(handles, labels, strict=True) if label]
    if shown:
        panel.legend(
            *zip(*shown, strict=True),
            loc="lower right",
            bbox_to_anchor=(1.0, 1.0),
            ncols=2,
            frameon=False,
            borderaxespad=0.35,
            borderpad=0,
            fontsize=8.5,
            handlelength=2.1,
            handletextpad=0.5,
            columnspacing=0.9,
        )
    panel.set(ylim=(-0.05, 1.1), xticks=(0, 50, 100), yticks=(0, 0.5, 1))
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(alpha=0.3)


def main() -> None:
    """Write the picture."""
    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "onepass", "font.size": 9}
    figure, axes = pyplot.subplots(
        5, 3, figsize=(8, 8.5), sharex=True, sharey=True, layout="constrained"
    )
    figure.get_layout_engine().set(h_pad=0.06, w_pad=0.06)
    for panel, (title, schedules) in zip(axes.flat, PANELS, strict=True):
        draw(panel, title, schedules)
    figure.supxlabel("t, steps already applied", fontsize=10)
    figure.supylabel("value s(t)", fontsize=10)
    text = io.StringIO()
    figure.savefig(text, metadata={"Date": None})
    short = re.sub(r"\d+\.\d{3,}", lambda m: f"{float(m[0]):.2f}", text.getvalue())
    lines = (line.rstrip() + "\n" for line in short.splitlines())
    Path(__file__).with_suffix(".svg").write_text("".join(lines))


if __name__ == "__main__":
    main()
