"""The rooms of the package stand one above the other: a file imports from its own room and from those below it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import onepass

ROOMS = ["hyper", "state", "device", "step", "optim"]
"""From the lowest up; what is not in a room (the compiled part, schedules, the reader) is below all of them."""
PACKAGE = Path(onepass.__file__).parent
BELOW = {"_core", "reader", "schedule"}


def imported(source: str) -> Iterator[str]:
    """Modules of the package that a source imports, wherever in it: under TYPE_CHECKING and in functions, too."""
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{name.name}" for name in node.names]
        yield from (name.removeprefix("onepass.") for name in names if name.startswith("onepass."))


def upward(room: str, source: str) -> list[str]:
    """What a file of a room imports and should not."""
    allowed = {*BELOW, *ROOMS[: ROOMS.index(room) + 1]}
    return [name for name in imported(source) if name.split(".")[0] not in allowed]


def circle(sources: dict[str, str]) -> list[str]:
    """Modules that reach themselves by their imports."""
    arrows = {
        module: {
            name for name in sources if any(f"{i}.".startswith(f"{name}.") for i in imported(s))
        }
        for module, s in sources.items()
    }
    while leaves := [module for module, targets in arrows.items() if not targets]:
        for leaf in leaves:
            del arrows[leaf]
        for targets in arrows.values():
            targets.difference_update(leaves)
    return sorted(arrows)


def sources_of(room: str) -> dict[str, str]:
    return {f"{room}.{path.stem}": path.read_text() for path in (PACKAGE / room).glob("*.py")}


@pytest.mark.parametrize("room", ROOMS)
def test_no_file_imports_upward(room: str) -> None:
    sources = sources_of(room)
    assert len(sources) > 2
    for module, source in sources.items():
        assert not upward(room, source), module


@pytest.mark.parametrize("room", ROOMS)
def test_no_circle(room: str) -> None:
    sources = sources_of(room)
    del sources[f"{room}.__init__"]
    assert circle(sources) == []


@pytest.mark.parametrize("name", ["_core", "reader", "schedule"])
def test_what_is_below_knows_no_room(name: str) -> None:
    files = (
        (PACKAGE / name).rglob("*.py") if (PACKAGE / name).is_dir() else [PACKAGE / f"{name}.py"]
    )
    for path in files:
        found = imported(path.read_text()) if path.exists() else []
        assert not [i for i in found if i.split(".")[0] not in BELOW], path


def test_the_test_sees() -> None:
    base = "from onepass.optim.describing import update"
    late = "if TYPE_CHECKING:\n    from onepass.optim.base import OnePass"
    assert circle({"optim.base": base, "optim.describing": late}) == [
        "optim.base",
        "optim.describing",
    ]
    assert upward("step", late) == ["optim.base.OnePass"]
    assert upward("step", "def f():\n    from onepass import optim") == ["optim"]
