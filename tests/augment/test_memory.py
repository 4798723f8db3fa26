"""Nothing outside the output is written, nothing outside the input read, whatever is passed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onepass import _core
from onepass.augment import Augmenter

from . import oracle

WILD = [0.0, 1e-300, -1.0, 0.5, 1e9, -1e18, 1e300, np.inf, -np.inf, np.nan]


def core(
    images: oracle.Array, matrices: oracle.Array, out: oracle.Array, **options: object
) -> None:
    arguments = {
        "rows": None,
        "fill": "nearest",
        "bilinear": True,
        "mean": [0.0] * images.shape[1],
        "std": [1.0] * images.shape[1],
        "cval": 0.0,
        "outside": 0,
    }
    _core.warp(images=images, matrices=matrices, out=out, **{**arguments, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("fill", oracle.FILLS)
@pytest.mark.parametrize("bilinear", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_wild_matrices_read_only_the_picture(dtype: type, bilinear: bool, fill: str) -> None:
    rng = np.random.default_rng(0)
    # Every value of the picture is 1, everything around it 99.
    framed: oracle.Array = np.full((1, 1, 30, 34), 99, dtype)
    framed[:, :, 10:20, 12:24] = 1
    images = framed[:, :, 10:20, 12:24]
    out = np.empty((1, 1, 7, 40), np.float32)
    for _ in range(300):
        matrices = rng.choice(WILD, (1, 2, 3))
        core(images, matrices, out, fill=fill, bilinear=bilinear, cval=1.0)
        unit = np.float32(255 if dtype is np.uint8 else 1)
        np.testing.assert_allclose(out, 1 / unit, rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from(oracle.FILLS),
    st.booleans(),
    st.sampled_from([np.uint8, np.float32]),
    st.permutations(range(4)),
    st.tuples(*[st.sampled_from([-2, -1, 1, 3])] * 4),
    st.sampled_from([0.1, 1, 20]),
    st.integers(0, 2**32),
)
def test_any_shape_and_stride(
    shape: tuple[int, ...],
    out_size: tuple[int, int],
    fill: str,
    bilinear: bool,
    dtype: type,
    order: list[int],
    steps: tuple[int, ...],
    spread: float,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    dense: oracle.Array = rng.integers(0, 256, shape).astype(dtype)
    memory: oracle.Array = np.full([shape[axis] * abs(steps[axis]) for axis in order], 255).astype(
        dtype
    )
    view = memory.transpose(np.argsort(order))[tuple(slice(None, None, step) for step in steps)]
    view[...] = dense
    matrices = oracle.random_matrices(rng, shape[0], (shape[2], shape[3]), spread)

    guard = 64
    size = int(np.prod([*shape[:2], *out_size]))
    buffer = np.full(size + 2 * guard, -7, np.float32)
    out = buffer[guard:-guard].reshape(*shape[:2], *out_size)
    core(view, matrices, out, fill=fill, bilinear=bilinear, cval=3.0)
    assert (buffer[:guard] == -7).all()
    assert (buffer[-guard:] == -7).all()

    order_of_scipy = 1 if bilinear else 0
    expected = oracle.warp(dense, matrices, out_size, fill=fill, order=order_of_scipy, cval=3)
    unit = 255 if dtype is np.uint8 else 1
    np.testing.assert_allclose(out, expected / unit, rtol=0, atol=255 / unit * oracle.ROUNDINGS)


def test_rows_name_the_pictures() -> None:
    images = np.arange(24, dtype=np.uint8).reshape(4, 1, 2, 3)
    rows = np.array([3, 0, 3], np.int64)
    matrices = np.tile(np.eye(2, 3), (3, 1, 1))
    out = np.empty((3, 1, 2, 3), np.float32)
    core(images, matrices, out, rows=rows)
    np.testing.assert_array_equal(out, images[rows] / np.float32(255))


def test_unaligned_floats() -> None:
    raw = np.zeros(4 * 30 + 1, np.uint8)
    images = raw[1:].view(np.float32).reshape(1, 1, 5, 6)
    images[...] = np.arange(30).reshape(5, 6)
    out = Augmenter(rotation_range=30)(images, [0], 0)
    assert torch.equal(out, Augmenter(rotation_range=30)(images.copy(), [0], 0))


GOOD = {
    "images": np.zeros((2, 1, 4, 4), np.uint8),
    "matrices": np.zeros((2, 2, 3)),
    "out": np.zeros((2, 1, 4, 4), np.float32),
}


@pytest.mark.parametrize(
    "wrong",
    [
        {"images": np.zeros((3, 1, 4, 4), np.uint8)},
        {"images": np.zeros((2, 2, 4, 4), np.uint8)},
        {"images": np.zeros((2, 1, 0, 4), np.uint8)},
        {"images": np.zeros((1, 4, 4), np.uint8)},
        {"images": np.zeros((2, 1, 4, 4), np.int16)},
        {"images": np.zeros((2, 1, 4, 4), ">f4")},
        {"matrices": np.zeros((1, 2, 3))},
        {"matrices": np.zeros((2, 3, 2))},
        {"out": np.zeros((2, 1, 4, 4), np.float64)},
        {"out": np.zeros((2, 1, 4, 8), np.float32)[:, :, :, ::2]},
        {"out": np.zeros((2, 1, 0, 4), np.float32)},
        {"rows": np.array([0, 2])},
        {"rows": np.array([-1, 0])},
        {"rows": np.array([0])},
        {"mean": [0.0, 0.0]},
        {"std": []},
        {"fill": "reflect101"},
        {"mean": None},
        {"mean": None, "out": np.zeros((2, 1, 4, 4), np.uint8)},
    ],
)
def test_the_core_checks_for_itself(wrong: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError)):
        core(**{**GOOD, **wrong})  # type: ignore[arg-type]


def test_readonly_output_is_refused() -> None:
    out = np.zeros((2, 1, 4, 4), np.float32)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="contiguous"):
        core(**{**GOOD, "out": out})  # type: ignore[arg-type]


def test_a_storage_without_memory_is_refused() -> None:
    images = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    images.untyped_storage().resize_(0)
    with pytest.raises(ValueError, match="images must be backed by"):
        Augmenter()(images, [0, 1])


def test_inputs_are_not_changed() -> None:
    images = np.arange(2 * 3 * 25, dtype=np.uint8).reshape(2, 3, 5, 5)
    images.flags.writeable = False
    before = images.copy()
    for fill, train in itertools.product(oracle.FILLS, (True, False)):
        Augmenter(20, 0.2, fill_mode=fill)(images, [0, 1], train=train)
    assert (images == before).all()
