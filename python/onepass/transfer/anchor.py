"""Decay towards the weights that a training started from."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import nn

from onepass.hyper.spec import Group
from onepass.optim.optimizer import OnePass
from onepass.state.names import ANCHOR

__all__ = ["anchor_decay"]

_OPTION = "anchor_decay"


def anchor_decay(opt: OnePass, strength: float, part: str | nn.Module | None = None) -> None:
    r"""Pull weights towards what they are now (L2-SP), in the optimizer's own pass.

    .. math:: g \leftarrow g + \alpha\,(w - w_0)

    With AdamW, and Adam with `decoupled_weight_decay`, the pull is decoupled as the weight decay is:
    :math:`w \leftarrow w - \gamma\,\alpha\,(w - w_0)`. It comes beside `weight_decay`; L2-SP leaves that out where
    there is an anchor, and keeps it for the new head.

    Each weight keeps its :math:`w_0` as state "anchor", which is saved and loaded with the rest; the strength
    becomes the group option "anchor_decay" of every group that holds an anchored weight. Another call sets new
    anchors and strengths.

    Args:
        opt: One of our optimizers.
        strength: :math:`\alpha \ge 0`, the gradient of :math:`\frac{\alpha}{2}\lVert w - w_0\rVert^2`. 0 takes the
            anchors away.
        part: Whose weights: a module, or a dotted name: of a parameter, or the first part of the names of several
            as in `model.named_parameters()`, so that "features" means all of "features.0.weight",
            "features.0.bias", ... Names need an optimizer that knows them, from `named_parameters()` or
            :func:`param_groups`. Default: None, all weights of the optimizer.

    Raises:
        TypeError: `opt` is not one of our optimizers, or an argument has the wrong type.
        ValueError: `strength` is out of range; the optimizer holds no weight of `part`, or does not know names; or
            a group would have to have two strengths (give the parts groups of their own).

    Example:
        >>> import onepass
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        >>> optimizer = onepass.AdamW(model.named_parameters(), weight_decay=0.0)
        >>> anchor_decay(optimizer, 0.01, "0")
        >>> ["anchor" in optimizer.state[p] for p in model.parameters()]
        [True, True, False, False]

    Reference:
        Li, Grandvalet & Davoine, Explicit Inductive Bias for Transfer Learning with Convolutional Networks, 2018,
        equation 3.

    Difference from torch: there it is a term of the loss, which reads and writes all weights once more.
    """
    if not isinstance(opt, OnePass):
        message = f"opt must be an optimizer of onepass, got {type(opt).__name__}"
        raise TypeError(message)
    if isinstance(strength, bool) or not isinstance(strength, Real):
        message = f"strength must be a number, got {strength!r}"
        raise TypeError(message)
    if not 0.0 <= strength < math.inf:
        message = f"strength must be finite and >= 0, got {strength!r}"
        raise ValueError(message)
    chosen = _chooser(part)
    found = [
        (group, [p for i, p in enumerate(group["params"]) if chosen(group, i)])
        for group in opt.param_groups
    ]
    if not any(params for _, params in found):
        names = all(g.get("param_names") for g in opt.param_groups) or not isinstance(part, str)
        why = "holds no weight of it" if names else "does not know the names of its parameters"
        message = f"part must be a part of what is trained, got {part!r}: the optimizer {why}"
        raise ValueError(message)
    for number, (group, params) in enumerate(found):
        if params and strength:
            _check_one_strength(opt, number, group, params, strength)
    for group, params in found:
        for p in params:
            if strength:
                opt.state[p][ANCHOR] = p.detach().clone(memory_format=torch.preserve_format)
            elif (state := opt.state.get(p, {})).pop(ANCHOR, None) is not None and not state:
                del opt.state[p]
        if params and strength:
            group[_OPTION] = float(strength)
        elif not _anchored(opt, group):
            group.pop(_OPTION, None)


def _chooser(part: str | nn.Module | None) -> Callable[[Group, int], bool]:
    if part is None:
        return lambda _group, _i: True
    if isinstance(part, nn.Module):
        members = {id(p) for p in part.parameters()}
        return lambda group, i: id(group["params"][i]) in members
    if not isinstance(part, str):
        message = f"part must be a dotted name or a module, got {part!r}"
        raise TypeError(message)

    def named(group: Group, i: int) -> bool:
        names = group.get("param_names")
        return names is not None and f"{names[i]}.".startswith(f"{part}.")

    return named


def _anchored(opt: OnePass, group: Group) -> list[Any]:
    return [p for p in group["params"] if ANCHOR in opt.state.get(p, {})]


def _check_one_strength(
    opt: OnePass, number: int, group: Group, params: list[Any], strength: float
) -> None:
    chosen = {id(p) for p in params}
    others = [p for p in _anchored(opt, group) if id(p) not in chosen]
    if others and group.get(_OPTION) != strength:
        message = (
            f"strength {strength!r}: parameter group {number} already has anchors of strength "
            f"{group.get(_OPTION)!r} outside of the part; give the parts groups of their own"
        )
        raise ValueError(message)
