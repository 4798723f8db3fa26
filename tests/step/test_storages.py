"""Storages of every size: one that is too small for its tensor is an error before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from onepass import transfer
from tests import cases, tolerances
from tests.cases import Case
from tests.helpers import EMULATED, gradients, parameters, twin
from tests.step.lives import Copier, bits

pytestmark = pytest.mark.skipif(EMULATED, reason="a device keeps its own copies of what it reads")

NAME = r"parameter 1 of group 0"
SMALL = [(67,), (5, 13), (7,)]
LARGE = [(8192,)] * 12 + [(3, 70_000)] * 3


def with_options(name: str, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    return pytest.param(cases.BY_ID[name], dtype, options, id=f"{name}-{'-'.join(options)}")


KINDS = [
    *[with_options(case.id) for case in cases.RULES],
    with_options("adamw", ema_decay=0.9),
    with_options("adamw", master_weights=True, dtype=torch.bfloat16),
    with_options("adamw", master_weights=True, dtype=torch.float16),
    with_options("adamw", state_dtype="8bit"),
    with_options("adamw", state_dtype=torch.bfloat16),
    with_options("sgd-momentum", state_dtype="8bit", dtype=torch.bfloat16, ema_decay=0.5),
    with_options("rmsprop-centered-momentum", dtype=torch.float64),
]
kinds = pytest.mark.parametrize(("case", "dtype", "options"), KINDS)
Layout = Callable[[torch.Tensor], torch.Tensor]


def dense(x: torch.Tensor) -> torch.Tensor:
    return x


def sliced(x: torch.Tensor) -> torch.Tensor:
    """Lay out every second number of a longer storage, from the third on."""
    wide = torch.zeros(*x.shape[:-1], 2 * x.shape[-1] + 3, dtype=x.dtype)[..., 3::2]
    return wide.copy_(x)


LAYOUTS = {"dense": dense, "sliced": sliced}
layouts = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())


def needed(x: torch.Tensor) -> int:
    """Return the bytes of its storage that a tensor reaches."""
    last = sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    return int(x.storage_offset() + last + 1) * x.element_size() if x.numel() else 0


def too_small(x: torch.Tensor) -> list[int]:
    enough = needed(x)
    return sorted({n for n in (0, 1, 64, enough // 2, enough - 1) if n < enough})


def resize(x: torch.Tensor, size: int) -> None:
    x.untyped_storage().resize_(size)


def begin(
    case: Case, dtype: torch.dtype, options: Any, shapes: Any, steps: int, layout: Layout = dense
) -> tuple[list[nn.Parameter], Any]:
    """Return parameters with gradients, and an optimizer that has done some steps."""
    torch.manual_seed(1)
    params = [nn.Parameter(layout(p.detach())) for p in parameters(shapes, dtype)]
    optimizer = case.ours(params, **options)
    for _ in range(steps):
        gradients(params)
        optimizer.step()
    for p in params:
        for key, value in optimizer.state.get(p, {}).items():
            if value.dim():
                optimizer.state[p][key] = layout(value)
    gradients(params)
    for p in params:
        assert p.grad is not None
        p.grad = layout(p.grad)
    return params, optimizer


def operands(params: list[nn.Parameter], optimizer: Any, i: int) -> dict[str, torch.Tensor]:
    """Return all tensors that belong to a parameter."""
    p = params[i]
    assert p.grad is not None
    return {"parameter": p, "gradient": p.grad, **optimizer.state.get(p, {})}


def everything(params: list[nn.Parameter], optimizer: Any) -> Iterator[bytes]:
    for i in range(len(params)):
        for x in operands(params, optimizer, i).values():
            yield bits(x)


def refuses(params: list[nn.Parameter], optimizer: Any, name: str, size: int) -> None:
    """Assert that a step with a storage of this size is refused and changes nothing."""
    resize(operands(params, optimizer, 1)[name], size)
    before = list(everything(params, optimizer))
    for _ in range(2):
        with pytest.raises(RuntimeError, match=NAME):
            optimizer.step()
        assert list(everything(params, optimizer)) == before, (name, size)


@layouts
@kinds
def test_first_step(case: Case, dtype: torch.dtype, options: Any, layout: Layout) -> None:
    params, optimizer = begin(case, dtype, options, SMALL, 0, layout)
    applied = optimizer.steps_applied
    for name in ("parameter", "gradient"):
        for size in too_small(operands(params, optimizer, 1)[name]):
            params, optimizer = begin(case, dtype, options, SMALL, 0, layout)
            refuses(params, optimizer, name, size)
            assert optimizer.steps_applied == applied


@layouts
@kinds
def test_later_step(case: Case, dtype: torch.dtype, options: Any, layout: Layout) -> None:
    params, optimizer = begin(case, dtype, options, SMALL, 3, layout)
    sizes = {name: too_small(x) for name, x in operands(params, optimizer, 1).items()}
    for name, own in sizes.items():
        for size in own:
            params, optimizer = begin(case, dtype, options, SMALL, 3, layout)
            optimizer.step()
            refuses(params, optimizer, name, size)
            assert optimizer.steps_applied == 4


def test_anchor() -> None:
    params, optimizer = begin(cases.BY_ID["adamw"], torch.float32, {}, SMALL, 2)
    transfer.anchor_decay(optimizer, 0.1)
    optimizer.step()
    for size in reversed(too_small(optimizer.state[params[1]]["anchor"])):
        refuses(params, optimizer, "anchor", size)


@pytest.mark.parametrize("threads", [1, 2])
@cases.classes
def test_large_model(case: Case, threads: int) -> None:
    torch.set_num_threads(threads)
    params, optimizer = begin(case, torch.float32, {}, LARGE, 1)
    before = [[bits(x) for x in operands(params, optimizer, i).values()] for i in (0, 14)]
    for name, x in reversed(operands(params, optimizer, 1).items()):
        for size in reversed(too_small(x)):
            resize(x, size)
            with pytest.raises(RuntimeError, match=NAME):
                optimizer.step()
        assert before == [
            [bits(x) for x in operands(params, optimizer, i).values()] for i in (0, 14)
        ]
        resize(x, needed(x))
        with torch.no_grad():
            x.fill_(1)
        assert name


@layouts
@kinds
def test_enough(case: Case, dtype: torch.dtype, options: Any, layout: Layout) -> None:
    """Storages of exactly the bytes that are needed, and longer ones, make no difference."""
    for size in (0, 1, 4096):
        params, optimizer = begin(case, dtype, options, SMALL, 2, layout)
        copier = Copier()
        others = [copier.tensor(p) for p in params]
        other = copier.optimizer(optimizer)
        for i in range(len(params)):
            for x in operands(params, optimizer, i).values():
                resize(x, needed(x) + size)
        for each in (optimizer, other):
            each.step()
            each.step()
        for p, q in zip(params, others, strict=True):
            tolerances.exact(p, q)
            for key, value in optimizer.state[p].items():
                tolerances.exact(value, other.state[q][key])


@cases.classes
def test_without_gradient_it_does_not_matter(case: Case) -> None:
    params, optimizer = begin(case, torch.float32, {}, SMALL, 2)
    for x in operands(params, optimizer, 1).values():
        resize(x, 1)
    params[1].grad = None
    before = params[0].detach().clone()
    optimizer.step()
    assert not torch.equal(params[0], before)


@cases.classes
def test_without_elements_nothing_is_needed(case: Case) -> None:
    params, optimizer = begin(case, torch.float32, {}, [(3,), (0,), (2, 0)], 2)
    for i in (1, 2):
        for name, x in operands(params, optimizer, i).items():
            if name != "step":
                resize(x, 0)
    before = params[0].detach().clone()
    optimizer.step()
    assert not torch.equal(params[0], before)


@kinds
def test_state_on_the_meta_device(case: Case, dtype: torch.dtype, options: Any) -> None:
    params, optimizer = begin(case, dtype, options, SMALL, 2)
    for key, value in list(optimizer.state.get(params[1], {}).items()):
        before = list(everything([params[0], params[2]], optimizer))
        optimizer.state[params[1]][key] = value.to("meta")
        with pytest.raises(RuntimeError, match=NAME):
            optimizer.step()
        assert list(everything([params[0], params[2]], optimizer)) == before
        optimizer.state[params[1]][key] = value
    copies = twin(params)
    optimizer.step()
    assert not torch.equal(params[1], copies[1])
