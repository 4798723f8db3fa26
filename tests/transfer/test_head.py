"""The new head: where it goes, what it is like, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from onepass.transfer import replace_head
from tests.transfer.models import VGG, Block, ResNet, Transformer, TransformerBlock


def changed(before: dict[str, nn.Module], model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if before.get(name) is not module]


@pytest.mark.parametrize(
    ("model", "head"),
    [
        (VGG(), "classifier.3"),
        (VGG(norm=True), "classifier.3"),
        (ResNet(), "fc"),
        (Transformer(), "head"),
        (nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), "3"),
        (nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2), nn.BatchNorm1d(2)), "1"),
        (nn.ModuleDict({"net": ResNet()}), "net.fc"),
        (nn.Sequential(nn.Identity(), VGG()), "1.classifier.3"),
    ],
    ids=lambda x: x if isinstance(x, str) else type(x).__name__,
)
def test_the_last_linear(model: nn.Module, head: str) -> None:
    before = dict(model.named_modules())
    old = before[head]
    assert replace_head(model, 17) is model
    assert changed(before, model) == [head]
    new = model.get_submodule(head)
    assert isinstance(new, nn.Linear)
    assert isinstance(old, nn.Linear)
    assert (new.in_features, new.out_features) == (old.in_features, 17)
    assert (new.bias is None) == (old.bias is None)


def test_it_runs() -> None:
    for model in (VGG(), ResNet()):
        assert replace_head(model, 5)(torch.rand(3, 1, 8, 8)).shape == (3, 5)


def test_it_is_like_the_old_one() -> None:
    model: Any = VGG().double().eval()
    model.requires_grad_(False)
    torch.manual_seed(3)
    new = replace_head(model, 3).classifier[3]
    assert new.weight.dtype == torch.float64
    assert new.weight.requires_grad
    assert not new.training
    torch.manual_seed(3)
    assert torch.equal(new.weight, nn.Linear(5, 3, dtype=torch.float64).weight)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_convolutions_by_name(dimensions: int) -> None:
    kind: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1]
    old = kind(4, 7, 3, stride=2, padding=1, dilation=2, bias=False, padding_mode="reflect")
    model: Any = nn.ModuleDict(
        {"classifier": nn.Sequential(nn.Dropout(), old, nn.ReLU()), "z": nn.Linear(1, 1)}
    )
    new: Any = replace_head(model, 3, "classifier")["classifier"][1]
    assert str(new) == str(old).replace("7", "3", 1)
    assert new.weight.shape == (3, 4, *[3] * dimensions)


def test_by_name() -> None:
    model = ResNet()
    model.aux = nn.Sequential(nn.Linear(3, 9), nn.Linear(9, 9))
    for name, head in (("fc", "fc"), ("aux", "aux.1"), ("aux.0", "aux.0")):
        before = dict(model.named_modules())
        replace_head(model, 4, name)
        assert changed(before, model) == [head]


@pytest.mark.parametrize(
    ("model", "name", "match"),
    [
        (
            nn.Sequential(nn.Linear(2, 2), nn.Conv2d(1, 1, 1)),
            None,
            "found '1', a Conv2d: give the name",
        ),
        (nn.Sequential(*(TransformerBlock(4) for _ in range(2))), None, "'1', a TransformerBlock"),
        (nn.Sequential(Block(1, 1), Block(1, 2)), None, "'1', a Block"),
        (nn.Flatten(), None, "found none"),
        (VGG(), "head", "name must be the name of .*'head'"),
        (VGG(), "avgpool", "name must be that of a Linear or convolution.*'avgpool'"),
        (VGG(), "classifier.3.weight", "name must be that of a Linear.*'classifier.3.weight'"),
        (nn.Linear(2, 2), "", "nothing else"),
    ],
    ids=str,
)
def test_no_such_layer(model: nn.Module, name: str | None, match: str) -> None:
    before = dict(model.named_modules())
    with pytest.raises(ValueError, match=match):
        replace_head(model, 3, name)
    assert not changed(before, model)


@pytest.mark.parametrize(
    ("number", "error"), [(0, ValueError), (-1, ValueError), (2.0, TypeError), (True, TypeError)]
)
def test_number_of_classes(number: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"num_classes must be an integer >= 1, got {number}"):
        replace_head(VGG(), number)


def lazy_head() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.LazyLinear(7))


@pytest.mark.parametrize(
    ("name", "match"),
    [(None, "found '1', a LazyLinear"), ("1", "'1' is a LazyLinear that has not seen an input")],
)
def test_lazy_heads_are_refused(name: str | None, match: str) -> None:
    model: Any = lazy_head()
    before = list(model)
    with pytest.raises(ValueError, match=match):
        replace_head(model, 2, name)
    assert list(model) == before
    model(torch.randn(2, 3))
    assert replace_head(model, 2, name)[1].in_features == 4


def test_lazy_bodies_do_not_matter() -> None:
    model: Any = nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.Linear(16, 7))
    assert replace_head(model, 2)[-1].out_features == 2


def test_a_new_head_is_a_plain_layer() -> None:
    old = nn.utils.parametrizations.weight_norm(nn.Linear(4, 7, bias=False))
    model: Any = nn.Sequential(nn.Linear(3, 4), nn.Sequential(old))
    new: Any = replace_head(model, 2, "1")[1][0]
    assert type(new) is nn.Linear
    assert (new.in_features, new.out_features, new.bias is None) == (4, 2, True)
