"""Parameter groups that the kernels do not cover: torch's own step, for these groups alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim import Optimizer

from onepass.hyper.spec import Group


def torch_step(
    optimizer: Optimizer, base: type[Optimizer], groups: list[Group], unscale: float
) -> None:
    """Step `groups` by torch's class `base`."""
    if not groups:
        return
    names = [name for name in ("grad_scale", "found_inf") if name in vars(optimizer)]
    hidden: dict[str, Any] = {name: vars(optimizer).pop(name) for name in names}
    own = optimizer.param_groups
    with _unscaled(groups, unscale):
        optimizer.param_groups = [_without_fused_on_cpu(group) for group in groups]
        try:
            _step_of(base)(optimizer)
        finally:
            optimizer.param_groups = own
            vars(optimizer).update(hidden)


def _step_of(base: type[Optimizer]) -> Any:
    """Return the step of a class, without the wrapper that calls hooks and profiler."""
    step: Any = base.step
    return step.__wrapped__ if getattr(step, "hooked", False) else step


def _without_fused_on_cpu(group: Group) -> Group:
    """Return the group with torch's fused CPU kernels switched off: they ignore strides."""
    on_cpu = any(p.device.type == "cpu" for p in group["params"])
    return {**group, "fused": False, "capturable": False} if on_cpu else group


@contextmanager
def _unscaled(groups: list[Group], unscale: float) -> Iterator[None]:
    """Put unscaled copies in the place of the gradients for the time of a step."""
    if unscale == 1.0:
        yield
        return
    params = [p for group in groups for p in group["params"] if p.grad is not None]
    scaled = [p.grad for p in params]
    try:
        with torch.no_grad():
            for p, grad in zip(params, scaled, strict=True):
                p.grad = grad * unscale
        yield
    finally:
        for p, grad in zip(params, scaled, strict=True):
            p.grad = grad
