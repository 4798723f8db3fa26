"""How far two results may be apart, and why. There is no "some elements may be wrong"."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
import torch


class Close(TypedDict):
    """Arguments of `torch.testing.assert_close`."""

    rtol: float
    atol: float


_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def exact(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Same bits, NaN and -0.0 included: for results that are documented to be reproducible."""
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    a = actual.detach().contiguous()
    b = expected.detach().contiguous()
    differs = a.view(_BITS[a.element_size()]) != b.view(_BITS[b.element_size()])
    if bool(differs.any()):
        first = tuple(int(i) for i in differs.nonzero()[0])
        message = f"{int(differs.sum())} of {a.numel()} elements differ, first at {first}: {a[first]!r} {b[first]!r}"
        raise AssertionError(message)


def spacing(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the distance between neighbours of `dtype` at the float64 numbers `x`: one ulp."""
    info = torch.finfo(dtype)
    _, exponent = np.frexp(x.abs().numpy())  # |x| in [0.5, 1) * 2^exponent
    digits = -round(np.log2(info.eps))
    lowest = round(np.log2(info.tiny)) - digits  # the smallest subnormal number
    power = np.maximum(exponent - 1 - digits, lowest)
    return torch.from_numpy(np.asarray(np.ldexp(1.0, power)))


def one_rounding(actual: torch.Tensor, expected: torch.Tensor, magnitude: torch.Tensor) -> None:
    """One rounding on write: half an ulp of the stored type, beside the error of the arithmetic inside.

    The arithmetic is float32 (float64 for float64): every operation rounds once, and where terms cancel the error is
    relative to the terms, so `magnitude` is the size of the largest of them (float64, per element).
    """
    dtype = actual.dtype
    assert expected.dtype == torch.float64
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    inside = 12 * torch.finfo(compute).eps * magnitude
    if dtype == torch.float64:  # the oracle itself rounds as often
        inside = 2 * inside
    allowed = spacing(expected.abs() + inside, dtype) / 2 + inside
    error = (actual.detach().to(torch.float64) - expected).abs()
    bad = ~(error <= allowed)
    if bool(bad.any()):
        first = tuple(int(i) for i in bad.nonzero()[0])
        message = (
            f"{int(bad.sum())} of {actual.numel()} elements are off by more than one rounding to {dtype}, first at "
            f"{first}: {actual[first].item()!r}, exact {expected[first].item()!r}, allowed {allowed[first].item()!r}"
        )
        raise AssertionError(message)


def accumulated(steps: int, dtype: torch.dtype = torch.float32) -> Close:
    """Roundings of `steps` steps, for values and updates of the order of 1: a few per step, which add up."""
    eps = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
    return {"rtol": 8 * eps * steps, "atol": 8 * eps * steps}
