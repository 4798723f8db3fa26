"""What loading a checkpoint needs beyond torch's `load_state_dict`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from onepass.optim import options, scheduled
from onepass.optim.states import ANCHOR, EMA, MASTER, READABLE, name_of, problem_of, state_dtype

if TYPE_CHECKING:
    from onepass.optim.base import OnePass


def _before(optimizer: OnePass, state_dict: dict[str, Any]) -> dict[str, Any]:
    """Check a checkpoint and complete its groups by what stays as it is."""
    check_loaded(optimizer, state_dict)
    saved = state_dict["param_groups"]
    if len(saved) != len(optimizer.param_groups):
        return state_dict  # torch refuses it
    groups = []
    for i, (own, group) in enumerate(zip(optimizer.param_groups, saved, strict=True)):
        kept = {name: own[name] for name in options.DEFAULTS if name in own}
        groups.append({**kept, **scheduled.merge(own, group, optimizer.on_schedule_mismatch, i)})
    anchored = with_anchors(optimizer, state_dict, groups)
    return {**state_dict, "param_groups": groups, "state": anchored}


def _after(optimizer: OnePass, state_dict: dict[str, Any]) -> None:
    restore_dtypes(optimizer, state_dict)
    for name in options.WHOLE:
        if name in optimizer.param_groups[0]:
            optimizer.defaults[name] = optimizer.param_groups[0][name]
    for group in optimizer.param_groups:
        if scheduled.KEY in group:
            optimizer.schedules.write(group, optimizer.steps_applied)


def steps_applied(optimizer: OnePass) -> int:
    """Return how many steps the groups and states of an optimizer have seen, as far as they tell."""
    groups = optimizer.param_groups
    counts = [group.get(scheduled.COUNT, 0) for group in groups]
    steps = [optimizer.state.get(p, {}).get("step", 0) for group in groups for p in group["params"]]
    return max([*counts, *map(int, steps)], default=0)


def check_loaded(optimizer: OnePass, state_dict: dict[str, Any]) -> None:
    """Raise ValueError if a checkpoint's states are not those of the optimizer's parameters."""
    groups = optimizer.param_groups
    for g, (own, saved) in enumerate(zip(groups, state_dict["param_groups"], strict=False)):
        for i, (p, number) in enumerate(zip(own["params"], saved["params"], strict=False)):
            problem = problem_of(optimizer, state_dict["state"].get(number, {}), p)
            if problem:
                message = f"checkpoint does not fit {name_of(groups, g, i)}: {problem}; nothing was loaded"
                raise ValueError(message)


def with_anchors(
    optimizer: OnePass, state_dict: dict[str, Any], groups: list[dict[str, Any]]
) -> dict[Any, Any]:
    """Return a checkpoint's states, completed by the optimizer's own anchors in groups for which it has none."""
    states = dict(state_dict["state"])
    for own, group in zip(optimizer.param_groups, groups, strict=True):
        pairs = list(zip(own["params"], group["params"], strict=False))
        if any(states.get(number, {}).get(ANCHOR) is not None for _, number in pairs):
            continue
        for p, number in pairs:
            anchor = optimizer.state.get(p, {}).get(ANCHOR)
            if anchor is not None:
                states[number] = {**states.get(number, {}), ANCHOR: anchor}
    return states


@contextmanager
def hooks(optimizer: OnePass) -> Iterator[None]:
    """Have torch's `load_state_dict` call us: before it, after the user's hooks; and after it, before the user's."""
    loaded: list[dict[str, Any]] = []

    def before(_: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
        loaded.append(_before(optimizer, state_dict))
        return loaded[0]

    handles = (
        optimizer.register_load_state_dict_pre_hook(before),
        optimizer.register_load_state_dict_post_hook(
            lambda _: _after(optimizer, loaded[0]), prepend=True
        ),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def restore_dtypes(optimizer: OnePass, state_dict: dict[str, Any]) -> None:
    """Put back what torch's `load_state_dict` has cast to the dtype of the parameter, and should not have."""
    for own, saved in zip(optimizer.param_groups, state_dict["param_groups"], strict=True):
        for p, number in zip(own["params"], saved["params"], strict=True):
            for key, value in state_dict["state"].get(number, {}).items():
                if not isinstance(value, torch.Tensor) or key == "step":
                    continue
                if key in optimizer.state_keys:
                    dtype = state_dtype(own, p) if value.dtype in READABLE else value.dtype
                elif key in (EMA, MASTER, ANCHOR) or key.endswith(("_code", "_scale")):
                    dtype = value.dtype
                else:
                    continue
                optimizer.state[p][key] = value.detach().to(device=p.device, dtype=dtype, copy=True)
