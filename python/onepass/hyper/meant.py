"""Which name was meant: for options that are misspelt, or have another library's name."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Iterable

import torch

_ELSEWHERE = {
    "learning_rate": "lr",
    "step_size": "lr",
    "lr_mult": "lr_factor",
    "lr_scale": "lr_factor",
    "wd": "weight_decay",
    "decay": "weight_decay",
    "l2": "weight_decay",
    "l1": "l1_decay",
    "beta1": "betas",
    "beta2": "betas",
    "beta_1": "betas",
    "beta_2": "betas",
    "epsilon": "eps",
    "rho": "alpha",
    "clipnorm": "max_grad_norm",
    "global_clipnorm": "max_grad_norm",
    "clip_grad_norm": "max_grad_norm",
    "clipvalue": "max_grad_value",
    "ema": "ema_decay",
    "use_ema": "ema_decay",
    "ema_momentum": "ema_decay",
}
"""Names that Keras, timm, Caffe and others have for ours."""


def meant(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is like another one, or None."""
    choices = list(known)
    return _ELSEWHERE[name] if _ELSEWHERE.get(name) in choices else misspelt(name, choices)


def misspelt(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is written like another one, or None."""
    return next(iter(difflib.get_close_matches(name, list(known), 1, 0.8)), None)


def hint(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name."""
    found = meant(name, known)
    return "" if found is None else f"; did you mean {found}?"


@functools.cache
def torch_arguments() -> frozenset[str]:
    """Return the names of all arguments of the optimizers of torch.optim."""
    kinds = [kind for kind in vars(torch.optim).values() if isinstance(kind, type)]
    names = {
        name
        for kind in kinds
        if issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer
        for name in inspect.signature(kind).parameters
    }
    return frozenset(names - {"params", "args", "kwargs"})
