"""Schedules for every option of an optimizer, and what they stand for."""

from __future__ import annotations

import io
from typing import Any

import torch

from onepass.schedule import Constant, Cosine, Linear, MultiStep, Schedule, Step
from tests.cases import Case

SHAPES = [(5, 7), (70,), ()]
LR: Any = Cosine(0.05, 6, final=0.001).warmup(
    2
)  # annotations of torch's arguments know no schedules
DECAY: Schedule = Linear(0.1, 5, final=0.01)
L1: Schedule = Step(0.02, 2, gamma=0.5)
MOMENTUM: Schedule = MultiStep(0.5, [1, 3], gamma=1.2)
BETA1: Schedule = Linear(0.5, 4, final=0.9)
BETA2: Schedule = Constant(0.9).then(Constant(0.99), at=2)

Options = dict[str, Any]


def scheduled(case: Case) -> Options:
    """Return a schedule for everything that may be one."""
    found: Options = {"lr": LR, "weight_decay": DECAY, "l1_decay": L1}
    if case.hyper.get("momentum"):
        found["momentum"] = MOMENTUM
    if "betas" in case.hyper:
        found["betas"] = (BETA1, BETA2)
    return found


def at(value: Any, t: int) -> Any:
    """Return the number that a schedule stands for."""
    if isinstance(value, tuple):
        return tuple(at(v, t) for v in value)
    return value(t) if isinstance(value, Schedule) else value


def numbers(group: dict[str, Any], options: Options) -> Options:
    return {name: group[name] for name in options}


def through_a_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)
