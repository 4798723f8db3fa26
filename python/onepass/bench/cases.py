"""What is measured: optimizer configurations, and the tensors that every contestant starts from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from onepass.bench.models import Model

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Configuration:
    """An optimizer with its options, in torch's names."""

    name: str
    kind: str
    """Name of the class in `torch.optim` and in `onepass`."""
    states: tuple[str, ...]
    """What is kept per element, in torch's names."""
    options: Mapping[str, Any] = field(default_factory=dict)


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


@dataclass(frozen=True)
class Case:
    """One model trained by one optimizer."""

    model: Model
    configuration: Configuration
    dtype: torch.dtype = torch.float32
    device: str = "cpu"

    @property
    def bytes_per_parameter(self) -> int:
        """Bytes that a step has to move: it reads and writes parameter and states, and reads the gradient."""
        return (3 + 2 * len(self.configuration.states)) * self.dtype.itemsize

    @property
    def memory(self) -> int:
        """Bytes of parameters, gradients and states."""
        return self.model.parameters * (2 + len(self.configuration.states)) * self.dtype.itemsize


def starting_values(case: Case) -> Iterator[torch.Tensor]:
    """Yield the parameters that everyone starts from, uniform in [-1, 1): the same with every call."""
    generator = torch.Generator().manual_seed(1)
    for shape in case.model.shapes:
        yield torch.rand(shape, generator=generator).mul_(2).sub_(1).to(case.dtype)


def _gradients(case: Case) -> Iterator[torch.Tensor]:
    """Yield gradients of both signs, of magnitude 0.5 to 1: far from where eps decides of the result."""
    generator = torch.Generator().manual_seed(2)
    for shape in case.model.shapes:
        value = torch.rand(shape, generator=generator)
        yield value.sub_((value < 0.5).to(value.dtype)).to(case.dtype)


def new_parameters(case: Case) -> list[torch.nn.Parameter]:
    """Return parameters with gradients: one contestant's own, allocated in the order in which all are."""
    device = case.device
    parameters = [torch.nn.Parameter(value.to(device)) for value in starting_values(case)]
    for parameter, gradient in zip(parameters, _gradients(case), strict=True):
        parameter.grad = gradient.to(device)
    return parameters
