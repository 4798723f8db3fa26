"""Hyper-parameters that are schedules: how they live in parameter groups, and what loading does with them.

`group["lr"]` always holds a number, the one that the next step will use. The schedule behind it stands beside it
as plain data, `group["schedules"] = {"lr": {...}}`, and `group["steps_applied"]` says how far it has come: whatever
copies, saves or exchanges groups takes the schedules along.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onepass.schedule import Schedule, from_dict
from onepass.schedule.program import program

KEY, COUNT = "schedules", "steps_applied"
POLICIES = ("error", "keep", "checkpoint")
_NAMES = ("lr", "weight_decay", "l1_decay", "momentum")


def split(values: Mapping[str, Any], t: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return `values` with every schedule replaced by its number at `t`, and the schedules as plain data.

    A schedule of one of the betas is called "betas.0" or "betas.1".
    """
    numbers, plain = dict(values), {}
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
    numbers, plain = split(group, t)
    default = {name: s for name, s in defaults.get(KEY, {}).items() if _field(name) not in group}
    group.update(numbers)
    if plain or default or KEY in defaults:
        group[KEY] = {**default, **group.get(KEY, {}), **plain}
        for name in default:
            group.setdefault(_field(name), defaults.get(_field(name), 0.0))
        Schedules().write(group, t)


def _field(name: str) -> str:
    return name.partition(".")[0]


class Schedules:
    """The schedules of an optimizer's groups, read from their plain data once."""

    def __init__(self) -> None:
        self._read: dict[int, tuple[dict[str, Any], list[tuple[str, int | None, Schedule]]]] = {}

    def of(self, group: Mapping[str, Any]) -> list[tuple[str, int | None, Schedule]]:
        """Return the schedules of a group, each with its key and, for a beta, its index there."""
        plain = group[KEY]
        known = self._read.get(id(plain))
        if known is None or known[0] is not plain:
            fields = []
            for name, schedule in plain.items():
                field, _, index = name.partition(".")
                fields.append((field, int(index) if index else None, from_dict(schedule)))
            known = plain, fields
            self._read[id(plain)] = known
        return known[1]

    def write(self, group: dict[str, Any], t: int) -> None:
        """Write into a group the numbers that the step after `t` applied steps uses."""
        for field, index, schedule in self.of(group):
            if index is None:
                group[field] = schedule(t)
            else:
                betas = group[field]
                group[field] = (*betas[:index], schedule(t), *betas[index + 1 :])
        group[COUNT] = t

    def for_device(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """Return a group with programs in the place of the numbers that schedules give."""
        found = dict(group)
        for field, index, schedule in self.of(group):
            if index is None:
                found[field] = program(schedule)
            else:
                betas = found[field]
                found[field] = (*betas[:index], program(schedule), *betas[index + 1 :])
        return found


def contains_schedule(group: Mapping[str, Any]) -> bool:
    """Return whether somebody has put a schedule itself into a parameter group."""
    betas = group.get("betas", ())
    return any(isinstance(group.get(name), Schedule) for name in _NAMES) or (
        isinstance(betas, tuple | list) and any(isinstance(beta, Schedule) for beta in betas)
    )


def refuse_scheduler(group: Mapping[str, Any], number: int) -> None:
    """Raise if a torch scheduler writes into a learning rate that is a schedule."""
    if "initial_lr" in group and "lr" in group[KEY]:
        message = (
            f"lr of parameter group {number} is a schedule, and a torch LRScheduler was made for this optimizer, "
            "too: give the optimizer a number as lr, or leave the scheduler out "
            "(onepass.schedule.as_torch_scheduler makes a scheduler of a schedule); nothing was updated"
        )
        raise RuntimeError(message)


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
    if plain or KEY in own or KEY in saved:
        merged[KEY] = plain
    if "lr" in plain:
        merged.pop("initial_lr", None)  # of a torch scheduler that is not there any more
    return merged
