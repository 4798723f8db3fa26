"""Whether contestants computed the same result: a fast wrong step is worth nothing."""

from __future__ import annotations

import torch

from onepass.bench.cases import Case, starting_values
from onepass.bench.contestants import Contestant

GRADIENTS = (1.0, -0.5, 2.0)
"""Multiples of the gradients that everyone steps with from the same start, before results are compared. They differ,
since some mistakes do not show while gradients stay the same: averages of constants have the right value with any
weight. Powers of two multiply exactly."""
SHARE_OF_MOVE = 1e-5
ROUNDINGS = 4


def first_steps(contestant: Contestant) -> None:
    """Take the steps whose results are compared; leave the gradients as they were."""
    for now, then in zip(GRADIENTS, (*GRADIENTS[1:], 1.0), strict=True):
        contestant.step()
        for parameter in contestant.parameters:
            assert parameter.grad is not None
            parameter.grad.mul_(then / now)


def tolerance(case: Case, reference: Contestant) -> float:
    """Return by how much a number of a result may differ from the reference.

    It is 1e-5 of the longest way that a parameter has come, which leaves room for another order of operations
    and another place of eps, but not for another formula; and four units in the last place of the largest
    parameter, for the rounding of each step.
    """
    moved = largest = 0.0
    for start, now in zip(starting_values(case), reference.parameters, strict=True):
        if start.numel():
            moved = max(moved, float((now.detach() - start.to(now.device)).abs().max()))
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
