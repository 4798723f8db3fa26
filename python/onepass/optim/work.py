"""A parameter group as the kernels take it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from onepass import _core
from onepass.optim import devices, scheduled, states

if TYPE_CHECKING:
    from onepass.optim.base import OnePass

Group = dict[str, Any]
Work = list[tuple[Any, ...]]
"""Groups as `describe` returns them."""

_NO_EXTRAS = states.Extras()
_IDLE = (1.0, math.inf, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, False, 0.0)
NOTHING: tuple[Any, ...] = ([], 0, (), 0, _IDLE, _NO_EXTRAS, devices.CPU)
"""A group without parameters, in the place of one that is not for the kernels."""
_LR = len(_IDLE) - 1
COUNTED, PLACE = 3, 6
"""Where a group says whether its steps are counted (2: on its device), and where its parameters are."""


class Rule(NamedTuple):
    """An update rule of csrc/rules/rules.hpp: its number, and the names of its states in torch's state dict."""

    number: int
    keys: tuple[str, ...]


def rule(name: str, *keys: str) -> Rule:
    """Return the rule of this name; `keys` in the order in which the rule takes its states."""
    return Rule(_core.rules()[name], keys)


def has_anchor(optimizer: OnePass, group: Group) -> bool:
    """Return whether a group without parameters, or one of its parameters, knows where it decays to."""
    state = optimizer.state
    return not group["params"] or any(states.ANCHOR in state.get(p, ()) for p in group["params"])


def launch_counts(optimizer: OnePass, group: Group) -> bool:
    """Return whether a device knows the number of the step before the host does."""
    return devices.counts_steps(group, optimizer.defaults) or any(
        memory.core.counts for memory in optimizer._memories.values()
    )


def describe(optimizer: OnePass, group: Group, unscale: float) -> tuple[Any, ...]:
    """Return a group as `_core.step` takes it."""
    if group["differentiable"] or not optimizer.trains(group):
        return NOTHING
    params = group["params"]
    place = devices.CPU
    if params and (params[0].is_cuda or devices.seen):
        place = devices.place_of(group)
    if place != devices.CPU and scheduled.KEY in group and launch_counts(optimizer, group):
        group = optimizer.schedules.for_device(group)
    (number, keys), hyper = optimizer.rule(group)
    lr, decay, counted = group["lr"], group["weight_decay"], int(optimizer.counted)
    if place == devices.CPU:
        lr, decay = float(lr), float(decay)
    else:
        lr, decay = _left_there(lr, place), _left_there(decay, place)
        hyper = tuple(_left_there(h, place) for h in hyper)
        counted *= 2 if devices.counts_steps(group, optimizer.defaults) else 1
    decoupled = group.get("decoupled_weight_decay", False)
    get = group.get
    l1 = get("l1_decay", 0.0)
    proximal = get("l1_mode", "proximal") == "proximal"
    clamp, average, anchor = get("max_grad_value"), get("ema_decay"), get("anchor_decay", 0.0)
    numbers = (
        -unscale if group["maximize"] else unscale,
        math.inf if clamp is None else clamp,
        0.0 if decoupled else decay,
        0.0 if proximal else l1,
        0.0 if decoupled else anchor,
        anchor if decoupled else 0.0,
        decay if decoupled else 0.0,
        l1 if proximal else 0.0,
        0.0 if average is None else 1.0 - average,
        get("rounding") == "stochastic",
        lr,
        *hyper,
    )
    extras = _NO_EXTRAS
    quantised, mastered = get("state_dtype") == "8bit", get("master_weights", False)
    if anchor and not has_anchor(optimizer, group):
        message = (
            f"anchor_decay={anchor!r}: no parameter of the group has an {states.ANCHOR!r} in its state to decay to; "
            "onepass.transfer.anchor_decay puts one there; nothing was updated"
        )
        raise RuntimeError(message)
    if quantised or mastered or anchor or average is not None:
        extras = states.Extras(
            scales=tuple(map(states.scale_key, keys)) if quantised else (),
            ema=None if average is None else states.EMA,
            master=states.MASTER if mastered else None,
            anchor=states.ANCHOR if anchor else None,
        )
        keys = tuple(map(states.code_key, keys)) if quantised else keys
    return params, number, keys, counted, numbers, extras, place


def is_settled(described: tuple[Any, ...]) -> bool:
    """Return whether the next step will describe a group in the same way, unless one of its values changes."""
    return described[PLACE] == devices.CPU and described is not NOTHING and not described[5].anchor


def numbers_of(optimizer: OnePass, group: Group) -> dict[str, int]:
    """Return which values of a group only decide numbers of its description, and the place of the first of these."""
    decoupled = bool(group.get("decoupled_weight_decay", False))
    proximal = group.get("l1_mode", "proximal") == "proximal"
    of_rule = {name: _LR + 1 + place for name, place in optimizer.places}
    return {
        "lr": _LR,
        "weight_decay": 6 if decoupled else 2,
        "l1_decay": 7 if proximal else 3,
        **of_rule,
    }


def _left_there(number: Any, place: int) -> Any:
    """Return a number, or the tensor on the device that holds it."""
    return number if isinstance(number, bytes) or devices.is_at(number, place) else float(number)
