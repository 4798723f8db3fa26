"""The picture of a measurement, from the JSON document alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onepass.bench.contestants import FLOAT32, FLOOR, LIMIT, OURS
from onepass.bench.peers import PEERS
from onepass.bench.report import Document, peers_of, results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = 4
_COLOURS = (
    "#0072b2",
    "#56b4e9",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#332288",
    "#f0e442",
    "#999999",
    "#a6761d",
    "#7570b3",
)
_STYLES: dict[str, dict[str, Any]] = {
    OURS: {"color": "#d55e00", "linewidth": 2.4, "marker": "o", "zorder": 5},
    LIMIT: {"color": "black", "linewidth": 1.2, "linestyle": "--", "zorder": 4},
    FLOOR: {"color": "black", "linewidth": 1.2, "linestyle": ":"},
    FLOAT32: {"color": "#d55e00", "linewidth": 1.2, "linestyle": "-.", "marker": "."},
    **{
        name: {"color": colour, "linewidth": 1.2, "marker": ".", "markersize": 5}
        for name, colour in zip(PEERS, _COLOURS, strict=True)
    },
}
_TITLES = {LIMIT: "streaming limit", FLOOR: "empty step", FLOAT32: "onepass in float32"}


def draw(document: Document, file: Path) -> None:
    """Draw time and bytes per second against model size, a column for each optimizer.

    Of several data types or thread counts the first of each optimizer is drawn.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    firsts: dict[str, dict[str, Any]] = {}
    for case in document["cases"]:
        firsts.setdefault(case["optimizer"], case)
    cases = [
        case
        for case in document["cases"]
        if all(case[key] == firsts[case["optimizer"]][key] for key in ("dtype", "threads"))
    ]
    optimizers = list(firsts)
    names = [OURS, LIMIT, FLOOR, FLOAT32, *peers_of(document)]
    columns = min(_COLUMNS, len(optimizers))
    blocks = math.ceil(len(optimizers) / columns)
    with mpl.rc_context(
        {
            "svg.hashsalt": "onepass",
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    ):
        figure = Figure(figsize=(max(7.0, 3.4 * columns), 6.6 * blocks), layout="constrained")
        grid = figure.add_gridspec(2 * blocks, columns)
        pairs: list[tuple[Axes, Axes]] = []
        for number, optimizer in enumerate(optimizers):
            block, column = divmod(number, columns)
            time, speed = (
                figure.add_subplot(
                    grid[2 * block + row, column], sharey=pairs[0][row] if pairs else None
                )
                for row in range(2)
            )
            pairs.append((time, speed))
            own = [c for c in cases if c["optimizer"] == optimizer]
            _draw_optimizer(time, speed, sorted(own, key=lambda c: int(c["parameters"])), names)
            time.set_title(optimizer)
            if column == 0:
                time.set_ylabel("one step, seconds")
                speed.set_ylabel("memory traffic, GB/s")
        figure.legend(*_legend(pairs), loc="outside upper center", ncols=6, frameon=False)
        metadata = (
            {"Date": None} if file.suffix == ".svg" else {}
        )  # the same data give the same file
        figure.savefig(file, dpi=150, metadata=metadata)


def _draw_optimizer(time: Axes, speed: Axes, cases: list[dict[str, Any]], names: list[str]) -> None:
    for name, sizes, seconds, traffic in _lines(cases, names):
        style = _STYLES[name]
        time.plot(sizes, seconds, label=_TITLES.get(name, name), **style)
        if name != FLOOR:
            speed.plot(sizes, traffic, **style)
    sizes = [case["parameters"] for case in cases]
    for axis in (time, speed):
        axis.set(xscale="log", yscale="log")
        axis.set_xticks([], minor=True)
        axis.grid(alpha=0.25, linewidth=0.6)
    time.set_xticks(sizes, [""] * len(sizes))
    speed.set_xticks(sizes, [_tick(case) for case in cases], rotation=90)


def _lines(
    cases: list[dict[str, Any]], names: list[str]
) -> Iterator[tuple[str, list[int], list[float], list[float]]]:
    for name in names:
        timed = [
            (case, result) for case in cases if "seconds" in (result := results(case).get(name, {}))
        ]
        if timed:
            yield (
                name,
                [case["parameters"] for case, _ in timed],
                [result["seconds"]["median"] for _, result in timed],
                [result["gigabytes_per_second"] for _, result in timed],
            )


def _tick(case: dict[str, Any]) -> str:
    size = case["parameters"]
    unit = f"{size / 1e6:.3g} M" if size >= 1e6 else f"{size / 1e3:.3g} k"
    return f"{case['title']}, {unit}"


def _legend(pairs: list[tuple[Axes, Axes]]) -> tuple[list[Any], list[Any]]:
    found: dict[Any, Any] = {}
    for time, _ in pairs:
        for handle, label in zip(*time.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)
