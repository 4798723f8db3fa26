"""The base of all optimizers: how one step finds its way from `step()` to the kernels and back."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import torch
from torch.compiler import is_dynamo_compiling
from torch.optim import Optimizer
from torch.optim.optimizer import (
    ParamsT,
    _global_optimizer_post_hooks,
    _global_optimizer_pre_hooks,
)

from onepass import _core
from onepass.optim import devices, launch, loading, options, scheduled, states
from onepass.optim.average import averages_in_place
from onepass.optim.conclusion import APPLIED, clip_of, conclude, skip, write_groups
from onepass.optim.describing import check_ranges, update
from onepass.optim.devices import Memory
from onepass.optim.reading import READER
from onepass.optim.report import Last, Report
from onepass.optim.work import Group, Rule, Work

_NONE: set[tuple[int, int]] = set()


class OnePass(Optimizer):
    """Base of the optimizers: a subclass is its defaults, its checks and its rule."""

    counted: ClassVar[bool] = True
    """Whether `state[p]` holds a "step"."""
    core_keys: ClassVar[tuple[str, ...]] = ()
    """The states that every parameter of this optimizer has once it has stepped."""
    state_keys: ClassVar[tuple[str, ...]] = ()
    """All states of the shape of the parameter."""
    places: ClassVar[tuple[tuple[str, int], ...]] = ()
    """Hyper-parameters that a schedule may give beside lr and decays, and where `rule` puts them."""
    on_schedule_mismatch: str = "error"
    """What `load_state_dict` does where the checkpoint has another schedule: "error", "keep" ours, "checkpoint"."""

    def rule(self, group: Group) -> tuple[Rule, tuple[float, ...]]:
        """Return the rule of a group and its hyper-parameters after lr, in the rule's order."""
        raise NotImplementedError

    def check(self, group: Group) -> None:
        """Raise ValueError for a hyper-parameter of a group that is out of range."""
        raise NotImplementedError

    def initial_value(self, key: str, group: Group) -> float:  # noqa: ARG002
        """Return what a new state is filled with."""
        return 0.0

    def _start(
        self, base: type[Optimizer], params: ParamsT, own: Mapping[str, Any], **arguments: Any
    ) -> None:
        """Construct: `arguments` are those of the torch class `base`, `own` the options that it does not have."""
        numbers, schedules = scheduled.split({**arguments, **own}, 0)
        arguments = {name: numbers[name] for name in arguments}
        self.check(arguments)
        self._given = options.given({name: numbers[name] for name in own})
        if schedules:
            self._given[scheduled.KEY] = schedules
        self._forget()
        base.__init__(self, params, **arguments)
        if self.defaults.get("max_grad_norm") is not None:
            self._step_supports_amp_scaling = True

    def _forget(self) -> None:
        """Start without a history: of addresses, of steps."""
        self._memory = _core.Memory()
        # What the groups are that are remembered, if any.
        self._remembered = self._clips = self._writes = self._may_leave_range = False
        self._memories: dict[int, Memory] = {}  # of devices
        self._scaler: tuple[Any, Any] | None = None  # GradScaler's numbers, if a device reads them
        self.schedules = scheduled.Schedules()
        self.steps_applied = self._skipped = 0
        self._last: Last | None = (False, None, None, [])

    def add_param_group(self, param_group: Group) -> None:
        """Add a parameter group, as `torch.optim.Optimizer.add_param_group`, with its values checked."""
        if isinstance(param_group, dict):
            self.defaults.update(self.__dict__.pop("_given", {}))
            scheduled.enter(param_group, self.defaults, self.steps_applied)
            group = {**self.defaults, **param_group}
            self.check(group)
            options.check(group)
            options.check_whole(group, self.defaults)
        super().add_param_group(param_group)

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Do one optimization step: `step(closure=None)`.

        Args:
            *args: At most the closure, which re-evaluates the model and returns the loss; it is called with
                gradients enabled.
            **kwargs: The closure, if it is given by name.

        Returns:
            What the closure returned, or None.

        Raises:
            RuntimeError: Parameter, gradient and state do not fit together, or a parameter group has to fall
                back to torch's own step (sparse or complex gradients, tensor subclasses, other devices,
                `differentiable`) but uses an option that torch does not have. Nothing has been written then.
        """
        if is_dynamo_compiling():  # it takes this for a constant, and must not look inside
            return _unseen_step(self, *args, **kwargs)
        watched = (
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or _global_optimizer_pre_hooks
            or _global_optimizer_post_hooks
            or torch._C._autograd._profiler_enabled()
        )
        if (
            watched and type(self).step is OnePass.step
        ):  # an overriding step was wrapped by torch itself
            return _hooked_step(self, *args, **kwargs)
        return self._step(*args, **kwargs)

    step.hooked = True  # type: ignore[attr-defined]  # torch would add a profiler range to every call

    def _step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        own = self.__dict__
        scaled = "found_inf" in own or "grad_scale" in own
        if not scaled and self._remembered and self._repeat():
            return loss
        unscale: float | None = 1.0
        if scaled:
            self._scaler = launch.scaler_of(self)
            unscale = 1.0 if self._scaler else self.read_scaler()
        elif self._scaler is not None:
            self._scaler = None
        clip = None if unscale is None else clip_of(self, unscale)
        if unscale is None or not update(self, unscale, clip):
            skip(self, clip)
        else:
            conclude(self, clip)
        return loss

    def _repeat(self) -> bool:
        """Do the step with the groups as they are remembered; return whether they still are so."""
        clip = clip_of(self, 1.0) if self._clips else None
        if self._may_leave_range:
            check_ranges(self)
        if not _core.repeat(
            READER, self._memory, self.param_groups, self.state, self.steps_applied, clip
        ):
            return False
        if clip is not None:
            conclude(self, clip)
        else:
            self.steps_applied += 1
            if self._writes:
                write_groups(self)
            self._last = APPLIED
        return True

    def read_scaler(self) -> float | None:
        """Return the factor that the gradients lack, as GradScaler says, or None if the step is to be skipped."""
        own = self.__dict__
        grad_scale, found_inf = own.get("grad_scale"), own.get("found_inf")
        if found_inf is not None and float(found_inf) > 0:
            return None
        return 1.0 if grad_scale is None else 1.0 / float(grad_scale)

    @property
    def report(self) -> Report:
        """What the last step did."""
        last, skipped = self._last, self._skipped
        if launch.counts(self):
            on_device, skipped_there = launch.last(self)
            last, skipped = last or on_device, skipped + skipped_there
        applied, norm, coefficient, nonfinite = last or APPLIED
        return Report(applied, norm, coefficient, self.steps_applied, skipped, list(nonfinite))

    def run(
        self,
        work: Work,
        clip: _core.Clip | None,
        *,
        dry: bool = False,
        first_steps: set[tuple[int, int]] = _NONE,
        first_averages: set[tuple[int, int]] = _NONE,
        on_cpu: bool = False,
    ) -> _core.Trouble | None:
        """Have the kernels do what `work.describe` has described for each group."""
        if devices.seen and not on_cpu:
            trouble: _core.Trouble | None = launch.run(
                self, work, clip, dry, first_steps, first_averages
            )
            return trouble
        seed = self.param_groups[0].get("seed", 0) if self.param_groups else 0
        return _core.step(
            READER,
            self._memory,
            work,
            self.state,
            dry,
            clip,
            first_steps,
            first_averages,
            seed,
            self.steps_applied,
        )

    def trains(self, group: Group) -> bool:
        """Return whether a group has reached its `train_from`."""
        start = group.get("train_from", 0)
        if start > 0:
            launch.catch_up(self)
        return bool(start <= self.steps_applied)

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's state, as `torch.optim.Optimizer.state_dict`; waits for a device that counts steps."""
        if launch.catch_up(self):
            write_groups(self)
        return super().state_dict()

    def ema_weights(self) -> AbstractContextManager[None]:
        """Put the averages of the weights (`ema_decay`) in their place, and the weights back at the end.

        Parameters without an average stay as they are. Needs memory for a copy of the weights.

        Example:
            >>> import torch, onepass
            >>> model = torch.nn.Linear(2, 1)
            >>> optimizer = onepass.AdamW(model.parameters(), ema_decay=0.999)
            >>> model(torch.ones(1, 2)).sum().backward()
            >>> optimizer.step()
            >>> with optimizer.ema_weights():
            ...     loss = model(torch.ones(1, 2))
        """
        return averages_in_place(self)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a checkpoint of this class or of torch's class of the same name.

        Options that the checkpoint does not hold stay as they are, and so does a schedule where the checkpoint
        has a plain number. So do the anchors of a parameter group for which the checkpoint has none.

        Raises:
            ValueError: A state does not have the shape of its parameter, only some of the states are there, or
                a schedule is not that of the checkpoint and `on_schedule_mismatch` is "error".
        """
        with loading.hooks(self):
            super().load_state_dict(state_dict)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take in the state of a pickled or loaded optimizer."""
        if self.counted:
            for own in state["state"].values():
                if states.ANCHOR in own and "step" not in own:  # which torch takes for granted
                    own["step"] = torch.tensor(0.0)
        super().__setstate__(state)
        self._forget()
        self.steps_applied = loading.steps_applied(self)
        if self.defaults.get("fused") or self.defaults.get("max_grad_norm") is not None:
            self._step_supports_amp_scaling = True


_hooked_step = Optimizer.profile_hook_step(OnePass._step)
_unseen_step = torch._disable_dynamo(OnePass.step)  # type: ignore[attr-defined, unused-ignore]
OnePass.step.__signature__ = inspect.signature(OnePass._step)  # type: ignore[attr-defined]
