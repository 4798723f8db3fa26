"""The options that torch.optim does not have: names, defaults, checks."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypedDict, TypeVar

from onepass.optim.checks import at_least, one_of

Init = TypeVar("Init", bound=Callable[..., None])


class Options(TypedDict, total=False):
    """Keyword-only options of every optimizer, each also accepted as a key of a parameter group."""

    l1_decay: float
    l1_mode: Literal["proximal", "subgradient"]


DEFAULTS: Mapping[str, Any] = {"l1_decay": 0.0, "l1_mode": "proximal"}


def check(options: Mapping[str, Any]) -> None:
    """Raise ValueError for an option that is out of its range."""
    at_least(0.0, l1_decay=options.get("l1_decay", 0.0))
    one_of(("proximal", "subgradient"), l1_mode=options.get("l1_mode", "proximal"))


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


def documented(init: Init) -> Init:
    """Show the options in the signature of an `__init__` that takes them as `**options`."""
    signature = inspect.signature(init)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    options = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=DEFAULTS[name], annotation=kind
        )
        for name, kind in Options.__annotations__.items()
    ]

    @functools.wraps(init)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        init(*args, **kwargs)

    wrapper.__signature__ = signature.replace(parameters=own + options)  # type: ignore[attr-defined]
    return wrapper  # type: ignore[return-value]


def refuse(group: Mapping[str, Any], number: int) -> None:
    """Raise if a group that has to run torch's own step uses an option that torch does not have."""
    for name, default in DEFAULTS.items():
        if group.get(name, default) != default:
            message = (
                f"{name}={group[name]!r}: parameter group {number} holds something that the kernels do not "
                "cover (sparse or complex gradients, a tensor subclass, another device or dtype, "
                "differentiable=True) and torch's own step does not have this option; nothing was updated"
            )
            raise RuntimeError(message)
