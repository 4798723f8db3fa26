"""The command line: ``onepass demo``, ``onepass bench``, ``onepass info``."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from onepass import __version__, _core
from onepass.device import extension
from onepass.reader import READER, reason_for_way

CHAPTERS = ("optimizers", "schedule", "l1-l2", "augmentation", "transfer")
"""Of the demo, which is imported only when it runs."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments after the program's name; None takes those of the process.

    Returns:
        The exit status: 0 for success, 1 where the demo's two libraries disagree or ours breaks a promise, 2
        where something is missing.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv[:1] == ["bench"]:  # has a parser of its own, which also answers --help
        status: int = importlib.import_module("onepass.bench").main(argv[1:])
        return status
    arguments = _parser().parse_args(argv)
    if arguments.command == "demo":
        return _demo(arguments)
    _print_info()
    return 0


def info() -> dict[str, str]:
    """Return what `onepass info` prints: versions, and how a step will run in this process."""
    return {
        "onepass": __version__,
        "torch": torch.__version__,
        "Python": f"{platform.python_version()} ({platform.system()} {platform.machine()})",
        "compiler": _core.compiler,
        "instruction set": _instruction_set(),
        "instruction sets available": ", ".join(
            name for name, runs in _core.isas().items() if runs
        ),
        "threads": str(_core.available_threads()),
        "CUDA": _cuda(),
        "tensors read through": _reading(),
        "OpenMP runtime": _openmp(),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="onepass",
        description="Drop-in torch.optim optimizers that do the whole update in one pass over memory.",
        epilog="'onepass COMMAND --help' shows the options of a command.",
    )
    parser.add_argument("--version", action="version", version=f"onepass {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    about = "train small models in five chapters, beside torch.optim"
    demo = commands.add_parser(
        "demo",
        help=about,
        description="Trains on scikit-learn's handwritten digits, once with torch.optim and once with onepass, from the "
        "same weights on the same batches: every optimizer, learning-rate schedules, L1 and L2, augmentation, transfer. "
        "Prints one table and saves one picture. Exit status 1 means that the two did not agree.",
    )
    demo.add_argument(
        "--chapter",
        action="append",
        default=[],
        choices=CHAPTERS,
        metavar="NAME",
        help=f"show this chapter alone; may be given several times: {', '.join(CHAPTERS)} (default: all)",
    )
    demo.add_argument("--seed", type=_seed, default=0, help="of weights and batches (default: 0)")
    demo.add_argument("--fast", action="store_true", help="train shorter, with one seed")
    demo.add_argument(
        "--picture",
        type=Path,
        default=Path("onepass-demo.png"),
        metavar="FILE",
        help="where the picture goes; the ending chooses the format (default: %(default)s)",
    )

    commands.add_parser(
        "bench", help="measure this machine: every optimizer beside its peers", add_help=False
    )
    about = "print versions, instruction set, threads, CUDA, OpenMP runtime"
    commands.add_parser("info", help=about, description=f"{about.capitalize()}.")
    return parser


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**63:
        message = f"must be a whole number from 0 to 2**63 - 1, not {text}"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def _demo(arguments: argparse.Namespace) -> int:
    try:
        demo = importlib.import_module("onepass.demo")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in {"matplotlib", "rich", "sklearn"}:
            raise
        print(
            f"onepass demo needs {package}: pip install matplotlib rich scikit-learn",
            file=sys.stderr,
        )
        return 2
    status: int = demo.run(
        seed=arguments.seed,
        fast=arguments.fast,
        picture_file=arguments.picture,
        chapters=arguments.chapter,
    )
    return status


def _print_info() -> None:
    lines = info()
    width = max(map(len, lines))
    for name, value in lines.items():
        print(f"{name:<{width}}  {value}")


def _instruction_set() -> str:
    return f"{_core.isa()} (ONEPASS_CPU)" if os.environ.get("ONEPASS_CPU") else _core.isa()


def _cuda() -> str:
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    found = f"torch finds {', '.join(names) or 'no device'}"
    module = extension.cuda_module()
    if module is None:
        return f"not built in; {found}"
    architectures = module.architectures.replace("-real", "").replace("-virtual", " as PTX")
    built = f"built for {architectures.replace(',', ', ')}"
    return f"{built}; {module.driver_problem() or found}"


def _reading() -> str:
    ways = {
        "native": "libtorch's functions and objects",
        "functions": "libtorch's functions",
        "dlpack": "torch's DLPack table",
        "none": "nothing: every step is torch's own",
    }
    reason = reason_for_way()
    return ways[READER.way] + (f", not in the fastest way: {reason}" if reason else "")


def _openmp() -> str:
    """Return the paths of the OpenMP runtimes in this process: more than one means that threads fight."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return "unknown (this system does not list the libraries of a process)"
    paths = {line.split(maxsplit=5)[-1] for line in maps.read_text().splitlines() if "/" in line}
    runtimes = sorted(p for p in paths if Path(p).name.startswith(("libgomp", "libiomp", "libomp")))
    return ", ".join(runtimes) or "none"
