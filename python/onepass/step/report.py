"""What the last step did."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

Last = tuple[bool, float | None, float | None, list[str]]
"""The attributes of a report that change with every step: applied, norm, coefficient, non-finite names."""

APPLIED: Last = (True, None, None, [])


@dataclass(frozen=True)
class Report:
    """What the last step of an optimizer did.

    Attributes:
        applied: Whether the step changed anything; False before the first step.
        grad_norm: Global 2-norm of the unscaled gradients, None where it was not asked for.
        clip_coefficient: Factor by which clipping scaled the gradients, None where it was not asked for.
        steps_applied: Steps so far that were applied, those of a loaded checkpoint included as far as
            it tells: one of SGD without schedules or options holds no count.
        steps_skipped: Steps so far that were skipped.
        nonfinite: Names (or numbers, in the order of the groups) of the parameters whose gradients held inf
            or NaN, as far as the step looked.
    """

    applied: bool = False
    grad_norm: float | None = None
    clip_coefficient: float | None = None
    steps_applied: int = 0
    steps_skipped: int = 0
    nonfinite: list[str] = field(default_factory=list)


def nonfinite_names(groups: list[dict[str, object]]) -> list[str]:
    """Return the names of the parameters whose gradients hold inf or NaN."""
    found = []
    number = 0
    for group in groups:
        params: list[torch.Tensor] = group["params"]  # type: ignore[assignment]
        names: list[str] | None = group.get("param_names")  # type: ignore[assignment]
        for i, p in enumerate(params):
            if p.grad is not None and not _is_finite(p.grad):
                found.append(names[i] if names else str(number))
            number += 1
    return found


def _is_finite(grad: torch.Tensor) -> bool:
    values = grad.coalesce().values() if grad.is_sparse else grad  # type: ignore[no-untyped-call, unused-ignore]
    return bool(torch.isfinite(values).all())
