"""The draws: Philox's known answers, and what a sample's matrix depends on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from onepass import _core
from onepass.augment import Augmenter

from . import oracle

# Of the paper's authors: kat_vectors in Random123.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (
        (0xFFFFFFFF,) * 4,
        (0xFFFFFFFF,) * 2,
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
WORD = st.integers(0, 2**32 - 1)
FULL = Augmenter(25, 0.1, 0.2, 12, (0.8, 1.3), True, True, seed=2**63 + 5)

KNOWN_MATRIX = [
    "-0x1.3bf4cd3545808p+0",
    "-0x1.9563f4de705c5p-6",
    "0x1.bb1a68bb34503p+4",
    "-0x1.ae7cd395ba31cp-3",
    "-0x1.02ac86eddabbbp+0",
    "0x1.f2e80e69905ccp+4",
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_known_answers(
    counter: tuple[int, int, int, int], key: tuple[int, int], answer: tuple[int, ...]
) -> None:
    assert _core.philox(counter, key) == answer
    assert oracle.philox(counter, key) == answer


@given(st.tuples(WORD, WORD, WORD, WORD), st.tuples(WORD, WORD))
def test_philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> None:
    assert _core.philox(counter, key) == oracle.philox(counter, key)


@given(st.integers(0, 2**63 - 1), WORD, st.integers(0, 2**64 - 1))
def test_matrices_are_the_composition(index: int, epoch: int, seed: int) -> None:
    aug = Augmenter(25, 0.1, 0.2, 12, (0.8, 1.3), True, True, seed=seed)
    expected = oracle.matrix(
        seed,
        epoch,
        index,
        (20, 30),
        rotation=25,
        shear=12,
        shift=(0.1, 0.2),
        zoom=(0.8, 1.3),
        flip=(True, True),
    )
    got = aug.sample([index], epoch, (20, 30)).numpy()[0]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-13)


def test_the_same_bits_on_every_platform() -> None:
    got = [value.hex() for value in FULL.sample([123456789012], 7, (28, 28)).flatten().tolist()]
    assert got == KNOWN_MATRIX


def test_batch_order_and_size_do_not_matter() -> None:
    index = np.random.default_rng(0).permutation(1000)
    together = FULL.sample(index, 3, (28, 28))
    for k in (0, 17, 999):
        assert torch.equal(FULL.sample([index[k]], 3, (28, 28))[0], together[k])
    in_order = FULL.sample(range(1000), 3, (28, 28))
    assert torch.equal(in_order[index], together)


def test_seed_epoch_and_index_all_matter() -> None:
    seen = [
        tuple(Augmenter(25, seed=seed).sample([index], epoch, (8, 8)).flatten().tolist())
        for seed, epoch, index in itertools.product((0, 1, 2**32), (0, 1), (0, 1, 2**32, 2**40))
    ]
    assert len(set(seen)) == len(seen)


def test_an_option_changes_no_other_draw() -> None:
    def parts(aug: Augmenter) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        return aug.sample(range(50), 0, (16, 16)).numpy()

    plain, flipped = parts(Augmenter(30)), parts(Augmenter(30, horizontal_flip=True))
    np.testing.assert_array_equal(np.abs(plain[:, :, :2]), np.abs(flipped[:, :, :2]))
    with_crop = parts(Augmenter(30, crop=(16, 16), crop_padding=3))
    np.testing.assert_array_equal(plain[:, :, :2], with_crop[:, :, :2])
    offset = with_crop[:, :, 2] - plain[:, :, 2]
    np.testing.assert_allclose(offset, np.round(offset), atol=1e-12)
    assert set(np.round(offset).flatten()) == set(range(-3, 4))


def test_ranges_are_filled_evenly() -> None:
    n = 20000
    turns = Augmenter(rotation_range=40).sample(range(n), 0, (5, 5)).numpy()
    angle = np.degrees(np.arctan2(turns[:, 1, 0], turns[:, 0, 0]))
    zooms = Augmenter(zoom_range=(0.5, 0.9)).sample(range(n), 0, (5, 5)).numpy()
    shifts = Augmenter(width_shift_range=0.3).sample(range(n), 0, (5, 10)).numpy()
    flips = Augmenter(vertical_flip=True).sample(range(n), 0, (5, 5)).numpy()
    for values, low, high in (
        (angle, -40, 40),
        (zooms[:, 0, 0], 0.5, 0.9),
        (zooms[:, 1, 1], 0.5, 0.9),
        (shifts[:, 0, 2], -3, 3),
        (flips[:, 1, 1] + np.linspace(-1, 1, n, endpoint=False), -2, 2),
    ):
        counts, _ = np.histogram(values, 20, (low, high))
        assert counts.sum() == n
        # 20 bins of 1000: five standard deviations.
        assert np.abs(counts - n / 20).max() < 5 * np.sqrt(n / 20)
    assert np.corrcoef(zooms[:, 0, 0], zooms[:, 1, 1])[0, 1] == pytest.approx(0, abs=0.04)


def test_width_moves_columns() -> None:
    matrices = Augmenter(width_shift_range=0.5).sample(range(8), 0, (20, 10)).numpy()
    assert np.abs(matrices[:, 0, 2]).max() > 0
    assert np.abs(matrices[:, 1, 2]).max() == 0


def test_global_generators_are_left_alone() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index] # noqa: NPY002
    FULL(torch.zeros(4, 1, 6, 6, dtype=torch.uint8), range(4))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # type: ignore[index] # noqa: NPY002
