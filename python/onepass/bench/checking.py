"""Whether contestants computed the same result: a fast wrong step is worth nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from onepass.bench.cases import Case, set_gradients, starting_values
from onepass.bench.contestants import Contestant

GRADIENTS = (1.0, -0.5, 2.0)
"""Multiples of the gradients that everyone steps with from the same start, before results are compared. They differ,
since some mistakes do not show while gradients stay the same: averages of constants have the right value with any
weight, and clipping only divides them. Powers of two multiply exactly."""
SHARE_OF_MOVE = 1e-5
ROUNDINGS = 8
SHARE_OF_8_BITS = 1 / 8
_CHUNK = 1 << 24
"""Elements that are compared at once, which bounds the memory for it."""


class Tolerance(NamedTuple):
    """By how much a number of a result may differ from the reference."""

    absolute: float
    relative: float
    """Times the reference."""


class Apart(NamedTuple):
    """The worst number of a result."""

    by: float
    allowed: float

    @property
    def too_far(self) -> bool:
        """Whether that is more than allowed; NaN is."""
        return not self.by <= self.allowed


def first_steps(case: Case, contestant: Contestant) -> None:
    """Take the steps whose results are compared; leave the gradients as they were."""
    for now, then in zip(GRADIENTS, (*GRADIENTS[1:], 1.0), strict=True):
        contestant.step()
        if contestant.spoils:
            set_gradients(case, contestant.parameters, then)
            continue
        for parameter in contestant.parameters:
            assert parameter.grad is not None
            parameter.grad.mul_(then / now)


def tolerance(case: Case, reference: Contestant) -> Tolerance:
    """Return what a result may differ by.

    It is 1e-5 of the longest way that a parameter has come, which leaves room for another order of operations
    and another place of eps, but not for another formula; and eight units in the last place of the number itself, for
    the roundings of three steps. States in the parameter's dtype, or in a coarser one, are rounded as well, which
    moves by as much of the way; 1/8 of it is for states in 8 bits, whose steps are 1/16 of a number. What has master
    weights is rounded once, when it is compared.
    """
    own = case.configuration.own
    moved = 0.0
    for start, now in zip(starting_values(case), reference.parameters, strict=True):
        if start.numel():
            moved = max(moved, float((now.detach() - start.to(now.device)).abs().max()))
    unit = torch.finfo(case.dtype).eps
    if own.get("master_weights"):
        return Tolerance(SHARE_OF_MOVE * moved, unit)
    state = own.get("state_dtype")
    of_states = torch.finfo(state if isinstance(state, torch.dtype) else case.dtype).eps * ROUNDINGS
    if state == "8bit":
        of_states = SHARE_OF_8_BITS
    return Tolerance((SHARE_OF_MOVE + of_states) * moved, ROUNDINGS * unit)


def difference(contestant: Contestant, reference: Contestant, allowed: Tolerance) -> Apart:
    """Return the number of a result, averages included, that is furthest from the reference for what is allowed.

    What is not a number is infinitely far.
    """
    worst = Apart(0.0, allowed.absolute)
    for a, b in _pairs(contestant, reference):
        apart = (a.float() - b.float()).abs()
        apart[apart.isnan()] = float("inf")
        room = b.float().abs().mul_(allowed.relative).add_(allowed.absolute)
        room = room.nan_to_num_(torch.finfo(room.dtype).max)
        excess = (apart - room).argmax()
        found = Apart(float(apart[excess]), float(room[excess]))
        if found.by - found.allowed > worst.by - worst.allowed:
            worst = found
    return worst


def _pairs(a: Contestant, b: Contestant) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield what is compared, in flat pieces."""
    parameters = zip(a.parameters, b.parameters, strict=True)
    for x, y in (*parameters, *zip(a.averages(), b.averages(), strict=True)):
        if x.numel():
            yield from zip(
                torch.split(x.detach().reshape(-1), _CHUNK),
                torch.split(y.detach().reshape(-1), _CHUNK),
                strict=True,
            )
