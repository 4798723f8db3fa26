"""Checkpoints with options: in our optimizers, from torch's and to torch's, as plain data."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch

import onepass
from tests import cases, tolerances
from tests.cases import Case
from tests.helpers import assert_same, gradients, parameters, twin

SHAPES = [(5, 7), (700,), ()]

SETS: dict[str, dict[str, Any]] = {
    "l1": {"l1_decay": 0.01, "l1_mode": "subgradient"},
    "clip": {"max_grad_norm": 1.0, "max_grad_value": 0.3, "skip_nonfinite": True},
    "ema": {"ema_decay": 0.9},
    "master": {"master_weights": True, "state_dtype": torch.float32},
    "stochastic": {"rounding": "stochastic", "seed": 12, "state_dtype": torch.bfloat16},
    "8bit": {"state_dtype": "8bit", "master_weights": True, "ema_decay": 0.5},
}
sets = pytest.mark.parametrize("name", list(SETS))


def through_a_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(plain(k) and plain(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return all(plain(v) for v in value)
    return type(value) in (torch.Tensor, int, float, str, bool, type(None), torch.dtype)


def train(optimizer: Any, params: list[Any], steps: int) -> None:
    for _ in range(steps):
        gradients(params)
        optimizer.step()


@sets
@cases.halves
@cases.classes
def test_resumes_bit_for_bit(case: Case, name: str, dtype: torch.dtype) -> None:
    params = parameters(SHAPES, dtype)
    optimizer = case.ours(params, **SETS[name])
    train(optimizer, params, 3)
    assert plain(optimizer.state_dict())
    others = twin(params)
    other = case.ours(others, **SETS[name])
    other.load_state_dict(through_a_file(optimizer.state_dict()))
    for _ in range(2):
        gradients(params, others)
        optimizer.step()
        other.step()
    for p, q in zip(params, others, strict=True):
        tolerances.exact(p, q)
    assert_states_equal(optimizer, other)


def assert_states_equal(a: Any, b: Any) -> None:
    first, second = a.state_dict(), b.state_dict()
    assert first["param_groups"] == second["param_groups"]
    for i, own in first["state"].items():
        assert set(second["state"][i]) == set(own)
        for key, value in own.items():
            tolerances.exact(second["state"][i][key], value)


@sets
@cases.classes
def test_options_are_in_our_checkpoint(case: Case, name: str) -> None:
    params = parameters(SHAPES, torch.bfloat16)
    optimizer = case.ours(params, **SETS[name])
    train(optimizer, params, 2)
    others = twin(params)
    other = case.ours(others)
    other.load_state_dict(through_a_file(optimizer.state_dict()))
    for key, value in SETS[name].items():
        assert other.param_groups[0][key] == value
    for _ in range(2):
        gradients(params, others)
        optimizer.step()
        other.step()
    for p, q in zip(params, others, strict=True):
        tolerances.exact(p, q)


@sets
@cases.classes
def test_torchs_checkpoint_keeps_the_options(case: Case, name: str) -> None:
    params = parameters(SHAPES, torch.bfloat16)
    torchs = case.torchs(twin(params))
    train(torchs, torchs.param_groups[0]["params"], 2)
    optimizer = case.ours(params, **SETS[name])
    optimizer.load_state_dict(through_a_file(torchs.state_dict()))
    group = optimizer.param_groups[0]
    for key, value in SETS[name].items():
        assert group[key] == value
    train(optimizer, params, 2)
    for p in params:
        keys = set(optimizer.state[p])
        assert ("ema" in keys) == ("ema_decay" in SETS[name])
        assert ("master" in keys) == ("master_weights" in SETS[name])
        assert "step" not in keys or float(optimizer.state[p]["step"]) == 4


@cases.classes
def test_torchs_checkpoint_goes_on_as_torch(case: Case) -> None:
    """With options that do not change the training, and with the rest in float32."""
    params = parameters(SHAPES)
    theirs = twin(params)
    torchs = case.torchs(theirs)
    train(torchs, theirs, 3)
    ours = twin(theirs)
    optimizer = case.ours(
        ours, ema_decay=0.9, max_grad_norm=1e6, skip_nonfinite=True, state_dtype=torch.float32
    )
    optimizer.load_state_dict(through_a_file(torchs.state_dict()))
    for _ in range(3):
        gradients(ours, theirs)
        optimizer.step()
        torchs.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, **tolerances.accumulated(6))


@pytest.mark.parametrize("name", [name for name in SETS if name != "8bit"])
@cases.classes
def test_torch_loads_the_part_it_knows(case: Case, name: str) -> None:
    """Moments in floating point go on; averages, masters and options are ignored."""
    params = parameters(SHAPES)
    optimizer = case.ours(params, **SETS[name])
    train(optimizer, params, 3)
    theirs = twin(params)
    torchs = case.torchs(theirs)
    torchs.load_state_dict(through_a_file(optimizer.state_dict()))
    plain_params = twin(params)
    reference = case.torchs(plain_params)
    state = copy.deepcopy(optimizer.state_dict())
    for own in state["state"].values():
        own.pop("ema", None)
        own.pop("master", None)
    reference.load_state_dict(state)
    for _ in range(2):
        gradients(theirs, plain_params)
        torchs.step()
        reference.step()
    for p, q in zip(theirs, plain_params, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=0)
        for key in case.state_keys:
            assert key in torchs.state[p]


@cases.classes
def test_there_and_back_again(case: Case) -> None:
    """Through torch.optim, which keeps what it does not know: options, average, masters."""
    params = parameters(SHAPES, torch.bfloat16)
    options = {"ema_decay": 0.5, "master_weights": True, "max_grad_norm": 1.0}
    optimizer = case.ours(params, **options)
    train(optimizer, params, 2)
    torchs = case.torchs(twin(params))
    torchs.load_state_dict(through_a_file(optimizer.state_dict()))
    others = twin(params)
    other = case.ours(others)
    other.load_state_dict(through_a_file(torchs.state_dict()))
    for key, value in options.items():
        assert other.param_groups[0][key] == value
    train(other, others, 2)
    for p in others:
        assert {"ema", "master"} <= set(other.state[p])


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
@sets
@cases.classes
def test_copies_go_on_the_same(case: Case, name: str, way: str) -> None:
    params = parameters(SHAPES, torch.bfloat16)
    optimizer = case.ours(params, **SETS[name])
    train(optimizer, params, 2)
    other = copy.deepcopy(optimizer) if way == "deepcopy" else pickle.loads(pickle.dumps(optimizer))
    others = other.param_groups[0]["params"]
    assert all(p is not q for p, q in zip(params, others, strict=True))
    for _ in range(2):
        gradients(params, others)
        optimizer.step()
        other.step()
    for p, q in zip(params, others, strict=True):
        tolerances.exact(p, q)
    assert_states_equal(optimizer, other)
    assert hasattr(other, "_step_supports_amp_scaling") == ("max_grad_norm" in SETS[name])


@cases.classes
def test_groups_keep_their_own_options(case: Case) -> None:
    def make(params: list[Any], **more: Any) -> Any:
        return case.ours(
            [
                {"params": params[:1], "ema_decay": 0.5, **more},
                {"params": params[1:2], "state_dtype": torch.bfloat16, **more},
                {"params": params[2:], **more},
            ],
            max_grad_norm=1.0,
        )

    params = parameters(SHAPES)
    optimizer = make(params)
    train(optimizer, params, 2)
    others = twin(params)
    other = make(others)
    other.load_state_dict(through_a_file(optimizer.state_dict()))
    for group, loaded in zip(optimizer.param_groups, other.param_groups, strict=True):
        assert group.keys() == loaded.keys()
        for key in ("ema_decay", "state_dtype", "max_grad_norm"):
            assert group.get(key) == loaded.get(key)
    torchs = case.torchs([{"params": [p]} for p in twin(params)])
    other.load_state_dict(torchs.state_dict())
    assert [g.get("ema_decay") for g in other.param_groups] == [0.5, None, None]
    assert other.param_groups[1]["state_dtype"] == torch.bfloat16


@pytest.mark.parametrize("where", ["8bit", "float"])
@pytest.mark.parametrize("damage", ["missing", "too short"])
@pytest.mark.parametrize("key", ["exp_avg_scale", "exp_avg_sq_scale"])
def test_broken_scales_are_refused(key: str, damage: str, where: str) -> None:
    """A block scale that does not fit is an error that names the parameter; nothing is made up in its place."""
    params = parameters([(5, 7), (700,)])
    optimizer = onepass.Adam(params, state_dtype="8bit")
    train(optimizer, params, 2)
    state = copy.deepcopy(optimizer.state_dict())
    if damage == "missing":
        del state["state"][1][key]
    else:
        state["state"][1][key] = state["state"][1][key][:1]
    if where == "float":
        for group in state["param_groups"]:
            del group["state_dtype"]
    others = twin(params)
    other = onepass.Adam(others, state_dtype="8bit" if where == "8bit" else None)
    before = [p.detach().clone() for p in others]
    gradients(others)

    def load_and_step() -> None:
        other.load_state_dict(state)
        other.step()

    with pytest.raises((ValueError, RuntimeError), match="parameter 1 of group 0"):
        load_and_step()
    for p, old in zip(others, before, strict=True):
        tolerances.exact(p, old)


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("ema", {"ema_decay": 0.5}),
        ("master", {"master_weights": True}),
        ("exp_avg_code", {"state_dtype": "8bit"}),
        ("exp_avg_sq_code", {"state_dtype": "8bit"}),
    ],
)
def test_wrong_shapes_are_refused_before_anything_is_loaded(
    key: str, options: dict[str, Any]
) -> None:
    params = parameters([(5, 7), (700,)], torch.bfloat16)
    optimizer = onepass.Adam(params, **options)
    train(optimizer, params, 2)
    state = copy.deepcopy(optimizer.state_dict())
    state["state"][1][key] = state["state"][1][key][:5]
    others = twin(params)
    other = onepass.Adam(others, **options)
    train(other, others, 1)
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(ValueError, match=rf"(?s)parameter 1 of group 0.*{key}.*\(5,\).*\(700,\)"):
        other.load_state_dict(state)
    after = other.state_dict()
    assert after["param_groups"] == before["param_groups"]
    for i, own in before["state"].items():
        for name, value in own.items():
            tolerances.exact(after["state"][i][name], value)


@cases.classes
def test_options_that_are_not_used_leave_no_trace(case: Case) -> None:
    """Explicit defaults are the same as none: torch's keys, torch's states."""
    params = parameters(SHAPES)
    optimizer = case.ours(
        params,
        max_grad_norm=None,
        max_grad_value=None,
        skip_nonfinite=False,
        ema_decay=None,
        master_weights=False,
        rounding="nearest",
        state_dtype=None,
        seed=0,
    )
    theirs = twin(params)
    torchs = case.torchs(theirs, foreach=None)
    gradients(params, theirs)
    optimizer.step()
    torchs.step()
    assert optimizer.state_dict()["param_groups"] == torchs.state_dict()["param_groups"]
    assert_same(optimizer, torchs, **tolerances.accumulated(1))


def test_late_group_has_the_options_of_the_whole_optimizer() -> None:
    """Also where they came with a checkpoint."""
    p, q = parameters([(70,), (70,)])
    source = onepass.SGD([p], max_grad_value=0.1)
    other = onepass.SGD([p], lr=1.0)
    other.load_state_dict(source.state_dict())
    other.add_param_group({"params": [q], "lr": 1.0})
    p.grad, q.grad = torch.ones(70), torch.ones(70)
    before = q.detach().clone()
    other.step()
    torch.testing.assert_close(q.detach(), before - 0.1, **tolerances.accumulated(1))
