"""rounding="stochastic": which bits, and that the mean is right."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

import onepass
from tests import cases, tolerances
from tests.cases import Case
from tests.helpers import allow_gradients_of

Words = npt.NDArray[np.uint64]


def philox(counter: Words, key: tuple[int, int]) -> Words:
    """Philox4x32-10 of Salmon, Moraes, Dror & Shaw, SC 2011, for counters of shape (n, 4)."""
    low = np.uint64(0xFFFFFFFF)
    c = [counter[:, i].astype(np.uint64) for i in range(4)]
    k0, k1 = key
    for _ in range(10):
        a, b = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        shift = np.uint64(32)
        c = [
            (b >> shift) ^ c[1] ^ np.uint64(k0),
            b & low,
            (a >> shift) ^ c[3] ^ np.uint64(k1),
            a & low,
        ]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack(c, axis=1)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # kat_vectors of the authors' Random123
        ("00000000 " * 4, "00000000 " * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff " * 4, "ffffffff " * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            "243f6a88 85a308d3 13198a2e 03707344",
            "a4093822 299f31d0",
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_the_oracle_knows_the_published_answers(counter: str, key: str, words: str) -> None:
    def numbers(text: str) -> list[int]:
        return [int(word, 16) for word in text.split()]

    first, second = numbers(key)
    found = philox(np.array([numbers(counter)], dtype=np.uint64), (first, second))
    assert found[0].tolist() == numbers(words)


def random_bits(n: int, draw: int, seed: int) -> npt.NDArray[np.uint32]:
    """Return 16 bits for each of the first n elements of a step: 8 elements share a block of 4 words, low half first."""
    block = np.arange(-(-n // 8), dtype=np.uint64)
    mask, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    counter = np.stack(
        [
            block & mask,
            block >> shift,
            np.full_like(block, draw & 0xFFFFFFFF),
            np.full_like(block, draw >> 32),
        ],
        axis=1,
    )
    words = philox(counter, (seed & 0xFFFFFFFF, seed >> 32))
    halves = np.stack([words & np.uint64(0xFFFF), words >> np.uint64(16)], axis=2)
    return halves.reshape(-1)[:n].astype(np.uint32)


def rounded(values: torch.Tensor, random: npt.NDArray[np.uint32], dtype: torch.dtype) -> Any:
    """Return finite float32 numbers rounded up in magnitude where the part cut off and the random bits carry."""
    x = values.double().numpy()
    if dtype == torch.bfloat16:
        bits = (values.numpy().view(np.uint32) + random) >> np.uint32(16)
        return torch.from_numpy(bits.astype(np.uint16).view(np.int16)).view(torch.bfloat16)
    ulp = tolerances.spacing(values.double(), dtype).numpy()
    below = np.floor(np.abs(x) / ulp)
    share = np.abs(x) / ulp - below
    # 13 bits are cut off a normal number; of a subnormal one it may be more
    normal = np.abs(x) >= 2.0**-14
    up = np.where(normal, share + (random >> 3) / 2**13 >= 1, share > random / 2**16)
    return torch.from_numpy(np.copysign((below + up) * ulp, x)).to(dtype)


def make(
    values: list[torch.Tensor], dtype: torch.dtype, **options: Any
) -> tuple[list[torch.nn.Parameter], Any]:
    """Return parameters that the next step sets to any float32 numbers, before rounding: 0 - 1 * (-x)."""
    params = [torch.nn.Parameter(torch.zeros(x.shape, dtype=dtype)) for x in values]
    for p, x in zip(params, values, strict=True):
        allow_gradients_of(p, torch.float32)
        p.grad = -x
    return params, onepass.SGD(params, lr=1.0, rounding="stochastic", **options)


def again(params: list[torch.nn.Parameter]) -> None:
    with torch.no_grad():
        for p in params:
            p.zero_()


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**40 + 5, 2**64 - 1])
@cases.halves
def test_known_answers(dtype: torch.dtype, seed: int) -> None:
    """The random numbers belong to the seed, the step, and the place in the flat range of all tensors."""
    values = [torch.randn(n) for n in (1, 7, 3, 500, 0, 1025)]
    params, optimizer = make(values, dtype, seed=seed)
    flat = torch.cat(values)
    for draw in range(3):
        again(params)
        optimizer.step()
        expected = rounded(flat, random_bits(flat.numel(), draw, seed), dtype)
        tolerances.exact(torch.cat([p.detach() for p in params]), expected)


@cases.halves
def test_known_answers_over_the_whole_range(dtype: torch.dtype) -> None:
    """All exponents, subnormal numbers of float16 included, as far as the result is finite."""
    bits = torch.arange(0, 2**31, 40503, dtype=torch.int64).to(torch.int32)
    values = bits.view(torch.float32)
    largest = torch.finfo(dtype).max
    values = values[values <= largest]
    values = torch.cat([values, -values])
    (p,), optimizer = make([values], dtype, seed=9)
    optimizer.step()
    expected = rounded(values, random_bits(values.numel(), 0, 9), dtype)
    assert torch.equal(p.detach(), expected)


def test_parameters_without_gradient_take_no_numbers() -> None:
    values = [torch.randn(11), torch.randn(5), torch.randn(30)]
    params, optimizer = make(values, torch.bfloat16)
    params[1].grad = None
    optimizer.step()
    flat = torch.cat([values[0], values[2]])
    expected = rounded(flat, random_bits(41, 0, 0), torch.bfloat16)
    tolerances.exact(torch.cat([params[0].detach(), params[2].detach()]), expected)


def test_a_skipped_step_draws_nothing() -> None:
    values = torch.randn(100)
    (p,), optimizer = make([values], torch.bfloat16, skip_nonfinite=True)
    optimizer.step()
    p.grad = torch.full((100,), float("nan"))
    optimizer.step()
    again([p])
    p.grad = -values
    optimizer.step()
    tolerances.exact(p, rounded(values, random_bits(100, 1, 0), torch.bfloat16))


@cases.halves
def test_only_neighbours(dtype: torch.dtype) -> None:
    values = torch.cat([torch.randn(3000) * 10.0**e for e in range(-9, 5)])
    (p,), optimizer = make([values], dtype)
    ulp = tolerances.spacing(values.double(), dtype)
    below = (values.double().abs() / ulp).floor() * ulp
    for _ in range(3):
        again([p])
        optimizer.step()
        beyond = p.detach().double().abs() - below
        assert bool(((beyond == 0) | (beyond == ulp)).all())
        assert bool((p.detach().signbit() == values.signbit()).all())


@cases.halves
def test_numbers_that_fit_stay(dtype: torch.dtype) -> None:
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    values = bits.view(dtype)
    values = values[values.isfinite()]
    (p,), optimizer = make([values.float()], dtype)
    for _ in range(3):
        again([p])
        optimizer.step()
        assert torch.equal(p.detach(), values)


@cases.halves
def test_nan_and_infinity(dtype: torch.dtype) -> None:
    inf, nan, largest = float("inf"), float("nan"), torch.finfo(dtype).max
    values = torch.tensor([inf, -inf, nan, largest, -largest]).repeat(40)
    (p,), optimizer = make([values], dtype)
    for _ in range(5):
        again([p])
        optimizer.step()
        torch.testing.assert_close(p.detach().float(), values, equal_nan=True, rtol=0, atol=0)


def test_beyond_the_largest_float16() -> None:
    """Up to where it rounds up the neighbour is infinity; far beyond everything is."""
    values = torch.tensor([65505.0, 65519.0, 65535.0, 65536.0, 1e30]).repeat(2000)
    (p,), optimizer = make([values], torch.float16)
    optimizer.step()
    found = p.detach().view(2000, 5)
    assert set(found[:, :3].flatten().tolist()) == {65504.0, float("inf")}
    assert bool(found[:, 3:].isinf().all())
    share = found[:, 1].isinf().double().mean().item()
    assert share == pytest.approx(15 / 32, abs=5 * math.sqrt(0.25 / 2000))


@pytest.mark.parametrize("share", [0.0625, 0.25, 0.5, 0.8125, 0.9375])
@pytest.mark.parametrize("size", [1.0, -1.0, 1e-3, 2.0**-15, 2.0**-24, -(2.0**-22), 3e4])
@cases.halves
def test_mean_is_unbiased(dtype: torch.dtype, size: float, share: float) -> None:
    base = torch.tensor(size).to(dtype).double()
    ulp = tolerances.spacing(base, dtype)
    value = (base + math.copysign(share, size) * ulp).float()
    n = 40_000
    (p,), optimizer = make([value.repeat(n)], dtype)
    optimizer.step()
    ups = ((p.detach().double() - base) / ulp).abs()
    deviation = math.sqrt(share * (1 - share) / n)
    assert ups.mean().item() == pytest.approx(share, abs=5 * deviation)


def test_steps_and_neighbours_are_independent() -> None:
    """Correlation of the directions between steps, seeds and neighbours is that of chance."""
    n = 40_000
    value = torch.tensor(1 + 2.0**-8).repeat(n)
    ups = []
    for seed in (0, 1):
        (p,), optimizer = make([value], torch.bfloat16, seed=seed)
        for _ in range(2):
            again([p])
            optimizer.step()
            ups.append((p.detach().double() > 1).double() * 2 - 1)
    pairs = [(ups[i], ups[j]) for i in range(4) for j in range(i)]
    pairs += [(ups[0][:-d], ups[0][d:]) for d in (1, 2, 7, 8, 16)]
    for a, b in pairs:
        assert abs((a * b).mean().item()) < 5 / math.sqrt(n)


def test_small_updates_arrive_in_the_mean() -> None:
    """Where rounding to nearest stands still."""
    n, steps = 4000, 64
    found = {}
    for rounding in ("nearest", "stochastic"):
        p = torch.nn.Parameter(torch.ones(n, dtype=torch.bfloat16))
        optimizer = onepass.SGD([p], lr=2.0**-12, rounding=rounding)
        p.grad = -torch.ones_like(p)
        for _ in range(steps):
            optimizer.step()
        found[rounding] = p.detach().double().mean().item() - 1
    assert found["nearest"] == 0.0
    # each step goes up by 2^-7 with probability 2^-5
    deviation = 2.0**-7 * math.sqrt(steps * 2.0**-5 / n)
    assert found["stochastic"] == pytest.approx(steps * 2.0**-12, abs=5 * deviation)


def trained(
    case: Case, sizes: list[int], dtype: torch.dtype, *, steps: int = 3, **options: Any
) -> torch.Tensor:
    values = torch.randn(sum(sizes)).to(dtype)
    params = [torch.nn.Parameter(part.clone()) for part in torch.split(values, sizes)]
    optimizer = case.ours(params, rounding="stochastic", **options)
    for _ in range(steps):
        grads = torch.randn(sum(sizes)).to(dtype)
        for p, grad in zip(params, torch.split(grads, sizes), strict=True):
            p.grad = grad.clone()
        optimizer.step()
    return torch.cat([p.detach() for p in params])


@cases.halves
@cases.classes
def test_bits_do_not_depend_on_threads_or_splits(case: Case, dtype: torch.dtype) -> None:
    total = 70_001
    results = []
    for threads, sizes in (
        (1, [total]),
        (2, [total]),
        (3, [total]),
        (3, [1, 6, 8193, 30_000, 31_801]),
        (1, [35_000, 35_000, 1]),
    ):
        torch.manual_seed(0)
        torch.set_num_threads(threads)
        results.append(trained(case, sizes, dtype, seed=5))
    for other in results[1:]:
        tolerances.exact(other, results[0])


@cases.classes
def test_seeds_give_other_bits(case: Case) -> None:
    results = []
    for seed in (0, 1):
        torch.manual_seed(0)
        results.append(trained(case, [1000], torch.bfloat16, seed=seed))
    assert not torch.equal(*results)


@cases.classes
def test_torchs_generator_is_not_touched(case: Case) -> None:
    before = torch.random.get_rng_state()
    (p,) = [torch.nn.Parameter(torch.ones(100, dtype=torch.bfloat16))]
    p.grad = torch.ones_like(p)
    case.ours([p], rounding="stochastic").step()
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@cases.classes
def test_wide_parameters_are_rounded_to_nearest(case: Case, dtype: torch.dtype) -> None:
    results = []
    for rounding in ("nearest", "stochastic"):
        torch.manual_seed(0)
        p = torch.nn.Parameter(torch.randn(70, dtype=dtype))
        p.grad = torch.randn(70, dtype=dtype)
        case.ours([p], rounding=rounding).step()
        results.append(p.detach())
    tolerances.exact(*results)


@pytest.mark.parametrize("made_with", [{"seed": 3}, {}], ids=["same-options", "from-checkpoint"])
@pytest.mark.parametrize("at", [0, 1, 3])
@cases.classes
def test_resumed_training_draws_on(case: Case, at: int, made_with: dict[str, Any]) -> None:
    """Seed and number of the step are in the checkpoint."""
    straight: list[torch.Tensor] = []
    p = torch.nn.Parameter(torch.randn(300).to(torch.bfloat16))
    optimizer = case.ours([p], rounding="stochastic", seed=3)
    torch.manual_seed(5)
    grads = [torch.randn(300).to(torch.bfloat16) for _ in range(5)]
    file = io.BytesIO()
    for step, grad in enumerate(grads):
        if step == at:
            torch.save((optimizer.state_dict(), p.detach().clone()), file)
        p.grad = grad
        optimizer.step()
        straight.append(p.detach().clone())
    file.seek(0)
    state, values = torch.load(file, weights_only=True)
    q = torch.nn.Parameter(values)
    resumed = case.ours([q], rounding="stochastic", **made_with)
    resumed.load_state_dict(state)
    for step in range(at, 5):
        q.grad = grads[step]
        resumed.step()
        tolerances.exact(q, straight[step])
