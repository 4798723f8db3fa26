"""What the GPU's kernels make of a step is what the CPU's make of it, bit for bit: every case, type, layout, option."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests import cases, tolerances
from tests.cases import Case
from tests.cuda.emulation import on_emulated_device
from tests.helpers import allow_gradients_of
from tests.one_pass.test_same_bits import EVERYTHING, PRECISIONS, laid_out

Made = tuple[Any, list[Any]]
SIZES = [1, 3, 255, 256, 257, 2047, 2049, 5000]  # around vectors, tiles, chunks


def flat(sizes: list[int], dtype: torch.dtype, offset: int = 0) -> list[torch.Tensor]:
    """Return random tensors; with an `offset`, each begins so many elements after an aligned address."""
    made = []
    for n in sizes:
        memory = torch.zeros(n + offset, dtype=dtype)
        memory[offset:] = torch.randn(n, dtype=torch.float64).to(dtype)
        made.append(memory[offset:])
    return made


def on_both(train: Callable[[], Made]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Train on the CPU and on the emulated device; return what each leaves."""
    results = []
    for emulate in (False, True):
        torch.manual_seed(0)
        if emulate:
            with on_emulated_device():
                optimizer, params = train()
                assert (
                    optimizer._stepper.memories[0].core.sent > 0
                )  # it did not run on the CPU instead
                results.append(everything(optimizer, params))
        else:
            results.append(everything(*train()))
    return results[0], results[1]


def everything(optimizer: Any, params: list[Any]) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for i, p in enumerate(params):
        found[f"param {i}"] = p.detach().clone()
        for key, value in optimizer.state.get(p, {}).items():
            found[f"{key} {i}"] = value.clone()
    report = optimizer.report
    for name in ("grad_norm", "clip_coefficient", "steps_applied", "steps_skipped", "applied"):
        value = getattr(report, name)
        found[name] = torch.tensor([-1.0 if value is None else value], dtype=torch.float64)
    return found


def assert_equal(cpu: dict[str, torch.Tensor], device: dict[str, torch.Tensor]) -> None:
    assert cpu.keys() == device.keys()
    for key, value in cpu.items():
        try:
            tolerances.exact(device[key], value)
        except AssertionError as error:
            message = f"{key}: {error}"
            raise AssertionError(message) from error


def steps(
    case: Case,
    params: list[torch.nn.Parameter],
    gradient: Callable[[torch.Tensor], torch.Tensor],
    count: int = 3,
    **options: Any,
) -> Made:
    optimizer = case.ours(params, **options)
    for _ in range(count):
        for p in params:
            p.grad = gradient(p)
        optimizer.step()
    return optimizer, params


def like(p: torch.Tensor) -> torch.Tensor:
    return torch.randn(p.shape, dtype=torch.float64).to(p.dtype)


@cases.all_dtypes
@cases.all_cases
def test_cases(case: Case, dtype: torch.dtype) -> None:
    def train() -> Made:
        return steps(case, [torch.nn.Parameter(x) for x in flat(SIZES, dtype)], like)

    assert_equal(*on_both(train))


@pytest.mark.parametrize("precision", list(PRECISIONS))
@cases.rules
def test_options(case: Case, precision: str) -> None:
    dtype, own = PRECISIONS[precision]

    def train() -> Made:
        params = [torch.nn.Parameter(x) for x in flat(SIZES, dtype)]
        return steps(case, params, like, **EVERYTHING, **own)

    assert_equal(*on_both(train))


@pytest.mark.parametrize("offset", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("precision", list(PRECISIONS))
def test_unaligned(precision: str, offset: int) -> None:
    """All operands begin at an odd address alike, or only one does."""
    dtype, own = PRECISIONS[precision]

    def train() -> Made:
        params = [torch.nn.Parameter(x) for x in flat(SIZES, dtype, offset)]
        turn = iter(range(100))
        return steps(
            cases.BY_ID["adam"],
            params,
            lambda p: flat([p.numel()], dtype, offset if next(turn) % 2 else 0)[0],
            **own,
        )

    assert_equal(*on_both(train))


@pytest.mark.parametrize("layout", ["sliced", "every second", "transposed", "expanded"])
@pytest.mark.parametrize("precision", list(PRECISIONS))
@cases.classes
def test_layouts(case: Case, precision: str, layout: str) -> None:
    dtype, own = PRECISIONS[precision]

    def grad(p: torch.Tensor) -> torch.Tensor:
        if layout == "expanded":
            return torch.randn(p.shape[0], 1).to(dtype).expand(p.shape)
        if layout == "transposed":
            return torch.randn(p.shape[::-1]).to(dtype).t()
        return laid_out(layout, torch.randn(p.shape).to(dtype))

    def train() -> Made:
        how = layout if layout in ("sliced", "every second") else "contiguous"
        p = torch.nn.Parameter(laid_out(how, torch.randn(67, 41).to(dtype)))
        q = torch.nn.Parameter(
            torch.randn(5, 6, 3, 3).to(dtype).to(memory_format=torch.channels_last)
        )
        return steps(
            case, [p, q], lambda x: grad(x) if x.dim() == 2 else like(x), **EVERYTHING, **own
        )

    assert_equal(*on_both(train))


@pytest.mark.parametrize("grad_dtype", [torch.float32, torch.float64])
@cases.rules
def test_mixed_types(case: Case, grad_dtype: torch.dtype) -> None:
    """Parameters of all types in groups of one optimizer, with gradients and states of others."""

    def gradient_dtype(p: torch.Tensor) -> torch.dtype:
        return torch.promote_types(p.dtype, torch.float32)

    def train() -> Made:
        params = [torch.nn.Parameter(x) for d in cases.DTYPES for x in flat([300, 2100], d)]
        for p in params:
            allow_gradients_of(p, gradient_dtype(p))
        optimizer = case.ours([{"params": params[i : i + 2]} for i in range(0, len(params), 2)])
        for step in range(3):
            for p in params:
                p.grad = like(p).to(gradient_dtype(p))
            optimizer.step()
            if step == 0:
                for p in params[::2]:
                    state = optimizer.state[p]
                    for key in case.state_keys:
                        state[key] = state[key].to(grad_dtype)
        return optimizer, params

    assert_equal(*on_both(train))


def test_many_tensors_and_groups() -> None:
    """More scalars than travel with a launch: every group has its own learning rate."""

    def train() -> Made:
        params = [
            torch.nn.Parameter(x) for x in flat([n % 97 + 1 for n in range(300)], torch.float32)
        ]
        groups = [{"params": params[i : i + 10], "lr": 0.001 * i} for i in range(0, 300, 10)]
        optimizer = cases.BY_ID["adamw"].ours(groups)
        for _ in range(3):
            for p in params:
                p.grad = like(p)
            optimizer.step()
        return optimizer, params

    assert_equal(*on_both(train))


@pytest.mark.parametrize("size", [8191, 8192, 8193, 300_000])
def test_norm(size: int) -> None:
    """Its order of additions is the same, over blocks and over tensors."""

    def train() -> Made:
        params = [torch.nn.Parameter(x) for x in flat([size, 5, 70], torch.float32)]
        return steps(cases.BY_ID["sgd"], params, like, max_grad_norm=1.0)

    assert_equal(*on_both(train))


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
@pytest.mark.parametrize("options", [{"skip_nonfinite": True}, {"max_grad_norm": 1.0}])
@cases.classes
def test_nonfinite(case: Case, options: dict[str, Any], bad: float) -> None:
    def train() -> Made:
        params = [torch.nn.Parameter(x) for x in flat([300, 7], torch.float32)]
        turn = iter(range(100))

        def grad(p: torch.Tensor) -> torch.Tensor:
            g = like(p)
            if next(turn) in (5, 6):  # in the third step
                g[2] = bad
            return g

        return steps(case, params, grad, count=5, **options)

    assert_equal(*on_both(train))


@pytest.mark.parametrize("first", [True, False])
@cases.classes
def test_found_inf(case: Case, first: bool) -> None:
    """GradScaler's word, and its scale, where the device reads them."""

    def train() -> Made:
        params = [torch.nn.Parameter(x) for x in flat([300, 7], torch.float32)]
        optimizer = case.ours(params, ema_decay=0.9, fused=True)
        for step in range(4):
            for p in params:
                p.grad = like(p)
            optimizer.grad_scale = torch.tensor(8.0)
            optimizer.found_inf = torch.tensor(float(step == (0 if first else 2)))
            optimizer.step()
            del optimizer.grad_scale, optimizer.found_inf
        return optimizer, params

    assert_equal(*on_both(train))


@cases.classes
def test_anchors(case: Case) -> None:
    from onepass.transfer import anchor_decay

    def train() -> Made:
        params = [torch.nn.Parameter(x) for x in flat([300, 2100], torch.float32)]
        optimizer = case.ours(params)
        anchor_decay(optimizer, 0.1)
        for _ in range(3):
            for p in params:
                p.grad = like(p)
            optimizer.step()
        return optimizer, params

    assert_equal(*on_both(train))
