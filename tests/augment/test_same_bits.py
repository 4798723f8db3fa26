"""The same bits for every thread count, instruction set, worker count and split into batches."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from onepass import _core
from onepass.augment import AugmentedDataset, Augmenter

from . import oracle

AUG = Augmenter(30, 0.2, 0.1, 12, 0.4, True, True, mean=0.3, std=0.7, seed=11)
# In a process of its own, since the choice is made at import.
SCRIPT = """
import json, sys
sys.path.insert(0, sys.argv[1])
import augment.test_same_bits as t
print(json.dumps([t._core.isa(), t.fingerprints()]))
"""


def pictures(dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    whole = torch.randint(0, 256, shape, generator=generator, dtype=torch.int32)
    return whole.to(dtype) if dtype == torch.uint8 else whole.to(dtype) / 77


def fingerprints() -> list[str]:
    """A hash of every kind of warp."""
    found = []
    shapes = [(5, 1, 28, 28), (3, 3, 33, 65), (2, 2, 300, 310), (1, 1, 1, 700)]
    for dtype in (torch.uint8, torch.float32):
        for shape in shapes:
            x = pictures(dtype, shape)
            for fill in oracle.FILLS:
                for interpolation in ("bilinear", "nearest"):
                    aug = Augmenter(
                        30, 0.9, 0.4, 12, 0.5, True, fill_mode=fill, interpolation=interpolation
                    )
                    out = aug(x, range(len(x)), 1, layout="NCHW")
                    found.append(hashlib.sha256(out.numpy().tobytes()).hexdigest())
    return found


@pytest.fixture
def restore_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("restore_threads")
def test_threads() -> None:
    found = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        found.append(fingerprints())
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("name", [name for name, runs in _core.isas().items() if runs])
def test_instruction_sets(name: str) -> None:
    tests = str(Path(__file__).parent.parent)
    environment = {**os.environ, "ONEPASS_CPU": name}
    answer = subprocess.run(
        [sys.executable, "-c", SCRIPT, tests],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(answer.stdout) == [name, fingerprints()]


def test_batches_and_order() -> None:
    x = pictures(torch.uint8, (50, 20, 20, 3))
    together = AUG(x, range(50), 2)
    for index in ([0], [49, 3, 3, 12], list(range(7, 31))):
        assert torch.equal(AUG(x[index], index, 2), together[index])


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("shuffle", [False, True])
def test_workers(workers: int, shuffle: bool) -> None:
    x, labels = pictures(torch.uint8, (30, 12, 12, 1)), torch.arange(30)
    dataset = AugmentedDataset(x, labels, AUG)
    loader = dataset.loader(7, shuffle, workers, persistent_workers=workers > 0)
    orders = []
    for epoch in (0, 5, 6):
        dataset.set_epoch(epoch)
        expected = AUG(x, range(30), epoch)
        seen = [(images, numbers) for images, numbers in loader]
        order = torch.cat([numbers for _, numbers in seen])
        assert torch.equal(torch.cat([images for images, _ in seen]), expected[order])
        assert sorted(order.tolist()) == list(range(30))
        orders.append(order.tolist())
    assert (orders[0] != orders[1]) == shuffle


def test_shuffling_does_not_depend_on_workers_or_history() -> None:
    dataset = AugmentedDataset(pictures(torch.uint8, (30, 8, 8, 1)), torch.arange(30), AUG)

    def order(epoch: int, workers: int) -> list[int]:
        dataset.set_epoch(epoch)
        return torch.cat([labels for _, labels in dataset.loader(4, True, workers)]).tolist()

    first = order(3, 0)
    torch.rand(5)
    order(2, 0)
    assert order(3, 1) == first


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_layouts_and_strides(layout: str) -> None:
    dense = pictures(torch.uint8, (6, 3, 17, 21))
    expected = AUG(dense, range(6), 4)
    views = {
        "contiguous": dense,
        "channels_last": dense.to(memory_format=torch.channels_last),
        "sliced": torch.zeros(6, 5, 40, 44, dtype=torch.uint8)[:, 1:4, 3:37:2, 1:43:2].copy_(dense),
        "transposed": dense.transpose(2, 3).contiguous().transpose(2, 3),
    }
    for view in views.values():
        given = view if layout == "NCHW" else view.permute(0, 2, 3, 1)
        assert torch.equal(AUG(given, range(6), 4, layout=layout), expected)
        backwards = given.numpy()[::-1, ::-1][::-1, ::-1]
        assert torch.equal(AUG(backwards, range(6), 4, layout=layout), expected)
    mirrored = np.ascontiguousarray(dense.numpy()[:, :, ::-1, ::-1])[:, :, ::-1, ::-1]
    assert torch.equal(AUG(mirrored, range(6), 4), expected)
    one = dense[:1].expand(6, -1, -1, -1)
    assert torch.equal(AUG(one, range(6), 4), AUG(one.contiguous(), range(6), 4))
