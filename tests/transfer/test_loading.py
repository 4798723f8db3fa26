"""State by name: parameters that moved, were renamed, came, went or changed their shape."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import onepass
from onepass.schedule import Cosine, Linear
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


# Partly: what the optimizer counts and waits for is its own


@classes
def test_partial_loading_leaves_the_schedule_where_it_is(case: Case) -> None:
    old = trained(case, named(a=(3,), b=(5,)), steps=50)
    params = named(a=(3,), b=(5,))
    new = case.ours(params, lr=Linear(1.0, 10))
    load_by_name(new, old.state_dict(), strict=False)
    assert new.steps_applied == 0
    assert new.param_groups[0]["lr"] == 1.0
    assert_same_state(state_by_name(new)["a"], state_by_name(old)["a"])
    rates = []
    for step in range(4):
        for _, p in params:
            p.grad = torch.randn_like(p)
        rates.append(new.param_groups[0]["lr"])
        new.step()
        if step == 1:  # and it stays so in checkpoints and copies
            saved = copy.deepcopy(new.state_dict())
            new = case.ours(params, lr=Linear(1.0, 10))
            new.load_state_dict(saved)
            new = copy.deepcopy(new)
            params = list(zip("ab", new.param_groups[0]["params"], strict=True))
    assert rates == pytest.approx([1.0, 0.9, 0.8, 0.7])
    assert new.steps_applied == 4


@classes
def test_partial_loading_in_the_middle(case: Case) -> None:
    """The optimizer has seen more steps than the checkpoint."""
    params = named(a=(3,), b=(5,))
    new = trained(case, params, steps=7, lr=Linear(1.0, 10))
    load_by_name(new, trained(case, named(a=(3,), b=(5,))).state_dict(), strict=False)
    assert new.steps_applied == 7
    assert new.param_groups[0]["lr"] == pytest.approx(0.3)
    again = case.ours(params, lr=Linear(1.0, 10))
    again.load_state_dict(copy.deepcopy(new.state_dict()))
    assert again.steps_applied == 7


@classes
def test_partial_loading_leaves_groups_waiting(case: Case) -> None:
    old = trained(case, named(a=(3,)), steps=30)
    a, b = named(a=(3,), b=(5,))
    groups: list[dict[str, Any]] = [{"params": [a], "train_from": 20}, {"params": [b]}]
    new = case.ours(groups)
    load_by_name(new, old.state_dict(), strict=False)
    before = a[1].detach().clone()
    for step in range(22):
        a[1].grad, b[1].grad = torch.ones(3), torch.ones(5)
        new.step()
        assert torch.equal(a[1], before) == (step < 20), step
        if step == 10:
            saved = copy.deepcopy(new.state_dict())
            new = case.ours([{"params": [a], "train_from": 20}, {"params": [b]}])
            new.load_state_dict(saved)


@classes
def test_strictly_the_count_is_that_of_the_checkpoint(case: Case) -> None:
    old = trained(case, named(a=(3,)), steps=5, lr=Linear(1.0, 10))
    new = case.ours(named(a=(3,)), lr=Linear(1.0, 10))
    load_by_name(new, old.state_dict())
    assert new.steps_applied == 5
    assert new.param_groups[0]["lr"] == pytest.approx(0.5)


@classes
def test_a_partly_loaded_run_that_goes_through_torch(case: Case) -> None:
    """Torch keeps our entries of groups as they were: the count is what the states tell, less what was loaded."""
    if not case.kind.spec.counted:
        pytest.skip("no state holds a count")
    params = named(a=(3,))
    new = case.ours(params)
    load_by_name(new, trained(case, named(a=(3,)), steps=30).state_dict(), strict=False)
    theirs = case.torchs(params)
    theirs.load_state_dict(new.state_dict())
    for _ in range(4):
        params[0][1].grad = torch.ones(3)
        theirs.step()
    back = case.ours(params)
    back.load_state_dict(theirs.state_dict())
    assert back.steps_applied == 4
