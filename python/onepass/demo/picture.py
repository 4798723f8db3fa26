"""The picture: the loss curves of both libraries, one on top of the other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from onepass.demo.pair import Pair


def problem(file: Path) -> str | None:
    """Return why the picture could not be saved there, or None: worth knowing before the training."""
    formats = FigureCanvasAgg.get_supported_filetypes()
    if file.suffix.lstrip(".").lower() not in formats:
        return f"the ending of the name must be one of {', '.join(sorted(formats))}"
    if not file.parent.is_dir():
        return f"there is no directory {file.parent}"
    if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
        return "cannot be written"
    return None


def save(pairs: Sequence[Pair], file: Path) -> None:
    """Draw a row of panels for every model, a panel for every optimizer."""
    models = list(dict.fromkeys(pair.model for pair in pairs))
    optimizers = list(dict.fromkeys(pair.optimizer for pair in pairs))
    figure = Figure(figsize=(2.5 * len(optimizers), 2.6 * len(models) + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(models), len(optimizers), sharex=True, sharey="row", squeeze=False)
    for pair in pairs:
        _panel(panels[models.index(pair.model), optimizers.index(pair.optimizer)], pair)
    for panel in panels[-1]:
        panel.set_xlabel("step")
    for model, panel in zip(models, panels[:, 0], strict=True):
        panel.set_ylabel(f"{model}\nloss of the batch")
        panel.set_ylim(top=20)  # the loss starts at log(10) = 2.3: room for the text
    handles = panels[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=2, frameon=False)
    figure.savefig(file, dpi=130)


def _panel(panel: Any, pair: Pair) -> None:
    # the wide line stays visible around the narrow one that covers it
    panel.semilogy(pair.torch.losses, color="#f4a259", linewidth=3.5, label="torch.optim")
    panel.semilogy(pair.onepass.losses, color="#1d3557", linewidth=0.8, label="onepass")
    panel.set_title(pair.optimizer)
    panel.text(
        0.97,
        0.97,
        f"test accuracy\ntorch.optim {pair.torch.accuracy:.2%}\nonepass {pair.onepass.accuracy:.2%}\n"
        f"weights within {pair.difference:.0e}",
        transform=panel.transAxes,
        horizontalalignment="right",
        verticalalignment="top",
        fontsize=8,
    )
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)
