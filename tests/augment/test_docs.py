"""The examples of the docstrings and of the page run, and give what they say."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "augmentation.md"


@pytest.mark.parametrize("name", ["augmenter", "dataset"])
def test_docstrings(name: str) -> None:
    failed, attempted = doctest.testmod(importlib.import_module(f"onepass.augment.{name}"))
    assert attempted > 0
    assert failed == 0


def test_page() -> None:
    blocks = re.findall(r"```python\n(>>> .*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 7
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, PAGE.name, str(PAGE), 0)
    assert doctest.DocTestRunner().run(test).failed == 0


def test_pictures_are_there_and_small() -> None:
    names = re.findall(r"\]\((pictures/[^)]*)\)", PAGE.read_text())
    assert len(names) == 3
    assert sum((PAGE.parent / name).stat().st_size for name in names) < 300_000
