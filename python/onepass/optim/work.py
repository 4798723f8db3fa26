"""A parameter group as the kernels take it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from onepass import _core
from onepass.optim import states

if TYPE_CHECKING:
    from onepass.optim.base import OnePass

Group = dict[str, Any]

_NO_EXTRAS = states.Extras()
_IDLE = (1.0, math.inf, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, False, 0.0)
NOTHING: tuple[Any, ...] = ([], 0, (), False, _IDLE, _NO_EXTRAS)
"""A group without parameters, in the place of one that is not for the kernels."""


class Rule(NamedTuple):
    """An update rule of csrc/rules.hpp: its number, and the names of its states in torch's state dict."""

    number: int
    keys: tuple[str, ...]


def rule(name: str, *keys: str) -> Rule:
    """Return the rule of this name; `keys` in the order in which the rule takes its states."""
    return Rule(_core.rules()[name], keys)


def has_anchor(optimizer: OnePass, group: Group) -> bool:
    """Return whether a group without parameters, or one of its parameters, knows where it decays to."""
    state = optimizer.state
    return not group["params"] or any(states.ANCHOR in state.get(p, ()) for p in group["params"])


def describe(optimizer: OnePass, group: Group, unscale: float) -> tuple[Any, ...]:
    """Return a group as `_core.step` takes it."""
    if group["differentiable"] or not optimizer.trains(group):
        return NOTHING
    (number, keys), hyper = optimizer.rule(group)
    lr = float(group["lr"])
    decay = float(group["weight_decay"])
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
    return group["params"], number, keys, optimizer.counted, numbers, extras
