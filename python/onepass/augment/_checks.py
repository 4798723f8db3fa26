"""Arguments made definite: each function returns a plain value or raises a ValueError that names the argument."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch

if TYPE_CHECKING:
    from onepass.augment.augmenter import Augmenter

FILL_MODES = ("nearest", "reflect", "mirror", "wrap", "constant")
INTERPOLATIONS = ("bilinear", "nearest")
LAYOUTS = ("NCHW", "NHWC")

_ANGLE = "an angle in degrees, in [0, 360]"
_SHEAR = "an angle in degrees, in [0, 90)"
_FRACTION = "a fraction of the size, in [0, 1); pixels are not taken"


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
    except (TypeError, RuntimeError):  # a tensor or an array that is not one whole number
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
    try:
        numbers = np.atleast_1d(np.asarray(on_host(value), np.float64))
    except (TypeError, ValueError, RuntimeError):
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


def on_host(value: Any) -> Any:
    """`value`, or NumPy's form of it for a tensor or a list of tensors, wherever they are."""
    if isinstance(value, torch.Tensor):
        tensor = value.detach().cpu()
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], torch.Tensor):
        return [on_host(item) for item in value]
    return value


def whole_numbers(name: str, value: Any, must: str) -> np.ndarray[Any, np.dtype[Any]]:
    """An array of whole numbers, of any shape; `must` says in words what it is to be."""
    try:
        numbers = np.asarray(on_host(value))
    except (TypeError, ValueError, RuntimeError):
        refuse(name, must, value)
    if numbers.size > 0 and numbers.dtype.kind not in "iu":
        refuse(name, must, value)
    return numbers


def sample_numbers(name: str, value: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    """A one-dimensional array of numbers of samples."""
    must = "a sequence of integers >= 0"
    numbers = whole_numbers(name, value, must)
    if numbers.ndim != 1:
        refuse(name, must, value)
    if numbers.size > 0 and (numbers.min() < 0 or numbers.max() >= 2**63):
        refuse(name, must, value)
    return np.ascontiguousarray(numbers, np.int64)


def cval(value: Any) -> float:
    """The constant fill."""
    return number("cval", value, "a finite number", -math.inf, math.inf)


def layout(value: Any) -> str | None:
    """A layout or None."""
    return None if value is None else choice("layout", value, LAYOUTS)


def spread(name: str, numbers: Any, channels: int, default: float) -> tuple[float, ...]:
    """One number per channel from None, one number or as many as channels."""
    given: tuple[float, ...] = (default,) if numbers is None else numbers
    if len(given) not in (1, channels):
        refuse(name, f"one number or one for each of {channels} channels", given)
    return given * channels if len(given) == 1 else given


def settings(aug: Augmenter) -> dict[str, Any]:
    """An augmenter's arguments, checked and definite."""
    above_360 = math.nextafter(360, math.inf)
    factors = zoom(aug.zoom_range)
    definite: dict[str, Any] = {
        "rotation_range": number("rotation_range", aug.rotation_range, _ANGLE, 0, above_360),
        "width_shift_range": number("width_shift_range", aug.width_shift_range, _FRACTION, 0, 1),
        "height_shift_range": number("height_shift_range", aug.height_shift_range, _FRACTION, 0, 1),
        "shear_range": number("shear_range", aug.shear_range, _SHEAR, 0, 90),
        "zoom_range": float(aug.zoom_range) if isinstance(aug.zoom_range, Real) else factors,
        "horizontal_flip": flag("horizontal_flip", aug.horizontal_flip),
        "vertical_flip": flag("vertical_flip", aug.vertical_flip),
        "crop": None if aug.crop is None else size("crop", aug.crop),
        "crop_padding": whole("crop_padding", aug.crop_padding, 0, 2**30),
        "fill_mode": choice("fill_mode", aug.fill_mode, FILL_MODES),
        "cval": cval(aug.cval),
        "interpolation": choice("interpolation", aug.interpolation, INTERPOLATIONS),
        "mean": per_channel("mean", aug.mean),
        "std": per_channel("std", aug.std),
        "seed": whole("seed", aug.seed, 0, 2**64 - 1),
        "layout": layout(aug.layout),
    }
    if definite["crop_padding"] > 0 and aug.crop is None:
        refuse("crop_padding", "0 without crop", aug.crop_padding)
    return definite
