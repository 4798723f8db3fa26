"""A parameter group as the kernels take it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

from onepass.device import extension
from onepass.device.extension import CPU
from onepass.hyper.spec import RULES, SLOTS, Group, Spec
from onepass.state.names import ANCHOR, EMA, MASTER, Extras, States, code_key, scale_key

_NO_EXTRAS = Extras()
_SCALE, _CLAMP, _COUPLED = SLOTS["scale"], SLOTS["clamp"], SLOTS["coupled"]
_SUBGRADIENT, _PROXIMAL = SLOTS["subgradient"], SLOTS["proximal"]
_ANCHOR_COUPLED, _ANCHOR_DECOUPLED = SLOTS["anchor_coupled"], SLOTS["anchor_decoupled"]
_DECOUPLED, _EMA_DECAY, _STOCHASTIC = SLOTS["decoupled"], SLOTS["ema_decay"], SLOTS["stochastic"]
_LR = SLOTS["hyper"]
_IDLE = [1.0 if slot == _SCALE else math.inf if slot == _CLAMP else 0.0 for slot in SLOTS.values()]


class GroupRow(NamedTuple):
    """What `_core.step` takes of a parameter group.

    Attributes:
        params: The list of parameters.
        rule: Number of the update rule.
        states: Names of the rule's states in the state of a parameter (of their bytes, if they are in 8 bits).
        counted: Whether a "step" is kept beside them: 0 no, 1 on the CPU, 2 on the device of the parameter.
        numbers: By the slots of `hyper.spec.SLOTS`, then the rule's hyper-parameters.
        extras: Names of what is kept beyond.
        device: Number of the device of the parameters, or CPU.
    """

    params: list[torch.Tensor]
    rule: int
    states: tuple[str, ...]
    counted: int
    numbers: tuple[Any, ...]
    extras: Extras
    device: int


EMPTY_ROW = GroupRow([], 0, (), 0, tuple(_IDLE), _NO_EXTRAS, CPU)
"""A group without parameters, in the place of one that is not for the kernels."""


def pack(
    spec: Spec,
    rule: str,
    group: Group,
    unscale: float,
    device: int = CPU,
    counts_on_device: bool = False,
) -> GroupRow:
    """Return a group as the kernels take it.

    Args:
        spec: Of the optimizer.
        rule: Name of the group's update rule.
        group: The group, its values checked. On a device, a number may be a tensor there or a schedule's program.
        unscale: Factor that the gradients in memory still lack.
        device: Where the parameters are.
        counts_on_device: Whether the steps of the group are counted there.
    """
    number, states, _, _ = RULES[rule]
    lr, decay = group["lr"], group["weight_decay"]
    hyper = [get(group) for get in spec.getters[rule]]
    if device == CPU:
        lr, decay = float(lr), float(decay)
    else:
        lr, decay = _left_there(lr, device), _left_there(decay, device)
        hyper = [_left_there(h, device) for h in hyper]
    get = group.get
    numbers = _IDLE.copy()
    numbers[_SCALE] = -unscale if group["maximize"] else unscale
    decoupled = get("decoupled_weight_decay", False)
    numbers[_DECOUPLED if decoupled else _COUPLED] = decay
    numbers[_LR] = lr
    numbers += hyper
    l1, anchor = get("l1_decay", 0.0), get("anchor_decay", 0.0)
    if l1:
        proximal = get("l1_mode", "proximal") == "proximal"
        numbers[_PROXIMAL if proximal else _SUBGRADIENT] = l1
    if anchor:
        numbers[_ANCHOR_DECOUPLED if decoupled else _ANCHOR_COUPLED] = anchor
    clamp, ema_decay = get("max_grad_value"), get("ema_decay")
    if clamp is not None:
        numbers[_CLAMP] = clamp
    if ema_decay is not None:
        numbers[_EMA_DECAY] = ema_decay
    if get("rounding") == "stochastic":
        numbers[_STOCHASTIC] = 1.0
    states, extras = state_names(states, group)
    counted = 2 if spec.counted and counts_on_device else int(spec.counted)
    return GroupRow(group["params"], number, states, counted, tuple(numbers), extras, device)


def state_names(states: tuple[str, ...], group: Group) -> tuple[tuple[str, ...], Extras]:
    """Return under which names a group keeps the states of its rule, and what it keeps beyond."""
    get = group.get
    quantized, mastered = get("state_dtype") == "8bit", get("master_weights", False)
    averaged, anchored = get("ema_decay") is not None, get("anchor_decay", 0.0)
    if not (quantized or mastered or anchored or averaged):
        return states, _NO_EXTRAS
    extras = Extras(
        scales=tuple(map(scale_key, states)) if quantized else (),
        ema=EMA if averaged else None,
        master=MASTER if mastered else None,
        anchor=ANCHOR if anchored else None,
    )
    return tuple(map(code_key, states)) if quantized else states, extras


def is_settled(row: GroupRow) -> bool:
    """Return whether the next step will pack a group into the same row, unless one of its values changes."""
    return row.device == CPU and row is not EMPTY_ROW and not row.extras.anchor


def refuse_without_anchor(group: Group, state: States) -> None:
    """Raise if a group is to decay to anchors, and none of its parameters has one."""
    anchor, params = group.get("anchor_decay", 0.0), group["params"]
    if anchor and params and not any(ANCHOR in state.get(p, ()) for p in params):
        message = (
            f"anchor_decay={anchor!r}: no parameter of the group has an {ANCHOR!r} in its state to decay to; "
            "onepass.transfer.anchor_decay puts one there; nothing was updated"
        )
        raise RuntimeError(message)


def _left_there(number: Any, device: int) -> Any:
    """Return a number, or the tensor on the device that holds it."""
    return number if isinstance(number, bytes) or extension.is_on(number, device) else float(number)
