"""The step of groups whose parameters are on devices: which kernels run, and what is read back from there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from onepass import _core
from onepass.optim import devices
from onepass.optim.devices import CPU, Memory
from onepass.optim.reading import READER
from onepass.optim.report import Last, nonfinite_names
from onepass.optim.work import NOTHING, PLACE, Work

if TYPE_CHECKING:
    from onepass.optim.base import OnePass

Pairs = set[tuple[int, int]]


@dataclass
class Trouble:
    """As `_core.Trouble`: why steps on several devices were not done."""

    uncovered: list[int] = field(default_factory=list)
    repair: list[tuple[int, int]] = field(default_factory=list)
    invalid: list[tuple[int, int]] = field(default_factory=list)

    def add(self, other: Any) -> None:
        """Take in the trouble of one device."""
        self.uncovered += other.uncovered
        self.repair += other.repair
        self.invalid += other.invalid


def places_in(work: Work) -> list[int]:
    """Return the places of all groups that have parameters."""
    return sorted({group[PLACE] for group in work if group[0]})


def _refuse_several(places: list[int]) -> None:
    message = (
        "max_grad_norm and skip_nonfinite need all parameters on one device, found "
        f"{', '.join('the CPU' if p == CPU else f'cuda:{p}' for p in places)}; nothing was updated"
    )
    raise RuntimeError(message)


def run(
    optimizer: OnePass,
    work: Work,
    clip: _core.Clip | None,
    dry: bool,
    first_steps: Pairs,
    first_averages: Pairs,
) -> Any:
    """Do what `OnePass.run` does where a group may be on a device."""
    places = places_in(work) or [CPU]
    if len(places) == 1:
        return _run_at(optimizer, places[0], work, clip, dry, first_steps, first_averages)
    if clip is not None:
        _refuse_several(places)
    for only_look in (
        (True,) if dry else (True, False)
    ):  # nothing is written before all is known to be right
        trouble = Trouble()
        for place in places:
            part = [group if group[PLACE] == place else NOTHING for group in work]
            found = _run_at(optimizer, place, part, None, only_look, first_steps, first_averages)
            if found is not None:
                trouble.add(found)
        if trouble.uncovered or trouble.repair or trouble.invalid:
            return trouble
    return None


def _run_at(
    optimizer: OnePass,
    place: int,
    work: Work,
    clip: _core.Clip | None,
    dry: bool,
    first_steps: Pairs,
    first_averages: Pairs,
) -> Any:
    if place == CPU:
        return optimizer.run(
            work,
            clip,
            dry=dry,
            first_steps=first_steps,
            first_averages=first_averages,
            on_cpu=True,
        )
    groups = optimizer.param_groups
    found = devices.extension()
    assert found is not None
    memory = memory_at(optimizer, place)
    grad_scale, found_inf = optimizer._scaler or (None, None)
    return found.module.step(
        found.reader,
        memory.core,
        work,
        optimizer.state,
        dry,
        None
        if clip is None
        else found.module.Clip(clip.max_norm, clip.skip_nonfinite, clip.unscale),
        first_steps,
        first_averages,
        groups[0].get("seed", 0),
        optimizer.steps_applied,
        place,
        memory.stream(),
        grad_scale,
        found_inf,
        any(group.get("capturable") for group in groups),
    )


def memory_at(optimizer: OnePass, place: int) -> Memory:
    """Return what an optimizer keeps on a device."""
    memory = optimizer._memories.get(place)
    if memory is None:
        found = devices.extension()
        assert found is not None
        memory = optimizer._memories[place] = Memory(found, place)
    return memory


def measure(optimizer: OnePass, work: Work, clip: _core.Clip) -> None:
    """Have `clip` measure the gradients of all parameters that the kernels can read, at once."""
    params = [p for group in work for p in group[0]]
    places = places_in(work) or [CPU]
    if places == [CPU]:
        _core.measure(READER, params, clip)
        return
    if len(places) > 1:
        _refuse_several(places)
    found = devices.extension()
    assert found is not None
    memory = memory_at(optimizer, places[0])
    own = found.module.Clip(clip.max_norm, clip.skip_nonfinite, clip.unscale)
    found.module.measure(
        found.reader, memory.core, params, own, places[0], memory.stream(), None, None
    )
    clip.norm, clip.coefficient, clip.skipped = own.norm, own.coefficient, own.skipped


def refuse_capture() -> None:
    """Raise if a step that has to make state is on its way into a CUDA graph, which would make it anew each time."""
    found = devices.extension()
    if found is not None and found.is_capturing():
        message = (
            "this step cannot go into a CUDA graph: state has to be made first, or a group falls back to torch's "
            "own step; do one step before the capture; nothing was updated"
        )
        raise RuntimeError(message)


def scaler_of(optimizer: OnePass) -> tuple[Any, Any] | None:
    """Return GradScaler's numbers, if the one device of all parameters can read them, so that nobody has to wait."""
    own = vars(optimizer)
    scaler = own.get("grad_scale"), own.get("found_inf")
    places = {devices.place_of(group) for group in optimizer.param_groups if group["params"]}
    if len(places) != 1 or places == {CPU} or all(number is None for number in scaler):
        return None
    place = places.pop()
    there = all(
        not optimizer.counted or devices.counts_steps(group, optimizer.defaults)
        for group in optimizer.param_groups
    ) and all(
        number is None or (devices.is_at(number, place) and number.dtype == torch.float32)
        for number in scaler
    )
    return scaler if there else None


def counts(optimizer: OnePass) -> bool:
    """Return whether a device counts the steps: the host does not wait to learn whether one was skipped."""
    return any(memory.core.counts for memory in optimizer._memories.values())


def outcome(optimizer: OnePass) -> tuple[int, float, float, bool, int, int]:
    """Return (skip, norm, coefficient, finite, applied, skipped) of the last step; waits for the device that counts."""
    found = devices.extension()
    assert found is not None
    place, memory = next((k, m) for k, m in optimizer._memories.items() if m.core.counts)
    result: tuple[int, float, float, bool, int, int] = found.module.outcome(
        memory.core, place, memory.stream()
    )
    return result


def catch_up(optimizer: OnePass) -> bool:
    """Bring the host's count of steps up to date with a device's, if one counts."""
    if not optimizer._memories or not counts(optimizer):
        return False
    optimizer.steps_applied = outcome(optimizer)[4]
    return True


def last(optimizer: OnePass) -> tuple[Last, int]:
    """Return what the last step on a device did, and how many were skipped there."""
    skip, norm, coefficient, finite, optimizer.steps_applied, skipped = outcome(optimizer)
    first = optimizer.param_groups[0]
    clips = first.get("max_grad_norm") is not None
    measured = (clips or first.get("skip_nonfinite", False)) and skip != 2
    bad = nonfinite_names(optimizer.param_groups) if skip or not finite else []
    return (
        not skip,
        norm if measured else None,
        coefficient if clips and not skip else None,
        bad,
    ), skipped
