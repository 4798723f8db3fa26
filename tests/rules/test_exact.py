"""Same bits for any thread count, instruction set, split of the numbers into tensors and layout."""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

import pytest
import torch

from onepass import _core
from tests import cases, tolerances
from tests.cases import Case
from tests.helpers import allow_gradients_of, run_in_children


def numbers(
    case: Case, dtype: torch.dtype, count: int, steps: int, **more: Any
) -> list[torch.Tensor]:
    """Return weights and states after a few steps."""
    generator = torch.Generator().manual_seed(11)
    p = torch.nn.Parameter(torch.randn(count, generator=generator).to(dtype))
    optimizer = case.ours([p], **more)
    for _ in range(steps):
        p.grad = torch.randn(count, generator=generator).to(dtype)
        optimizer.step()
    return [p.detach(), *(optimizer.state[p][key] for key in case.state_keys)]


def assert_all_exact(a: list[torch.Tensor], b: list[torch.Tensor]) -> None:
    for x, y in zip(a, b, strict=True):
        tolerances.exact(x, y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@cases.rules
def test_thread_count(case: Case, dtype: torch.dtype) -> None:
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(numbers(case, dtype, 150_001, 2, l1_decay=0.1))
    for result in results[1:]:
        assert_all_exact(result, results[0])


@cases.all_dtypes
@cases.rules
def test_split_into_tensors(case: Case, dtype: torch.dtype) -> None:
    """One tensor, or the same numbers in many of them, at other alignments, in several groups."""
    whole = torch.randn(1500).to(dtype)
    cuts = [1, 2, 5, 64, 63, 129, 0, 511, 7, 718]
    assert sum(cuts) == 1500
    one = torch.nn.Parameter(whole.clone())
    many = [torch.nn.Parameter(x) for x in torch.split(whole.clone(), cuts)]
    optimizers = [
        case.ours([one]),
        case.ours([{"params": many[:3]}, {"params": many[3:4]}, {"params": many[4:]}]),
    ]
    for _ in range(3):
        one.grad = torch.randn(1500).to(dtype)
        for p, g in zip(many, torch.split(one.grad, cuts), strict=True):
            p.grad = g
        for optimizer in optimizers:
            optimizer.step()
    tolerances.exact(torch.cat([p.detach() for p in many]), one)
    for key in case.state_keys:
        joined = torch.cat([optimizers[1].state[p][key] for p in many])
        tolerances.exact(joined, optimizers[0].state[one][key])


@cases.all_cases
def test_numbers_at_the_edges_in_vectors_and_alone(case: Case) -> None:
    """Any mixture of zeros, subnormal numbers, infinities and NaN, in parameters, gradients and states."""
    edges = torch.tensor(
        [
            0.0,
            -0.0,
            1e-45,
            1e-39,
            1e-30,
            1e-20,
            1e-8,
            0.5,
            1.0,
            3.0,
            1e19,
            3e38,
            torch.inf,
            torch.nan,
        ]
    )
    count, few = 1200, 8  # less than any vector of the kernels

    def mixture(*, sign: bool) -> torch.Tensor:
        values = edges[torch.randint(edges.numel(), (count,))]
        return values * (torch.randint(2, (count,)) * 2 - 1) if sign else values.abs()

    whole, grad = torch.nn.Parameter(mixture(sign=True)), mixture(sign=True)
    parts = [torch.nn.Parameter(part) for part in torch.split(whole.detach().clone(), few)]
    optimizers = [case.ours([whole]), case.ours(parts)]
    whole.grad = grad.clone()
    for p, g in zip(parts, torch.split(grad.clone(), few), strict=True):
        p.grad = g
    for optimizer in optimizers:
        optimizer.step()
    for key in case.state_keys:
        values = mixture(sign=key in ("momentum_buffer", "grad_avg", "exp_avg"))
        optimizers[0].state[whole][key].copy_(values)
        for p, part in zip(parts, torch.split(values, few), strict=True):
            optimizers[1].state[p][key].copy_(part)
    for optimizer in optimizers:
        optimizer.step()
    pairs = [(whole.detach(), torch.cat([p.detach() for p in parts]))]
    pairs += [
        (optimizers[0].state[whole][key], torch.cat([optimizers[1].state[p][key] for p in parts]))
        for key in case.state_keys
    ]
    for a, b in pairs:  # what else a NaN says depends on the order of the operands
        assert bool((torch.isnan(a) == torch.isnan(b)).all())
        tolerances.exact(torch.nan_to_num(a, 0.0, 9.0, -9.0), torch.nan_to_num(b, 0.0, 9.0, -9.0))


@cases.all_dtypes
@cases.rules
def test_layout(case: Case, dtype: torch.dtype) -> None:
    """Contiguous or strided, straight or through a tile."""
    start = torch.randn(37, 53).to(dtype)
    wide = torch.zeros(37, 120).to(dtype)
    params = [
        torch.nn.Parameter(start.clone()),
        torch.nn.Parameter(start.t().contiguous().t()),
        torch.nn.Parameter(wide[:, 3:109:2].copy_(start)),
    ]
    optimizer = case.ours(params)
    for _ in range(3):
        grad = torch.randn(37, 53).to(dtype)
        for p in params:
            p.grad = grad
        optimizer.step()
    for p in params[1:]:
        tolerances.exact(p, params[0])
        for key in case.state_keys:
            tolerances.exact(optimizer.state[p][key], optimizer.state[params[0]][key])


@cases.halves
@cases.rules
def test_float32_gradients_of_the_same_value(case: Case, dtype: torch.dtype) -> None:
    """A gradient that the low-precision type can hold gives the same bits in float32."""
    start = torch.randn(700).to(dtype)
    p, q = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    allow_gradients_of(q, torch.float32)
    optimizer = case.ours([p, q])
    for _ in range(3):
        p.grad = torch.randn(700).to(dtype)
        q.grad = p.grad.to(torch.float32)
        optimizer.step()
    tolerances.exact(p, q)


@cases.rules
def test_bfloat16_gradients_beside_float32_parameters(case: Case) -> None:
    """FSDP2 has them since torch 2.15: the bits are those of the same gradient in float32."""
    start = torch.randn(700)
    p, q = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    allow_gradients_of(p, torch.bfloat16)
    optimizer = case.ours([p, q])
    for _ in range(3):
        p.grad = torch.randn(700).bfloat16()
        q.grad = p.grad.float()
        optimizer.step()
    tolerances.exact(p, q)
    assert optimizer.state[p].keys() == optimizer.state[q].keys()


def digests() -> dict[str, str]:
    """Return a digest of the results of every optimizer and dtype: ordinary numbers, and those at the edges."""
    found = {}
    edge = torch.tensor(
        [
            0.0,
            -0.0,
            1e-45,
            -1e-40,
            1e-38,
            3e38,
            -3e38,
            float("inf"),
            float("nan"),
            65504.0,
            65520.0,
            6e-8,
        ]
    )
    for case in cases.CASES:
        for dtype in cases.DTYPES:
            for mode in ("proximal", "subgradient"):
                for strength in (0.0, 0.1):
                    results = numbers(case, dtype, 619, 3, l1_decay=strength, l1_mode=mode)
                    found[f"{case} {dtype} {mode} {strength}"] = digest(results)
            p = torch.nn.Parameter(edge.repeat(12).to(dtype))
            optimizer = case.ours([p])
            for g in (edge, edge.flip(0), edge.roll(3)):
                p.grad = g.repeat_interleave(12).to(dtype)
                optimizer.step()
            results = [p.detach(), *(optimizer.state[p][key] for key in case.state_keys)]
            # which NaN it is depends on the order of operands, which compilers choose
            found[f"{case} {dtype} edges"] = digest(
                [x.nan_to_num(7.0, float("inf"), -float("inf")) for x in results]
            )
    return found


def digest(tensors: list[torch.Tensor]) -> str:
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


DIGESTS = """
def work():
    from onepass import _core
    from tests.rules.test_exact import digests
    print(json.dumps([_core.isa(), digests()]))

for name in {names}:
    results[name] = in_child(work, ONEPASS_CPU=name)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_instruction_set() -> None:
    """x86-64, v3 and v4 compute the same bits, for every optimizer and dtype."""
    names = [name for name, supported in _core.isas().items() if supported]
    if len(names) < 2:
        pytest.skip("one instruction set only")
    results = {}
    for name, (text, code) in run_in_children(DIGESTS.format(names=names)).items():
        assert code == 0, text
        isa, results[name] = json.loads(text)
        assert isa == name
    first, *others = results
    for name in others:
        differing = [key for key, value in results[first].items() if results[name][key] != value]
        assert not differing, f"{first} and {name} differ"


def test_flush_to_zero_does_not_change_low_precision() -> None:
    """float16 is widened through normal numbers only, so `torch.set_flush_denormal` keeps its subnormal values."""
    if not torch.set_flush_denormal(True):
        pytest.skip("not supported here")
    try:
        bits = torch.arange(0, 2**10, dtype=torch.int16)  # all subnormal numbers of float16
        p = torch.nn.Parameter(bits.view(torch.float16).clone())
        p.grad = torch.zeros_like(p)
        cases.BY_ID["sgd"].ours([p]).step()
    finally:
        torch.set_flush_denormal(False)
    tolerances.exact(p.detach().view(torch.int16), bits)
