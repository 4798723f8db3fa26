"""What table, notes and picture say of results that are known."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from onepass.bench import picture, report, screen
from onepass.bench.peers import PEERS
from onepass_cli import checks

RECORD = Path(__file__).parents[2] / "benchmarks" / "results" / "steps.json"

pytestmark = pytest.mark.skipif(not RECORD.exists(), reason="no record beside the tests")


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    return checks.results(RECORD)


@pytest.fixture
def document(record: dict[str, Any]) -> dict[str, Any]:
    """AdamW on two models, of a quiet machine."""
    return copy.deepcopy(
        report.selected(record, models=["policy", "gpt2"], optimizers=["AdamW", "RMSprop"])
    )


def ratio_of(document: dict[str, Any], name: str, case: int = -1) -> dict[str, float]:
    ratio: dict[str, float] = report.results(document["cases"][case])[name]["ratio"]
    return ratio


def best(document: dict[str, Any], case: int) -> float | None:
    ratio = report.best(document["cases"][case], PEERS)
    return None if ratio is None else float(ratio["median"])


def test_only_right_results_are_the_best(document: dict[str, Any]) -> None:
    assert best(document, -1) == ratio_of(document, "deepspeed")["median"]
    deepspeed = report.results(document["cases"][-1])["deepspeed"]
    deepspeed |= {"status": "differs", "detail": "by much"}
    assert best(document, -1) == ratio_of(document, "torch-fused")["median"]
    headings, rows = report.table(document)
    assert "differs" in rows[-1][headings.index("deepspeed")]
    assert "deepspeed differs: by much (GPT-2 small / AdamW)" in report.notes(document)


def test_the_mean_comes_with_that_of_the_quartiles(document: dict[str, Any]) -> None:
    for case in document["cases"]:
        for result in case["results"]:
            if "ratio" in result:
                result["ratio"] |= {"low": 1.9, "median": 2.0, "high": 2.2}
    notes = report.notes(document)
    assert notes[1] == (
        "Against the best peer: 2.00 times as fast (geometric mean of 4 pairs; of their quartiles 1.90 to 2.20), "
        "slower in 0."
    )


@pytest.mark.parametrize(("high", "wide"), [(1.49, False), (1.51, True)])
def test_no_mean_where_the_rounds_of_a_pair_differ(
    high: float, wide: bool, document: dict[str, Any]
) -> None:
    """The best peer of torch's ways is unsteady here, that of all is not."""
    ratio_of(document, "torch-fused").update(low=1.0, median=1.0, high=high)
    ratio_of(document, "deepspeed").update(low=0.9, median=0.9, high=0.9)
    torch, everyone = report.notes(document)[:2]
    assert ("times as fast" in torch) == (not wide)
    assert ("1 of 4 pairs" in torch and "(GPT-2 small / AdamW)" in torch) == wide
    assert "times as fast" in everyone


def test_the_best_peer_is_doubtful_where_its_rounds_differ(document: dict[str, Any]) -> None:
    assert report.table(document)[1][-1][-1] == "1.16"
    assert not any(note.startswith("?") for note in report.notes(document))
    ratio_of(document, "deepspeed").update(low=1.0, high=2.0)
    assert report.table(document)[1][-1][-1] == "1.16?"
    assert any(note.startswith("?: ") for note in report.notes(document))


@pytest.mark.parametrize(
    ("load", "processors", "busy"),
    [(0.5, 2, False), (0.51, 2, True), (7.0, 2, True), (7.0, 32, False), (None, 2, False)],
)
def test_no_mean_of_a_busy_machine(
    load: float | None, processors: int, busy: bool, document: dict[str, Any]
) -> None:
    """Threads that wait for a processor are slow in all rounds alike: quartiles do not tell."""
    document["machine"] |= {"load_before": load, "processors": processors}
    text = "\n".join(report.notes(document))
    assert ("times as fast" in text) == (not busy)
    assert (f"machine was busy (load {load} on {processors} processors" in text) == busy


@pytest.mark.parametrize(("others", "busy"), [(0.5, False), (0.51, True), (None, False)])
def test_no_mean_of_a_machine_that_became_busy(
    others: float | None, busy: bool, document: dict[str, Any]
) -> None:
    document["cases"][1]["others"] = others
    text = "\n".join(report.notes(document))
    assert ("times as fast" in text) == (not busy)
    assert ("took up to 0.51 of 2 processors in 1 of 4 cases" in text) == busy


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
def test_the_screen_cuts_nothing_off(
    columns: int,
    record: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    screen.show(record)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    text = "\n".join(lines)
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    _, rows = report.table(record)
    shown = [line.strip() for line in lines]
    for row in rows:
        for cell in row[2:]:
            assert cell == "" or cell in text, cell
    quartiles = f"{report.number(1.12)} ({report.number(1.10)} to {report.number(1.16)})"
    assert any(quartiles in line for line in shown)  # in one line


def test_the_screen_is_a_table_where_there_is_room(
    document: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    screen.show(document)
    _, rows = report.table(document)
    lines = capsys.readouterr().out.splitlines()
    for row in rows:
        assert any(all(cell in line for cell in row) for line in lines)


def panels(document: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Figure:
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: figures.append(self))
    picture.draw(document, Path("x.png"), ".png")
    return figures[0]


def test_bars_are_the_medians_of_the_ratios(
    document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = panels(document, monkeypatch)
    assert [axes.get_title("left") for axes in figure.axes] == ["RMSprop", "AdamW"]
    for axes, optimizer in zip(figure.axes, ("RMSprop", "AdamW"), strict=True):
        cases = [case for case in document["cases"] if case["optimizer"] == optimizer]
        ratios = [
            result["ratio"]["median"]
            for case in cases
            for result in case["results"]
            if result["name"] in PEERS and "ratio" in result
        ]
        ends = [bar.get_x() + bar.get_width() for bar in axes.patches]  # type: ignore[attr-defined]
        assert ends == pytest.approx(ratios)
        assert {bar.get_x() for bar in axes.patches} == {1}  # type: ignore[attr-defined]
        labels = [text.get_text() for text in axes.texts]
        assert labels == [f"{report.number(ratio)}\N{MULTIPLICATION SIGN}" for ratio in ratios]
        ticks = [label.get_text() for label in axes.get_xticklabels()]
        assert ticks == ["1", "2", "5", "10", "20", "50"]


@pytest.mark.parametrize(
    ("optimizers", "peers", "slower"),
    [(None, None, 1), (["AdamW"], None, 1), (["Adam", "AdamW"], ["torch"], 5000)],
)
def test_no_text_of_the_picture_is_over_another_one_or_cut_off(
    optimizers: list[str] | None,
    peers: list[str] | None,
    slower: int,
    record: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = copy.deepcopy(report.selected(record, optimizers=optimizers, peers=peers))
    ratio_of(found, "torch")["high"] *= slower
    figure = panels(found, monkeypatch)
    figure.draw_without_rendering()
    texts: list[Any] = [t for t in figure.findobj(Text) if t.get_visible()]
    boxes = [(t.get_text(), t.get_window_extent()) for t in texts if t.get_text()]
    assert len(boxes) > 20
    width, height = figure.bbox.size
    for index, (text, box) in enumerate(boxes):
        assert 0 <= box.x0 < box.x1 <= width, text
        assert 0 <= box.y0 < box.y1 <= height, text
        for other, beside in boxes[index + 1 :]:
            apart = (
                min(box.x1, beside.x1) <= max(box.x0, beside.x0) + 1
                or min(box.y1, beside.y1) <= max(box.y0, beside.y0) + 1
            )
            assert apart, (text, other)


def test_a_picture_of_results_that_lack_much(
    document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer that differs, one that raised, an optimizer that nobody else has, two data types."""
    found = [report.results(case) for case in document["cases"]]
    found[-1]["deepspeed"]["status"] = "differs"
    del found[-1]["torch"]["ratio"]
    found[-1]["torch"]["status"] = "raised"
    alone = copy.deepcopy(document["cases"][0]) | {"optimizer": "AdamW + 8bit-states"}
    alone["results"] = alone["results"][:1]
    half = copy.deepcopy(document["cases"][0]) | {"dtype": "bfloat16"}
    document["cases"] += [alone, half]
    figure = panels(document, monkeypatch)
    titles = [axes.get_title("left") for axes in figure.axes]
    assert titles == [
        *("RMSprop, float32", "AdamW, float32", "AdamW + 8bit-states, float32"),
        "RMSprop, bfloat16",
    ]
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert "raised" in texts
    assert "nobody else was timed" in texts
    assert any(text.endswith(" differs") for text in texts)


def test_the_picture_of_a_busy_machine_says_so(
    document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    document["machine"]["load_before"] = 7.0
    figure = panels(document, monkeypatch)
    assert any("The machine was busy" in text.get_text() for text in figure.texts)


def test_every_format_that_is_offered_can_be_written(
    document: dict[str, Any], tmp_path: Path
) -> None:
    assert {"jpg", "pdf", "png", "svg"} <= set(checks.formats())
    for ending in checks.formats():
        file = tmp_path / f"x.{ending}"
        picture.draw(document, file, f".{ending}")
        assert file.stat().st_size > 1000, ending


@pytest.mark.parametrize(
    ("name", "selection"),
    [("steps", {}), ("adamw", {"optimizers": ["AdamW"], "peers": ["torch-fused", "deepspeed"]})],
)
def test_the_pictures_of_the_record_are_up_to_date(
    name: str, selection: dict[str, Any], record: dict[str, Any], tmp_path: Path
) -> None:
    """Another version of matplotlib may draw them otherwise; it writes all texts into comments, too."""
    file = tmp_path / "x.svg"
    picture.draw(report.selected(record, **selection), file, ".svg")
    drawn, recorded = (
        re.findall("<!-- (.*?) -->", path.read_text(encoding="utf-8"))
        for path in (file, RECORD.parent / f"{name}.svg")
    )
    assert len(drawn) > 30
    assert drawn == recorded


def test_the_table_of_the_record_is_up_to_date(record: dict[str, Any]) -> None:
    assert (RECORD.parent / "steps.md").read_text() == report.markdown(record)
