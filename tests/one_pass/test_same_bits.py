"""The same bits: for any number of threads, instruction set, split into tensors, and layout."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
import torch

from onepass import _core
from tests import cases, tolerances
from tests.cases import Case
from tests.helpers import run_python

EVERYTHING: dict[str, Any] = {
    "l1_decay": 0.01,
    "max_grad_norm": 20.0,
    "max_grad_value": 0.3,
    "skip_nonfinite": True,
    "ema_decay": 0.9,
}
PRECISIONS: dict[str, tuple[torch.dtype, dict[str, Any]]] = {
    "float32": (torch.float32, {}),
    "float64": (torch.float64, {}),
    "bfloat16-states": (torch.float32, {"state_dtype": torch.bfloat16}),
    "8bit": (torch.float32, {"state_dtype": "8bit"}),
    "bfloat16-master": (torch.bfloat16, {"master_weights": True}),
    "bfloat16-master-8bit": (torch.bfloat16, {"master_weights": True, "state_dtype": "8bit"}),
    "float16-master": (torch.float16, {"master_weights": True}),
    "bfloat16-stochastic": (torch.bfloat16, {"rounding": "stochastic", "seed": 4}),
    "float16-stochastic": (torch.float16, {"rounding": "stochastic"}),
}
precisions = pytest.mark.parametrize("precision", list(PRECISIONS))


def trained(
    case: Case, precision: str, sizes: list[int], threads: int = 1, steps: int = 2
) -> tuple[Any, list[Any]]:
    """Train flat tensors of these sizes with everything switched on; the numbers do not depend on the sizes."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    dtype, options = PRECISIONS[precision]
    total = sum(sizes)
    params = [
        torch.nn.Parameter(x.clone()) for x in torch.split(torch.randn(total).to(dtype), sizes)
    ]
    optimizer = case.ours(params, **EVERYTHING, **options)
    for _ in range(steps):
        for p, grad in zip(params, torch.split(torch.randn(total).to(dtype), sizes), strict=True):
            p.grad = grad.clone()
        optimizer.step()
    return optimizer, params


def all_numbers(optimizer: Any, params: list[Any]) -> dict[str, torch.Tensor]:
    found = {"param": torch.cat([p.detach().flatten() for p in params])}
    for key in optimizer.state[params[0]]:
        if key != "step":
            found[key] = torch.cat([optimizer.state[p][key].flatten() for p in params])
    report = optimizer.report
    found["norm"] = torch.tensor([report.grad_norm], dtype=torch.float64)
    if report.clip_coefficient is not None:
        found["coefficient"] = torch.tensor([report.clip_coefficient], dtype=torch.float64)
    return found


def assert_equal_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for key, value in a.items():
        tolerances.exact(b[key], value)


@precisions
@cases.classes
def test_threads(case: Case, precision: str) -> None:
    sizes = [50_000, 7, 40_001]
    first = all_numbers(*trained(case, precision, sizes, threads=1))
    for threads in (2, 3):
        assert_equal_bits(first, all_numbers(*trained(case, precision, sizes, threads=threads)))


@precisions
@cases.classes
def test_splits(case: Case, precision: str) -> None:
    """The norm, too. A block of an 8-bit state ends with its tensor, so there the parts are whole blocks."""
    unit = 256 if "8bit" in precision else 1
    total = 12_288
    splits = [
        [total],
        [unit, 3 * unit, total - 4 * unit],
        [4096] * 3,
        [6 * unit, 1024, total - 1024 - 6 * unit],
    ]
    first = all_numbers(*trained(case, precision, splits[0]))
    for sizes in splits[1:]:
        assert_equal_bits(first, all_numbers(*trained(case, precision, sizes)))


def test_split_into_groups() -> None:
    for case in cases.CLASSES:
        results = []
        for grouped in (False, True):
            torch.manual_seed(0)
            params = [torch.nn.Parameter(torch.randn(n)) for n in (100, 7, 33)]
            groups = [{"params": [p]} for p in params] if grouped else [{"params": params}]
            optimizer = case.ours(groups, **EVERYTHING)
            for p in params:
                p.grad = torch.randn(p.shape)
            optimizer.step()
            results.append(all_numbers(optimizer, params))
        assert_equal_bits(*results)


PROGRAM = """
import hashlib, json, torch
from onepass import _core
from tests import cases
from tests.one_pass import test_same_bits as here
hashes = {}
for case in cases.RULES:
    for precision in here.PRECISIONS:
        found = here.all_numbers(*here.trained(case, precision, [3000, 1, 515]))
        hashes[f"{case} {precision}"] = here.digest(found)
print(json.dumps([_core.isa(), hashes]))
"""


def digest(numbers: dict[str, torch.Tensor]) -> str:
    data = hashlib.sha256()
    for key in sorted(numbers):
        data.update(key.encode())
        data.update(numbers[key].contiguous().view(torch.uint8).numpy().tobytes())
    return data.hexdigest()


def test_instruction_sets() -> None:
    available = [name for name, there in _core.isas().items() if there]
    assert "x86-64" in available or len(available) == 1
    results = {}
    for name in available:
        done = run_python(PROGRAM, ONEPASS_CPU=name)
        assert done.returncode == 0, done.stderr
        used, results[name] = json.loads(done.stdout)
        assert used == name
    first = results.pop(available[0])
    states = {case: h for case, h in first.items() if not case.startswith("sgd ")}
    assert len(set(states.values())) == len(states)  # every case is another training
    for name, hashes in results.items():
        assert [case for case in first if hashes[case] != first[case]] == [], name


def laid_out(layout: str, x: torch.Tensor) -> torch.Tensor:
    """Return the numbers of a matrix in another layout whose memory has the same order of rows and columns."""
    rows, columns = x.shape
    if layout == "sliced":
        base = torch.zeros(rows, columns + 3, dtype=x.dtype)
        base[:, 1 : columns + 1] = x
        return base[:, 1 : columns + 1]
    if layout == "every second":
        base = torch.zeros(rows, 2 * columns, dtype=x.dtype)
        base[:, ::2] = x
        return base[:, ::2]
    return x.clone()


@pytest.mark.parametrize("layout", ["sliced", "every second"])
@precisions
@cases.classes
def test_strided_as_contiguous(case: Case, precision: str, layout: str) -> None:
    dtype, options = PRECISIONS[precision]
    results = []
    for how in ("contiguous", layout):
        torch.manual_seed(0)
        p = torch.nn.Parameter(laid_out(how, torch.randn(23, 41).to(dtype)))
        optimizer = case.ours([p], **EVERYTHING, **options)
        for _ in range(2):
            p.grad = laid_out(how, torch.randn(23, 41).to(dtype))
            optimizer.step()
        results.append(all_numbers(optimizer, [p]))
    assert results[0].keys() == results[1].keys()
    for key, value in results[0].items():
        tolerances.exact(results[1][key], value)


@pytest.mark.parametrize("grad", ["transposed", "expanded"])
@precisions
@cases.classes
def test_gradient_of_another_layout(case: Case, precision: str, grad: str) -> None:
    dtype, options = PRECISIONS[precision]
    results = []
    for contiguous in (True, False):
        torch.manual_seed(0)
        p = torch.nn.Parameter(torch.randn(23, 41).to(dtype))
        optimizer = case.ours([p], **{**EVERYTHING, "max_grad_norm": None}, **options)
        for _ in range(2):
            if grad == "transposed":
                g = torch.randn(41, 23).to(dtype).t()
            else:
                g = torch.randn(23, 1).to(dtype).expand(23, 41)
            p.grad = g.contiguous() if contiguous else g
            optimizer.step()
        found = all_numbers(optimizer, [p])
        del found["norm"]  # the order of the sum is that of the memory
        results.append(found)
    assert_equal_bits(*results)


@pytest.mark.parametrize("precision", [name for name in PRECISIONS if "stochastic" not in name])
@cases.classes
def test_model_that_becomes_channels_last(case: Case, precision: str) -> None:
    """States, averages and masters that were made before stay in their old layout, and are read right."""
    dtype, options = PRECISIONS[precision]
    results = []
    for converted in (False, True):
        torch.manual_seed(0)
        module = torch.nn.Conv2d(6, 5, 3, bias=False).to(dtype)
        p = module.weight
        optimizer = case.ours([p], **{**EVERYTHING, "max_grad_norm": None}, **options)
        for step in range(4):
            if converted and step == 2:
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
                assert not p.is_contiguous()
            g = torch.randn(5, 6, 3, 3).to(dtype)
            p.grad = g.to(memory_format=torch.channels_last) if not p.is_contiguous() else g
            optimizer.step()
        found = all_numbers(optimizer, [p])
        del found["norm"]
        results.append(found)
    assert_equal_bits(*results)


@precisions
@cases.classes
def test_channels_last_from_the_start(case: Case, precision: str) -> None:
    """Blocks and random numbers follow the memory: the same as the same memory in one dimension."""
    dtype, options = PRECISIONS[precision]
    results = []
    for flat in (False, True):
        torch.manual_seed(0)
        x = torch.randn(5, 6, 3, 3).to(dtype).to(memory_format=torch.channels_last)
        grads = [
            torch.randn(5, 6, 3, 3).to(dtype).to(memory_format=torch.channels_last)
            for _ in range(2)
        ]

        def memory(t: torch.Tensor) -> torch.Tensor:
            return t.detach().permute(0, 2, 3, 1).reshape(-1)

        p = torch.nn.Parameter(memory(x).clone() if flat else x)
        optimizer = case.ours([p], **EVERYTHING, **options)
        for grad in grads:
            p.grad = memory(grad).clone() if flat else grad
            optimizer.step()
        own = {key: v for key, v in optimizer.state[p].items() if key != "step"}
        results.append(
            {
                key: v if flat or v.dim() != 4 else memory(v)
                for key, v in {"param": p.detach(), **own}.items()
            }
        )
    assert_equal_bits(*results)


@pytest.mark.parametrize("amsgrad", [False, True])
def test_conversion_of_8_bits_in_another_layout(amsgrad: bool) -> None:
    """Codes made for a contiguous weight, read back after the model became channels_last and got one more state."""
    results = []
    for converted in (False, True):
        torch.manual_seed(0)
        module = torch.nn.Conv2d(40, 5, 3, bias=False)
        p = module.weight
        optimizer = cases.BY_ID["adam"].ours([p], state_dtype="8bit")
        for step in range(6):
            if step == 2 and converted:
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            if step == 2:
                optimizer.param_groups[0]["amsgrad"] = amsgrad
            if step == 4:
                optimizer.param_groups[0]["state_dtype"] = torch.float32
            g = torch.randn(5, 40, 3, 3) * torch.logspace(-2, 2, 5)[:, None, None, None]
            p.grad = g.to(memory_format=torch.channels_last) if converted and step >= 2 else g
            optimizer.step()
        results.append({"param": p.detach(), **optimizer.state[p]})
    assert_equal_bits(*results)
