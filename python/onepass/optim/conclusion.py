"""What a step leaves in the optimizer: its count, what the groups hold for the next one, what the report says."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from onepass import _core
from onepass.optim import launch, options, scheduled
from onepass.optim.report import Last, nonfinite_names

if TYPE_CHECKING:
    from onepass.optim.base import OnePass

APPLIED: Last = (True, None, None, [])


def clip_of(optimizer: OnePass, unscale: float) -> _core.Clip | None:
    """Return the request to measure the global norm, if an option needs it."""
    first = optimizer.param_groups[0] if optimizer.param_groups else {}
    largest = first.get("max_grad_norm")
    skips = first.get("skip_nonfinite", False)
    if largest is None and not skips:
        return None
    return _core.Clip(math.inf if largest is None else float(largest), bool(skips), unscale)


def skip(optimizer: OnePass, clip: _core.Clip | None) -> None:
    """Count a step that has changed nothing."""
    optimizer._skipped += 1
    norm = None if clip is None or not clip.skipped else clip.norm
    optimizer._last = (False, norm, None, nonfinite_names(optimizer.param_groups))


def conclude(optimizer: OnePass, clip: _core.Clip | None) -> None:
    """Count a step that was done, unless `clip` has skipped it."""
    if clip is not None and clip.skipped:
        skip(optimizer, clip)
        return
    optimizer.steps_applied += 1
    write_groups(optimizer)
    if optimizer._memories and launch.counts(optimizer):
        optimizer._last = None
    elif clip is not None:
        bad = [] if math.isfinite(clip.norm) else nonfinite_names(optimizer.param_groups)
        clips = optimizer.param_groups[0].get("max_grad_norm") is not None
        optimizer._last = (True, clip.norm, clip.coefficient if clips else None, bad)
    else:
        optimizer._last = APPLIED


def write_groups(optimizer: OnePass) -> None:
    """Write into the groups the numbers of the next step, and the number of steps where one depends on it."""
    for group in optimizer.param_groups:
        if scheduled.KEY in group:
            optimizer.schedules.write(group, optimizer.steps_applied)
        elif options.needs_count(group):
            group[scheduled.COUNT] = optimizer.steps_applied
