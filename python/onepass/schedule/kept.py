"""What a training changes, kept so that all of it can be put back to the bit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

__all__ = ["keep", "keep_training"]

PutBack = Callable[[], Any]


def keep(value: Any) -> PutBack:
    """Return a function that makes `value` again what it is now, and returns it; it may be called twice.

    Tensors get their numbers back in place, dicts and lists their items, and those of tuples are
    put back; whatever else they hold is put back as the object that it is.
    """
    if isinstance(value, Tensor):
        return _keep_tensor(value)
    if isinstance(value, dict):
        return _keep_items(value, value.items(), value.update)
    if isinstance(value, list):
        return _keep_items(value, enumerate(value), lambda items: value.extend(items.values()))
    if isinstance(value, tuple):
        return _keep_items(value, enumerate(value), lambda _: None)
    return lambda: value


def _keep_items(
    value: Any, items: Iterable[tuple[Any, Any]], fill: Callable[[dict[Any, Any]], None]
) -> PutBack:
    kept = {key: keep(item) for key, item in items}

    def put_back() -> Any:
        found = {key: item() for key, item in kept.items()}
        if not isinstance(value, tuple):
            value.clear()
        fill(found)
        return value

    return put_back


def _keep_tensor(value: Tensor) -> PutBack:
    numbers = value.detach().clone()
    expanded = value.layout is torch.strided and any(
        stride == 0 and size > 1 for stride, size in zip(value.stride(), value.shape, strict=True)
    )

    def put_back() -> Tensor:
        if not expanded:  # nobody can have written into it, either
            with torch.no_grad():
                value.copy_(numbers)
        return value

    return put_back


def keep_training(opt: Optimizer, model: Module | None) -> PutBack:
    """Return what puts back an optimizer, its parameters and all gradients, and a model's buffers and modes."""
    attributes = dict(vars(opt))
    modules = [] if model is None else list(model.modules())
    modes = [module.training for module in modules]
    kept = [keep(opt.param_groups), keep(opt.state), *(keep(m._buffers) for m in modules)]
    gradients = [(p, keep(p.grad)) for p in parameters(opt, model)]

    def put_back() -> None:
        for name in vars(opt).keys() - attributes.keys():
            del vars(opt)[name]
        vars(opt).update(attributes)
        for each in kept:
            each()
        for p, gradient in gradients:
            p.grad = gradient()
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode

    return put_back


def parameters(opt: Optimizer, model: Module | None) -> set[Tensor]:
    """Return the parameters of an optimizer and of a model."""
    own = {p for group in opt.param_groups for p in group["params"]}
    return own if model is None else own | set(model.parameters())
