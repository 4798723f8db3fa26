"""Tasks: lint, tests, bench, docs. CONTRIBUTING.md says when to use which."""

from __future__ import annotations

from pathlib import Path

import nox

nox.options.sessions = ["lint", "tests", "docs"]
PINS = ("-c", "constraints.txt")


@nox.session
def lint(session: nox.Session) -> None:
    """Style, format, spelling and types."""
    session.install(*PINS, ".[dev]")
    cpp = [
        str(path)
        for path in sorted(Path("csrc").rglob("*"))
        if path.suffix in {".hpp", ".cpp", ".cu", ".cuh"}
    ]
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("clang-format", "--dry-run", "-Werror", *cpp)
    session.run("codespell")
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """All tests; arguments after `--` go to pytest."""
    session.install(*PINS, ".[test]")
    session.run("pytest", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Live random lives of optimizers, 10000 or `-- --lives 100000`, `-- --minutes 60`; `-- --seed 17` tells one."""
    session.install(*PINS, ".[test]")
    session.run("python", "-m", "tests.step.lives", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure this machine; arguments after `--` go to `onepass bench`."""
    session.install(*PINS, ".[bench]")
    session.run("onepass", "bench", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the pages and run their examples; a warning is an error."""
    session.install(*PINS, ".[docs]")
    sphinx = ("sphinx-build", "-q", "-W", "--keep-going")
    session.run(*sphinx, "-b", "doctest", "docs", "docs/_build/doctest")
    session.run(*sphinx, "-b", "html", "docs", "docs/_build/html")
