"""Who takes part in a case: ours, the peers, and two that do nothing useful: the limit and the floor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

import onepass
from onepass import _core
from onepass.bench.cases import Case, new_parameters
from onepass.bench.peers import Peer
from onepass.optim.base import OnePass
from onepass.optim.reading import READER

OURS, LIMIT, FLOOR = "onepass", "limit", "floor"


@dataclass(frozen=True)
class Contestant:
    """Someone whose step is timed, with the parameters that the step changes."""

    name: str
    step: Callable[[], object]
    parameters: list[torch.nn.Parameter]


class EmptyOptimizer(torch.optim.Optimizer):
    """An optimizer that does nothing: what torch's wrapper of `step` costs."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {})

    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Do nothing."""


def ours(case: Case) -> tuple[Contestant, OnePass]:
    """Return our optimizer, ready for its first step."""
    parameters = new_parameters(case)
    configuration = case.configuration
    optimizer: OnePass = getattr(onepass, configuration.kind)(parameters, **configuration.options)
    return Contestant(OURS, optimizer.step, parameters), optimizer


def theirs(case: Case, peer: Peer) -> Contestant:
    """Return a peer, ready for its first step.

    Raises:
        NotOffered: The peer has no such optimizer.
    """
    parameters = new_parameters(case)
    return Contestant(peer.name, peer.make(case.configuration, parameters), parameters)


def limit(case: Case, of: Contestant, optimizer: torch.optim.Optimizer) -> Contestant:
    """Return the streaming limit of our optimizer, which has stepped before.

    On the CPU it reads and writes the same bytes of the same tensors, in the same chunks, with no arithmetic; no value
    changes. On a CUDA device it is a copy from device to device that moves as many bytes.
    """
    if case.device != "cpu":
        half = case.bytes_per_parameter * case.model.parameters // 2  # each is read and written
        source = torch.zeros(half, dtype=torch.uint8, device=case.device)
        return Contestant(LIMIT, partial(torch.empty_like(source).copy_, source), of.parameters)
    keys = case.configuration.states
    rows = [(p, p.grad, *(optimizer.state[p][key] for key in keys)) for p in of.parameters]
    return Contestant(LIMIT, _core.Stream(READER, rows).run, of.parameters)


def floor(of: Contestant) -> Contestant:
    """Return the empty optimizer over the same parameters."""
    return Contestant(FLOOR, EmptyOptimizer(of.parameters).step, of.parameters)
