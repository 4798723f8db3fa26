"""A run that was killed and resumed ends with the same bits as one that was not."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.examples.test_examples import EXAMPLES, run

SCRIPT = EXAMPLES / "char_transformer.py"
SMALL = ("--steps", "50", "--batch", "4", "--megabytes", "0.2", "--every", "3")


def flat(value: Any) -> list[Any]:
    """Return the leaves of a checkpoint, tensors as bytes."""
    if isinstance(value, dict):
        return [x for key in sorted(value, key=str) for x in (key, *flat(value[key]))]
    if isinstance(value, list | tuple):
        return [x for item in value for x in flat(item)]
    return [value.numpy().tobytes()] if isinstance(value, torch.Tensor) else [value]


def load(file: Path) -> dict[str, Any]:
    saved: dict[str, Any] = torch.load(file, weights_only=True)
    return saved


def test_killed_and_resumed(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole.pt", tmp_path / "broken.pt"
    run("char_transformer", *SMALL, "--checkpoint", whole)
    reached: list[int] = []
    for number in range(2):
        resume = ["--resume"] if number else []
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT), *SMALL, "--checkpoint", str(broken), *resume],
            stdout=subprocess.DEVNULL,
        )
        try:
            wait_for_progress(broken, reached[-1] if reached else 0, process)
        finally:
            process.kill()
            process.wait()
        reached.append(len(load(broken)["curves"]["loss"]))
    assert reached == sorted(set(reached))
    assert reached[-1] < 50
    output = run("char_transformer", *SMALL, "--checkpoint", broken, "--resume")
    assert f"Going on after step {reached[-1]}" in output
    one, other = load(whole), load(broken)
    assert len(one["curves"]["loss"]) == 50
    assert flat(one) == flat(other)


def wait_for_progress(file: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    """Return some steps after a checkpoint behind `step`, in the midst of the training."""
    for _ in range(2000):
        assert process.poll() is None, "it was done before it could be killed"
        if file.is_file() and len(load(file)["curves"]["loss"]) > step:
            return
        time.sleep(0.02)
    pytest.fail("no checkpoint came")


def test_resuming_needs_a_checkpoint(tmp_path: Path) -> None:
    assert "--resume needs --checkpoint" in run("char_transformer", "--resume", status=2)
    output = run("char_transformer", "--resume", "--checkpoint", tmp_path / "no.pt", status=2)
    assert "there is no checkpoint" in output
