"""What a step with the library's own options should do: in float64, from formulas; nothing here knows the kernels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tests import reference
from tests.cases import Case

BLOCK = 256
Optimizer = Any

NONNEGATIVE = ("exp_avg_sq", "max_exp_avg_sq", "sum", "square_avg")


def levels(*, nonnegative: bool) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return what the codes without a sign stand for, in units of the scale: 16 levels in every power of two."""
    place = np.arange(256 if nonnegative else 128) + 2
    found: np.ndarray[Any, np.dtype[np.float64]] = np.ldexp(1 + place % 16 / 16, place // 16)
    found -= 1.125
    return found


def scale_of(largest: Any, *, nonnegative: bool) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the scale of a block: its largest element is between 2^7 and 2^8 (2^15 and 2^16) times that."""
    _, power = np.frexp(np.maximum(np.asarray(largest, np.float64), 2.0**-107))
    scale: np.ndarray[Any, np.dtype[np.float64]] = np.ldexp(1.0, power - (16 if nonnegative else 8))
    return scale


def code_step(x: torch.Tensor, largest: Any, *, nonnegative: bool) -> torch.Tensor:
    """Return the distance between the two neighbours of x in the code; not less for a larger `largest`.

    1.125 + |x| / scale keeps 4 digits after the leading one, so this is at most 1/16 of 1.125 * scale + |x|.
    """
    scale = scale_of(np.asarray(largest) * (1 + 1e-5), nonnegative=nonnegative)
    sizes = (x.double().abs().numpy() * (1 + 1e-5)) + 1.125 * scale
    _, power = np.frexp(sizes)
    return torch.from_numpy(np.asarray(np.ldexp(1.0, power - 5))).reshape(x.shape)


def decode(codes: torch.Tensor, scales: torch.Tensor, *, nonnegative: bool) -> torch.Tensor:
    """Return the values of an 8-bit state, as float64.

    Without its sign a code is the upper 13 bits of the float32 1.125 + |x| / scale, counted from those of 1.125.
    """
    strides = codes.stride()
    order = sorted(range(codes.dim()), key=lambda d: -strides[d])  # blocks follow the memory
    flat = codes.permute(order).reshape(-1).numpy().astype(np.uint32)
    digits = flat if nonnegative else flat & 0x7F
    sign = np.where(flat != digits, -1.0, 1.0)
    bits = ((digits + 0x7F2) << 19).astype(np.uint32)
    value = sign * (bits.view(np.float32).astype(np.float64) - 1.125)
    value = value * scales.double().numpy().repeat(BLOCK)[: flat.size]
    there = torch.from_numpy(value).reshape([codes.shape[d] for d in order])
    return there.permute([order.index(d) for d in range(codes.dim())])


def weights(optimizer: Optimizer, p: torch.Tensor) -> torch.Tensor:
    """Return a parameter as float64, its master half added."""
    master = optimizer.state.get(p, {}).get("master")
    if master is None:
        return p.detach().to(torch.float64)
    if master.dtype == torch.float32:
        whole: torch.Tensor = master
    else:
        high = p.detach().view(torch.int16).to(torch.int32) << 16
        whole = (high + master.to(torch.int32)).view(torch.float32)
    return whole.to(torch.float64)


def states(optimizer: Optimizer, p: torch.Tensor) -> dict[str, Any]:
    """Return the state of a parameter in float64, 8-bit states by the names that they have in 32 bits."""
    found: dict[str, Any] = {}
    own = optimizer.state.get(p, {})
    for key, value in own.items():
        if key == "step":
            found[key] = float(value)
        elif key.endswith("_code"):
            name = key.removesuffix("_code")
            scales = own[f"{name}_scale"]
            found[name] = decode(value, scales, nonnegative=name in NONNEGATIVE)
        elif key != "master" and not key.endswith("_scale"):
            found[key] = value.detach().to(torch.float64).clone()
    return found


def state_dtype(group: Mapping[str, Any], p: torch.Tensor) -> torch.dtype:
    """Return what the states of a parameter are stored in; 8-bit ones that are all the same are exact in float32."""
    chosen = group.get("state_dtype")
    if isinstance(chosen, torch.dtype):
        return chosen
    low = p.dtype in (torch.bfloat16, torch.float16)
    wide = chosen == "8bit" or (low and group.get("master_weights"))
    return torch.float32 if wide else p.dtype


@dataclass
class Expected:
    """What the next step should make of one parameter."""

    weight: torch.Tensor
    """Unrounded."""
    size: torch.Tensor
    """Of the terms that the weight is made of."""
    state: dict[str, Any]
    gradient: float
    """The largest that reaches the rule."""


def square_sum(params: Iterable[torch.Tensor]) -> float:
    return math.fsum(
        float(p.grad.to(torch.float64).square().sum()) for p in params if p.grad is not None
    )


def expected_step(
    case: Case, optimizer: Optimizer, *, unscale: float = 1.0
) -> dict[torch.Tensor, Expected]:
    """Return what the next step should make of every parameter with a gradient, in the documented order."""
    groups = optimizer.param_groups
    first = groups[0]
    coefficient = 1.0
    if first.get("max_grad_norm") is not None:
        norm = math.sqrt(square_sum(p for g in groups for p in g["params"])) * unscale
        coefficient = min(1.0, first["max_grad_norm"] / (norm + 1e-6))
    return {
        p: _element_by_element(case, optimizer, group, p, unscale * coefficient)
        for group in groups
        for p in group["params"]
        if p.grad is not None
    }


def _element_by_element(
    case: Case, optimizer: Optimizer, group: Mapping[str, Any], p: torch.Tensor, factor: float
) -> Expected:
    assert p.grad is not None
    g = p.grad.to(torch.float64)
    g = -g if group["maximize"] else g
    g = g * factor
    if group.get("max_grad_value") is not None:
        g = g.clamp(-group["max_grad_value"], group["max_grad_value"])
    state = states(optimizer, p)
    if case.name == "Adagrad" and "sum" not in state:  # the first value, too, is stored
        start = torch.full_like(g, group["initial_accumulator_value"])
        state["sum"] = start.to(state_dtype(group, p)).to(torch.float64)
    hyper = {key: value for key, value in group.items() if key != "params"}
    weight, size = reference.step(
        case.name, {**case.hyper, **hyper, "maximize": False}, weights(optimizer, p), g, state
    )
    if group.get("ema_decay") is not None:
        old = state.get("ema")
        state["ema"] = (
            weight if old is None else old + (1 - group["ema_decay"]) * (weight - old)
        ).clone()
    return Expected(weight, size, state, float(g.abs().max()) if g.numel() else 0.0)
