"""What checkpoints need beyond torch's `state_dict` and `load_state_dict`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from onepass.hyper import options, schedules
from onepass.hyper.spec import Group, Spec
from onepass.state.check import is_missing, problem_of
from onepass.state.make import state_dtype
from onepass.state.names import (
    ANCHOR,
    EMA,
    MASTER,
    READABLE,
    States,
    code_key,
    name_of,
    scale_key,
)


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
    check_class(spec, groups, saved)
    check_loaded(spec, groups, saved)
    if len(saved["param_groups"]) != len(groups):
        return saved  # torch refuses it
    merged = []
    for i, (own, group) in enumerate(zip(groups, saved["param_groups"], strict=True)):
        kept = {name: own[name] for name in options.DEFAULTS if name in own}
        merged.append({**kept, **schedules.merge(own, group, policy, i)})
    states = {**saved["state"], **_unstarted(spec, merged, saved["state"])}
    anchored = with_anchors(groups, state, states, merged)
    return {**saved, "param_groups": merged, "state": anchored}


def steps_applied(groups: list[Group], state: Mapping[Any, Any]) -> int:
    """Return how many steps the groups and states of an optimizer have seen, as far as they tell."""
    counts = [group.get(schedules.COUNT, 0) for group in groups]
    steps = [state.get(p, {}).get("step", 0) for group in groups for p in group["params"]]
    offset = next((int(g[schedules.OFFSET]) for g in groups if schedules.OFFSET in g), 0)
    return max([0, *map(int, counts), *(int(step) - offset for step in steps)])


def with_count(groups: list[Group], state: Mapping[Any, Any], applied: int) -> list[Group]:
    """Return saved groups from which `steps_applied` reads that many steps, whatever their states have seen."""
    seen = max((int(own["step"]) for own in state.values() if "step" in own), default=applied)
    plain = [{k: v for k, v in g.items() if k != schedules.OFFSET} for g in groups]
    return plain if seen == applied else [{**g, schedules.OFFSET: seen - applied} for g in plain]


def complete(
    spec: Spec,
    groups: list[Group],
    state: States,
    applied: int,
    make: Callable[[Group, torch.Tensor, dict[str, Any]], None],
) -> dict[torch.Tensor, dict[str, Any]]:
    """Return states in the place of those that are not there yet, where a checkpoint without them would seem complete.

    Who loads a checkpoint into what `state_dict` returns, as torch.distributed.checkpoint does, loads only what stands
    there. So as soon as there is anything, a group that waits (`train_from`) and a parameter that has only an anchor have
    all that their steps will need. Loading leaves out again what has not started, see `_unstarted`.

    Args:
        spec: Of the optimizer.
        groups: The optimizer's.
        state: The optimizer's; it is left as it is.
        applied: How many steps the optimizer has applied.
        make: Completes the state of a parameter of a group.
    """
    if not applied and not state:
        return {}
    nothing_yet = not applied and not any(_has_started(spec, own) for own in state.values())
    made = {}
    for group in groups:
        waits = nothing_yet or group.get("train_from", 0) > applied
        for p in group["params"]:
            own = state.get(p, {})
            if _has_started(spec, own) or is_lazy(p):
                continue
            if (waits and p.requires_grad) or (spec.counted and own):
                completed = dict(own)
                make(group, p, completed)
                if completed.keys() != own.keys():
                    made[p] = completed
    return made


def _has_started(spec: Spec, own: Mapping[str, Any]) -> bool:
    if spec.counted:
        return float(own.get("step", 0)) > 0
    return any(not is_missing(own, key) for key in spec.states)


def _unstarted(
    spec: Spec, groups: list[Group], saved: Mapping[Any, Any]
) -> dict[Any, dict[str, Any]]:
    """Return those states of a checkpoint that `complete` has made, without what it must not have made.

    Moments of zero are as good as none. An average is not, as it starts with a copy, and neither is a momentum of zero
    where there is no count beside it.
    """
    found = {}
    for group in groups:
        count = group.get(schedules.COUNT)
        waits = count is not None and (count == 0 or group.get("train_from", 0) > count)
        for number in group["params"]:
            own = saved.get(number, {})
            out = {EMA}
            if spec.counted:
                made = (
                    "step" in own
                    and not _has_started(spec, own)
                    and any(k in own for k in spec.states)
                )
            else:
                values = [
                    own[key]
                    for s in spec.states
                    for key in (s, scale_key(s))
                    if own.get(key) is not None
                ]
                made = waits and not any(bool(value.any()) for value in values)
                out |= {name for s in spec.states for name in (s, code_key(s), scale_key(s))}
            if made and own.keys() & out:
                found[number] = {key: value for key, value in own.items() if key not in out}
    return found


def check_class(spec: Spec, groups: list[Group], saved: dict[str, Any]) -> None:
    """Raise ValueError if a checkpoint's groups lack what the optimizer's class has always had."""
    ours = spec.base.__name__
    for g, (own, its) in enumerate(zip(groups, saved["param_groups"], strict=False)):
        missing = [name for name in spec.required if name in own and name not in its]
        if missing:
            message = (
                f"checkpoint is not one of {ours}: its parameter group {g} has no {', '.join(missing)}, but "
                f"{', '.join(name for name in its if name not in ('params', 'param_names'))}; nothing was loaded"
            )
            raise ValueError(message)


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
                if not isinstance(value, torch.Tensor):
                    continue
                if key in spec.states:
                    dtype = state_dtype(own, p) if value.dtype in READABLE else value.dtype
                elif key in (EMA, MASTER, ANCHOR) or key.endswith(("_code", "_scale")):
                    dtype = value.dtype
                else:
                    if state[p][key] is value:  # torch shares it with whom it was loaded from
                        state[p][key] = value.clone()
                    continue
                state[p][key] = value.detach().to(device=p.device, dtype=dtype, copy=True)
