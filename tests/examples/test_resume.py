"""A run that was killed or interrupted, and resumed, ends with the same bits as one that was not."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.examples.running import EXAMPLES, here, refusal, run

SCRIPT = EXAMPLES / "char_transformer.py"
FEW = ("--fast", "--batch", "1", "--megabytes", "0.01", "--characters", "1")
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


def test_killed_interrupted_and_resumed(tmp_path: Path) -> None:
    whole, broken, picture = (tmp_path / n for n in ("whole.pt", "broken.pt", "loss.png"))
    run("char_transformer", *SMALL, "--checkpoint", whole)
    reached: list[int] = []
    for end in (signal.SIGKILL, signal.SIGINT):
        resume = ["--resume"] if reached else []
        process = subprocess.Popen(
            [sys.executable, SCRIPT, *SMALL, "--checkpoint", broken, "--picture", picture, *resume],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            wait_for_progress(broken, reached[-1] if reached else 0, process)
            process.send_signal(end)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
        reached.append(len(load(broken)["curves"]["loss"]))
    assert process.returncode == 130
    saved = f"{reached[-1]} of 50 steps, saved {broken}, saved {picture}"
    assert said == f"Interrupted: {saved}\n"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert reached == sorted(set(reached))
    assert reached[-1] < 50
    output = run("char_transformer", *SMALL, "--checkpoint", broken, "--resume")
    assert f"Going on after step {reached[-1]}" in output
    one, other = load(whole), load(broken)
    assert len(one["curves"]["loss"]) == 50
    assert flat(one) == flat(other)


def wait_for_progress(file: Path, step: int, process: subprocess.Popen[str]) -> None:
    """Return some steps after a checkpoint behind `step`, in the midst of the training."""
    for _ in range(2000):
        assert process.poll() is None, "it was done before it could be killed"
        if file.is_file() and len(load(file)["curves"]["loss"]) > step:
            return
        time.sleep(0.02)
    pytest.fail("no checkpoint came")


def test_resuming_needs_a_checkpoint(tmp_path: Path) -> None:
    assert refusal("char_transformer", "--resume") == "--resume needs --checkpoint"
    missing = refusal("char_transformer", "--resume", "--checkpoint", tmp_path / "no.pt")
    assert missing == f"--resume: there is no checkpoint {tmp_path / 'no.pt'}"


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.pt"
    resume = ("char_transformer", "--fast", "--resume", "--checkpoint", file)
    file.write_bytes(b"no checkpoint")
    assert refusal(*resume).startswith(f"--resume: {file} is no checkpoint of a run like this: ")
    torch.save({"model": {}}, file)
    assert "Missing key(s) in state_dict" in refusal(*resume)
    here("char_transformer", *FEW, "--steps", 2, "--checkpoint", file)
    other = refusal("char_transformer", *FEW, "--steps", 1, "--resume", "--checkpoint", file)
    assert "lr of parameter group 0 is Cosine(0.003, 1, " in other
    assert "in the checkpoint Cosine(0.003, 2, " in other
