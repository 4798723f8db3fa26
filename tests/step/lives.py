"""Lives of optimizers: random edits between steps, each step compared with that of a fresh copy and with torch's.

More than 400 lines: actions, both oracles and the runner replay each other's random numbers.
`python -m tests.step.lives --lives 100000` runs many in worker processes; `--seed 17` replays one and says what it does.
"""

from __future__ import annotations

import argparse
import collections
import copy
import ctypes
import io
import json
import math
import mmap
import os
import pickle
import random
import select
import signal
import struct
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import nn

import onepass
from onepass import schedule, transfer
from tests import cases

Optimizer = Any
Random = random.Random
T = TypeVar("T")
SECONDS_OF_A_LIFE = (
    120  # one takes milliseconds, under Valgrind seconds: one that is still running hangs
)

SHAPES: list[tuple[int, ...]] = [
    *[(3,)] * 4,
    *[(2, 3)] * 4,
    (5, 7),
    (2, 3, 2, 2),
    (300,),
    (),
    (0,),
    (1,),
]
DTYPES = [torch.float32] * 4 + [torch.bfloat16] * 2 + [torch.float16, torch.float64]
BESIDE = {
    torch.bfloat16: torch.float32,
    torch.float16: torch.float32,
}  # dtypes of gradients beside the parameter's
VALUES = torch.randn(8192, dtype=torch.float64, generator=torch.Generator().manual_seed(5))

# What is written into groups: torch's own hyper-parameters by class, then the options of ours.
ADAM: dict[str, list[Any]] = {
    "betas": [(0.9, 0.999), (0.5, 0.9), (0.0, 0.9)],
    "eps": [1e-8, 1e-3],
    "weight_decay": [0.0, 0.1],
    "amsgrad": [False, True],
    "maximize": [False, True],
}
TORCHS: dict[str, dict[str, list[Any]]] = {
    "SGD": {
        "momentum": [0.0, 0.5, 0.9],
        "dampening": [0.0, 0.3],
        "weight_decay": [0.0, 0.1],
        "nesterov": [False, True],
        "maximize": [False, True],
    },
    "Adagrad": {
        "lr_decay": [0.0, 0.1],
        "weight_decay": [0.0, 0.1],
        "eps": [1e-8, 1e-3],
        "maximize": [False, True],
    },
    "RMSprop": {
        "alpha": [0.99, 0.9],
        "momentum": [0.0, 0.5, 0.9],
        "centered": [False, True],
        "weight_decay": [0.0, 0.1],
        "maximize": [False, True],
    },
    "Adam": ADAM,
    "AdamW": ADAM,
}
OWN: dict[str, list[Any]] = {
    "l1_decay": [0.0, 0.01],
    "l1_mode": ["proximal", "subgradient"],
    "ema_decay": [None, 0.5, 0.9, schedule.Linear(0.5, 5, final=0.9)],
    "train_from": [0, 0, 1, 3],
    "rounding": ["nearest", "stochastic"],
    "state_dtype": [None, None, torch.float32, torch.bfloat16, "8bit"],
    "master_weights": [False, True],
}
WHOLE: dict[str, list[Any]] = {
    "max_grad_norm": [None, 0.5],
    "max_grad_value": [None, 0.5],
    "skip_nonfinite": [False, True],
    "seed": [0, 7],
}


class Difference(AssertionError):
    """A step was not that of a fresh copy, or not torch's."""


# Tensors ---------------------------------------------------------------------------------------------------------


def pick(random: Random, values: Sequence[T]) -> T:
    """Return one of some values; `choice` of sequences that are no lists, too."""
    return values[random.randrange(len(values))]


def numbers(random: Random, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Return values of the order of 1 in one of many layouts."""
    count = math.prod(shape)
    start = random.randrange(4096)
    flat = VALUES[start : start + count].clone()
    return laid_out(random, flat.reshape(shape).to(dtype))


def laid_out(random: Random, x: torch.Tensor) -> torch.Tensor:
    """Return a copy of a tensor: dense, in another order of its axes, with gaps, or with an offset."""
    how = random.randrange(8)
    if how == 0 and x.dim() > 1:
        return x.transpose(0, 1).contiguous().transpose(0, 1)
    if how == 1 and x.dim() == 4:
        return x.contiguous(memory_format=torch.channels_last)
    if how == 2:
        return torch.stack([x, x], -1)[..., 1]
    if how == 3:
        return torch.cat([x.reshape(-1)[:1].repeat(3), x.reshape(-1)])[-x.numel() or 3 :].view(
            x.shape
        )
    return x.clone()


def bits(x: torch.Tensor) -> bytes:
    """Return the whole storage of a tensor, what lies beside its elements included."""
    storage = x.untyped_storage()
    return ctypes.string_at(storage.data_ptr(), storage.nbytes()) if storage.nbytes() else b""


def same_bits(x: torch.Tensor, y: torch.Tensor) -> bool:
    """Return whether two tensors hold the same numbers to the bit, and nothing beside them was changed."""
    if x.dtype != y.dtype or x.shape != y.shape:
        return False
    if bits(x) == bits(y):
        return x.stride() == y.stride() or bool(torch.equal(x, y)) or bits_of(x) == bits_of(y)
    return x.untyped_storage().nbytes() == x.numel() * x.element_size() and bits_of(x) == bits_of(y)


def bits_of(x: torch.Tensor) -> bytes:
    """Return the elements of a tensor in their order."""
    return bits(x.detach().contiguous().clone())


SCALARS = {float, int, bool, str, type(None), torch.dtype}


def first_difference(x: torch.Tensor, y: Any, error: float = 0.0) -> str:
    """Say where two tensors differ first."""
    if not isinstance(y, torch.Tensor) or x.shape != y.shape:
        return f"{x}, {y}"
    kinds = "" if x.dtype == y.dtype else f" ({x.dtype}, {y.dtype})"
    ours, theirs = (t.detach().reshape(-1).double() for t in (x, y))
    where = (~((ours - theirs).abs() <= error * (1 + theirs.abs()))).nonzero().flatten().tolist()
    if not where:
        return f"other bits{kinds}"
    i = where[0]
    return f"{len(where)} of {x.numel()} elements differ{kinds}, the first is {ours[i]}, not {theirs[i]}"


class Copier:
    """Copies optimizers with their parameters and gradients: to the same storages, strides and offsets."""

    def __init__(self, convert: Callable[[torch.Tensor], torch.Tensor] | None = None) -> None:
        self.known: dict[int, torch.Tensor] = {}
        self.convert = convert

    def tensor(self, x: torch.Tensor) -> torch.Tensor:
        if (twin := self.known.get(id(x))) is not None:
            return twin
        twin = self.convert(x.detach()) if self.convert else self.alike(x)
        if isinstance(x, nn.Parameter):
            twin = nn.Parameter(twin, x.requires_grad)
            self.known[id(x)] = twin
            if x.grad is not None:
                if x.grad.dtype != x.dtype and not self.convert:
                    twin.grad_dtype = None
                twin.grad = self.tensor(x.grad)
            return twin
        self.known[id(x)] = twin
        return twin

    def alike(self, x: torch.Tensor) -> torch.Tensor:
        if x.is_contiguous() and x.untyped_storage().nbytes() == x.numel() * x.element_size():
            return x.detach().clone()
        storage = x.untyped_storage().clone()  # type: ignore[no-untyped-call]
        return torch.empty(0, dtype=x.dtype).set_(storage, x.storage_offset(), x.shape, x.stride())

    def __call__(self, value: Any) -> Any:
        """Copy what the state of an optimizer is made of."""
        kind = type(value)
        if kind is dict:
            return self.items({}, value)
        if kind is collections.defaultdict:
            return self.items(collections.defaultdict(value.default_factory), value)
        if kind is list:
            return [self(its) for its in value]
        if isinstance(value, torch.Tensor):
            return self.tensor(value)
        if kind is tuple:
            return tuple(self(its) for its in value)
        return value  # numbers, names, schedules: nothing that a step changes

    def items(self, twin: dict[Any, Any], value: dict[Any, Any]) -> dict[Any, Any]:
        for key, its in value.items():
            own = key if type(key) is str else self(key)
            twin[own] = its if type(its) in SCALARS else self(its)
        return twin

    def optimizer(self, optimizer: Optimizer) -> Optimizer:
        """Copy as `copy.deepcopy` does, gradients included: it starts without any memory."""
        kind: Any = type(optimizer)
        twin = kind.__new__(kind)
        twin.__setstate__(self(optimizer.__getstate__()))
        return twin


# Actions ---------------------------------------------------------------------------------------------------------


@dataclass
class Life:
    """An optimizer, all parameters that it has ever had, and what has been done to them."""

    optimizer: Optimizer
    params: list[nn.Parameter]
    case: cases.Case
    torch_only: bool
    unwatched: bool = (
        False  # copies would take the memory that was freed: so that what dangles is not hidden
    )
    log: list[str] = field(default_factory=list)
    steps: int = 0
    refused: int = 0
    compared: int = 0  # with torch
    may_raise: bool = False  # as the last step did

    @property
    def groups(self) -> list[dict[str, Any]]:
        groups: list[dict[str, Any]] = self.optimizer.param_groups
        return groups

    def spare(self) -> list[nn.Parameter]:
        """Return the parameters that are in no group."""
        inside = {id(p) for group in self.groups for p in group["params"]}
        return [p for p in self.params if id(p) not in inside]

    def states(self) -> list[dict[str, Any]]:
        return [state for state in self.optimizer.state.values() if state]

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield all tensors with names."""
        for i, p in enumerate(self.params):
            yield f"parameter {i}", p
            if p.grad is not None:
                yield f"gradient {i}", p.grad
            for key, value in self.optimizer.state.get(p, {}).items():
                if isinstance(value, torch.Tensor):
                    yield f"{key} of parameter {i}", value


Action = Callable[[Life, Random], "str | None"]
ACTIONS: dict[str, Action] = {}
WEIGHTS: list[int] = []


def action(weight: int) -> Callable[[Action], Action]:
    """Take a function into the list of what may happen in a life."""

    def enter(function: Action) -> Action:
        ACTIONS[function.__name__] = function
        WEIGHTS.append(weight)
        return function

    return enter


def new_parameter(random: Random, shape: tuple[int, ...] | None = None) -> nn.Parameter:
    shape = pick(random, SHAPES) if shape is None else shape
    return nn.Parameter(numbers(random, shape, pick(random, DTYPES)))


def begin(random: Random) -> Life:
    """Make an optimizer with some parameters in some groups, perhaps with options of ours."""
    case = pick(random, cases.CASES)
    torch_only = random.random() < 0.4
    params = [new_parameter(random)]
    for _ in range(random.randrange(4)):
        alike = random.random() < 0.6
        params.append(new_parameter(random, tuple(params[0].shape) if alike else None))
    options: dict[str, Any] = {}
    if not torch_only:
        for values in (OWN, WHOLE):
            for name in random.sample(sorted(values), random.randrange(3)):
                options[name] = pick(random, values[name])
        if random.random() < 0.15:
            options["lr"] = schedule.Exponential(0.25, gamma=0.5).warmup(3)
    cuts = sorted(random.randrange(len(params)) for _ in range(random.randrange(3)))
    parts = [params[a:b] for a, b in zip([0, *cuts], [*cuts, len(params)], strict=True)]
    optimizer = case.ours([{"params": part} for part in parts if part], **options)
    about = f"{case}, {options}, {[[(tuple(p.shape), p.dtype) for p in part] for part in parts]}"
    return Life(optimizer, params, case, torch_only, random.random() < 0.2, [about])


def give_gradient(random: Random, p: nn.Parameter) -> None:
    kind = random.randrange(12)
    dtype = p.dtype
    if kind == 0 and dtype in BESIDE and hasattr(p, "grad_dtype"):
        p.grad = None
        p.grad_dtype = None
        dtype = BESIDE[dtype]
    grad = numbers(random, tuple(p.shape), dtype)
    if kind == 1:
        grad = numbers(random, (), dtype).expand(p.shape)
    p.grad = grad


@action(20)
def step(life: Life, random: Random) -> str:
    """Some steps, with the same gradients or new ones, some of which are missing."""
    count = random.randrange(1, 4)
    how = pick(random, ["new gradients", "old gradients", "some gradients", "some gradients"])
    for number in range(count):
        for p in life.params:
            if how == "some gradients" and random.random() < 0.4:
                p.grad = None
            elif how != "old gradients" or (
                p.grad is None and not number and random.random() < 0.3
            ):
                give_gradient(random, p)
        checked_step(life)
    return f"{count} times, {how}"


@action(1)
def steps_to_begin_with(life: Life, random: Random) -> None:
    """Steps that are all alike: what can be remembered is remembered then."""
    for p in life.params:
        give_gradient(random, p)
    for _ in range(2):
        checked_step(life)


@action(2)
def step_in_other_ways(life: Life, random: Random) -> str:
    """Hooks, closures, a scaler's numbers, another number of threads."""
    for p in life.params:
        if random.random() < 0.8:
            give_gradient(random, p)
    how = pick(random, ["hook", "closure", "scaled", "skipped", "threads", "nonfinite"])
    if how == "hook":
        handle = life.optimizer.register_step_post_hook(lambda *_: None)
        checked_step(life)
        handle.remove()
    elif how == "closure":
        checked_step(life, closure=lambda: 2.0)
    elif how in ("scaled", "skipped"):
        found = torch.tensor(1.0 if how == "skipped" else 0.0)
        checked_step(life, grad_scale=torch.tensor(2.0), found_inf=found)
    elif how == "threads":
        threads = torch.get_num_threads()
        torch.set_num_threads(random.randrange(1, 4))
        checked_step(life)
        torch.set_num_threads(threads)
    else:
        for p in life.params[:1]:
            if (
                p.grad is not None
                and p.numel()
                and life.groups
                and life.groups[0].get("skip_nonfinite")
            ):
                p.grad = torch.full_like(p.grad, math.inf)
        checked_step(life)
    return how


@action(4)
def pop_parameter(life: Life, random: Random) -> str | None:
    group = pick(random, life.groups)
    if not group["params"]:
        return None
    i = random.randrange(len(group["params"]))
    p = group["params"].pop(i)
    if random.random() < 0.7 or len(life.params) == 1:
        return str(i)
    life.optimizer.state.pop(p, None)  # and nothing refers to it any more
    del life.params[index_of(life, p)]
    return f"{i} for good"


@action(5)
def insert_parameter(life: Life, random: Random) -> str:
    spare = life.spare()
    if spare and random.random() < 0.7:
        p = pick(random, spare)
    else:
        p = new_parameter(random, tuple(life.params[0].shape) if random.random() < 0.7 else None)
        life.params.append(p)
    group = pick(random, life.groups)
    i = random.randrange(len(group["params"]) + 1)
    group["params"].insert(i, p)
    if (
        life.case.name == "Adagrad" and random.random() < 0.5
    ):  # torch makes its states with the parameters
        life.optimizer.state[p] = {"step": torch.tensor(0.0), "sum": torch.zeros_like(p)}
    return f"{i}{'' if p.grad is None else ' with a gradient'}"


@action(5)
def replace_parameter(life: Life, random: Random) -> str | None:
    """Put another one in a parameter's place, as who replaces a layer does."""
    group = pick(random, life.groups)
    if not group["params"]:
        return None
    i = random.randrange(len(group["params"]))
    old = group["params"][i]
    spare = life.spare()
    if spare and random.random() < 0.5:
        p = pick(random, spare)
    else:
        p = new_parameter(random, tuple(old.shape) if random.random() < 0.8 else None)
        if random.random() < 0.6:
            p.data = p.data.to(old.dtype)
        life.params.append(p)
    group["params"][i] = p
    if random.random() < 0.5:
        return f"{i}, the old one is kept"
    life.optimizer.state.pop(old, None)
    del life.params[index_of(life, old)]
    return f"{i}, the old one is gone"


@action(5)
def reorder_parameters(life: Life, random: Random) -> str:
    groups = life.groups
    how = pick(random, ["reverse", "shuffle", "new list", "move", "exchange lists"])
    group = pick(random, groups)
    if how == "reverse":
        group["params"].reverse()
    elif how == "shuffle":
        random.shuffle(group["params"])
    elif how == "new list":
        group["params"] = list(group["params"])
    elif how == "move" and group["params"]:
        pick(random, groups)["params"].insert(0, group["params"].pop())
    elif how == "exchange lists":
        other = pick(random, groups)
        group["params"], other["params"] = other["params"], group["params"]
    return how


@action(3)
def edit_groups(life: Life, random: Random) -> str:
    groups = life.groups
    how = pick(random, ["reverse", "pop", "copy", "copies in a new list", "add", "foreign key"])
    if how == "reverse":
        groups.reverse()
    elif how == "pop" and len(groups) > 1:
        gone = groups.pop(random.randrange(len(groups)))["params"]
        if random.random() < 0.5:
            for p in gone:
                life.optimizer.state.pop(p, None)
    elif how == "copy":
        i = random.randrange(len(groups))
        groups[i] = dict(groups[i])
    elif how == "copies in a new list":
        life.optimizer.param_groups = [{**g, "params": list(g["params"])} for g in groups]
    elif how == "add":
        spare = life.spare() or [new_parameter(random)]
        life.params += [p for p in spare if all(p is not q for q in life.params)]
        life.optimizer.add_param_group({"params": spare[:1]})
    elif how == "foreign key":
        pick(random, groups)["note"] = ["anything"]
    return how


@action(4)
def lose_gradients(life: Life, random: Random) -> None:
    for p in life.params:
        if random.random() < 0.5:
            p.grad = None


@action(3)
def exchange_data(life: Life, random: Random) -> str:
    """What `p.data =`, `module.to` and `swap_tensors` do."""
    p = pick(random, life.params)
    how = pick(random, ["data", "dtype", "layout", "swap_tensors"])
    if how == "data":
        p.data = numbers(random, tuple(p.shape), p.dtype)
    elif how == "dtype":
        p.grad = None
        p.data = p.data.to(pick(random, DTYPES))
        if hasattr(p, "grad_dtype"):
            p.grad_dtype = p.dtype
    elif how == "layout":
        p.data = laid_out(random, p.data)
    else:
        p.grad = None
        other = nn.Parameter(numbers(random, tuple(p.shape), p.dtype))
        try:
            torch.utils.swap_tensors(p, other)  # type: ignore[no-untyped-call]
        except RuntimeError:  # something else refers to one of them
            return "nothing"
    return f"{how} of parameter {index_of(life, p)}"


def index_of(life: Life, p: nn.Parameter) -> int:
    return next(i for i, q in enumerate(life.params) if p is q)


@action(3)
def exchange_state(life: Life, random: Random) -> str:
    state = life.optimizer.state
    p = pick(random, life.params)
    how = pick(
        random, ["pop", "swap", "swap", "copy", "other order", "whole copy", "whole other order"]
    )
    if how == "pop":
        state.pop(p, None)
    elif how == "swap":
        others = [
            q for q in life.params if q is not p and q.shape == p.shape and q.dtype == p.dtype
        ]
        if others and p in state and (q := pick(random, others)) in state:
            state[p], state[q] = state[q], state[p]
    elif how == "copy" and p in state:
        state[p] = dict(state[p])
    elif how == "other order" and p in state:
        state[p] = dict(reversed(state[p].items()))
    elif how == "whole copy":
        life.optimizer.state = collections.defaultdict(dict, state)
    elif how == "whole other order":
        life.optimizer.state = collections.defaultdict(dict, reversed(state.items()))
    return f"{how}, parameter {index_of(life, p)}"


@action(3)
def exchange_state_tensors(life: Life, random: Random) -> str | None:
    states = life.states()
    if not states:
        return None
    state = pick(random, states)
    how = pick(random, ["clone", "layout", "dtype", "reinsert", "foreign key", "swap_tensors"])
    for key, value in list(state.items()):
        if not isinstance(value, torch.Tensor) or random.random() < 0.3:
            continue
        if how == "clone":
            state[key] = value.clone()
        elif how == "layout" and value.dim():
            state[key] = laid_out(random, value)
        elif how == "dtype" and value.dim() and value.dtype in (torch.float32, torch.bfloat16):
            state[key] = value.to(pick(random, [torch.float32, torch.bfloat16, torch.float64]))
        elif how == "reinsert":
            state[key] = state.pop(key)
        elif how == "foreign key":
            state["note"] = "anything"
        elif how == "swap_tensors":
            torch.utils.swap_tensors(value, value.clone())  # type: ignore[no-untyped-call]
    return how


@action(2)
def round_trip(life: Life, random: Random) -> str:
    """Checkpoints and copies; the lists may have been edited so that torch cannot load what it has saved."""
    how = pick(random, ["state_dict", "deepcopy of state_dict", "deepcopy", "pickle"])
    optimizer = life.optimizer
    applied = optimizer.steps_applied
    if how in ("state_dict", "deepcopy of state_dict"):
        try:
            saved = optimizer.state_dict()
            optimizer.load_state_dict(copy.deepcopy(saved) if how.startswith("deep") else saved)
        except (ValueError, KeyError, RuntimeError) as error:
            return f"{how}: {error}"
        return how
    if how == "deepcopy":
        life.optimizer, life.params = copy.deepcopy((optimizer, life.params))
    else:
        file = io.BytesIO()
        pickle.dump((optimizer, life.params), file)
        file.seek(0)
        life.optimizer, life.params = pickle.load(file)
    life.optimizer.steps_applied = applied
    return how


@action(3)
def set_torchs_option(life: Life, random: Random) -> str:
    group = pick(random, life.groups)
    own = TORCHS[life.case.name]
    name = pick(random, sorted(own))
    value = pick(random, own[name])
    if name == "nesterov" and (not group["momentum"] or group["dampening"]):
        value = False
    group[name] = value
    if life.case.name == "SGD" and (not group["momentum"] or group["dampening"]):
        group["nesterov"] = False
    return f"{name} = {value}"


@action(3)
def set_lr(life: Life, random: Random) -> str:
    for group in life.groups:
        if random.random() < 0.7:
            number = pick(random, [0.01, 0.05, 0.3, 1])
            kind = random.randrange(10)
            if kind == 0:
                group["lr"] = torch.tensor(float(number))
            elif kind == 1 and not life.torch_only:
                s = schedule.Exponential(0.25, gamma=0.5)
                group["lr"] = pick(random, [s, s * schedule.Plateau(factor=0.5, patience=0)])
            else:
                group["lr"] = number
    return str([group["lr"] for group in life.groups])


@action(2)
def observe(life: Life, random: Random) -> str:
    metric = pick(random, [0.5, 1.0, math.nan])
    try:
        life.optimizer.observe(metric)
    except RuntimeError as error:  # there is no plateau
        return str(error)
    return str(metric)


@action(5)
def set_own_option(life: Life, random: Random) -> str | None:
    if life.torch_only:
        return None
    name = pick(random, sorted(OWN))
    value = pick(random, OWN[name])
    groups = life.groups if random.random() < 0.3 else [pick(random, life.groups)]
    for group in groups:
        if random.random() < 0.1:
            group.pop(name, None)
        else:
            group[name] = value
    return f"{name} = {value} in {len(groups)} of {len(life.groups)}"


@action(2)
def set_whole_option(life: Life, random: Random) -> str | None:
    if life.torch_only:
        return None
    name = pick(random, sorted(WHOLE))
    value = pick(random, WHOLE[name])
    for group in life.groups:
        group[name] = value
    life.optimizer.defaults[name] = value
    return f"{name} = {value}"


@action(1)
def set_anchors(life: Life, random: Random) -> str | None:
    if life.torch_only:
        return None
    strength = pick(random, [0.0, 0.1])
    try:
        transfer.anchor_decay(life.optimizer, strength)
    except (ValueError, RuntimeError) as error:
        return str(error)
    return str(strength)


# Steps, checked --------------------------------------------------------------------------------------------------


def checked_step(
    life: Life, closure: Callable[[], float] | None = None, **scaler: torch.Tensor
) -> None:
    """Step, and compare with the step of a fresh copy and with that of torch."""
    life.steps += 1
    if life.unwatched:
        life.optimizer.__dict__.update(scaler)
        failure(life.optimizer, closure)
        for name in scaler:
            del life.optimizer.__dict__[name]
        return
    applied = life.optimizer.steps_applied
    copier = Copier()
    twins = [copier.tensor(p) for p in life.params]
    twin = copier.optimizer(life.optimizer)
    look = life.may_raise or life.steps % 4 == 0
    before = {name: bits(x) for name, x in life.tensors()} if look else {}
    expected = torchs_step(life) if life.torch_only and not scaler and closure is None else None
    life.optimizer.__dict__.update(scaler)
    twin.__dict__.update(scaler)
    error = failure(life.optimizer, closure)
    its_error = failure(twin, closure)
    for name in scaler:
        del life.optimizer.__dict__[name], twin.__dict__[name]
    if error != its_error:
        message = f"raises {error}, a copy {its_error}"
        raise Difference(message)
    compare(life, twin, twins, new_report=life.optimizer.steps_applied != applied)
    after = {name: bits(x) for name, x in life.tensors()} if look else {}
    life.may_raise = error is not None
    for name, value in before.items():
        if (error is not None or name.startswith("gradient")) and after.get(name) != value:
            message = f"{name} is not what it was after {error or 'the step'}"
            raise Difference(message)
    if error is not None:
        life.refused += 1
        life.log.append(f"    {error}")
    elif expected is not None:
        life.compared += 1
        compare_with_torch(life, *expected)


def failure(optimizer: Optimizer, closure: Callable[[], float] | None) -> str | None:
    """Step and return the exception that it raised, if any."""
    try:
        optimizer.step(closure) if closure else optimizer.step()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def compare(life: Life, twin: Optimizer, twins: list[torch.Tensor], *, new_report: bool) -> None:
    """Raise where a step has not left the same parameters, gradients, states, groups and report as that of a copy."""
    ours = life.optimizer
    for i, (p, q) in enumerate(zip(life.params, twins, strict=True)):
        if not same_bits(p, q):
            message = f"parameter {i}: {first_difference(p, q)} of a copy"
            raise Difference(message)
        state, its = ours.state.get(p, {}), twin.state.get(q, {})
        if state.keys() != its.keys():
            message = f"states of parameter {i}: {sorted(state)}, of a copy {sorted(its)}"
            raise Difference(message)
        for key, value in state.items():
            other = its[key]
            if isinstance(value, torch.Tensor):
                if not isinstance(other, torch.Tensor) or not same_bits(value, other):
                    message = f"{key} of parameter {i}: {first_difference(value, other)} of a copy"
                    raise Difference(message)
            elif value != other:
                message = f"{key} of parameter {i}: {value}, of a copy {other}"
                raise Difference(message)
    for g, (group, its_group) in enumerate(zip(ours.param_groups, twin.param_groups, strict=True)):
        for name in group if group.keys() == its_group.keys() else group.keys() | its_group.keys():
            value, other = group.get(name), its_group.get(name)
            if name != "params" and value is not other and value != other:
                message = f"{name} of group {g}: {value}, of a copy {other}"
                raise Difference(message)
    if ours.steps_applied != twin.steps_applied:
        message = f"{ours.steps_applied} steps applied, by a copy {twin.steps_applied}"
        raise Difference(message)
    done, its_done = (
        (r.applied, r.grad_norm, r.clip_coefficient, r.nonfinite)
        for r in (ours.report, twin.report)
    )
    if new_report and repr(done) != repr(its_done):  # NaN is NaN here
        message = f"report {done}, of a copy {its_done}"
        raise Difference(message)


TORCHS_KEYS = {
    "step", "momentum_buffer", "sum", "square_avg", "grad_avg", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "note"
}  # fmt: skip


def torchs_step(life: Life) -> tuple[Optimizer, list[torch.Tensor]] | None:
    """Return what torch's for-loop makes of the same optimizer in double, or None where it cannot say."""
    defaults = {
        **{name: values[0] for name, values in {**OWN, **WHOLE}.items()},
        "anchor_decay": 0.0,
    }
    for group in life.groups:
        if any(group.get(name, value) != value for name, value in defaults.items()):
            return None
        if "schedules" in group or isinstance(group["lr"], schedule.Schedule):
            return None
    if not all(state.keys() <= TORCHS_KEYS for state in life.states()):
        return None
    copier = Copier(lambda x: x.to(torch.float64, copy=True))
    twins = [copier.tensor(p) for p in life.params]
    reference = life.case.torch_kind.__new__(life.case.torch_kind)
    state = copier(life.optimizer.__getstate__())
    state["param_groups"] = [{**g, "foreach": False, "fused": None} for g in state["param_groups"]]
    reference.__setstate__(state)
    try:
        reference.step()
    except Exception:  # it cannot begin with a state later
        return None
    return reference, twins


def tolerance(*dtypes: torch.dtype) -> float:
    """Return how far a number may be from torch's in double: a few roundings of the coarsest type in the step."""
    eps = max(torch.finfo(dtype).eps for dtype in dtypes)
    return 64 * eps if eps < 1e-5 else 2 * eps


def compare_with_torch(life: Life, reference: Optimizer, twins: list[torch.Tensor]) -> None:
    loose = (
        100 if any(group.get("centered") for group in life.groups) else 1
    )  # the variance cancels
    found: dict[float, list[tuple[str, torch.Tensor, torch.Tensor]]] = {}
    for i, (p, q) in enumerate(zip(life.params, twins, strict=True)):
        state, its = life.optimizer.state.get(p, {}), reference.state.get(q, {})
        compute = torch.float64 if p.dtype == torch.float64 else torch.float32
        pairs = [(f"parameter {i}", p.detach(), q.detach())]
        for key, value in its.items():
            if isinstance(value, torch.Tensor):
                if key not in state:
                    message = f"{key} of parameter {i} is missing, torch has {value}"
                    raise Difference(message)
                pairs.append((f"{key} of parameter {i}", state[key], value))
        for name, x, y in pairs:
            found.setdefault(loose * tolerance(x.dtype, compute), []).append((name, x, y))
    for error, all_pairs in found.items():
        ours = torch.cat([x.reshape(-1).double() for _, x, _ in all_pairs])
        theirs = torch.cat([y.reshape(-1).double() for _, _, y in all_pairs])
        far = (ours - theirs).abs() > error * (1 + theirs.abs())  # never of NaN: no matter of ours
        if bool(far.any()):
            name, x, y = max(
                all_pairs,
                key=lambda pair: (pair[1] - pair[2]).abs().max() if pair[1].numel() else 0,
            )
            message = f"{name}: {first_difference(x, y, error)} of torch"
            raise Difference(message)


# Lives -----------------------------------------------------------------------------------------------------------


def live(seed: int) -> Life:
    """Live the life of a number; a `Difference` tells what had happened in it."""
    random = Random(seed)
    life = begin(random)
    names = list(ACTIONS)
    if random.random() < 0.7:
        act(life, "steps_to_begin_with", random)
    for _ in range(random.randrange(3, 13)):
        act(life, random.choices(names, WEIGHTS)[0], random)
    life.unwatched = False
    act(life, "step", random)
    return life


def act(life: Life, name: str, random: Random) -> None:
    life.log.append(name)
    at = len(life.log) - 1
    try:
        detail = ACTIONS[name](life, random)
    except Exception as error:
        text = "\n".join([*life.log, f"    step {life.steps}: {type(error).__name__}: {error}"])
        raise Difference(text) from error
    if detail:
        life.log[at] += f": {detail}"


@dataclass
class Tally:
    """What became of many lives."""

    lives: int = 0
    steps: int = 0
    refused: int = 0
    compared: int = 0
    wrong: dict[int, str] = field(default_factory=dict)
    crashed: dict[int, int] = field(default_factory=dict)

    def __str__(self) -> str:
        signals = [signal.Signals(number).name for number in self.crashed.values() if number > 0]
        return (
            f"{self.lives} lives, {self.steps} steps ({self.compared} compared with torch, {self.refused} refused): "
            f"{len(self.wrong)} wrong, {len(self.crashed)} crashed"
            f"{dict(collections.Counter(signals)) if signals else ''}"
        )


class Worker:
    """A forked process that lives some lives; its parent knows which one it is at when it crashes."""

    def __init__(self, seeds: range, until: float) -> None:
        self.seeds = seeds
        self.until = until
        self.place = mmap.mmap(-1, 8)
        self.rest = b""
        self.start(seeds.start)

    def start(self, first: int) -> None:
        self.pipe, write = os.pipe()
        sys.stdout.flush()
        self.process = os.fork()
        if self.process == 0:
            code = 1
            try:
                os.close(self.pipe)
                self.work(range(first, self.seeds.stop, self.seeds.step), write)
                code = 0
            finally:
                os._exit(code)
        os.close(write)

    def work(self, seeds: range, pipe: int) -> None:
        torch.set_num_threads(1)
        warnings.simplefilter("ignore")
        for seed in seeds:
            if time.monotonic() > self.until:
                return
            self.place[:] = struct.pack("q", seed)
            signal.alarm(SECONDS_OF_A_LIFE)
            wrong, life = None, None
            try:
                life = live(seed)
            except Difference as error:
                wrong = str(error)
            counts = (life.steps, life.refused, life.compared) if life else (0, 0, 0)
            line = json.dumps([seed, wrong, *counts])
            os.write(pipe, line.encode() + b"\n")

    def read(self, tally: Tally) -> bool:
        """Take in what the worker says; return whether it is at its end."""
        data = os.read(self.pipe, 1 << 16)
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            seed, wrong, steps, refused, compared = json.loads(line)
            tally.lives += 1
            tally.steps += steps
            tally.refused += refused
            tally.compared += compared
            if wrong is not None:
                tally.wrong[seed] = wrong
        if data:
            return False
        os.close(self.pipe)
        code = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        if code == 0:
            return True
        (seed,) = struct.unpack("q", self.place[:])
        self.rest = b""
        tally.lives += 1
        tally.crashed[seed] = -code
        if seed + self.seeds.step >= self.seeds.stop:
            return True
        self.start(seed + self.seeds.step)
        return False


def run(seeds: range, jobs: int = 1, minutes: float = math.inf) -> Tally:
    """Live many lives in worker processes."""
    tally = Tally()
    until = time.monotonic() + 60 * minutes
    workers = {}
    for first in range(min(jobs, len(seeds))):
        worker = Worker(seeds[first::jobs], until)
        workers[worker] = worker.pipe
    while workers:
        ready, _, _ = select.select(list(workers.values()), [], [])
        for worker in [w for w, pipe in workers.items() if pipe in ready]:
            if worker.read(tally):
                del workers[worker]
            else:
                workers[worker] = worker.pipe
    return tally


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--lives", type=int, help="how many (default: 10000, or as many as --minutes allows)"
    )
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="replay this life in this process")
    parser.add_argument(
        "--show", type=int, default=3, help="how many of the wrong lives to tell in full"
    )
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if asked.seed is not None:
        warnings.simplefilter("ignore")
        try:
            print("\n".join(live(asked.seed).log), "\nright", sep="")
        except Difference as error:
            print(error, "\nWRONG", sep="")
            return 1
        return 0
    many = 10_000 if math.isinf(asked.minutes) else 10**9
    lives = asked.lives or many
    began = time.perf_counter()
    tally = run(range(asked.first, asked.first + lives), asked.jobs, asked.minutes)
    seconds = time.perf_counter() - began
    for seed, text in sorted(tally.wrong.items())[: asked.show]:
        print(f"life {seed} is wrong:\n{text}\n")
    print(f"{tally}; {tally.lives / seconds:.0f} lives/s")
    for what, seeds in (("wrong", sorted(tally.wrong)), ("crashed", sorted(tally.crashed))):
        if seeds:
            more = " ..." if len(seeds) > 20 else ""
            print(
                f"{what}: {' '.join(map(str, seeds[:20]))}{more}; replay one by `python -m tests.step.lives --seed`"
            )
    if tally.crashed:
        print(
            "a crash may need the memory of the lives before it: --first, --lives and --jobs as they were"
        )
    return 1 if tally.wrong or tally.crashed else 0


if __name__ == "__main__":
    sys.exit(main())
