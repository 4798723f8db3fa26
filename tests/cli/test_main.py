from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest

import onepass
from onepass import cli


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


def test_bench_gets_its_arguments_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def main(argv: list[str]) -> int:
        seen.append(argv)
        return 3

    bench = ModuleType("onepass.bench")
    bench.main = main  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "onepass.bench", bench)
    assert cli.main(["bench", "--help", "--", "--version", "x"]) == 3
    assert seen == [["--help", "--", "--version", "x"]]
