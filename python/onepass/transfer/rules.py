"""Rules of `param_groups`: which pattern matches which parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from onepass.hyper.meant import hint, torch_arguments
from onepass.hyper.options import DEFAULTS

__all__ = ["Rules", "assign", "check"]

Rules = Sequence[tuple[str, Mapping[str, Any]]]
_TAKEN = ("params", "param_names")
_OURS = ("lr_factor", "name", "no_decay", "algorithm")


def check(rules: Sequence[Any]) -> None:
    """Raise for rules that are not pairs of a pattern and its options."""
    for rule in rules:
        pair = isinstance(rule, tuple | list) and len(rule) == 2
        if not pair or not isinstance(rule[0], str) or not isinstance(rule[1], Mapping):
            message = f"rules must be pairs of a pattern and a dict of options, got {rule!r}"
            raise TypeError(message)
        pattern, options = rule
        for name in _TAKEN:
            if name in options:
                message = f"rule {pattern!r} must not set {name!r}: param_groups does"
                raise ValueError(message)
        check_names(options, f"rule {pattern!r} has")
        factor = options.get("lr_factor", 1.0)
        if not isinstance(factor, int | float) or not 0.0 <= factor < math.inf:
            message = f"lr_factor of rule {pattern!r} must be a finite number >= 0, got {factor!r}"
            raise ValueError(message)
        if "lr" in options and "lr_factor" in options:
            message = f"rule {pattern!r} must set lr or lr_factor, not both"
            raise ValueError(message)
    patterns = [pattern for pattern, _ in rules]
    for pattern in patterns:
        if patterns.count(pattern) > 1:
            message = f"rules must have different patterns, got {pattern!r} twice"
            raise ValueError(message)


def check_names(options: Mapping[str, Any], who: str) -> None:
    """Raise ValueError for a name that no optimizer of ours or of torch.optim knows."""
    known = {*DEFAULTS, *torch_arguments(), *_OURS}
    for name in options:
        if name not in known:
            message = f"{who} the unknown option {name!r}{hint(str(name), known)}"
            raise ValueError(message)


def assign(
    model: nn.Module, rules: Rules, names: Mapping[nn.Parameter, Sequence[str]]
) -> dict[nn.Parameter, int]:
    """Return the number of the rule of every parameter that has one.

    Args:
        model: For the messages.
        rules: Pairs of a glob and options.
        names: All names of every trainable parameter.

    Raises:
        ValueError: A pattern matches no trainable parameter, or two patterns match the same one.
    """
    found: dict[nn.Parameter, int] = {}
    used = set()
    for p, aliases in names.items():
        matching = [
            i
            for i, (pattern, _) in enumerate(rules)
            if any(fnmatchcase(name, pattern) for name in aliases)
        ]
        if len(matching) > 1:
            first, second = (rules[i][0] for i in matching[:2])
            message = f"rules must not overlap: {first!r} and {second!r} both match {' = '.join(aliases)!r}"
            raise ValueError(message)
        if matching:
            found[p] = matching[0]
            used.add(matching[0])
    for i, (pattern, _) in enumerate(rules):
        if i not in used:
            raise ValueError(_unmatched(model, pattern))
    return found


def _unmatched(model: nn.Module, pattern: str) -> str:
    message = f"rule {pattern!r} matches no trainable parameter"
    every = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    if any(fnmatchcase(name, pattern) for name in every):
        return f"{message}, only frozen ones"
    if any(name.startswith(f"{pattern}.") for name in every):
        return f"{message}; for all parameters of that module write {pattern + '.*'!r}"
    return f"{message} of {', '.join(every[:3])}, ..."
