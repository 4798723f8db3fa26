"""The arguments of ``onepass bench``."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from onepass_cli import checks

MODELS = ("policy", "small1000", "mlp", "resnet50", "tensor64m", "gpt2", "tensor1g")
OPTIMIZERS = ("SGD", "Momentum", "Adagrad", "RMSprop", "RMSprop-centered", "Adam", "AdamW")
OPTIONS = (
    *("everything", "clip", "ema", "l1", "proximal-l1", "bf16-states", "8bit-states"),
    *("master-weights", "stochastic-rounding"),
)
PEERS = (
    *("torch", "torch-foreach", "torch-fused", "torch-compiled", "deepspeed", "apex", "optimi"),
    *("pytorch-optimizer", "bitsandbytes", "torchao"),
)
DTYPES = ("float32", "bfloat16", "float16")
OPTIONAL = ("tensor1g",)
"""Models that are measured only when they are asked for by name."""

Number = TypeVar("Number", int, float)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all of them; what is not given is None, but for files and the device."""
    add = parser.add_argument
    add("--quick", action="store_true", help="a first impression, in 30 seconds")
    add(
        "--models",
        type=_names(MODELS),
        metavar="NAMES",
        help=f"with commas between them, of {', '.join(MODELS)}; default: all but {', '.join(OPTIONAL)}",
    )
    add(
        "--optimizers",
        type=_names(OPTIMIZERS),
        metavar="NAMES",
        help=f"of {', '.join(OPTIMIZERS)}; default: all",
    )
    add(
        "--options",
        type=_names(OPTIONS, everything="all"),
        metavar="NAMES",
        help=f"AdamW with options that torch lacks: all, or of {', '.join(OPTIONS)}; without --optimizers only these",
    )
    add(
        "--peers",
        type=_names(PEERS),
        metavar="NAMES",
        help=f"of {', '.join(PEERS)}; default: the installed ones that do not compile first",
    )
    add(
        "--dtypes",
        type=_names(DTYPES),
        metavar="NAMES",
        help=f"of {', '.join(DTYPES)}; default: float32",
    )
    add("--device", default="cpu", choices=("cpu", "cuda"), help="default: %(default)s")
    add("--threads", type=_counts, help="thread counts, such as 1,2; default: torch's")
    add("--rounds", type=_above_0(int), help="turns of each contestant; default: 15")
    add("--turn", type=_above_0(float), help="seconds of a turn; default: 0.01")
    for name, default, about in (
        ("--json", "onepass-bench.json", "where the results go, after each case"),
        ("--picture", "onepass-bench.png", "where the picture goes; the ending chooses the format"),
    ):
        about += "; default: %(default)s"
        add(name, type=Path, default=Path(default), metavar="FILE", help=about)
    add("--table", type=Path, metavar="FILE", help="also write the table as Markdown")
    add(
        "--load",
        type=Path,
        metavar="FILE",
        help="measure nothing: table and picture from this results file, of all in it or of the models, optimizers, "
        "options, peers, dtypes and threads that are named",
    )


def check_files(arguments: argparse.Namespace) -> None:
    """Raise if a file could not be written, or would be written over another.

    Raises:
        UsageError: With the first that is wrong.
    """
    checks.picture("--picture", arguments.picture)
    outputs = {"--picture": arguments.picture}
    if arguments.table:
        outputs["--table"] = arguments.table
    if not arguments.load:
        outputs["--json"] = arguments.json
    seen = {arguments.load.resolve(): "--load"} if arguments.load else {}
    for option, file in outputs.items():
        checks.output(option, file)
        other = seen.setdefault(file.resolve(), option)
        if other != option:
            message = f"{option} {file}: is the file of {other}, too"
            raise checks.UsageError(message)


def _names(known: Sequence[str], *, everything: str = "") -> Callable[[str], list[str]]:
    """Return what reads names with commas between them, in any case; `everything` stands for all of them."""
    by_lower = {name.lower(): name for name in known}

    def read(text: str) -> list[str]:
        if everything and text.strip().lower() == everything:
            return list(known)
        names = [word.strip().lower() for word in text.split(",") if word.strip()]
        unknown = [name for name in names if name not in by_lower]
        if unknown or not names:
            message = f"unknown name {(unknown or [''])[0]!r}; there are {', '.join(known)}"
            raise argparse.ArgumentTypeError(message)
        return [by_lower[name] for name in names]

    return read


def _above_0(kind: Callable[[str], Number]) -> Callable[[str], Number]:
    def read(text: str) -> Number:
        try:
            value = kind(text)
        except ValueError:
            message = f"must be a {'whole ' if kind is int else ''}number, got {text!r}"
            raise argparse.ArgumentTypeError(message) from None
        if not 0 < value < math.inf:
            message = f"must be above 0, got {text}"
            raise argparse.ArgumentTypeError(message)
        return value

    return read


def _counts(text: str) -> list[int]:
    try:
        counts = [int(word) for word in text.split(",")]
    except ValueError:
        message = f"whole numbers with commas between them, got {text!r}"
        raise argparse.ArgumentTypeError(message) from None
    if min(counts) <= 0:
        message = f"must be above 0, got {min(counts)}"
        raise argparse.ArgumentTypeError(message)
    return counts
