"""Every page of the documentation can be pasted into an empty interpreter, from its first line on."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```(?:python|pycon)\n(>>> .*?)^```$", re.DOTALL | re.MULTILINE)
PAGES = sorted(
    page.relative_to(DOCS).as_posix()
    for page in DOCS.rglob("*.md")
    if "_build" not in page.parts and BLOCK.search(page.read_text())
)


def test_most_pages_have_examples() -> None:
    assert len(PAGES) > 15


@pytest.mark.parametrize("name", PAGES)
def test_page(name: str) -> None:
    text = "\n".join(BLOCK.findall((DOCS / name).read_text()))
    examples = doctest.DocTestParser().get_doctest(text, {}, name, name, 0)
    said: list[str] = []
    assert doctest.DocTestRunner().run(examples, out=said.append).failed == 0, "".join(said)
