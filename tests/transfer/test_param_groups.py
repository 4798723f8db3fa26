"""Parameter groups: what is in them, what they are called, what is refused."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler

import onepass
from onepass.schedule import Cosine, as_torch_scheduler
from onepass.transfer import param_groups
from tests.cases import CLASSES, Case
from tests.transfer.models import VGG, ResNet, Transformer

classes = pytest.mark.parametrize("case", CLASSES, ids=str)


def held(groups: list[dict[str, Any]]) -> list[tuple[str, nn.Parameter]]:
    return [pair for group in groups for pair in group["params"]]


def sizes(groups: list[dict[str, Any]]) -> dict[str, tuple[float, list[str]]]:
    return {g["name"]: (g["lr_factor"], [n for n, _ in g["params"]]) for g in groups}


def test_table_of_vgg() -> None:
    model = VGG(norm=True)
    rules: list[tuple[str, dict[str, Any]]] = [
        ("features.*", {"lr_factor": 0.1, "train_from": 100}),
        ("classifier.3.*", {"name": "head", "weight_decay": 0.1}),
    ]
    groups = param_groups(model, rules, lr=0.01, weight_decay=0.05)
    assert str(groups) == (
        "group                 tensors  numbers     lr  lr_factor  weight_decay  options\n"
        "features.*                  2      252  0.001        0.1          0.05  train_from=100\n"
        "features.*, no decay        6       30  0.001        0.1             0  train_from=100\n"
        "rest                        1       30   0.01          1          0.05\n"
        "rest, no decay              1        5   0.01          1             0\n"
        "head                        1       50   0.01          1           0.1\n"
        "head, no decay              1       10   0.01          1             0\n"
        "total                      12      377"
    )
    before = str(groups)
    onepass.SGD(groups)  # fills the groups with its defaults, and parts names from parameters
    assert str(groups) == before
    assert repr(groups).startswith("<ParamGroups: 'features.*', 'features.*, no decay', 'rest'")
    assert str(copy.deepcopy(groups)) == str(pickle.loads(pickle.dumps(groups))) == before


def test_table_of_resnet() -> None:
    groups = param_groups(ResNet(), lr=1.0, layer_decay=0.5)
    assert str(groups) == (
        "group               tensors  numbers       lr  lr_factor  weight_decay\n"
        "conv1                     1       36  0.03125    0.03125       default\n"
        "conv1, no decay           2        8  0.03125    0.03125             0\n"
        "layer1.0                  2      288   0.0625     0.0625       default\n"
        "layer1.0, no decay        4       16   0.0625     0.0625             0\n"
        "layer1.1                  2      288    0.125      0.125       default\n"
        "layer1.1, no decay        4       16    0.125      0.125             0\n"
        "layer2.0                  3      564     0.25       0.25       default\n"
        "layer2.0, no decay        6       36     0.25       0.25             0\n"
        "layer2.1                  2      648      0.5        0.5       default\n"
        "layer2.1, no decay        4       24      0.5        0.5             0\n"
        "fc                        1       60        1          1       default\n"
        "fc, no decay              1       10        1          1             0\n"
        "total                    32     1994"
    )


def test_layers_of_vgg() -> None:
    for norm in (False, True):
        groups = param_groups(VGG(norm=norm), lr=1.0, layer_decay=0.5, no_decay=None)
        last = "features.4" if norm else "features.3"
        names = ["features.0", last, "classifier.0", "classifier.3"]
        assert [(g["name"], g["lr"]) for g in groups] == list(
            zip(names, (0.125, 0.25, 0.5, 1.0), strict=True)
        )
        assert len(groups[0]["params"]) == (4 if norm else 2)  # the norm goes with its convolution


def test_layers_of_a_transformer() -> None:
    groups = param_groups(Transformer(), lr=1.0, layer_decay=0.5, no_decay=None)
    found = sizes(groups)
    assert {name: factor for name, (factor, _) in found.items()} == {
        "embedding": 0.125,
        "blocks.0": 0.25,
        "blocks.1": 0.5,
        "head": 1.0,
    }
    assert found["embedding"][1] == ["position", "embedding.weight"]
    assert found["head"][1] == ["norm.weight", "norm.bias", "head.weight"]


class Wrapped(nn.Module):
    """A body and a head around another model."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.top = nn.Linear(10, 2)


@pytest.mark.parametrize("body", [VGG, ResNet])
def test_layers_through_wrappers(body: type[nn.Module]) -> None:
    inner = [g["name"] for g in param_groups(body(), lr=1.0, layer_decay=0.5, no_decay=None)]
    for model, path in (
        (nn.Sequential(nn.Identity(), body()), "1."),
        (nn.ModuleDict({"net": body()}), "net."),
    ):
        groups = param_groups(model, lr=1.0, layer_decay=0.5, no_decay=None)
        assert [g["name"] for g in groups] == [path + name for name in inner]
    groups = param_groups(Wrapped(body()), lr=1.0, layer_decay=0.5, no_decay=None)
    joined = inner[:-1] if body is ResNet else inner  # what follows the last list is one layer
    assert [g["name"] for g in groups][: len(joined)] == [f"body.{name}" for name in joined]
    assert groups[-1]["lr"] == 1.0
    assert "top.weight" in [n for n, _ in groups[-1]["params"]]


class Unlisted(nn.Module):
    """Blocks beside one another, not in a list; each has a list inside."""

    def __init__(self) -> None:
        super().__init__()
        self.block1 = TransformerLike()
        self.block2 = TransformerLike()
        self.out = nn.Linear(2, 2)


class TransformerLike(nn.Module):
    """A module with a row of layers inside."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))


def test_modules_of_one_class_are_blocks() -> None:
    groups = param_groups(Unlisted(), lr=1.0, layer_decay=0.5, no_decay=None)
    assert [(g["name"], g["lr"]) for g in groups] == [("block1", 0.25), ("block2", 0.5), ("out", 1)]


def test_lists_inside_blocks_are_not_taken_apart() -> None:
    """As in EfficientNet: stages of one block, whose parts are in a list."""

    def block() -> nn.Module:
        row = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
        return nn.ModuleDict({"block": nn.Sequential(row, TransformerLike())})

    stages = nn.Sequential(nn.Sequential(block()), nn.Sequential(block(), block()))
    model = nn.ModuleDict({"features": stages, "classifier": nn.Linear(1, 1)})
    groups = param_groups(model, lr=1.0, layer_decay=0.5, no_decay=None)
    assert [g["name"] for g in groups] == [
        "features.0.0",
        "features.1.0",
        "features.1.1",
        "classifier",
    ]


def test_rows_of_layers_are_one_layer() -> None:
    rows = [nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.ReLU()) for _ in range(3)]
    groups = param_groups(nn.Sequential(*rows), lr=1.0, layer_decay=0.5, no_decay=None)
    assert [g["name"] for g in groups] == ["0", "1", "2"]


def test_frozen_layers_leave_the_factors_alone() -> None:
    model = ResNet()
    model.layer1.requires_grad_(False)
    groups = param_groups(model, lr=1.0, layer_decay=0.5)
    assert groups[0]["name"] == "conv1"
    assert groups[0]["lr"] == 0.5**5


class Kinds(nn.Module):
    """One parameter of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Linear(3, 3)
        self.batch = nn.BatchNorm1d(3)
        self.layer = nn.LayerNorm((3, 3))  # weights of two dimensions
        self.group = nn.GroupNorm(1, 3)
        self.instance = nn.InstanceNorm1d(3, affine=True)
        self.root = nn.RMSNorm(3)
        self.own = LlamaRMSNorm(3)
        self.gate = nn.Parameter(torch.ones(3))
        self.temperature = nn.Parameter(torch.tensor(1.0))
        self.slope = nn.PReLU()
        self.attention = nn.MultiheadAttention(4, 2)
        self.wide = WideBias()


class LlamaRMSNorm(nn.Module):
    """A norm that torch does not know."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))


class WideBias(nn.Module):
    """A bias that broadcasts."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 2))
        self.bias = nn.Parameter(torch.ones(1, 2, 1, 1))


@pytest.mark.parametrize(
    ("no_decay", "expected"),
    [
        (None, set()),
        ("norm", {"batch", "layer", "group", "instance", "root", "own"}),
        ("bias", {"plain", "gate", "temperature", "slope", "attention", "wide"}),
        (
            "norm+bias",
            {"batch", "layer", "group", "instance", "root", "own"}
            | {"plain", "gate", "temperature", "slope", "attention", "wide"},
        ),
    ],
)
def test_norms_and_biases_do_not_decay(no_decay: Any, expected: set[str]) -> None:
    groups = param_groups(Kinds(), lr=0.1, no_decay=no_decay, weight_decay=0.1, l1_decay=0.01)
    spared = {n for g in groups if g["weight_decay"] == 0 for n, _ in g["params"]}
    assert {name.partition(".")[0] for name in spared} == expected
    assert all((g["l1_decay"] == 0) == (g["weight_decay"] == 0) for g in groups)
    weights = {
        "plain.weight",
        "attention.in_proj_weight",
        "attention.out_proj.weight",
        "wide.weight",
    }
    assert not weights & spared


def test_options_of_the_optimizer_do_not_reach_what_is_spared() -> None:
    opt = onepass.SGD(param_groups(nn.Linear(2, 2), lr=0.1), l1_decay=0.1, weight_decay=0.1)
    assert [(g["l1_decay"], g["weight_decay"]) for g in opt.param_groups] == [(0.1, 0.1), (0, 0)]


def test_tied_weights_come_once_and_under_any_name() -> None:
    model = Transformer(tied=True)
    names = [n for n, _ in held(param_groups(model, lr=0.1))]
    assert "embedding.weight" in names
    assert "head.weight" not in names
    groups = param_groups(model, [("head.*", {"lr_factor": 0.5})], lr=0.1)
    assert [n for n, _ in groups[1]["params"]] == ["embedding.weight"]
    with pytest.raises(ValueError, match=r"'embedding\.\*' and 'head\.\*' both match .*embedding"):
        param_groups(model, [("embedding.*", {}), ("head.*", {})], lr=0.1)


def test_shared_modules_come_once() -> None:
    shared = nn.Linear(2, 2)
    groups = param_groups(nn.ModuleList([shared, nn.ReLU(), shared]), lr=0.1, layer_decay=0.5)
    assert sorted(n for n, _ in held(groups)) == ["0.bias", "0.weight"]


@st.composite
def trees(draw: Any, depth: int = 3) -> nn.Module:
    """Return a random tree of modules: lists, wrappers, norms, shared and frozen leaves."""
    leaves = (
        lambda: nn.Linear(2, 2),
        lambda: nn.BatchNorm1d(2),
        lambda: nn.LayerNorm(2),
        lambda: nn.Linear(2, 2).requires_grad_(False),
        lambda: nn.ReLU(),
        lambda: nn.Embedding(3, 2),
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)),
    )
    if depth == 0 or draw(st.booleans()):
        leaf: nn.Module = draw(st.sampled_from(leaves))()
        return leaf
    children = draw(st.lists(trees(depth - 1), max_size=4))
    if children and draw(st.booleans()):
        children.append(draw(st.sampled_from(children)))  # a shared module
    kind = draw(st.sampled_from(["sequential", "list", "module"]))
    if kind == "sequential":
        return nn.Sequential(*children)
    if kind == "list":
        return nn.ModuleList(children)
    module = nn.Module()
    for i, child in enumerate(children):
        module.add_module(f"child{i}", child)
    if draw(st.booleans()):
        module.loose = nn.Parameter(torch.zeros(draw(st.sampled_from([(), (2,), (2, 2)]))))
    if children and draw(st.booleans()):
        linears = [m for m in module.modules() if type(m) is nn.Linear]
        for one, other in itertools.pairwise(linears):
            other.weight = one.weight  # tied
    return module


@given(trees(), st.sampled_from([None, 0.5, 1.0]), st.sampled_from([None, "norm", "norm+bias"]))
def test_every_trainable_parameter_once(
    model: nn.Module, layer_decay: float | None, no_decay: Any
) -> None:
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    if not trainable:
        with pytest.raises(ValueError, match="trainable"):
            param_groups(model, lr=0.1, layer_decay=layer_decay, no_decay=no_decay)
        return
    groups = param_groups(model, lr=0.1, layer_decay=layer_decay, no_decay=no_decay)
    assert len({id(p) for _, p in held(groups)}) == len(held(groups)) == len(trainable)
    assert {n: id(p) for n, p in held(groups)} == {n: id(p) for n, p in trainable.items()}
    assert all(group["params"] for group in groups)
    assert len({group["name"] for group in groups}) == len(groups)
    assert all(0 < group["lr_factor"] <= 1 for group in groups)
    if layer_decay == 0.5:
        factors = [group["lr_factor"] for group in groups]
        assert factors == sorted(factors)
    assert str(groups).count("\n") == len(groups) + 1


@classes
def test_optimizers_take_them(case: Case) -> None:
    for kind in (case.kind, case.torch_kind):
        model = VGG(norm=True)
        groups = param_groups(model, lr=0.01)
        assert isinstance(groups, list)
        assert isinstance(groups[0], dict)
        opt = kind(groups, **{k: v for k, v in case.options.items() if k != "lr"})
        names = [n for g in opt.param_groups for n in g["param_names"]]
        assert sorted(names) == sorted(n for n, _ in model.named_parameters())
        model(torch.rand(4, 1, 8, 8)).sum().backward()
        opt.step()
        opt.load_state_dict(opt.state_dict())


SCHEDULERS: dict[str, Any] = {
    "step": lambda opt: lr_scheduler.StepLR(opt, 2),
    "exponential": lambda opt: lr_scheduler.ExponentialLR(opt, 0.9),
    "cosine": lambda opt: lr_scheduler.CosineAnnealingLR(opt, 7),
    "linear": lambda opt: lr_scheduler.LinearLR(opt, 0.1, total_iters=4),
    "polynomial": lambda opt: lr_scheduler.PolynomialLR(opt, 9, 2.0),
    "lambda": lambda opt: lr_scheduler.LambdaLR(opt, lambda t: 1 / (1 + t)),
    "sequential": lambda opt: lr_scheduler.SequentialLR(
        opt, [lr_scheduler.LinearLR(opt), lr_scheduler.StepLR(opt, 1)], [3]
    ),
    "ours": lambda opt: as_torch_scheduler(opt, Cosine(0.3, 8).warmup(2)),
}


@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS)
@pytest.mark.parametrize("tensor", [False, True])
def test_schedulers_keep_the_ratios(make: Any, tensor: bool) -> None:
    lr = torch.tensor(0.1) if tensor else 0.1
    groups = param_groups(ResNet(), [("fc.*", {"lr_factor": 2.0})], lr=lr, layer_decay=0.7)
    opt = onepass.SGD(groups)
    scheduler = make(opt)
    seen = set()
    for _ in range(6):
        opt.step()
        scheduler.step()
        rates = [float(g["lr"]) / g["lr_factor"] for g in opt.param_groups]
        assert rates == pytest.approx([rates[0]] * len(rates), rel=1e-5)
        seen.add(rates[0])
    assert len(seen) > 1


def test_factors_apply_to_schedules() -> None:
    s = Cosine(0.1, 10).warmup(3)
    model = ResNet()
    groups = param_groups(model, lr=s, layer_decay=0.5, weight_decay=Cosine(0.1, 10), no_decay=None)
    assert [g["lr"] for g in groups[:-1]] == [s * 0.5**k for k in range(5, 0, -1)]
    assert groups[-1]["lr"] == s  # the schedule itself, as without groups
    opt = onepass.AdamW(groups)
    for t in range(5):
        assert [g["lr"] for g in opt.param_groups] == [s(t) * 0.5**k for k in range(5, -1, -1)]
        assert {g["weight_decay"] for g in opt.param_groups} == {Cosine(0.1, 10)(t)}
        model(torch.rand(2, 1, 8, 8)).sum().backward()
        opt.step()


def test_tensor_rates_are_not_shared() -> None:
    lr = torch.tensor(0.1)
    groups = param_groups(nn.Linear(2, 2), lr=lr)
    assert len({id(g["lr"]) for g in groups} | {id(lr)}) == 3


def test_rates_of_rules() -> None:
    model = VGG()
    rules: list[tuple[str, dict[str, Any]]] = [
        ("features.*", {"lr": 0.5}),
        ("classifier.0.*", {"lr_factor": 0.5}),
    ]
    groups = param_groups(model, rules, lr=2.0, layer_decay=0.1, no_decay=None)
    assert [(g["name"], g["lr"], g["lr_factor"]) for g in groups] == [
        ("features.0, features.*", 0.5, 0.25),
        ("features.3, features.*", 0.5, 0.25),
        ("classifier.0, classifier.0.*", pytest.approx(0.1), pytest.approx(0.05)),
        ("classifier.3", 2.0, 1.0),
    ]
    groups = param_groups(model, [("features.*", {"lr": Cosine(0.1, 5)})], lr=2.0)
    assert groups[0]["lr"] == Cosine(0.1, 5)
    assert "lr_factor" not in groups[0]


def test_rules_may_decay_norms_and_biases() -> None:
    rules = [("*.bias", {"weight_decay": 0.3, "no_decay": None})]
    groups = param_groups(VGG(), rules, lr=0.1, weight_decay=0.1)
    assert {g["name"]: g["weight_decay"] for g in groups} == {"rest": 0.1, "*.bias": 0.3}


@pytest.mark.parametrize(
    ("rules", "options", "match"),
    [
        ([("head.*", {})], {}, r"'head\.\*' matches no trainable parameter of features"),
        ([("features", {})], {}, r"'features' matches no .*write 'features\.\*'"),
        ([("features.*", {}), ("*.bias", {})], {}, r"'features\.\*' and '\*\.bias' both match"),
        ([("features.*", {}), ("features.*", {})], {}, "twice"),
        (
            [("*.bias", {"weight_decay": 0.1})],
            {},
            r"weight_decay=0\.1 of rule '\*\.bias' reaches no",
        ),
        ([("*.bias", {"l1_decay": 0.1})], {}, r"l1_decay=0\.1 of rule"),
        ([("*.bias", {"lr_factor": -1.0})], {}, r"lr_factor .*>= 0, got -1\.0"),
        ([("*.bias", {"lr_factor": float("nan")})], {}, "lr_factor .*got nan"),
        ([("*.bias", {"lr_factor": 1.0, "lr": 1.0})], {}, "lr or lr_factor, not both"),
        ([("*.bias", {"params": []})], {}, "must not set 'params'"),
        ([("*.bias", {"no_decay": "biases"})], {}, "no_decay must be one of 'norm.bias'.*'biases'"),
        (None, {"no_decay": "none"}, "no_decay must be one of .*'none'"),
        (None, {"layer_decay": 0.0}, r"layer_decay must be in \(0, 1\], got 0\.0"),
        (None, {"layer_decay": 1.5}, r"layer_decay must be in \(0, 1\], got 1\.5"),
        (None, {"lr_factor": 0.5}, "lr_factor must be an option of a rule"),
        (None, {"params": []}, "params must be an option of a rule"),
    ],
)
def test_refused(rules: Any, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        param_groups(VGG(), rules, lr=0.1, **options)


def test_only_frozen() -> None:
    model = VGG()
    model.features.requires_grad_(False)
    with pytest.raises(ValueError, match=r"'features\.\*' matches no .*, only frozen ones"):
        param_groups(model, [("features.*", {})], lr=0.1)


@pytest.mark.parametrize("rules", [["features.*"], [("a", "b")], [(1, {})], [("a", {}, {})]])
def test_rules_are_pairs(rules: Any) -> None:
    with pytest.raises(TypeError, match="pairs of a pattern"):
        param_groups(VGG(), rules, lr=0.1)


@pytest.mark.parametrize("lr", ["0.1", None, True])
def test_rates_are_numbers(lr: Any) -> None:
    with pytest.raises(TypeError, match="lr must be a number, a tensor or a schedule"):
        param_groups(VGG(), lr=lr)


@pytest.mark.parametrize(
    ("rules", "options", "match"),
    [
        ([("features.*", {"lr_mult": 0.1})], {}, r"rule 'features.\*' has .* 'lr_mult'; did you mean lr_factor"),
        ([("features.*", {"weight_decy": 0.1})], {}, "did you mean weight_decay"),
        (None, {"l1_decy": 0.1}, "param_groups has the unknown option 'l1_decy'; did you mean l1_decay"),
        (None, {"zzz": 0.1}, "param_groups has the unknown option 'zzz'$"),
    ],
    ids=str,
)  # fmt: skip
def test_unknown_options(rules: Any, options: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        param_groups(VGG(), rules, lr=0.1, **options)


def test_options_of_any_optimizer_of_torch() -> None:
    groups = param_groups(
        VGG(), [("features.*", {"betas": (0.8, 0.9)})], lr=0.1, momentum_decay=0.1
    )
    assert all(group["momentum_decay"] == 0.1 for group in groups)
