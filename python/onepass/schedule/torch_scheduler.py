"""A schedule behind torch's LRScheduler interface, for loops that insist on one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .base import Schedule
from .check import count, number

__all__ = ["ScheduleLR", "as_torch_scheduler"]


def as_torch_scheduler(opt: Optimizer, s: Schedule) -> ScheduleLR:
    r"""Return an LRScheduler that gives group i the learning rate ``s(t)`` times its factor.

    .. math:: lr_i(t) = f_i\, s(t), \qquad t = \text{number of scheduler.step() calls}

    ``s`` is absolute: it replaces the optimizer's learning rate, and the groups keep only their
    ratios. The factor of a group is

    1. its own ``group["lr_factor"]`` where there is one, read anew at each step; if any group has
       one, the others count as 1;
    2. else its learning rate divided by the largest of all groups at the time of the call. Groups
       with equal rates all get ``s(t)``; with rates of 1e-4 and 1e-3 the first gets ``0.1 * s(t)``.
       No group present at the call gets more than ``s(t)``.

    A group added later keeps the rate that it was given until the next ``scheduler.step()``; its
    factor is its ``lr_factor``, or that rate divided by the same largest one.

    Args:
        opt: any torch optimizer whose ``lr`` is a number or a tensor (which is filled in place).
        s: the schedule, counted in calls of ``scheduler.step()``.

    Raises:
        TypeError: ``opt`` is not an optimizer or ``s`` is not a schedule.
        ValueError: an ``lr_factor`` is negative or not finite.

    Example:
        >>> from onepass.schedule import as_torch_scheduler
        >>> import torch
        >>> from onepass.schedule import Linear
        >>> a, b = torch.nn.Linear(2, 3), torch.nn.Linear(3, 1)
        >>> groups = [{"params": a.parameters(), "lr": 0.05}, {"params": b.parameters()}]
        >>> opt = torch.optim.SGD(groups, lr=0.1)
        >>> scheduler = as_torch_scheduler(opt, Linear(1.0, 4))
        >>> for _ in range(3):
        ...     print([group["lr"] for group in opt.param_groups])
        ...     opt.step()
        ...     scheduler.step()
        [0.5, 1.0]
        [0.375, 0.75]
        [0.25, 0.5]

    Difference from torch: every value is computed from the count alone, so that loading this
    scheduler's state puts the learning rates right by itself, before or after the optimizer's.
    Chain schedules with `Schedule.then`, not with ``SequentialLR``.
    """
    return ScheduleLR(opt, s)


class ScheduleLR(LRScheduler):
    """The LRScheduler that `as_torch_scheduler` returns."""

    def __init__(self, optimizer: Optimizer, schedule: Schedule) -> None:
        if not isinstance(optimizer, Optimizer):
            message = f"opt must be a torch.optim.Optimizer, got {type(optimizer).__name__}"
            raise TypeError(message)
        if not isinstance(schedule, Schedule):
            message = f"s must be a schedule, got {schedule!r}"
            raise TypeError(message)
        self.optimizer = optimizer
        self.schedule = schedule
        self.lr_factors: list[float] = []
        self.reference_lr = _reference(optimizer.param_groups)
        self._adopt_groups()
        super().__init__(optimizer)

    def _adopt_groups(self) -> None:
        """Give each group that is new here its factor and, if it shares one, its own tensor."""
        groups, defaults = self.optimizer.param_groups, self.optimizer.defaults
        for group in groups[len(self.lr_factors) :]:
            # A group in a chain of decays that has reached 0 still knows where it began.
            lr = float(group["lr"]) or float(group.get("initial_lr", 0.0))
            self.lr_factors.append(lr / self.reference_lr if self.reference_lr else 1.0)
        for i, group in enumerate(groups):
            lr = group["lr"]
            if isinstance(lr, Tensor):  # filled in place, so nobody else may read it
                if lr is defaults.get("lr"):
                    defaults["lr"] = lr.clone()
                if any(lr is other["lr"] for other in groups[:i]):
                    group["lr"] = lr.clone()

    def _factor(self, i: int, group: Mapping[str, Any]) -> float:
        if "lr_factor" in group:
            return number(f"lr_factor of group {i}", group["lr_factor"])
        return self.lr_factors[i]

    def get_lr(self) -> list[float | Tensor]:
        """Return the learning rate of each group at ``last_epoch``; it may be called at any time."""
        self._adopt_groups()
        value = self.schedule(self.last_epoch)
        return [value * self._factor(i, g) for i, g in enumerate(self.optimizer.param_groups)]

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain data."""
        return {
            "schedule": self.schedule.to_dict(),
            "last_epoch": self.last_epoch,
            "step_count": self._step_count,
            "lr_factors": list(self.lr_factors),
            "reference_lr": self.reference_lr,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state, and put its learning rates into the groups.

        Raises:
            ValueError: the state is not one of this class, or was saved with another schedule.
                Delete its ``"schedule"`` entry to go on with this scheduler's own.
        """
        needed = {"last_epoch", "step_count", "lr_factors", "reference_lr"}
        if missing := needed - state_dict.keys():
            message = f"not the state of a ScheduleLR: missing {sorted(missing)}"
            raise ValueError(message)
        own = self.schedule.to_dict()
        if (saved := state_dict.get("schedule", own)) != own:
            message = (
                f"the state was saved with the schedule {saved}, this scheduler has {own}; "
                "delete the state's 'schedule' entry to keep this scheduler's own"
            )
            raise ValueError(message)
        last_epoch = count("last_epoch", state_dict["last_epoch"])
        step_count = count("step_count", state_dict["step_count"])
        reference = number("reference_lr", state_dict["reference_lr"])
        factors = [number("lr_factors", f) for f in state_dict["lr_factors"]]
        self.last_epoch, self._step_count = last_epoch, step_count
        self.reference_lr, self.lr_factors = reference, factors
        self._last_lr = self.get_lr()
        for group, lr in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr


def _reference(groups: list[dict[str, Any]]) -> float:
    """Return the learning rate whose factor is 1; 0 says that all factors without one are 1."""
    if any("lr_factor" in group for group in groups):
        return 0.0
    largest = max(float(group["lr"]) for group in groups)
    return largest or max(float(group.get("initial_lr", 0.0)) for group in groups)
