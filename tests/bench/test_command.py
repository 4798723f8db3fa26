"""The command, its files, and what it says when something is missing."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from onepass import bench
from onepass.bench import report
from onepass.bench.peers import PEERS

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
    assert bench.main([*FAST, "--optimizers", "rmsprop,adamw", *peers, *files(where)]) == 0
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
    assert "geometric mean of 2 pairs" in text


def test_table_and_picture_can_be_made_again(folder: Path, tmp_path: Path) -> None:
    assert bench.main(["--load", str(folder / "b.json"), *files(tmp_path)]) == 0
    assert (tmp_path / "b.md").read_text() == (folder / "b.md").read_text()
    assert (tmp_path / "b.png").exists()
    assert not (tmp_path / "b.json").exists()


def test_only_right_results_are_the_best(document: dict[str, Any]) -> None:
    case = document["cases"][1]
    results = report.results(case)
    results["torch"]["ratio"]["median"], results["torch-fused"]["ratio"]["median"] = 3.0, 0.5
    assert report.best(case, PEERS) == 0.5
    results["torch-fused"]["status"] = "differs"
    results["torch-fused"]["detail"] = "by much"
    assert report.best(case, PEERS) == 3.0
    headings, rows = report.table(document)
    assert "differs" in rows[1][headings.index("torch fused")]
    assert any("torch-fused differs: by much" in note for note in report.notes(document))


def test_a_busy_machine_is_told(document: dict[str, Any]) -> None:
    document["machine"] |= {"load_before": 5.0, "processors": 2}
    assert any("busy" in note for note in report.notes(document))
    document["machine"]["load_before"] = 0.0
    assert not any("busy" in note for note in report.notes(document))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "vgg"], "--models: unknown name 'vgg'; there are policy"),
        (["--optimizers", "lion"], "--optimizers: unknown name 'lion'"),
        (["--threads", "two"], "--threads: whole numbers"),
        (["--threads", "0"], "--threads: must be above 0"),
        (["--rounds", "0"], "--rounds: must be above 0, got 0"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        bench.main(arguments)
    assert message in capsys.readouterr().err


def test_missing_packages_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert bench.main(FAST) == 2
    assert capsys.readouterr().err.endswith("pip install rich matplotlib\n")


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.5, "2.5 s"), (0.0123, "12.3 ms"), (4e-6, "4 us"), (2e-8, "20 ns")]
)
def test_duration(seconds: float, text: str) -> None:
    assert report.duration(seconds) == text


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_no_cuda_device(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        bench.main(["--device", "cuda"])
    assert stopped.value.code == 2
    assert "no CUDA device" in capsys.readouterr().err


def test_peers_by_device() -> None:
    from onepass.bench.peers import installed_peers

    assert "torch-fused" in [peer.name for peer in installed_peers(device="cuda")]
    assert "deepspeed" not in [peer.name for peer in installed_peers(device="cuda")]
    assert "apex" not in [peer.name for peer in installed_peers(device="cpu")]
