"""The options that torch.optim does not have: names, defaults, checks."""

from __future__ import annotations

import functools
import inspect
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypedDict, TypeVar

import torch

from onepass.hyper.checks import above, at_least, at_most, one_of, whole_number
from onepass.hyper.meant import hint, misspelt, torch_arguments
from onepass.schedule import Schedule
from onepass.schedule.plateau import Plateau, config

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
        plateau: Reduces the learning rate, number or schedule, where the metrics that `opt.observe` is given do not
            improve; `lr=0.1 * Plateau(...)` says the same. Default: None.
    """

    l1_decay: float | Schedule
    l1_mode: Literal["proximal", "subgradient"]
    max_grad_norm: float | Schedule | None
    max_grad_value: float | None
    skip_nonfinite: bool
    ema_decay: float | Schedule | None
    master_weights: bool
    rounding: Literal["nearest", "stochastic"]
    state_dtype: torch.dtype | Literal["8bit"] | None
    train_from: int
    anchor_decay: float
    seed: int
    plateau: Plateau | None


@dataclass(frozen=True)
class Option:
    """All there is to know of an option before a step.

    Attributes:
        name: Of the keyword and of the key in parameter groups.
        default: What a group without the key has.
        check: Raises for a value that is not allowed.
        whole: Whether it belongs to the whole optimizer: all groups have the same value.
        foreign: Whether torch's own step does without the option.
    """

    name: str
    default: Any
    check: Callable[..., None]
    whole: bool = False
    foreign: bool = False


def _unless_none(check: Callable[..., None]) -> Callable[..., None]:
    def checked(**values: Any) -> None:
        check(**{name: value for name, value in values.items() if value is not None})

    return checked


def _fraction(**values: Any) -> None:
    at_least(0.0, **values)
    at_most(1.0, **values)


def _plateau(plateau: Any) -> None:
    if plateau is not None and not isinstance(plateau, Plateau):
        config(plateau)


_not_negative, _positive = partial(at_least, 0.0), partial(above, 0.0)
_flag = partial(one_of, (False, True))

OPTIONS = (
    Option("l1_decay", 0.0, _not_negative),
    Option("l1_mode", "proximal", partial(one_of, ("proximal", "subgradient"))),
    Option("max_grad_norm", None, _unless_none(_positive), whole=True),
    Option("max_grad_value", None, _unless_none(_positive), whole=True),
    Option("skip_nonfinite", False, _flag, whole=True),
    Option("ema_decay", None, _unless_none(_fraction)),
    Option("master_weights", False, _flag),
    Option("rounding", "nearest", partial(one_of, ("nearest", "stochastic"))),
    Option("state_dtype", None, partial(one_of, (None, torch.float32, torch.bfloat16, "8bit"))),
    Option("train_from", 0, whole_number, foreign=True),
    Option("anchor_decay", 0.0, _not_negative),
    Option("seed", 0, partial(whole_number, 2**64), whole=True, foreign=True),
    Option("plateau", None, _plateau, foreign=True),
)
_BESIDE = {"params", "param_names", "name", "initial_lr", "lr_factor", "lr_scale", "swa_lr"}
"""Entries of groups that others than an optimizer read."""
DEFAULTS: Mapping[str, Any] = {option.name: option.default for option in OPTIONS}
WHOLE = tuple(option.name for option in OPTIONS if option.whole)


def check(group: Mapping[str, Any]) -> None:
    """Raise ValueError (TypeError for what is no number) for an option that is out of its range."""
    for option in OPTIONS:
        name = option.name
        if name in group:
            option.check(**{name: group[name]})


def given(options: Mapping[str, Any], arguments: Iterable[str] = ()) -> dict[str, Any]:
    """Return the options that differ from their defaults; `arguments` are the names that the constructor takes besides.

    Only these are written into parameter groups, so that the groups of an optimizer that uses none of them
    have exactly torch's keys, and its checkpoints too.
    """
    unknown = sorted(set(options) - set(DEFAULTS))
    if unknown:
        name = unknown[0]
        message = f"unexpected keyword argument {name!r}"
        message += hint(name, [*arguments, *DEFAULTS]) or f"; the options are {', '.join(DEFAULTS)}"
        raise TypeError(message)
    check(options)
    return {name: value for name, value in options.items() if value != DEFAULTS[name]}


_told: set[str] = set()


def warn_of_misspelt(group: Mapping[str, Any], defaults: Iterable[str]) -> None:
    """Warn, once for each name, of an entry of a group that nobody reads and that is like an option."""
    known = {*defaults, *DEFAULTS}
    for name in group:
        if name not in known and name not in _told:
            others = name in _BESIDE or name in torch_arguments()
            found = None if others else misspelt(str(name), known - set(group))
            if found is not None:
                _told.add(name)
                message = f"{name!r} in a parameter group is no option and has no effect; did you mean {found!r}?"
                warnings.warn(message, UserWarning, stacklevel=_level_of_user())


def _level_of_user() -> int:
    """Return the stack level, for a warning of the caller, of the first frame outside of this library and torch."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals["__name__"].startswith(
        ("onepass.", "torch.")
    ):
        frame, level = frame.f_back, level + 1
    return level


def check_whole(group: Mapping[str, Any], whole: Mapping[str, Any]) -> None:
    """Raise ValueError if a group wants its own value of an option of the whole optimizer."""
    for name in WHOLE:
        if name not in group:
            continue
        value, expected = group[name], whole.get(name, DEFAULTS[name])
        if value != expected:
            message = f"{name} belongs to the whole optimizer: it must be {expected!r} in every group, got {value!r}"
            raise ValueError(message)


def needs_count(group: Mapping[str, Any]) -> bool:
    """Return whether a step depends on the number of steps before it, so that a checkpoint must hold it."""
    stochastic = group.get("rounding") == "stochastic" or group.get("state_dtype") == "8bit"
    return stochastic or bool(group.get("train_from")) or bool(group.get("anchor_decay"))


def refuse(group: Mapping[str, Any], number: int) -> None:
    """Raise if a group that has to run torch's own step uses an option that torch does not have."""
    for option in OPTIONS:
        name, default = option.name, option.default
        if not option.foreign and group.get(name, default) != default:
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
