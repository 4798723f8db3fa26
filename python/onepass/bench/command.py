"""The command line of ``onepass bench``."""

from __future__ import annotations

import argparse
import importlib.util
import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch

from onepass.bench.cases import DTYPES, OPTIMIZERS, OPTIONS
from onepass.bench.models import MODELS, OPTIONAL
from onepass.bench.peers import PEERS, installed_peers
from onepass.bench.plan import Plan

T = TypeVar("T")

_QUICK_SECONDS = 30.0
_QUICK_RESERVE = 4.0
"""Seconds of them to import torch, to draw and to write."""
_QUICK_MODELS = "policy,small1000,mlp,resnet50"
_QUICK_OPTIMIZERS = "Momentum,RMSprop,AdamW"
_QUICK_PEERS = "torch,torch-foreach,torch-fused"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a table, write the files; return the exit status."""
    started = time.perf_counter()
    parser = _parser()
    arguments = parser.parse_args(argv)
    missing = [name for name in ("rich", "matplotlib") if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"onepass bench needs {' and '.join(missing)}: pip install {' '.join(missing)}",
            file=sys.stderr,
        )
        return 2
    from onepass.bench import picture, report, screen, session  # need rich and matplotlib

    if arguments.load:
        document = json.loads(arguments.load.read_text())
    else:
        words = sys.argv[1:] if argv is None else list(argv)
        command = shlex.join(["onepass", "bench", *words])
        document = session.run(_plan(parser, arguments, started, command))
        _write(arguments.json, json.dumps(document, indent=1) + "\n")
    screen.show(document)
    if arguments.table:
        _write(arguments.table, report.markdown(document))
    if document["cases"]:
        arguments.picture.parent.mkdir(parents=True, exist_ok=True)
        picture.draw(document, arguments.picture)
        print(f"{arguments.picture} written")
    wrong = [
        r
        for c in document["cases"]
        for r in c["results"]
        if r["name"] == "onepass" and r["status"] != "ok"
    ]
    return 1 if wrong else 0


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    print(f"{file} written")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="onepass bench",
        description="Time optimizer steps against those of other packages and against the machine's limit.",
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="a first impression, in 30 seconds")
    add("--models", help=f"of {', '.join(MODELS)}; default: all but {', '.join(OPTIONAL)}")
    add("--optimizers", help=f"of {', '.join(OPTIMIZERS)}; default: all")
    add(
        "--options",
        help=f"AdamW with options that torch lacks: all, or of {', '.join(OPTIONS)}; without --optimizers only these",
    )
    add(
        "--peers",
        help=f"of {', '.join(PEERS)}; default: the installed ones that do not compile first",
    )
    add("--dtypes", default="float32", help=f"of {', '.join(DTYPES)}; default: float32")
    add("--device", default="cpu", choices=("cpu", "cuda"), help="default: cpu")
    add("--threads", help="thread counts, such as 1,2; default: torch's")
    add("--rounds", type=int, help="turns of each contestant; default: 15")
    add("--turn", type=float, help="seconds of a turn; default: 0.01")
    add(
        "--json",
        type=Path,
        default=Path("onepass-bench.json"),
        metavar="FILE",
        help="default: %(default)s",
    )
    add(
        "--picture",
        type=Path,
        default=Path("onepass-bench.png"),
        metavar="FILE",
        help="default: %(default)s",
    )
    add("--table", type=Path, metavar="FILE", help="also write the table as Markdown")
    add(
        "--load",
        type=Path,
        metavar="FILE",
        help="measure nothing: table and picture from this JSON file",
    )
    return parser


def _plan(
    parser: argparse.ArgumentParser, arguments: argparse.Namespace, started: float, command: str
) -> Plan:
    quick, device = arguments.quick, arguments.device
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("--device: no CUDA device")
    plain_models = ",".join(name for name in MODELS if name not in OPTIONAL)
    models = _chosen(
        parser, "--models", arguments.models or (_QUICK_MODELS if quick else plain_models), MODELS
    )
    optimizers = []
    if arguments.optimizers or not arguments.options:
        default = _QUICK_OPTIMIZERS if quick else ",".join(OPTIMIZERS)
        optimizers = _chosen(parser, "--optimizers", arguments.optimizers or default, OPTIMIZERS)
    if arguments.options:
        words = ",".join(OPTIONS) if arguments.options == "all" else arguments.options
        optimizers += _chosen(parser, "--options", words, OPTIONS)
    wanted = arguments.peers or (_QUICK_PEERS if quick else None)
    peers = (
        installed_peers(device=device)
        if wanted is None
        else _chosen(parser, "--peers", wanted, PEERS)
    )
    absent = [peer for peer in peers if not peer.installed()]
    if absent:
        parser.error(
            f"--peers: {absent[0].name} is not installed (pip install {absent[0].package})"
        )
    elsewhere = [peer for peer in peers if device not in peer.devices]
    if elsewhere:
        parser.error(f"--peers: {elsewhere[0].name} does not run on {device}")
    try:
        threads = [
            int(word) for word in (arguments.threads or str(torch.get_num_threads())).split(",")
        ]
    except ValueError:
        parser.error(
            f"--threads: whole numbers with commas between them, got {arguments.threads!r}"
        )
    rounds = (7 if quick else 15) if arguments.rounds is None else arguments.rounds
    turn = (0.004 if quick else 0.01) if arguments.turn is None else arguments.turn
    for name, value in (("--threads", min(threads)), ("--rounds", rounds), ("--turn", turn)):
        if value <= 0:
            parser.error(f"{name}: must be above 0, got {value}")
    return Plan(
        models=models,
        optimizers=optimizers,
        peers=peers,
        dtypes=_chosen(parser, "--dtypes", arguments.dtypes, DTYPES),
        threads=threads,
        rounds=rounds,
        turn=turn,
        deadline=started + _QUICK_SECONDS - _QUICK_RESERVE if quick else None,
        command=command,
        device=device,
        apart=not quick,
    )


def _chosen(
    parser: argparse.ArgumentParser, option: str, text: str, known: Mapping[str, T]
) -> list[T]:
    by_name = {name.lower(): value for name, value in known.items()}
    names = [word.strip().lower() for word in text.split(",") if word.strip()]
    unknown = [name for name in names if name not in by_name]
    if unknown or not names:
        parser.error(
            f"{option}: unknown name {(unknown or [''])[0]!r}; there are {', '.join(known)}"
        )
    return [by_name[name] for name in names]
