"""Arguments out of range are refused in one line, with name, value and range, before anything is done."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import pytest

from tests.examples.running import refusal

IN_RANGE = "must be a whole number in [{}, {}], not {}"
MANY = 2**31 - 1


@pytest.mark.parametrize(
    ("name", "option", "value", "message"),
    [
        ("mlp_schedule", "--size", "0", IN_RANGE.format(8, 2048, 0)),
        ("mlp_schedule", "--threads", "0", IN_RANGE.format(1, 1024, 0)),
        ("l1_l2", "--epochs", "0", IN_RANGE.format(1, MANY, 0)),
        ("transfer", "--epochs", "-1", IN_RANGE.format(1, MANY, -1)),
        ("transfer", "--per-class", "-1", IN_RANGE.format(0, MANY, -1)),
        ("augmentation", "--per-class", "0", IN_RANGE.format(1, MANY, 0)),
        ("augmentation", "--seeds", "1", IN_RANGE.format(2, 1000, 1)),
        ("augmentation", "--seed", "-1", IN_RANGE.format(0, 2**32 - 1, -1)),
        ("char_transformer", "--steps", "0", IN_RANGE.format(1, MANY, 0)),
        ("char_transformer", "--steps", "ten", IN_RANGE.format(1, MANY, "ten")),
        ("char_transformer", "--every", "0", IN_RANGE.format(1, MANY, 0)),
        ("char_transformer", "--lr", "0", "must be a number above 0, not 0"),
        ("char_transformer", "--ema", "1.5", "must be a number in [0, 1], not 1.5"),
        ("char_transformer", "--megabytes", "inf", "must be a number above 0, not inf"),
        ("l1_l2", "--l1", "-1", "must be a number of at least 0, not -1"),
        ("l1_l2", "--l2", "much", "must be a number of at least 0, not much"),
        ("mlp_schedule", "--data", "/nowhere", "there is no folder /nowhere"),
        ("mlp_schedule", "--data", __file__, f"there is no folder {__file__}"),
        ("mlp_schedule", "--picture", "/nowhere/loss.png", "there is no folder /nowhere"),
        ("char_transformer", "--checkpoint", "/nowhere/run.pt", "there is no folder /nowhere"),
        ("char_transformer", "--checkpoint", "/", "/ is a folder"),
        ("transfer", "--weights", "no.pth", "there is no file no.pth"),
    ],
)
def test_out_of_range(name: str, option: str, value: str, message: str) -> None:
    assert refusal(name, option, value) == f"argument {option}: {message}"


def test_picture_of_no_format() -> None:
    said = refusal("mlp_schedule", "--picture", "loss.txt")
    assert re.fullmatch(
        r"argument --picture: must end in one of .*\bpng, .*svg.*, not loss.txt", said
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "none"], "--weights none needs a --model of torchvision, not cnn"),
        (["--size", "32"], "--size is for --data with a folder of images for every class"),
        (
            ["--model", "vgg16"],
            "--model vgg16 needs --data with a folder of images for every class, not digits",
        ),
    ],
)
def test_what_does_not_go_together(arguments: list[str], message: str) -> None:
    assert refusal("transfer", *arguments) == message


def test_models_of_torchvision_need_photographs(folders: Path, mnist: Path) -> None:
    said = refusal("transfer", "--model", "resnet18", "--data", mnist)
    assert said.endswith(f"needs --data with a folder of images for every class, not {mnist}")
    said = refusal("transfer", "--model", "vgg16", "--data", folders, "--size", 32)
    assert said == "--size must be at least 64 with --model vgg16, not 32"


@pytest.mark.parametrize(
    ("given", "epochs"), [([], 30), (["--fast"], 3), (["--epochs", "1", "--fast"], 1)]
)
def test_fast_changes_defaults(
    given: list[str], epochs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import common
    import images

    monkeypatch.setattr(sys, "argv", ["example.py", "--size", "8", *given])
    assert common.parse(images.parser("", epochs=30), epochs=3) == argparse.Namespace(
        data=None,
        size=8,
        epochs=epochs,
        fast="--fast" in given,
        picture=None,
        seed=0,
        threads=1,
    )


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("mlp_schedule", "rich", "demo"), ("reinforcement", "gymnasium", "rl")],
)
def test_a_missing_package(
    name: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("common", "images"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    said = refusal(name)
    assert package in said
    assert said.endswith(
        f"; needs pip install -c constraints.txt '.[{extra}]' in the clone of onepass"
    )
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert f"\n{extra} = [" in project
