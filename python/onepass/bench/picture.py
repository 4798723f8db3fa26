"""The picture of a measurement, from the JSON document alone: how many times as long as with onepass a step takes."""

from __future__ import annotations

import math
import textwrap
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from onepass.bench.contestants import FLOAT32
from onepass.bench.peers import PEERS
from onepass.bench.report import Document, busy, number, peers_of, results

_WIDTH = 9.7
"""Inches: 700 pixels of an SVG, where a point is a pixel."""
_TOP, _TITLE, _BOTTOM = 0.75, 0.3, 0.65
"""Inches for the title and legend of all, for the title of a panel, for its axis and the caption below."""
_BETWEEN = 0.45
"""Inches for the axis of a panel above another one."""
_LETTERS = 145
"""Of the caption, in one line."""
_DECADES = 2.6
"""From this length of the axis on, only powers of ten have room below it."""
_UNITS = {"dtype": "", "threads": " threads"}
_OURS = "#d55e00"
_COLOURS = {
    FLOAT32: "#e9a97c",
    "torch": "#c6dbef",
    "torch-foreach": "#6baed6",
    "torch-fused": "#2171b5",
    "torch-compiled": "#08306b",
    "deepspeed": "#8c8c8c",
    "apex": "#76b041",
    "optimi": "#009e73",
    "pytorch-optimizer": "#cc79a7",
    "bitsandbytes": "#e6b800",
    "torchao": "#7570b3",
}
_TITLES = {FLOAT32: "onepass in float32"}


class _Style(NamedTuple):
    """Lengths in inches, sizes of letters in points."""

    columns: int
    bar: float
    gap: float
    """Between two models."""
    names: float
    """For the names of the models, left of the axis."""
    unit: str
    """Of the size of a model."""
    numbers: float
    """Letters of the number at the end of a bar."""
    room: float
    """For that number, right of the longest bar."""

    @property
    def width(self) -> float:
        """Of a panel, names included."""
        return (_WIDTH - 0.15) / self.columns

    @property
    def axis(self) -> float:
        """Of its axis."""
        return self.width - self.names - 0.2


_ONE = _Style(1, 0.24, 0.2, 1.75, " parameters", 10.5, 0.5)
_SEVERAL = _Style(2, 0.17, 0.16, 1.15, "", 8.5, 0.46)


class _Panel(NamedTuple):
    """Cases of one optimizer, dtype and thread count."""

    title: str
    cases: list[dict[str, Any]]
    names: list[str]
    """Who has a bar, from the top."""

    def group(self, style: _Style) -> float:
        """Return the height of a model's bars."""
        return max(2, len(self.names)) * style.bar  # a name has two lines

    def height(self, style: _Style) -> float:
        """Return the height of all."""
        return len(self.cases) * (self.group(style) + style.gap) + style.gap


def draw(document: Document, file: Path, ending: str) -> None:
    """Draw a panel for each optimizer, a group of bars for each model, a bar for each peer.

    Args:
        document: A measurement of one case or more.
        file: Where the picture goes.
        ending: Of a file name, which stands for a format.
    """
    panels = _panels(document)
    style = _ONE if len(panels) == 1 else _SEVERAL
    titled = _TITLE if len(panels) > 1 else 0.0
    filled = [_TOP] * style.columns
    places = []
    for panel in panels:
        column = filled.index(min(filled))
        places.append((column, filled[column] + titled))
        filled[column] += titled + panel.height(style) + _BETWEEN
    height = max(filled) - _BETWEEN + _BOTTOM
    with mpl.rc_context({"svg.hashsalt": "onepass", "font.size": 11}):
        figure = Figure(figsize=(_WIDTH, height))
        span = _span(panels, style)
        for panel, (column, above) in zip(panels, places, strict=True):
            tall = panel.height(style)
            corner = (column * style.width + style.names, height - above - tall)
            size = (style.axis, tall)
            box = (*_fractions(corner, height), *_fractions(size, height))
            _draw_panel(figure.add_axes(box), panel, span, style)
        what = f"{panels[0].title} step" if len(panels) == 1 else "optimizer step"
        figure.text(
            *_fractions((0.15, height - 0.13), height),
            f"One {what}: how many times as long as with onepass",
            fontsize=14,
            fontweight="bold",
            verticalalignment="top",
        )
        drawn = [name for name in (FLOAT32, *PEERS) if any(name in p.names for p in panels)]
        handles = [Patch(color=_OURS, label="onepass = 1")]
        handles += [Patch(color=_COLOURS[n], label=_TITLES.get(n, n)) for n in drawn]
        figure.legend(
            handles=handles,
            loc="upper left",
            bbox_to_anchor=_fractions((0.05, height - 0.38), height),
            ncols=6,
            frameon=False,
            handlelength=1.0,
            columnspacing=1.4,
        )
        figure.text(
            *_fractions((0.15, 0.07), height),
            _caption(document, style),
            fontsize=8.5,
            color="#555555",
        )
        # The same data give the same file; most formats take no metadata.
        metadata = {"Date": None} if ending.lower() in (".svg", ".svgz") else None
        figure.savefig(file, dpi=150, format=ending.lstrip(".").lower(), metadata=metadata)


def _fractions(inches: tuple[float, float], height: float) -> tuple[float, float]:
    return inches[0] / _WIDTH, inches[1] / height


def _panels(document: Document) -> list[_Panel]:
    several = [key for key in _UNITS if len({case[key] for case in document["cases"]}) > 1]
    found: dict[str, list[dict[str, Any]]] = {}
    for case in document["cases"]:
        words = [case["optimizer"], *(f"{case[key]}{_UNITS[key]}" for key in several)]
        found.setdefault(", ".join(words), []).append(case)
    everyone = (FLOAT32, *peers_of(document))
    panels = []
    for title, cases in found.items():
        timed = {name for case in cases for name, r in results(case).items() if "ratio" in r}
        names = [name for name in everyone if name in timed]
        panels.append(_Panel(title, sorted(cases, key=itemgetter("parameters")), names))
    return panels


def _span(panels: list[_Panel], style: _Style) -> tuple[float, float]:
    """Return the ends of the axis, for all panels the same."""
    ratios = [
        ratio
        for panel in panels
        for case in panel.cases
        for name, result in results(case).items()
        if name in panel.names
        for ratio in result.get("ratio", {}).values()
    ]
    start, longest = min([0.95, *(0.7 * ratio for ratio in ratios)]), max([1.6, *ratios])
    bars = style.axis - style.room
    return start, longest * (longest / start) ** (style.room / bars)


def _draw_panel(axes: Axes, panel: _Panel, span: tuple[float, float], style: _Style) -> None:
    axes.set(xscale="log", xlim=span, ylim=(panel.height(style), 0))
    steps = (1, 2, 5) if math.log10(span[1] / span[0]) < _DECADES else (1,)
    ticks = [step * 10.0**n for n in range(-4, 6) for step in steps]
    ticks = [tick for tick in ticks if span[0] <= tick <= span[1]]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], color="#555555")
    axes.set_xticks([], minor=True)
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    if style.columns > 1:
        axes.set_title(panel.title, loc="left", fontweight="bold", fontsize=12)
    group, middles = panel.group(style), []
    for index, case in enumerate(panel.cases):
        start = style.gap + index * (group + style.gap)
        middles.append(start + group / 2)
        if not panel.names:
            _write(axes, 1.0, middles[-1], "nobody else was timed", style)
        for place, name in enumerate(panel.names):
            middle = middles[-1] + (place + 0.5 - len(panel.names) / 2) * style.bar
            _draw_bar(axes, middle, name, results(case).get(name, {}), style)
    labels = [f"{_label(case)}{style.unit}" for case in panel.cases]
    axes.set_yticks(middles, labels, linespacing=1.15)
    axes.tick_params(axis="both", length=0)
    axes.spines[["left", "top", "right"]].set_visible(False)
    axes.axvline(1, color=_OURS, linewidth=2.2, zorder=4)


def _draw_bar(axes: Axes, y: float, name: str, result: dict[str, Any], style: _Style) -> None:
    """Draw a bar that begins at 1, its quartiles and its number; or write in the place of it why there is none."""
    status = result.get("status", "not offered")
    if "ratio" not in result:
        _write(axes, 1.0, y, "" if status == "not offered" else status, style)
        return
    ratio, wrong = result["ratio"], status != "ok"
    axes.barh(
        y,
        ratio["median"] - 1,
        height=0.86 * style.bar,
        left=1,
        color="white" if wrong else _COLOURS[name],
        edgecolor=_COLOURS[name],
        hatch="////" if wrong else None,
        linewidth=0.6,
        zorder=2,
    )
    axes.plot([ratio["low"], ratio["high"]], [y, y], color="black", linewidth=0.9, zorder=3)
    text = f"{number(ratio['median'])}\N{MULTIPLICATION SIGN}" + (f" {status}" if wrong else "")
    _write(axes, max(1.0, ratio["high"]), y, text, style)


def _write(axes: Axes, x: float, y: float, text: str, style: _Style) -> None:
    axes.annotate(
        text,
        (x, y),
        (4, -0.5),
        textcoords="offset points",
        fontsize=style.numbers,
        verticalalignment="center",
        zorder=5,
    )


def _label(case: dict[str, Any]) -> str:
    size = case["parameters"]
    digits = f"{size / 1e6:.3g} M" if size >= 1e6 else f"{size / 1e3:.3g} k"
    return f"{case['title']}\n{digits}"


def _caption(document: Document, style: _Style) -> str:
    machine, method = document["machine"], document["method"]
    dtypes, threads = (
        ", ".join(str(value) for value in dict.fromkeys(case[key] for case in document["cases"]))
        for key in ("dtype", "threads")
    )
    text = (
        f"Logarithmic axis. Bars: medians of {method['rounds']} rounds; lines at their ends: quartiles"
        f"{'' if style.unit else '; under the names: parameters'}. {dtypes}, {threads} thread"
        f"{'' if threads == '1' else 's'}, torch {document['versions']['torch']}, {machine['processor']}, "
        f"{document['date']}."
    )
    if state := busy(document):
        text = f"The machine was busy ({state}): do not trust these figures. {text}"
    return "\n".join(textwrap.wrap(text, _LETTERS))
