"""Other people's optimizers: how each is made from torch's options. Nothing is imported before it is used."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from onepass.bench.cases import Configuration

Params = list[torch.nn.Parameter]
Step = Callable[[], object]
Make = Callable[[Configuration, Params], Step]


class NotOffered(Exception):
    """There is no such optimizer, or no such way to do a step."""

    def __init__(self, what: Configuration | str) -> None:
        super().__init__(what if isinstance(what, str) else f"it has no {what.name}")


@dataclass(frozen=True)
class Peer:
    """A package, or one of torch's ways of doing a step."""

    name: str
    make: Make
    module: str = "torch"
    package: str = "torch"
    """As pip knows it."""
    devices: tuple[str, ...] = ("cpu", "cuda")
    compiles: bool = False
    """Needs minutes of compilation: measured only when asked for by name."""
    reduced: Make | None = None
    """Its own way to fewer bits than torch has, where it has one."""

    def installed(self) -> bool:
        """Return whether the package can be found."""
        return importlib.util.find_spec(self.module) is not None


def _load(module: str, name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(importlib.import_module(module), name)


def _torch(**flags: bool) -> Make:
    def make(configuration: Configuration, params: Params) -> Step:
        kind = getattr(torch.optim, configuration.kind)
        if not set(flags) <= set(inspect.signature(kind).parameters):
            raise NotOffered(configuration)
        step: Step = kind(params, **configuration.options, **flags).step
        return step

    return make


def _compiled(configuration: Configuration, params: Params) -> Step:
    step: Step = torch.compile(_torch()(configuration, params))
    return step


def _deepspeed(configuration: Configuration, params: Params) -> Step:
    options = dict(configuration.options)
    if configuration.kind == "Adagrad":
        kind = _load("deepspeed.ops.adagrad", "DeepSpeedCPUAdagrad")
    elif configuration.kind in ("Adam", "AdamW"):
        kind = _load("deepspeed.ops.adam", "DeepSpeedCPUAdam")
        options["adamw_mode"] = configuration.kind == "AdamW"
    else:
        raise NotOffered(configuration)
    step: Step = kind(params, **options).step
    return step


def _apex(configuration: Configuration, params: Params) -> Step:
    options = dict(configuration.options)
    if configuration.kind == "RMSprop":
        raise NotOffered(configuration)
    if configuration.kind in ("Adam", "AdamW"):
        options["adam_w_mode"] = configuration.kind == "AdamW"
    kind = "FusedAdam" if configuration.kind == "AdamW" else f"Fused{configuration.kind}"
    step: Step = _load("apex.optimizers", kind)(params, **options).step
    return step


def _pytorch_optimizer(configuration: Configuration, params: Params) -> Step:
    """Make those of its own that compute the same; its SGD, RMSprop and Adam are torch's classes."""
    options = dict(configuration.options)
    if configuration.kind == "SGD":
        kind = _load("pytorch_optimizer", "SGDW")
    elif configuration.kind in ("Adam", "AdamW"):
        kind = _load("pytorch_optimizer", "AdamC")
        options["weight_decouple"] = configuration.kind == "AdamW"
    else:
        raise NotOffered(configuration)
    step: Step = kind(params, **options).step
    return step


def _optimi(configuration: Configuration, params: Params) -> Step:
    options = dict(configuration.options)
    if configuration.kind not in ("SGD", "Adam", "AdamW"):
        raise NotOffered(configuration)
    if configuration.kind == "SGD":
        options["torch_init"] = True
    else:
        options = {"betas": (0.9, 0.999), "eps": 1e-8, **options}
    step: Step = _load("optimi", configuration.kind)(params, **options).step
    return step


def _bitsandbytes(configuration: Configuration, params: Params) -> Step:
    options = configuration.options
    if configuration.kind == "SGD" and not options.get("momentum"):
        raise NotOffered(configuration)
    if options.get("centered"):
        raise NotOffered(configuration)
    step: Step = _load("bitsandbytes.optim", f"{configuration.kind}32bit")(params, **options).step
    return step


def _torchao(configuration: Configuration, params: Params) -> Step:
    if configuration.kind not in ("Adam", "AdamW"):
        raise NotOffered(configuration)
    options = {"weight_decay": 0.0, **configuration.options}
    step: Step = _load("torchao.optim", "_AdamW")(params, **options).step
    return step


def _bitsandbytes_reduced(configuration: Configuration, params: Params) -> Step:
    """Make that with states in 8 bits; it keeps tensors of fewer than 4096 elements in float32."""
    if configuration.own != {"state_dtype": "8bit"}:
        raise NotOffered(configuration)
    kind = _load("bitsandbytes.optim", f"{configuration.kind}8bit")
    step: Step = kind(params, **configuration.options).step
    return step


def _torchao_reduced(configuration: Configuration, params: Params) -> Step:
    """Make those with states in 8 bits, where a tensor has whole blocks of them, and with stochastic rounding."""
    options = dict(configuration.options)
    if configuration.own == {"state_dtype": "8bit"}:
        name = f"{configuration.kind}8bit"
    elif configuration.own == {"rounding": "stochastic"}:
        name, options["bf16_stochastic_round"] = "_AdamW", True
    else:
        raise NotOffered(configuration)
    step: Step = _load("torchao.optim", name)(params, **options).step
    return step


PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer("torch", _torch()),
        Peer("torch-foreach", _torch(foreach=True)),
        Peer("torch-fused", _torch(fused=True)),
        Peer("torch-compiled", _compiled, compiles=True),
        Peer("deepspeed", _deepspeed, "deepspeed", "deepspeed", ("cpu",)),
        Peer("apex", _apex, "apex", "apex", ("cuda",)),
        Peer("optimi", _optimi, "optimi", "torch-optimi"),
        Peer("pytorch-optimizer", _pytorch_optimizer, "pytorch_optimizer", "pytorch_optimizer"),
        Peer(
            *("bitsandbytes", _bitsandbytes, "bitsandbytes", "bitsandbytes"),
            reduced=_bitsandbytes_reduced,
        ),
        Peer(*("torchao", _torchao, "torchao", "torchao"), compiles=True, reduced=_torchao_reduced),
    )
}


def installed_peers(*, compiling: bool = False, device: str = "cpu") -> list[Peer]:
    """Return the peers that can be imported and run here, without those that compile unless they are asked for."""
    there = [p for p in PEERS.values() if device in p.devices and p.installed()]
    return [p for p in there if compiling or not p.compiles]
