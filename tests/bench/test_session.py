"""A whole measurement: options on the command line, and the deadline."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from onepass.bench import engine, report, session
from onepass.bench.cases import OPTIMIZERS, OPTIONS, Case, Configuration
from onepass.bench.contestants import FLOOR, LIMIT, OURS
from onepass.bench.models import MODELS
from onepass.bench.peers import PEERS, Params, Peer, Step
from onepass.bench.plan import Plan
from onepass_cli import main

FAST = ["--models", "policy", "--rounds", "3", "--turn", "1e-5", "--threads", "1"]


def measure(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run the command; return its JSON file. Picture and table are written and made again from that."""
    files = [
        f"--{kind}={folder / kind}.{end}" for kind, end in (("picture", "png"), ("table", "md"))
    ]
    assert main(["bench", *FAST, *arguments, *files, "--json", str(folder / "b.json")]) == 0
    table = (folder / "table.md").read_text()
    assert main(["bench", "--load", str(folder / "b.json"), *files]) == 0
    assert (folder / "table.md").read_text() == table
    loaded: dict[str, Any] = json.loads((folder / "b.json").read_text())
    return loaded


def measured(plan: Plan) -> dict[str, Any]:
    return session.run(plan, save=lambda _: None)


def test_options_in_json_and_table(tmp_path: Path) -> None:
    found = measure(tmp_path, "--options", "all", "--peers", "torch-fused")
    assert [case["optimizer"] for case in found["cases"]] == [f"AdamW + {name}" for name in OPTIONS]
    cases = dict(zip(OPTIONS, found["cases"], strict=True))
    everything = cases["everything"]
    assert everything["own_options"] == {
        "skip_nonfinite": True,
        "max_grad_norm": 1.0,
        "l1_decay": 1e-3,
        "l1_mode": "subgradient",
        "ema_decay": 0.999,
    }
    assert everything["grad_scale"] == 1024
    assert cases["bf16-states"]["own_options"] == {"state_dtype": "torch.bfloat16"}
    assert (cases["master-weights"]["dtype"], cases["clip"]["dtype"]) == ("bfloat16", "float32")
    assert report.results(cases["8bit-states"])["torch-fused"]["status"] == "not offered"
    headings, rows = report.table(found)
    assert "x float32" in headings
    assert all(len(row) == len(headings) for row in rows)
    by_name = {row[1]: dict(zip(headings, row, strict=True)) for row in rows}
    master, clip = by_name["AdamW + master-weights"], by_name["AdamW + clip"]
    slower = report.results(cases["master-weights"])["onepass-float32"]["ratio"]
    assert master["x float32"].startswith(report.number(1 / slower["median"]))
    assert master["best peer"] == master["torch fused"].replace("-", "") == ""
    assert clip["x float32"] == clip["of limit"] == ""
    assert clip["best peer"]
    assert any(note.startswith("x float32:") for note in report.notes(found))


def test_options_beside_optimizers(tmp_path: Path) -> None:
    peers = ("--peers", "torch-fused")
    found = measure(tmp_path, "--options", "ema", "--optimizers", "SGD", *peers)
    assert [case["optimizer"] for case in found["cases"]] == ["SGD", "AdamW + ema"]
    assert "x float32" not in report.table(found)[0]


def test_unknown_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "--options", "lion"])
    message = "--options: unknown name 'lion'; there are everything, clip"
    assert message in capsys.readouterr().err


def plan(deadline: float | None) -> Plan:
    optimizers = [OPTIMIZERS[name] for name in ("SGD", "Momentum", "Adam")]
    peers = [PEERS["torch-fused"]]
    return Plan(
        *([MODELS["policy"]], optimizers, peers, [torch.float32], [1], 3, 1e-5), deadline=deadline
    )


def test_nothing_begins_after_the_deadline() -> None:
    found = measured(plan(time.perf_counter() - 1))
    assert found["cases"] == []
    assert found["left_out"] == [f"RL policy / {name}" for name in ("SGD", "Momentum", "Adam")]
    assert len(measured(plan(None))["cases"]) == 3


def die(*_: object) -> None:
    """End the process without a word, as the system does where memory runs out."""
    os._exit(1)


def test_a_case_that_ends_its_process_ends_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_alone", die)
    found = measured(replace(plan(None), apart=True))
    assert len(found["cases"]) == 3
    for case in found["cases"]:
        assert {r["name"] for r in case["results"]} == {OURS, LIMIT, FLOOR, "torch-fused"}
        assert {r["status"] for r in case["results"]} == {"raised"}
    assert report.markdown(found)


def test_every_case_is_saved_when_it_is_measured() -> None:
    seen: list[int] = []
    session.run(plan(None), save=lambda found: seen.append(len(found["cases"])))
    assert seen == [1, 2, 3, 3]


def test_an_interrupt_keeps_what_was_measured() -> None:
    seen: list[tuple[int, bool]] = []

    def save(found: dict[str, Any]) -> None:
        seen.append((len(found["cases"]), found["interrupted"]))
        if len(seen) == 2:
            raise KeyboardInterrupt

    found = session.run(plan(None), save)
    assert seen == [(1, False), (2, False), (2, True)]
    assert any("interrupted" in note for note in report.notes(found))


def test_an_interrupt_before_the_first_case_saves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of an earlier measurement stays as it is."""

    def run_case(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "run_case", run_case)
    assert session.run(plan(None), save=lambda _: pytest.fail("saved"))["interrupted"]


def sleep(*_: object) -> None:
    time.sleep(600)


def test_an_interrupt_ends_the_process_of_a_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_alone", sleep)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    found = session.run(replace(plan(None), apart=True), save=lambda _: None)
    timer.join()
    assert found["interrupted"]
    assert not multiprocessing.active_children()


def test_the_end_stops_a_slow_peer_between_its_steps() -> None:
    """Three of them would step for five seconds before they are even timed."""

    def make(_: Configuration, __: Params) -> Step:
        return lambda: time.sleep(0.5)

    slow = [Peer(f"slow-{number}", make) for number in range(3)]
    started = time.perf_counter()
    method = engine.Method(3, 1e-5, end=started + 0.7)
    rows = engine.run_case(Case(MODELS["policy"], OPTIMIZERS["SGD"]), slow, method)
    assert time.perf_counter() - started < 2
    assert {row.status for row in rows.values()} == {"no time"}
    assert measured(replace(plan(started + 1.2), peers=slow))["cases"] == []


def test_a_case_that_would_end_too_late_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes 10 seconds up to the fewest rounds, and would go on for longer: the third does not fit into 25."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def run_case(
        *_: Any, deadline: float, progress: Callable[[], None], **__: Any
    ) -> dict[str, Any]:
        for _round in range(5):
            now[0] += 10 / 3
            progress()
            if _round >= 2 and now[0] > deadline:
                break
        return {OURS: engine.Row(OURS)}

    monkeypatch.setattr(engine, "run_case", run_case)
    monkeypatch.setattr(engine, "as_json", lambda case, *_: case.configuration.name)
    found = measured(plan(100.0 + 25))
    assert found["cases"] == ["SGD", "Momentum"]
    assert found["left_out"] == ["RL policy / Adam"]
    assert now[0] == pytest.approx(120)
