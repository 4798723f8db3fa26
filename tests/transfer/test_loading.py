"""State by name: parameters that moved, were renamed, came, went or changed their shape."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import onepass
from onepass.schedule import Cosine
from onepass.transfer import anchor_decay, load_by_name, param_groups
from tests.cases import CLASSES, Case

classes = pytest.mark.parametrize("case", CLASSES, ids=str)
Named = list[tuple[str, nn.Parameter]]


def named(**shapes: tuple[int, ...]) -> Named:
    return [(name, nn.Parameter(torch.randn(shape))) for name, shape in shapes.items()]


def trained(case: Case, params: Named, steps: int = 2, **more: Any) -> Any:
    opt = case.ours(params, **more)
    for _ in range(steps):
        for group in opt.param_groups:
            for p in group["params"]:
                p.grad = torch.randn_like(p)
        opt.step()
    return opt


def state_by_name(opt: Any) -> dict[str, Any]:
    return {
        name: opt.state.get(p, {})
        for group in opt.param_groups
        for name, p in zip(group["param_names"], group["params"], strict=True)
    }


def assert_same_state(ours: Any, theirs: Any) -> None:
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        assert torch.equal(value, theirs[key]), key


@classes
def test_swapped(case: Case) -> None:
    old = trained(case, named(a=(3,), b=(5,), c=(2, 2)))
    new = case.ours(named(c=(2, 2), b=(5,), a=(3,)))
    found = load_by_name(new, copy.deepcopy(old.state_dict()))
    assert found.matched == ["c", "b", "a"]
    assert str(found) == "3 parameters loaded"
    for name, state in state_by_name(old).items():
        assert_same_state(state_by_name(new)[name], state)


@classes
def test_goes_on_as_if_uninterrupted(case: Case) -> None:
    params = named(a=(3,), b=(5,))
    old = trained(case, params)
    twin = [(n, nn.Parameter(p.detach().clone())) for n, p in reversed(params)]
    new = case.ours(twin)
    load_by_name(new, copy.deepcopy(old.state_dict()))
    for (_, p), (_, q) in zip(params, reversed(twin), strict=True):
        q.grad = p.grad
    old.step()
    new.step()
    for (_, p), (_, q) in zip(params, reversed(twin), strict=True):
        assert torch.equal(p, q)


def test_torchs_order_goes_wrong_without_a_word() -> None:
    """The reason for all this: two layers of one shape change places."""
    case = CLASSES[3]
    old = trained(case, named(a=(3,), b=(3,)))
    by_order, by_name = (case.torch_kind(named(b=(3,), a=(3,))) for _ in range(2))
    by_order.load_state_dict(old.state_dict())
    load_by_name(by_name, old.state_dict())
    first = old.state_dict()["state"][0]["exp_avg"]  # of a
    b, a = by_order.param_groups[0]["params"]
    assert torch.equal(by_order.state[b]["exp_avg"], first)
    b, a = by_name.param_groups[0]["params"]
    assert torch.equal(by_name.state[a]["exp_avg"], first)


@classes
def test_partial(case: Case) -> None:
    """Renamed, added, removed, reshaped; the optimizer's own state stays where nothing fits."""
    old = trained(case, named(same=(3,), renamed=(4,), removed=(2,), shape=(2, 3)), lr=0.125)
    new = trained(case, named(added=(7,), same=(3,), name=(4,), shape=(3, 2)), 1, lr=0.25)
    own = copy.deepcopy(state_by_name(new))
    found = load_by_name(new, old.state_dict(), strict=False)
    assert found.matched == ["same"]
    assert found.missing == ["added", "name"]
    assert found.unexpected == ["renamed", "removed"]
    assert list(found.mismatched) == ["shape"]
    key = case.state_keys[0]
    assert found.mismatched["shape"] == f"{key!r} has shape (2, 3), the parameter (3, 2)"
    assert "1 parameters loaded\nmissing: added" in str(found)
    now = state_by_name(new)
    assert_same_state(now["same"], state_by_name(old)["same"])
    for name in ("added", "name", "shape"):
        assert_same_state(now[name], own[name])
    assert new.param_groups[0]["lr"] == 0.25


@classes
@pytest.mark.parametrize(
    ("now", "match"),
    [
        ({"a": (3,)}, "unexpected: b"),
        ({"a": (3,), "b": (5,), "c": (1,)}, "missing: c"),
        ({"a": (3,), "x": (5,)}, "missing: x\nunexpected: b"),
        ({"a": (3,), "b": (4,)}, r"mismatched: b: .* has shape \(5,\), the parameter \(4,\)"),
        ({"a": (5,), "b": (3,)}, "mismatched: a.*mismatched: b"),
    ],
)
def test_strict(case: Case, now: dict[str, Any], match: str) -> None:
    old = trained(case, named(a=(3,), b=(5,)))
    new = trained(case, named(**now), 1)
    own = copy.deepcopy(new.state_dict())
    with pytest.raises(ValueError, match=f"(?s)nothing was loaded.*{match}"):
        load_by_name(new, old.state_dict())
    for number, state in new.state_dict()["state"].items():
        assert_same_state(state, own["state"][number])


def test_renaming() -> None:
    case = CLASSES[3]
    params = [(f"module.{name}", p) for name, p in named(a=(3,), b=(5,))]
    new = case.ours(named(b=(5,), a=(3,)))
    saved = trained(case, params).state_dict()
    load_by_name(new, saved, rename=lambda name: name.removeprefix("module."))
    assert state_by_name(new)["b"]["exp_avg"].shape == (5,)
    with pytest.raises(ValueError, match="the checkpoint has 'same' twice"):
        load_by_name(new, saved, rename=lambda _: "same")


def test_other_division_into_groups() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    old = onepass.AdamW(param_groups(model, lr=0.1, weight_decay=0.2))
    model(torch.randn(4, 2)).sum().backward()
    old.step()
    finer = onepass.AdamW(param_groups(model, [("2.*", {"lr_factor": 0.5})], lr=0.3))
    load_by_name(finer, old.state_dict())
    assert [g["name"] for g in finer.param_groups] == [
        "rest",
        "rest, no decay",
        "2.*",
        "2.*, no decay",
    ]
    assert [g["weight_decay"] for g in finer.param_groups] == [0.2, 0.0, 0.2, 0.0]
    assert {g["lr"] for g in finer.param_groups} == {0.1}
    for name, state in state_by_name(old).items():
        assert_same_state(state_by_name(finer)[name], state)

    coarse = onepass.AdamW(model.named_parameters(), lr=0.4)
    with pytest.raises(
        ValueError, match="group 0 of the optimizer joins groups 0, 1 of the checkpoint"
    ):
        load_by_name(coarse, old.state_dict())
    assert not coarse.state
    assert len(load_by_name(coarse, old.state_dict(), strict=False).matched) == 6
    assert coarse.param_groups[0]["lr"] == 0.4


def test_schedules_go_on_strictly_and_start_partially() -> None:
    case = CLASSES[0]
    old = trained(case, named(a=(3,), b=(5,)), 4, lr=Cosine(0.1, 10))
    new = case.ours(named(b=(5,), a=(3,)), lr=Cosine(0.1, 10))
    load_by_name(new, old.state_dict())
    assert new.param_groups[0]["lr"] == Cosine(0.1, 10)(4)
    new = case.ours(named(c=(5,), a=(3,)), lr=Cosine(0.3, 20))
    load_by_name(new, old.state_dict(), strict=False)
    assert new.param_groups[0]["lr"] == 0.3


def test_our_states() -> None:
    """Averages, master weights and 8-bit states come along."""
    options: dict[str, Any] = {"ema_decay": 0.9, "state_dtype": "8bit"}
    case = CLASSES[4]
    old = trained(case, named(a=(300,), b=(3, 200)), **options)
    new = case.ours(named(b=(3, 200), a=(300,)), **options)
    load_by_name(new, old.state_dict())
    for name, state in state_by_name(old).items():
        assert {"ema", "exp_avg_code", "exp_avg_scale"} <= state.keys()
        assert_same_state(state_by_name(new)[name], state)


def test_anchors_stay_partially() -> None:
    case = CLASSES[4]
    old = trained(case, named(a=(3,), b=(5,)))
    anchor_decay(old, 0.5)
    new = case.ours(named(a=(3,), c=(5,)))
    anchor_decay(new, 0.25)
    own = new.param_groups[0]["params"][0].detach().clone()
    load_by_name(new, old.state_dict(), strict=False)
    assert new.param_groups[0]["anchor_decay"] == 0.25
    state = state_by_name(new)
    assert torch.equal(state["a"]["anchor"], own)
    assert torch.equal(state["a"]["exp_avg"], state_by_name(old)["a"]["exp_avg"])
    assert set(state["c"]) >= {"anchor"}
    strictly = case.ours(named(b=(5,), a=(3,)))
    load_by_name(strictly, old.state_dict())
    assert strictly.param_groups[0]["anchor_decay"] == 0.5
    assert torch.equal(state_by_name(strictly)["b"]["anchor"], state_by_name(old)["b"]["anchor"])


def test_between_torch_and_us() -> None:
    case = CLASSES[4]
    old = trained(case, named(a=(3,), b=(5,)))
    new = case.torch_kind(named(b=(5,), a=(3,)))
    load_by_name(new, old.state_dict())
    again = case.ours(named(a=(3,), b=(5,)))
    load_by_name(again, new.state_dict())
    for name, state in state_by_name(old).items():
        assert_same_state(state_by_name(again)[name], state)


def test_without_names() -> None:
    case = CLASSES[3]
    with_names, without = case.ours(named(a=(3,))), case.ours([p for _, p in named(a=(3,))])
    with pytest.raises(ValueError, match=r"the checkpoint must know the names.*load_state_dict"):
        load_by_name(with_names, without.state_dict())
    with pytest.raises(ValueError, match="the optimizer must know the names"):
        load_by_name(without, with_names.state_dict())
