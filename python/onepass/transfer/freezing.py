"""Freezing that holds: weights without gradient, BatchNorm without new statistics, and a check of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils.spectral_norm import SpectralNorm

from onepass.transfer.parts import find, owners, refuse_lazy

__all__ = ["check_frozen", "freeze", "unfreeze"]

Model = TypeVar("Model", bound=nn.Module)
_MODES = ("inference", "stats", "train")
_SPECTRAL = "_SpectralNorm"
"""Name of the class of torch's parametrization, which is not public."""
_BEFORE = "_trained_before_freezing"
"""Attribute of a frozen module: which of its parameters were trainable before, by name."""


def freeze(
    model: Model,
    part: str | nn.Module,
    bn: Literal["inference", "stats", "train"] = "inference",
) -> Model:
    """Freeze a part of a model: its weights and the statistics of its BatchNorm layers stay bit-equal.

    The weights stop requiring gradients and lose those they have, so that no optimizer moves them, not by
    momentum or weight decay either. BatchNorm layers (1d, 2d, 3d, Sync, their subclasses, and InstanceNorm
    with running statistics) normalise by their running statistics and leave them alone, whatever
    `model.train()` says later: each looks at its mode before it runs. Copies and pickles of the model stay
    frozen. Dropout goes on as `model.train()` says. Layers with spectral norm, of either kind, stop to refine their
    estimate, which would change what their frozen weight stands for.

    Weights that are shared with another part freeze there, too. What exchanges layers comes before, not after: the
    conversion to SyncBatchNorm, and `fuse_modules_qat` and `prepare_qat` of quantisation-aware training, which put
    new BatchNorm layers in the place of the frozen ones. A scripted copy (`torch.jit.script`) keeps the BatchNorm
    layers frozen as well.

    Args:
        model: The model, which is changed.
        part: A module of it, or the dotted name of a module or of one parameter.
        bn: What BatchNorm layers of the part do. "inference": as described. "stats": their weights are frozen,
            their statistics follow the data. "train": they train. Default: "inference".

    Returns:
        The model.

    Raises:
        ValueError: The model has no such part, `bn` is none of the three, or the part holds what cannot be frozen: a
            lazy layer that has not seen an input, or an Embedding with `max_norm`, which writes into its weight
            whenever it runs. Nothing has been changed then.
        TypeError: `part` is neither a name nor a module.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
        >>> for part in ("0", "1"):
        ...     _ = freeze(model, part)
        >>> _ = model.train()(torch.rand(8, 1, 4, 4))
        >>> model[1].running_mean
        tensor([0., 0., 0., 0.])

    Reference:
        Keras' `trainable = False` has run BatchNorm in inference mode since 2.2.

    Difference from torch: with `requires_grad_(False)` statistics keep moving, `bn.eval()` lasts until the
    next `model.train()`, and an old gradient still moves the weights.
    """
    if bn not in _MODES:
        message = f"bn must be one of {', '.join(map(repr, _MODES))}, got {bn!r}"
        raise ValueError(message)
    module, parameter = find(model, part)
    owned = list(owners(module, parameter))
    refuse_lazy(model, owned)
    _refuse_renorm(model, owned)
    for owner, names in owned:
        if isinstance(owner, _NormBase) and parameter is None:
            _unguard(owner, model.training)
            if bn == "train":
                _thaw(owner, names)
                continue
            if bn == "inference" and owner.track_running_stats:
                _guard(owner)
        elif _estimates(owner) and parameter is None:
            _unguard(owner, model.training)
            _guard(owner)
        before = vars(owner).setdefault(_BEFORE, {})
        for name in names:
            p = owner._parameters[name]
            assert p is not None
            before.setdefault(name, p.requires_grad)
            p.requires_grad_(False)
            p.grad = None
    return model


def unfreeze(model: Model, part: str | nn.Module) -> Model:
    """Make a part of a model train again; its BatchNorm layers follow `model.train()` again.

    What did not require gradients before :func:`freeze` (a fixed position table, say) does not now, either. An
    optimizer trains the part if it holds its parameters: make the optimizer before freezing, or unfreeze by
    the group option `train_from` instead.

    Args:
        model: The model, which is changed.
        part: A module of it, or the dotted name of a module or of one parameter.

    Returns:
        The model.

    Raises:
        ValueError: The model has no such part.
        TypeError: `part` is neither a name nor a module.

    Example:
        >>> model = freeze(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)), "0")
        >>> [name for name, p in unfreeze(model, "0.bias").named_parameters() if p.requires_grad]
        ['0.bias', '1.weight', '1.bias']

    Difference from torch: `requires_grad_(True)` does not bring BatchNorm back, and turns on what never trained.
    """
    module, parameter = find(model, part)
    for owner, names in owners(module, parameter):
        if parameter is None:
            _unguard(owner, model.training)
        _thaw(owner, names)
    return model


def _refuse_renorm(model: nn.Module, owned: list[tuple[nn.Module, list[str]]]) -> None:
    for owner, names in owned:
        table = isinstance(owner, nn.Embedding | nn.EmbeddingBag) and "weight" in names
        if table and owner.max_norm is not None:
            path = next(name for name, module in model.named_modules() if module is owner)
            message = (
                f"{path!r} is a {type(owner).__name__} with max_norm={owner.max_norm!r}, which writes into its weight "
                "whenever it runs, frozen or not: shorten the rows once and set max_norm to None before you freeze it"
            )
            raise ValueError(message)


def _estimates(module: nn.Module) -> bool:
    """Return whether a module refines an estimate of its spectral norm as it runs in training."""
    hooks = module._forward_pre_hooks.values()
    return type(module).__name__ == _SPECTRAL or any(isinstance(h, SpectralNorm) for h in hooks)


def _thaw(owner: nn.Module, names: list[str]) -> None:
    before = vars(owner).get(_BEFORE, {})
    for name in names:
        p = owner._parameters[name]
        assert p is not None
        p.requires_grad_(before.pop(name, p.is_floating_point() or p.is_complex()))


def _infer(norm: Any, input: tuple[torch.Tensor]) -> None:  # noqa: ARG001 - torch.jit reads the names
    """Before a frozen norm runs: undo what `model.train()` has said since. It can be scripted."""
    if norm.training:
        norm.training = False


def _guard(norm: nn.Module) -> None:
    norm.register_forward_pre_hook(_infer, prepend=True)  # before the old spectral norm's own
    norm.training = False


def _is_guarded(norm: nn.Module) -> bool:
    return any(hook is _infer for hook in norm._forward_pre_hooks.values())


def _unguard(norm: nn.Module, training: bool) -> None:
    for key, hook in list(norm._forward_pre_hooks.items()):
        if hook is _infer:
            del norm._forward_pre_hooks[key]
            norm.training = training


@contextmanager
def check_frozen(model: nn.Module, part: str | nn.Module | None = None) -> Iterator[None]:
    """Raise at the end of the block if something that is frozen has changed by a single bit.

    It finds what freezing cannot see: layers that keep other state in buffers (running quantiles, observers of
    quantisation), and code that writes into weights. Keeps a copy of what it watches.

    Args:
        model: The model.
        part: The part that must not change, weights and buffers. Default: None, all weights that do not require
            gradients, and the buffers of modules in which nothing is trained; statistics of BatchNorm layers only
            where :func:`freeze` holds them.

    Raises:
        RuntimeError: Something has changed; the message names it.
        ValueError: The model has no such part.

    Example:
        >>> import onepass, torch
        >>> model = freeze(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)), "0")
        >>> optimizer = onepass.SGD(model.parameters(), lr=0.1)
        >>> with check_frozen(model):
        ...     model(torch.ones(1, 2)).sum().backward()
        ...     optimizer.step()
    """
    before = {name: t.detach().clone() for name, t in _watched(model, part).items()}
    yield
    now = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    changed = [name for name, t in before.items() if not _same_bits(t, now.get(name))]
    if changed:
        message = f"frozen, but changed: {', '.join(changed)}"
        raise RuntimeError(message)


def _watched(model: nn.Module, part: str | nn.Module | None) -> dict[str, torch.Tensor]:
    if part is not None:
        module, parameter = find(model, part)
        chosen: list[torch.Tensor | None] = [
            owner._parameters[name] for owner, names in owners(module, parameter) for name in names
        ]
        chosen += module.buffers() if parameter is None else ()
    else:
        chosen = [p for p in model.parameters() if not p.requires_grad]
        for module in _frozen_modules(model):
            if not isinstance(module, _NormBase) or _is_guarded(module):
                chosen += module._buffers.values()
    ids = {id(t) for t in chosen if t is not None}
    named = (*model.named_parameters(), *model.named_buffers())
    return {name: t for name, t in named if id(t) in ids}


def _frozen_modules(model: nn.Module) -> set[nn.Module]:
    """Return the modules that are, or are in, one whose parameters are all frozen, and guarded norms."""
    found = {m for m in model.modules() if _is_guarded(m)}
    for module in model.modules():
        trainable = [p.requires_grad for p in module.parameters()]
        if trainable and not any(trainable):
            found.update(module.modules())
    return found


def _same_bits(a: torch.Tensor, b: torch.Tensor | None) -> bool:
    if b is None or a.shape != b.shape or a.dtype != b.dtype:
        return False
    flat = (t.detach().to(a.device).reshape(-1).contiguous().view(torch.uint8) for t in (a, b))
    return torch.equal(*flat)
