"""Every example runs, on its own data and on the user's, and shows what it promises."""

from __future__ import annotations

import gzip
import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
IMAGES = ["mlp_schedule", "l1_l2", "augmentation", "transfer"]


def run(name: str, *arguments: object, status: int = 0) -> str:
    """Run an example; return what it printed."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, arguments)],
        env={**os.environ, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "Warning" not in done.stderr
    return done.stdout + done.stderr


def percent(output: str, row: str) -> list[float]:
    """Return the percentages in the row of the table, which is behind the progress bars."""
    lines = [line for line in output.splitlines() if line.strip().startswith(row)]
    return [float(x) for x in re.findall(r"([\d.]+)%", lines[-1])]


def test_every_example_is_tested() -> None:
    scripts = {path.stem for path in EXAMPLES.glob("*.py")} - {"common"}
    assert scripts == {*IMAGES, "char_transformer"}


@pytest.mark.parametrize("name", [*IMAGES, "char_transformer"])
def test_fast(name: str, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    run(name, "--fast", "--picture", picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_schedules_help() -> None:
    output = run("mlp_schedule")
    assert percent(output, "warm-up and cosine")[-1] >= 97.0


def test_l1_leaves_zeros_and_the_accuracy() -> None:
    output = run("l1_l2")
    plain, zeros = percent(output, "neither")
    assert zeros == 0.0
    accuracy, zeros = percent(output, "L1 proximal, L2  ")
    assert zeros >= 50.0
    assert accuracy >= plain - 1.0
    assert percent(output, "L1 gradient, L2  ")[1] < 5.0


def test_augmentation_helps() -> None:
    output = run("augmentation")
    (*_, without), (*_, augmented) = percent(output, "without"), percent(output, "with a")
    assert len(percent(output, "without")) == 6
    assert augmented > without


def test_a_frozen_base_is_enough() -> None:
    output = run("transfer")
    assert percent(output, "base frozen")[0] >= 95.0
    assert percent(output, "gradually unfrozen")[0] >= 95.0


def test_torchvision_is_asked_for() -> None:
    output = run("transfer", "--model", "vgg16", status=1)
    assert "--model vgg16 needs --data" in output


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


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Return a folder with a folder of photographs for every class."""
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for c, name in enumerate(("red", "green", "blue", "dark")):
        (tmp_path / name).mkdir()
        for i in range(50):
            pixels = rng.integers(0, 80, (20, 30, 3), dtype=np.uint8)
            if c < 3:
                pixels[..., c] += 120
            image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
        (tmp_path / name / "notes.txt").write_text("not an image")
    return tmp_path


@pytest.mark.parametrize("name", ["mlp_schedule", "transfer"])
def test_idx_files(name: str, mnist: Path) -> None:
    output = run(name, "--fast", "--data", mnist)
    assert "400 images (1 x 28 x 28) to train on, 100 to test with, 10 classes" in output


@pytest.mark.parametrize("name", ["l1_l2", "augmentation"])
def test_folders_of_images(name: str, folders: Path) -> None:
    output = run(name, "--fast", "--data", folders, "--size", 16)
    assert "160 images (3 x 16 x 16) to train on, 40 to test with, 4 classes" in output


def test_train_and_test_folders(folders: Path, tmp_path: Path) -> None:
    (tmp_path / "split").mkdir()
    for part in ("train", "test"):
        (tmp_path / "split" / part).symlink_to(folders)
    (tmp_path / "split" / "unused").mkdir()
    output = run("mlp_schedule", "--fast", "--data", tmp_path / "split", "--size", 8)
    assert "to train on, " in output


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--data", "/nowhere"], 1, "--data: there is no folder /nowhere"),
        (["--picture", "loss.txt"], 2, "--picture must end in one of"),
        (["--picture", "/nowhere/loss.png"], 2, "--picture: there is no folder /nowhere"),
    ],
)
def test_refused(arguments: list[str], status: int, message: str) -> None:
    assert message in run("mlp_schedule", *arguments, status=status)


def test_empty_folder(tmp_path: Path) -> None:
    assert "has no images" in run("mlp_schedule", "--data", tmp_path, status=1)
