"""How the tests run an example: in a process of its own, or in this one, which does not import torch again."""

from __future__ import annotations

import contextlib
import io
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: object, status: int = 0) -> str:
    """Run an example in a process; return what it printed."""
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


def here(name: str, *arguments: object) -> str:
    """Run an example in this process; return what it printed, line breaks as spaces."""
    status, output, errors = _here(name, *arguments)
    assert (status, errors) == (0, "")
    return " ".join(output.split())


def refusal(name: str, *arguments: object) -> str:
    """Run an example in this process that has to end with status 2; return the one line that says why."""
    status, _, errors = _here(name, *arguments)
    assert status == 2, errors
    *usage, last = errors.splitlines()
    assert not usage or usage[0].startswith("usage: "), errors
    beginning = f"{name}.py: error: "
    assert last.startswith(beginning), errors
    return last.removeprefix(beginning)


def _here(name: str, *arguments: object) -> tuple[object, str, str]:
    output, errors = io.StringIO(), io.StringIO()
    status: object = 0
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        patch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        try:
            runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        except SystemExit as end:
            status = end.code
    return status, output.getvalue(), errors.getvalue()
