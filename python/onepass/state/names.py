"""Names in the state of a parameter, and what messages call the parameter."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import torch

from onepass.hyper.spec import Group

States = dict[torch.Tensor, Any]
"""The state of an optimizer: a dict for each parameter that has one."""

EMA, MASTER, ANCHOR = "ema", "master", "anchor"
READABLE = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def intern_keys(own: dict[Any, Any]) -> None:
    """Have the names in a state be those that all states share, by which a step finds them without comparing letters."""
    items = [(sys.intern(key) if type(key) is str else key, value) for key, value in own.items()]
    own.clear()
    own.update(items)


class Extras(NamedTuple):
    """Names of what a group keeps beyond the states of its rule."""

    scales: tuple[str, ...] = ()
    ema: str | None = None
    master: str | None = None
    anchor: str | None = None


def code_key(key: str) -> str:
    """Return the name of the bytes of an 8-bit state."""
    return sys.intern(f"{key}_code")


def scale_key(key: str) -> str:
    """Return the name of the block scales of an 8-bit state."""
    return sys.intern(f"{key}_scale")


def name_of(groups: list[Group], g: int, i: int) -> str:
    """Return how messages call a parameter."""
    names = groups[g].get("param_names")
    name = f" ({names[i]!r})" if names else ""
    return f"parameter {i} of group {g}{name}"
