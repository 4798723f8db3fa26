"""Memory: how much there is, and how much a step takes for a moment above the tensors themselves."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_FORGET_PEAK = Path("/proc/self/clear_refs")
_FREE_BLOCKS = Path("/proc/buddyinfo")
_WHOLE = 2 << 20
"""Bytes of a block of physical memory that is no scrap."""


def available(device: str = "cpu") -> int | None:
    """Return the bytes that can be had without swapping, or None where the system does not tell."""
    if device != "cpu":
        return torch.cuda.mem_get_info()[0]
    with contextlib.suppress(OSError, KeyError):
        return _kilobytes(Path("/proc/meminfo"), "MemAvailable") * 1024
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return None


@contextlib.contextmanager
def without_scraps() -> Iterator[None]:
    """Hold the free memory that lies in small blocks, so that nobody's tensors get it.

    The kernel gives it away first. Whoever allocated first would be up to a tenth slower than who came last.
    """
    held = torch.ones(min(_scraps(), (available() or 0) // 4), dtype=torch.uint8)
    try:
        yield
    finally:
        del held


def _scraps() -> int:
    found = 0
    with contextlib.suppress(OSError):
        for zone in _FREE_BLOCKS.read_text().splitlines():
            # How many blocks of 1, 2, 4, ... pages are free.
            sizes = ((int(n), mmap.PAGESIZE << k) for k, n in enumerate(zone.split()[4:]))
            found += sum(count * size for count, size in sizes if size < _WHOLE)
    return found


def extra_memory(step: Callable[[], object], device: str = "cpu") -> int | None:
    """Return the bytes by which resident memory grows for a moment while `step` runs, or None if not on Linux.

    The step must have run before, so that its states exist. The allocator first returns all that it holds in
    reserve: temporaries would hide there. Precise to some 100 KiB, since the kernel counts pages per processor.
    Of a CUDA device, torch's allocator tells.
    """
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        allocated = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - allocated
    try:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        _FORGET_PEAK.write_text("5")
        before = _kilobytes(_STATUS, "VmRSS")
        step()
        return max(0, _kilobytes(_STATUS, "VmHWM") - before) * 1024
    except (OSError, KeyError):
        return None


def _kilobytes(file: Path, name: str) -> int:
    values = dict(line.split(":", 1) for line in file.read_text().splitlines() if ":" in line)
    return int(values[name].split()[0])
