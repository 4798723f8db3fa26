"""Draw every schedule over 100 steps into schedules.svg, beside this file."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path

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
    ("Constant", {"": Constant(1), ".warmup": Constant(1).warmup(20)}),
    ("Step", {"": Step(1, 25, gamma=0.5)}),
    ("MultiStep", {"": MultiStep(1, [50, 80], gamma=0.4)}),
    (
        "Exponential",
        {"": Exponential(1, 0.97), "staircase": Exponential(1, 0.97**20, 20, staircase=True)},
    ),
    ("InverseSqrt", {"": InverseSqrt(1, 20), ".warmup": InverseSqrt(1, 20).warmup(20)}),
    ("Linear", {"": Linear(1, 80), "final": Linear(1, 80, final=0.2)}),
    ("Polynomial", {"power 2": Polynomial(1, 80, 2), "0.5": Polynomial(1, 80, 0.5)}),
    ("Cosine", {"": Cosine(1, 80), ".warmup": Cosine(1, 80).warmup(20)}),
    ("WarmRestarts", {"multiplier 2": WarmRestarts(1, 15, 2)}),
    ("OneCycle", {"": OneCycle(1, 100), "three phases": OneCycle(1, 100, three_phase=True)}),
    ("WSD", {"1-sqrt": WSD(1, 20, 40, 40), "linear": WSD(1, 20, 40, 40, shape="linear")}),
    (
        "Piecewise",
        {
            "linear": Piecewise(POINTS).over(100),
            "cosine": Piecewise(POINTS, kind="cosine").over(100),
        },
    ),
    ("Piecewise", {"step": Piecewise(POINTS, kind="step").over(100)}),
    (
        "Custom",
        {"a sine that decays": Custom(lambda t: (1 + math.sin(t / 4)) / (2 + t / 30), "sine")},
    ),
    ("Constant.then", {"Cosine": Constant(1).then(Cosine(0.6, 60), at=40)}),
]
COLOURS, DASHES = ("#0072b2", "#d55e00"), ("-", (0, (3, 1.5)))


def main() -> None:
    """Write the picture."""
    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "onepass", "font.size": 9}
    figure, axes = pyplot.subplots(3, 5, figsize=(11, 5.6), sharex=True, sharey=True)
    for ax, (title, schedules) in zip(axes.flat, PANELS, strict=True):
        for (label, s), colour, dashes in zip(schedules.items(), COLOURS, DASHES, strict=False):
            line = s.plot(STEPS, ax).lines[-1]
            line.set(label=label or "plain", color=colour, linestyle=dashes)
        if list(schedules) != [""]:
            ax.legend(
                loc="upper right",
                fontsize=7,
                frameon=False,
                handlelength=1.9,
                ncols=2,
                columnspacing=1,
            )
        ax.set_title(title, fontsize=9)
        ax.set_xlabel("")
        ax.set_ylim(-0.05, 1.45)
        ax.set_xticks([0, 50, 100])
        ax.set_yticks([0, 0.5, 1])
        ax.grid(alpha=0.3)
    figure.supxlabel("steps already applied")
    figure.tight_layout()
    text = io.StringIO()
    figure.savefig(text, metadata={"Date": None})
    short = re.sub(r"\d+\.\d{3,}", lambda m: f"{float(m[0]):.2f}", text.getvalue())
    lines = (line.rstrip() + "\n" for line in short.splitlines())
    Path(__file__).with_suffix(".svg").write_text("".join(lines))


if __name__ == "__main__":
    main()
