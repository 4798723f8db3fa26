"""What is wrong is refused by name."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from onepass.augment import AugmentedDataset, Augmenter

IMAGES = np.zeros((2, 8, 8, 1), np.uint8)
NAN, INF = float("nan"), float("inf")
NO_DATA = torch.zeros((), dtype=torch.int64, device="meta")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("rotation_range", [-1, 361, NAN, INF, "15", None, True, (1, 2)]),
        ("width_shift_range", [-0.1, 1, 2, NAN, [0.1]]),
        ("height_shift_range", [-0.1, 1.0, 3, None]),
        ("shear_range", [-1, 90, NAN, "x"]),
        ("zoom_range", [-0.1, 1, (0, 1), (1.2, 0.8), (0.5, INF), (1, 2, 3), "ab", None, NAN]),
        ("horizontal_flip", [1, 0, None, "yes"]),
        ("vertical_flip", [1, 0.5]),
        ("crop", [(0, 3), (3,), 28, (2.5, 2), "ab", (3, -1), (True, 3)]),
        ("crop_padding", [-1, 1.5, None, "1", True, 2]),
        ("fill_mode", ["edge", "Nearest", None, 3, ["nearest"]]),
        ("cval", [NAN, INF, None, "0"]),
        ("interpolation", ["cubic", None, 1]),
        ("mean", [NAN, "a", [[0.1]], [], 1e300, NO_DATA, [NO_DATA]]),
        ("std", [0, -1, [1, 0], INF, 1e-300]),
        ("seed", [-1, 2**64, 1.0, None, NO_DATA]),
        ("layout", ["HWC", 3, ["NCHW"]]),
    ],
)
def test_constructor(name: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ValueError, match=rf"^{name} must be .*, got "):
            Augmenter(**{name: value})


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"images": [[1]]}, "images"),
        ({"images": IMAGES[0]}, "images"),
        ({"images": np.zeros((2, 0, 8, 1), np.uint8)}, "images"),
        ({"images": np.zeros((2, 8, 8, 0), np.uint8)}, "images"),
        ({"images": np.zeros((2, 8, 8, 8), np.uint8)}, "layout"),
        ({"images": torch.zeros(2, 8, 8, 1, device="meta")}, "images"),
        ({"images": torch.zeros(2, 8, 8, 1).to_sparse()}, "images"),
        ({"layout": "CHW"}, "layout"),
        ({"index": [0]}, "index"),
        ({"index": [0, -1]}, "index"),
        ({"index": [0.0, 1.0]}, "index"),
        ({"index": [[0, 1]]}, "index"),
        ({"index": 3}, "index"),
        ({"index": [0, 2**63]}, "index"),
        ({"index": [True, False]}, "index"),
        ({"index": None}, "index"),
        ({"index": NO_DATA.expand(2)}, "index"),
        ({"index": [NO_DATA, NO_DATA]}, "index"),
        ({"epoch": -1}, "epoch"),
        ({"epoch": 2**32}, "epoch"),
        ({"epoch": 0.5}, "epoch"),
        ({"train": 1}, "train"),
    ],
)
def test_call(arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be"):
        Augmenter()(**{"images": IMAGES, "index": [0, 1], **arguments})


@pytest.mark.parametrize(
    "dtype", [np.float64, np.int32, np.bool_, np.float16, ">f4", "U1", torch.bfloat16, torch.int8]
)
def test_other_dtypes(dtype: Any) -> None:
    make: Any = torch.zeros if isinstance(dtype, torch.dtype) else np.zeros
    for count in (2, 0):
        with pytest.raises(TypeError, match="images must be uint8 or float32"):
            Augmenter()(make((count, 8, 8, 1), dtype=dtype), range(count))


@pytest.mark.parametrize("dtype", ["U1", "O", ">i4", "c16", "V3"])
def test_masks_of_other_dtypes(dtype: str) -> None:
    with pytest.raises(TypeError, match="masks has dtype"):
        Augmenter().apply_mask(np.zeros((1, 4, 4), dtype), np.zeros((1, 2, 3)))


@pytest.mark.parametrize(
    "matrices",
    [
        np.zeros((2, 3, 3)),
        np.zeros((1, 2, 3)),
        "a",
        None,
        np.full((2, 2, 3), NAN),
        [[1, 2], [3]],
        NO_DATA.expand(2, 2, 3),
    ],
)
def test_matrices(matrices: Any) -> None:
    aug = Augmenter()
    calls: list[tuple[Any, Any]] = [
        (aug.apply, IMAGES),
        (aug.apply_mask, IMAGES[..., 0]),
        (aug.points, np.zeros((2, 1, 2))),
    ]
    for call, given in calls:
        with pytest.raises(ValueError, match=r"^matrices must be"):
            call(given, matrices)


def test_what_else_is_refused() -> None:
    aug = Augmenter(crop=(9, 4), mean=(0.1, 0.2))
    with pytest.raises(ValueError, match=r"^crop must be at most the padded size"):
        aug(IMAGES, [0, 1])
    with pytest.raises(ValueError, match=r"^mean must be one number or one for each of 1 channels"):
        Augmenter(mean=(0.1, 0.2))(IMAGES, [0, 1])
    with pytest.raises(ValueError, match=r"^size must be"):
        aug.sample([0], 0, (0, 3))
    with pytest.raises(ValueError, match=r"^interpolation must be"):
        aug.apply(IMAGES, np.zeros((2, 2, 3)), "cubic")
    with pytest.raises(ValueError, match=r"^masks must be"):
        aug.apply_mask(IMAGES[0, 0], np.zeros((2, 2, 3)))
    with pytest.raises(ValueError, match=r"^xy must be"):
        aug.points(np.zeros((2, 2)), np.zeros((2, 2, 3)))
    with pytest.raises(ValueError, match=r"^matrices must be invertible"):
        aug.points(np.zeros((1, 2, 2)), np.zeros((1, 2, 3)))
    with pytest.raises(ValueError, match="one channel:"):
        aug(IMAGES[..., 0], [0, 1])


@pytest.mark.parametrize("shape", [(0, 3, 8, 9), (0, 8, 9, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_an_empty_batch_is_an_empty_result(shape: tuple[int, ...], dtype: type) -> None:
    for aug, size in ((Augmenter(15), (8, 9)), (Augmenter(crop=(4, 5)), (4, 5))):
        out = aug(np.zeros(shape, dtype), [])
        assert out.shape == (0, 3, *size)
        assert out.dtype == torch.float32
    assert Augmenter().sample([], 0, (8, 9)).shape == (0, 2, 3)


def test_aliasing_warns_once() -> None:
    aug = Augmenter(zoom_range=(2.5, 3))
    with pytest.warns(UserWarning, match="aliasing"):
        aug(IMAGES, [0, 1])
    aug(IMAGES, [0, 1])
    at_the_limit = np.array([[[0, -2.0, 7], [2, 0, 0]]])
    Augmenter().apply(IMAGES[:1], at_the_limit)
    sheared = np.array([[[1, 2.0, 0], [0, 1, 0]]])
    with pytest.warns(UserWarning, match="aliasing"):
        Augmenter().apply(IMAGES[:1], sheared)


WAYS_BACK: dict[str, Callable[[Augmenter], Augmenter]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda aug: pickle.loads(pickle.dumps(aug)),
    "repr": lambda aug: eval(repr(aug)),
    "replace": dataclasses.replace,
    "replace there and back": lambda aug: dataclasses.replace(
        dataclasses.replace(aug, seed=2**64 - 1, zoom_range=0.7),
        seed=aug.seed,
        zoom_range=aug.zoom_range,
    ),
    "asdict": lambda aug: Augmenter(**dataclasses.asdict(aug)),
    "astuple": lambda aug: Augmenter(*dataclasses.astuple(aug)),
    "fields": lambda aug: Augmenter(
        **{field.name: getattr(aug, field.name) for field in dataclasses.fields(aug)}
    ),
    "json": lambda aug: Augmenter(**json.loads(json.dumps(dataclasses.asdict(aug)))),
}


@pytest.mark.parametrize("way", WAYS_BACK)
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"zoom_range": np.array([0.8, 1.2]), "mean": torch.tensor([0.1, 0.2]), "crop": [5, 6]},
        {"zoom_range": np.float64(0.3), "std": np.float32(0.5), "crop": np.array([5, 6])},
        {"zoom_range": np.float32(0.25), "mean": [0.5], "seed": np.uint8(3), "cval": 2},
        {"horizontal_flip": np.bool_(True), "crop": torch.Size([4, 4]), "crop_padding": 1},
    ],
)
def test_an_augmenter_is_a_value(arguments: dict[str, Any], way: str) -> None:
    aug = Augmenter(**{"rotation_range": 15, "seed": 3, **arguments})
    same = WAYS_BACK[way](aug)
    assert same == aug
    assert hash(same) == hash(aug)
    assert repr(same) == repr(aug)
    assert torch.equal(same.sample([5], 1, (8, 8)), aug.sample([5], 1, (8, 8)))


@pytest.mark.parametrize("way", WAYS_BACK)
def test_a_value_after_it_has_warned(way: str) -> None:
    aug = Augmenter(zoom_range=(2.5, 3))
    with pytest.warns(UserWarning, match="aliasing"):
        aug(IMAGES, [0, 1])
    assert WAYS_BACK[way](aug) == aug == Augmenter(zoom_range=[2.5, 3])


def test_what_is_no_part_of_the_value_and_what_is() -> None:
    names = [field.name for field in dataclasses.fields(Augmenter)]
    assert names == list(inspect.signature(Augmenter).parameters)
    other: dict[str, Any] = {
        **dict.fromkeys(["rotation_range", "shear_range", "cval", "mean", "seed"], 7),
        **dict.fromkeys(["width_shift_range", "height_shift_range", "zoom_range", "std"], 0.5),
        **dict.fromkeys(["horizontal_flip", "vertical_flip"], True),
        "crop": (3, 4),
        "crop_padding": 1,
        "fill_mode": "wrap",
        "interpolation": "nearest",
        "layout": "NHWC",
    }
    assert set(other) == set(names)
    aug = Augmenter(crop=(4, 4))
    for name, value in other.items():
        assert dataclasses.replace(aug, **{name: value}) != aug
    with pytest.raises(AttributeError):
        aug.seed = 4  # type: ignore[misc]
    with pytest.raises(ValueError, match=r"^zoom_range must be"):
        dataclasses.replace(aug, zoom_range=2)


def test_gradients_are_not_followed() -> None:
    images = torch.rand(2, 1, 8, 8, requires_grad=True)
    assert not Augmenter(15)(images, [0, 1]).requires_grad


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"labels": [1]}, "labels"),
        ({"labels": 3}, "labels"),
        ({"labels": ["a", "b"]}, "labels"),
        ({"augmenter": None}, "augmenter"),
        ({"train": 1}, "train"),
        ({"images": IMAGES[0]}, "images"),
    ],
)
def test_dataset(arguments: dict[str, Any], name: str) -> None:
    good = {"images": IMAGES, "labels": [0, 1], "augmenter": Augmenter()}
    with pytest.raises(ValueError, match=rf"^{name} must be"):
        AugmentedDataset(**{**good, **arguments})


def test_dataset_calls() -> None:
    dataset = AugmentedDataset(IMAGES, [0, 1], Augmenter())
    wrong: list[Any] = [
        *(0.5, "0", None, True, b"0", {0}, iter([0]), ..., 2**70),
        *([0.5], ["0"], [True, False], [[0, 1]], [[]], [[0], [0, 1]], [None], [0, 2**70]),
        *(np.array([True, False]), np.array([0.0]), torch.tensor([0.0]), torch.tensor([True])),
        *(NO_DATA, (slice(0, 1), 0)),
        *(slice(0, 2, 0), slice("a"), slice(0.5)),
    ]
    for index in wrong:
        with pytest.raises(ValueError, match=r"^index must be a whole number or"):
            dataset[index]
    outside: list[Any] = [2, -3, [0, 2], [-3], np.array([2], np.uint8), np.array([2**64 - 1])]
    for index in outside:
        with pytest.raises(IndexError, match=r"^index out of range for 2 pictures"):
            dataset[index]
    with pytest.raises(ValueError, match=r"^epoch must be"):
        dataset.set_epoch(-1)
    for options in ({"batch_size": 0}, {"batch_size": 2.5}):
        with pytest.raises(ValueError, match=r"^batch_size must be"):
            dataset.loader(**options)
    with pytest.raises(ValueError, match=r"^num_workers must be"):
        dataset.loader(2, num_workers=-1)
    with pytest.raises(ValueError, match=r"^shuffle must be"):
        dataset.loader(2, shuffle=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^shuffle must be"):
        dataset.loader(2, shuffle=True, sampler=[0, 1])


def test_no_warning_for_read_only_arrays() -> None:
    images, labels = IMAGES.copy(), np.array([0, 1])
    images.flags.writeable = labels.flags.writeable = False
    points = np.zeros((2, 1, 2))
    points.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        AugmentedDataset(images, labels, Augmenter(15))[0]
        Augmenter().points(points, Augmenter().sample([0, 1], 0, (8, 8)))
