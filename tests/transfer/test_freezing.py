"""Frozen means frozen: to the bit, for every optimizer, whatever the loop does."""

from __future__ import annotations

import copy
import io
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from onepass.transfer import check_frozen, freeze, param_groups, replace_head, unfreeze
from tests.cases import CLASSES, Case
from tests.transfer.models import VGG, ResNet, normalised

NORMS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "none": (lambda: nn.Identity(), 2),
    "1d": (lambda: nn.BatchNorm1d(4), 1),
    "1d-flat": (lambda: nn.BatchNorm1d(4), 0),
    "2d": (lambda: nn.BatchNorm2d(4), 2),
    "3d": (lambda: nn.BatchNorm3d(4), 3),
    "sync": (lambda: nn.SyncBatchNorm(4), 2),
    "no-affine": (lambda: nn.BatchNorm2d(4, affine=False), 2),
    "cumulative": (lambda: nn.BatchNorm2d(4, momentum=None), 2),
    "no-statistics": (lambda: nn.BatchNorm2d(4, track_running_stats=False), 2),
    "instance": (lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True), 2),
    "layer": (lambda: nn.GroupNorm(2, 4), 2),
}
classes = pytest.mark.parametrize("case", CLASSES, ids=str)


def batch(dimensions: int) -> Tensor:
    return torch.randn(6, *((1, *[4] * dimensions) if dimensions else (3,)))


def bits(module: nn.Module) -> dict[str, bytes]:
    return {name: t.detach().numpy().tobytes() for name, t in module.state_dict().items()}


def train(model: nn.Module, opt: Any, x: Tensor, steps: int, *, to_none: bool) -> None:
    for _ in range(steps):
        model.train()
        opt.zero_grad(set_to_none=to_none)
        nn.functional.cross_entropy(model(x), torch.arange(len(x)) % 3).backward()  # type: ignore[no-untyped-call]
        opt.step()


@classes
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("to_none", [True, False], ids=["none", "zero"])
def test_frozen_is_bit_equal(case: Case, norm: str, to_none: bool) -> None:
    make, dimensions = NORMS[norm]
    model: Any = normalised(make(), dimensions)
    x = batch(dimensions)
    model.eval()(x)  # the lazy head finds its size
    options = {"weight_decay": 0.01, **case.options}
    # The optimizer is older than the freezing: it has momentum for what is frozen.
    opt = case.kind(param_groups(model, lr=0.05), **{k: v for k, v in options.items() if k != "lr"})
    if norm != "sync":
        train(model, opt, x, 2, to_none=to_none)
    nn.functional.cross_entropy(model.eval()(x), torch.arange(6) % 3).backward()  # type: ignore[no-untyped-call]
    freeze(model, "0")  # between backward and step
    before, head = bits(model[0]), bits(model[2])
    opt.step()
    train(model, opt, x, 3, to_none=to_none)
    assert bits(model[0]) == before
    assert bits(model[2]) != head
    assert all(p.grad is None for p in model[0].parameters())

    unfreeze(model, "0")
    if norm != "sync":
        train(model, opt, x, 1, to_none=to_none)
        after = bits(model[0])
        still = {"0.bias"}  # in front of a norm it has next to no gradient
        still |= {"1.num_batches_tracked"} if norm == "instance" else set()  # torch leaves it at 0
        assert all(after[name] != before[name] for name in before.keys() - still)


def test_frozen_norms_run_in_inference() -> None:
    model: Any = ResNet()
    for _ in range(3):
        model.train()(torch.randn(8, 1, 8, 8))  # statistics that differ from those of a batch
    x = torch.randn(4, 1, 8, 8)
    expected = model.eval()(x)
    for part in ("conv1", "bn1", "layer1", "layer2"):
        freeze(model, part)
    assert torch.equal(model.train()(x), expected)
    for module in model.modules():  # whoever sets it
        module.training = True
    assert torch.equal(model(x), expected)
    for part in ("bn1", "layer1", "layer2"):
        unfreeze(model, part)
    assert not torch.equal(model.train()(x), expected)


def test_statistics_may_go_on() -> None:
    model: Any = freeze(ResNet(), "bn1", bn="stats").train()
    mean, weight = model.bn1.running_mean.clone(), model.bn1.weight.clone()
    model(torch.randn(4, 1, 8, 8)).sum().backward()
    assert not torch.equal(model.bn1.running_mean, mean)
    assert model.bn1.weight.grad is None
    assert torch.equal(model.bn1.weight, weight)


def test_norms_may_train() -> None:
    model: Any = freeze(ResNet(), "layer1")
    freeze(model, "layer1", bn="train").train()
    mean = model.layer1[0].bn1.running_mean.clone()
    model(torch.randn(4, 1, 8, 8)).sum().backward()
    assert not torch.equal(model.layer1[0].bn1.running_mean, mean)
    trainable = {n for n, p in model.layer1.named_parameters() if p.requires_grad}
    assert trainable == {n for n, _ in model.layer1.named_parameters() if "bn" in n}
    freeze(model, "layer1")
    assert not any(p.requires_grad for p in model.layer1.parameters())


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_copies_stay_frozen(how: str) -> None:
    model: Any = freeze(ResNet(), "layer1")
    if how == "deepcopy":
        twin = copy.deepcopy(model)
    else:
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        twin = torch.load(file, weights_only=False)
    before = bits(twin.layer1)
    twin.train()(torch.randn(4, 1, 8, 8)).sum().backward()
    assert bits(twin.layer1) == before
    unfreeze(twin, "layer1").train()(torch.randn(4, 1, 8, 8))
    assert bits(twin.layer1) != before
    original = bits(model.layer1)
    model.train()(torch.randn(4, 1, 8, 8))
    assert bits(model.layer1) == original  # its own guards are still there


def test_compiled_models_stay_frozen() -> None:
    model: Any = freeze(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), "1")
    compiled: Any = torch.compile(model, backend="eager")
    x = torch.randn(4, 1, 8, 8)
    before, expected = bits(model[1]), model.eval()(x)
    for _ in range(3):
        model.train()
        torch.testing.assert_close(compiled(x), expected)
    assert bits(model[1]) == before


def test_parts_by_module_name_and_parameter() -> None:
    for part in ("features", None):
        model: Any = VGG()
        freeze(model, part or model.features)
        frozen = [n for n, p in model.named_parameters() if not p.requires_grad]
        assert frozen == [
            "features.0.weight",
            "features.0.bias",
            "features.3.weight",
            "features.3.bias",
        ]
        unfreeze(model, "features.3")
        frozen = [n for n, p in model.named_parameters() if not p.requires_grad]
        assert frozen == ["features.0.weight", "features.0.bias"]
    model = freeze(VGG(), "features.0.bias")
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["features.0.bias"]
    assert not any(p.requires_grad for p in freeze(model, "").parameters())
    resnet: Any = freeze(ResNet(), "bn1.weight")  # one weight: the statistics are not part of it
    mean = resnet.bn1.running_mean.clone()
    resnet.train()(torch.randn(4, 1, 8, 8))
    assert not torch.equal(resnet.bn1.running_mean, mean)


def test_unfreezing_does_not_train_what_never_trained() -> None:
    model: Any = VGG()
    model.features[0].bias.requires_grad_(False)
    for parts in itertools.permutations(["features", "features.0", "features.0.bias"]):
        for part in parts:
            freeze(model, part)
        unfreeze(model, "features")
        assert [n for n, p in model.named_parameters() if not p.requires_grad] == [
            "features.0.bias"
        ]
    model.features.requires_grad_(False)
    unfreeze(model, "features")  # what torch froze, all of it
    assert all(p.requires_grad for p in model.parameters())


def test_freezing_twice_needs_one_unfreezing() -> None:
    model: Any = freeze(freeze(ResNet(), "layer1"), "layer1")
    assert len(model.layer1[0].bn1._forward_pre_hooks) == 1
    unfreeze(model, "layer1")
    assert not model.layer1[0].bn1._forward_pre_hooks
    assert model.layer1[0].bn1.training


def test_tied_weights_freeze_together() -> None:
    model: Any = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    model["b"].weight = model["a"].weight
    freeze(model, "a")
    assert [n for n, p in model.named_parameters() if p.requires_grad] == ["b.bias"]


def test_new_heads_are_not_frozen() -> None:
    model: Any = replace_head(freeze(VGG(), ""), 3)
    assert [n for n, p in model.named_parameters() if p.requires_grad] == [
        "classifier.3.weight",
        "classifier.3.bias",
    ]


@pytest.mark.parametrize(
    ("part", "error", "match"),
    [
        ("feature", ValueError, "part must be .*'feature'; it has features, avgpool, classifier"),
        ("features.0.w", ValueError, "'features.0.w'"),
        (nn.Linear(1, 1), ValueError, "a Linear that is not in it"),
        (3, TypeError, "dotted name or a module, got 3"),
    ],
)
def test_no_such_part(part: Any, error: type[Exception], match: str) -> None:
    for change in (freeze, unfreeze):
        with pytest.raises(error, match=match):
            change(VGG(), part)


def test_no_such_mode() -> None:
    with pytest.raises(
        ValueError, match="bn must be one of 'inference', 'stats', 'train', got 'eval'"
    ):
        freeze(VGG(), "features", bn="eval")  # type: ignore[arg-type]


def test_check_finds_what_moved() -> None:
    model: Any = freeze(ResNet(), "layer1")
    with check_frozen(model):
        model.train()(torch.randn(4, 1, 8, 8))  # the other statistics may move
    with (
        pytest.raises(RuntimeError, match=r"frozen, but changed: layer1\.0\.conv1\.weight$"),
        check_frozen(model),
        torch.no_grad(),
    ):
        model.layer1[0].conv1.weight[0, 0, 0, 0] += 1e-6
    with (
        pytest.raises(RuntimeError, match=r"layer2\.0\.bn1\.running_mean"),
        check_frozen(model, "layer2"),
    ):
        model(torch.randn(4, 1, 8, 8))
    model.layer1[0].bn1.running_mean.zero_()
    with pytest.raises(RuntimeError, match="running_mean"), check_frozen(model):
        model.layer1[0].bn1.running_mean.neg_()  # the sign of zero is a bit as well
    model.layer1[0].bn1.running_mean.fill_(float("nan"))
    with check_frozen(model):
        pass


def test_check_lets_errors_through() -> None:
    model: Any = freeze(VGG(), "features")

    def fail() -> None:
        with check_frozen(model):
            model.features[0].weight.data += 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


class RunningMaximum(nn.Linear):
    """Keeps what only its author knows of."""

    largest: Tensor

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.register_buffer("largest", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.largest.copy_(torch.maximum(self.largest, x.abs().max()))
        return super().forward(x)


def test_check_finds_state_that_freezing_does_not_know() -> None:
    model: Any = nn.Sequential(RunningMaximum(), nn.Linear(4, 1))
    freeze(model, "0")
    with pytest.raises(RuntimeError, match=r"0\.largest"), check_frozen(model):
        model(torch.randn(2, 4))
    with pytest.raises(RuntimeError, match=r"1\.weight"), check_frozen(model, "1"):
        model[1] = nn.Linear(1, 4)


# Layers that write as they run


@pytest.mark.parametrize("how", ["parametrization", "hook"])
@pytest.mark.filterwarnings("ignore:.*spectral_norm.*:FutureWarning")
def test_spectral_norm_stops_to_refine(how: str) -> None:
    kinds: dict[str, Any] = {
        "parametrization": nn.utils.parametrizations.spectral_norm,
        "hook": nn.utils.spectral_norm,
    }
    model: Any = nn.Sequential(kinds[how](nn.Linear(4, 4)), nn.Linear(4, 1))
    x = torch.randn(6, 4)
    model(x)
    freeze(model, "0")
    before = bits(model[0])
    with check_frozen(model):
        outputs = []
        for _ in range(3):
            model.train()
            outputs.append(model[0](x))
    assert bits(model[0]) == before
    assert all(torch.equal(y, outputs[0]) for y in outputs)
    assert model[1].training
    unfreeze(model, "0").train()
    model(x)
    assert bits(model[0]) != before


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_tables_that_are_shortened_as_they_run(kind: Any) -> None:
    model: Any = nn.ModuleDict({"words": kind(5, 3, max_norm=0.1), "head": nn.Linear(3, 1)})
    for part in ("words", "words.weight", model):
        with pytest.raises(ValueError, match=rf"'words' is a {kind.__name__} with max_norm=0.1"):
            freeze(model, part)
        assert all(p.requires_grad for p in model.parameters())
    model["words"].max_norm = None
    freeze(model, "words")
    with check_frozen(model):
        model["words"](torch.tensor([[0, 4]]))


# Lazy layers


def test_lazy_layers_are_refused_before_anything_is_changed() -> None:
    model: Any = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.BatchNorm1d(4), nn.LazyLinear(2)))
    for part in ("1", "1.1", model):
        with pytest.raises(ValueError, match=r"'1\.1' is a LazyLinear that has not seen an input"):
            freeze(model, part)
    with pytest.raises(ValueError, match=r"'1\.1' is a LazyLinear"):
        param_groups(model, lr=0.1)
    assert model[0].weight.requires_grad
    freeze(model, "0")
    model(torch.randn(6, 3))
    before = bits(freeze(model, "1"))
    model.train()(torch.randn(6, 3))
    assert bits(model) == before
    assert len(param_groups(unfreeze(model, "1"), lr=0.1)) == 2


# What becomes of a frozen model


def frozen() -> tuple[Any, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2))
    model(torch.randn(6, 1, 4, 4))
    return freeze(freeze(model, "0"), "1"), torch.randn(6, 1, 4, 4)


@pytest.mark.filterwarnings("ignore:.*jit.*:DeprecationWarning", "ignore:.*jit.*:FutureWarning")
@pytest.mark.parametrize("training", [True, False])
def test_scripted_models_stay_frozen(training: bool) -> None:
    model, x = frozen()
    want = model.eval()(x)
    scripted: Any = torch.jit.script(model.train(training))
    before = bits(scripted)
    scripted.train(training)
    torch.testing.assert_close(scripted(x), want)
    assert bits(scripted) == before


@pytest.mark.filterwarnings("ignore:.*jit.*:DeprecationWarning", "ignore:.*jit.*:FutureWarning")
@pytest.mark.parametrize("how", ["trace", "export", "fx"])
def test_other_forms_of_a_model(how: str) -> None:
    model, x = frozen()
    want = model.eval()(x)
    form: Any
    if how == "trace":
        form = torch.jit.trace(model, x)  # type: ignore[no-untyped-call]
    elif how == "export":
        form = torch.export.export(model, (x,)).module()
    else:
        form = torch.fx.symbolic_trace(model)
    torch.testing.assert_close(form(x), want)


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning"
)
def test_quantisation_aware_training_comes_before() -> None:
    """It puts new BatchNorm layers in the place of those that it finds; what is frozen afterwards stays so."""
    quantization = pytest.importorskip("torch.ao.quantization")
    model, x = frozen()
    fresh: Any = nn.Sequential(*(unfreeze(unfreeze(model, "0"), "1")))
    fresh.train()
    fresh.qconfig = quantization.get_default_qat_qconfig("fbgemm")
    quantization.fuse_modules_qat(fresh, [["0", "1"]], inplace=True)
    quantization.prepare_qat(fresh, inplace=True)
    fresh(x)
    freeze(fresh, "0.bn")
    freeze(fresh, "0")
    before = {k: v for k, v in bits(fresh).items() if k == "0.weight" or k.startswith("0.bn")}
    assert len(before) >= 5
    for _ in range(2):
        fresh.train()
        fresh(x).sum().backward()
    assert {k: v for k, v in bits(fresh).items() if k in before} == before
