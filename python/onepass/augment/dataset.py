"""A data set whose pictures are augmented as they are fetched, a batch at a time."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from onepass import _core
from onepass.augment import _checks
from onepass.augment._epoch import SharedEpoch, shared_epoch
from onepass.augment._pictures import Array
from onepass.augment.augmenter import Augmenter

_INDEX = "a whole number or a one-dimensional sequence of whole numbers"


class AugmentedDataset(Dataset[Any]):
    """Pictures in memory, augmented when fetched.

    Works in any ``DataLoader``. `loader` makes one that fetches whole batches, in one pass each; so does
    ``DataLoader(dataset, batch_size=None, sampler=BatchSampler(...))``.

    Args:
        images: As an `Augmenter` takes them; held, not copied. A ``numpy.memmap`` will do.
        labels: One per image: a tensor, an array or a sequence of numbers; None leaves them out.
        augmenter: Which warps to draw.
        train: False crops the centre and normalises, nothing else. Default True.

    Raises:
        TypeError: The images are neither uint8 nor float32.
        ValueError: An argument is wrong; the message names it.

    Example:
        >>> import torch
        >>> from onepass.augment import AugmentedDataset, Augmenter
        >>> images = torch.randint(0, 256, (100, 28, 28, 1), dtype=torch.uint8)
        >>> dataset = AugmentedDataset(images, range(100), Augmenter(rotation_range=15))
        >>> loader = dataset.loader(batch_size=32, shuffle=True)
        >>> for epoch in range(2):
        ...     for batch, labels in loader:
        ...         pass
        >>> batch.shape, labels.shape
        (torch.Size([4, 1, 28, 28]), torch.Size([4]))

    Each pass of a `loader` is an epoch, the first is epoch 0. A run that resumes calls `set_epoch` before
    every pass, which ends the counting, and sees what the uninterrupted one would have seen: different
    from Keras' ``ImageDataGenerator.flow``. A plain ``DataLoader`` does not count; without `set_epoch` its
    epochs repeat the first. A sample that a sampler draws twice in an epoch is the same picture twice; a
    data set of the pictures drawn, ``AugmentedDataset(images[drawn], labels[drawn], augmenter)``,
    warps each draw by itself.

    ``copy.deepcopy`` and pickle give a data set of its own, in the same epoch; ``copy.copy`` one that
    shares pictures and epoch.
    """

    def __init__(
        self,
        images: Array | torch.Tensor,
        labels: Any,
        augmenter: Augmenter,
        train: bool = True,
    ) -> None:
        if not isinstance(augmenter, Augmenter):
            _checks.refuse("augmenter", "an Augmenter", augmenter)
        pictures = augmenter._read(images, None)
        self.images = images
        self.augmenter = augmenter
        self.train = _checks.flag("train", train)
        self.labels = None if labels is None else _labels(labels, len(pictures))
        self._whole = False
        self._epoch = shared_epoch(0)

    @property
    def epoch(self) -> int:
        """The epoch whose pictures are fetched."""
        return self._epoch.get()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, before its loop begins; in [0, 2**32). Reaches running workers too.

        From then on no pass of a `loader` counts as an epoch.
        """
        self._epoch.set(_checks.whole("epoch", epoch, 0, 2**32 - 1))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Any:
        """One sample for a whole number; a batch, augmented in one pass, for several.

        Args:
            index: A whole number in [-n, n) for n pictures, of any integer type. Or several: a list,
                as of a ``BatchSampler``, a tuple, range, slice, or an array or tensor of one axis.

        Returns:
            The picture, float32 (C, height, width), and its label; or N pictures (N, C, height, width)
            and their N labels, one tensor each. Without labels the pictures alone.

        Raises:
            IndexError: A number is out of range.
            ValueError: `index` is none of these, for instance a mask of booleans.
        """
        if isinstance(index, slice):
            try:
                index = range(len(self))[index]
            except (TypeError, ValueError):
                _checks.refuse("index", _INDEX, index)
        numbers = _checks.whole_numbers("index", index, _INDEX)
        return self._samples(numbers[None])[0] if numbers.ndim == 0 else self._fetch(numbers)

    def __getitems__(self, indices: Any) -> Any:
        """A list of samples, augmented in one pass; what torch's DataLoader collates."""
        return self._fetch(indices) if self._whole else self._samples(indices)

    def _samples(self, indices: Any) -> list[Any]:
        batch = self._fetch(indices)
        if self.labels is None:
            return list(batch)
        images, labels = batch
        return list(zip(images, labels, strict=True))

    def _fetch(self, indices: Any) -> Any:
        count = len(self)
        numbers = _checks.whole_numbers("index", indices, _INDEX)
        if numbers.ndim != 1:
            _checks.refuse("index", _INDEX, indices)
        if numbers.size > 0 and not (-count <= numbers.min() and numbers.max() < count):
            message = f"index out of range for {count} pictures"
            raise IndexError(message)
        rows = numbers.astype(np.int64)
        rows[rows < 0] += count
        aug = self.augmenter
        pictures = aug._read(self.images, None)
        size = (pictures.shape[2], pictures.shape[3])
        matrices = aug._sample(rows, self.epoch, size, self.train)
        images = aug._warp(pictures, rows, matrices, aug.interpolation)
        if self.labels is None:
            return images
        return images, self.labels[torch.from_numpy(rows).to(self.labels.device)]

    def loader(
        self,
        batch_size: int,
        shuffle: bool = False,
        num_workers: int = 0,
        **options: Any,
    ) -> DataLoader[Any]:
        """A DataLoader that fetches whole batches; each is (images, labels), or images alone.

        The order of `shuffle` is a function of (seed, epoch) as the pictures are; torch's global
        generator is not touched. Each pass is an epoch, until `set_epoch` has been called.

        Args:
            batch_size: Pictures per batch; at least 1.
            shuffle: A new order for every epoch. Default False.
            num_workers: Processes that fetch; 0, the default, fetches in this one, on all threads.
            **options: As of ``torch.utils.data.DataLoader``: `drop_last`, `sampler`, `pin_memory`...
                With a `collate_fn` of your own, that gets a list of samples.
        """
        checked = _checks.whole("batch_size", batch_size, 1, 2**31)
        workers = _checks.whole("num_workers", num_workers, 0, 2**16)
        if _checks.flag("shuffle", shuffle) and options.get("sampler") is not None:
            _checks.refuse("shuffle", "False with a sampler of your own", shuffle)
        if options.get("sampler") is None:
            options["sampler"] = _Order(self, shuffle)
        dataset = self
        if options.get("collate_fn") is None:
            dataset = copy.copy(self)  # shares pictures and epoch
            dataset._whole = True
            options["collate_fn"] = _as_fetched
        if options.get("generator") is None:
            options["generator"] = torch.Generator("cpu").manual_seed(self.augmenter.seed)
        loader = _Loader(dataset, batch_size=checked, num_workers=workers, **options)
        loader.epoch_of_passes = self._epoch
        return loader


def _as_fetched(batch: Any) -> Any:
    """Collate what is a batch already."""
    return batch


class _Loader(DataLoader[Any]):
    """Counts its passes, and draws the seed of its workers where its generator is, not on torch's default device."""

    epoch_of_passes: SharedEpoch | None = None

    def __iter__(self) -> Any:
        if self.epoch_of_passes is not None:
            self.epoch_of_passes.begin_pass()
        with torch.device("cpu" if self.generator is None else self.generator.device):
            return super().__iter__()


class _Order(Sampler[int]):
    """The samples in order, or in a random order that depends on (seed, epoch) alone."""

    def __init__(self, dataset: AugmentedDataset, shuffle: bool) -> None:
        self.dataset = dataset
        self.shuffle = shuffle

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[int]:
        count = len(self.dataset)
        if not self.shuffle:
            return iter(range(count))
        seed = self.dataset.augmenter.seed
        # A sample number that no sample has.
        counter = (2**32 - 1, 2**32 - 1, self.dataset.epoch, 0)
        high, low, _, _ = _core.philox(counter, (seed % 2**32, seed >> 32))
        generator = torch.Generator("cpu").manual_seed(high << 32 | low)
        return iter(torch.randperm(count, generator=generator, device="cpu").tolist())


def _labels(labels: Any, count: int) -> torch.Tensor:
    try:
        if isinstance(labels, torch.Tensor):
            tensor = labels
        else:
            values = labels if hasattr(labels, "dtype") else _checks.on_host(list(labels))
            tensor = torch.from_numpy(np.array(values))
    except (TypeError, ValueError, RuntimeError):
        _checks.refuse("labels", "numbers, one per image", type(labels))
    if tensor.ndim == 0 or len(tensor) != count:
        _checks.refuse("labels", f"{count} numbers, one per image", f"shape {tuple(tensor.shape)}")
    return tensor
