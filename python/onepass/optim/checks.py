"""Checks of hyper-parameters: torch's exception types, with name, allowed range and value in the message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

_TORCH_NAMES = {"lr": "learning rate", "eps": "epsilon value"}


def _fail(name: str, value: Any, allowed: str) -> None:
    index = name[-2] if name.endswith("]") else ""
    default = f"beta parameter at index {index}" if index else f"{name} value"
    message = f"Invalid {_TORCH_NAMES.get(name, default)}: {value} ({name} must be {allowed})"
    raise ValueError(message)


def _one_element(name: str, value: Any) -> None:
    if isinstance(value, torch.Tensor) and value.numel() != 1:
        message = f"Tensor {name} must be 1-element, got {value.numel()} elements"
        raise ValueError(message)


def at_least(lower: float, **values: Any) -> None:
    """Check `lower <= value`, which NaN is not."""
    for name, value in values.items():
        _one_element(name, value)
        if not lower <= value:
            _fail(name, value, f">= {lower:g}")


def above(lower: float, **values: Any) -> None:
    """Check `lower < value`."""
    for name, value in values.items():
        if not lower < value:
            _fail(name, value, f"> {lower:g}")


def below(upper: float, *, inclusive: bool = False, **values: Any) -> None:
    """Check `value < upper`, or `value <= upper`."""
    for name, value in values.items():
        if not (value < upper or (inclusive and value == upper)):
            _fail(name, value, f"{'<=' if inclusive else '<'} {upper:g}")


def betas_in_range(betas: Sequence[Any]) -> None:
    """Check `0 <= beta < 1` for both of Adam's betas."""
    for index in (0, 1):
        _one_element(f"betas[{index}]", betas[index])
        if not 0.0 <= betas[index] < 1.0:
            _fail(f"betas[{index}]", betas[index], "in [0, 1)")


def one_of(allowed: Sequence[Any], **values: Any) -> None:
    """Check that a value is one of a few."""
    for name, value in values.items():
        if value not in allowed:
            _fail(name, repr(value), "one of " + ", ".join(map(repr, allowed)))
