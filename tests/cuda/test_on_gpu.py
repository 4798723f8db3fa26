"""The kernels on a real GPU, beside those of the CPU."""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import onepass
from onepass.device import extension
from onepass.schedule import Cosine
from tests import cases, tolerances
from tests.cases import Case
from tests.cuda.test_same_bits import SIZES, flat
from tests.helpers import close
from tests.one_pass.test_same_bits import EVERYTHING, PRECISIONS, laid_out

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.skipif(extension.cuda_module() is None, reason="built without CUDA"),
]


@pytest.fixture(autouse=True)
def _nothing_waits_for_the_device() -> Iterator[None]:
    yield
    if torch.cuda.is_available():
        torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()


def on_gpu(params: list[torch.nn.Parameter], index: int = 0) -> list[torch.nn.Parameter]:
    """Return the parameters on a GPU, laid out as they are."""
    moved = []
    for p in params:
        same = torch.empty_strided(p.shape, p.stride(), dtype=p.dtype, device=f"cuda:{index}")
        moved.append(torch.nn.Parameter(same.copy_(p.detach())))
    return moved


def train(
    cpu: Any, gpu: Any, params: list[Any], twins: list[Any], steps: int = 3, layout: str = ""
) -> None:
    for step in range(steps):
        for p, q in zip(params, twins, strict=True):
            grad = torch.randn(p.shape, dtype=torch.float64).to(p.dtype)
            p.grad = laid_out(layout, grad) if layout and p.dim() == 2 else grad
            q.grad = torch.empty_strided(
                p.shape, p.grad.stride(), dtype=p.dtype, device=q.device
            ).copy_(p.grad)
        cpu.step()
        if step:  # the first makes states
            torch.cuda.set_sync_debug_mode("error")
        gpu.step()
        torch.cuda.set_sync_debug_mode("default")
    assert gpu._stepper.memories[twins[0].device.index].core.sent > 0  # it did not fall back


def assert_same(cpu: Any, gpu: Any, params: list[Any], twins: list[Any], *, bits: bool) -> None:
    for p, q in zip(params, twins, strict=True):
        pairs = {"param": (q.detach(), p.detach())}
        assert cpu.state[p].keys() == gpu.state[q].keys()
        pairs |= {key: (gpu.state[q][key], value) for key, value in cpu.state[p].items()}
        for key, (ours, expected) in pairs.items():
            if bits or not expected.is_floating_point():
                tolerances.exact(ours.cpu(), expected)
            else:
                eps = torch.finfo(expected.dtype).eps
                close(ours.cpu(), expected, 2 * eps, eps * 1e-3, key)


@cases.all_dtypes
@cases.all_cases
def test_cases(case: Case, dtype: torch.dtype) -> None:
    """Scalars are prepared on the host: the bits are those of the CPU."""
    params = [torch.nn.Parameter(x) for x in flat(SIZES, dtype)]
    twins = on_gpu(params)
    cpu, gpu = case.ours(params), case.ours(twins)
    train(cpu, gpu, params, twins)
    assert_same(cpu, gpu, params, twins, bits=True)
    for q in twins:
        if "step" in gpu.state[q]:
            assert gpu.state[q]["step"].device.type == "cpu"  # as torch has it


@pytest.mark.parametrize("precision", list(PRECISIONS))
@cases.rules
def test_options(case: Case, precision: str) -> None:
    """Scalars are prepared on the device, whose `pow` may differ in the last bit of a double."""
    dtype, own = PRECISIONS[precision]
    params = [torch.nn.Parameter(x) for x in flat(SIZES, dtype)]
    twins = on_gpu(params)
    cpu, gpu = (case.ours(p, **EVERYTHING, **own) for p in (params, twins))
    train(cpu, gpu, params, twins)
    assert_same(cpu, gpu, params, twins, bits=False)
    assert gpu.report.grad_norm == pytest.approx(cpu.report.grad_norm, rel=1e-14)


@pytest.mark.parametrize("layout", ["", "sliced", "every second"])
@pytest.mark.parametrize("precision", list(PRECISIONS))
def test_layouts(precision: str, layout: str) -> None:
    dtype, own = PRECISIONS[precision]
    params = [torch.nn.Parameter(torch.randn(67, 41).to(dtype))]
    image = torch.randn(5, 6, 3, 3).to(dtype).to(memory_format=torch.channels_last)
    params.append(torch.nn.Parameter(image))
    twins = on_gpu(params)
    cpu, gpu = (cases.BY_ID["adam"].ours(p, **own) for p in (params, twins))
    train(cpu, gpu, params, twins, layout=layout)
    assert_same(cpu, gpu, params, twins, bits="8bit" not in precision)


@cases.classes
def test_many_tensors(case: Case) -> None:
    params = [torch.nn.Parameter(torch.randn(n % 97 + 1)) for n in range(1000)]
    params.append(torch.nn.Parameter(torch.randn(3_000_001)))
    twins = on_gpu(params)
    cpu, gpu = case.ours(params), case.ours(twins)
    train(cpu, gpu, params, twins)
    assert_same(cpu, gpu, params, twins, bits=True)


def test_another_stream() -> None:
    params = [torch.nn.Parameter(torch.randn(1000))]
    twins = on_gpu(params)
    cpu, gpu = (cases.BY_ID["adam"].ours(p) for p in (params, twins))
    train(cpu, gpu, params, twins, steps=2)
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call, unused-ignore]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        train(cpu, gpu, params, twins, steps=2)
    torch.cuda.current_stream().wait_stream(side)
    train(cpu, gpu, params, twins, steps=2)
    assert_same(cpu, gpu, params, twins, bits=True)


@pytest.mark.parametrize("lr", ["tensor", "schedule"])
def test_graph(lr: str) -> None:
    params = [torch.nn.Parameter(torch.randn(n)) for n in (1000, 3)]
    twins = on_gpu(params)
    rate = torch.tensor(0.01, device="cuda")
    schedule = Cosine(0.01, 20)
    cpu = onepass.AdamW(params, lr=schedule if lr == "schedule" else 0.01)
    gpu = onepass.AdamW(twins, lr=schedule if lr == "schedule" else rate, capturable=True)
    static = [torch.zeros_like(q) for q in twins]
    for q, g in zip(twins, static, strict=True):
        q.grad = g

    def gradients() -> None:
        for p, g in zip(params, static, strict=True):
            p.grad = torch.randn(p.shape)
            g.copy_(p.grad)

    side = torch.cuda.Stream()  # type: ignore[no-untyped-call, unused-ignore]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        gradients()
        gpu.step()
        cpu.step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        gpu.step()
    for step in range(10):
        if lr == "tensor":
            rate.fill_(0.01 / (step + 1))
            cpu.param_groups[0]["lr"] = float(rate)
        gradients()
        graph.replay()
        cpu.step()
    for p, q in zip(params, twins, strict=True):
        torch.testing.assert_close(q.cpu(), p, rtol=1e-5, atol=1e-6)
        assert float(gpu.state[q]["step"]) == 11
    assert gpu.report.steps_applied == 11


@pytest.mark.parametrize("name", ["SGD", "Adagrad", "Adam", "AdamW", "RMSprop"])
def test_grad_scaler(name: str) -> None:
    """As torch's own class with `fused=True`, steps with infinities among them."""
    torch.manual_seed(0)
    ours = torch.nn.Linear(40, 3, device="cuda")
    theirs = copy.deepcopy(ours)
    optimizer = getattr(onepass, name)(ours.parameters(), lr=0.01, fused=True)
    torchs = getattr(torch.optim, name)(theirs.parameters(), lr=0.01)
    for model, opt in ((ours, optimizer), (theirs, torchs)):
        torch.manual_seed(1)
        scaler = torch.amp.GradScaler("cuda", init_scale=1024.0)  # type: ignore[attr-defined, unused-ignore]
        for step in range(6):
            opt.zero_grad()
            x = torch.randn(8, 40, device="cuda")
            loss = model(x * (float("inf") if step in (0, 3) else 1.0)).square().mean()
            scaler.scale(loss).backward()
            scaler.step(opt)
            scaler.update()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)
    assert (optimizer.report.steps_applied, optimizer.report.steps_skipped) == (4, 2)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_gpus() -> None:
    params = [torch.nn.Parameter(torch.randn(n)) for n in (1000, 3)]
    twins = [*on_gpu(params[:1], 0), *on_gpu(params[1:], 1)]
    cpu = onepass.Adam(params)
    gpu = onepass.Adam([{"params": [q]} for q in twins])
    train(cpu, gpu, params, twins)
    for p, q in zip(params, twins, strict=True):
        tolerances.exact(q.detach().cpu(), p.detach())
    with pytest.raises(RuntimeError, match="one device"):
        onepass.Adam([{"params": [q]} for q in twins], max_grad_norm=1.0).step()


CHECKED = """
import torch, onepass
for options in ({}, {"max_grad_norm": 1.0, "ema_decay": 0.9, "state_dtype": "8bit"}):
    params = [torch.nn.Parameter(torch.randn(n, device="cuda")) for n in (1, 5, 257, 4099)]
    optimizer = onepass.AdamW(params, **options)
    for _ in range(2):
        for p in params:
            p.grad = torch.randn_like(p)
        optimizer.step()
torch.cuda.synchronize()
"""


def test_memory_checker() -> None:
    checker = shutil.which("compute-sanitizer")
    if checker is None:
        pytest.skip("no compute-sanitizer")
    for check in ("memcheck", "racecheck"):
        command = [checker, "--tool", check, "--error-exitcode", "9", sys.executable, "-c", CHECKED]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stdout[-2000:]
