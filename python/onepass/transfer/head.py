"""A new classifier on an old model."""

from __future__ import annotations

import operator
from typing import Any, TypeVar

from torch import nn

from onepass.transfer.layers import pieces
from onepass.transfer.parts import find, is_unsized, owners, refuse_lazy

__all__ = ["replace_head"]

Model = TypeVar("Model", bound=nn.Module)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def replace_head(model: Model, num_classes: int, name: str | None = None) -> Model:
    """Put a new classifier layer with `num_classes` outputs in the place of the last one.

    The new layer takes the inputs of the old one, has a bias if that had one, lies on its device in its dtype, and is
    initialised as torch initialises it, from torch's global generator. It requires gradients. It is a plain layer, also
    where the old one was of a subclass, or had hooks or parametrizations (weight norm). Attributes in which a model notes
    its number of classes are not touched.

    Args:
        model: The model, which is changed.
        num_classes: Outputs of the new layer, at least 1.
        name: Dotted name of the classifier: a Linear or convolution, or a module in which the last of these is
            replaced. Default: None, the Linear that is the last layer of the model, in the order of definition and
            outside of its blocks: `fc` of a ResNet, `classifier.6` of VGG, `heads.head` of a vision
            transformer.

    Returns:
        The model.

    Raises:
        ValueError: There is no such layer, the last layer is no Linear (name the classifier then), it is a lazy one
            that has not seen an input, or `num_classes` is less than 1.
        TypeError: `num_classes` is not an integer.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 1000))
        >>> replace_head(model, 5)[-1]
        Linear(in_features=8, out_features=5, bias=True)

    Difference from timm: `reset_classifier` is a method that each of its models brings; this works on any module.
    """
    _check(num_classes)
    path = _last_layer(model) if name is None else _classifier_in(model, name)
    old = model.get_submodule(path)
    refuse_lazy(model, owners(old, None))
    if not path:
        message = "model must contain its classifier, got a model that is nothing else"
        raise ValueError(message)
    parent, _, key = path.rpartition(".")
    setattr(model.get_submodule(parent), key, _like(old, num_classes))
    return model


def _check(num_classes: Any) -> None:
    message = f"num_classes must be an integer >= 1, got {num_classes!r}"
    try:
        number = operator.index(num_classes)
    except TypeError:
        raise TypeError(message) from None
    if isinstance(num_classes, bool):
        raise TypeError(message)
    if number < 1:
        raise ValueError(message)


def _last_layer(model: nn.Module) -> str:
    heavy = [
        piece for piece in pieces(model) if any(is_unsized(p) or p.ndim > 1 for p in piece.params)
    ]
    if heavy and type(heavy[-1].module) is nn.Linear:
        return heavy[-1].name
    found = f"{heavy[-1].name!r}, a {type(heavy[-1].module).__name__}" if heavy else "none"
    message = f"the last layer of the model must be a Linear, found {found}: give the name of the classifier"
    raise ValueError(message)


def _classifier_in(model: nn.Module, name: str) -> str:
    module, parameter = find(model, name, "name")
    if parameter is None:
        for inner, candidate in reversed(list(module.named_modules())):
            if isinstance(candidate, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
                return f"{name}.{inner}" if inner else name
    message = (
        f"name must be that of a Linear or convolution, or of a module that has one, got {name!r}"
    )
    raise ValueError(message)


def _like(old: nn.Module, num_classes: int) -> nn.Module:
    weight: Any = old.weight
    place = {"bias": old.bias is not None, "device": weight.device, "dtype": weight.dtype}
    new: nn.Module
    if isinstance(old, nn.Linear):
        new = nn.Linear(old.in_features, num_classes, **place)
    else:
        assert isinstance(old, _CONVOLUTIONS)
        kind: Any = next(c for c in _CONVOLUTIONS if isinstance(old, c))
        geometry = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
        new = kind(
            old.in_channels, num_classes, **{name: getattr(old, name) for name in geometry}, **place
        )
    return new.train(old.training)
