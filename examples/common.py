"""What the examples share: the end by Ctrl-C and by an error, command line, progress bar, table, picture."""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn


def _end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say in one line that Ctrl-C came, and what it has left: the arguments of the exception."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    said = ", ".join(map(str, error.args))
    print(f"Interrupted: {said}" if said else "Interrupted", file=sys.stderr)
    raise SystemExit(130)  # 128 + SIGINT, as of a shell


sys.excepthook = _end  # before torch, which takes seconds to import


def refuse(message: str) -> NoReturn:
    """End as argparse does where an argument is wrong, without the usage."""
    said = " ".join(line.strip() for line in message.splitlines())
    print(f"{Path(sys.argv[0]).name}: error: {said}", file=sys.stderr)
    sys.exit(2)


def need(extra: str, error: ImportError) -> NoReturn:
    """End where a package is missing, and say how to install it."""
    refuse(f"{error}; needs pip install -c constraints.txt '.[{extra}]' in the clone of onepass")


try:
    import torch
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from rich import box
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )
    from rich.table import Table
except ModuleNotFoundError as missing:
    need("demo", missing)

console = Console(highlight=False)


def whole(low: int, high: int = 2**31 - 1) -> Callable[[str], int]:
    """Return what reads a whole number in [low, high] from the command line."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            message = f"must be a whole number in [{low}, {high}], not {text}"
            raise argparse.ArgumentTypeError(message)
        return value

    return read


def number(meant: str, holds: Callable[[float], bool]) -> Callable[[str], float]:
    """Return what reads a finite number for which `holds`, in words `meant`, from the command line."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and holds(value)):
            message = f"must be a number {meant}, not {text}"
            raise argparse.ArgumentTypeError(message)
        return value

    return read


def folder(text: str) -> Path:
    """Read a folder that exists from the command line."""
    path = Path(text)
    if not path.is_dir():
        message = f"there is no folder {text}"
        raise argparse.ArgumentTypeError(message)
    return path


def present(text: str) -> Path:
    """Read a file that exists from the command line."""
    path = Path(text)
    if not path.is_file():
        message = f"there is no file {text}"
        raise argparse.ArgumentTypeError(message)
    return path


def writable(text: str) -> Path:
    """Read a file that can be written in the end from the command line."""
    path = Path(text)
    if not path.absolute().parent.is_dir():
        message = f"there is no folder {path.parent}"
    elif path.is_dir():
        message = f"{text} is a folder"
    elif not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        message = f"{text} cannot be written"
    else:
        return path
    raise argparse.ArgumentTypeError(message)


def _picture(text: str) -> Path:
    formats = FigureCanvasAgg.get_supported_filetypes()
    if Path(text).suffix.lstrip(".").lower() not in formats:
        message = f"must end in one of {', '.join(sorted(formats))}, not {text}"
        raise argparse.ArgumentTypeError(message)
    return writable(text)


def arguments(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options that all examples have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--fast", action="store_true", help="shorter: other defaults for what is not given"
    )
    parser.add_argument(
        "--picture", type=_picture, metavar="FILE", help="save a picture (png, svg, pdf)"
    )
    parser.add_argument("--seed", type=whole(0, 2**32 - 1), default=0)
    parser.add_argument(
        "--threads", type=whole(1, 1024), default=1, help="1 is best for models this small"
    )
    return parser


def parse(parser: argparse.ArgumentParser, **fast: Any) -> argparse.Namespace:
    """Read the command line; `fast` is what --fast puts in the place of the defaults."""
    args = parser.parse_args()
    if args.fast:
        parser.set_defaults(**fast)
        args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    return args


@contextmanager
def interrupt_held() -> Iterator[Callable[[], bool]]:
    """Hold Ctrl-C back, and yield what tells whether it came; a second one is not held."""
    came = False

    def hold(_signal: int, _frame: FrameType | None) -> None:
        nonlocal came
        if came:
            raise KeyboardInterrupt
        came = True

    before = signal.signal(signal.SIGINT, hold)
    try:
        yield lambda: came
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def bar(title: str, total: int) -> Iterator[Callable[[str], None]]:
    """Show a progress bar; each call of what it yields is one step, with a text behind the bar."""
    progress = Progress(
        TextColumn("{task.description:<26}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(),
        console=console,
    )
    with progress:
        task = progress.add_task(title, total=total, text="")
        yield lambda text: progress.update(task, advance=1, text=text)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print the summary: names on the left, numbers on the right."""
    made = Table(title=title, title_justify="left", box=box.HORIZONTALS, show_edge=False)
    for i, column in enumerate(columns):
        made.add_column(column, justify="right" if i else "left")
    for row in rows:
        made.add_row(*row)
    console.print()
    console.print(made)


@contextmanager
def picture(file: Path | None, panels: int, width: float = 4.0) -> Iterator[list[Any]]:
    """Yield the panels of a picture in a row; it is saved in the end, and at Ctrl-C with what has been drawn."""
    figure = Figure(figsize=(width * panels, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    try:
        yield axes
    except KeyboardInterrupt as interrupt:
        if file is not None and any(panel.has_data() for panel in axes):
            figure.savefig(file, dpi=130)
            interrupt.args += (f"saved {file}",)
        raise
    if file is not None:
        figure.savefig(file, dpi=130)
        console.print(f"Picture: {file}", markup=False, soft_wrap=True)
