"""The command ``onepass``: arguments are read and checked before onepass, and with it torch, is imported.

That takes seconds on a busy machine, which nobody should wait for help or for an error message. It is a package of its
own, since the import of any module of onepass imports torch.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from onepass_cli import bench, checks

__all__ = ["CHAPTERS", "INTERRUPTED", "main"]

CHAPTERS = ("optimizers", "schedule", "l1-l2", "augmentation", "transfer")
"""Of the demo."""
INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it: 128 and the number of the signal."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments after the program's name; None takes those of the process.

    Returns:
        The exit status: 0 for success, 1 where the demo's two libraries disagree or ours breaks a promise, 2
        where an argument is wrong or something is missing, 130 after Ctrl-C.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    arguments = _parser().parse_args(words)
    commands = {"demo": _demo, "bench": _bench, "info": _info}
    try:
        return commands[arguments.command](arguments, shlex.join(["onepass", *words]))
    except checks.UsageError as error:
        print(f"onepass {arguments.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"onepass {arguments.command}: interrupted", file=sys.stderr)
        return INTERRUPTED


def _demo(arguments: argparse.Namespace, _: str) -> int:
    checks.need("matplotlib", "rich", "scikit-learn")
    checks.picture("--picture", arguments.picture)
    print(
        "Loading torch, scikit-learn and matplotlib ...", flush=True
    )  # 20 seconds at the first time
    from onepass import demo

    return demo.run(
        seed=arguments.seed,
        fast=arguments.fast,
        picture_file=arguments.picture,
        chapters=arguments.chapter,
    )


def _bench(arguments: argparse.Namespace, command: str) -> int:
    checks.need("rich", "matplotlib")
    bench.check_files(arguments)
    loaded = checks.results(arguments.load) if arguments.load else None
    from onepass.bench.command import run

    return run(arguments, command, loaded)


def _info(arguments: argparse.Namespace, _: str) -> int:
    from onepass import cli

    cli.print_info(as_json=arguments.json)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="onepass",
        description="Drop-in torch.optim optimizers that do the whole update in one pass over memory.",
        epilog="'onepass COMMAND --help' shows the options of a command.",
    )
    parser.add_argument("--version", action="version", version=f"onepass {_version()}")
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

    bench.add_arguments(
        commands.add_parser(
            "bench",
            help="measure this machine: every optimizer beside its peers",
            description="Time optimizer steps against those of other packages and against the machine's limit.",
        )
    )
    about = "print what a bug report needs: versions, machine, how steps run here"
    info = commands.add_parser("info", help=about, description=f"{about.capitalize()}.")
    info.add_argument("--json", action="store_true", help="as a JSON object")
    return parser


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**63:
        message = f"must be a whole number from 0 to 2**63 - 1, not {text}"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def _version() -> str:
    try:
        return importlib.metadata.version("onepass")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
