"""The layers of a model from its input to its output, for learning rates that fall with the distance from it."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from torch import nn
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

from onepass.transfer.kinds import is_norm

__all__ = ["Layer", "Piece", "layers", "pieces"]


class Piece(NamedTuple):
    """A module that is not taken apart further, or the parameters that a module which is holds itself."""

    name: str
    module: nn.Module | None
    params: tuple[nn.Parameter, ...]
    listed: bool
    """Whether it is an entry of a Sequential or ModuleList."""


class Layer(NamedTuple):
    """A step of the ladder of learning rates."""

    name: str
    params: tuple[nn.Parameter, ...]


def layers(model: nn.Module) -> list[Layer]:
    """Return the layers of a model from bottom to top; :func:`param_groups` says what a layer is."""
    found = pieces(model)
    listed = [i for i, piece in enumerate(found) if piece.listed]
    first, last = (listed[0], listed[-1] + 1) if listed else (0, len(found))
    chunks = [found[:first], *([piece] for piece in found[first:last]), found[last:]]
    result: list[list[Piece]] = []
    below: list[Piece] = []
    for chunk in filter(None, chunks):
        if any(map(_weighs, chunk)):
            result.append([*below, *chunk])
            below = []
        elif result:
            result[-1] += chunk
        else:
            below += chunk
    return [*map(_join, result), *([_join(below)] if below else [])]


def _weighs(piece: Piece) -> bool:
    """Return whether a piece is more than norms and loose parameters."""
    if piece.module is None:
        return False
    return any(
        p.ndim > 1
        for module in piece.module.modules()
        if not is_norm(module)
        for p in module.parameters(recurse=False)
    )


def _join(chunk: list[Piece]) -> Layer:
    heavy = [piece for piece in chunk if _weighs(piece)]
    return Layer((heavy or chunk)[0].name, tuple(p for piece in chunk for p in piece.params))


def pieces(module: nn.Module, path: str = "") -> list[Piece]:
    """Take a module apart, in the order in which its children were defined."""
    own = tuple(module.parameters(recurse=False))
    children = {
        f"{path}.{name}" if path else name: child
        for name, child in module.named_children()
        if _has_parameters(child)
    }
    twins = Counter(map(type, children.values()))
    listed = _is_list(module)
    # around a single child it is a wrapper, but a list of one block in a model is a list
    alone = len(children) == 1 and not own and (not listed or not path)
    found = [Piece(path, None, own, False)] if own else []
    for name, child in children.items():
        # one of a row, or an entry of a list inside the model
        block = twins[type(child)] > 1 or (listed and path != "")
        if _opens(child, listed=listed, alone=alone, block=block):
            found += pieces(child, name)
        else:
            found.append(Piece(name, child, tuple(child.parameters()), listed))
    return found


def _opens(module: nn.Module, *, listed: bool, alone: bool, block: bool) -> bool:
    if is_parametrized(module) or not any(map(_has_parameters, module.children())):
        return False
    if _is_list(module):
        return _holds_blocks(module) if listed else True
    if alone:
        return True
    if block:
        return False
    lists = [m for m in module.modules() if _is_list(m)]
    if listed:
        return any(map(_holds_blocks, lists))
    return any(sum(map(_has_parameters, m.children())) > 1 for m in lists)


def _holds_blocks(sequence: nn.Module) -> bool:
    """Return whether entries of a list have parts with parameters of their own."""
    return any(
        not is_parametrized(entry) and any(map(_has_parameters, entry.children()))
        for entry in sequence.children()
    )


def _is_list(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential | nn.ModuleList) and not isinstance(
        module, ParametrizationList
    )


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None
