"""From plain data, as a checkpoint holds it, back to a schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any

from .anneals import Cosine, Linear, Polynomial, WarmRestarts
from .base import Over, Scaled, Schedule, Then, Warmup
from .custom import Custom, named
from .decays import Constant, Exponential, InverseSqrt, MultiStep, Step
from .phases import WSD, OneCycle
from .piecewise import Piecewise

__all__ = ["from_dict"]

_KINDS: dict[str, type[Schedule]] = {
    kind.__name__: kind
    for kind in (
        *(Constant, Step, MultiStep, Exponential, InverseSqrt),
        *(Linear, Polynomial, Cosine, WarmRestarts, OneCycle, WSD, Piecewise, Custom),
        *(Warmup, Then, Scaled, Over),
    )
}


def from_dict(d: Mapping[str, Any]) -> Schedule:
    """Return the schedule that ``to_dict`` described: ``from_dict(s.to_dict()) == s``.

    Args:
        d: what ``to_dict`` returned. Entries that have a default may be missing, so that an older
            dict is read after a schedule has gained an option.

    Raises:
        TypeError: ``d`` is not a mapping, or a value has the wrong type.
        ValueError: the kind is unknown, entries are missing or unknown, a value is out of range, or
            no `Custom` of the name was made in this process.

    Example:
        >>> from onepass.schedule import from_dict
        >>> from_dict({"schedule": "Cosine", "v": 0.1, "steps": 100})
        Cosine(0.1, 100)
    """
    if not isinstance(d, Mapping):
        message = f"a schedule's dict is expected, got {d!r}"
        raise TypeError(message)
    name = d.get("schedule")
    kind = _KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        message = f"'schedule' must be one of {', '.join(_KINDS)}, got {name!r}"
        raise ValueError(message)
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type] # all kinds are dataclasses
    required = {n for n, f in known.items() if f.default is MISSING}
    missing, unknown = required - d.keys(), d.keys() - known.keys() - {"schedule"}
    if missing or unknown:
        message = (
            f"{name} takes the entries {', '.join(known)}; "
            f"missing: {sorted(missing)}, unknown: {sorted(unknown, key=repr)}"
        )
        raise ValueError(message)
    values = (d.get(n, f.default) for n, f in known.items())
    make: Callable[..., Schedule] = named if kind is Custom else kind
    return make(*(from_dict(v) if isinstance(v, Mapping) else v for v in values))
