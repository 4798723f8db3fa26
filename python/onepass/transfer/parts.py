"""A part of a model: a module, or the dotted name of a module or of a single parameter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

__all__ = ["find", "is_unsized", "named_owners", "owners", "refuse_lazy"]


def find(
    model: nn.Module, part: str | nn.Module, argument: str = "part"
) -> tuple[nn.Module, str | None]:
    """Return the module that `part` means, and the parameter's name in it if `part` is a parameter.

    `argument` is what messages call it.

    Raises:
        ValueError: The model has no such part.
        TypeError: `part` is neither a name nor a module.
    """
    if isinstance(part, nn.Module):
        if not any(part is module for module in model.modules()):
            message = f"{argument} must be a module of the model, got a {type(part).__name__} that is not in it"
            raise ValueError(message)
        return part, None
    if not isinstance(part, str):
        message = f"{argument} must be a dotted name or a module, got {part!r}"
        raise TypeError(message)
    modules = dict(model.named_modules(remove_duplicate=False))
    if part in modules:
        return modules[part], None
    path, _, name = part.rpartition(".")
    if path in modules and modules[path]._parameters.get(name) is not None:
        return modules[path], name
    message = f"{argument} must be the name of a module or parameter of the model, got {part!r}; it has {_known(model)}"
    raise ValueError(message)


def _known(model: nn.Module) -> str:
    return ", ".join(name for name, _ in model.named_children()) or "no children"


def owners(module: nn.Module, name: str | None) -> Iterator[tuple[nn.Module, list[str]]]:
    """Yield the modules of a part, with the names of the parameters that each of them holds itself."""
    if name is not None:
        yield module, [name]
        return
    for owner in module.modules():
        yield owner, [key for key, p in owner._parameters.items() if p is not None]


def is_unsized(p: Any) -> bool:
    """Return whether a parameter is that of a lazy layer which has not seen an input yet."""
    return bool(is_lazy(p))


def refuse_lazy(model: nn.Module, owned: Iterable[tuple[nn.Module, list[str]]]) -> None:
    """Raise ValueError for a lazy layer that has not seen an input: nobody knows yet what it is."""
    for owner, names in owned:
        if any(is_unsized(owner._parameters[name]) for name in names):
            path = next((name for name, module in model.named_modules() if module is owner), "")
            message = (
                f"{path!r} is a {type(owner).__name__} that has not seen an input yet, so that its weights have no "
                "shape: run the model once on a batch first"
            )
            raise ValueError(message)


def named_owners(model: nn.Module) -> dict[nn.Parameter, list[tuple[str, nn.Module]]]:
    """Return every parameter once, with all its names and their owners; tied weights have several."""
    found: dict[nn.Parameter, list[tuple[str, nn.Module]]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for key, p in module._parameters.items():
            if p is not None:
                found.setdefault(p, []).append((f"{path}.{key}" if path else key, module))
    return found
