"""Who takes part in a case: ours, the peers, and two that do nothing useful: the limit and the floor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

import onepass
from onepass import _core
from onepass.bench import passes
from onepass.bench.cases import Case, new_parameters
from onepass.bench.peers import NotOffered, Peer
from onepass.optim.optimizer import OnePass
from onepass.reader import READER

OURS, LIMIT, FLOOR, FLOAT32 = "onepass", "limit", "floor", "onepass-float32"


@dataclass(frozen=True)
class Contestant:
    """Someone whose step is timed, with the parameters that the step changes."""

    name: str
    step: Callable[[], object]
    parameters: list[torch.nn.Parameter]
    averages: Callable[[], Sequence[torch.Tensor]] = tuple
    """Of the weights, as far as it keeps them."""
    spoils: bool = False
    """Whether its step changes the gradients."""


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
    kind = getattr(onepass, configuration.kind)
    optimizer: OnePass = kind(parameters, **configuration.options, **configuration.own)
    step: Callable[[], object] = optimizer.step
    if configuration.grad_scale != 1:
        scale = torch.tensor(configuration.grad_scale, device=case.device)

        def step() -> None:
            """Say what GradScaler says."""
            vars(optimizer).update(grad_scale=scale, found_inf=torch.zeros_like(scale))
            optimizer.step()

    def averages() -> list[torch.Tensor]:
        if "ema_decay" not in configuration.own:
            return []
        return [optimizer.state[p]["ema"] for p in parameters]

    return Contestant(OURS, step, parameters, averages), optimizer


def in_float32(case: Case) -> Contestant:
    """Return our optimizer without the options that reduce precision, from the same numbers."""
    plain, _ = ours(case.in_float32())
    return replace(plain, name=FLOAT32)


def theirs(case: Case, peer: Peer) -> Contestant:
    """Return a peer, ready for its first step, with torch's passes around it for what it does not do in the step.

    Raises:
        NotOffered: The peer has no such optimizer.
    """
    configuration = case.configuration
    if configuration.reduced:
        if peer.reduced is None:
            raise NotOffered(configuration)
        parameters = new_parameters(case)
        return Contestant(peer.name, peer.reduced(configuration, parameters), parameters)
    passes.check(case)
    parameters = new_parameters(case)
    whole = passes.around(peer.make(configuration, parameters), case, parameters)
    return Contestant(peer.name, whole.step, parameters, lambda: whole.averages, whole.spoils)


def limit(case: Case, of: Contestant, optimizer: torch.optim.Optimizer) -> Contestant:
    """Return the streaming limit of our optimizer, which has stepped before.

    On the CPU it reads and writes the same bytes of the same tensors, in the same chunks, with no arithmetic; no value
    changes. On a CUDA device it is a copy from device to device that moves as many bytes.

    Raises:
        NotOffered: On the CPU the step does more than walk once over tensors of one dtype.
    """
    if case.device != "cpu":
        half = (
            int(case.bytes_per_parameter * case.model.parameters) // 2
        )  # each is read and written
        source = torch.zeros(half, dtype=torch.uint8, device=case.device)
        return Contestant(LIMIT, partial(torch.empty_like(source).copy_, source), of.parameters)
    if case.mixed:
        message = "it walks over tensors of one dtype"
        raise NotOffered(message)
    if case.reads_norm:
        message = "it reads gradients once, without their norm"
        raise NotOffered(message)
    keys = case.configuration.states + (("ema",) if "ema_decay" in case.configuration.own else ())
    rows = [(p, p.grad, *(optimizer.state[p][key] for key in keys)) for p in of.parameters]
    return Contestant(LIMIT, _core.Stream(READER, rows).run, of.parameters)


def floor(of: Contestant) -> Contestant:
    """Return the empty optimizer over the same parameters."""
    return Contestant(FLOOR, EmptyOptimizer(of.parameters).step, of.parameters)
