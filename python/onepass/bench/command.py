"""What ``onepass bench`` does once its arguments are read: measure or load, save, show."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch

from onepass.bench import picture, report, screen, session
from onepass.bench.cases import DTYPES, OPTIMIZERS, OPTIONS
from onepass.bench.files import replaced
from onepass.bench.models import MODELS
from onepass.bench.peers import PEERS, installed_peers
from onepass.bench.plan import Plan
from onepass_cli import INTERRUPTED
from onepass_cli.bench import OPTIONAL
from onepass_cli.checks import UsageError

_QUICK_SECONDS = 30.0
_QUICK_RESERVE = 4.0
"""Seconds of them to draw and to write."""
_QUICK_MODELS = ["policy", "small1000", "mlp", "resnet50"]
_QUICK_OPTIMIZERS = ["Momentum", "RMSprop", "AdamW"]
_QUICK_PEERS = ["torch", "torch-foreach", "torch-fused"]


def run(arguments: argparse.Namespace, command: str, loaded: report.Document | None) -> int:
    """Measure, print a table, write the files.

    Args:
        arguments: Those of `onepass_cli.bench`, checked.
        command: The whole command line, for the record.
        loaded: Results that are shown in the place of new ones.

    Returns:
        The exit status: 1 where ours raised or computed something else in any case.

    Raises:
        UsageError: This machine lacks what was asked for, or `loaded` does.
    """
    if loaded is None:
        plan = _plan(arguments, time.perf_counter(), command)
        document = session.run(plan, save=lambda found: _save(found, arguments.json))
        if document["interrupted"]:
            return _say_interrupted(document, len(plan.cases()), arguments.json)
        print(f"{arguments.json} written")
    else:
        document = _selected(loaded, arguments)
    screen.show(document)
    if arguments.table:
        with replaced(arguments.table) as file:
            file.write_text(report.markdown(document), encoding="utf-8")
        print(f"{arguments.table} written")
    if document["cases"]:
        with replaced(arguments.picture) as file:
            picture.draw(document, file, arguments.picture.suffix)
        print(f"{arguments.picture} written")
    ours = [report.results(case)["onepass"] for case in document["cases"]]
    return 1 if any(result["status"] != "ok" for result in ours) else 0


def _save(document: report.Document, to: Path) -> None:
    with replaced(to) as file:
        file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _say_interrupted(document: report.Document, planned: int, file: Path) -> int:
    measured = len(document["cases"])
    what = (
        f"interrupted after {measured} of {planned} cases, which are in {file} (--load {file} shows them)"
        if measured
        else "interrupted before the first case was measured, nothing was saved"
    )
    print(f"onepass bench: {what}", file=sys.stderr)
    return INTERRUPTED


def _selected(document: report.Document, arguments: argparse.Namespace) -> report.Document:
    optimizers = None
    if arguments.optimizers or arguments.options:
        options = [OPTIONS[name].name for name in arguments.options or ()]
        optimizers = [*(arguments.optimizers or ()), *options]
    found = report.selected(
        document,
        models=arguments.models,
        optimizers=optimizers,
        peers=arguments.peers,
        dtypes=arguments.dtypes,
        threads=arguments.threads,
    )
    if document["cases"] and not found["cases"]:
        message = f"--load {arguments.load}: no case in it is of the models, optimizers, dtypes and threads asked for"
        raise UsageError(message)
    return found


def _plan(arguments: argparse.Namespace, started: float, command: str) -> Plan:
    quick, device = arguments.quick, arguments.device
    if device == "cuda" and not torch.cuda.is_available():
        message = "--device cuda: no CUDA device"
        raise UsageError(message)
    models = [name for name in MODELS if name not in OPTIONAL]
    optimizers = arguments.optimizers
    if not optimizers and not arguments.options:
        optimizers = _QUICK_OPTIMIZERS if quick else list(OPTIMIZERS)
    wanted = arguments.peers or (_QUICK_PEERS if quick else None)
    peers = installed_peers(device=device) if wanted is None else [PEERS[name] for name in wanted]
    for peer in peers:
        if not peer.installed():
            message = f"--peers: {peer.name} is not installed (pip install {peer.package})"
            raise UsageError(message)
        if device not in peer.devices:
            message = f"--peers: {peer.name} does not run on {device}"
            raise UsageError(message)
    return Plan(
        models=[MODELS[name] for name in arguments.models or (_QUICK_MODELS if quick else models)],
        optimizers=[
            *(OPTIMIZERS[name] for name in optimizers or ()),
            *(OPTIONS[name] for name in arguments.options or ()),
        ],
        peers=peers,
        dtypes=[DTYPES[name] for name in arguments.dtypes or ("float32",)],
        threads=arguments.threads or [torch.get_num_threads()],
        rounds=arguments.rounds or (7 if quick else 15),
        turn=arguments.turn or (0.004 if quick else 0.01),
        deadline=started + _QUICK_SECONDS - _QUICK_RESERVE if quick else None,
        command=command,
        device=device,
        apart=not quick,
    )
