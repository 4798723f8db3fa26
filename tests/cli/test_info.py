from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
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


def test_info_finds_torchs_openmp_runtime() -> None:
    runtime = cli.info()["OpenMP runtime"].partition(", beside it ")[0]
    assert Path(runtime).is_file()
    assert Path(runtime).samefile(_core.openmp_runtime())


def test_info_prints_one_line_for_each_entry(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(cli.info())
    for line, (name, value) in zip(lines, cli.info().items(), strict=True):
        assert line.startswith(name)
        assert line.endswith(value)


def test_info_tells_what_a_bug_report_needs() -> None:
    info = cli.info()
    assert info["numpy"] == np.__version__
    assert info["Python"].startswith(platform.python_version())
    assert platform.release() in info["system"]
    assert info["C library"].split()[0] in ("glibc", "musl", "unknown")
    assert info["processor"]
    assert info["processors"].startswith(f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} ")
    assert info["compiler"] == _core.compiler


def test_info_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == cli.info()


def test_info_shows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith(("ONEPASS_", "OMP_", "GOMP_", "KMP_"))]:
        monkeypatch.delenv(name)
    assert cli.info()["environment"].startswith("none of ONEPASS_*, OMP_*")
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    monkeypatch.setenv("ONEPASS_X", "1")
    monkeypatch.setenv("SECRET_TOKEN", "2")
    assert cli.info()["environment"] == "OMP_WAIT_POLICY=passive, ONEPASS_X=1"


def test_info_tells_which_classes_step_in_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [n for n in onepass.__all__ if hasattr(getattr(onepass, n), "step")]
    assert cli.info()["steps in the kernels"] == ", ".join(names)

    class Sparse(onepass.SGD):
        """Its gradients are not for the kernels."""

        def __init__(self, params: Any) -> None:
            super().__init__(params, lr=0.1)
            params[0].grad = params[0].grad.to_sparse()

    class Broken(onepass.SGD):
        def __init__(self, _: Any) -> None:
            message = "not here"
            raise OSError(message)

    monkeypatch.setattr(onepass, "SGD", Sparse)
    monkeypatch.setattr(onepass, "Adam", Broken)
    parts = cli.info()["steps in the kernels"].split("; ")
    assert "Sparse: torch's own step" in parts
    assert "Broken: OSError: not here" in parts
    assert ", ".join(n for n in names if n not in ("SGD", "Adam")) in parts


def test_info_says_that_the_instruction_set_was_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEPASS_CPU", _core.isa())
    assert cli.info()["instruction set"] == f"{_core.isa()} (ONEPASS_CPU)"
    monkeypatch.delenv("ONEPASS_CPU")
    assert cli.info()["instruction set"] == _core.isa()
