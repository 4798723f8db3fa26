"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced(file: Path) -> Iterator[Path]:
    """Yield a path beside a file; what was written there takes the file's place, unless an exception comes before."""
    file = file.resolve()
    if (file.exists() and not file.is_file()) or not os.access(file.parent, os.W_OK):
        yield file  # a device, or nothing may be put beside it
        return
    beside = file.with_name(f"{file.name}.part")
    try:
        yield beside
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)
