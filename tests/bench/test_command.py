"""The command, its files, and what it says when something is missing."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from onepass.bench import report, session
from onepass.bench.cases import DTYPES, OPTIMIZERS, OPTIONS
from onepass.bench.files import replaced
from onepass.bench.models import MODELS
from onepass.bench.peers import PEERS
from onepass_cli import bench as names
from onepass_cli import main

FAST = ["--models", "policy", "--rounds", "3", "--turn", "1e-5", "--threads", "1"]


def files(folder: Path) -> list[str]:
    return [
        "--json",
        str(folder / "b.json"),
        "--picture",
        str(folder / "b.png"),
        "--table",
        str(folder / "b.md"),
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small measurement, with all its files."""
    where = tmp_path_factory.mktemp("bench")
    peers = ["--peers", "torch,torch-fused"]
    assert main(["bench", *FAST, "--optimizers", "rmsprop,adamw", *peers, *files(where)]) == 0
    return where


@pytest.fixture
def document(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "b.json").read_text())
    return loaded


def test_json_holds_what_a_reader_needs(document: dict[str, Any]) -> None:
    assert set(document) == {
        *(
            "schema",
            "command",
            "date",
            "machine",
            "versions",
            "method",
            "counted",
            "cases",
            "left_out",
            "interrupted",
        )
    }
    assert document["method"]["processes"] == "one for each case"
    assert document["schema"] == 1
    assert {"processor", "processors", "caches", "instruction_set", "load_before"} <= set(
        document["machine"]
    )
    assert {"onepass", "torch", "python", "numpy"} <= set(document["versions"])
    assert [case["optimizer"] for case in document["cases"]] == ["RMSprop", "AdamW"]
    case = document["cases"][1]
    assert (case["model"], case["tensors"], case["parameters"]) == ("policy", 13, 11_085)
    assert (case["threads"], case["dtype"], case["bytes_per_parameter"]) == (1, "float32", 28)
    assert case["others"] is None  # it took too little time
    results = report.results(case)
    assert list(results) == ["onepass", "limit", "floor", "torch", "torch-fused"]
    for result in results.values():
        assert set(result["seconds"]) == set(result["ratio"]) == {"median", "low", "high"}
        assert len(result["rounds"]) == 3
    ours = results["onepass"]
    assert ours["ratio"]["median"] == 1.0
    per_second = case["bytes_per_parameter"] * case["parameters"] / ours["seconds"]["median"]
    assert ours["gigabytes_per_second"] == pytest.approx(per_second / 1e9)
    assert report.results(document["cases"][0])["torch-fused"]["status"] == "not offered"


def test_picture_and_table_are_written(folder: Path) -> None:
    assert (folder / "b.png").read_bytes().startswith(b"\x89PNG")
    text = (folder / "b.md").read_text()
    assert "| RL policy | AdamW |" in text


def test_table_and_picture_can_be_made_again(folder: Path, tmp_path: Path) -> None:
    assert main(["bench", "--load", str(folder / "b.json"), *files(tmp_path)]) == 0
    assert (tmp_path / "b.md").read_text() == (folder / "b.md").read_text()
    assert (tmp_path / "b.png").exists()
    assert not (tmp_path / "b.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "vgg"], "--models: unknown name 'vgg'; there are policy"),
        (["--optimizers", "lion"], "--optimizers: unknown name 'lion'"),
        (["--threads", "two"], "--threads: whole numbers"),
        (["--threads", "0"], "--threads: must be above 0"),
        (["--rounds", "0"], "--rounds: must be above 0, got 0"),
        (["--rounds", "2.5"], "--rounds: must be a whole number, got '2.5'"),
        (["--turn", "inf"], "--turn: must be above 0, got inf"),
        (["--peers", ","], "--peers: unknown name ''"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["bench", *arguments])
    assert message in capsys.readouterr().err


def test_missing_packages_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert main(["bench", *FAST]) == 2
    assert capsys.readouterr().err.endswith("pip install rich matplotlib\n")


def test_names_of_the_parser_are_those_that_there_are() -> None:
    assert tuple(MODELS) == names.MODELS
    assert tuple(OPTIMIZERS) == names.OPTIMIZERS
    assert tuple(OPTIONS) == names.OPTIONS
    assert tuple(PEERS) == names.PEERS
    assert tuple(DTYPES) == names.DTYPES
    assert set(names.OPTIONAL) < set(MODELS)


@pytest.mark.parametrize(
    ("option", "file", "message"),
    [
        ("--picture", "x.foo", "jpg, pdf, png, ps, svg, svgz, tif"),
        ("--picture", "x", "must be one of"),
        ("--picture", "nowhere/x.png", "there is no directory"),
        ("--json", "nowhere/x.json", "there is no directory"),
        ("--table", "nowhere/x.md", "there is no directory"),
        ("--table", "folder", "cannot be written"),
        ("--json", "folder", "cannot be written"),
        ("--table", "b.json", "is the file of --table, too"),
    ],
)
def test_files_are_checked_before_anything_is_measured(
    option: str,
    file: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(session, "run", lambda *_, **__: pytest.fail("measured"))
    (tmp_path / "folder").mkdir()
    assert main(["bench", *FAST, *files(tmp_path), option, str(tmp_path / file)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("onepass bench: --")
    assert file in error
    assert message in error
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file or directory"),
        ("", "no results file of onepass bench (no JSON"),
        ("[]", "(it names no schema)"),
        ('{"version": 1}', "(it names no schema)"),
        ('{"schema": 2}', "(its schema is 2, not 1)"),
        ('{"schema": 1, "machine": {}, "versions": {}, "method": {}}', "(it has no cases)"),
        (
            '{"schema": 1, "machine": {}, "versions": {}, "method": {}, "cases": [{}], "left_out": []}',
            "(case 0 has no title)",
        ),
    ],
)
def test_what_is_no_results_file_is_refused(
    text: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "r.json"
    if text is not None:
        file.write_text(text)
    assert main(["bench", "--load", str(file), *files(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"onepass bench: --load {file}: ")
    assert message in error
    assert not (tmp_path / "b.png").exists()


def test_results_are_not_written_over_by_what_is_made_from_them(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = folder / "b.json"
    before = recorded.read_text()
    table = ["--picture", str(tmp_path / "x.png"), "--table", str(recorded)]
    assert main(["bench", "--load", str(recorded), *table]) == 2
    assert "is the file of --load, too" in capsys.readouterr().err
    assert recorded.read_text() == before


def test_a_part_of_what_was_measured(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loading = ["bench", "--load", str(folder / "b.json"), *files(tmp_path)]
    assert main([*loading, "--optimizers", "adamw", "--peers", "torch"]) == 0
    text = (tmp_path / "b.md").read_text()
    assert "| AdamW |" in text
    assert "RMSprop" not in text
    assert "torch fused" not in text
    capsys.readouterr()
    assert main([*loading, "--models", "gpt2"]) == 2
    assert "no case in it is of the models" in capsys.readouterr().err


def test_an_interrupt_saves_what_is_there_and_says_so(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recorded = folder / "b.json"

    def run(_: object, save: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(recorded.read_text()) | {"interrupted": True}
        del found["cases"][1:]
        save(found)
        return found

    monkeypatch.setattr(session, "run", run)
    arguments = ["bench", *FAST, "--optimizers", "rmsprop,adamw", *files(tmp_path)]
    assert main(arguments) == 130
    printed = capsys.readouterr()
    assert printed.out == ""
    file = tmp_path / "b.json"
    assert printed.err == (
        f"onepass bench: interrupted after 1 of 2 cases, which are in {file} (--load {file} shows them)\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["b.json"]
    assert main(["bench", "--load", str(file), *files(tmp_path)]) == 0
    assert "The measurement was interrupted" in (tmp_path / "b.md").read_text()


def test_an_interrupted_process_leaves_no_traceback(tmp_path: Path) -> None:
    """Ctrl-C in a terminal goes to all of its processes: to the one that measures a case, too."""
    command = [
        sys.executable,
        "-m",
        "onepass",
        "bench",
        *FAST,
        "--peers",
        "torch",
        *files(tmp_path),
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        give_up = time.monotonic() + 120
        while not (tmp_path / "b.json").exists() and time.monotonic() < give_up:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    measured = len(json.loads((tmp_path / "b.json").read_text())["cases"])
    assert 1 <= measured < 7
    assert errors.startswith(f"onepass bench: interrupted after {measured} of 7 cases")
    assert len(errors.splitlines()) == 1
    assert output.strip() == ""
    assert process.returncode == 130


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_text("old")
    with suppress(KeyboardInterrupt), replaced(file) as beside:
        beside.write_text("ne")
        raise KeyboardInterrupt
    assert file.read_text() == "old"
    with replaced(file) as beside:
        beside.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.5, "2.5 s"), (0.0123, "12.3 ms"), (4e-6, "4 us"), (2e-8, "20 ns")]
)
def test_duration(seconds: float, text: str) -> None:
    assert report.duration(seconds) == text


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_no_cuda_device(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--device", "cuda"]) == 2
    assert "no CUDA device" in capsys.readouterr().err


def test_peers_by_device() -> None:
    from onepass.bench.peers import installed_peers

    assert "torch-fused" in [peer.name for peer in installed_peers(device="cuda")]
    assert "deepspeed" not in [peer.name for peer in installed_peers(device="cuda")]
    assert "apex" not in [peer.name for peer in installed_peers(device="cpu")]
