"""A whole measurement: every case in turn, gathered into one document."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from onepass.bench import checking, engine
from onepass.bench.cases import Case
from onepass.bench.contestants import FLOOR, LIMIT, OURS
from onepass.bench.machine import load, machine, versions
from onepass.bench.peers import PEERS
from onepass.bench.plan import Plan
from onepass.bench.timing import FEWEST_ROUNDS
from onepass_cli.checks import SCHEMA

COUNTED = {
    "seconds": "one call of optimizer.step(), gradients set once before; median and quartiles over the rounds",
    "ratio": "seconds divided by those of onepass in the same round; median and quartiles over the rounds",
    "gigabytes_per_second": "bytes_per_parameter * parameters / seconds",
    "bytes_per_parameter": "parameter and states are read and written, the gradient is read, for its norm once more",
    "limit": "the same bytes of the same tensors read and written in the same chunks, no arithmetic",
    "onepass-float32": "onepass without options, all in float32, from the same numbers; bytes are its own",
    "own_options": "options that torch does not have; peers do passes of their own for them",
    "grad_scale": "gradients come multiplied by this, and the step divides",
    "floor": "an optimizer whose step does nothing, called through torch.optim.Optimizer's wrapper",
    "extra_memory": "peak of resident memory during one step above that before it, bytes",
    "rounds": "seconds of one step in each round",
    "others": "processors that worked for other programs while the case was timed, on average",
}


def run(plan: Plan, save: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Measure everything and return the document that is written as JSON.

    Args:
        plan: What to measure.
        save: Called with the document after each case and at the end. After Ctrl-C, which ends the measurement, only
            if there are any cases.
    """
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "command": plan.command,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": {**machine(), "load_before": load()},
        "versions": versions(),
        "method": {
            "rounds": plan.rounds,
            "turn": plan.turn,
            "processes": "one for each case" if plan.apart else "one for all cases",
            "checked_after_steps": len(checking.GRADIENTS),
        },
        "counted": COUNTED,
        "cases": [],
        "left_out": [],
        "interrupted": False,
    }
    try:
        _measure_all(plan, document, save)
    except KeyboardInterrupt:
        document["interrupted"] = True
    if document["cases"] or not document["interrupted"]:
        save(document)
    return document


def _measure_all(
    plan: Plan, document: dict[str, Any], save: Callable[[dict[str, Any]], None]
) -> None:
    cases = plan.cases()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    least: dict[str, float] = {}  # seconds that a case of this model takes, however short its share
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task("", total=len(cases))
        for number, (case, threads) in enumerate(cases):
            name = f"{case.model.title} / {case.configuration.name}"
            bar.update(task, description=name)
            done = time.perf_counter() + least.get(case.model.name, 0.0)
            if plan.apart:
                document["cases"].append(engine.as_json(case, _apart(case, plan, threads), threads))
            elif plan.deadline is not None and done > plan.deadline:
                document["left_out"].append(name)
            else:
                deadline = _share(plan.deadline, len(cases) - number)
                with _threads(threads):
                    found, least[case.model.name] = _measure(case, plan, deadline)
                if found[OURS].status == "no time":
                    document["left_out"].append(name)
                else:
                    document["cases"].append(engine.as_json(case, found, threads))
            save(document)
            bar.advance(task)


def _apart(case: Case, plan: Plan, threads: int) -> dict[str, engine.Row]:
    """Measure one case in a process of its own; what ends that takes no other case with it."""
    names = [peer.name for peer in plan.peers]
    method = engine.Method(plan.rounds, plan.turn)
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_alone, args=(sender, case, names, method, threads))
    try:
        with _later_interrupts():  # a terminal sends Ctrl-C to both, and this one ends the other
            process.start()
        sender.close()
        rows: dict[str, engine.Row] = receiver.recv()
    except EOFError:
        everyone = (OURS, LIMIT, FLOOR, *names)
        return {name: engine.Row(name, "raised", "its process was ended") for name in everyone}
    finally:
        if process.pid is not None:
            process.kill()
            process.join()
    return rows


@contextmanager
def _later_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back until the end; a process that is started meanwhile never sees one."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _alone(
    sender: Connection, case: Case, peers: list[str], method: engine.Method, threads: int
) -> None:
    torch.set_num_threads(threads)
    sender.send(engine.run_case(case, [PEERS[name] for name in peers], method))


def _measure(case: Case, plan: Plan, deadline: float | None) -> tuple[dict[str, engine.Row], float]:
    """Measure one case; return with it how long that took up to the fewest rounds."""
    ends = [time.perf_counter()]
    rows = engine.run_case(
        case,
        plan.peers,
        engine.Method(plan.rounds, plan.turn, plan.deadline),
        deadline=deadline,
        progress=lambda: ends.append(time.perf_counter()),
    )
    return rows, ends[: FEWEST_ROUNDS + 1][-1] - ends[0]


def _share(deadline: float | None, cases: int) -> float | None:
    """Return when the next case should be done: each gets an equal share of the time that is left."""
    if deadline is None:
        return None
    now = time.perf_counter()
    return now + (deadline - now) / cases


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
