"""Every public name has its place in the reference."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import onepass

DOCS = Path(__file__).parents[2] / "docs"
TEXT = "\n".join(p.read_text() for p in sorted(DOCS.rglob("*.md")) if "_build" not in p.parts)


def documented() -> set[str]:
    """Return the full names that the pages have autodoc write about."""
    found = set(re.findall(r"^\.\. auto(?:class|function):: (\S+)$", TEXT, re.MULTILINE))
    for module, members in re.findall(
        r"^\.\. automodule:: (\S+)\n   :members: (.+)$", TEXT, re.MULTILINE
    ):
        found |= {f"{module}.{name}" for name in members.split(", ")}
    return found


@pytest.mark.parametrize(
    "module", ["onepass", "onepass.schedule", "onepass.augment", "onepass.transfer"]
)
def test_public_names(module: str) -> None:
    place = onepass if module == "onepass" else getattr(onepass, module.partition(".")[2])
    modules = {"augment", "schedule", "transfer"}
    names = {f"{module}.{name}" for name in place.__all__ if name not in modules}
    assert names
    assert names - documented() == set()


def test_the_report() -> None:
    assert "onepass.step.report.Report" in documented()
