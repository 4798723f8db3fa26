"""Where tensors lie: large states on 2 MiB pages, which save time in every step."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import onepass

_CHOICES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def on_large_pages(tensor: torch.Tensor) -> int:
    """Return how many bytes of the mappings that hold a tensor are on large pages."""
    first = tensor.data_ptr()
    last = first + tensor.numel() * tensor.itemsize
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head, *rest = line.split()
        if not head.endswith(":"):
            start, end = (int(address, 16) for address in head.split("-"))
            inside = start < last and first < end
        elif inside and head == "AnonHugePages:":
            found += int(rest[0]) << 10
    return found


@pytest.mark.skipif(sys.platform != "linux" or not _CHOICES.exists(), reason="needs Linux")
@pytest.mark.parametrize("name", ["Adam", "Adagrad"])
def test_large_states_start_on_large_pages(name: str) -> None:
    """Those of Adagrad, too, which torch's constructor makes before there is a gradient."""
    if "[never]" in _CHOICES.read_text():
        pytest.skip("this system has no transparent huge pages")
    parameter = torch.nn.Parameter(torch.ones(16, 1 << 20))
    parameter.grad = torch.ones_like(parameter)
    optimizer = getattr(onepass, name)([parameter])
    optimizer.step()
    for key in optimizer.spec.states:
        state = optimizer.state[parameter].get(key)
        if state is not None:
            assert (
                on_large_pages(state) >= state.numel() * state.itemsize // 2
            )  # some may be refused
