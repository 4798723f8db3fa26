"""The options that torch.optim does not have: names, defaults, checks."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypedDict, TypeVar

import torch

from onepass.optim.checks import above, at_least, below, one_of
from onepass.schedule import Schedule

Init = TypeVar("Init", bound=Callable[..., None])


class Options(TypedDict, total=False):
    r"""Keyword-only options of every optimizer, each also accepted as a key of a parameter group.

    Those marked (whole) belong to the whole optimizer: all of its groups have the same value.

    Attributes:
        l1_decay: L1 strength :math:`\lambda \ge 0`. Default: 0.
        l1_mode: "proximal": after the update p = sign(p) max(abs(p) - lr λ, 0), which leaves exact zeros.
            "subgradient": λ sign(p) is added to the gradient. Default: "proximal".
        max_grad_norm: (whole) Clip the global 2-norm of all gradients to this, as
            `torch.nn.utils.clip_grad_norm_` does, but leave `p.grad` as it is. Default: None, no clipping.
        max_grad_value: (whole) Clamp each element of the gradient to [-value, value]. Default: None.
        skip_nonfinite: (whole) Change and count nothing in a step whose gradients hold inf or NaN. Default:
            False.
        ema_decay: Keep an average of the weights in state "ema" (float32): a copy of them after its first
            step, then ema += (1 - d)(p - ema). In [0, 1]. Default: None, no average.
        master_weights: bfloat16 and float16 parameters follow the trajectory of float32 weights, which state
            "master" completes: the other 16 bits of a bfloat16, the float32 of a float16. Default: False.
        rounding: "nearest" or "stochastic", of bfloat16 and float16 parameters without master weights.
            Default: "nearest".
        state_dtype: Of every state of a parameter's shape but "ema" and "master": torch.float32,
            torch.bfloat16 or "8bit" (blocks of 256 share a scale). Default: None, the parameter's dtype, or
            float32 with master weights.
        train_from: Leave the group as it is for this many applied steps; its moments start then. Default: 0.
        anchor_decay: Decay towards the weights in state "anchor", at least 0. `onepass.transfer.anchor_decay` puts
            them there and sets the option; a step of a group that has the option and no anchors raises. Default: 0.
        seed: (whole) Of stochastic rounding, in [0, 2**64). Default: 0.
    """

    l1_decay: float | Schedule
    l1_mode: Literal["proximal", "subgradient"]
    max_grad_norm: float | None
    max_grad_value: float | None
    skip_nonfinite: bool
    ema_decay: float | None
    master_weights: bool
    rounding: Literal["nearest", "stochastic"]
    state_dtype: torch.dtype | Literal["8bit"] | None
    train_from: int
    anchor_decay: float
    seed: int


DEFAULTS: Mapping[str, Any] = {
    "l1_decay": 0.0,
    "l1_mode": "proximal",
    "max_grad_norm": None,
    "max_grad_value": None,
    "skip_nonfinite": False,
    "ema_decay": None,
    "master_weights": False,
    "rounding": "nearest",
    "state_dtype": None,
    "train_from": 0,
    "anchor_decay": 0.0,
    "seed": 0,
}
WHOLE = ("max_grad_norm", "max_grad_value", "skip_nonfinite", "seed")


def check(options: Mapping[str, Any]) -> None:
    """Raise ValueError for an option that is out of its range."""
    value = {name: options.get(name, default) for name, default in DEFAULTS.items()}
    at_least(
        0.0,
        l1_decay=value["l1_decay"],
        anchor_decay=value["anchor_decay"],
        train_from=value["train_from"],
    )
    one_of(("proximal", "subgradient"), l1_mode=value["l1_mode"])
    one_of(("nearest", "stochastic"), rounding=value["rounding"])
    one_of((None, torch.float32, torch.bfloat16, "8bit"), state_dtype=value["state_dtype"])
    for name in ("max_grad_norm", "max_grad_value"):
        if value[name] is not None:
            above(0.0, **{name: value[name]})
    if value["ema_decay"] is not None:
        at_least(0.0, ema_decay=value["ema_decay"])
        below(1.0, ema_decay=value["ema_decay"], inclusive=True)
    one_of(
        (False, True),
        skip_nonfinite=value["skip_nonfinite"],
        master_weights=value["master_weights"],
    )
    for name in ("seed", "train_from"):
        if not isinstance(value[name], int):
            message = f"Invalid {name} value: {value[name]!r} ({name} must be a whole number >= 0)"
            raise ValueError(message)
    at_least(0, seed=value["seed"])
    below(2**64, seed=value["seed"])


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that differ from their defaults.

    Only these are written into parameter groups, so that the groups of an optimizer that uses none of them
    have exactly torch's keys, and its checkpoints too.
    """
    unknown = sorted(set(options) - set(DEFAULTS))
    if unknown:
        message = (
            f"unexpected keyword argument {unknown[0]!r}; the options are {', '.join(DEFAULTS)}"
        )
        raise TypeError(message)
    check(options)
    return {name: value for name, value in options.items() if value != DEFAULTS[name]}


def check_whole(group: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raise ValueError if a group wants its own value of an option of the whole optimizer."""
    for name in WHOLE:
        value, whole = group.get(name), defaults.get(name, DEFAULTS[name])
        if name in group and value != whole:
            message = f"{name} belongs to the whole optimizer: it must be {whole!r} in every group, got {value!r}"
            raise ValueError(message)


def needs_count(group: Mapping[str, Any]) -> bool:
    """Return whether a step depends on the number of steps before it, so that a checkpoint must hold it."""
    stochastic = group.get("rounding") == "stochastic" or group.get("state_dtype") == "8bit"
    return stochastic or group.get("train_from", 0) > 0


def refuse(group: Mapping[str, Any], number: int) -> None:
    """Raise if a group that has to run torch's own step uses an option that torch does not have."""
    for name, default in DEFAULTS.items():
        if name not in ("seed", "train_from") and group.get(name, default) != default:
            message = (
                f"{name}={group[name]!r}: parameter group {number} holds something that the kernels do not "
                "cover (sparse or complex gradients, a tensor subclass, another device or dtype, "
                "differentiable=True) and torch's own step does not have this option; nothing was updated"
            )
            raise RuntimeError(message)


def documented(init: Init) -> Init:
    """Show the options in the signature of an `__init__` that takes them as `**options`."""
    signature = inspect.signature(init)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=DEFAULTS[name],
            annotation=getattr(kind, "__forward_arg__", kind),
        )
        for name, kind in Options.__annotations__.items()
    ]

    @functools.wraps(init)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        init(*args, **kwargs)

    wrapper.__signature__ = signature.replace(parameters=own + options)  # type: ignore[attr-defined]
    return wrapper  # type: ignore[return-value]
