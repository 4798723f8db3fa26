"""The recorded results, and what the README shows of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "benchmarks" / "results" / "steps.md"


@pytest.fixture
def readme() -> str:
    return (ROOT / "README.md").read_text()


def rows() -> list[dict[str, str]]:
    """Return the table of the record, by its headings."""
    lines = [line for line in RECORD.read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def of_torch_fused(optimizers: str, models: str) -> list[str]:
    found = [
        row["torch fused"].split()[0]
        for row in rows()
        if row["optimizer"] in optimizers.split(",") and row["model"] in models.split(",")
    ]
    return sorted(found, key=float)


LARGE = "ResNet-50,64 M tensor,GPT-2 small"
FUSED = "SGD,Momentum,Adagrad,Adam,AdamW"


def test_the_figures_of_the_readme_are_those_of_the_record(readme: str) -> None:
    speed = " ".join(readme.partition("## Speed")[2].partition("\n## ")[0].split())
    for model, words in {
        "RL policy": "on the 13 tensors of an RL policy",
        "1000 x 64": "on 1000 small tensors",
        "MLP": "on an MLP",
    }.items():
        (ratio,) = of_torch_fused("AdamW", model)
        assert re.search(rf"\b{ratio} times (as fast )?{words}", speed)
    adamw = of_torch_fused("AdamW", LARGE)
    assert f"{adamw[0]} to {adamw[-1]} times on models of 25 to 124 million" in speed
    fused = of_torch_fused(FUSED, LARGE)
    assert f"torch's fused one {fused[0]} to {fused[-1]} times as long" in speed
    best = re.search(
        r"best peer: (\S+) times .*\(geometric mean of (\d+) pairs", RECORD.read_text()
    )
    assert best is not None
    assert f"Over {best[2]} pairs" in speed
    assert f"{best[1]} times as long in the geometric mean" in speed


def test_the_readme_shows_the_command_of_the_record(readme: str) -> None:
    command = RECORD.read_text().partition("Command: `")[2].partition("`")[0]
    assert command.startswith("onepass bench ")
    assert f"\n{command}\n" in readme
