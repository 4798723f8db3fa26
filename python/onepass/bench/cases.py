"""What is measured: optimizer configurations, and the tensors that every contestant starts from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from onepass.bench.models import Model

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
LOW = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Configuration:
    """An optimizer with its options, in torch's names."""

    name: str
    kind: str
    """Name of the class in `torch.optim` and in `onepass`."""
    states: tuple[str, ...]
    """What is kept per element, in torch's names."""
    options: Mapping[str, Any] = field(default_factory=dict)
    own: Mapping[str, Any] = field(default_factory=dict)
    """Options that torch does not have."""
    grad_scale: float = 1.0
    """Gradients come multiplied by this, and the step divides. A power of two."""
    dtypes: tuple[torch.dtype, ...] = ()
    """The only ones that it makes sense for; empty: all."""

    @property
    def reduced(self) -> bool:
        """Whether it keeps numbers in fewer bits than torch does, or rounds them otherwise."""
        return not self.own.keys().isdisjoint(("state_dtype", "master_weights", "rounding"))

    def dtype(self, wanted: torch.dtype) -> torch.dtype:
        """Return what it is measured with where `wanted` is asked for."""
        return wanted if not self.dtypes or wanted in self.dtypes else self.dtypes[0]


OPTIMIZERS: dict[str, Configuration] = {
    configuration.name: configuration
    for configuration in (
        Configuration("SGD", "SGD", (), {"lr": 1e-2}),
        Configuration("Momentum", "SGD", ("momentum_buffer",), {"lr": 1e-2, "momentum": 0.9}),
        Configuration("Adagrad", "Adagrad", ("sum",), {"lr": 1e-2}),
        Configuration("RMSprop", "RMSprop", ("square_avg",), {"lr": 1e-3}),
        # Gradients stay the same through a measurement. With alpha near 1 their running variance, which
        # goes to zero then, stays above rounding for as long as it takes.
        Configuration(
            "RMSprop-centered",
            "RMSprop",
            ("square_avg", "momentum_buffer", "grad_avg"),
            {"lr": 1e-3, "alpha": 0.9999, "momentum": 0.9, "centered": True},
        ),
        Configuration("Adam", "Adam", ("exp_avg", "exp_avg_sq"), {"lr": 1e-3}),
        Configuration(
            "AdamW", "AdamW", ("exp_avg", "exp_avg_sq"), {"lr": 1e-3, "weight_decay": 1e-2}
        ),
    )
}


def _adamw(name: str, own: Mapping[str, Any], **more: Any) -> Configuration:
    plain = OPTIMIZERS["AdamW"]
    # Clipped gradients are small. Packages put eps in different places, which must not show.
    options = {**plain.options, "eps": 1e-12} if "max_grad_norm" in own else plain.options
    return replace(plain, name=f"AdamW + {name}", options=options, own=own, **more)


_CLIP = {"max_grad_norm": 1.0}
_EMA = {"ema_decay": 0.999}
# So strong that a result without it is outside the tolerance.
_L1 = {"l1_decay": 1e-3, "l1_mode": "subgradient"}

OPTIONS: dict[str, Configuration] = {
    configuration.name.split(" + ")[1]: configuration
    for configuration in (
        _adamw("everything", {"skip_nonfinite": True} | _CLIP | _L1 | _EMA, grad_scale=1024.0),
        _adamw("clip", _CLIP),
        _adamw("ema", _EMA),
        _adamw("l1", _L1),
        _adamw("proximal-l1", {"l1_decay": 1e-3}),
        _adamw("bf16-states", {"state_dtype": torch.bfloat16}, dtypes=(torch.float32,)),
        _adamw("8bit-states", {"state_dtype": "8bit"}),
        _adamw("master-weights", {"master_weights": True}, dtypes=LOW),
        _adamw("stochastic-rounding", {"rounding": "stochastic"}, dtypes=LOW),
    )
}
"""AdamW with options that torch does not have, by the names of the options."""


@dataclass(frozen=True)
class Case:
    """One model trained by one optimizer."""

    model: Model
    configuration: Configuration
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    rounded_to: torch.dtype | None = None
    """All numbers are also numbers of this dtype, for a case that is compared with one in it."""

    @property
    def reads_norm(self) -> bool:
        """Whether the gradients are read once more than the update needs, for their norm."""
        return not self.configuration.own.keys().isdisjoint(("max_grad_norm", "skip_nonfinite"))

    @property
    def mixed(self) -> bool:
        """Whether what a step reads and writes has several dtypes."""
        own = self.configuration.own
        kept = self.dtype in LOW and ("ema_decay" in own or "master_weights" in own)
        return kept or own.get("state_dtype", self.dtype) != self.dtype

    @property
    def kept(self) -> float:
        """Bytes per parameter that the optimizer keeps."""
        own, size = self.configuration.own, self.dtype.itemsize
        master = self.dtype in LOW and own.get("master_weights", False)
        state: float = 4 if master else size
        chosen = own.get("state_dtype")
        if isinstance(chosen, torch.dtype):
            state = chosen.itemsize
        elif chosen == "8bit":  # blocks of 256, which end with their tensor, share a float32
            blocks = sum(-(-math.prod(shape) // 256) for shape in self.model.shapes)
            state = 1 + 4 * blocks / max(1, self.model.parameters)
        average = 4 if "ema_decay" in own else 0
        rest = 0 if not master else 2 if self.dtype == torch.bfloat16 else 4
        return len(self.configuration.states) * state + average + rest

    @property
    def bytes_per_parameter(self) -> float:
        """Bytes that a step has to move: it reads and writes parameter and states, and reads the gradient."""
        return (4 if self.reads_norm else 3) * self.dtype.itemsize + 2 * self.kept

    @property
    def memory(self) -> int:
        """Bytes of parameters, gradients and states."""
        return math.ceil(self.model.parameters * (2 * self.dtype.itemsize + self.kept))

    def in_float32(self) -> Case:
        """Return the case without options that torch does not have, in float32, from the same numbers."""
        plain = replace(self.configuration, own={}, grad_scale=1.0, dtypes=())
        return replace(self, configuration=plain, dtype=torch.float32, rounded_to=self.dtype)


def _rounded(value: torch.Tensor, case: Case) -> torch.Tensor:
    return value.to(case.rounded_to or case.dtype).to(case.dtype)


def starting_values(case: Case) -> Iterator[torch.Tensor]:
    """Yield the parameters that everyone starts from, uniform in [-1, 1): the same with every call.

    With L1 they stay away from 0, where its sign would turn the last bit of a result into all of a step.
    """
    generator = torch.Generator().manual_seed(1)
    gap = torch.tensor(2.0**-6)
    for shape in case.model.shapes:
        value = torch.rand(shape, generator=generator).mul_(2).sub_(1)
        if "l1_decay" in case.configuration.own:
            value.add_(gap.copysign(value))
        yield _rounded(value, case)


def _gradients(case: Case) -> Iterator[torch.Tensor]:
    """Yield gradients of both signs, of magnitude 0.5 to 1: far from where eps decides of the result."""
    generator = torch.Generator().manual_seed(2)
    for shape in case.model.shapes:
        value = torch.rand(shape, generator=generator)
        value.sub_((value < 0.5).to(value.dtype))
        yield _rounded(value, case).mul_(case.configuration.grad_scale)


def new_parameters(case: Case) -> list[torch.nn.Parameter]:
    """Return parameters with gradients: one contestant's own, allocated in the order in which all are."""
    device = case.device
    parameters = [torch.nn.Parameter(value.to(device)) for value in starting_values(case)]
    for parameter, gradient in zip(parameters, _gradients(case), strict=True):
        parameter.grad = gradient.to(device)
    return parameters


def set_gradients(case: Case, parameters: list[torch.nn.Parameter], multiple: float) -> None:
    """Set the gradients anew, to a multiple of those that everyone starts with."""
    for parameter, gradient in zip(parameters, _gradients(case), strict=True):
        assert parameter.grad is not None
        parameter.grad.copy_(gradient.mul_(multiple))
