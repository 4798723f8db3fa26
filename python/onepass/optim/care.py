"""The step that meets something out of the ordinary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from onepass import _core
from onepass.optim import launch, options, states
from onepass.optim.fallback import torch_step
from onepass.optim.work import COUNTED, NOTHING, Work

if TYPE_CHECKING:
    from onepass.optim.base import OnePass


def step_with_care(
    optimizer: OnePass,
    work: Work,
    foreign: set[int],
    unscale: float,
    clip: _core.Clip | None,
) -> None:
    """Step when some groups are not for the kernels or some states are missing.

    Everything that can go wrong is found before anything is written; then torch steps the groups that are
    foreign to the kernels, since it may still refuse one, and the kernels step the others.
    """
    groups = optimizer.param_groups
    while True:
        for i in foreign:
            work[i] = NOTHING
        found = optimizer.run(work, None, dry=True)
        if found is None:
            break
        zero = {g for g, i in found.invalid if states.has_zero_gradient(groups[g]["params"][i])}
        if not zero and not found.uncovered:
            break
        foreign.update(found.uncovered, zero)
    broken = [] if found is None else found.repair
    if found is not None:
        for g, i in found.invalid:
            states.refuse(groups, g, i)
    for g, i in broken:
        states.diagnose(optimizer, groups, g, i)
    for g in sorted(foreign):
        options.refuse(groups[g], g)
    if clip is not None:
        launch.measure(optimizer, work, clip)
        if clip.skipped:
            return

    torch_step(optimizer, [groups[g] for g in sorted(foreign)], unscale)
    first_steps, first_averages = set(), set()
    for g, i in broken:
        first = states.complete(optimizer, groups[g], i, work[g][2], work[g][5], work[g][COUNTED])
        if first.step:
            first_steps.add((g, i))
        if first.average:
            first_averages.add((g, i))
    failed = optimizer.run(work, clip, first_steps=first_steps, first_averages=first_averages)
    if failed is not None:
        message = f"onepass could not make the state of {states.name_of(groups, *failed.repair[0])}"
        raise RuntimeError(message)
