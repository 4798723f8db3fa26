"""The step that describes its parameter groups first; those that follow may repeat it without."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onepass import _core
from onepass.optim import launch, options, scheduled
from onepass.optim.care import step_with_care
from onepass.optim.checks import betas_in_range
from onepass.optim.devices import CPU
from onepass.optim.reading import READER
from onepass.optim.work import PLACE, Work, describe, is_settled, numbers_of

if TYPE_CHECKING:
    from onepass.optim.base import OnePass


def update(optimizer: OnePass, unscale: float, clip: _core.Clip | None) -> bool:
    """Step all groups; return False if the step was skipped."""
    groups = optimizer.param_groups
    for i, group in enumerate(groups):
        if scheduled.KEY in group:
            scheduled.refuse_scheduler(group, i)
    check_ranges(optimizer)
    try:
        return _update(optimizer, unscale, clip)
    except TypeError:  # perhaps a schedule has been put into a group since
        for group in groups:
            scheduled.enter(group, {}, optimizer.steps_applied)
        return _update(optimizer, unscale, clip)


def check_ranges(optimizer: OnePass) -> None:
    """Raise ValueError if a schedule has left the range of what it is for."""
    for group in optimizer.param_groups:
        if scheduled.KEY in group and scheduled.may_leave_range(group):
            betas_in_range(group["betas"])


def _update(optimizer: OnePass, unscale: float, clip: _core.Clip | None) -> bool:
    groups = optimizer.param_groups
    work = [describe(optimizer, group, unscale) for group in groups]
    foreign = {
        i for i, group in enumerate(groups) if group["differentiable"] and optimizer.trains(group)
    }
    if not foreign and optimizer.run(work, clip) is None:
        if unscale == 1.0 and optimizer._memory.finds_steady(groups):
            _remember(optimizer, work, clip)
        return clip is None or not clip.skipped
    if any(group[PLACE] != CPU for group in work):
        launch.refuse_capture()
    if optimizer._scaler:  # there is time to wait for it
        optimizer._scaler, read = None, optimizer.read_scaler()
        if read is None:
            return False
        unscale = read
        work = [describe(optimizer, group, unscale) for group in groups]
        if clip is not None:
            clip.unscale = unscale
    step_with_care(optimizer, work, foreign, unscale, clip)
    return clip is None or not clip.skipped


def _remember(optimizer: OnePass, work: Work, clip: _core.Clip | None) -> None:
    """Have the next step do without descriptions, if its groups will be these."""
    groups = optimizer.param_groups
    if all(map(is_settled, work)):
        numbers = [numbers_of(optimizer, group) for group in groups]
        seed = groups[0].get("seed", 0)
        optimizer._remembered = _core.remember(
            READER, optimizer._memory, groups, work, numbers, seed
        )
        optimizer._clips = clip is not None
        scheduled_groups = [group for group in groups if scheduled.KEY in group]
        optimizer._may_leave_range = any(map(scheduled.may_leave_range, scheduled_groups))
        optimizer._writes = bool(scheduled_groups) or any(map(options.needs_count, groups))
