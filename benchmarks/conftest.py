from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _release_tensors() -> Iterator[None]:
    """Return the memory of one model before the next one is made."""
    yield
    gc.collect()
