"""AugmentedDataset in torch's DataLoader, whole batches or not."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset

from onepass.augment import AugmentedDataset, Augmenter

AUG = Augmenter(20, 0.1, 0.1, 5, 0.2, True, mean=0.5, std=0.5)
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


def test_spawned_workers_see_the_epoch(dataset: AugmentedDataset) -> None:
    loader = dataset.loader(
        23, num_workers=1, multiprocessing_context="spawn", persistent_workers=True
    )
    for epoch in (1, 2):
        dataset.set_epoch(epoch)
        (batch,) = loader
        assert torch.equal(batch[0], AUG(IMAGES, range(23), epoch))


def test_mapped_files(tmp_path: Path) -> None:
    path = tmp_path / "images.npy"
    np.save(path, IMAGES)
    dataset = AugmentedDataset(np.load(path, mmap_mode="r"), LABELS, AUG)
    assert torch.equal(dataset[5][0], AUG(IMAGES, range(23))[5])


def test_copies(dataset: AugmentedDataset) -> None:
    dataset.set_epoch(9)
    for same in (copy.deepcopy(dataset), pickle.loads(pickle.dumps(dataset))):
        assert same.epoch == 9
        assert torch.equal(same[2][0], dataset[2][0])
        same.set_epoch(1)
        assert dataset.epoch == 9
