"""The base of all optimizers: constructor, hooks, checkpoints, report. How a step is done is in onepass.step."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
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
from onepass.device import extension
from onepass.hyper import options, schedules
from onepass.hyper.spec import RULES, Group, Spec
from onepass.reader import READER
from onepass.schedule.plateau import metric_of
from onepass.state import checkpoint, make
from onepass.state.ema import ema_in_place
from onepass.state.names import EMA, intern_keys
from onepass.step.report import Report
from onepass.step.row import state_names
from onepass.step.stepper import Call, Stepper
from onepass.step.torch_step import torch_step

_COPIED = ("on_schedule_mismatch",)
"""Attributes that copies have, beside what torch copies."""
_HOOKS = ("check", "rule")
"""What a subclass may decide of a group by a method of its own."""


class OnePass(Optimizer):
    """Base of the optimizers: a subclass is its defaults, its checks and its `Spec`."""

    spec: ClassVar[Spec]
    on_schedule_mismatch: str = "error"
    """What `load_state_dict` does where the checkpoint has another schedule: "error", "keep" ours, "checkpoint"."""
    _repeats: ClassVar[bool] = True

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Note whether what a subclass does with a group is known to depend on its values only."""
        super().__init_subclass__(**arguments)
        package = __name__.rpartition(".")[0] + "."
        definers = (next(c for c in cls.__mro__ if name in vars(c)) for name in _HOOKS)
        cls._repeats = all(c.__module__.startswith(package) for c in definers)

    def check(self, group: Group) -> None:
        """Raise ValueError for a hyper-parameter of a group that is out of range, TypeError for what is no number."""
        raise NotImplementedError

    def rule(self, group: Group) -> str:  # noqa: ARG002
        """Return the name of a group's update rule, one of `spec.rules`."""
        return self.spec.rules[0]

    def _start(self, params: ParamsT, own: Mapping[str, Any], **arguments: Any) -> None:
        """Construct: `arguments` are those of the torch class, `own` the options that it does not have."""
        numbers, plain = schedules.split({**arguments, **own}, 0)
        arguments = {name: numbers[name] for name in arguments}
        self.check(arguments)
        found = {name: value for name, value in numbers.items() if name not in arguments}
        self._given = options.given(found, arguments)
        if plain:
            self._given[schedules.KEY] = plain
        self._stepper = Stepper(self.spec)
        self.spec.base.__init__(self, params, **arguments)
        self._offer_unscaling()

    def _offer_unscaling(self) -> None:
        """Have GradScaler leave unscaling to the step where the optimizer was asked to do it."""
        if self.defaults.get("fused") or self.defaults.get("max_grad_norm") is not None:
            self._step_supports_amp_scaling = True

    def add_param_group(self, param_group: Group) -> None:
        """Add a parameter group, as `torch.optim.Optimizer.add_param_group`, with its values checked."""
        if isinstance(param_group, dict):
            self.defaults.update(self.__dict__.pop("_given", {}))
            options.warn_of_misspelt(param_group, self.defaults)
            schedules.enter(param_group, self.defaults, self.steps_applied)
            group = {**self.defaults, **param_group}
            self.check(group)
            options.check(group)
            whole = self.param_groups[0] if self.param_groups else self.defaults
            options.check_whole(group, whole)
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
        own, stepper = self.__dict__, self._stepper
        overridden = "check" in own or "rule" in own
        if (
            not stepper.remembers
            or overridden
            or "found_inf" in own
            or "grad_scale" in own
            or not stepper.repeat(self.param_groups, self.state)
        ):
            repeats = self._repeats and not overridden
            stepper.full(
                Call(
                    self.param_groups,
                    self.state,
                    self.defaults,
                    own,
                    self.check,
                    self.rule,
                    self._torch_step,
                    repeats,
                )
            )
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, as `torch.optim.Optimizer.zero_grad`, or set them to zero.

        Args:
            set_to_none: Whether `.grad` becomes None, which frees its memory; if not, a tensor of zeros that
                autograd does not follow.

        Difference from torch:
            None in what it does; there is no Python for each parameter, which took most of the time.
        """
        if is_dynamo_compiling() or torch._C._autograd._profiler_enabled():
            super().zero_grad(set_to_none)
        elif set_to_none:
            _core.drop_gradients(READER, self.param_groups)
        else:
            plain, others = _core.sorted_gradients(READER, self.param_groups)
            for grad in others:
                if grad.grad_fn is not None:
                    grad.detach_()
                else:
                    grad.requires_grad_(False)
                if type(grad) is torch.Tensor and grad.layout is torch.strided:
                    plain.append(grad)
                else:
                    grad.zero_()
            if plain:
                torch._foreach_zero_(plain)

    def _torch_step(self, groups: list[Group], unscale: float) -> None:
        torch_step(self, self.spec.base, groups, unscale)

    @property
    def steps_applied(self) -> int:
        """How many steps were applied, as far as the host knows."""
        return self._stepper.steps_applied

    @steps_applied.setter
    def steps_applied(self, count: int) -> None:
        self._stepper.finish(self.param_groups)
        self._stepper.steps_applied = count

    @property
    def report(self) -> Report:
        """What the last step did."""
        return self._stepper.report(self.param_groups)

    def observe(self, metric: float | torch.Tensor) -> None:
        """Have the :class:`~onepass.schedule.Plateau` of every parameter group that has one see a validation metric.

        The learning rate that is reduced by it stands in `group["lr"]` at once.

        Args:
            metric: A number, or a tensor of one element. NaN is no improvement.

        Raises:
            TypeError: `metric` is no number.
            RuntimeError: No parameter group has a plateau.
        """
        value = metric_of(metric)
        self._stepper.catch_up(self.param_groups)
        if not schedules.feed(self.param_groups, value):
            message = "observe: no parameter group has a plateau; give the optimizer lr=0.1 * onepass.schedule.Plateau()"
            raise RuntimeError(message)
        self._stepper.write_groups(self.param_groups)

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's state, as `torch.optim.Optimizer.state_dict`; waits for a device that counts steps.

        A group that waits (`train_from`) and a parameter that has only an anchor have states before their first step
        here, so that `torch.distributed.checkpoint` takes a checkpoint for complete when it is.
        """
        self._stepper.catch_up(self.param_groups)
        made = checkpoint.complete(
            self.spec, self.param_groups, self.state, self.steps_applied, self._make_state
        )
        if not made:
            return super().state_dict()
        numbers = {p: i for i, p in enumerate(p for g in self.param_groups for p in g["params"])}

        def completed(_: Any, saved: dict[str, Any]) -> None:
            saved["state"].update({numbers[p]: own for p, own in made.items()})

        handle = self.register_state_dict_post_hook(completed, prepend=True)
        try:
            return super().state_dict()
        finally:
            handle.remove()

    def _make_state(self, group: Group, p: torch.Tensor, state: dict[str, Any]) -> None:
        names, extras = state_names(RULES[self.rule(group)].states, group)
        on_device = p.is_cuda and extension.counts_steps(group, self.defaults)
        counted = int(self.spec.counted) * (2 if on_device else 1)
        make.complete(self.spec, group, state, p, names, extras, counted)

    def ema_weights(
        self, model: torch.nn.Module | None = None, data: Iterable[Any] | None = None
    ) -> AbstractContextManager[None]:
        """Put the averages of the weights (`ema_decay`) in their place, and the weights back at the end.

        Parameters without an average stay as they are. Needs memory for a copy of the weights. The weights are
        back, too, where the block, the exchange itself or Ctrl-C raises.

        The running statistics of BatchNorm belong to the weights that have been trained. For a model that has some,
        give it and `data`: they are estimated anew for the averages, and are what they were at the end. A BatchNorm
        whose own weights are frozen keeps its statistics.

        Args:
            model: The model whose weights these are. Default: None, statistics stay as they are.
            data: Batches of inputs to run the model on in training mode: tensors, lists or tuples whose first
                element is the input, or dicts of keyword arguments. Some hundred samples do. Default: None.

        Raises:
            TypeError: `model` is no module.
            ValueError: `model` has BatchNorm layers, and `data` is missing or empty.
            RuntimeError: There are no averages, and will be none.

        Example:
            >>> import torch, onepass
            >>> model = torch.nn.Linear(2, 1)
            >>> optimizer = onepass.AdamW(model.parameters(), ema_decay=0.999)
            >>> model(torch.ones(1, 2)).sum().backward()
            >>> optimizer.step()
            >>> with optimizer.ema_weights():
            ...     loss = model(torch.ones(1, 2))

        Reference:
            Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization, 2018, section 3.3, for
            the statistics; `torch.optim.swa_utils.update_bn` does the same for good.
        """
        if not any(group.get("ema_decay") is not None for group in self.param_groups) and not any(
            EMA in own for own in self.state.values()
        ):
            message = "ema_weights: the optimizer keeps no averages; give it ema_decay, 0.999 say"
            raise RuntimeError(message)
        return ema_in_place(self.param_groups, self.state, model, data)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a checkpoint of this class or of torch's class of the same name.

        Options that the checkpoint does not hold stay as they are, and so does a schedule where the checkpoint
        has a plain number. So do the anchors of a parameter group for which the checkpoint has none.

        Raises:
            ValueError: A state does not have the shape of its parameter, only some of the states are there, or
                a schedule is not that of the checkpoint and `on_schedule_mismatch` is "error".
        """
        loaded: list[dict[str, Any]] = []

        def before(_: Any, saved: dict[str, Any]) -> dict[str, Any]:
            policy = self.on_schedule_mismatch
            loaded.append(
                checkpoint.prepare(self.spec, self.param_groups, self.state, saved, policy)
            )
            return loaded[0]

        # Before torch, after the user's hooks; and after torch, before the user's.
        handles = (
            self.register_load_state_dict_pre_hook(before),
            self.register_load_state_dict_post_hook(
                lambda _: self._complete_loaded(loaded[0]), prepend=True
            ),
        )
        try:
            super().load_state_dict(state_dict)
        finally:
            for handle in handles:
                handle.remove()

    def _complete_loaded(self, saved: dict[str, Any]) -> None:
        groups = self.param_groups
        checkpoint.restore_dtypes(self.spec, groups, self.state, saved)
        for name in options.WHOLE:
            if name in groups[0]:
                self.defaults[name] = groups[0][name]
        for group in groups:
            if schedules.KEY in group:
                self._stepper.schedules.write(group, self.steps_applied)

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and pickles hold."""
        self._stepper.catch_up(self.param_groups)
        own = {name: self.__dict__[name] for name in _COPIED if name in self.__dict__}
        state: dict[str, Any] = super().__getstate__()
        return {**state, **own, schedules.COUNT: self.steps_applied}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take in the state of a pickled or loaded optimizer."""
        state = dict(state)
        applied = state.pop(schedules.COUNT, None)
        for p, own in list(state["state"].items()):
            if not isinstance(own, dict):
                continue
            if not own:  # as `state[p]` of a parameter without state leaves it behind
                del state["state"][p]
                continue
            intern_keys(own)
        with _counted_only(state["state"], self.spec):
            super().__setstate__(state)
        if applied is None:
            applied = checkpoint.steps_applied(self.param_groups, self.state)
        self._stepper = Stepper(self.spec, applied)
        self._offer_unscaling()


@contextmanager
def _counted_only(state: dict[Any, Any], spec: Spec) -> Iterator[None]:
    """Keep states without a count out of the sight of torch, which takes one for granted."""
    before = dict(state)
    for p, own in before.items():
        if spec.counted and isinstance(own, dict) and "step" not in own:
            del state[p]
    try:
        yield
    finally:
        if len(state) != len(before):
            state.clear()
            state.update(before)


_hooked_step = Optimizer.profile_hook_step(OnePass._step)
_unseen_step = torch._disable_dynamo(OnePass.step)  # type: ignore[attr-defined, unused-ignore]
OnePass.step.__signature__ = inspect.signature(OnePass._step)  # type: ignore[attr-defined]
