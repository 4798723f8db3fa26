"""Hyper-parameters that are schedules: how they live in parameter groups, and what loading does with them.

`group["lr"]` always holds a number, the one that the next step will use. The schedule behind it stands beside it
as plain data, `group["schedules"] = {"lr": {...}}`, and `group["steps_applied"]` says how far it has come; what reduces
a learning rate is `group["plateau"]`. Whatever copies, saves or exchanges groups takes them along.
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Mapping
from typing import Any

from onepass.schedule import Constant, Schedule, from_dict
from onepass.schedule.plateau import STATE, Plateau, Reduced, config, lowered, observed
from onepass.schedule.program import program

KEY, COUNT, OFFSET, PLATEAU = "schedules", "steps_applied", "step_offset", "plateau"
KEYS = (KEY, COUNT, OFFSET, PLATEAU)
"""Entries of a group that a step does not read: what makes its numbers, and how far that has come.

`group["step_offset"]` says how many steps more the states have seen than the optimizer has applied: where they were
loaded into one that counts for itself.
"""
POLICIES = ("error", "keep", "checkpoint")
_NAMES = ("lr", "weight_decay", "l1_decay", "momentum", "ema_decay", "max_grad_norm")


def split(values: Mapping[str, Any], t: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return `values` with every schedule replaced by its number at `t`, and the schedules as plain data.

    A schedule of one of the betas is called "betas.0" or "betas.1". A `Plateau` is replaced by its state.
    """
    numbers, plain = dict(values), {}
    lr, plateau = values.get("lr"), values.get(PLATEAU)
    if isinstance(lr, Reduced):
        if isinstance(plateau, Plateau | Mapping):
            message = f"{PLATEAU} must be None where lr has one, got {plateau!r}"
            raise ValueError(message)
        values = {**values, "lr": lr.schedule, PLATEAU: lr.plateau}
        plateau = lr.plateau
    if isinstance(plateau, Plateau):
        numbers[PLATEAU] = plateau.start()
    for name in _NAMES:
        value = values.get(name)
        if isinstance(value, Schedule):
            numbers[name], plain[name] = value(t), value.to_dict()
    betas = values.get("betas")
    if isinstance(betas, tuple | list) and any(isinstance(b, Schedule) for b in betas):
        numbers["betas"] = tuple(b(t) if isinstance(b, Schedule) else b for b in betas)
        plain.update(
            {f"betas.{i}": b.to_dict() for i, b in enumerate(betas) if isinstance(b, Schedule)}
        )
    return numbers, plain


def enter(group: dict[str, Any], defaults: Mapping[str, Any], t: int) -> None:
    """Give a parameter group its schedules, those of the defaults that it does not override among them."""
    if group.get(PLATEAU, defaults.get(PLATEAU)) is not None:
        scheduled = "lr" in group.get(KEY, ()) or (
            "lr" not in group and "lr" in defaults.get(KEY, ())
        )
        lr = group.get("lr", defaults.get("lr"))
        if not scheduled and not isinstance(lr, Schedule | Reduced):
            group["lr"] = Constant(float(lr))  # type: ignore[arg-type]
    numbers, plain = split(group, t)
    default = {name: s for name, s in defaults.get(KEY, {}).items() if _field(name) not in group}
    group.update(numbers)
    if PLATEAU not in group and PLATEAU in defaults:
        group[PLATEAU] = dict(defaults[PLATEAU])
    if plain or default or KEY in defaults:
        group[KEY] = {**default, **group.get(KEY, {}), **plain}
        for name in default:
            group.setdefault(_field(name), defaults.get(_field(name), 0.0))
        Schedules().write(group, t)


def _field(name: str) -> str:
    return name.partition(".")[0]


_SCHEDULERS = ("torch.optim.lr_scheduler", "timm.scheduler")
"""Modules of classes that write learning rates into groups."""
Fields = list[tuple[str, "int | None", Schedule]]


class Schedules:
    """The schedules of an optimizer's groups, read from their plain data once."""

    def __init__(self) -> None:
        self._read: dict[int, tuple[dict[str, Any], Fields]] = {}
        # By group: its lr, and whether it has an "initial_lr", as every torch scheduler leaves behind.
        self._written: dict[int, tuple[Any, bool]] = {}
        self._surprises = 0

    def of(self, group: Mapping[str, Any]) -> Fields:
        """Return the schedules of a group, each with its key and, for a beta, its index there."""
        plain = group[KEY]
        known = self._read.get(id(plain))
        if known is None or known[0] != plain:
            fields = []
            for name, schedule in plain.items():
                field, _, index = name.partition(".")
                fields.append((field, int(index) if index else None, from_dict(schedule)))
            known = copy.deepcopy(plain), fields
            self._read[id(plain)] = known
        return known[1]

    def write(self, group: dict[str, Any], t: int) -> None:
        """Write into a group the numbers that the step after `t` applied steps uses."""
        for field, index, schedule in self.of(group):
            if field == "lr":
                group[field] = lr = lowered(group.get(PLATEAU), schedule)(t)
                self._written[id(group)] = lr, "initial_lr" in group
            elif index is None:
                group[field] = schedule(t)
            else:
                betas = group[field]
                group[field] = (*betas[:index], schedule(t), *betas[index + 1 :])
        group[COUNT] = t

    def are_as_written(self, groups: list[dict[str, Any]]) -> bool:
        """Return whether nobody else has written into a learning rate that is a schedule."""
        for group in groups:
            if "lr" not in group.get(KEY, ()):
                continue
            known = self._written.get(id(group))
            if known is None:
                schedule = next(s for field, _, s in self.of(group) if field == "lr")
                known = lowered(group.get(PLATEAU), schedule)(group.get(COUNT, 0)), False
            if known != (group["lr"], "initial_lr" in group):
                return False
        return True

    def refuse_scheduler(self, groups: list[dict[str, Any]]) -> None:
        """Raise if a torch scheduler writes into a learning rate that is a schedule.

        To look for one takes some 10 ms. It is done where somebody has written into such a learning rate, more and more
        seldom where that was no scheduler.
        """
        if self.are_as_written(groups):
            return
        self._surprises += 1
        if self._surprises & (self._surprises - 1):
            return
        scheduler = live_scheduler(groups)
        if scheduler is not None:
            self._surprises = 0
            g = next(g for g, group in enumerate(groups) if "lr" in group.get(KEY, ()))
            message = (
                f"lr of parameter group {g} is a schedule, and a torch LRScheduler ({type(scheduler).__name__}) was "
                "made for this optimizer, too: give the optimizer a number as lr, or delete the scheduler "
                "(onepass.schedule.as_torch_scheduler makes a scheduler of a schedule, onepass.schedule.Plateau "
                "reduces one); nothing was updated"
            )
            raise RuntimeError(message)
        for group in groups:
            self._written[id(group)] = group.get("lr"), "initial_lr" in group

    def for_device(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """Return a group with programs in the place of the numbers that schedules give."""
        found = dict(group)
        for field, index, schedule in self.of(group):
            if field == "max_grad_norm":
                message = (
                    f"{field} must be a number where the device counts the steps (capturable, a tensor lr, GradScaler "
                    f"in the step), got the schedule {schedule!r}; nothing was updated"
                )
                raise RuntimeError(message)
            if field == "lr":
                schedule = lowered(group.get(PLATEAU), schedule)
            if index is None:
                found[field] = program(schedule)
            else:
                betas = found[field]
                found[field] = (*betas[:index], program(schedule), *betas[index + 1 :])
        return found


def contains_schedule(group: Mapping[str, Any]) -> bool:
    """Return whether somebody has put a schedule itself into a parameter group."""
    betas = group.get("betas", ())
    return (
        any(isinstance(group.get(name), Schedule) for name in _NAMES)
        or isinstance(group.get("lr"), Reduced)
        or isinstance(group.get(PLATEAU), Plateau)
        or (isinstance(betas, tuple | list) and any(isinstance(beta, Schedule) for beta in betas))
    )


def live_scheduler(groups: list[dict[str, Any]]) -> Any:
    """Return a torch scheduler (or one of timm) that belongs to the optimizer of these groups, or None."""
    if _find_scheduler(groups) is None:
        return None
    gc.collect()  # one that nobody refers to any more is none
    return _find_scheduler(groups)


def _find_scheduler(groups: list[dict[str, Any]]) -> Any:
    known: dict[type, bool] = {}
    for thing in gc.get_objects():
        kind = type(thing)
        is_scheduler = known.get(kind)
        if is_scheduler is None:
            modules = (str(c.__module__) for c in kind.__mro__)
            is_scheduler = known[kind] = any(m.startswith(_SCHEDULERS) for m in modules)
        if is_scheduler and _writes_into(thing, groups):
            return thing
    return None


def _writes_into(scheduler: Any, groups: list[dict[str, Any]]) -> bool:
    optimizer = getattr(scheduler, "__dict__", {}).get("optimizer")
    its = getattr(optimizer, "param_groups", ())
    return any(group is own for group in its for own in groups)


def feed(groups: list[dict[str, Any]], metric: float) -> bool:
    """Have the plateaus of all groups see a metric; return whether there are any."""
    fed = [(g, observed(g[PLATEAU], metric)) for g in groups if g.get(PLATEAU) is not None]
    for group, state in fed:
        group[PLATEAU] = state
    return bool(fed)


def merge(
    own: Mapping[str, Any], saved: Mapping[str, Any], policy: str, number: int
) -> dict[str, Any]:
    """Return a saved group with the schedules that it shall have after loading.

    Args:
        own: The group that is there.
        saved: The group of the checkpoint.
        policy: What happens where the checkpoint has another schedule: "error", "keep" ours or take that of
            the "checkpoint".
        number: The number of the group.

    Raises:
        ValueError: The schedules differ and the policy is "error", or there is no such policy.
    """
    if policy not in POLICIES:
        message = (
            f"on_schedule_mismatch must be one of {', '.join(map(repr, POLICIES))}, got {policy!r}"
        )
        raise ValueError(message)
    mine, theirs = own.get(KEY, {}), saved.get(KEY, {})
    merged, plain = dict(saved), dict(mine)
    for name, schedule in theirs.items():
        if mine.get(name) == schedule:
            continue
        if policy == "error":
            ours = from_dict(mine[name]) if name in mine else own.get(_field(name))
            message = (
                f"{name} of parameter group {number} is {ours!r}, in the checkpoint {from_dict(schedule)!r}: set "
                "on_schedule_mismatch to 'keep' or 'checkpoint' on the optimizer; nothing was loaded"
            )
            raise ValueError(message)
        if policy == "checkpoint":
            plain[name] = schedule
        elif name not in mine:
            merged[_field(name)] = own[_field(name)]
    _merge_plateaus(own, saved, policy, number, merged)
    if plain or KEY in own or KEY in saved:
        merged[KEY] = plain
    if "lr" in plain:
        merged.pop("initial_lr", None)  # of a torch scheduler that is not there any more
    return merged


def _merge_plateaus(
    own: Mapping[str, Any],
    saved: Mapping[str, Any],
    policy: str,
    number: int,
    merged: dict[str, Any],
) -> None:
    """Have a merged group go on with the metrics of the checkpoint, reduced as the policy says."""
    mine, theirs = own.get(PLATEAU), saved.get(PLATEAU)
    if theirs is None:
        return
    ours, its = None if mine is None else config(mine), config(theirs)
    if ours == its or policy == "checkpoint":
        return
    if policy == "error":
        message = (
            f"{PLATEAU} of parameter group {number} is {ours!r}, in the checkpoint {its!r}: set on_schedule_mismatch "
            "to 'keep' or 'checkpoint' on the optimizer; nothing was loaded"
        )
        raise ValueError(message)
    merged[PLATEAU] = None
    if ours is not None:
        merged[PLATEAU] = {**ours.start(), **{key: theirs[key] for key in STATE}}
