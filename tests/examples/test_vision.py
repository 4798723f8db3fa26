"""Transfer with a network of torchvision: one that looks like VGG16, and the real ones where they are installed."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.examples.conftest import write_images
from tests.examples.running import here, refusal


class Small(nn.Module):
    """Parameters by the names of VGG16's, few channels."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Identity() for _ in range(31)]
        channels = [3, *[4] * 12, 512]
        for i, at in enumerate((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)):
            layers[at] = nn.Conv2d(channels[i], channels[i + 1], 1)
            layers[at + 1] = nn.ReLU()
        for at in (4, 9, 16, 23, 30):
            layers[at] = nn.MaxPool2d(2)
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(nn.Linear(512 * 49, 8), nn.ReLU(), nn.Linear(8, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return scores


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Put a torchvision in the place of the real one; it cannot download."""
    made = types.ModuleType("torchvision.models")

    def get_model(name: str, weights: str | None) -> nn.Module:
        assert name == "vgg16"
        if weights is not None:
            message = "no network"
            raise OSError(message)
        return Small()

    def get_model_weights(_name: str) -> Any:
        default = types.SimpleNamespace(url="https://example.org/vgg16.pth")
        return types.SimpleNamespace(DEFAULT=default)

    vars(made).update(get_model=get_model, get_model_weights=get_model_weights)
    torchvision = types.ModuleType("torchvision")
    vars(torchvision).update(models=made)
    monkeypatch.setitem(sys.modules, "torchvision", torchvision)
    return made


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    write_images(tmp_path / "photographs" / "train", red=4, green=4)
    return write_images(tmp_path / "photographs" / "val", red=1, green=2).parent


def options(photographs: Path, weights: object) -> tuple[object, ...]:
    data = ("--data", photographs, "--size", 64)
    return ("--fast", "--model", "vgg16", *data, "--weights", weights)


@pytest.mark.usefixtures("models")
def test_the_head_then_everything(photographs: Path) -> None:
    output = here("transfer", *options(photographs, "none"))
    assert "8 images (3 x 64 x 64) to train on, 3 to test with, 2 classes" in output
    assert "3 test images: one is 33.3 points of accuracy" in output
    for stage in ("new head, untrained", "base frozen", "gradually unfrozen"):
        assert re.search(rf"{stage} \d+\.\d\d%", output)
    assert "features.28, features.2?.* " in output


def test_the_head_of_the_textbook(models: types.ModuleType) -> None:
    import transfer
    from onepass.transfer import freeze

    model = models.get_model("vgg16", weights=None)
    transfer.new_head(freeze(model, model), "vgg16", 3)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad}
    assert shapes == {
        "classifier.0.weight": (1024, 512),
        "classifier.0.bias": (1024,),
        "classifier.2.weight": (3, 1024),
        "classifier.2.bias": (3,),
    }
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 3)


def test_weights_of_a_file(models: types.ModuleType, tmp_path: Path) -> None:
    import transfer

    file, saved = tmp_path / "vgg16.pth", models.get_model("vgg16", weights=None).state_dict()
    torch.save(saved, file)
    loaded = transfer.pretrained(models, "vgg16", str(file)).state_dict()
    assert loaded.keys() == saved.keys()
    assert all(torch.equal(loaded[name], saved[name]) for name in saved)


@pytest.mark.usefixtures("models")
def test_files_that_are_no_weights(photographs: Path, tmp_path: Path) -> None:
    file = tmp_path / "vgg16.pth"
    torch.save({"features.0.weight": torch.zeros(1)}, file)
    assert refusal("transfer", *options(photographs, file)).startswith(
        f"--weights: {file} is no state_dict of vgg16: "
    )
    file.write_bytes(b"no weights")
    assert refusal("transfer", *options(photographs, file)).startswith(
        f"--weights: {file} is no state_dict of vgg16: "
    )


@pytest.mark.usefixtures("models")
def test_without_a_network(photographs: Path) -> None:
    said = "--weights imagenet: https://example.org/vgg16.pth cannot be had: no network"
    assert refusal("transfer", *options(photographs, "imagenet")).startswith(said)


def test_without_torchvision(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    said = refusal("transfer", *options(photographs, "none"))
    assert "torchvision" in said
    assert "; needs pip install -c constraints.txt '.[vision]' in the clone" in said
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert "\nvision = [" in project


def test_torchvision_of_another_torch(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            message = "operator torchvision::nms does not exist"
            raise RuntimeError(message)

    monkeypatch.setitem(sys.modules, "torchvision", Broken("torchvision"))
    said = refusal("transfer", *options(photographs, "none"))
    assert said.startswith(f"torchvision is built for another torch than {torch.__version__}")


def test_the_pinned_versions_go_together() -> None:
    """Torchvision 0.15 was made for torch 2.0, and each for the next one since; pip refuses other pairs."""
    pins = (Path(__file__).parents[2] / "constraints.txt").read_text()
    found = re.search(r"^torch==2\.(\d+)\.\d+$", pins, re.MULTILINE)
    assert found is not None
    assert f"\ntorchvision==0.{15 + int(found[1])}." in pins


@pytest.mark.parametrize("weights", ["file", "imagenet"])
def test_real_weights(
    weights: str, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file lies where torchvision keeps what it has downloaded."""
    try:
        from torchvision import models
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"no torchvision for this torch: {error}")
    import transfer

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = models.get_model_weights("resnet18").DEFAULT.url
    file = tmp_path / "hub" / "checkpoints" / Path(url).name
    file.parent.mkdir(parents=True)
    saved = models.get_model("resnet18", weights=None).state_dict()
    torch.save(saved, file)
    given = str(file) if weights == "file" else "imagenet"
    loaded = transfer.pretrained(models, "resnet18", given).state_dict()
    assert all(torch.equal(loaded[name], saved[name]) for name in saved)
    data = ("--data", photographs, "--size", 64)
    output = here("transfer", "--fast", "--model", "resnet18", *data, "--weights", given)
    assert "gradually unfrozen" in output
