"""One row of docs/versions.md: python benchmarks/versions.py [--only tests|times], in an environment with onepass.

The core tests are run, and AdamW's step is timed on one thread, beside torch's fused step. Rows of other versions stay
as they are, as long as they are of the same processor; `nox -s versions` makes environments and does this in each.
"""

from __future__ import annotations

import argparse
import platform
import re
import statistics
import subprocess
import sys
from pathlib import Path

import torch

from onepass.bench import contestants, timing
from onepass.bench.cases import OPTIMIZERS, Case
from onepass.bench.machine import machine
from onepass.bench.models import MODELS
from onepass.bench.peers import PEERS
from onepass.reader import READER

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "versions.md"
CORE = tuple(
    f"tests/{room}"
    for room in ("step", "state", "hyper", "rules", "clients", "schedule", "transfer")
)
MODELS_TIMED = ("policy", "small1000")
"""13 tensors and 1000 tensors: what a step costs beside its arithmetic shows in these."""
ROUNDS = 101
TURN = 0.001
"""Shorter than a scheduler's slice, so that most turns are undisturbed on a machine that does other work, too."""

COLUMNS = (
    "Python",
    "torch",
    "read by",
    "tests passed",
    "failed",
    "13 tensors, us",
    "1000 tensors, us",
    "13: torch fused / ours",
    "1000: torch fused / ours",
)
HEAD = """# Versions

Measured by `benchmarks/versions.py`, which `nox -s versions` runs in each environment, on {processor}: AdamW, float32,
one thread. Each row is a Python with a torch; "read by" names the way in which tensors are read, as `onepass info` does.
The tests are the core's: everything that reads tensors, keeps states or meets torch's own code; empty cells have not been
filled by a run yet. The times are those that a tenth of the rounds stayed below, as rows are measured at different times and
only undisturbed rounds can be compared; the ratios are medians of rounds in which both had their turn.

"""


def tests() -> dict[str, str]:
    """Run the core tests in this environment."""
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", *CORE]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout)
    summary = done.stdout.strip().splitlines()[-1]
    found = {
        kind: int(count) for count, kind in re.findall(r"(\d+) (passed|failed|error)", summary)
    }
    if not found:
        message = f"pytest has run no tests: {summary}"
        raise RuntimeError(message)
    failed = found.get("failed", 0) + found.get("error", 0)
    return {"tests passed": str(found.get("passed", 0)), "failed": str(failed)}


def times() -> dict[str, str]:
    """Time our step and torch's fused one, in turn."""
    torch.set_num_threads(1)
    cells = {}
    for name in MODELS_TIMED:
        case = Case(MODELS[name], OPTIMIZERS["AdamW"])
        own, _ = contestants.ours(case)
        theirs = contestants.theirs(case, PEERS["torch-fused"])
        steps = {"ours": own.step, "fused": theirs.step}
        seen = timing.watch(steps, rounds=ROUNDS, turn=TURN)
        for contestant, watched in seen.items():
            if watched.error is not None:
                raise RuntimeError(f"{contestant}: {watched.error}")  # noqa: EM102
        count = len(case.model.shapes)
        tenth = statistics.quantiles(seen["ours"].seconds, n=10)[0] * 1e6
        ratio = statistics.median(timing.ratios(seen["fused"], seen["ours"]))
        cells[f"{count} tensors, us"] = f"{tenth:.1f}" if tenth < 100 else f"{tenth:.0f}"
        cells[f"{count}: torch fused / ours"] = f"{ratio:.1f}"
    return cells


def _split(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _order(key: tuple[str, str]) -> list[list[int]]:
    return [[int(part) for part in version.split(".")] for version in key]


def write(new: dict[str, str], processor: str, table: Path = TABLE) -> None:
    """Put a row into the table; cells that it does not have stay as they were."""
    head = HEAD.format(processor=processor)
    rows: dict[tuple[str, str], dict[str, str]] = {}
    if table.exists() and f" on {processor}:" in table.read_text():
        lines = [line for line in table.read_text().splitlines() if line.startswith("|")]
        columns = _split(lines[0]) if lines else []
        for line in lines[2:]:
            row = dict(zip(columns, _split(line), strict=True))
            rows[row["Python"], row["torch"]] = row
    key = new["Python"], new["torch"]
    rows[key] = rows.get(key, {}) | new
    lines = [COLUMNS, ["---"] * len(COLUMNS)]
    lines += [[rows[key].get(column, "") for column in COLUMNS] for key in sorted(rows, key=_order)]
    table.write_text(head + "".join(f"| {' | '.join(cells)} |\n" for cells in lines))


def main() -> int:
    """Measure this environment; the exit status says whether a test has failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("tests", "times"), help="the other cells stay")
    only = parser.parse_args().only
    row = {
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "torch": torch.__version__.split("+")[0],
        "read by": READER.way,
    }
    if only != "tests":
        row |= times()
    if only != "times":
        row |= tests()
    print(row)
    write(row, machine()["processor"])
    return int(row.get("failed", "0") != "0")


if __name__ == "__main__":
    sys.exit(main())
