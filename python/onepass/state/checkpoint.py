"""What loading a checkpoint needs beyond torch's `load_state_dict`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from onepass.hyper import options, schedules
from onepass.hyper.spec import Group, Spec
from onepass.state.check import problem_of
from onepass.state.make import state_dtype
from onepass.state.names import ANCHOR, EMA, MASTER, READABLE, States, name_of


def prepare(
    spec: Spec, groups: list[Group], state: States, saved: dict[str, Any], policy: str
) -> dict[str, Any]:
    """Check a checkpoint and return it with its groups completed by what stays as it is.

    Args:
        spec: Of the optimizer.
        groups: The optimizer's.
        state: The optimizer's.
        saved: The checkpoint.
        policy: What happens where it has another schedule, see `schedules.merge`.

    Raises:
        ValueError: A state is not that of its parameter, or schedules differ and the policy is "error".
    """
    check_loaded(spec, groups, saved)
    if len(saved["param_groups"]) != len(groups):
        return saved  # torch refuses it
    merged = []
    for i, (own, group) in enumerate(zip(groups, saved["param_groups"], strict=True)):
        kept = {name: own[name] for name in options.DEFAULTS if name in own}
        merged.append({**kept, **schedules.merge(own, group, policy, i)})
    anchored = with_anchors(groups, state, saved["state"], merged)
    return {**saved, "param_groups": merged, "state": anchored}


def steps_applied(groups: list[Group], state: States) -> int:
    """Return how many steps the groups and states of an optimizer have seen, as far as they tell."""
    counts = [group.get(schedules.COUNT, 0) for group in groups]
    steps = [state.get(p, {}).get("step", 0) for group in groups for p in group["params"]]
    return max([*counts, *map(int, steps)], default=0)


def check_loaded(spec: Spec, groups: list[Group], saved: dict[str, Any]) -> None:
    """Raise ValueError if a checkpoint's states are not those of the optimizer's parameters."""
    for g, (own, its) in enumerate(zip(groups, saved["param_groups"], strict=False)):
        for i, (p, number) in enumerate(zip(own["params"], its["params"], strict=False)):
            problem = problem_of(spec, saved["state"].get(number, {}), p)
            if problem:
                message = f"checkpoint does not fit {name_of(groups, g, i)}: {problem}; nothing was loaded"
                raise ValueError(message)


def with_anchors(
    groups: list[Group], state: States, saved: Mapping[Any, Any], saved_groups: list[Group]
) -> dict[Any, Any]:
    """Return a checkpoint's states, completed by the optimizer's own anchors in groups for which it has none."""
    states = dict(saved)
    for own, group in zip(groups, saved_groups, strict=True):
        pairs = list(zip(own["params"], group["params"], strict=False))
        if any(states.get(number, {}).get(ANCHOR) is not None for _, number in pairs):
            continue
        for p, number in pairs:
            anchor = state.get(p, {}).get(ANCHOR)
            if anchor is not None:
                states[number] = {**states.get(number, {}), ANCHOR: anchor}
    return states


def restore_dtypes(spec: Spec, groups: list[Group], state: States, saved: dict[str, Any]) -> None:
    """Put back what torch's `load_state_dict` has cast to the dtype of the parameter, and should not have."""
    for own, its in zip(groups, saved["param_groups"], strict=True):
        for p, number in zip(own["params"], its["params"], strict=True):
            for key, value in saved["state"].get(number, {}).items():
                if not isinstance(value, torch.Tensor) or key == "step":
                    continue
                if key in spec.states:
                    dtype = state_dtype(own, p) if value.dtype in READABLE else value.dtype
                elif key in (EMA, MASTER, ANCHOR) or key.endswith(("_code", "_scale")):
                    dtype = value.dtype
                else:
                    continue
                state[p][key] = value.detach().to(device=p.device, dtype=dtype, copy=True)
