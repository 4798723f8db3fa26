"""One case from start to end, on a tiny model."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from onepass.bench import contestants, engine, memory
from onepass.bench.cases import OPTIMIZERS, Case, Configuration
from onepass.bench.contestants import FLOOR, LIMIT, OURS
from onepass.bench.models import Model
from onepass.bench.peers import PEERS, NotOffered, Params, Peer, Step

TINY = Model("tiny", "tiny", ((40, 30), (7,), ()))
METHOD = engine.Method(rounds=3, turn=1e-5)
TORCH = [PEERS[name] for name in ("torch", "torch-foreach", "torch-fused")]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """More would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(optimizer: str, *peers: Peer) -> dict[str, engine.Row]:
    return engine.run_case(Case(TINY, OPTIMIZERS[optimizer]), peers, METHOD)


def peer(make: Any) -> Peer:
    return Peer("other", make)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_torch_and_ours_agree_in_every_case(optimizer: str) -> None:
    rows = run(optimizer, *TORCH)
    assert list(rows) == [OURS, LIMIT, FLOOR, *(p.name for p in TORCH)]
    for row in rows.values():
        assert row.status in ("ok", "not offered"), row
        if row.status == "ok":
            assert len(row.rounds) == len(row.ratios) == 3
    assert rows[OURS].ratios == [1.0] * 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    rows = engine.run_case(Case(TINY, OPTIMIZERS["Momentum"], dtype), TORCH[:1], METHOD)
    assert {row.status for row in rows.values()} == {"ok"}


@pytest.mark.parametrize(
    "change", [{"weight_decay": 0.0}, {"lr": 1.01e-3}, {"betas": (0.9, 0.99)}, {"eps": 1e-2}]
)
def test_another_formula_is_noticed(change: dict[str, Any]) -> None:
    """A peer that drops the decay, or has other numbers than ours, is not compared as if it were the same."""

    def make(configuration: Configuration, params: Params) -> Step:
        step: Step = torch.optim.AdamW(params, **{**configuration.options, **change}).step
        return step

    rows = run("AdamW", peer(make))
    assert rows["other"].status == "differs"
    assert rows["other"].seconds is not None
    assert engine.as_json(Case(TINY, OPTIMIZERS["AdamW"]), rows, 1)["results"][-1]["detail"]


def test_a_step_that_does_nothing_or_makes_nan_is_noticed() -> None:
    def idle(_: Configuration, __: Params) -> Step:
        return lambda: None

    def nan(_: Configuration, params: Params) -> Step:
        return lambda: params[0].data.fill_(float("nan"))

    assert run("SGD", peer(idle))["other"].status == "differs"
    assert run("SGD", peer(nan))["other"].status == "differs"


def test_a_peer_that_raises_is_reported() -> None:
    def at_once(_: Configuration, __: Params) -> Step:
        message = "built for another torch"
        raise ImportError(message)

    calls = []

    def later(configuration: Configuration, params: Params) -> Step:
        step = torch.optim.SGD(params, **configuration.options).step

        def run_step() -> object:
            calls.append(1)
            if len(calls) > 5:
                raise MemoryError
            return step()

        return run_step

    row = run("SGD", peer(at_once))["other"]
    assert (row.status, row.detail) == ("raised", "ImportError: built for another torch")
    row = run("SGD", peer(later))["other"]
    assert (row.status, row.seconds) == ("raised", None)


def test_what_is_not_offered_is_no_failure() -> None:
    def make(configuration: Configuration, _: Params) -> Step:
        raise NotOffered(configuration)

    row = run("SGD", peer(make))["other"]
    assert (row.status, row.detail) == ("not offered", "it has no SGD")


def test_the_limit_changes_no_value() -> None:
    case = Case(TINY, OPTIMIZERS["Adam"])
    own, optimizer = contestants.ours(case)
    own.step()
    before = [p.detach().clone() for p in own.parameters]
    states = [optimizer.state[p]["exp_avg_sq"].clone() for p in own.parameters]
    contestants.limit(case, own, optimizer).step()
    for p, value, state in zip(own.parameters, before, states, strict=True):
        assert torch.equal(p, value)
        assert torch.equal(optimizer.state[p]["exp_avg_sq"], state)


def test_the_floor_goes_through_the_wrapper_of_torch() -> None:
    case = Case(TINY, OPTIMIZERS["SGD"])
    own, _ = contestants.ours(case)
    contestants.floor(own).step()
    assert getattr(contestants.EmptyOptimizer.step, "hooked", False) is True


def test_heats_split_what_memory_does_not_hold() -> None:
    case = Case(TINY, OPTIMIZERS["Adam"])
    room = case.memory / engine.SHARE_OF_MEMORY
    assert engine.heats(TORCH, case, None) == [TORCH]
    assert engine.heats(TORCH, case, int(room * 3.5)) == [TORCH[:2], TORCH[2:]]
    assert engine.heats(TORCH, case, int(room * 1.5)) == [[]]
    assert engine.heats(TORCH, case, int(room * 0.5)) == []
    assert engine.heats([], case, int(room * 3.5)) == [[]]


def test_heats_are_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(TINY, OPTIMIZERS["Adam"])
    monkeypatch.setattr(
        memory, "available", lambda _: int(case.memory / engine.SHARE_OF_MEMORY * 2.5)
    )
    rows = engine.run_case(case, TORCH, METHOD)
    assert {row.status for row in rows.values()} == {"ok"}
    assert len(rows[OURS].rounds) == 3 * len(TORCH)
    assert len(rows["torch"].ratios) == 3


def test_a_model_that_does_not_fit_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda _: 10)
    assert {row.status for row in run("SGD", *TORCH).values()} == {"no memory"}


def test_scraps_are_held_while_a_case_with_large_tensors_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Free blocks below 2 MiB, in all zones; a machine that does not tell has none."""
    blocks = tmp_path / "buddyinfo"
    blocks.write_text(
        "Node 0, zone    DMA32      3      0      0      0      0      0      0      0      0      5      7\n"
        "Node 0, zone   Normal      0      2      0      0      0      0      0      0      0      1      9\n"
    )
    monkeypatch.setattr(memory, "_FREE_BLOCKS", blocks)
    scraps = 3 * mmap.PAGESIZE + 2 * (mmap.PAGESIZE << 1)
    before = memory.available()
    assert before is not None
    held: list[int] = []
    ones = torch.ones

    def watched(size: Any, **how: Any) -> torch.Tensor:
        held.append(size)
        return ones(size, **how)

    monkeypatch.setattr(torch, "ones", watched)
    with memory.without_scraps():
        assert held.pop() == scraps
    monkeypatch.setattr(engine, "_LARGE", 0)
    rows = run("SGD", *TORCH)
    assert scraps in held
    assert rows["torch-foreach"].status == "ok"
    blocks.unlink()
    with memory.without_scraps():
        assert held.pop() == 0


def test_extra_memory_sees_a_temporary() -> None:
    megabytes = 32
    size = megabytes * 2**20
    seen = memory.extra_memory(lambda: torch.zeros(size, dtype=torch.uint8).add_(1))
    if seen is None:
        pytest.skip("the system does not tell")
    assert 0.9 * size < seen < 1.5 * size
    seen = memory.extra_memory(lambda: None)
    assert seen is not None
    assert seen < 2**20
