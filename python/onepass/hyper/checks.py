"""Checks of hyper-parameters: torch's exception types, with name, allowed range and value in the message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from onepass.schedule import Schedule

_TORCH_NAMES = {"lr": "learning rate", "eps": "epsilon value"}


def _message(name: str, value: Any, allowed: str) -> str:
    index = name[-2] if name.endswith("]") else ""
    default = f"beta parameter at index {index}" if index else f"{name} value"
    return f"Invalid {_TORCH_NAMES.get(name, default)}: {value} ({name} must be {allowed})"


def _fail(name: str, value: Any, allowed: str) -> None:
    raise ValueError(_message(name, value, allowed))


def _is_known(name: str, value: Any, allowed: str) -> bool:
    """Return whether a number can be compared here; raise if it is none.

    One on a device is left alone: to look at it is to wait for it, and while a CUDA graph is captured an error.
    """
    if isinstance(value, float | int):
        return True
    if isinstance(value, torch.Tensor):
        if value.numel() != 1:
            message = f"Tensor {name} must be 1-element, got {value.numel()} elements"
            raise ValueError(message)
        return type(value) is torch.Tensor and value.device.type == "cpu"
    if not hasattr(value, "__float__") or isinstance(
        value, type
    ):  # as torch, which takes whatever is one
        raise TypeError(_message(name, repr(value), f"a number {allowed}") + _remedy(name, value))
    return True


def _remedy(name: str, value: Any) -> str:
    if isinstance(value, type) and issubclass(value, Schedule):
        return f": {value.__name__} is a class, write {name}={value.__name__}(...)"
    if isinstance(value, str):
        try:
            return f": write {name}={float(value):g}, without quotes"
        except ValueError:
            return ""
    return ""


def at_least(lower: float, **values: Any) -> None:
    """Check `lower <= value`, which NaN is not."""
    for name, value in values.items():
        if _is_known(name, value, f">= {lower:g}") and not lower <= value:
            _fail(name, value, f">= {lower:g}")


def above(lower: float, **values: Any) -> None:
    """Check `lower < value`."""
    for name, value in values.items():
        if _is_known(name, value, f"> {lower:g}") and not lower < value:
            _fail(name, value, f"> {lower:g}")


def at_most(upper: float, **values: Any) -> None:
    """Check `value <= upper`."""
    for name, value in values.items():
        if _is_known(name, value, f"<= {upper:g}") and not value <= upper:
            _fail(name, value, f"<= {upper:g}")


def numbers(**values: Any) -> None:
    """Check that values are numbers."""
    for name, value in values.items():
        _is_known(name, value, "of any size")


def whole_number(upper: int | None = None, **values: Any) -> None:
    """Check for integers, at least 0 and less than `upper`."""
    allowed = "a whole number >= 0" + ("" if upper is None else f" and < {upper}")
    for name, value in values.items():
        if not isinstance(value, int) or value < 0 or (upper is not None and value >= upper):
            _fail(name, repr(value), allowed)


def betas_in_range(betas: Any) -> None:
    """Check for two numbers in [0, 1)."""
    if not isinstance(betas, Sequence) or isinstance(betas, str) or len(betas) != 2:
        _fail("betas", repr(betas), "two numbers in [0, 1)")
    for name, beta in zip(("betas[0]", "betas[1]"), betas, strict=True):
        if _is_known(name, beta, "in [0, 1)") and not 0.0 <= beta < 1.0:
            _fail(name, beta, "in [0, 1)")


def one_of(allowed: Sequence[Any], **values: Any) -> None:
    """Check that a value is one of a few."""
    for name, value in values.items():
        if isinstance(value, torch.Tensor) or value not in allowed:
            _fail(name, repr(value), "one of " + ", ".join(map(repr, allowed)))
