"""What an optimizer is, as data: its update rules, as the compiled part describes them, and how groups feed them."""

from __future__ import annotations

import functools
import inspect
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, NamedTuple

from torch.optim import Optimizer

from onepass import _core

Group = dict[str, Any]


class Rule(NamedTuple):
    """An update rule of csrc/rules/rules.hpp.

    Attributes:
        number: Of the rule in the compiled part.
        states: Names of its states in torch's state dict, in the rule's order.
        kinds: What kind of number each state holds, for `_core.quantize`.
        hypers: Names of its hyper-parameters, in the rule's order, "lr" first.
    """

    number: int
    states: tuple[str, ...]
    kinds: tuple[int, ...]
    hypers: tuple[str, ...]


SLOTS: Mapping[str, int] = _core.number_slots()
"""Indices into the numbers of a group; the rule's hyper-parameters follow from "hyper" on."""

RULES: Mapping[str, Rule] = {
    name: Rule(
        number, tuple(sys.intern(s) for s, _ in states), tuple(kind for _, kind in states), hypers
    )
    for name, (number, states, hypers) in _core.specs().items()
}
"""All rules by their names."""


@dataclass(frozen=True, eq=False)
class Spec:
    """What sets an optimizer apart from the others, as data.

    Attributes:
        base: The class of torch.optim whose place it takes.
        rules: Names of the update rules between which its groups choose.
        sources: Where a hyper-parameter of a rule comes from that is not the group's value of the same name: the
            name of another value, or (name, index) of one that is a tuple.
        computed: Hyper-parameters that are a function of the group.
        scheduled: Values that a schedule may give beside learning rate and decays, each with the number that it has
            to stay below.
        initial: What a new state is filled with, where that is not 0: the name of a value of the group.
        counted: Whether `state[p]` holds a "step".
    """

    base: type[Optimizer]
    rules: tuple[str, ...]
    sources: Mapping[str, str | tuple[str, int]] = field(default_factory=dict)
    computed: Mapping[str, Callable[[Group], float]] = field(default_factory=dict)
    scheduled: Mapping[str, float] = field(default_factory=dict)
    initial: Mapping[str, str] = field(default_factory=dict)
    counted: bool = True

    # Derived once.
    states: tuple[str, ...] = field(init=False)
    """All states that have the shape of the parameter."""
    kinds: Mapping[str, int] = field(init=False)
    """What kind of number each of them holds, for `_core.quantize`."""
    core: tuple[str, ...] = field(init=False)
    """Those that every parameter has once it has stepped, whatever its group chooses."""
    getters: Mapping[str, tuple[Callable[[Group], Any], ...]] = field(init=False)
    """For each rule what gets its hyper-parameters after "lr" from a group."""

    def __post_init__(self) -> None:
        rules = [RULES[name] for name in self.rules]
        kinds = {s: kind for rule in rules for s, kind in zip(rule.states, rule.kinds, strict=True)}
        derive = object.__setattr__  # of a frozen class
        derive(self, "states", tuple(kinds))
        derive(self, "kinds", kinds)
        derive(self, "core", tuple(s for s in kinds if all(s in rule.states for rule in rules)))
        getters = {name: tuple(map(self._getter, RULES[name].hypers[1:])) for name in self.rules}
        derive(self, "getters", getters)

    def _getter(self, hyper: str) -> Callable[[Group], Any]:
        if hyper in self.computed:
            return self.computed[hyper]
        source = self.sources.get(hyper, hyper)
        if isinstance(source, str):
            return itemgetter(source)
        name, index = source
        return lambda group: group[name][index]

    @functools.cached_property
    def required(self) -> tuple[str, ...]:
        """Names of hyper-parameters without a default that torch fills in for old checkpoints."""
        parameters = inspect.signature(self.base).parameters
        filled = {
            "foreach",
            "maximize",
            "capturable",
            "differentiable",
            "fused",
            "amsgrad",
            "nesterov",
        }
        filled |= {"decoupled_weight_decay"} | (
            {"momentum", "centered"} if "alpha" in parameters else set()
        )
        return tuple(name for name in parameters if name != "params" and name not in filled)

    def initial_value(self, state: str, group: Group) -> float:
        """Return what a new state is filled with."""
        return float(group[self.initial[state]]) if state in self.initial else 0.0

    def varying(self, rule: str, group: Group) -> Mapping[str, tuple[int, float]]:
        """Return the values of a group that only decide numbers of its row, as long as their signs stay.

        Each with the slot of the (first) number and what it has to stay below.
        """
        decoupled = bool(group.get("decoupled_weight_decay", False))
        proximal = group.get("l1_mode", "proximal") == "proximal"
        return _varying(self, rule, decoupled, proximal)


@functools.cache
def _varying(
    spec: Spec, rule: str, decoupled: bool, proximal: bool
) -> Mapping[str, tuple[int, float]]:
    found = {
        "lr": (SLOTS["hyper"], math.inf),
        "weight_decay": (SLOTS["decoupled" if decoupled else "coupled"], math.inf),
        "l1_decay": (SLOTS["proximal" if proximal else "subgradient"], math.inf),
        "ema_decay": (SLOTS["ema_decay"], 1.0),
    }
    for slot, hyper in enumerate(RULES[rule].hypers, SLOTS["hyper"]):
        source = spec.sources.get(hyper, hyper)
        name = source if isinstance(source, str) else source[0]
        if name in spec.scheduled and name not in found:
            found[name] = slot, spec.scheduled[name]
    return found
