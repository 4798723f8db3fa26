"""``onepass info``: what a bug report needs."""

from __future__ import annotations

import json
import os
import platform
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

import onepass
from onepass import _core
from onepass.bench.machine import available_processors, processor
from onepass.device import extension
from onepass.optim.optimizer import OnePass
from onepass.reader import READER, reason_for_way
from onepass_cli import main

__all__ = ["info", "main", "print_info"]

_PREFIXES = ("ONEPASS_", "OMP_", "GOMP_", "KMP_")
"""Of the environment variables that decide how a step runs."""


def info() -> dict[str, str]:
    """Return what `onepass info` prints: versions, the machine, and how a step will run in this process."""
    return {
        "onepass": onepass.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "Python": f"{platform.python_version()} ({platform.python_implementation()})",
        "system": platform.platform(),
        "C library": " ".join(platform.libc_ver()).strip() or "unknown",
        "compiler": _core.compiler,
        "processor": processor(),
        "processors": f"{available_processors()} of {os.cpu_count()} for this process",
        "threads": str(_core.available_threads()),
        "instruction set": _instruction_set(),
        "instruction sets available": ", ".join(
            name for name, runs in _core.isas().items() if runs
        ),
        "CUDA": _cuda(),
        "tensors read through": _reading(),
        "steps in the kernels": _classes(),
        "OpenMP runtime": _openmp(),
        "environment": ", ".join(
            f"{name}={value}"
            for name, value in sorted(os.environ.items())
            if name.startswith(_PREFIXES)
        )
        or "none of " + ", ".join(f"{prefix}*" for prefix in _PREFIXES),
    }


def print_info(*, as_json: bool = False) -> None:
    """Print it, a line for each entry."""
    lines = info()
    if as_json:
        print(json.dumps(lines, indent=1))
        return
    width = max(map(len, lines))
    for name, value in lines.items():
        print(f"{name:<{width}}  {value}")


def _instruction_set() -> str:
    return f"{_core.isa()} (ONEPASS_CPU)" if os.environ.get("ONEPASS_CPU") else _core.isa()


def _cuda() -> str:
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    found = f"torch finds {', '.join(names) or 'no device'}"
    module = extension.cuda_module()
    if module is None:
        return f"not built in; {found}"
    architectures = module.architectures.replace("-real", "").replace("-virtual", " as PTX")
    built = f"built for {architectures.replace(',', ', ')}"
    return f"{built}; {module.driver_problem() or found}"


def _reading() -> str:
    ways = {
        "native": "libtorch's functions and objects",
        "functions": "libtorch's functions",
        "dlpack": "torch's DLPack table",
        "none": "nothing: every step is torch's own",
    }
    reason = reason_for_way()
    return ways[READER.way] + (f", not in the fastest way: {reason}" if reason else "")


def _classes() -> str:
    """Return which classes step in the kernels here, by a step of each."""
    public = (getattr(onepass, name) for name in onepass.__all__)
    kinds = [kind for kind in public if isinstance(kind, type) and issubclass(kind, OnePass)]
    ways: dict[str, list[str]] = {}
    for kind in kinds:
        ways.setdefault(_way_of(kind), []).append(kind.__name__)
    return "; ".join(
        f"{', '.join(names)}{f': {way}' if way else ''}" for way, names in ways.items()
    )


def _way_of(kind: Any) -> str:
    """Return in which other way than in the kernels a class steps, or an empty text."""
    parameter = torch.nn.Parameter(torch.ones(2, 2))
    parameter.grad = torch.ones(2, 2)
    left_to_torch: list[Any] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer = kind([parameter])
            vars(optimizer)["_torch_step"] = lambda groups, _: left_to_torch.extend(groups)
            optimizer.step()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "torch's own step" if left_to_torch else ""


def _openmp() -> str:
    """Return the OpenMP runtime that torch and we use, and others in this process, whose threads would compete with its."""
    ours = _core.openmp_runtime()
    maps = Path("/proc/self/maps")
    lines = maps.read_text().splitlines() if maps.exists() else []
    mapped = {line.split(maxsplit=5)[-1] for line in lines if "/" in line}
    runtimes = {p for p in mapped if Path(p).name.startswith(("libgomp", "libiomp", "libomp"))}
    others = sorted(p for p in runtimes if not ours or not Path(p).samefile(ours))
    used = ours or "none that torch uses: one thread"
    return ", ".join([used, *(f"beside it {other}" for other in others)])
