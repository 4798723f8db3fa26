"""Optimizer state that finds its parameters by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.optim import Optimizer

from onepass.optim.optimizer import OnePass
from onepass.state import checkpoint
from onepass.state.names import ANCHOR

__all__ = ["Loaded", "load_by_name"]

_NOT_SHAPED = ("step",)


@dataclass(frozen=True)
class Loaded:
    """What :func:`load_by_name` found, as names of parameters.

    Attributes:
        matched: Have the state of the checkpoint now.
        missing: Of the optimizer, not in the checkpoint; their state is as it was.
        unexpected: In the checkpoint, not of the optimizer.
        mismatched: In both, but not of one shape, with the reason; their state is as it was.
    """

    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{len(self.matched)} parameters loaded"]
        lines += [f"missing: {name}" for name in self.missing]
        lines += [f"unexpected: {name}" for name in self.unexpected]
        lines += [f"mismatched: {name}: {why}" for name, why in self.mismatched.items()]
        return "\n".join(lines)


def load_by_name(
    opt: Optimizer,
    state_dict: Mapping[str, Any],
    strict: bool = True,
    rename: Callable[[str], str] | None = None,
) -> Loaded:
    """Load an optimizer's checkpoint by the names of the parameters and check every shape.

    `opt.load_state_dict` goes by order: a checkpoint of two layers that have changed places loads without a word.
    Here the order of parameters and the division into groups may differ.

    Strictly, every name has its counterpart with states of its shape, and every group takes the hyper-parameters
    (and count of steps) of the group its parameters come from. Partially, what fits is loaded, what does
    not is reported, and hyper-parameters, schedules, `train_from`, the count of steps that they go by and anchors stay
    those of the optimizer: a new head starts anew beside an old body.

    Args:
        opt: An optimizer whose states have the shapes of their parameters (ours, and torch's of those names),
            made from `named_parameters()` or :func:`param_groups`.
        state_dict: What `state_dict()` of such an optimizer returned.
        strict: Whether everything has to fit. Default: True.
        rename: Applied to the names of the checkpoint, as `lambda name: name.removeprefix("module.")`. Default:
            None.

    Returns:
        The names by what became of them.

    Raises:
        ValueError: Names are missing on either side or not unique; strictly, something does not fit. Nothing
            has been loaded then.

    Example:
        >>> import onepass, torch
        >>> old = torch.nn.ModuleDict({"body": torch.nn.Linear(2, 3), "head": torch.nn.Linear(3, 9)})
        >>> new = torch.nn.ModuleDict({"body": torch.nn.Linear(2, 3), "top": torch.nn.Linear(3, 4)})
        >>> saved = onepass.AdamW(old.named_parameters()).state_dict()
        >>> print(load_by_name(onepass.AdamW(new.named_parameters()), saved, strict=False))
        2 parameters loaded
        missing: top.weight
        missing: top.bias
        unexpected: head.weight
        unexpected: head.bias

    Difference from torch: torch (since 2.6) writes the names into the checkpoint, but does not read them.
    """
    theirs = _places(state_dict["param_groups"], "the checkpoint", rename)
    ours = _places(opt.param_groups, "the optimizer", None)
    found = Loaded(unexpected=[name for name in theirs if name not in ours])
    for name, (g, i) in ours.items():
        if name not in theirs:
            found.missing.append(name)
            continue
        state = state_dict["state"].get(_number(state_dict, *theirs[name]), {})
        problem = _problem(state, opt.param_groups[g]["params"][i])
        if problem:
            found.mismatched[name] = problem
        else:
            found.matched.append(name)
    if strict and (found.missing or found.unexpected or found.mismatched):
        _, _, report = str(found).partition("\n")
        message = f"the checkpoint does not fit, nothing was loaded:\n{report}"
        raise ValueError(message)
    applied = opt.steps_applied if isinstance(opt, OnePass) else 0
    opt.load_state_dict(_reordered(opt, state_dict, theirs, set(found.matched), strict))
    if not strict and isinstance(opt, OnePass):
        opt.steps_applied = applied
    return found


Places = dict[str, tuple[int, int]]


def _places(
    groups: list[dict[str, Any]], whose: str, rename: Callable[[str], str] | None
) -> Places:
    """Return the group and the number in it of every name."""
    places: Places = {}
    for g, group in enumerate(groups):
        names = group.get("param_names")
        if group["params"] and not names:
            message = (
                f"{whose} must know the names of its parameters: group {g} does not. Make the optimizer from "
                "model.named_parameters(), or go by order with load_state_dict"
            )
            raise ValueError(message)
        for i, name in enumerate(names or ()):
            key = rename(name) if rename else name
            if key in places:
                message = f"names must be unique, {whose} has {key!r} twice"
                raise ValueError(message)
            places[key] = (g, i)
    return places


def _number(state_dict: Mapping[str, Any], g: int, i: int) -> Any:
    return state_dict["param_groups"][g]["params"][i]


def _problem(state: Mapping[str, Any], p: torch.Tensor) -> str | None:
    for key, value in state.items():
        # block scales of 8-bit states have a length of their own, which the optimizer checks
        if not isinstance(value, torch.Tensor) or key in _NOT_SHAPED or key.endswith("_scale"):
            continue
        if value.shape != p.shape:
            return f"{key!r} has shape {tuple(value.shape)}, the parameter {tuple(p.shape)}"
    return None


def _reordered(
    opt: Optimizer,
    state_dict: Mapping[str, Any],
    theirs: Places,
    matched: set[str],
    strict: bool,
) -> dict[str, Any]:
    """Return the checkpoint in the order of the optimizer, completed by what it has itself."""
    own = opt.state_dict()
    state, groups = {}, []
    for g, group in enumerate(own["param_groups"]):
        sources = set()
        for name, number in zip(group["param_names"], group["params"], strict=True):
            saved = own["state"].get(number, {})
            if name in matched:
                g_saved, i_saved = theirs[name]
                sources.add(g_saved)
                anchor = {k: v for k, v in saved.items() if k == ANCHOR}
                saved = state_dict["state"].get(_number(state_dict, g_saved, i_saved), {})
                if not strict:  # the option stays that of the optimizer, and so do its anchors
                    saved = {**{k: v for k, v in saved.items() if k != ANCHOR}, **anchor}
            if saved:
                state[number] = saved
        if strict and len(sources) > 1:
            message = (
                f"group {g} of the optimizer joins groups {', '.join(map(str, sorted(sources)))} of the checkpoint: "
                "whose hyper-parameters are they to be? Nothing was loaded; strict=False keeps the optimizer's"
            )
            raise ValueError(message)
        if strict and sources:
            hyper = state_dict["param_groups"][sources.pop()]
            kept = {key: group[key] for key in ("params", "param_names", "name") if key in group}
            group = {**{k: v for k, v in hyper.items() if k != "name"}, **kept}
        groups.append(group)
    if not strict and isinstance(opt, OnePass):
        groups = checkpoint.with_count(groups, state, opt.steps_applied)
    return {**state_dict, "state": state, "param_groups": groups}
