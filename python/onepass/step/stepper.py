"""How a step is done: repeated as it was, in full, or with care.

More than 400 lines, since the three ways share what comes before and after a step, and read best side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from operator import is_
from typing import Any, NamedTuple

import torch

from onepass import _core
from onepass.device import extension, launch
from onepass.device.extension import CPU
from onepass.hyper import options, schedules
from onepass.hyper.spec import Group, Spec
from onepass.reader import READER, warn_if_slow
from onepass.state.names import States
from onepass.step import slow_path
from onepass.step.report import APPLIED, Last, Report, nonfinite_names
from onepass.step.row import EMPTY_ROW, GroupRow, is_settled, pack, refuse_without_anchor

Pairs = slow_path.Pairs
_NONE: Pairs = set()
_BESIDE = frozenset(("params", "param_names", *schedules.KEYS))
"""Values of a group that are not hyper-parameters."""
_DECIDE_NOTHING = dict.fromkeys(_BESIDE, (-1, 0.0))
_CONSTANT = frozenset((float, int, bool, str, type(None), torch.dtype))


class Call(NamedTuple):
    """What a step needs of the optimizer.

    Attributes:
        groups: Its parameter groups.
        state: The state of its parameters.
        defaults: Its defaults.
        attributes: Its attributes, among which GradScaler leaves its numbers.
        check: Raises for a hyper-parameter of a group that is out of range.
        rule: Gives the name of a group's update rule.
        torch_step: Steps groups by torch's own step, with gradients that lack a factor.
        repeats: Whether `check` and `rule` depend on the values of the group only.
    """

    groups: list[Group]
    state: States
    defaults: Group
    attributes: Mapping[str, Any]
    check: Callable[[Group], None]
    rule: Callable[[Group], str]
    torch_step: Callable[[list[Group], float], None]
    repeats: bool


class Stepper:
    """Does the steps of one optimizer and keeps what is to be known from one to the next.

    A step is applied and counted by one call of the compiled part. What has to follow it (the report, the numbers of
    schedules in the groups) is made up for by whatever comes next, if an exception has come between, or if nobody could
    have seen the difference.

    Attributes:
        memory: Of the compiled part; it counts the steps.
        memories: What is kept on devices.
        schedules: Of the groups, as they were read.
        remembers: Whether the next step may be tried as a repetition.
    """

    def __init__(self, spec: Spec, steps_applied: int = 0) -> None:
        self.spec = spec
        self.schedules = schedules.Schedules()
        self.memories: launch.Memories = {}
        self._skipped = 0
        self._last: Last | None = (False, None, None, [])
        self._scaler: tuple[Any, Any] | None = None  # GradScaler's numbers, if a device reads them
        self._clip: _core.Clip | None = None  # of a step that is not finished
        self.memory = _core.Memory()
        self.steps_applied = steps_applied
        self.remembers = self._writes = self._follows_norm = False
        self._clips: tuple[float, bool] | None = None  # what the remembered groups ask for
        self._checked: list[Group | None] = []  # the groups as they were found right

    @property
    def steps_applied(self) -> int:
        """How many steps were applied, as far as the host knows."""
        return self.memory.steps_applied

    @steps_applied.setter
    def steps_applied(self, count: int) -> None:
        self.memory.steps_applied = self._finished = count

    def repeat(self, groups: list[Group], state: States) -> bool:
        """Do the step with the groups as they are remembered; return whether they still are so."""
        if self._clips is None and self._clip is None and not self._writes:
            # Only a report follows, when it is asked for.
            return _core.repeat(READER, self.memory, groups, state, None)
        self.finish(groups)
        if self._writes and not self.schedules.are_as_written(groups):
            return False
        clip = None
        if self._clips is not None:
            if self._follows_norm:
                norms = {group.get("max_grad_norm") for group in groups}
                norm = norms.pop()
                if norms or type(norm) is not float or not norm > 0.0:
                    return False
                self._clips = norm, self._clips[1]
            clip = self._clip = _core.Clip(*self._clips, 1.0)
        if not _core.repeat(READER, self.memory, groups, state, clip):
            self._clip = None
            return False
        self.finish(groups)
        return True

    def full(self, call: Call) -> None:
        """Do the step with the groups as they are: checked, packed, stepped, remembered."""
        warn_if_slow()
        groups = call.groups
        if self.memory.steps_applied != self._finished or self._clip is not None:
            self.finish(groups)
        unscale = self._factor(call)
        if unscale is None:
            self._skip(groups, None)
            return
        snapshots = self._snapshots(call)
        self._writes = any(schedules.KEY in s or options.needs_count(s) for s in snapshots)
        rows, unsupported = self._pack(call, snapshots, unscale)
        clip = self._clip = _clip_of(snapshots, unscale)
        if unsupported or self._run(call, snapshots, rows, clip) is not None:
            self.slow(call, snapshots, rows, unsupported, unscale, clip)
        self.finish(groups)
        if unscale == 1.0:
            self.remembers = call.repeats and self._remember(call, snapshots, rows, clip)

    def slow(
        self,
        call: Call,
        snapshots: list[Group],
        rows: list[GroupRow],
        unsupported: set[int],
        unscale: float,
        clip: _core.Clip | None,
    ) -> None:
        """Do the step when some groups are not for the kernels or some states are missing.

        Everything that can go wrong is found before anything is written; then torch steps the groups that the
        kernels do not cover, since it may still refuse one, and the kernels step the others.
        """
        if any(row.device != CPU for row in rows):
            launch.refuse_capture()
        if self._scaler:  # there is time to wait for it
            self._scaler, read = None, read_scaler(call.attributes)
            if read is None:
                self._skip(call.groups, None)
                return
            unscale = read
            rows, _ = self._pack(call, snapshots, unscale)
            if clip is not None:
                clip.unscale = unscale
        broken = slow_path.sort_out(
            self.spec,
            snapshots,
            call.state,
            rows,
            unsupported,
            lambda: self._run(call, snapshots, rows, None, dry=True),
        )
        for g in sorted(unsupported):
            options.refuse(snapshots[g], g)
        if clip is not None:
            self._measure(rows, clip)
            if clip.skipped:
                return
        before = self.memory.steps_applied
        new = slow_path.NewStates(self.spec, call.state)
        try:
            for g, i in broken:
                new.complete(snapshots[g], rows[g], g, i)
            call.torch_step([snapshots[g] for g in sorted(unsupported)], unscale)
            failure = self._run(
                call,
                snapshots,
                rows,
                clip,
                first_steps=new.first_steps,
                first_emas=new.first_emas,
            )
            if failure is not None:
                slow_path.refuse(snapshots, failure)
        except BaseException:
            if self.memory.steps_applied == before:
                new.take_back()
            raise

    def finish(self, groups: list[Group]) -> None:
        """Do what follows a step that the compiled part has applied or skipped, if that has not been done."""
        applied, clip = self.memory.steps_applied, self._clip
        if applied == self._finished:
            if clip is not None and clip.skipped:
                self._skip(groups, clip)
            self._clip = None
            return
        if self._writes:
            self.write_groups(groups)
        last: Last | None
        if self.memories and launch.counts(self.memories):
            last = None
        elif clip is not None:
            bad = [] if math.isfinite(clip.norm) else nonfinite_names(groups)
            clips = groups[0].get("max_grad_norm") is not None
            last = (True, clip.norm, clip.coefficient if clips else None, bad)
        else:
            last = APPLIED
        self._last, self._clip, self._finished = last, None, applied

    def report(self, groups: list[Group]) -> Report:
        """Return what the last step did; waits for a device that counts steps."""
        self.finish(groups)
        last, skipped = self._last, self._skipped
        if self.memories and launch.counts(self.memories):
            on_device, skipped_there = self._last_on_device(groups)
            last, skipped = last or on_device, skipped + skipped_there
        applied, norm, coefficient, nonfinite = last or APPLIED
        return Report(applied, norm, coefficient, self.steps_applied, skipped, list(nonfinite))

    def catch_up(self, groups: list[Group]) -> None:
        """Have count and groups say what is so: after an interrupted step, where a device counts, and of new schedules."""
        self.finish(groups)
        if self._ask_device():
            self.write_groups(groups)
        for group in groups:
            if schedules.contains_schedule(group):
                schedules.enter(group, {}, self.steps_applied)
            if options.needs_count(group):
                group[schedules.COUNT] = self.steps_applied

    def _ask_device(self) -> bool:
        """Bring the host's count of steps up to date with a device's, if one counts."""
        if not self.memories or not launch.counts(self.memories):
            return False
        self.steps_applied = launch.outcome(self.memories)[4]
        return True

    def _last_on_device(self, groups: list[Group]) -> tuple[Last, int]:
        """Return what the last step on a device did, and how many were skipped there."""
        skip, norm, coefficient, finite, self.steps_applied, skipped = launch.outcome(self.memories)
        clips = groups[0].get("max_grad_norm") is not None
        measured = (clips or groups[0].get("skip_nonfinite", False)) and skip != 2
        bad = nonfinite_names(groups) if skip or not finite else []
        norm_or_none = norm if measured else None
        return (not skip, norm_or_none, coefficient if clips and not skip else None, bad), skipped

    def _skip(self, groups: list[Group], clip: _core.Clip | None) -> None:
        """Count a step that has changed nothing."""
        last: Last = (False, None if clip is None else clip.norm, None, nonfinite_names(groups))
        self._last, self._clip, self._skipped = last, None, self._skipped + 1

    def _factor(self, call: Call) -> float | None:
        """Return the factor that the gradients lack, as GradScaler says, or None if the step is to be skipped."""
        self._scaler = None
        attributes = call.attributes
        if "found_inf" not in attributes and "grad_scale" not in attributes:
            return 1.0
        self._scaler = launch.scaler_of(
            call.groups, call.defaults, self.spec.counted, call.attributes
        )
        return 1.0 if self._scaler else read_scaler(call.attributes)

    def _snapshots(self, call: Call) -> list[Group]:
        """Return the groups as they are now, their values checked: the step knows no others."""
        groups, found = call.groups, []
        checked = self._checked
        if len(checked) != len(groups):
            checked = self._checked = [None] * len(groups)
        changed = False
        for g, group in enumerate(groups):
            snapshot = dict(group)
            if not call.repeats or not _is_same(snapshot, checked[g]):
                changed, checked[g] = True, None
                if schedules.contains_schedule(snapshot):
                    schedules.enter(group, {}, self.steps_applied)
                    snapshot = dict(group)
                call.check(snapshot)
                options.check(snapshot)
                checked[g] = _constants(snapshot)
            found.append(snapshot)
        self.schedules.refuse_scheduler(groups)
        if changed:
            for snapshot in found[1:]:
                options.check_whole(snapshot, found[0])
        return found

    def _pack(
        self, call: Call, snapshots: list[Group], unscale: float
    ) -> tuple[list[GroupRow], set[int]]:
        """Return a row for each group, and which groups are for torch's own step."""
        rows, unsupported = [], set()
        for g, group in enumerate(snapshots):
            trains = "train_from" not in group or self._trains(group)
            if group["differentiable"] or not trains:
                rows.append(EMPTY_ROW)
                if trains:
                    unsupported.add(g)
                continue
            device, counts = CPU, False
            if extension.seen or (group["params"] and group["params"][0].is_cuda):
                device = extension.device_of(group)
            if device != CPU:
                counts = extension.counts_steps(group, call.defaults)
                if schedules.KEY in group and (counts or launch.counts(self.memories)):
                    group = self.schedules.for_device(group)
            if "anchor_decay" in group:
                refuse_without_anchor(group, call.state)
            rows.append(pack(self.spec, call.rule(group), group, unscale, device, counts))
        return rows, unsupported

    def _trains(self, group: Group) -> bool:
        """Return whether a group has reached its `train_from`."""
        start = group.get("train_from", 0)
        if start > 0:
            self._ask_device()
        return bool(start <= self.steps_applied)

    def _run(
        self,
        call: Call,
        snapshots: list[Group],
        rows: list[GroupRow],
        clip: _core.Clip | None,
        dry: bool = False,
        first_steps: Pairs = _NONE,
        first_emas: Pairs = _NONE,
    ) -> Any:
        """Have the kernels step the rows, or say why they cannot."""
        seed = snapshots[0].get("seed", 0) if snapshots else 0
        memory, state = self.memory, call.state
        devices = _devices_of(rows) if extension.seen else [CPU]
        if devices == [
            CPU
        ]:  # applied and counted by one call, between which and its end no signal comes
            return _core.step(
                READER, memory, rows, state, dry, clip, first_steps, first_emas, seed, True
            )
        applied = memory.steps_applied
        if len(devices) > 1 and clip is not None:
            launch.refuse_several(devices)

        def run_on(device: int, rows: list[GroupRow], dry: bool) -> Any:
            if device == CPU:
                return _core.step(
                    READER, memory, rows, state, dry, clip, first_steps, first_emas, seed, False
                )
            return launch.step(
                launch.memory_on(self.memories, device),
                device,
                rows,
                state,
                clip,
                dry,
                first_steps,
                first_emas,
                seed,
                applied,
                self._scaler,
                any(group.get("capturable") for group in snapshots),
            )

        if len(devices) == 1:
            failure = run_on(devices[0], rows, dry)
        else:
            parts = {
                device: [row if row.device == device else EMPTY_ROW for row in rows]
                for device in devices
            }
            # Nothing is written before all is known to be right.
            failure = slow_path.Failure.of(run_on(d, part, True) for d, part in parts.items())
            if failure is None and not dry:
                failure = slow_path.Failure.of(run_on(d, part, False) for d, part in parts.items())
        if failure is None and not dry and not (clip is not None and clip.skipped):
            memory.steps_applied = applied + 1
        return failure

    def _measure(self, rows: list[GroupRow], clip: _core.Clip) -> None:
        """Have `clip` measure the gradients of all parameters that the kernels can read, at once."""
        params = [p for row in rows for p in row.params]
        devices = _devices_of(rows)
        if devices == [CPU]:
            _core.measure(READER, params, clip)
            return
        if len(devices) > 1:
            launch.refuse_several(devices)
        launch.measure(launch.memory_on(self.memories, devices[0]), devices[0], params, clip)

    def _remember(
        self,
        call: Call,
        snapshots: list[Group],
        rows: list[GroupRow],
        clip: _core.Clip | None,
    ) -> bool:
        """Have the next step do with these groups and rows, if it can."""
        if not snapshots or not all(self._checked) or not all(map(is_settled, rows)):
            return False
        varying = [
            {**_DECIDE_NOTHING, **self.spec.varying(call.rule(group), group)} for group in snapshots
        ]
        self._follows_norm = any("max_grad_norm" in s.get(schedules.KEY, ()) for s in snapshots)
        if self._follows_norm:
            varying = [{**names, "max_grad_norm": (-1, 0.0)} for names in varying]
        self._clips = None if clip is None else (clip.max_norm, clip.skip_nonfinite)
        seed = snapshots[0].get("seed", 0)
        return _core.remember(READER, self.memory, snapshots, rows, varying, seed)

    def write_groups(self, groups: list[Group]) -> None:
        """Write into the groups the numbers of the next step, and the number of steps where one depends on it."""
        for group in groups:
            if schedules.KEY in group:
                self.schedules.write(group, self.steps_applied)
            elif options.needs_count(group):
                group[schedules.COUNT] = self.steps_applied


def read_scaler(attributes: Mapping[str, Any]) -> float | None:
    """Return the factor that the gradients lack, or None if GradScaler says that the step is to be skipped."""
    grad_scale, found_inf = attributes.get("grad_scale"), attributes.get("found_inf")
    if found_inf is not None and float(found_inf) > 0:
        return None
    return 1.0 if grad_scale is None else 1.0 / float(grad_scale)


def _clip_of(groups: list[Group], unscale: float) -> _core.Clip | None:
    """Return the request to measure the global norm, if an option needs it."""
    first = groups[0] if groups else {}
    largest, skips = first.get("max_grad_norm"), first.get("skip_nonfinite", False)
    if largest is None and not skips:
        return None
    return _core.Clip(math.inf if largest is None else float(largest), bool(skips), unscale)


def _devices_of(rows: list[GroupRow]) -> list[int]:
    """Return the devices of all rows that have parameters."""
    return sorted({row.device for row in rows if row.params}) or [CPU]


def _is_constant(value: Any) -> bool:
    kind = type(value)
    return kind in _CONSTANT or (kind is tuple and all(map(_is_constant, value)))


def _constants(group: Group) -> Group | None:
    """Return a copy to compare the group with, or None if a value might change and still be the same object."""
    if not all(key in _BESIDE or _is_constant(value) for key, value in group.items()):
        return None
    return {**group, "params": None}  # keeps no parameter alive


def _is_same(group: Group, known: Group | None) -> bool:
    """Return whether a group has the very values, in the same order, that were found right."""
    if known is None or len(group) != len(known):
        return False
    known["params"] = group.get("params")
    same = all(map(is_, group, known)) and all(map(is_, group.values(), known.values()))
    known["params"] = None
    return same
