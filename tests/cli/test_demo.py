from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread

import onepass
from onepass import cli, demo
from onepass.demo import digits, models
from onepass.demo.optimizers import ARGUMENTS
from onepass.demo.pair import Outcome, Pair, train_pair

ROW = re.compile(
    r"(?P<model>CNN|MLP) (?P<optimizer>\w+) +(?P<test>\S+)% +(?P<our_test>\S+)% +"
    r"(?P<loss>\S+) +(?P<our_loss>\S+) +\d+% +\d+% +(?P<difference>\S+)"
)


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_demo_ends_well_with_a_table_and_a_picture(tmp_path: Path) -> None:
    """Without a terminal: plain text, one line for every training; the picture in the current directory."""
    command = [sys.executable, "-m", "onepass", "demo", "--fast"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert "\r" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80

    rows = [match for match in map(ROW.search, done.stdout.splitlines()) if match]
    names = [(row["model"], row["optimizer"]) for row in rows]
    assert sorted(names) == [(m, o) for m in ("CNN", "MLP") for o in sorted(onepass_optimizers())]
    for row in rows:
        assert float(row["our_test"]) == pytest.approx(float(row["test"]), abs=100 * demo.TOLERANCE)
        assert float(row["our_loss"]) == pytest.approx(float(row["loss"]), abs=1e-3)
        assert float(row["difference"]) < 1e-3
    assert any(float(row["difference"]) > 0 for row in rows)  # two libraries, not one of them twice

    picture = tmp_path / "onepass-demo.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert imread(picture).shape[2] == 4


def onepass_optimizers() -> list[str]:
    return [name for name in onepass.__all__ if hasattr(torch.optim, name)]


@pytest.mark.usefixtures("one_thread")
def test_one_seed_gives_one_result() -> None:
    def outcome(seed: int) -> tuple[Outcome, float]:
        data = digits.load(seed)
        pair = train_pair(
            "MLP",
            models.build("MLP", seed),
            (torch.optim.AdamW, onepass.AdamW),
            ARGUMENTS["AdamW"],
            islice(data[0].batches(64, 1, seed), 10),
            data,
            lambda *_: None,
        )
        return pair.onepass._replace(step_share=0.0), pair.difference

    assert outcome(3) == outcome(3)
    assert outcome(3) != outcome(4)


def test_the_split_keeps_every_image_once() -> None:
    train, test = digits.load(0)
    assert len(train.labels) + len(test.labels) == 1797
    assert len(torch.unique(torch.cat([train.images, test.images]), dim=0)) == 1797


@pytest.mark.parametrize(
    ("theirs", "ours", "status"), [(0.95, 0.95, 0), (0.95, 0.945, 0), (0.95, 0.9, 1)]
)
def test_accuracies_too_far_apart_are_a_failure(
    theirs: float, ours: float, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    torch_side, our_side = (Outcome([1.0], 1.0, accuracy, 0.5) for accuracy in (theirs, ours))
    assert demo.verdict([Pair("CNN", 1, "Adam", torch_side, our_side, 0.0)]) == status
    assert ("CNN with Adam" in capsys.readouterr().err) == bool(status)


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
    assert capsys.readouterr().err == f"onepass demo needs {package}: pip install 'onepass[demo]'\n"
