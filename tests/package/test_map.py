"""The map in CONTRIBUTING.md is true: whatever it names exists, and every room stands in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOTS = ("python/onepass", "csrc", "tests")
NAME = re.compile(r"(?<![\w./*])(\w+/|\w+\.(?:cpp|hpp|cuh|cu|pyi|py))(?![\w*])")

pytestmark = pytest.mark.skipif(
    not (ROOT / "CONTRIBUTING.md").exists(), reason="no source beside the tests"
)


def the_map() -> str:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    return text.split("## Architecture")[1].split("```text\n")[1].split("```")[0]


def paths(drawn: str) -> list[str]:
    """Paths that a map names: a line's indentation says in which folder, its words which files and folders there."""
    found, folders = [], [""]
    for line in drawn.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        if depth == 0:
            folders = [line.split()[0]]
            found.append(folders[0])
            continue
        del folders[depth:]
        inside = "".join(folders)
        first = line.split()[0]
        # A line about a room's file may name others of the room; one about a room, rooms beside it, or files inside.
        for name in NAME.findall(line):
            is_inside = first.endswith("/") and not name.endswith("/")
            found.append(inside + (first if is_inside else "") + name)
        if first.endswith("/"):
            folders.append(first)
    return found


def missing(drawn: str) -> list[str]:
    return [path for path in paths(drawn) if not (ROOT / path).exists()]


def unnamed(drawn: str) -> list[str]:
    named = {path.rstrip("/") for path in paths(drawn)}
    rooms = [
        path.relative_to(ROOT).as_posix()
        for root in ROOTS
        for path in sorted((ROOT / root).iterdir())
        if path.is_dir() and any(path.glob("*.*")) and not path.name.startswith(("_", "."))
    ]
    assert len(rooms) > 20
    return [room for room in rooms if room not in named]


def test_what_is_named_exists() -> None:
    assert len(paths(the_map())) > 80
    assert missing(the_map()) == []


def test_every_room_is_named() -> None:
    assert unnamed(the_map()) == []


@pytest.mark.parametrize("place", ["step/", "stepper.py", "rules.hpp", "one_pass/", "_cuda.pyi"])
def test_the_test_sees_names(place: str) -> None:
    other = the_map().replace(place, f"x{place}")
    assert missing(other)


def test_the_test_sees_rooms() -> None:
    other = re.sub(r"^  state/.*\n", "", the_map(), flags=re.MULTILINE)
    assert unnamed(other) == ["python/onepass/state"]
