from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread

import onepass
from onepass import cli, demo
from onepass.demo.chapter import Chapter
from onepass.demo.pair import Outcome, Pair
from onepass_cli import CHAPTERS

REACHED = re.compile(
    r"^(?P<title>\S.*?) +(?P<test>[\d.]+)% +(?P<our_test>[\d.]+)% +"
    r"(?P<loss>[\d.]+) +(?P<our_loss>[\d.]+) *(?P<shows>.*)$"
)
TIMES = re.compile(
    r"^(?P<title>\S.*?) +(?P<seconds>[\d.]+) +(?P<our_seconds>[\d.]+) +"
    r"(?P<share>\d+)% +(?P<our_share>\d+)% +(?P<saved>-?[\d.]+) +(?P<percent>-?\d+)%$"
)
COLUMNS = 60


def sections(output: str, row: re.Pattern[str] = REACHED) -> dict[str, dict[str, re.Match[str]]]:
    """Return the rows of a table by the names of chapter and pair."""
    reached, _, times = output.partition("\nseconds  of a training")[0].partition("\ntest     ")
    _, *parts = re.split(r"^─+$", reached if row is REACHED else times, flags=re.MULTILINE)
    lines = [part.strip().splitlines() for part in parts]
    rows = {
        part[0].split()[0]: [match for match in map(row.match, part) if match] for part in lines
    }
    return {name: {match["title"]: match for match in found} for name, found in rows.items()}


def test_demo_ends_well_with_one_table_and_one_picture(tmp_path: Path) -> None:
    """Without a terminal: plain text, one line for every training; the picture in the current directory."""
    command = [sys.executable, "-m", "onepass", "demo", "--fast"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": str(COLUMNS)},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert "\r" not in done.stdout
    assert "…" not in done.stdout  # nothing is cut off
    assert max(map(len, done.stdout.partition("\n\n  ")[2].splitlines())) <= COLUMNS

    found = sections(done.stdout)
    assert list(found) == ["optimizers", "schedule", "l1-l2", "augmentation", "transfer"]
    names = [f"{model} {name}" for model in ("CNN", "MLP") for name in onepass_optimizers()]
    assert sorted(found["optimizers"]) == sorted(names)
    assert [len(rows) for rows in found.values()] == [10, 3, 3, 2, 4]
    for rows in found.values():
        for row in rows.values():
            assert float(row["our_test"]) == pytest.approx(
                float(row["test"]), abs=100 * demo.TOLERANCE
            )
            assert float(row["our_loss"]) == pytest.approx(float(row["loss"]), abs=1e-2)
            assert done.stdout.count(f"\n{row['title']} ") == 3  # a bar and two rows
    times = sections(done.stdout, TIMES)
    assert {name: list(rows) for name, rows in times.items() if name != "all"} == {
        name: list(rows) for name, rows in found.items()
    }
    for rows in times.values():
        for row in rows.values():
            seconds, ours = float(row["seconds"]), float(row["our_seconds"])
            assert float(row["saved"]) == pytest.approx(seconds - ours, abs=0.011)
    every = [row for name, rows in times.items() if name != "all" for row in rows.values()]
    total = times["all"]["all"]
    for name in ("seconds", "our_seconds", "saved"):
        parts = sum(float(row[name]) for row in every)
        assert float(total[name]) == pytest.approx(parts, abs=0.006 * len(every))
    differences = [float(row["shows"]) for row in found["optimizers"].values()]
    assert max(differences) < 1e-3
    assert max(differences) > 0  # two libraries, not one of them twice

    assert [path.name for path in tmp_path.iterdir()] == ["onepass-demo.png"]
    assert imread(tmp_path / "onepass-demo.png").shape[2] == 4


def onepass_optimizers() -> list[str]:
    return [name for name in onepass.__all__ if hasattr(torch.optim, name)]


def test_chosen_chapters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the order of the demo, each once; and torch's threads are as before."""
    threads, picture = torch.get_num_threads(), tmp_path / "two.svg"
    chosen = ["--chapter", "l1-l2", "--chapter", "schedule", "--chapter", "l1-l2"]
    assert cli.main(["demo", "--fast", *chosen, "--picture", str(picture)]) == 0
    assert torch.get_num_threads() == threads
    assert list(sections(capsys.readouterr().out)) == ["schedule", "l1-l2"]
    assert picture.read_text(encoding="utf-8").rstrip().endswith("</svg>")


def test_an_unknown_chapter_is_refused_with_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert tuple(demo.CHAPTERS) == CHAPTERS
    with pytest.raises(SystemExit, match="2"):
        cli.main(["demo", "--chapter", "transfers"])
    message = capsys.readouterr().err.splitlines()[-1]
    assert "transfers" in message
    assert re.search(", ".join(f"'?{name}'?" for name in demo.CHAPTERS), message)


def outcome(accuracy: float) -> Outcome:
    return Outcome([1.0], [[0.1]], 1.0, accuracy, 1.0, 0.5)


@pytest.mark.parametrize(
    ("theirs", "ours", "comparable", "status"),
    [
        (0.95, 0.95, True, 0),
        (0.95, 0.945, True, 0),
        (0.95, 0.9, True, 1),
        (0.9, 0.95, True, 1),
        (0.95, 0.9, False, 0),
    ],
)
def test_accuracies_too_far_apart_are_a_failure(
    theirs: float, ours: float, comparable: bool, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    good = Pair("CNN SGD", outcome(0.9), outcome(0.9), 0.0)
    pair = Pair("CNN Adam", outcome(theirs), outcome(ours), 0.0, "", comparable)
    chapters = [Chapter(name, "", [good, pair], []) for name in ("first", "second")]
    assert demo.verdict(chapters) == status
    lines = capsys.readouterr().err.splitlines()
    assert [line[:32] for line in lines] == status * [
        "onepass demo: first, CNN Adam: t",
        "onepass demo: second, CNN Adam: ",
    ]


@pytest.mark.parametrize("name", ["x.poem", "x", "nowhere/x.png"])
def test_a_picture_that_cannot_be_saved_is_refused_before_the_training(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["demo", "--picture", str(tmp_path / name)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert name in printed.err


@pytest.mark.parametrize("package", ["matplotlib", "rich", "sklearn"])
def test_a_missing_dependency_is_named_with_the_command_that_installs_it(
    package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in [m for m in sys.modules if m.startswith("onepass.demo")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delattr(onepass, "demo")
    for module in [m for m in sys.modules if m.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    assert cli.main(["demo"]) == 2
    command = "pip install matplotlib rich scikit-learn"
    assert capsys.readouterr().err == f"onepass demo: needs {package}: {command}\n"
