"""The recorded results, and what the README shows of them."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "benchmarks" / "results" / "steps.md"


@pytest.fixture
def readme() -> str:
    return (ROOT / "README.md").read_text()


def rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


def test_the_table_of_the_readme_is_that_of_the_record(readme: str) -> None:
    speed = readme.partition("## Speed")[2].partition("\n## ")[0]
    shown, recorded = rows(speed), rows(RECORD.read_text())
    assert len(shown) > 6
    assert shown[:2] == recorded[:2]  # the headings
    assert set(shown) <= set(recorded)


def test_the_readme_shows_the_command_of_the_record(readme: str) -> None:
    command = RECORD.read_text().partition("Command: `")[2].partition("`")[0]
    assert command.startswith("onepass bench ")
    assert f"\n{command}\n" in readme
