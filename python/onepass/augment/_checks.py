"""Arguments made definite: each function returns a plain value or raises a ValueError that names the argument."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, NoReturn

import numpy as np
import torch

FILL_MODES = ("nearest", "reflect", "mirror", "wrap", "constant")
INTERPOLATIONS = ("bilinear", "nearest")
LAYOUTS = ("NCHW", "NHWC")


def refuse(name: str, must: str, value: object) -> NoReturn:
    """Raise the ValueError that says what `name` must be and what was given instead."""
    message = f"{name} must be {must}, got {value!r}"
    raise ValueError(message)


def number(name: str, value: Any, must: str, low: float, high: float) -> float:
    """A finite number in [low, high); `must` says so in words."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        refuse(name, must, value)
    plain = float(value)
    if not (low <= plain < high) or math.isinf(plain):
        refuse(name, must, value)
    return plain


def whole(name: str, value: Any, low: int, high: int) -> int:
    """An integer in [low, high]."""
    must = f"an integer in [{low}, {high}]"
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        refuse(name, must, value)
    try:
        plain = int(value.__index__())
    except TypeError:  # a tensor or an array that is not one whole number
        refuse(name, must, value)
    if not low <= plain <= high:
        refuse(name, must, value)
    return plain


def flag(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, (bool, np.bool_)):
        refuse(name, "True or False", value)
    return bool(value)


def choice(name: str, value: Any, options: tuple[str, ...]) -> str:
    """One of the given strings."""
    if not isinstance(value, str) or value not in options:
        refuse(name, "one of " + ", ".join(map(repr, options)), value)
    return value


def size(name: str, value: Any) -> tuple[int, int]:
    """(height, width) in pixels."""
    if not isinstance(value, (Sequence, np.ndarray, torch.Size)) or len(value) != 2:
        refuse(name, "a pair (height, width)", value)
    height, width = (whole(name, side, 1, 2**30) for side in value)
    return height, width


def zoom(value: Any) -> tuple[float, float]:
    """(low, high) from either form of `zoom_range`."""
    must = "a number in [0, 1) or a pair (low, high) with 0 < low <= high"
    if isinstance(value, Real):
        z = number("zoom_range", value, must, 0, 1)
        return 1 - z, 1 + z
    if not isinstance(value, (Sequence, np.ndarray)) or isinstance(value, str) or len(value) != 2:
        refuse("zoom_range", must, value)
    low, high = (number("zoom_range", factor, must, 0, math.inf) for factor in value)
    if not 0 < low <= high:
        refuse("zoom_range", must, value)
    return low, high


def per_channel(name: str, value: Any) -> tuple[float, ...] | None:
    """None, or one number for all channels or for each; a standard deviation is positive."""
    must = "None, a finite number or one per channel"
    if value is None:
        return None
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    try:
        numbers = np.atleast_1d(np.asarray(value, np.float64))
    except (TypeError, ValueError):
        refuse(name, must, value)
    if numbers.ndim != 1 or numbers.size == 0:
        refuse(name, must, value)
    with np.errstate(over="ignore", under="ignore"):
        stored = numbers.astype(np.float32)
    if not np.isfinite(stored).all():
        refuse(name, must, value)
    if name == "std" and not (stored > 0).all():
        refuse(name, "positive", value)
    return tuple(numbers.tolist())


def sample_numbers(name: str, value: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    """A one-dimensional array of numbers of samples."""
    must = "a sequence of integers >= 0"
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    try:
        numbers = np.asarray(value)
    except (TypeError, ValueError):
        refuse(name, must, value)
    if numbers.ndim != 1 or (numbers.size > 0 and numbers.dtype.kind not in "iu"):
        refuse(name, must, value)
    if numbers.size > 0 and (numbers.min() < 0 or numbers.max() >= 2**63):
        refuse(name, must, value)
    return np.ascontiguousarray(numbers, np.int64)
