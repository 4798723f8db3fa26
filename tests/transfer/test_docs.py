"""Every example of the docstrings and of the page on transfer learning runs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

from onepass import transfer

PAGE = Path(__file__).parents[2] / "docs" / "transfer.md"
MODULES = [m.name for m in pkgutil.iter_modules(transfer.__path__, "onepass.transfer.")]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_every_function_has_an_example() -> None:
    finder = doctest.DocTestFinder(recurse=False)
    for name in transfer.__all__:
        thing = getattr(transfer, name)
        if not isinstance(thing, type):
            assert any(test.examples for test in finder.find(thing, name)), name


def test_page() -> None:
    blocks = re.findall(r"^```python\n(>>> .*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 6
    test = doctest.DocTestParser().get_doctest("".join(blocks), {}, PAGE.name, str(PAGE), 0)
    assert doctest.DocTestRunner().run(test).failed == 0


def test_page_names_every_function() -> None:
    text = PAGE.read_text()
    functions = [n for n in transfer.__all__ if not isinstance(getattr(transfer, n), type)]
    assert [name for name in functions if f"`{name}(" not in text] == []
