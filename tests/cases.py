"""The only list of optimizers and of their configurations; every test takes its cases from here."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

import onepass


@dataclass(frozen=True)
class Case:
    """One configuration of one optimizer."""

    id: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.id

    @property
    def kind(self) -> Any:
        """Our class."""
        return getattr(onepass, self.name)

    @property
    def torch_kind(self) -> Any:
        """The class that ours takes the place of."""
        return getattr(torch.optim, self.name)

    def ours(self, params: Iterable[Any], **more: Any) -> Any:
        return self.kind(params, **{**self.options, **more})

    def torchs(self, params: Iterable[Any], **more: Any) -> Any:
        """Torch's for-loop, the second oracle; its fused kernels are no oracle."""
        return self.torch_kind(params, **{**self.options, "foreach": False, **more})

    @functools.cached_property
    def hyper(self) -> dict[str, Any]:
        """All hyper-parameters, torch's defaults included."""
        group = self.torchs([torch.nn.Parameter(torch.zeros(1))]).param_groups[0]
        return {key: value for key, value in group.items() if key != "params"} | dict(self.options)

    @property
    def state_keys(self) -> tuple[str, ...]:
        """Names of the states that have the parameter's shape, as torch calls them."""
        h = self.hyper
        if self.name == "SGD":
            return ("momentum_buffer",) if h["momentum"] else ()
        if self.name == "Adagrad":
            return ("sum",)
        if self.name == "RMSprop":
            own = ("momentum_buffer",) if h["momentum"] else ()
            return ("square_avg", *own, *(("grad_avg",) if h["centered"] else ()))
        return ("exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if h["amsgrad"] else ()))


def _case(id: str, name: str, **options: Any) -> Case:
    return Case(id, name, options)


# Learning rates are such that one step changes parameters of the order of 1 by a few percent.
CASES = [
    _case("sgd", "SGD", lr=0.05),
    _case("sgd-decay", "SGD", lr=0.05, weight_decay=0.1),
    _case("sgd-maximize", "SGD", lr=0.05, weight_decay=0.1, maximize=True),
    _case("sgd-momentum", "SGD", lr=0.05, momentum=0.9),
    _case("sgd-dampening", "SGD", lr=0.05, momentum=0.9, dampening=0.3, weight_decay=0.01),
    _case("sgd-nesterov", "SGD", lr=0.05, momentum=0.8, nesterov=True, weight_decay=0.01),
    _case("sgd-nesterov-maximize", "SGD", lr=0.05, momentum=0.8, nesterov=True, maximize=True),
    _case("adagrad", "Adagrad", lr=0.05),
    _case(
        "adagrad-all",
        "Adagrad",
        lr=0.1,
        lr_decay=0.1,
        weight_decay=0.05,
        initial_accumulator_value=0.1,
        eps=1e-6,
        maximize=True,
    ),
    _case("rmsprop", "RMSprop", lr=0.01),
    _case(
        "rmsprop-decay", "RMSprop", lr=0.01, alpha=0.9, weight_decay=0.05, eps=1e-6, maximize=True
    ),
    _case("rmsprop-momentum", "RMSprop", lr=0.005, momentum=0.9),
    _case("rmsprop-centered", "RMSprop", lr=0.01, alpha=0.95, centered=True),
    _case(
        "rmsprop-centered-momentum",
        "RMSprop",
        lr=0.005,
        momentum=0.7,
        centered=True,
        weight_decay=0.01,
    ),
    _case("adam", "Adam", lr=0.02),
    _case("adam-decay", "Adam", lr=0.02, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.05),
    _case("adam-amsgrad", "Adam", lr=0.02, betas=(0.9, 0.9), amsgrad=True),
    _case("adam-maximize", "Adam", lr=0.02, maximize=True, weight_decay=0.05),
    _case("adam-decoupled", "Adam", lr=0.02, weight_decay=0.1, decoupled_weight_decay=True),
    _case("adam-without-momentum", "Adam", lr=0.02, betas=(0.0, 0.99)),
    _case("adamw", "AdamW", lr=0.02),
    _case("adamw-amsgrad", "AdamW", lr=0.02, betas=(0.9, 0.9), weight_decay=0.1, amsgrad=True),
    _case("adamw-maximize", "AdamW", lr=0.02, weight_decay=0.1, maximize=True),
]
BY_ID = {case.id: case for case in CASES}

# One configuration of every update rule, and one of every class, for tests that are not about the arithmetic.
RULES = [
    BY_ID[id]
    for id in (
        "sgd",
        "sgd-nesterov",
        "adagrad-all",
        "rmsprop",
        "rmsprop-momentum",
        "rmsprop-centered",
        "rmsprop-centered-momentum",
        "adam",
        "adamw-amsgrad",
    )
]
CLASSES = [
    BY_ID[id]
    for id in ("sgd-momentum", "adagrad-all", "rmsprop-centered-momentum", "adam", "adamw")
]

all_cases = pytest.mark.parametrize("case", CASES, ids=str)
rules = pytest.mark.parametrize("case", RULES, ids=str)
classes = pytest.mark.parametrize("case", CLASSES, ids=str)

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
HALVES = [torch.bfloat16, torch.float16]
all_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
halves = pytest.mark.parametrize("dtype", HALVES, ids=lambda d: str(d).removeprefix("torch."))


@dataclass(frozen=True)
class Wrong:
    """A hyper-parameter that must be refused: by which error, with which message."""

    name: str
    options: Mapping[str, Any]
    error: type[Exception]
    match: str
    as_torch: bool = True  # torch refuses it with the same type

    def __str__(self) -> str:
        return f"{self.name}-" + "-".join(f"{k}={v}" for k, v in self.options.items())


def _wrong_numbers(name: str, key: str, *, torchs: bool = True) -> list[Wrong]:
    found = [Wrong(name, {key: -0.5}, ValueError, rf"(?s)(?=.*{key})(?=.*-0\.5)(?=.*>= 0)", torchs)]
    # torch's SGD takes NaN: `nan < 0` is false
    nan = Wrong(
        name,
        {key: float("nan")},
        ValueError,
        rf"(?s)(?=.*{key})(?=.*nan)(?=.*>= 0)",
        name != "SGD" and torchs,
    )
    return [*found, nan]


WRONG: list[Wrong] = [
    *[w for key in ("lr", "momentum", "weight_decay") for w in _wrong_numbers("SGD", key)],
    *[
        w
        for key in ("lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps")
        for w in _wrong_numbers("Adagrad", key)
    ],
    *[
        w
        for key in ("lr", "alpha", "eps", "weight_decay", "momentum")
        for w in _wrong_numbers("RMSprop", key)
    ],
    *[
        w
        for name in ("Adam", "AdamW")
        for key in ("lr", "eps", "weight_decay")
        for w in _wrong_numbers(name, key)
    ],
    *[
        Wrong(
            name,
            {"betas": betas},
            ValueError,
            rf"(?s)(?=.*betas?)(?=.*{index})(?=.*{bad})(?=.*\[0, 1\))",
        )
        for name in ("Adam", "AdamW")
        for betas, index, bad in (
            ((1.0, 0.999), 0, r"1\.0"),
            ((-0.1, 0.999), 0, r"-0\.1"),
            ((0.9, 1.5), 1, r"1\.5"),
            ((0.9, float("nan")), 1, "nan"),
        )
    ],
    *[
        Wrong(name, {"lr": torch.tensor([0.1, 0.2])}, ValueError, "(?=.*lr)(?=.*1-element)")
        for name in ("SGD", "Adagrad", "RMSprop", "Adam", "AdamW")
    ],
    *[
        w
        for name in ("SGD", "Adagrad", "RMSprop", "Adam", "AdamW")
        for w in (
            *_wrong_numbers(name, "l1_decay", torchs=False),
            Wrong(
                name,
                {"l1_mode": "l1"},
                ValueError,
                "(?s)(?=.*l1_mode)(?=.*'l1')(?=.*proximal)",
                False,
            ),
        )
    ],
    Wrong("SGD", {"nesterov": True}, ValueError, "(?i)nesterov"),
    Wrong("SGD", {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, ValueError, "(?i)nesterov"),
    *[
        Wrong(
            name,
            {"betas": (0, 0.999)},
            ValueError,
            "betas must be either both floats or both Tensors",
        )
        for name in ("Adam", "AdamW")
    ],
    *[
        Wrong(
            name,
            {"fused": True, "foreach": True},
            RuntimeError,
            "(?=.*fused)(?=.*foreach)",
            name != "RMSprop",
        )
        for name in ("SGD", "Adagrad", "RMSprop", "Adam", "AdamW")
    ],
    *[
        Wrong(
            name,
            {"fused": True, "differentiable": True},
            RuntimeError,
            "(?=.*fused)(?=.*differentiable)",
            name != "RMSprop",
        )
        for name in ("SGD", "Adagrad", "RMSprop", "Adam", "AdamW")
    ],
]
wrong = pytest.mark.parametrize("wrong", WRONG, ids=str)
