"""Images of the user: which classes they are of, and what is wrong with them, by name."""

from __future__ import annotations

import argparse
import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import images
from tests.examples.conftest import COLOURS, write_idx, write_images
from tests.examples.running import refusal

Image = pytest.importorskip("PIL.Image")


def load(folder: Path) -> tuple[images.Data, images.Data]:
    return images.load(argparse.Namespace(data=folder, size=None), size=8)


def refused(folder: Path) -> str:
    said = refusal("mlp_schedule", "--data", folder)
    assert said.startswith("--data: ")
    return said.removeprefix("--data: ")


def right(data: images.Data) -> bool:
    """Tell whether every label is the class of the colour."""
    colours = torch.tensor([COLOURS[name] for name in data.names])
    seen = data.images.float().mean((2, 3)) - 25
    return bool(torch.equal(torch.cdist(seen, colours.float()).argmin(1), data.labels))


def test_the_classes_of_train_are_those_of_every_part(tmp_path: Path) -> None:
    write_images(tmp_path / "train", blue=3, dark=4, green=5, red=6)
    write_images(tmp_path / "val", blue=1, green=2, red=3)
    train, test = load(tmp_path)
    assert train.names == test.names == ("blue", "dark", "green", "red")
    assert train.counts() == {"blue": 3, "dark": 4, "green": 5, "red": 6}
    assert test.counts() == {"blue": 1, "dark": 0, "green": 2, "red": 3}
    assert right(train)
    assert right(test)


def test_an_unknown_class_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "train", blue=1, green=1)
    write_images(tmp_path / "val", blue=1, red=1)
    known = f"which is no class of {tmp_path / 'train'}: blue, green"
    assert refused(tmp_path) == f"{tmp_path / 'val'} has red, {known}"


def test_a_fifth_of_every_class_is_held_out(tmp_path: Path) -> None:
    train, test = load(write_images(tmp_path / "all", red=2, green=50, blue=9))
    assert test.counts() == {"blue": 1, "green": 10, "red": 1}
    assert train.counts() == {"blue": 8, "green": 40, "red": 1}
    assert right(train)
    assert right(test)


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        ({"red": 1, "blue": 0}, {"red": 1}, "train/blue has 0 images, at least 1 needed"),
        ({"red": 1, "blue": 1}, {"red": 0}, "the folders of {}/val are empty"),
        ({"red": 1}, {"red": 1}, "has the class red alone; at least 2 are needed"),
        ({"red": 1, "blue": 1}, {}, "has train/, but neither test/ nor val/"),
        ({}, {"red": 1}, "has val/, but no train/"),
    ],
)
def test_empty_folders(
    train: dict[str, int], val: dict[str, int], message: str, tmp_path: Path
) -> None:
    for part, counts in (("train", train), ("val", val)):
        if counts:
            write_images(tmp_path / part, **counts)
    assert message.format(tmp_path) in refused(tmp_path)


def test_nothing_in_the_folder(tmp_path: Path) -> None:
    nothing = f"{tmp_path} has no images in folders named like their classes"
    assert refused(tmp_path) == nothing
    (tmp_path / ".hidden").mkdir()
    assert refused(tmp_path) == nothing


def test_one_image_cannot_be_held_out(tmp_path: Path) -> None:
    write_images(tmp_path, red=2, blue=1)
    assert refused(tmp_path).startswith(f"{tmp_path / 'blue'} has 1 images, at least 2 needed")


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\nno image", "cut"])
def test_a_broken_image_is_named(content: bytes | str, tmp_path: Path) -> None:
    write_images(tmp_path, red=2, blue=2)
    file = tmp_path / "red" / "1.png"
    file.write_bytes(content if isinstance(content, bytes) else file.read_bytes()[:200])
    assert refused(tmp_path).startswith(f"{file} is broken, or no image: ")


def test_images_are_cut_in_the_middle_and_upright(tmp_path: Path) -> None:
    pixels = np.zeros((30, 90, 3), np.uint8)
    for third, name in enumerate(("red", "green", "blue")):
        pixels[:, 30 * third : 30 * third + 30] = COLOURS[name]
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    middle = images._image(tmp_path / "wide.png", 8).permute(1, 2, 0)
    assert (middle[:, 2:6] == torch.tensor(COLOURS["green"])).all()

    pixels[:, 30:45] = 0
    turned = Image.Exif()
    turned[0x0112] = 6  # the orientation: to be shown turned clockwise by a quarter
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=turned)
    upright = images._image(tmp_path / "turned.png", 8).permute(1, 2, 0)
    assert upright[1:3].max() < 40
    assert upright[5:7, :, 1].min() > 160


def grey(values: object, *shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.resize(np.asarray(values, np.int64), shape)


@pytest.fixture
def small_mnist(tmp_path: Path) -> Path:
    for part in ("train", "t10k"):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte", grey(0, 4, 5, 5))
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte", grey((7, 3), 4))
    return tmp_path


def test_labels_that_occur_are_the_classes(small_mnist: Path) -> None:
    write_idx(small_mnist / "t10k-labels-idx1-ubyte", grey((3, 3, 3, 7), 4))
    train, test = load_idx(small_mnist)
    assert train.names == test.names == ("3", "7")
    assert train.labels.tolist() == [1, 0, 1, 0]
    assert test.labels.tolist() == [0, 0, 0, 1]


def load_idx(folder: Path) -> tuple[images.Data, images.Data]:
    return images.load(argparse.Namespace(data=folder, size=None))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def without_header(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:9])


def of_floats(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    raw[2] = 13
    file.write_bytes(raw)


def negative(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    raw[4:8] = struct.pack(">i", -4)
    file.write_bytes(raw)


def fewer(file: Path) -> None:
    write_idx(file, grey(0, 3, 5, 5))


def larger(file: Path) -> None:
    write_idx(file, grey(0, 4, 6, 5))


def packed_and_cut(file: Path) -> None:
    Path(f"{file}.gz").write_bytes(gzip.compress(file.read_bytes())[:-9])
    file.unlink()


def not_packed(file: Path) -> None:
    file.rename(f"{file}.gz")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "{file} says 4 x 5 x 5 bytes, and has 99"),
        (negative, "{file} says -4 x 5 x 5 bytes, and has 100"),
        (without_header, "{file} is no IDX file of bytes with 3 dimensions"),
        (of_floats, "{file} is no IDX file of bytes with 3 dimensions"),
        (fewer, "{folder}: t10k has 3 images and 4 labels"),
        (larger, "the images of {folder} have two sizes, 5 x 5 and 6 x 5"),
        (packed_and_cut, "{file}.gz cannot be read: "),
        (not_packed, "{file}.gz cannot be read: "),
        (Path.unlink, "{folder} has no t10k-images..."),
    ],
)
def test_corrupt_idx(damage: Callable[[Path], None], message: str, small_mnist: Path) -> None:
    file = small_mnist / "t10k-images-idx3-ubyte"
    damage(file)
    assert refused(small_mnist).startswith(message.format(file=file, folder=small_mnist))


def test_a_label_that_training_lacks(small_mnist: Path) -> None:
    write_idx(small_mnist / "t10k-labels-idx1-ubyte", grey((3, 7, 8, 7), 4))
    assert refused(small_mnist) == f"{small_mnist}: t10k has the label 8, which train has not"


def data(**counts: int) -> images.Data:
    labels = torch.repeat_interleave(torch.tensor(list(counts.values())))
    return images.Data(torch.zeros(len(labels), 1, 8, 8), labels, tuple(counts))


def test_few_images_and_classes_are_said() -> None:
    assert images.cautions(data(a=40, b=40, c=40, d=40, e=40)) == []
    assert images.cautions(data(a=5, b=0, c=4)) == [
        "9 test images: one is 11.1 points of accuracy",
        "3 classes: who always says a is right in 56%",
        "no test images of b",
    ]
    often = ["5 classes: who always says e is right in 50%"]
    assert images.cautions(data(a=50, b=50, c=50, d=50, e=200)) == often


def test_half_of_the_classes_are_learned_first(tmp_path: Path) -> None:
    write_images(tmp_path / "three", red=2, green=2, blue=2)
    said = refusal("transfer", "--data", tmp_path / "three")
    assert "has 3 classes" in said
    assert said.endswith("and needs at least 4")
    write_images(tmp_path / "four" / "train", red=2, green=2, blue=2, dark=2)
    write_images(tmp_path / "four" / "val", green=2, red=2)
    said = refusal("transfer", "--data", tmp_path / "four")
    assert said.endswith("has no images of blue, dark to test with")


def test_photographs_are_not_surrounded_by_black(folders: Path, mnist: Path) -> None:
    import augmentation

    def fill_mode(data: Path | None, fill: str | None = None) -> str:
        return augmentation.fill_mode(argparse.Namespace(data=data, fill=fill))

    assert fill_mode(folders) == "reflect"
    assert fill_mode(None) == fill_mode(mnist) == "constant"
    assert fill_mode(folders, "nearest") == "nearest"
    white = images.Data(torch.full((20, 3, 8, 8), 200, dtype=torch.uint8), torch.arange(20), ("a",))
    for fill, black in (("reflect", False), ("constant", True)):
        warp = augmentation.augmenters(white, fill, flip=True, seed=0)["with"]
        assert bool((augmentation.gallery(white, warp)[1:9, 11:] < 0.7).any()) is black
