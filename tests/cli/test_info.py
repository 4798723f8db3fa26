from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import onepass
from onepass import _core, cli
from onepass.device import extension
from onepass.reader import READER


def test_info_tells_versions_and_how_a_step_runs() -> None:
    info = cli.info()
    assert info["onepass"] == onepass.__version__
    assert info["torch"] == torch.__version__
    assert info["instruction set"].split()[0] in info["instruction sets available"].split(", ")
    assert info["threads"] == str(torch.get_num_threads())
    assert info["tensors read through"].startswith("libtorch") == (READER.way != "dlpack")
    assert ("not in the fastest way" in info["tensors read through"]) == (READER.way != "native")
    assert info["CUDA"].startswith(
        "not built in" if extension.cuda_module() is None else "built for "
    )
    assert all(info.values())


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_info_finds_the_openmp_runtime() -> None:
    runtimes = cli.info()["OpenMP runtime"].split(", ")
    assert all(Path(path).is_absolute() for path in runtimes)


def test_info_prints_one_line_for_each_entry(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(cli.info())
    for line, (name, value) in zip(lines, cli.info().items(), strict=True):
        assert line.startswith(name)
        assert line.endswith(value)


def test_info_says_that_the_instruction_set_was_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEPASS_CPU", _core.isa())
    assert cli.info()["instruction set"] == f"{_core.isa()} (ONEPASS_CPU)"
    monkeypatch.delenv("ONEPASS_CPU")
    assert cli.info()["instruction set"] == _core.isa()
