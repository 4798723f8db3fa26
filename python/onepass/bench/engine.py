"""One case: contestants are made, checked against each other, probed for memory and timed."""

from __future__ import annotations

import gc
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch

from onepass.bench import checking, contestants, memory, timing
from onepass.bench.cases import Case
from onepass.bench.contestants import FLOAT32, FLOOR, LIMIT, OURS, Contestant
from onepass.bench.machine import OtherWork
from onepass.bench.peers import NotOffered, Peer
from onepass.bench.timing import Spread, Watched

Status = Literal["ok", "differs", "raised", "not offered", "no memory", "no time"]
SHARE_OF_MEMORY = 0.7
"""Of the memory that is available: the rest is for temporaries of the peers."""
_LARGE = 64 << 20
"""Bytes of tensors from which it matters where in memory they lie: caches do not hold them."""


@dataclass(frozen=True)
class Method:
    """How a case is measured."""

    rounds: int = 15
    turn: float = 0.01
    """Seconds of one contestant's turn in a round."""
    end: float | None = None
    """When the clock shows this, nothing begins any more."""


@dataclass
class Row:
    """One contestant's result."""

    name: str
    status: Status = "ok"
    detail: str = ""
    steps_per_turn: int = 0
    seconds: Spread | None = None
    """Of one step."""
    ratio: Spread | None = None
    """To the time of ours, paired by rounds."""
    extra_memory: int | None = None
    """Bytes that a step takes for a moment above the tensors."""
    rounds: list[float] = field(default_factory=list)
    """Seconds of one step, in each round."""
    ratios: list[float] = field(default_factory=list)
    others: float | None = None
    """Processors that worked for other programs meanwhile."""


def heats(peers: Sequence[Peer], case: Case, free: int | None) -> list[list[Peer]]:
    """Split peers so that those of a heat, with ours, fit into `free` bytes; no heat at all if ours does not."""
    if free is None:
        return [list(peers)]
    always = case.memory + (case.in_float32().memory if case.configuration.reduced else 0)
    together = math.floor((free * SHARE_OF_MEMORY - always) / max(1, case.memory))
    if together < 0:
        return []
    if together == 0:
        return [[]]
    return [list(peers[i : i + together]) for i in range(0, max(1, len(peers)), together)]


def run_case(
    case: Case,
    peers: Sequence[Peer],
    method: Method,
    *,
    deadline: float | None = None,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, Row]:
    """Measure one case; the first row is ours, limit and floor follow, ours in float32 where that is more, peers.

    Where memory does not hold all contestants at once there are several heats, ours with the limit in each of them.
    """
    if case.device == "cpu" and case.memory >= _LARGE:
        with memory.without_scraps():
            return _run_heats(case, peers, method, deadline, progress)
    return _run_heats(case, peers, method, deadline, progress)


def _run_heats(
    case: Case,
    peers: Sequence[Peer],
    method: Method,
    deadline: float | None,
    progress: Callable[[], None],
) -> dict[str, Row]:
    planned = heats(peers, case, memory.available(case.device))
    standard = (OURS, LIMIT, FLOOR, *([FLOAT32] if case.configuration.reduced else []))
    rows = {name: Row(name) for name in (*standard, *(peer.name for peer in peers))}
    for number, heat in enumerate(planned):
        if number and timing.over(method.end):
            break
        _run_heat(case, heat, method, rows, deadline, progress)
    for row in rows.values():
        if row.status == "ok" and not row.rounds and planned:
            row.status, row.detail = "no time", "its turn came after the end"
        elif row.status == "ok" and not row.rounds:
            row.status, row.detail = (
                "no memory",
                f"{case.memory / 2**30:.1f} GiB of tensors do not fit",
            )
        if row.rounds:
            row.seconds, row.ratio = Spread.of(row.rounds), Spread.of(row.ratios)
    return rows


def _run_heat(
    case: Case,
    peers: Sequence[Peer],
    method: Method,
    rows: dict[str, Row],
    deadline: float | None,
    progress: Callable[[], None],
) -> None:
    gc.collect()  # the tensors of the heat before
    reference, optimizer = contestants.ours(case)
    checking.first_steps(case, reference)
    allowed = checking.tolerance(case, reference)
    makers: dict[str, Callable[[], Contestant]] = {
        peer.name: partial(contestants.theirs, case, peer) for peer in peers
    }
    if case.configuration.reduced:
        makers = {FLOAT32: partial(contestants.in_float32, case), **makers}
    racing = [reference]
    for name, make in makers.items():
        contestant = _admit(case, make, rows[name], reference, allowed, method.end)
        if contestant is not None:
            racing.append(contestant)
    for contestant in racing:
        if timing.over(method.end):
            break
        rows[contestant.name].extra_memory = memory.extra_memory(contestant.step, case.device)
    racing.insert(1, contestants.floor(reference))
    try:
        racing.insert(1, contestants.limit(case, reference, optimizer))
    except NotOffered as reason:
        rows[LIMIT].status, rows[LIMIT].detail = "not offered", str(reason)
    other_work = OtherWork()
    seen = timing.watch(
        {contestant.name: contestant.step for contestant in racing},
        rounds=method.rounds,
        turn=method.turn,
        deadline=deadline,
        end=method.end,
        wait=torch.cuda.synchronize if case.device != "cpu" else lambda: None,
        progress=progress,
    )
    disturbed = [rows[OURS].others, other_work.processors()]
    rows[OURS].others = max((n for n in disturbed if n is not None), default=None)
    for name, watched in seen.items():
        _record(rows[name], watched, seen[OURS])


def _admit(
    case: Case,
    make: Callable[[], Contestant],
    row: Row,
    reference: Contestant,
    allowed: checking.Tolerance,
    end: float | None,
) -> Contestant | None:
    """Let a contestant take its first steps and compare; one that cannot is noted in its row."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            contestant = make()
            checking.first_steps(case, replace(contestant, step=partial(_step, contestant, end)))
    except _NoTime:
        return None
    except NotOffered as reason:
        row.status, row.detail = "not offered", str(reason)
        return None
    except Exception as error:
        row.status, row.detail = "raised", timing.describe(error)
        return None
    apart = checking.difference(contestant, reference, allowed)
    if apart.too_far:
        row.status, row.detail = (
            "differs",
            f"by {apart.by:.1e} after {len(checking.GRADIENTS)} steps, {apart.allowed:.1e} allowed",
        )
    return contestant


class _NoTime(Exception):
    pass


def _step(contestant: Contestant, end: float | None) -> None:
    if timing.over(end):
        raise _NoTime
    contestant.step()


def _record(row: Row, watched: Watched, ours: Watched) -> None:
    if watched.error is not None:
        row.status, row.detail = "raised", watched.error
        return
    row.steps_per_turn = watched.steps_per_turn
    row.rounds += watched.seconds
    row.ratios += timing.ratios(watched, ours)


def as_json(case: Case, rows: dict[str, Row], threads: int) -> dict[str, Any]:
    """Return a case as the JSON file holds it."""
    model, configuration = case.model, case.configuration
    moves = {FLOOR: 0.0, FLOAT32: case.in_float32().bytes_per_parameter}
    results = []
    for row in rows.values():
        result: dict[str, Any] = {"name": row.name, "status": row.status, "detail": row.detail}
        if row.seconds is not None and row.ratio is not None:
            moved = moves.get(row.name, case.bytes_per_parameter) * model.parameters
            result |= {
                "seconds": vars(row.seconds),
                "ratio": vars(row.ratio),
                "nanoseconds_per_parameter": row.seconds.median * 1e9 / model.parameters,
                "gigabytes_per_second": moved / row.seconds.median / 1e9,
                "steps_per_turn": row.steps_per_turn,
                "extra_memory": row.extra_memory,
                "rounds": [float(f"{seconds:.5g}") for seconds in row.rounds],
            }
        results.append(result)
    return {
        "model": model.name,
        "title": model.title,
        "tensors": len(model.shapes),
        "parameters": model.parameters,
        "optimizer": configuration.name,
        "options": dict(configuration.options),
        "own_options": {name: _plain(value) for name, value in configuration.own.items()},
        "grad_scale": configuration.grad_scale,
        "dtype": str(case.dtype).removeprefix("torch."),
        "threads": threads,
        "device": case.device,
        "bytes_per_parameter": case.bytes_per_parameter,
        "others": rows[OURS].others,
        "results": results,
    }


def _plain(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, str)) else str(value)
