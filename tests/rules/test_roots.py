"""Square roots in the rules: those of IEEE 754, whichever way an instruction set takes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import onepass
from onepass import _core
from tests import tolerances


def adagrad(sums: torch.Tensor, lr: float) -> torch.Tensor:
    """Return what a step makes of zeros with these sums and a gradient of 1 that is too small to change them."""
    p = torch.nn.Parameter(torch.zeros_like(sums))
    optimizer = onepass.Adagrad([p], lr=lr, eps=0.0)
    optimizer.state[p]["sum"] = sums.clone()
    p.grad = torch.full_like(p, 2.0**-76)  # its square is lost beside all but the least of sums
    optimizer.step()
    return p.detach()


def formula(sums: torch.Tensor, lr: float) -> torch.Tensor:
    """Return the same in numpy's float32, whose roots and divisions are those of IEEE 754."""
    s, g = sums.numpy(), np.float32(2.0**-76)
    with np.errstate(all="ignore"):
        quotient = np.float32(lr) * g / np.sqrt(s + g * g)
        return torch.from_numpy(np.float32(0) - quotient)


@pytest.mark.parametrize("lr", [2.0**76, 1.7 * 2.0**76])
def test_every_mantissa(lr: float) -> None:
    """All floats from 1 to 4: the roots of all others are these times a power of 2."""
    sums = torch.arange(0x3F800000, 0x40800000, dtype=torch.int32).view(torch.float32)
    assert (float(sums[0]), float(sums[-1])) == (1.0, float(np.nextafter(np.float32(4), 0)))
    tolerances.exact(adagrad(sums, lr), formula(sums, lr))


def test_every_exponent() -> None:
    """Zero, subnormal numbers, the greatest ones, infinity, NaN; alone among ordinary ones, and many together."""
    exponents = torch.arange(0, 256, dtype=torch.int32) << 23
    mantissas = torch.tensor([0, 1, 0x123456, 0x7FFFFF], dtype=torch.int32)
    edges = (exponents[:, None] | mantissas).view(torch.float32).flatten()
    sums = torch.full((edges.numel(), 19), 2.5)
    sums[:, 7] = edges
    for values in (sums.flatten(), edges, edges.repeat_interleave(16)):
        ours, expected = adagrad(values, 1.0), formula(values, 1.0)
        nan = torch.isnan(expected)
        assert bool((torch.isnan(ours) == nan).all())
        tolerances.exact(ours[~nan], expected[~nan])


def test_intels_processors_pass_the_check_at_import() -> None:
    """Their approximation is specified to the bit, and good enough."""
    if not Path("/proc/cpuinfo").exists():
        pytest.skip("no list of the processor's features")
    features = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
    needed = {
        "avx2",
        "fma",
        "bmi1",
        "bmi2",
        "avx512f",
        "avx512bw",
        "avx512cd",
        "avx512dq",
        "avx512vl",
    }
    if not needed <= set(features) or "GenuineIntel" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("no AVX-512 of Intel's")
    assert _core.isas()["v4"]
