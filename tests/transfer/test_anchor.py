"""Decay to the old weights: against a term of the loss in autograd, and where the anchors lie."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import nn

import onepass
from onepass.transfer import anchor_decay, param_groups
from tests.cases import CASES, CLASSES, Case
from tests.transfer.models import VGG

classes = pytest.mark.parametrize("case", CLASSES, ids=str)
STRENGTH = 0.3


def is_decoupled(case: Case) -> bool:
    return bool(case.name == "AdamW" or case.hyper.get("decoupled_weight_decay"))


def model() -> Any:
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()


def anchored(opt: Any) -> list[str]:
    return [
        name
        for group in opt.param_groups
        for name, p in zip(group["param_names"], group["params"], strict=True)
        if "anchor" in opt.state.get(p, {})
    ]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("part", [None, "0"])
def test_against_a_term_of_the_loss(case: Case, part: str | None) -> None:
    ours = model()
    theirs = copy.deepcopy(ours)
    more = {"weight_decay": 0.0} if is_decoupled(case) else {}
    opt = case.ours(ours.named_parameters(), **more)
    reference = case.torchs(theirs.parameters(), **more)
    anchor_decay(opt, STRENGTH, part)
    held = list(theirs.parameters() if part is None else theirs[0].parameters())
    start = [p.detach().clone() for p in held]
    x = torch.randn(8, 3, dtype=torch.float64)
    for _ in range(5):
        for net, o in ((ours, opt), (theirs, reference)):
            o.zero_grad()
            loss = net(x).square().mean()
            if net is theirs and not is_decoupled(case):
                term = sum((p - q).square().sum() for p, q in zip(held, start, strict=True))
                loss = loss + (-1 if case.hyper["maximize"] else 1) * STRENGTH / 2 * term
            loss.backward()
        if is_decoupled(case):
            with torch.no_grad():
                for p, q in zip(held, start, strict=True):
                    p.sub_(case.hyper["lr"] * STRENGTH * (p - q))
        opt.step()
        reference.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)


@classes
def test_it_pulls_back(case: Case) -> None:
    distances = []
    for strength in (0.0, 0.5):
        torch.manual_seed(0)
        net = model()
        start = copy.deepcopy(net)
        opt = case.ours(net.named_parameters(), weight_decay=0.0)
        anchor_decay(opt, strength)
        for _ in range(20):
            opt.zero_grad()
            net(torch.ones(1, 3, dtype=torch.float64)).sum().backward()
            opt.step()
        pairs = zip(net.parameters(), start.parameters(), strict=True)
        distances.append(sum((p - q).square().sum().item() for p, q in pairs))
    assert distances[1] < distances[0]


@classes
def test_taken_away(case: Case) -> None:
    """Nothing of an anchor is left: not even a state without entries."""
    opt = case.ours(model().named_parameters())
    before = {p: dict(state) for p, state in opt.state.items()}
    anchor_decay(opt, 0.1)
    anchor_decay(opt, 0.0)
    assert opt.state == before
    assert all("anchor_decay" not in group for group in opt.param_groups)


@classes
def test_checkpoints_hold_the_anchors(case: Case) -> None:
    net = model()
    opt = case.ours(net.named_parameters())
    anchor_decay(opt, STRENGTH)
    x = torch.randn(8, 3, dtype=torch.float64)

    def steps(net: nn.Module, opt: Any) -> None:
        for _ in range(3):
            opt.zero_grad()
            net(x).square().mean().backward()
            opt.step()

    steps(net, opt)
    file = io.BytesIO()
    torch.save({"model": net.state_dict(), "optimizer": opt.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    twin = model()
    twin.load_state_dict(saved["model"])
    again = case.ours(twin.named_parameters())
    again.load_state_dict(saved["optimizer"])
    assert again.param_groups[0]["anchor_decay"] == STRENGTH
    steps(net, opt)
    steps(twin, again)
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q)


def trained(opt: Any, net: nn.Module, steps: int = 3) -> None:
    x = torch.linspace(-1, 1, 24, dtype=torch.float64).view(8, 3)
    for _ in range(steps):
        opt.zero_grad()
        net(x).square().mean().backward()
        opt.step()


@classes
@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("kind", ["ours", "torchs"])
def test_a_checkpoint_without_anchors_leaves_them(case: Case, kind: str, steps: int) -> None:
    """Anchors of the call, then a checkpoint that never had any: the pull goes on, towards the same weights."""
    old = model()
    source = getattr(case, kind)(old.parameters())
    trained(source, old, steps)
    nets = [copy.deepcopy(old) for _ in range(2)]
    before, after = (case.ours(net.named_parameters()) for net in nets)
    anchor_decay(before, STRENGTH)
    start = [p.detach().clone() for p in nets[0].parameters()]
    checkpoint = copy.deepcopy(source.state_dict())
    before.load_state_dict(checkpoint)
    after.load_state_dict(source.state_dict())
    anchor_decay(after, STRENGTH)
    assert all("anchor" not in state for state in checkpoint["state"].values())  # left alone
    for opt, net in zip((before, after), nets, strict=True):
        trained(opt, net)
        assert opt.param_groups[0]["anchor_decay"] == STRENGTH
        for p, q in zip(net.parameters(), start, strict=True):
            assert torch.equal(opt.state[p]["anchor"], q)
            assert not torch.equal(p, q)
    for p, q in zip(*(net.parameters() for net in nets), strict=True):
        assert torch.equal(p, q)


def test_anchors_of_a_checkpoint_win_in_their_group() -> None:
    def anchored_by(part: str | None, strength: float) -> tuple[Any, Any]:
        net = model()
        opt = onepass.AdamW(param_groups(net, [("0.*", {})], lr=0.1, no_decay=None))
        anchor_decay(opt, strength, part)
        return net, opt

    (theirs, source), (ours, target) = anchored_by("0", 0.5), anchored_by(None, 0.25)
    kept = {n: p.detach().clone() for n, p in ours.named_parameters()}
    target.load_state_dict(source.state_dict())
    assert {g["name"]: g["anchor_decay"] for g in target.param_groups} == {"0.*": 0.5, "rest": 0.25}
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        expected = q if name.startswith("0.") else kept[name]
        assert torch.equal(target.state[p]["anchor"], expected)


@pytest.mark.parametrize("how", ["construct", "checkpoint", "clear", "clear later"])
def test_a_pull_without_anchors_is_refused(how: str) -> None:
    net = model()
    opt = onepass.AdamW(net.named_parameters(), anchor_decay=0.5 if how == "construct" else 0.0)
    if how == "checkpoint":
        saved = copy.deepcopy(opt.state_dict())
        saved["param_groups"][0]["anchor_decay"] = 0.5
        opt.load_state_dict(saved)
    elif how == "clear":
        anchor_decay(opt, 0.5)
        opt.state.clear()
    elif how == "clear later":
        anchor_decay(opt, 0.5)
        for _ in range(4):
            trained(opt, net)
        for state in opt.state.values():
            del state["anchor"]
    before = copy.deepcopy(net)
    with pytest.raises(
        RuntimeError, match=r"anchor_decay=0\.5: no parameter .* 'anchor'.*nothing was updated"
    ):
        trained(opt, net)
    for p, q in zip(net.parameters(), before.parameters(), strict=True):
        assert torch.equal(p, q)
    opt.load_state_dict(opt.state_dict())  # as Accelerate does before the first step
    anchor_decay(opt, 0.5)
    trained(opt, net)


def test_where_the_anchors_lie() -> None:
    net: Any = VGG()
    opt = onepass.AdamW(param_groups(net, [("features.*", {})], lr=0.1))
    anchor_decay(opt, 0.5, "features")
    features = [n for n, _ in net.named_parameters() if n.startswith("features.")]
    assert sorted(anchored(opt)) == sorted(features)
    assert {g["name"]: g.get("anchor_decay") for g in opt.param_groups} == {
        "features.*": 0.5,
        "features.*, no decay": 0.5,
        "rest": None,
        "rest, no decay": None,
    }
    anchor = opt.state[net.features[0].weight]["anchor"]
    assert torch.equal(anchor, net.features[0].weight)
    assert anchor.data_ptr() != net.features[0].weight.data_ptr()
    assert not anchor.requires_grad

    anchor_decay(opt, 0.1, net.classifier[0])  # a module beside a name
    assert {g["name"]: g.get("anchor_decay") for g in opt.param_groups}["rest"] == 0.1
    with torch.no_grad():
        net.features[0].weight.zero_()
    anchor_decay(opt, 0.25, "features")  # again: new anchors, new strength
    assert opt.state[net.features[0].weight]["anchor"].count_nonzero() == 0
    assert opt.param_groups[0]["anchor_decay"] == 0.25
    anchor_decay(opt, 0.0, "features")
    assert sorted(anchored(opt)) == ["classifier.0.bias", "classifier.0.weight"]
    assert "anchor_decay" not in opt.param_groups[0]
    anchor_decay(opt, 0.0)
    assert not anchored(opt)


def test_names_are_whole_parts() -> None:
    net: Any = nn.ModuleDict({"head": nn.Linear(1, 1), "head2": nn.Linear(1, 1)})
    opt = onepass.SGD(net.named_parameters(), lr=0.1)
    anchor_decay(opt, 0.5, "head")
    assert anchored(opt) == ["head.weight", "head.bias"]
    anchor_decay(opt, 0.5, "head2.bias")
    assert anchored(opt) == ["head.weight", "head.bias", "head2.bias"]


def test_one_strength_for_a_group() -> None:
    net: Any = VGG()
    opt = onepass.SGD(net.named_parameters(), lr=0.1)
    anchor_decay(opt, 0.5, "features")
    before = anchored(opt)
    with pytest.raises(ValueError, match=r"strength 0\.1: parameter group 0 already has .* 0\.5"):
        anchor_decay(opt, 0.1, "classifier")
    assert anchored(opt) == before
    anchor_decay(opt, 0.1)
    assert len(anchored(opt)) == 8


@pytest.mark.parametrize(
    ("strength", "part", "error", "match"),
    [
        (-0.1, None, ValueError, r"strength must be finite and >= 0, got -0\.1"),
        (float("nan"), None, ValueError, "strength must be .*got nan"),
        (float("inf"), None, ValueError, "strength must be .*got inf"),
        ("1", None, TypeError, "strength must be a number, got '1'"),
        (0.1, "feature", ValueError, "'feature': the optimizer holds no weight of it"),
        (0.1, nn.Linear(1, 1), ValueError, "holds no weight of it"),
        (0.1, 3, TypeError, "part must be a dotted name or a module, got 3"),
    ],
)
def test_refused(strength: Any, part: Any, error: type[Exception], match: str) -> None:
    opt = onepass.SGD(VGG().named_parameters(), lr=0.1)
    with pytest.raises(error, match=match):
        anchor_decay(opt, strength, part)
    assert not opt.state


def test_refused_optimizers() -> None:
    net: Any = VGG()
    with pytest.raises(TypeError, match="opt must be an optimizer of onepass, got SGD"):
        anchor_decay(torch.optim.SGD(net.parameters()), 0.1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="does not know the names"):
        anchor_decay(onepass.SGD(net.parameters()), 0.1, "features")
