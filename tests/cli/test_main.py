from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import onepass
from onepass import cli

ROOT = Path(__file__).parents[2]


def test_version_of_the_module() -> None:
    command = [sys.executable, "-m", "onepass", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"onepass {onepass.__version__}\n"


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    text = capsys.readouterr().out
    assert all(f"\n    {command} " in text for command in ("demo", "bench", "info"))


@pytest.mark.parametrize("argv", [[], ["dance"], ["info", "--seed", "1"], ["demo", "--seed", "-1"]])
def test_wrong_arguments_exit_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(argv)
    assert "error: " in capsys.readouterr().err


WITHOUT_TORCH = """
import sys
from onepass_cli import main
try:
    status = main({argv!r})
except SystemExit as stopped:
    status = stopped.code
print("status", status, sorted({{"torch", "onepass"}} & sys.modules.keys()))
"""


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("--help", 0),
        ("--version", 0),
        ("bench --help", 0),
        ("demo --help", 0),
        ("info --help", 0),
        ("dance", 2),
        ("demo --chapter transfers", 2),
        ("bench --models vgg", 2),
        ("demo --picture x.poem", 2),
        ("bench --picture x.poem", 2),
        ("bench --load nowhere.json", 2),
    ],
)
def test_answers_that_do_not_need_torch_do_not_wait_for_it(words: str, status: int) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH.format(argv=words.split())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"status {status} []"
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="no source beside the tests")
def test_the_command_that_is_installed_is_the_one_without_torch() -> None:
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    assert 'onepass = "onepass_cli:main"' in lines
    assert 'wheel.packages = ["python/onepass", "python/onepass_cli"]' in lines


INTERRUPTED = """
import os, signal, sys
from importlib.abc import MetaPathFinder
from onepass_cli import main

class Interrupt(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
sys.exit(main(["info"]))
"""


def test_an_interrupt_while_torch_is_imported_leaves_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "onepass info: interrupted\n"


def test_an_interrupt_of_the_demo_saves_the_chapters_that_were_finished(tmp_path: Path) -> None:
    command = [sys.executable, "-u", "-m", "onepass", "demo", "--fast", "--chapter", "schedule"]
    command += ["--chapter", "l1-l2"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("l1-l2:"):
                os.kill(process.pid, signal.SIGINT)
                break
        output, errors = process.communicate()
    assert process.returncode == 130
    assert (
        errors == "onepass demo: interrupted, onepass-demo.png shows what was finished: schedule\n"
    )
    assert "warm-up, cosine" in output
    assert [path.name for path in tmp_path.iterdir()] == ["onepass-demo.png"]


def test_an_interrupt_of_the_first_chapter_of_the_demo_saves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from onepass import demo

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "CHAPTERS", {"optimizers": interrupt})
    picture = tmp_path / "x.png"
    assert cli.main(["demo", "--picture", str(picture)]) == 130
    assert "interrupted before the first chapter" in capsys.readouterr().err
    assert not picture.exists()
