"""The table of parameter groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

__all__ = ["table"]

_COLUMNS = ("group", "tensors", "numbers", "lr", "lr_factor", "weight_decay")
_HIDDEN = ("params", "param_names", "name", "lr", "lr_factor", "weight_decay")


def table(groups: Sequence[Mapping[str, Any]]) -> str:
    """Return a line for every group: its size, its rates, and the other options where there are any."""
    rows = [list(_COLUMNS)]
    total = [0, 0]
    for group in groups:
        # an optimizer keeps the names apart from the parameters
        params = [p[1] if isinstance(p, tuple) else p for p in group["params"]]
        sizes = len(params), sum(p.numel() for p in params)
        total = [sum(pair) for pair in zip(total, sizes, strict=True)]
        rates = [group["lr"], group.get("lr_factor", ""), group.get("weight_decay", "default")]
        more = [
            f"{name}={_short(value)}"
            for name, value in group.items()
            if name not in _HIDDEN and not (name == "l1_decay" and value == 0.0)
        ]
        rows.append([group["name"], *map(str, sizes), *map(_short, rates), " ".join(more)])
    rows.append(["total", *map(str, total)])
    if any(len(row) > len(_COLUMNS) and row[-1] for row in rows[1:]):
        rows[0].append("options")
    width = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width[i]) if i in (0, len(_COLUMNS)) else cell.rjust(width[i])
            for i, cell in enumerate(row[: len(width)])
        ).rstrip()
        for row in rows
    )


def _short(value: Any) -> str:
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    return f"{value:.6g}" if isinstance(value, float) else str(value)
