"""Images and their classes: scikit-learn's digits, MNIST's IDX files, or a folder of images for every class."""

from __future__ import annotations

import argparse
import gzip
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from common import arguments, console, folder, refuse, whole

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp"}
PARTS = ("test", "val", "valid")


class Data(NamedTuple):
    """Images (N, C, H, W) of uint8 and their class numbers."""

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]

    def inputs(self) -> Tensor:
        """Return the images as a model takes them."""
        return scaled(self.images)

    def scale(self) -> tuple[float, float]:
        """Return the mean and the standard deviation of the inputs; at least that of a byte's step."""
        std, mean = torch.std_mean(self.inputs())
        return mean.item(), max(std.item(), 1 / 255)

    def counts(self) -> dict[str, int]:
        """Return how many images every class has."""
        found = torch.bincount(self.labels, minlength=len(self.names)).tolist()
        return dict(zip(self.names, found, strict=True))

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


def scaled(images: Tensor) -> Tensor:
    """Return bytes as numbers in [0, 1]."""
    return images.float() / 255.0


def parser(description: str, epochs: int) -> argparse.ArgumentParser:
    """Return a parser with the options of all examples that train on images, for so many epochs."""
    made = arguments(description)
    made.add_argument(
        "--data",
        type=folder,
        metavar="PATH",
        help="a folder with MNIST's IDX files, or with a folder of images for every class "
        "(or train/ and test/ or val/ with these); default: scikit-learn's digits",
    )
    made.add_argument(
        "--size", type=whole(8, 2048), help="side of the squares that images of folders are cut to"
    )
    made.add_argument(
        "--epochs", type=whole(1), default=epochs, help="of every training; default: %(default)s"
    )
    return made


def of_folders(path: Path | None) -> bool:
    """Tell whether the data are folders of images, not IDX files or the default."""
    return path is not None and not any(path.glob("train-images*"))


def load(args: argparse.Namespace, size: int = 32) -> tuple[Data, Data]:
    """Return the images to train on and those to test with, of the same classes.

    Args:
        args: The command line.
        size: Of images from folders if it does not say otherwise.
    """
    if of_folders(args.data):
        train, test = _folders(args.data, args.size or size)
    elif args.size is not None:
        refuse("--size is for --data with a folder of images for every class")
    else:
        train, test = _digits() if args.data is None else _idx(args.data)
    if len(train.names) < 2:
        refuse(f"--data: {args.data} has the class {train.names[0]} alone; at least 2 are needed")
    shape = " x ".join(map(str, train.images.shape[1:]))
    console.print(
        f"{len(train.labels)} images ({shape}) to train on, {len(test.labels)} to test with, "
        f"{len(train.names)} classes"
    )
    warn(test)
    return train, test


def warn(test: Data) -> None:
    """Say what an accuracy on these images is worth where they, or their classes, are few; end the paragraph."""
    for caution in cautions(test):
        console.print(caution, markup=False, soft_wrap=True)
    console.print()


def cautions(test: Data) -> list[str]:
    """Return what to know about an accuracy on these images."""
    counts = test.counts()
    total, most = len(test.labels), max(counts, key=lambda name: counts[name])
    said = []
    if total < 200:
        said.append(f"{total} test images: one is {100 / total:.3g} points of accuracy")
    if len(counts) < 5 or counts[most] > 0.4 * total:
        share = f"{counts[most] / total:.0%}"
        said.append(f"{len(counts)} classes: who always says {most} is right in {share}")
    if absent := [name for name, count in counts.items() if not count]:
        said.append(f"no test images of {', '.join(absent)}")
    return said


def _digits() -> tuple[Data, Data]:
    from sklearn.datasets import load_digits

    found = load_digits()
    # a pixel counts 0 to 16
    images = torch.from_numpy(found.images * 255.0 / 16.0).round().to(torch.uint8).unsqueeze(1)
    data = Data(images, torch.from_numpy(found.target), tuple("0123456789"))
    order = _shuffled(data)
    return data.take(order[360:]), data.take(order[:360])


def _shuffled(data: Data) -> Tensor:
    return torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(0))


def _idx(path: Path) -> tuple[Data, Data]:
    """Read MNIST's own files, packed or not; the labels that occur in training are the classes."""
    images, labels = _pair(path, "train")
    test_images, test_labels = _pair(path, "t10k")
    if images.shape[1:] != test_images.shape[1:]:
        sizes = " and ".join(" x ".join(map(str, x.shape[1:])) for x in (images, test_images))
        refuse(f"--data: the images of {path} have two sizes, {sizes}")
    classes, numbers = torch.unique(labels, return_inverse=True)
    if unknown := sorted(set(test_labels.tolist()) - set(classes.tolist())):
        refuse(f"--data: {path}: t10k has the label {unknown[0]}, which train has not")
    names = tuple(map(str, classes.tolist()))
    test = Data(test_images.unsqueeze(1), torch.searchsorted(classes, test_labels), names)
    return Data(images.unsqueeze(1), numbers, names), test


def _pair(path: Path, part: str) -> tuple[Tensor, Tensor]:
    images, labels = _idx_file(path, f"{part}-images", 3), _idx_file(path, f"{part}-labels", 1)
    if len(images) != len(labels):
        refuse(f"--data: {path}: {part} has {len(images)} images and {len(labels)} labels")
    return images, labels


def _idx_file(path: Path, name: str, dimensions: int) -> Tensor:
    file = next(iter(sorted(path.glob(f"{name}*"))), None)
    if file is None:
        refuse(f"--data: {path} has no {name}...")
    try:
        raw = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        refuse(f"--data: {file} cannot be read: {error}")
    start = 4 + 4 * dimensions
    # 8: unsigned bytes
    if len(raw) < start or raw[:4] != bytes((0, 0, 8, dimensions)):
        refuse(f"--data: {file} is no IDX file of bytes with {dimensions} dimensions")
    shape = np.frombuffer(raw, ">i4", dimensions, 4).tolist()
    if min(shape) < 1 or math.prod(shape) != len(raw) - start:
        sides = " x ".join(map(str, shape))
        refuse(f"--data: {file} says {sides} bytes, and has {len(raw) - start}")
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=start).reshape(shape).copy())


def _folders(path: Path, size: int) -> tuple[Data, Data]:
    """Read folders of images; those to train on decide on the classes."""
    train = path / "train"
    part = next((path / name for name in PARTS if (path / name).is_dir()), None)
    if train.is_dir() and part is None:
        refuse(f"--data: {path} has train/, but neither test/ nor val/")
    if not train.is_dir():
        if part is not None:
            refuse(f"--data: {path} has {part.name}/, but no train/")
        return _held_out(_folder(path, size, _classes(path)), path)
    assert part is not None
    names = _classes(train)
    if unknown := sorted(set(_classes(part)) - set(names)):
        known = ", ".join(names)
        refuse(f"--data: {part} has {unknown[0]}, which is no class of {train}: {known}")
    data = _folder(train, size, names)
    _refuse_fewer(data, 1, train)
    test = _folder(part, size, names)
    if not len(test.labels):
        refuse(f"--data: the folders of {part} are empty; images are {_endings()}")
    return data, test


def _classes(path: Path) -> tuple[str, ...]:
    folders = (f.name for f in path.iterdir() if f.is_dir() and not f.name.startswith("."))
    names = tuple(sorted(folders))
    if not names:
        refuse(f"--data: {path} has no images in folders named like their classes")
    return names


def _endings() -> str:
    return ", ".join(sorted(SUFFIXES))


def _refuse_fewer(data: Data, least: int, path: Path) -> None:
    for name, count in data.counts().items():
        if count < least:
            refuse(
                f"--data: {path / name} has {count} images, at least {least} needed ({_endings()})"
            )


def _folder(path: Path, size: int, names: tuple[str, ...]) -> Data:
    """Read what there is of these classes."""
    files = [
        (file, label)
        for label, name in enumerate(names)
        if (path / name).is_dir()
        for file in sorted((path / name).iterdir())
        if file.suffix.lower() in SUFFIXES
    ]
    images = torch.empty(len(files), 3, size, size, dtype=torch.uint8)
    for image, (file, _) in zip(images, files, strict=True):
        image.copy_(_image(file, size))
    return Data(images, torch.tensor([label for _, label in files], dtype=torch.long), names)


def _image(file: Path, size: int) -> Tensor:
    """Return the largest square in the middle of an image, resized; (3, size, size)."""
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
            pixels = np.array(ImageOps.fit(upright, (size, size)))
    except Exception as error:  # a broken file may raise almost anything
        refuse(f"--data: {file} is broken, or no image: {error}")
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _held_out(data: Data, path: Path) -> tuple[Data, Data]:
    """Keep a fifth of every class to test with."""
    _refuse_fewer(data, 2, path)
    order = _shuffled(data)
    rows = [order[data.labels[order] == c] for c in range(len(data.names))]
    test = torch.cat([of_class[: max(1, len(of_class) // 5)] for of_class in rows])
    train = torch.cat([of_class[max(1, len(of_class) // 5) :] for of_class in rows])
    return data.take(train), data.take(test)


def batches(data: Data, size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield an epoch of shuffled batches, the incomplete last one left out."""
    order = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(seed))
    inputs = data.inputs()
    for index in order.split(min(size, len(order)))[: steps(data, size)]:
        yield inputs[index], data.labels[index]


def steps(data: Data, size: int) -> int:
    """Return the number of those batches: at least one, of fewer images if there are not enough."""
    return max(1, len(data.labels) // size)


@torch.no_grad()
def accuracy(model: nn.Module, data: Data, inputs: Callable[[Tensor], Tensor] = scaled) -> float:
    """Return the share of images that the model gets right; it is left in training mode.

    Args:
        model: The classifier.
        data: Images and labels.
        inputs: Makes of images what the model takes.
    """
    model.eval()
    guesses = [model(inputs(part)).argmax(1) for part in data.images.split(32)]
    model.train()
    return (torch.cat(guesses) == data.labels).float().mean().item()
