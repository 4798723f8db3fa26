"""Ctrl-C ends an example with one line and status 130, and saves what there is to save."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import common
from tests.examples.running import EXAMPLES


def test_while_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise KeyboardInterrupt")
    scripts = sorted({path.stem for path in EXAMPLES.glob("*.py")} - {"common", "images"})
    for name in scripts:
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / f"{name}.py")],
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (130, "Interrupted\n"), name


def test_another_exception_shows_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ZeroDivisionError")
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "l1_l2.py")],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")


def test_what_has_been_drawn_is_saved(tmp_path: Path) -> None:
    file = tmp_path / "loss.png"

    def interrupted() -> None:
        with common.picture(file, 2) as (left, _):
            left.plot([1, 2])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as end:
        interrupted()
    assert end.value.args == (f"saved {file}",)
    assert file.read_bytes().startswith(b"\x89PNG")


def test_an_empty_picture_is_not_saved(tmp_path: Path) -> None:
    file = tmp_path / "loss.png"
    with pytest.raises(KeyboardInterrupt) as end, common.picture(file, 1):
        raise KeyboardInterrupt
    assert end.value.args == ()
    assert not file.exists()


def test_the_second_is_not_held() -> None:
    before = signal.getsignal(signal.SIGINT)

    def interrupted_twice() -> None:
        with common.interrupt_held() as came:
            assert not came()
            signal.raise_signal(signal.SIGINT)
            assert came()
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        interrupted_twice()
    assert signal.getsignal(signal.SIGINT) is before
