"""Every example of the docstrings and of the page on schedules runs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

from onepass import schedule

PAGE = Path(__file__).parents[2] / "docs" / "schedules.md"
MODULES = [m.name for m in pkgutil.iter_modules(schedule.__path__, "onepass.schedule.")]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_every_schedule_has_an_example() -> None:
    finder = doctest.DocTestFinder(recurse=False)
    for name in schedule.__all__:
        thing = getattr(schedule, name)
        assert any(test.examples for test in finder.find(thing, name)), name


def test_page() -> None:
    blocks = re.findall(r"^```python\n(>>> .*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 10
    test = doctest.DocTestParser().get_doctest("".join(blocks), {}, PAGE.name, str(PAGE), 0)
    assert doctest.DocTestRunner().run(test).failed == 0


def test_page_names_every_schedule() -> None:
    text = PAGE.read_text()
    assert [name for name in schedule.__all__ if f"`{name}(" not in text] == [
        "RangeTest",
        "Schedule",
    ]
