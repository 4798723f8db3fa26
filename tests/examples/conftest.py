"""Examples can be imported as modules; data of a user."""

from __future__ import annotations

import gzip
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.examples.running import EXAMPLES

sys.path.insert(0, str(EXAMPLES))

COLOURS = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200), "dark": (0, 0, 0)}


@pytest.fixture(autouse=True)
def _own_hook() -> Iterator[None]:
    """Take back how exceptions end the process, which the examples set when they are imported."""
    hook = sys.excepthook
    yield
    sys.excepthook = hook


def write_idx(file: Path, values: np.ndarray[Any, Any]) -> None:
    header = struct.pack(">BBBB", 0, 0, 8, values.ndim) + struct.pack(
        f">{values.ndim}i", *values.shape
    )
    raw = header + values.astype(np.uint8).tobytes()
    file.write_bytes(gzip.compress(raw) if file.suffix == ".gz" else raw)


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """Return a folder like MNIST's: one part packed, one not; a bright row says which digit."""
    rng = np.random.default_rng(0)
    for kind, count, ending in (("train", 400, ".gz"), ("t10k", 100, "")):
        labels = np.arange(count) % 10
        images = rng.integers(0, 60, (count, 28, 28))
        for image, label in zip(images, labels, strict=True):
            image[2 * label + 2 : 2 * label + 4] += 150
        write_idx(tmp_path / f"{kind}-images-idx3-ubyte{ending}", images)
        write_idx(tmp_path / f"{kind}-labels-idx1-ubyte{ending}", labels)
    return tmp_path


def write_images(folder: Path, **counts: int) -> Path:
    """Write so many photographs for each class, which is a colour; noise tells them apart."""
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 50, (20, 30, 3)) + COLOURS[name]
            image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{i}.png")
        (folder / name / "notes.txt").write_text("not an image")
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Return a folder with a folder of photographs for every class."""
    return write_images(tmp_path / "photographs", red=50, green=50, blue=50, dark=50)
