"""What a parameter is for: weight, scale or shift of a norm, or bias."""

from __future__ import annotations

from typing import Literal

from torch import nn

__all__ = ["Kind", "is_norm", "kind_of"]

Kind = Literal["weight", "norm", "bias"]

_NORMS = (
    nn.modules.batchnorm._NormBase,  # batch and instance norms of any dimension, SyncBatchNorm too
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)


def is_norm(module: nn.Module) -> bool:
    """Return whether a module is a norm: one of torch's, or a class called so that has only vectors."""
    if isinstance(module, _NORMS):
        return True
    own = [p for p in module._parameters.values() if p is not None]
    return "norm" in type(module).__name__.lower() and all(p.ndim <= 1 for p in own)


def kind_of(owner: nn.Module, name: str, p: nn.Parameter) -> Kind:
    """Return the kind of the parameter that `owner` holds as `name`.

    Beside biases, everything of at most one dimension is a "bias": scales, gates, slopes of activations.
    """
    if is_norm(owner):
        return "norm"
    return "bias" if p.ndim <= 1 or name == "bias" else "weight"
