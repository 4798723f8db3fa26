"""What the tests of steps share."""

from __future__ import annotations

import copy
from typing import Any

import torch

from tests import tolerances


def picture(optimizer: Any) -> dict[str, Any]:
    """Return a copy of all that a step changes."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    return {
        "weights": [p.detach().clone() for p in params],
        "states": [copy.deepcopy(optimizer.state.get(p)) for p in params],
        "count": optimizer.steps_applied,
        "report": (optimizer.report.steps_applied, optimizer.report.steps_skipped),
        "entries": len(optimizer.state),
    }


def assert_alike(one: Any, other: Any) -> None:
    """Check that two values hold the same, to the bit."""
    if isinstance(one, torch.Tensor):
        assert isinstance(other, torch.Tensor)
        assert one.dtype == other.dtype
        tolerances.exact(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_alike(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_alike(a, b)
    else:
        assert one == other
