"""What a step needs that meets something out of the ordinary."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from onepass import _core
from onepass.hyper.spec import Group, Spec
from onepass.state import check, make
from onepass.state.names import States, name_of
from onepass.step.row import EMPTY_ROW, GroupRow

Pairs = set[tuple[int, int]]
"""Parameters, each as (group, index in the group)."""


def sort_out(
    spec: Spec,
    groups: list[Group],
    state: States,
    rows: list[GroupRow],
    unsupported: set[int],
    look: Callable[[], _core.StepFailure | None],
) -> list[tuple[int, int]]:
    """Find out which groups are not for the kernels, and return the parameters whose state has to be completed.

    Args:
        spec: Of the optimizer.
        groups: The parameter groups.
        state: The state of their parameters.
        rows: One for each group; EMPTY_ROW replaces those that are not for the kernels.
        unsupported: Groups that are known not to be; others are added.
        look: Says why the kernels cannot step the rows.

    Raises:
        RuntimeError: Parameter, gradient and state do not fit together.
    """
    while True:
        for g in unsupported:
            rows[g] = EMPTY_ROW
        failure = look()
        if failure is None:
            return []
        others = {g for g, i in failure.mismatch if check.is_for_torch(groups[g]["params"][i])}
        if not others and not failure.unsupported:
            break
        unsupported.update(failure.unsupported, others)
    for g, i in failure.mismatch:
        check.refuse(groups, g, i)
    for g, i in failure.missing_state:
        check.diagnose(spec, groups, state, g, i)
    return list(failure.missing_state)


@dataclass
class Failure:
    """As `_core.StepFailure`: why a step on several devices was not done."""

    unsupported: list[int] = field(default_factory=list)
    missing_state: list[tuple[int, int]] = field(default_factory=list)
    mismatch: list[tuple[int, int]] = field(default_factory=list)

    @staticmethod
    def of(parts: Iterable[Any]) -> Failure | None:
        """Return the failures of the devices in one, or None if there is none."""
        failed = [part for part in parts if part is not None]
        if not failed:
            return None
        return Failure(
            [g for part in failed for g in part.unsupported],
            [pair for part in failed for pair in part.missing_state],
            [pair for part in failed for pair in part.mismatch],
        )


def refuse(groups: list[Group], failure: Any) -> None:
    """Raise for a step that cannot be done although its states have been completed."""
    g, i = [*failure.missing_state, *failure.mismatch, *((g, 0) for g in failure.unsupported)][0]
    message = f"onepass could not make the state of {name_of(groups, g, i)}; nothing was updated"
    raise RuntimeError(message)


class NewStates:
    """States that are made for a step, and taken out again where the step is not applied.

    Attributes:
        first_steps: Parameters for which this is the first step.
        first_emas: Parameters whose average starts.
    """

    def __init__(self, spec: Spec, state: States) -> None:
        self.first_steps: Pairs = set()
        self.first_emas: Pairs = set()
        self._spec, self._state = spec, state
        self._before: list[tuple[torch.Tensor, dict[str, Any] | None]] = []

    def complete(self, group: Group, row: GroupRow, g: int, i: int) -> None:
        """Make what a parameter's state lacks."""
        p = group["params"][i]
        self._before.append((p, dict(self._state[p]) if p in self._state else None))
        first = make.complete(
            self._spec, group, self._state[p], p, row.states, row.extras, row.counted
        )
        if first.step:
            self.first_steps.add((g, i))
        if first.ema:
            self.first_emas.add((g, i))

    def take_back(self) -> None:
        """Put back what was there before."""
        for p, before in reversed(self._before):
            if before is None:
                self._state.pop(p, None)
            else:
                self._state[p].clear()
                self._state[p].update(before)
