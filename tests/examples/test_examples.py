"""Every example runs, on its own data and on the user's, and shows what it promises."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.examples.conftest import write_images
from tests.examples.running import EXAMPLES, here, run

IMAGES = ["mlp_schedule", "l1_l2", "augmentation", "transfer"]


def percent(output: str, row: str) -> list[float]:
    """Return the percentages in the row of the table, which is behind the progress bars."""
    lines = [line for line in output.splitlines() if line.strip().startswith(row)]
    return [float(x) for x in re.findall(r"([\d.]+)%", lines[-1])]


def test_every_example_is_tested() -> None:
    scripts = {path.stem for path in EXAMPLES.glob("*.py")} - {"common", "images"}
    assert scripts == {*IMAGES, "char_transformer", "reinforcement"}


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


@pytest.mark.parametrize("name", ["mlp_schedule", "transfer"])
def test_idx_files(name: str, mnist: Path) -> None:
    output = here(name, "--fast", "--epochs", 1, "--data", mnist)
    assert "400 images (1 x 28 x 28) to train on, 100 to test with, 10 classes" in output


@pytest.mark.parametrize("name", ["l1_l2", "augmentation"])
def test_folders_of_images(name: str, folders: Path) -> None:
    output = here(name, "--fast", "--epochs", 1, "--data", folders, "--size", 16)
    assert "160 images (3 x 16 x 16) to train on, 40 to test with, 4 classes" in output


def test_train_and_test_folders(tmp_path: Path) -> None:
    write_images(tmp_path / "train", red=3, green=4)
    write_images(tmp_path / "test", red=1, green=2)
    (tmp_path / "unused").mkdir()
    output = here("mlp_schedule", "--fast", "--data", tmp_path, "--size", 8)
    assert "7 images (3 x 8 x 8) to train on, 3 to test with, 2 classes" in output


def test_what_is_given_beside_fast_is_taken() -> None:
    output = here("char_transformer", "--fast", "--steps", 2, "--batch", 1, "--characters", 3)
    assert " 2/2 " in output
