"""Whether contestants computed the same result: a fast wrong step is worth nothing."""

from __future__ import annotations

import torch

from onepass.bench.cases import Case, starting_values
from onepass.bench.contestants import Contestant

STEPS = 3
"""Steps that everyone takes from the same start before results are compared."""
SHARE_OF_MOVE = 1e-3
ROUNDINGS = 4


def tolerance(case: Case, reference: Contestant) -> float:
    """Return by how much a number of a result may differ from the reference.

    It is a thousandth of the longest way that a parameter has come, which leaves room for another order of operations
    and another place of eps, but not for another formula; and four units in the last place of the largest
    parameter, for the rounding of each step.
    """
    moved = largest = 0.0
    for start, now in zip(starting_values(case), reference.parameters, strict=True):
        if start.numel():
            moved = max(moved, float((now.detach() - start).abs().max()))
            largest = max(largest, float(now.detach().abs().max()))
    return SHARE_OF_MOVE * moved + ROUNDINGS * torch.finfo(case.dtype).eps * largest


def difference(contestant: Contestant, reference: Contestant) -> float:
    """Return the largest difference between two results: infinite where only one of them is a number."""
    largest = 0.0
    for a, b in zip(contestant.parameters, reference.parameters, strict=True):
        if a.numel():
            apart = float((a.detach() - b.detach()).abs().max())
            largest = max(largest, float("inf") if apart != apart else apart)
    return largest
