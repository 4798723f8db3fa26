"""The update formulas in float64, from the papers and torch's documentation; nothing here knows the kernels.

`step` does one step of one parameter: it changes `state` (float64 tensors and the number "step") and returns the new
parameter and the size of the terms that went into it, which rounding errors are relative to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

State = dict[str, Any]


@dataclass(frozen=True)
class Signed:
    """A number and the size of the terms it is the sum of: rounding errors are relative to the size."""

    value: torch.Tensor
    size: torch.Tensor

    def __add__(self, other: Signed) -> Signed:
        return Signed(self.value + other.value, self.size + other.size)

    def __mul__(self, factor: float | torch.Tensor) -> Signed:
        return Signed(self.value * factor, self.size * _size(factor))

    def __truediv__(self, divisor: float | torch.Tensor) -> Signed:
        return Signed(self.value / divisor, self.size / _size(divisor))


def _size(x: float | torch.Tensor) -> float | torch.Tensor:
    return x.abs() if isinstance(x, torch.Tensor) else abs(x)


def _exact(x: torch.Tensor) -> Signed:
    return Signed(x, x.abs())


def _kept(state: State, key: str, g: Signed, start: float = 0.0) -> Signed:
    return _exact(state[key]) if key in state else _exact(torch.full_like(g.value, start))


Update = tuple[Signed, float]  # what is subtracted from the parameter, the effective learning rate


def _sgd(g: Signed, h: Mapping[str, Any], state: State) -> Update:
    """Robbins & Monro 1951; momentum as in Sutskever et al. 2013, in the form of torch's documentation."""
    momentum = h.get("momentum", 0.0)
    if momentum == 0:
        return g * h["lr"], h["lr"]
    b = g
    if "momentum_buffer" in state:
        b = _kept(state, "momentum_buffer", g) * momentum + g * (1 - h.get("dampening", 0.0))
    state["momentum_buffer"] = b.value.clone()
    return (g + b * momentum if h.get("nesterov") else b) * h["lr"], h["lr"]


def _adagrad(g: Signed, h: Mapping[str, Any], state: State) -> Update:
    """Duchi, Hazan & Singer 2011, with torch's decay of the learning rate."""
    total = (
        _kept(state, "sum", g, h.get("initial_accumulator_value", 0.0)).value + g.value * g.value
    )
    state["sum"] = total
    rate = h["lr"] / (1 + (state["step"] - 1) * h.get("lr_decay", 0.0))
    return g * rate / (total.sqrt() + h["eps"]), rate


def _rmsprop(g: Signed, h: Mapping[str, Any], state: State) -> Update:
    """Hinton 2012, lecture 6e; centered: Graves 2013, equations 38 to 45."""
    alpha = h["alpha"]
    v = alpha * _kept(state, "square_avg", g).value + (1 - alpha) * g.value * g.value
    state["square_avg"] = v
    condition = torch.ones_like(
        v
    )  # how much the difference of v and mean^2 enlarges relative errors
    if h.get("centered"):
        mean = _kept(state, "grad_avg", g) * alpha + g * (1 - alpha)
        state["grad_avg"] = mean.value
        # a variance, though rounded states may put it below 0; of 8-bit ones a share of v is trusted at least
        least = v / 16 if h.get("state_dtype") == "8bit" else torch.zeros_like(v)
        variance = torch.maximum(v - mean.value * mean.value, least)
        condition = (v + mean.size * mean.size) / variance
        v = variance
    direction = g / (v.sqrt() + h["eps"])
    direction = Signed(direction.value, direction.size * condition)
    if h.get("momentum", 0.0) > 0:
        direction = _kept(state, "momentum_buffer", g) * h["momentum"] + direction
        state["momentum_buffer"] = direction.value
    return direction * h["lr"], h["lr"]


def _adam(g: Signed, h: Mapping[str, Any], state: State) -> Update:
    """Kingma & Ba 2015, algorithm 1; amsgrad: Reddi, Kale & Kumar 2018, in torch's form."""
    beta1, beta2 = (float(b) for b in h["betas"])
    t = state["step"]
    m = _kept(state, "exp_avg", g) * beta1 + g * (1 - beta1)
    v = beta2 * _kept(state, "exp_avg_sq", g).value + (1 - beta2) * g.value * g.value
    state["exp_avg"], state["exp_avg_sq"] = m.value, v
    if h.get("amsgrad"):
        v = state["max_exp_avg_sq"] = torch.maximum(_kept(state, "max_exp_avg_sq", g).value, v)
    corrected = m / (1 - beta1**t)
    return corrected * h["lr"] / (v.sqrt() / math.sqrt(1 - beta2**t) + h["eps"]), h["lr"]


_RULES: dict[str, Callable[[Signed, Mapping[str, Any], State], Update]] = {
    "SGD": _sgd,
    "Adagrad": _adagrad,
    "RMSprop": _rmsprop,
    "Adam": _adam,
    "AdamW": _adam,
}


def step(
    name: str, h: Mapping[str, Any], p: torch.Tensor, grad: torch.Tensor, state: State
) -> tuple[torch.Tensor, torch.Tensor]:
    """Do one step of optimizer `name` with hyper-parameters `h`; see the module."""
    weight, g = _exact(p.to(torch.float64)), _exact(grad.to(torch.float64))
    state["step"] = state.get("step", 0) + 1
    strength, mode = h.get("l1_decay", 0.0), h.get("l1_mode", "proximal")
    decay = float(h.get("weight_decay", 0.0))
    h = {**h, "lr": float(h["lr"])}
    if h.get("maximize"):
        g = g * -1.0
    if mode == "subgradient":
        g = g + _exact(torch.sign(weight.value)) * strength
    if name == "AdamW" or h.get("decoupled_weight_decay"):
        kept = weight * (1 - h["lr"] * decay)
    else:
        kept, g = weight, g + weight * decay
    update, rate = _RULES[name](g, h, state)
    new = kept + update * -1.0
    value, size = new.value, new.size
    if mode == "proximal" and strength:
        value = torch.sign(value) * torch.clamp(value.abs() - rate * strength, min=0)
        size = size + rate * strength
    return value, size
