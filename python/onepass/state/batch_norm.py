"""Statistics of BatchNorm for weights that were put into a model for a while."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeGuard

import torch
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def re_estimated(model: torch.nn.Module | None, data: Iterable[Any] | None) -> Iterator[None]:
    """Have the BatchNorm layers of a model hold the statistics of its present weights, and their own at the end.

    Raises:
        TypeError: `model` is no module.
        ValueError: There are statistics to estimate, and `data` is missing or empty.
    """
    if model is not None and not isinstance(model, torch.nn.Module):
        message = f"model must be a torch.nn.Module, got {type(model).__name__}"
        raise TypeError(message)
    layers = [] if model is None else list(filter(_follows_weights, model.modules()))
    if model is None or not layers:
        yield
        return
    if data is None:
        message = (
            "data must be given for a model with BatchNorm: batches of inputs, on which the running statistics are "
            "estimated anew for the averages"
        )
        raise ValueError(message)
    before = [(b, b.clone()) for layer in layers for b in layer.buffers(recurse=False)]
    try:
        _estimate(model, layers, data)
        yield
    finally:
        for buffer, value in before:
            buffer.copy_(value)


def _follows_weights(module: torch.nn.Module) -> TypeGuard[_BatchNorm]:
    """Return whether a module has running statistics, and is not frozen."""
    if not isinstance(module, _BatchNorm) or not isinstance(module.running_mean, torch.Tensor):
        return False
    own = list(module.parameters(recurse=False))
    return not own or any(p.requires_grad for p in own)


def _estimate(model: torch.nn.Module, layers: list[_BatchNorm], data: Iterable[Any]) -> None:
    """Average the statistics of all batches, as `torch.optim.swa_utils.update_bn`, and leave all else as it was."""
    modes = [(module, module.training) for module in model.modules()]
    momenta = [layer.momentum for layer in layers]
    own = {id(b) for layer in layers for b in layer.buffers(recurse=False)}
    others = [(b, b.clone()) for b in model.buffers() if id(b) not in own]
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    count, follows = 0, torch.is_grad_enabled()
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # a plain mean
        model.train()
        with torch.no_grad():
            for batch in data:
                _forward(model, batch, device)
                count += 1
    finally:
        torch.set_grad_enabled(follows)  # an interrupt may have left it off
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for module, mode in modes:
            module.training = mode
        for buffer, value in others:
            buffer.copy_(value)
    if not count:
        message = "data must hold at least one batch, got none"
        raise ValueError(message)


def _forward(model: torch.nn.Module, batch: Any, device: torch.device) -> None:
    if isinstance(batch, Mapping):
        model(**{k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()})
        return
    inputs = batch[0] if isinstance(batch, list | tuple) else batch
    model(inputs.to(device))
