"""AugmentedDataset in torch's DataLoader, whole batches or not."""

from __future__ import annotations

import copy
import io
import itertools
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    SequentialSampler,
    Subset,
    WeightedRandomSampler,
)

from onepass.augment import AugmentedDataset, Augmenter

AUG = Augmenter(20, 0.1, 0.1, 5, 0.2, True, mean=0.5, std=0.5)
AUG_OF_ONE = Augmenter(20, 0.1, horizontal_flip=True)
IMAGES = np.random.default_rng(0).integers(0, 256, (23, 10, 12, 3), np.uint8)
LABELS = np.arange(23) % 10


@pytest.fixture
def dataset() -> AugmentedDataset:
    return AugmentedDataset(IMAGES, LABELS, AUG)


@pytest.mark.parametrize("workers", [0, 2])
def test_plain_loader(dataset: AugmentedDataset, workers: int) -> None:
    dataset.set_epoch(4)
    expected = AUG(IMAGES, range(23), 4)
    batches = list(DataLoader(dataset, batch_size=5, num_workers=workers))
    assert torch.equal(torch.cat([images for images, _ in batches]), expected)
    assert torch.cat([labels for _, labels in batches]).tolist() == LABELS.tolist()


def test_single_samples(dataset: AugmentedDataset) -> None:
    image, label = dataset[7]
    assert torch.equal(image, AUG(IMAGES, range(23))[7])
    assert int(label) == 7
    assert torch.equal(dataset[-16][0], image)
    assert len(dataset) == 23


def test_a_subset_keeps_its_numbers(dataset: AugmentedDataset) -> None:
    images, labels = next(iter(DataLoader(Subset(dataset, [20, 3, 8]), batch_size=3)))
    assert torch.equal(images, AUG(IMAGES[[20, 3, 8]], [20, 3, 8]))
    assert labels.tolist() == [0, 3, 8]


def test_not_training() -> None:
    dataset = AugmentedDataset(IMAGES, LABELS, AUG, train=False)
    images, _ = next(iter(dataset.loader(23)))
    assert torch.equal(images, AUG(IMAGES, range(23), train=False))


def test_without_labels() -> None:
    dataset = AugmentedDataset(torch.from_numpy(IMAGES), None, AUG)
    (images,) = dataset.loader(23)
    assert torch.equal(images, AUG(IMAGES, range(23)))
    assert torch.equal(dataset[3], images[3])
    plain = next(iter(DataLoader(dataset, batch_size=23)))
    assert torch.equal(plain, images)


def test_options_of_the_loader(dataset: AugmentedDataset) -> None:
    assert len(dataset.loader(5, drop_last=True)) == 4
    assert [len(labels) for _, labels in dataset.loader(10)] == [10, 10, 3]
    own = dataset.loader(4, sampler=[5, 6, 7])
    assert [labels.tolist() for _, labels in own] == [[5, 6, 7]]
    assert isinstance(own.dataset, AugmentedDataset)
    assert own.dataset.images is IMAGES
    assert own.batch_size == 4
    listed = next(iter(dataset.loader(4, collate_fn=lambda samples: samples)))
    assert isinstance(listed, list)
    assert listed[3][1] == 3


def test_loaders_leave_the_global_generator_alone(dataset: AugmentedDataset) -> None:
    before = torch.get_rng_state()
    for workers in (0, 1):
        for _ in dataset.loader(8, shuffle=True, num_workers=workers):
            pass
    assert torch.equal(torch.get_rng_state(), before)


def test_mapped_files(tmp_path: Path) -> None:
    path = tmp_path / "images.npy"
    np.save(path, IMAGES)
    dataset = AugmentedDataset(np.load(path, mmap_mode="r"), LABELS, AUG)
    assert torch.equal(dataset[5][0], AUG(IMAGES, range(23))[5])


def in_a_file(dataset: AugmentedDataset) -> AugmentedDataset:
    file = io.BytesIO()
    torch.save(dataset, file)
    file.seek(0)
    loaded: AugmentedDataset = torch.load(file, weights_only=False)
    return loaded


COPIES: dict[str, Callable[[AugmentedDataset], AugmentedDataset]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda dataset: pickle.loads(pickle.dumps(dataset)),
    "torch.save": in_a_file,
    "deepcopy of a shallow copy": lambda dataset: copy.deepcopy(copy.copy(dataset)),
}


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_is_whole_and_its_own(dataset: AugmentedDataset, name: str) -> None:
    dataset.set_epoch(9)
    same = COPIES[name](dataset)
    assert same.epoch == 9
    assert torch.equal(same[2][0], AUG(IMAGES[2:3], [2], 9)[0])
    same.set_epoch(1)
    assert dataset.epoch == 9
    dataset.set_epoch(8)
    assert same.epoch == 1


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("whole", [True, False])
def test_an_epoch_set_on_a_copy_reaches_its_workers(
    dataset: AugmentedDataset, name: str, whole: bool
) -> None:
    dataset.set_epoch(7)
    same = COPIES[name](dataset)
    options: dict[str, Any] = {"num_workers": 1, "persistent_workers": True}
    make = AugmentedDataset.loader if whole else DataLoader
    loaders = {each: make(each, batch_size=23, **options) for each in (dataset, same)}
    for epoch in (1, 2):
        same.set_epoch(epoch)
        ((ours, _),) = loaders[same]
        ((theirs, _),) = loaders[dataset]
        assert torch.equal(ours, AUG(IMAGES, range(23), epoch))
        assert torch.equal(theirs, AUG(IMAGES, range(23), 7))


@pytest.mark.parametrize("start", ["fork", "spawn", "forkserver"])
def test_every_way_to_start_workers(dataset: AugmentedDataset, start: str) -> None:
    same = pickle.loads(pickle.dumps(copy.deepcopy(dataset)))
    loader = same.loader(23, num_workers=1, multiprocessing_context=start, persistent_workers=True)
    for epoch in (1, 2):
        same.set_epoch(epoch)
        ((images, _),) = loader
        assert torch.equal(images, AUG(IMAGES, range(23), epoch))


def test_a_shallow_copy_shares_pictures_and_epoch(dataset: AugmentedDataset) -> None:
    shallow = copy.copy(dataset)
    assert shallow.images is IMAGES
    shallow.set_epoch(3)
    assert dataset.epoch == 3
    dataset.set_epoch(4)
    assert shallow.epoch == 4
    shallow.train = False
    assert dataset.train


@pytest.mark.parametrize("workers", [0, 1])
def test_a_copied_loader_orders_and_warps_by_one_epoch(
    dataset: AugmentedDataset, workers: int
) -> None:
    original = dataset.loader(23, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    loader = copy.deepcopy(original)
    same = loader.dataset
    assert isinstance(same, AugmentedDataset)
    orders = set()
    for epoch in (5, 6):
        same.set_epoch(epoch)
        ((images, _),) = loader
        order = list(loader.sampler)
        assert torch.equal(images, AUG(IMAGES[order], order, epoch))
        orders.add(tuple(order))
    assert len(orders) == 2
    assert dataset.epoch == 0


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("subset", [False, True])
def test_whole_batches_by_a_batch_sampler(
    dataset: AugmentedDataset, workers: int, subset: bool
) -> None:
    dataset.set_epoch(2)
    numbers = np.arange(23)[::-1] if subset else np.arange(23)
    source = Subset(dataset, numbers.tolist()) if subset else dataset
    sampler = BatchSampler(SequentialSampler(source), 5, drop_last=False)
    loader = DataLoader(source, batch_size=None, sampler=sampler, num_workers=workers)
    batches = list(loader)
    assert [len(images) for images, _ in batches] == [5, 5, 5, 5, 3]
    got = torch.cat([images for images, _ in batches])
    assert torch.equal(got, AUG(IMAGES[numbers], numbers, 2))
    assert torch.cat([labels for _, labels in batches]).tolist() == LABELS[numbers].tolist()


MANY = np.random.default_rng(1).integers(0, 256, (300, 3, 4, 1), np.uint8)


@pytest.mark.parametrize(
    ("index", "numbers"),
    [
        ([20, 3, -1, 3], [20, 3, 299, 3]),
        ((0, -300), [0, 0]),
        (range(3, 9, 2), [3, 5, 7]),
        (slice(295, 999), [295, 296, 297, 298, 299]),
        (slice(None, -299, -150), [299, 149]),
        (np.array([4, -2]), [4, 298]),
        (np.array([4, -2], np.int8), [4, 298]),
        (np.array([255, 0], np.uint8), [255, 0]),
        (np.array([7], np.uint64), [7]),
        (torch.tensor([4, -2]), [4, 298]),
        (torch.tensor([4, 200], dtype=torch.uint8), [4, 200]),
        ([torch.tensor(4), torch.tensor(-2)], [4, 298]),
        ([np.int8(-5)], [295]),
        ([], []),
        (slice(5, 5), []),
    ],
    ids=repr,
)
@pytest.mark.parametrize("labelled", [True, False])
def test_several_at_once(index: Any, numbers: list[int], labelled: bool) -> None:
    dataset = AugmentedDataset(MANY, np.arange(300) if labelled else None, AUG_OF_ONE)
    batch = dataset[index]
    images = batch[0] if labelled else batch
    rows = np.array(numbers, np.int64)
    assert torch.equal(images, AUG_OF_ONE(MANY[rows], rows))
    if labelled:
        assert isinstance(batch, tuple)
        assert batch[1].tolist() == numbers


@pytest.mark.parametrize(
    "index", [np.int64(7), np.int8(7), np.uint8(7), np.array(7), torch.tensor(7), -293]
)
def test_one_at_a_time(index: Any) -> None:
    image, label = AugmentedDataset(MANY, np.arange(300), AUG_OF_ONE)[index]
    assert torch.equal(image, AUG_OF_ONE(MANY[7:8], [7])[0])
    assert label.shape == ()
    assert int(label) == 7


def test_a_sample_drawn_twice(dataset: AugmentedDataset) -> None:
    weights = [0.0] * 20 + [1.0] * 3
    sampler = WeightedRandomSampler(weights, 40, generator=torch.Generator().manual_seed(0))
    drawn = list(sampler)
    dataset.set_epoch(3)
    by_sample = [image for images, _ in dataset.loader(16, sampler=drawn) for image in images]
    per_draw = AugmentedDataset(IMAGES[drawn], LABELS[drawn], AUG)
    per_draw.set_epoch(3)
    by_draw = [image for images, _ in per_draw.loader(16) for image in images]
    distinct = [len({image.numpy().tobytes() for image in each}) for each in (by_sample, by_draw)]
    assert distinct == [3, 40]
    one_by_one = [AUG(IMAGES[[row]], [k], 3)[0] for k, row in enumerate(drawn)]
    assert torch.equal(torch.stack(by_draw), torch.stack(one_by_one))


@pytest.mark.parametrize("kind", ["whole batches", "samples", "a subset", "two processes"])
def test_accelerate(dataset: AugmentedDataset, kind: str) -> None:
    """As docs/clients.md has it: its own count, unless both are told."""
    accelerate = pytest.importorskip("accelerate")
    seedable = kind == "two processes"
    plain: Any = {
        "whole batches": lambda: dataset.loader(5, shuffle=True),
        "samples": lambda: DataLoader(dataset, 5, num_workers=1, persistent_workers=True),
        "a subset": lambda: DataLoader(Subset(dataset, range(20)), 5),
        "two processes": lambda: DataLoader(dataset, 5, shuffle=True),
    }[kind]()
    loader = accelerate.data_loader.prepare_data_loader(
        plain,
        num_processes=1 + seedable,
        process_index=0,
        put_on_device=False,
        use_seedable_sampler=seedable,
    )

    def epochs_seen(batches: Any) -> set[int]:
        expected = torch.stack([AUG(IMAGES, range(23), epoch) for epoch in range(8)])
        shown = [image for images, _ in batches for image in images]
        assert shown
        return {int((expected == image).all((2, 3, 4)).nonzero()[0, 0]) for image in shown}

    passed_on = kind in ("whole batches", "samples")
    dataset.set_epoch(4)
    assert epochs_seen(loader) == ({0} if passed_on else {4})
    for epoch in (6, 7):
        loader.set_epoch(epoch)
        dataset.set_epoch(epoch)
        skipped = accelerate.skip_first_batches(loader, 1)
        assert epochs_seen(skipped) == {epoch}
        assert epochs_seen(loader) == {epoch}


# Passes count as epochs


def passes(loader: Any, count: int) -> list[list[Any]]:
    return [[(images.clone(), labels.tolist()) for images, labels in loader] for _ in range(count)]


def same(a: list[Any], b: list[Any]) -> bool:
    return all(
        torch.equal(x, y) and labels == its for (x, labels), (y, its) in zip(a, b, strict=True)
    )


def turned(count: int = 12) -> AugmentedDataset:
    images = torch.randint(0, 256, (count, 6, 6, 1), dtype=torch.uint8)
    return AugmentedDataset(images, range(count), Augmenter(rotation_range=30))


@pytest.mark.parametrize("workers", [0, 1])
def test_passes_of_a_loader_are_epochs(workers: int) -> None:
    dataset = turned()
    options: Any = {"persistent_workers": True} if workers else {}
    counted = passes(dataset.loader(4, shuffle=True, num_workers=workers, **options), 3)
    assert dataset.epoch == 2
    chosen = []
    for epoch in range(3):
        dataset.set_epoch(epoch)
        chosen += passes(dataset.loader(4, shuffle=True), 1)
    assert all(same(a, b) for a, b in zip(counted, chosen, strict=True))
    assert not any(same(a, b) for a, b in itertools.combinations(counted, 2))


def test_who_sets_epochs_is_not_counted_for() -> None:
    dataset = turned()
    loader = dataset.loader(4, shuffle=True)
    dataset.set_epoch(5)
    first, second = passes(loader, 2)
    assert same(first, second)
    assert dataset.epoch == 5


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_count_on_for_themselves(copied: Any) -> None:
    dataset = turned()
    passes(dataset.loader(4), 2)
    twin = copied(dataset)
    passes(twin.loader(4), 1)
    assert (dataset.epoch, twin.epoch) == (1, 2)


def test_float_pictures_in_bytes_are_warned_of_once() -> None:
    bytes_as_floats = torch.rand(4, 3, 6, 6) * 255
    augmenter = Augmenter()
    with pytest.warns(UserWarning, match="not divided by 255, and these reach to 2"):
        augmenter(bytes_as_floats, range(4))
    for pictures in (bytes_as_floats, torch.rand(4, 3, 6, 6), torch.randn(4, 3, 6, 6)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            augmenter(pictures, range(4))
            Augmenter()(pictures - pictures.mean(), range(4))
