"""What the figures were measured on."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import onepass
from onepass import _core
from onepass.bench import memory
from onepass.bench.peers import PEERS

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_TIMES = Path("/proc/stat")
_SHORTEST = 0.1
"""Seconds that `_TIMES` can measure: it counts hundredths."""
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def machine() -> dict[str, Any]:
    """Return what decides of speed, as far as the system tells."""
    free = memory.available()
    return {
        "processor": processor(),
        "processors": available_processors(),
        "caches": _caches(),
        "available_memory_gib": None if free is None else round(free / 2**30, 1),
        "transparent_hugepage": _first(_HUGE_PAGES),
        "system": platform.platform(),
        "instruction_set": _core.isa(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "environment": {
            k: v for k, v in os.environ.items() if k.startswith(("OMP_", "ONEPASS_", "MALLOC_"))
        },
    }


def versions() -> dict[str, str]:
    """Return the versions of everything that takes part."""
    found = {
        "onepass": onepass.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    for peer in PEERS.values():
        if peer.package not in found:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                found[peer.package] = importlib.metadata.version(peer.package)
    return found


def available_processors() -> int:
    """Return how many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def load() -> float | None:
    """Return how many processes want to run, as an average over the last minute."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


class OtherWork:
    """What processors do for others than this process, from its making on."""

    def __init__(self) -> None:
        self._began, self._before = time.perf_counter(), _work_of_others()

    def processors(self) -> float | None:
        """Return how many processors that took, or None where it is not known."""
        after, seconds = _work_of_others(), time.perf_counter() - self._began
        if self._before is None or after is None or seconds < _SHORTEST:
            return None
        return round(max(0.0, after - self._before) / seconds, 2)


def _work_of_others() -> float | None:
    """Return the seconds of all processors since the system's start that were not for this process."""
    try:
        times = [int(word) for word in _TIMES.read_text().splitlines()[0].split()[1:9]]
    except OSError:
        return None
    user, nice, system, _idle, _waiting, interrupts, soft_interrupts, stolen = times
    work = user + nice + system + interrupts + soft_interrupts + stolen
    return work / os.sysconf("SC_CLK_TCK") - time.process_time()


def processor() -> str:
    """Return the model of the processor, as the system names it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _caches() -> dict[str, str]:
    found = {}
    for index in sorted(_CACHES.glob("index*")):
        kind, level, size = (_first(index / name) for name in ("type", "level", "size"))
        if kind in ("Data", "Unified") and level and size:
            found[f"L{level}"] = size
    return found


def _first(file: Path) -> str | None:
    try:
        return file.read_text().strip()
    except OSError:
        return None
