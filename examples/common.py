"""What the examples share: data, command line, progress bar, table, picture."""

from __future__ import annotations

import argparse
import gzip
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from torch import Tensor, nn

console = Console(highlight=False)
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp"}


class Data(NamedTuple):
    """Images (N, C, H, W) of uint8 and their class numbers."""

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]

    def inputs(self) -> Tensor:
        """Return the images as a model takes them, in [0, 1]."""
        return self.images.float() / 255.0

    def take(self, index: Tensor) -> Data:
        """Return some of the images."""
        return self._replace(images=self.images[index], labels=self.labels[index])

    def first(self, per_class: int) -> Data:
        """Return the first images of every class."""
        rows = [torch.nonzero(self.labels == c)[:per_class, 0] for c in range(len(self.names))]
        return self.take(torch.cat(rows))

    def classes(self, chosen: Sequence[int]) -> Data:
        """Return the images of some classes, which are numbered anew."""
        number = torch.full((len(self.names),), -1)
        number[list(chosen)] = torch.arange(len(chosen))
        kept = self.take(torch.isin(self.labels, torch.tensor(list(chosen))))
        return kept._replace(labels=number[kept.labels], names=tuple(self.names[c] for c in chosen))


def arguments(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options that all examples have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="a folder with MNIST's IDX files, or with a folder of images for every class "
        "(or train/ and test/ with these); default: scikit-learn's digits",
    )
    parser.add_argument("--size", type=int, default=32, help="of images from folders, in pixels")
    training(parser)
    return parser


def training(parser: argparse.ArgumentParser) -> None:
    """Add the options that do not concern images."""
    parser.add_argument("--fast", action="store_true", help="a few seconds instead of the whole")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="save a picture (png, svg, pdf)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="1 is best for models this small")


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the command line, and stop where the picture could not be saved in the end."""
    args = parser.parse_args()
    if args.picture is not None:
        formats = FigureCanvasAgg.get_supported_filetypes()
        if args.picture.suffix.lstrip(".").lower() not in formats:
            parser.error(f"--picture must end in one of {', '.join(sorted(formats))}")
        if not args.picture.absolute().parent.is_dir():
            parser.error(f"--picture: there is no folder {args.picture.parent}")
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    return args


def load(args: argparse.Namespace) -> tuple[Data, Data]:
    """Return the images to train on and those to test with."""
    if args.data is None:
        train, test = _digits()
    elif list(args.data.glob("train-images*")):
        train, test = (_idx(args.data, kind) for kind in ("train", "t10k"))
    elif args.data.is_dir():
        train, test = _folders(args.data, args.size)
    else:
        sys.exit(f"--data: there is no folder {args.data}")
    shape = " x ".join(map(str, train.images.shape[1:]))
    console.print(
        f"{len(train.labels)} images ({shape}) to train on, {len(test.labels)} to test with, "
        f"{len(train.names)} classes\n"
    )
    return train, test


def _digits() -> tuple[Data, Data]:
    from sklearn.datasets import load_digits

    found = load_digits()
    # a pixel counts 0 to 16
    images = torch.from_numpy(found.images * 255.0 / 16.0).round().to(torch.uint8).unsqueeze(1)
    data = Data(images, torch.from_numpy(found.target), tuple("0123456789"))
    return _split(data, 360)


def _split(data: Data, test: int) -> tuple[Data, Data]:
    order = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(0))
    return data.take(order[test:]), data.take(order[:test])


def _idx(folder: Path, kind: str) -> Data:
    """Read MNIST's own files, packed or not."""

    def read(what: str) -> Tensor:
        file = next(iter(sorted(folder.glob(f"{kind}-{what}*"))), None)
        if file is None:
            sys.exit(f"--data: {folder} has no {kind}-{what}...")
        raw = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        shape = np.frombuffer(raw, ">i4", raw[3], 4)  # byte 3 is the number of dimensions
        values = np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3])
        return torch.from_numpy(values.reshape(shape).copy())

    labels = read("labels").long()
    names = tuple(str(c) for c in range(int(labels.max()) + 1))
    return Data(read("images").unsqueeze(1), labels, names)


def _folders(folder: Path, size: int) -> tuple[Data, Data]:
    train = folder / "train"
    if not train.is_dir():
        data = _folder(folder, size)
        return _split(data, len(data.labels) // 5)
    test = next((folder / n for n in ("test", "val", "valid") if (folder / n).is_dir()), None)
    if test is None:
        sys.exit(f"--data: {folder} has train/, but neither test/ nor val/")
    return _folder(train, size), _folder(test, size)


def _folder(folder: Path, size: int) -> Data:
    from PIL import Image

    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    images, labels = [], []
    for label, path in enumerate(classes):
        for file in sorted(path.iterdir()):
            if file.suffix.lower() in SUFFIXES:
                with Image.open(file) as image:
                    images.append(np.asarray(image.convert("RGB").resize((size, size))))
                labels.append(label)
    if not images:
        sys.exit(f"--data: {folder} has no images in folders named like their classes")
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return Data(stacked, torch.tensor(labels), tuple(path.name for path in classes))


def batches(data: Data, size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield an epoch of shuffled batches, the incomplete last one left out."""
    order = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(seed))
    inputs = data.inputs()
    for index in order[: len(order) // size * size].view(-1, size):
        yield inputs[index], data.labels[index]


@torch.no_grad()
def accuracy(model: nn.Module, data: Data, inputs: Tensor | None = None) -> float:
    """Return the share of images that the model gets right; it is left in training mode.

    Args:
        model: The classifier.
        data: Images and labels.
        inputs: What the model takes in the place of `data.inputs()`.
    """
    model.eval()
    parts = (data.inputs() if inputs is None else inputs).split(500)
    guesses = torch.cat([model(part).argmax(1) for part in parts])
    model.train()
    return (guesses == data.labels).float().mean().item()


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
    """Yield the panels of a picture in a row, which is saved in the end if there is a file for it."""
    figure = Figure(figsize=(width * panels, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    yield list(figure.subplots(1, panels, squeeze=False)[0])
    if file is not None:
        figure.savefig(file, dpi=130)
        console.print(f"Picture: {file}", markup=False, soft_wrap=True)
