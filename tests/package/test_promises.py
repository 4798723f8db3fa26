"""The tests that docs/correctness.md names for the promises exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "correctness.md"
NAME = re.compile(r"`(\w+/test_\w+\.py)::(\w+)`")

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="no documentation beside the tests")


def rows() -> list[str]:
    """Rows of the tables of promises, without their heads."""
    section = PAGE.read_text().split("## Which test guards which promise")[1].split("\n## ")[0]
    return [
        line
        for line in section.splitlines()
        if line.startswith("| ") and line != "| promise | tests |"
    ]


def functions(file: Path) -> set[str]:
    tree = ast.parse(file.read_text()) if file.exists() else ast.Module([], [])
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def missing(lines: list[str]) -> list[str]:
    named = {name for line in lines for name in NAME.findall(line)}
    return [
        f"{file}::{name}"
        for file, name in sorted(named)
        if name not in functions(ROOT / "tests" / file)
    ]


def test_every_promise_has_a_test() -> None:
    assert len(rows()) > 50
    for row in rows():
        assert NAME.search(row), row


def test_what_is_named_exists() -> None:
    assert missing(rows()) == []


def test_the_test_sees() -> None:
    assert missing(["| that | `step/test_lives.py::test_no_such` |"]) == [
        "step/test_lives.py::test_no_such"
    ]
    assert missing(["| that | `step/test_no.py::test_lives` |"]) == ["step/test_no.py::test_lives"]
