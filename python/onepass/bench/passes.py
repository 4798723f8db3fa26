"""Options that torch does not have, in torch's best way: passes of their own before and after any package's step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_

from onepass.bench.cases import LOW, Case
from onepass.bench.peers import NotOffered, Params, Step

_KNOWN = {"max_grad_norm", "skip_nonfinite", "l1_decay", "l1_mode", "ema_decay"}


@dataclass
class Passes:
    """A step with everything around it."""

    step: Step
    averages: list[torch.Tensor] = field(default_factory=list)
    spoils: bool = False
    """Whether the gradients are others after the step."""


def check(case: Case) -> None:
    """Raise NotOffered where torch has no way to the same result."""
    own = case.configuration.own
    if not own.keys() <= _KNOWN:
        raise NotOffered(case.configuration)
    if case.dtype in LOW and "ema_decay" in own:
        message = "it averages in the dtype of the weights, not in float32"
        raise NotOffered(message)
    if case.dtype == torch.float16 and case.configuration.grad_scale != 1:
        message = "GradScaler does not unscale float16 gradients"
        raise NotOffered(message)


def around(step: Step, case: Case, params: Params) -> Passes:
    """Return the step with the passes that a case needs.

    They change the gradients, as torch's do, so after many steps these are no longer those of the first one. Nothing
    takes longer or shorter for it: they stay finite and normal, and clipping multiplies by 1 as by anything else.
    """
    own, scale = case.configuration.own, case.configuration.grad_scale
    weights = [p.detach() for p in params]
    averages: list[torch.Tensor] = []
    before: list[Callable[[], None]] = []
    after: list[Callable[[], None]] = []
    l1, proximal = own.get("l1_decay"), own.get("l1_mode", "proximal") == "proximal"
    if "max_grad_norm" in own:
        before.append(lambda: _clip(params, own["max_grad_norm"]))
    if l1 is not None and not proximal:
        before.append(lambda: _add_sign(params, weights, l1))
    if l1 is not None and proximal:
        threshold = l1 * case.configuration.options["lr"]
        after.append(lambda: _shrink(weights, threshold))
    if "ema_decay" in own:
        after.append(lambda: _average(averages, weights, own["ema_decay"]))
    if scale == 1 and not before and not after:
        return Passes(step)
    inverse = torch.tensor(1 / scale, device=case.device)

    @torch.no_grad()
    def composed() -> None:
        found_inf = _unscale(params, inverse) if scale != 1 else None
        for change in before:
            change()
        if found_inf is None or not found_inf.item():
            step()
        for change in after:
            change()

    return Passes(composed, averages, spoils=scale != 1 or bool(before))


def _gradients(params: Params) -> list[torch.Tensor]:
    return [p.grad for p in params if p.grad is not None]


def _unscale(params: Params, inverse: torch.Tensor) -> torch.Tensor:
    """What GradScaler.unscale_ does, without its bookkeeping."""
    found_inf = torch.zeros_like(inverse)
    torch._amp_foreach_non_finite_check_and_unscale_(_gradients(params), found_inf, inverse)
    return found_inf


def _clip(params: Params, largest: float) -> None:
    clip_grad_norm_(params, largest, foreach=True)


def _add_sign(params: Params, weights: list[torch.Tensor], decay: float) -> None:
    torch._foreach_add_(_gradients(params), torch._foreach_sign(weights), alpha=decay)


def _shrink(weights: list[torch.Tensor], threshold: float) -> None:
    """One pass for each tensor; torch's foreach functions would need five over all."""
    shrink: Any = torch._C._nn.softshrink  # torch.nn.functional's has no `out`
    for weight in weights:
        shrink(weight, threshold, out=weight)


def _average(averages: list[torch.Tensor], weights: list[torch.Tensor], decay: float) -> None:
    """As torch.optim.swa_utils.AveragedModel, which starts with a copy."""
    if averages:
        torch._foreach_lerp_(averages, weights, 1 - decay)
    else:
        averages.extend(weight.clone() for weight in weights)
