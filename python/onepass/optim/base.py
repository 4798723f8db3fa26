"""The base of all optimizers: how one step finds its way from `step()` to the kernels and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch.optim import Optimizer
from torch.optim.optimizer import (
    ParamsT,
    _global_optimizer_post_hooks,
    _global_optimizer_pre_hooks,
)

from onepass import _core
from onepass.optim import options, states
from onepass.optim.fallback import torch_step
from onepass.optim.reading import READER

Group = dict[str, Any]


class Rule(NamedTuple):
    """An update rule of csrc/rules.hpp: its number, and the names of its states in torch's state dict."""

    number: int
    keys: tuple[str, ...]


def rule(name: str, *keys: str) -> Rule:
    """Return the rule of this name; `keys` in the order in which the rule takes its states."""
    return Rule(_core.rules()[name], keys)


class OnePass(Optimizer):
    """Base of the optimizers: a subclass is its defaults, its checks and its rule."""

    counted: ClassVar[bool] = True
    """Whether `state[p]` holds a "step"."""
    core_keys: ClassVar[tuple[str, ...]] = ()
    """The states that every parameter of this optimizer has once it has stepped."""
    state_keys: ClassVar[tuple[str, ...]] = ()
    """All states of the shape of the parameter."""

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
        self.check(arguments)
        self._given = options.given(own)
        self._memory = _core.Memory()
        base.__init__(self, params, **arguments)

    def add_param_group(self, param_group: Group) -> None:
        """Add a parameter group, as `torch.optim.Optimizer.add_param_group`, with its values checked."""
        if isinstance(param_group, dict):
            self.defaults.update(self.__dict__.pop("_given", {}))
            group = {**self.defaults, **param_group}
            self.check(group)
            options.check(group)
        super().add_param_group(param_group)

    @torch._disable_dynamo  # type: ignore[attr-defined, untyped-decorator, unused-ignore]
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do one optimization step.

        Args:
            closure: Re-evaluates the model and returns the loss; called with gradients enabled.

        Returns:
            What the closure returned, or None.

        Raises:
            RuntimeError: Parameter, gradient and state do not fit together, or a parameter group has to fall
                back to torch's own step (sparse or complex gradients, tensor subclasses, other devices,
                `differentiable`) but uses an option that torch does not have. Nothing has been written then.
        """
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
            return _hooked_step(self) if closure is None else _hooked_step(self, closure)
        return self._step(closure)

    step.hooked = True  # type: ignore[attr-defined]  # torch would add a profiler range to every call

    def _step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        own = self.__dict__
        if "found_inf" in own and own["found_inf"] is not None and float(own["found_inf"]) > 0:
            return loss
        grad_scale = own.get("grad_scale")
        updated = self._update(1.0 if grad_scale is None else 1.0 / float(grad_scale))
        for params in updated:
            torch._C._increment_version(params)
        return loss

    def _update(self, unscale: float) -> list[list[torch.Tensor]]:
        """Step all groups; return the parameters that the kernels have changed."""
        groups = self.param_groups
        work = [self._work(group, unscale) for group in groups]
        foreign = {i for i, group in enumerate(groups) if group["differentiable"]}
        if not foreign:
            done = _core.step(READER, self._memory, work, self.state, _NONE_FRESH, False)
            if type(done) is list:
                return done
        return self._update_with_care(work, foreign, unscale)

    def _update_with_care(
        self, work: list[tuple[Any, ...]], foreign: set[int], unscale: float
    ) -> list[list[torch.Tensor]]:
        """Step when some groups are not for the kernels or some states are missing.

        Everything that can go wrong is found before anything is written; then torch steps the groups that are
        foreign to the kernels, since it may still refuse one, and the kernels step the others.
        """
        groups = self.param_groups
        while True:
            for i in foreign:
                work[i] = ([], *work[i][1:])
            found = _core.step(READER, self._memory, work, self.state, _NONE_FRESH, True)
            if isinstance(found, list):
                broken = []
                break
            broken = found.repair
            if not found.uncovered:
                for g, i in found.invalid:
                    states.refuse(groups, g, i)
                break
            foreign.update(found.uncovered)
        for g, i in broken:
            states.diagnose(self, groups, g, i, work[g][2])
        for g in foreign:
            options.refuse(groups[g], g)

        torch_step(self, [groups[g] for g in sorted(foreign)], unscale)
        fresh = {(g, i) for g, i in broken if states.complete(self, groups[g], i, work[g][2])}
        done = _core.step(READER, self._memory, work, self.state, fresh, False)
        if not isinstance(done, list):
            message = (
                f"onepass could not make the state of {states.name_of(groups, *done.repair[0])}"
            )
            raise RuntimeError(message)
        return done

    def _work(self, group: Group, unscale: float) -> tuple[Any, ...]:
        """Return a group as `_core.step` takes it."""
        (number, keys), hyper = self.rule(group)
        lr = float(group["lr"])
        decay = float(group["weight_decay"])
        decoupled = group.get("decoupled_weight_decay", False)
        l1 = group.get("l1_decay", 0.0)
        proximal = group.get("l1_mode", "proximal") == "proximal"
        numbers = (
            -unscale if group["maximize"] else unscale,
            0.0 if decoupled else decay,
            1.0 - lr * decay if decoupled else 1.0,
            0.0 if proximal else l1,
            l1 if proximal else 0.0,
            lr,
            *hyper,
        )
        return group["params"], number, keys, self.counted, numbers

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a checkpoint of this class or of torch's class of the same name.

        Options that the checkpoint does not hold stay as they are.

        Raises:
            ValueError: A state does not have the shape of its parameter, or only some of the states are there.
        """
        saved = state_dict["param_groups"]
        states.check_loaded(self, state_dict)
        if len(saved) == len(self.param_groups):
            kept = [{k: g[k] for k in options.DEFAULTS if k in g} for g in self.param_groups]
            saved = [{**own, **group} for own, group in zip(kept, saved, strict=True)]
        super().load_state_dict({**state_dict, "param_groups": saved})

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take in the state of a pickled or loaded optimizer."""
        super().__setstate__(state)
        self._memory = _core.Memory()
        if self.defaults.get("fused"):
            self._step_supports_amp_scaling = True


_NONE_FRESH: set[tuple[int, int]] = set()
_hooked_step = Optimizer.profile_hook_step(OnePass._step)
