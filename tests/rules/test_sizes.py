"""Every number of elements around the widths of vectors and tiles, at every alignment, and nothing beside them."""

from __future__ import annotations

import pytest
import torch

from tests import cases, tolerances
from tests.cases import Case
from tests.helpers import expected_step, gradients, state_of

COUNTS = [*range(2 * 64 + 4), 511, 512, 513, 1025]


def embedded(
    count: int, offset: int, dtype: torch.dtype, fill: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a storage full of `fill` and a random view of `count` elements inside it."""
    whole = torch.full((count + offset + 70,), fill, dtype=dtype)
    view = whole[offset : offset + count]
    view.copy_(torch.randn(count))
    return whole, view


def untouched(whole: torch.Tensor, count: int, offset: int, fill: float) -> bool:
    return bool((whole[:offset] == fill).all()) and bool((whole[offset + count :] == fill).all())


@cases.all_dtypes
@cases.rules
def test_counts_between_sentinels(case: Case, dtype: torch.dtype) -> None:
    """Parameter, gradient and every state lie between sentinels, each at an offset of its own."""
    sentinel = 77.0
    kept = []
    params = []
    for count in COUNTS:
        offset = 1 + count % 7
        whole, view = embedded(count, offset, dtype, sentinel)
        p = torch.nn.Parameter(view)
        assert p.data_ptr() == view.data_ptr()
        grads, p.grad = embedded(count, offset + 1, dtype, sentinel)
        kept.append((whole, grads, offset))
        params.append(p)
    optimizer = case.ours(params)
    optimizer.step()
    states = []
    for k, p in enumerate(params):
        for j, key in enumerate(case.state_keys):
            whole, view = embedded(p.numel(), 1 + (k + j) % 5, dtype, sentinel)
            view.copy_(optimizer.state[p][key])
            optimizer.state[p][key] = view
            states.append((whole, p.numel(), 1 + (k + j) % 5))
    before = [(p.grad.clone() if p.grad is not None else None) for p in params]
    want = [expected_step(case, optimizer, p) for p in params]
    optimizer.step()
    for p, (value, magnitude, state), (whole, grads, offset), grad in zip(
        params, want, kept, before, strict=True
    ):
        tolerances.one_rounding(p, value, magnitude)
        assert grad is not None
        assert p.grad is not None
        tolerances.exact(p.grad, grad)
        assert untouched(whole, p.numel(), offset, sentinel)
        assert untouched(grads, p.numel(), offset + 1, sentinel)
        assert set(state) - {"step"} == set(case.state_keys)
    assert states or not case.state_keys
    for whole, count, offset in states:
        assert untouched(whole, count, offset, sentinel)


@cases.all_dtypes
@cases.rules
def test_an_element_does_not_depend_on_its_place(case: Case, dtype: torch.dtype) -> None:
    """Torch's fused kernels round differently in the body of a tensor and in its tail."""
    value, slope = 0.7345, 0.2511
    params = [torch.nn.Parameter(torch.full((n,), value, dtype=dtype)) for n in (1, 67, 513)]
    optimizer = case.ours(params)
    for _ in range(4):
        for p in params:
            p.grad = torch.full_like(p, slope)
        optimizer.step()
    for p in params[1:]:
        tolerances.exact(p, params[0].detach().expand(p.shape))


@cases.rules
def test_state_of_new_parameters_is_never_uninitialised(case: Case) -> None:
    """A gradient of zero leaves state as the formula says, whatever was in the memory before."""
    garbage = [torch.full((1000,), float("nan")) for _ in range(50)]
    del garbage
    params = [torch.nn.Parameter(torch.ones(1000)) for _ in range(10)]
    optimizer = case.ours(params)
    for p in params:
        p.grad = torch.zeros(1000)
    want = [expected_step(case, optimizer, p)[2] for p in params]
    optimizer.step()
    for p, state in zip(params, want, strict=True):
        for key in case.state_keys:
            torch.testing.assert_close(state_of(optimizer, p)[key], state[key])


@pytest.mark.parametrize("count", [16384, 65536, 65537, 200_003])
@cases.rules
def test_large_tensors(case: Case, count: int) -> None:
    """Sizes at which a step is cut into chunks and shared among threads."""
    torch.set_num_threads(2)
    params = [torch.nn.Parameter(torch.randn(n)) for n in (count, 3, 0, 5000)]
    optimizer = case.ours(params)
    for _ in range(2):
        gradients(params)
        want = [expected_step(case, optimizer, p) for p in params]
        optimizer.step()
        for p, (value, magnitude, _) in zip(params, want, strict=True):
            tolerances.one_rounding(p, value, magnitude)


def test_offsets_beyond_32_bits(tmp_path: object) -> None:
    """Elements more than 2^31 elements apart: in a file with holes, so that no memory is needed."""
    from pathlib import Path

    path = Path(str(tmp_path)) / "sparse"
    distance = 2**31 + 9
    with path.open("wb") as file:
        file.truncate(2 * (distance + 8))
    whole = torch.from_file(str(path), shared=True, size=distance + 8, dtype=torch.bfloat16)
    p = torch.nn.Parameter(whole.as_strided((2, 3), (distance, 2)))
    p.grad = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dtype=torch.bfloat16)
    cases.BY_ID["sgd"].ours([p], lr=1.0).step()
    assert p.tolist() == [[-1.0, -2.0, -3.0], [-4.0, -5.0, -6.0]]
    assert whole[1].item() == 0.0
    assert whole[distance + 1].item() == 0.0
