"""What can be found wrong with arguments before anything is measured or trained."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

SCHEMA = 1
"""Of the results files of `onepass bench`."""
_OF_DOCUMENTS = ("machine", "versions", "method", "cases", "left_out")
_OF_CASES = ("title", "optimizer", "dtype", "threads", "tensors", "parameters", "results")
_MODULES = {"scikit-learn": "sklearn"}
"""Modules that are not called as their packages."""

_NO_PICTURES = {"pgf", "raw", "rgba"}
"""Formats of matplotlib that need LaTeX, or that nothing shows."""


class UsageError(Exception):
    """Arguments that cannot be followed here."""


def need(*packages: str) -> None:
    """Raise if a package is not installed.

    Raises:
        UsageError: It is not; the message has the command that installs all of them.
    """
    missing = [
        module
        for package in packages
        if importlib.util.find_spec(module := _MODULES.get(package, package)) is None
    ]
    if missing:
        message = f"needs {' and '.join(missing)}: pip install {' '.join(packages)}"
        raise UsageError(message)


def output(option: str, file: Path) -> None:
    """Raise if a file could not be written.

    Raises:
        UsageError: There is no such directory, or no permission.
    """
    if not file.parent.is_dir():
        raise _refused(option, file, f"there is no directory {file.parent}")
    if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
        raise _refused(option, file, "cannot be written")


def picture(option: str, file: Path) -> None:
    """Raise if a picture could not be saved.

    Raises:
        UsageError: The ending of its name is no format, or it could not be written.
    """
    if file.suffix.lstrip(".").lower() not in (known := formats()):
        raise _refused(option, file, f"the ending of the name must be one of {', '.join(known)}")
    output(option, file)


def formats() -> list[str]:
    """Return the endings that pictures may have."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    return sorted(FigureCanvasAgg.get_supported_filetypes().keys() - _NO_PICTURES)


def results(file: Path) -> dict[str, Any]:
    """Return what a results file of `onepass bench` holds.

    Raises:
        UsageError: It cannot be read, or holds something else.
    """
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        message = f"--load {file}: {error.strerror}"
        raise UsageError(message) from None
    except ValueError as error:
        raise _no_results(file, f"no JSON, {error}") from None
    if not isinstance(document, dict) or "schema" not in document:
        raise _no_results(file, "it names no schema")
    if document["schema"] != SCHEMA:
        raise _no_results(file, f"its schema is {document['schema']}, not {SCHEMA}")
    for name in _OF_DOCUMENTS:
        if name not in document:
            raise _no_results(file, f"it has no {name}")
    for number, case in enumerate(document["cases"]):
        for name in _OF_CASES:
            if name not in case:
                raise _no_results(file, f"case {number} has no {name}")
    return document


def _no_results(file: Path, why: str) -> UsageError:
    return UsageError(f"--load {file}: no results file of onepass bench ({why})")


def _refused(option: str, file: Path, why: str) -> UsageError:
    return UsageError(f"{option} {file}: {why}")
