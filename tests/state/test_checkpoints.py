"""Checkpoints: here and back, to torch.optim and back, and those that do not fit."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch

from tests import cases, tolerances
from tests.cases import Case
from tests.helpers import assert_same, gradients, parameters, twin

SHAPES = [(5, 7), (70,), ()]


def stepped(make: Any, params: list[Any], steps: int = 3) -> Any:
    optimizer = make(params)
    for _ in range(steps):
        gradients(params)
        optimizer.step()
    return optimizer


@cases.all_cases
def test_format_is_torchs(case: Case) -> None:
    """Names, order, shapes and dtypes of the state, and the keys of the groups, are torch's."""
    ours = parameters(SHAPES)
    theirs = twin(ours)
    optimizer, torchs = case.ours(ours), case.torchs(theirs, foreach=None)
    for _ in range(2):
        gradients(ours, theirs)
        optimizer.step()
        torchs.step()
    a, b = optimizer.state_dict(), torchs.state_dict()
    assert list(a) == list(b)
    assert a["param_groups"] == b["param_groups"]
    assert list(a["param_groups"][0]) == list(b["param_groups"][0])
    assert list(a["state"]) == list(b["state"])
    for i in b["state"]:
        assert list(a["state"][i]) == list(b["state"][i])
        for key, value in b["state"][i].items():
            own = a["state"][i][key]
            assert (own.shape, own.dtype, own.device) == (value.shape, value.dtype, value.device), (
                key
            )
            torch.testing.assert_close(own, value, **tolerances.accumulated(2))


@cases.halves
@cases.rules
def test_state_dtypes_are_torchs(case: Case, dtype: torch.dtype) -> None:
    ours = parameters([(70,)], dtype)
    theirs = twin(ours)
    optimizer, torchs = case.ours(ours), case.torchs(theirs)
    gradients(ours, theirs)
    optimizer.step()
    torchs.step()
    for key, value in torchs.state[theirs[0]].items():
        assert optimizer.state[ours[0]][key].dtype == value.dtype


@cases.all_cases
@pytest.mark.parametrize("route", ["ours-ours", "torch-ours", "ours-torch"])
def test_round_trip_during_training(case: Case, route: str) -> None:
    start = parameters(SHAPES)
    straight = twin(start)
    first, second = (case.ours if name == "ours" else case.torchs for name in route.split("-"))
    a, b = first(start), case.torchs(straight)
    for _ in range(3):
        gradients(start, straight)
        a.step()
        b.step()
    file = io.BytesIO()
    torch.save(a.state_dict(), file)
    file.seek(0)
    moved = twin(start)
    resumed = second(moved, lr=0.5)  # the checkpoint's hyper-parameters win
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert type(resumed) is (case.kind if second == case.ours else case.torch_kind)
    for _ in range(3):
        gradients(moved, straight)
        resumed.step()
        b.step()
    assert_same(resumed, b, **tolerances.accumulated(6))


@cases.classes
def test_round_trip_keeps_every_bit(case: Case) -> None:
    (p,) = parameters([(70,)])
    (q,) = twin([p])
    optimizer, other = stepped(case.ours, [p]), case.ours([q])
    q.data.copy_(p.data)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(2):
        gradients([p], [q])
        optimizer.step()
        other.step()
    tolerances.exact(p, q)


@cases.classes
def test_empty_optimizer_takes_its_own_state(case: Case) -> None:
    """Accelerate does this in `prepare`, before the first step."""
    params = parameters(SHAPES)
    optimizer = case.ours(params)
    optimizer.load_state_dict(optimizer.state_dict())
    gradients(params)
    optimizer.step()


@cases.classes
def test_before_the_first_step(case: Case) -> None:
    """A checkpoint without state: both ways."""
    params = parameters(SHAPES)
    ours, theirs = case.ours(params), case.torchs(params)
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    gradients(params)
    ours.step()
    theirs.step()


@cases.classes
def test_dtype_of_the_parameter_at_loading(case: Case) -> None:
    """As torch: floating point states are cast to the parameter's dtype, the step count is not."""
    source = stepped(case.torchs, parameters(SHAPES))
    ours, theirs = parameters(SHAPES, torch.bfloat16), parameters(SHAPES, torch.bfloat16)
    a, b = case.ours(ours), case.torchs(theirs)
    for opt in (a, b):
        opt.load_state_dict(copy.deepcopy(source.state_dict()))
    for p, q in zip(ours, theirs, strict=True):
        for key, value in b.state[q].items():
            assert a.state[p][key].dtype == value.dtype
            tolerances.exact(a.state[p][key], value)


@cases.classes
def test_own_options(case: Case) -> None:
    """They are in our checkpoints, and stay as constructed when the checkpoint is torch's."""
    params = parameters(SHAPES)
    source = case.ours(
        [{"params": params[:1]}, {"params": params[1:], "l1_decay": 0.3}],
        l1_decay=0.1,
        l1_mode="subgradient",
    )
    target = case.ours([{"params": params[:1]}, {"params": params[1:]}])
    target.load_state_dict(source.state_dict())
    assert [g["l1_decay"] for g in target.param_groups] == [0.1, 0.3]
    assert [g["l1_mode"] for g in target.param_groups] == ["subgradient"] * 2

    torchs = case.torchs([{"params": params[:1]}, {"params": params[1:]}])
    source.load_state_dict(torchs.state_dict())
    assert [g["l1_decay"] for g in source.param_groups] == [0.1, 0.3]
    assert [g["l1_mode"] for g in source.param_groups] == ["subgradient"] * 2


@cases.classes
def test_no_trace_of_own_options_that_are_not_used(case: Case) -> None:
    params = parameters(SHAPES)
    optimizer = case.ours(params, l1_decay=0.0, l1_mode="proximal")
    assert list(optimizer.state_dict()["param_groups"][0]) == list(
        case.torchs(params).state_dict()["param_groups"][0]
    )


@cases.classes
def test_plain_values_only(case: Case) -> None:
    """`torch.load(weights_only=True)` takes everything that is in a checkpoint."""
    params = parameters(SHAPES)
    optimizer = stepped(lambda p: case.ours(p, l1_decay=0.1, lr=torch.tensor(0.01)), params)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert loaded["param_groups"][0]["l1_decay"] == 0.1
    assert loaded["param_groups"][0]["lr"] == torch.tensor(0.01)


@cases.rules
def test_wrong_shape_is_refused_before_anything_is_loaded(case: Case) -> None:
    if not case.state_keys:
        pytest.skip("no state")
    source = stepped(case.torchs, parameters([(5, 7), (70,), (3,)]))
    params = parameters([(5, 7), (71,), (3,)])
    optimizer = stepped(case.ours, params)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match=r"(?s)parameter 1 of group 0.*\(70,\).*\(71,\)"):
        optimizer.load_state_dict(source.state_dict())
    assert_unchanged(optimizer, before)


def assert_unchanged(optimizer: Any, before: dict[str, Any]) -> None:
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    assert list(after["state"]) == list(before["state"])
    for i, state in before["state"].items():
        assert set(after["state"][i]) == set(state)
        for key, value in state.items():
            tolerances.exact(after["state"][i][key], value)


@cases.rules
def test_wrong_shape_names_the_parameter(case: Case) -> None:
    if not case.state_keys:
        pytest.skip("no state")
    source = stepped(case.torchs, parameters([(5, 7)]))
    (p,) = parameters([(7, 5)])
    optimizer = case.ours([("layer.weight", p)])
    with pytest.raises(ValueError, match=r"layer\.weight"):
        optimizer.load_state_dict(source.state_dict())


@cases.classes
def test_part_of_a_state_is_refused(case: Case) -> None:
    keys = [key for key in case.state_keys if key in ("exp_avg", "exp_avg_sq")]
    if not keys:
        pytest.skip("one state, or states that come when an option is switched on")
    source = stepped(case.torchs, parameters([(5, 7)])).state_dict()
    del source["state"][0][keys[1]]
    optimizer = case.ours(parameters([(5, 7)]))
    with pytest.raises(ValueError, match=keys[1]):
        optimizer.load_state_dict(source)


@cases.classes
def test_other_groups_are_refused_as_by_torch(case: Case) -> None:
    source = stepped(case.torchs, parameters(SHAPES)).state_dict()
    params = parameters(SHAPES)
    with pytest.raises(ValueError, match="different number of parameter groups"):
        case.ours([{"params": params[:1]}, {"params": params[1:]}]).load_state_dict(source)
    with pytest.raises(ValueError, match="doesn't match the size"):
        case.ours(params[:2]).load_state_dict(source)


@cases.classes
def test_checkpoint_of_a_complex_parameter(case: Case) -> None:
    """Complex parameters run torch's step, and so must resume as torch's."""
    results = []
    start = torch.randn(5, dtype=torch.complex64)
    for make in (case.ours, case.torchs):
        torch.manual_seed(5)
        params = [torch.nn.Parameter(start.clone())]
        optimizer = make(params)
        for step in range(4):
            params[0].grad = torch.randn(5, dtype=torch.complex64)
            optimizer.step()
            if step == 1:
                saved = copy.deepcopy(optimizer.state_dict())
                optimizer = make(params)
                optimizer.load_state_dict(saved)
        results.append(params[0].detach())
    torch.testing.assert_close(*results)


@cases.classes
def test_state_dict_hooks(case: Case) -> None:
    params = parameters(SHAPES)
    optimizer = stepped(case.ours, params)
    seen: list[str] = []
    optimizer.register_state_dict_pre_hook(lambda _: seen.append("pre"))
    optimizer.register_state_dict_post_hook(lambda _, d: {**d, "extra": 1})
    optimizer.register_load_state_dict_pre_hook(lambda _, d: seen.append(f"load {d['extra']}"))
    optimizer.register_load_state_dict_post_hook(lambda _: seen.append("loaded"))
    state = optimizer.state_dict()
    assert state["extra"] == 1
    optimizer.load_state_dict(state)
    assert seen == ["pre", "load 1", "loaded"]


@cases.classes
def test_load_hook_may_translate_a_checkpoint(case: Case) -> None:
    """Torch's documentation renumbers parameters in such a hook; what it returns is what counts."""
    params = parameters([(5,), (3, 4)])
    optimizer = stepped(case.ours, params)
    saved = copy.deepcopy(optimizer.state_dict())
    swapped = {**saved, "state": {0: saved["state"][1], 1: saved["state"][0]}}

    def restore(_: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
        state = state_dict["state"]
        return {**state_dict, "state": {0: state[1], 1: state[0]}}

    other = case.ours(twin(params))
    other.register_load_state_dict_pre_hook(restore)
    other.load_state_dict(swapped)
    assert_unchanged(other, saved)


@cases.classes
def test_load_hook_may_make_the_groups(case: Case) -> None:
    """A checkpoint in a foreign format, which the hook translates as a whole."""
    params = parameters([(5,), (3, 4)])
    saved = copy.deepcopy(stepped(case.ours, params).state_dict())
    other = case.ours(twin(params))
    other.register_load_state_dict_pre_hook(lambda _, d: d["optimizer"])
    other.load_state_dict({"optimizer": saved})
    assert_unchanged(other, saved)


@cases.classes
def test_argument_of_load_is_not_changed(case: Case) -> None:
    params = parameters(SHAPES)
    source = case.torchs(params)
    gradients(params)
    source.step()
    saved = source.state_dict()
    groups, keys = copy.deepcopy(saved["param_groups"]), list(saved)
    case.ours(params, l1_decay=0.1).load_state_dict(saved)
    assert saved["param_groups"] == groups
    assert list(saved) == keys


@cases.classes
def test_param_names(case: Case) -> None:
    module = torch.nn.Linear(3, 2)
    ours, theirs = case.ours(module.named_parameters()), case.torchs(module.named_parameters())
    assert ours.param_groups[0]["param_names"] == ["weight", "bias"]
    ours.load_state_dict(theirs.state_dict())
    assert ours.state_dict()["param_groups"][0]["param_names"] == ["weight", "bias"]


@cases.classes
def test_foreign_state_survives(case: Case) -> None:
    params = parameters(SHAPES)
    optimizer = stepped(case.ours, params)
    optimizer.state[params[0]]["slow"] = torch.ones(5, 7)
    optimizer.state["global"] = {"k": 3}
    optimizer.param_groups[0]["mine"] = [1, 2]
    saved = copy.deepcopy(optimizer.state_dict())
    other = case.ours(twin(params))
    other.load_state_dict(saved)
    assert torch.equal(other.state[other.param_groups[0]["params"][0]]["slow"], torch.ones(5, 7))
    assert other.state["global"] == {"k": 3}
    assert other.param_groups[0]["mine"] == [1, 2]
    gradients(other.param_groups[0]["params"])
    other.step()
    assert torch.equal(other.state[other.param_groups[0]["params"][0]]["slow"], torch.ones(5, 7))
