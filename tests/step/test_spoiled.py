"""What is written into groups and states between steps is checked before anything is written."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import onepass
from onepass.state import check
from tests import cases
from tests.cases import Case
from tests.helpers import gradients, parameters
from tests.step.helpers import assert_alike, picture

SHAPES = [(5, 7), (70,), (33,)]

OF_ALL: list[tuple[str, Any, type[Exception]]] = [
    ("lr", -0.1, ValueError),
    ("lr", math.nan, ValueError),
    ("lr", "0.1", TypeError),
    ("lr", None, TypeError),
    ("lr", torch.tensor([0.1, 0.2]), ValueError),
    ("lr", torch.tensor(-1.0), ValueError),
    ("weight_decay", -1.0, ValueError),
    ("weight_decay", "much", TypeError),
    ("weight_decay", None, TypeError),
    ("l1_decay", -1, ValueError),
    ("l1_decay", "x", TypeError),
    ("l1_mode", "ridge", ValueError),
    ("ema_decay", 2, ValueError),
    ("ema_decay", -0.1, ValueError),
    ("ema_decay", "x", TypeError),
    ("rounding", "up", ValueError),
    ("state_dtype", "4bit", ValueError),
    ("state_dtype", torch.int8, ValueError),
    ("master_weights", "yes", ValueError),
    ("max_grad_norm", 0.0, ValueError),
    ("max_grad_norm", "x", TypeError),
    ("max_grad_value", -1.0, ValueError),
    ("skip_nonfinite", "x", ValueError),
    ("train_from", -1, ValueError),
    ("train_from", 1.5, ValueError),
    ("anchor_decay", -1.0, ValueError),
    ("seed", -1, ValueError),
    ("seed", 2**64, ValueError),
    ("seed", "x", ValueError),
]
_BETAS: list[tuple[str, Any, type[Exception]]] = [
    ("betas", betas, error)
    for betas, error in (
        ((0.9,), ValueError),
        ((0.9, 0.99, 0.999), ValueError),
        (0.9, ValueError),
        ("ab", ValueError),
        ([0.9], ValueError),
        ((0.9, 1.5), ValueError),
        ((-0.1, 0.9), ValueError),
        ((0.9, 1.0), ValueError),
        ((0.9, math.nan), ValueError),
        ((0.9, "x"), TypeError),
        ((0.9, None), TypeError),
    )
]
OF_ONE: dict[str, list[tuple[str, Any, type[Exception]]]] = {
    "SGD": [
        ("momentum", -0.1, ValueError),
        ("momentum", "x", TypeError),
        ("dampening", None, TypeError),
        ("nesterov", "x", ValueError),
    ],
    "Adagrad": [("lr_decay", -1.0, ValueError), ("eps", -1.0, ValueError), ("eps", "x", TypeError)],
    "RMSprop": [
        ("alpha", -0.1, ValueError),
        ("eps", None, TypeError),
        ("momentum", -0.1, ValueError),
    ],
    "Adam": [*_BETAS, ("eps", -1.0, ValueError), ("eps", "x", TypeError)],
    "AdamW": [*_BETAS, ("eps", -1.0, ValueError)],
}
SPOILED = [
    pytest.param(case, *wrong, id=f"{case}-{wrong[0]}={wrong[1]}")
    for case in cases.CLASSES
    for wrong in (*OF_ALL, *OF_ONE[case.name])
]


def trained(case: Case, steps: int = 4, **options: Any) -> tuple[list[Any], Any]:
    ours = parameters(SHAPES)
    optimizer = case.ours([{"params": ours[:1]}, {"params": ours[1:], "lr": 0.03}], **options)
    for _ in range(steps):
        gradients(ours)
        optimizer.step()
    gradients(ours)
    return ours, optimizer


@pytest.mark.parametrize(("case", "name", "value", "error"), SPOILED)
@pytest.mark.parametrize("steps", [0, 4])
def test_wrong_values_are_refused(
    case: Case, name: str, value: Any, error: type[Exception], steps: int
) -> None:
    """The second group's, so that nothing of the first has been written; then all is as it was."""
    _, optimizer = trained(case, steps)
    group = optimizer.param_groups[1]
    before, known = picture(optimizer), dict(group)
    group[name] = value
    for _ in range(2):  # a check that failed is not taken for one that was done
        with pytest.raises(error, match=name.rstrip("s") if name == "betas" else name):
            optimizer.step()
        assert_alike(picture(optimizer), before)
    group.clear()
    group.update(known)
    optimizer.step()
    assert optimizer.steps_applied == steps + 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_grad_norm", 1.0), ("max_grad_value", 1.0), ("skip_nonfinite", True), ("seed", 3)],
)
def test_an_option_of_the_whole_optimizer_is_one(name: str, value: Any) -> None:
    _, optimizer = trained(cases.BY_ID["adamw"])
    optimizer.param_groups[1][name] = value
    before = picture(optimizer)
    with pytest.raises(ValueError, match=f"{name} belongs to the whole optimizer"):
        optimizer.step()
    assert_alike(picture(optimizer), before)


def test_a_number_in_a_tensor_is_checked_each_time() -> None:
    """It is the same object, whatever it holds."""
    ours = parameters(SHAPES)
    lr = torch.tensor(0.1)
    optimizer = onepass.SGD(ours, lr=lr)
    for _ in range(3):
        gradients(ours)
        optimizer.step()
    lr.fill_(-1.0)
    before = picture(optimizer)
    with pytest.raises(ValueError, match="learning rate"):
        optimizer.step()
    assert_alike(picture(optimizer), before)


def test_a_foreign_group_is_stepped_once() -> None:
    """An error that comes late is not taken for a reason to try again."""
    ours = parameters(SHAPES)
    groups: list[dict[str, Any]] = [{"params": ours[:1], "fused": False}, {"params": ours[1:]}]
    optimizer = onepass.SGD(groups, lr=0.5)
    ours[0].requires_grad_(False)  # torch's differentiable step refuses leaves
    optimizer.param_groups[0]["differentiable"] = True
    gradients(ours)
    want = [p.detach() - 0.5 * p.grad for p in ours]  # type: ignore[operator]
    optimizer.param_groups[1]["nesterov"] = None
    before = picture(optimizer)
    with pytest.raises(ValueError, match="nesterov"):
        optimizer.step()
    assert_alike(picture(optimizer), before)
    optimizer.param_groups[1]["nesterov"] = False
    optimizer.step()
    for p, value in zip(ours, want, strict=True):
        torch.testing.assert_close(p.detach(), value)
    assert optimizer.steps_applied == 1


CORE = {"Adagrad": ["sum"], "RMSprop": ["square_avg"], "Adam": ["exp_avg", "exp_avg_sq"]}


@pytest.mark.parametrize("name", CORE)
@pytest.mark.parametrize("options", [{}, {"state_dtype": "8bit"}, {"ema_decay": 0.9}], ids=str)
@pytest.mark.parametrize("how_many", [1, 2])
def test_lost_states_are_missed(name: str, options: dict[str, Any], how_many: int) -> None:
    """As torch does; they do not start anew at 0."""
    ours, optimizer = trained(Case(name, name, {"lr": 0.02}), **options)
    state = optimizer.state[ours[2]]
    for key in CORE[name][:how_many]:
        for lost in (key, f"{key}_code", f"{key}_scale"):
            state.pop(lost, None)
    before = picture(optimizer)
    with pytest.raises(RuntimeError, match=rf"parameter 1 of group 1: '{CORE[name][0]}' is miss"):
        optimizer.step()
    assert_alike(picture(optimizer), before)


@pytest.mark.parametrize("lost", ["key", "None"])
def test_momentum_without_a_buffer_starts_anew(lost: str) -> None:
    """As in torch, whose SGD counts no steps."""
    ours, optimizer = trained(Case("SGD", "SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}))
    state = optimizer.state[ours[0]]
    if lost == "None":
        state["momentum_buffer"] = None
    else:
        del state["momentum_buffer"]
    optimizer.step()
    torch.testing.assert_close(state["momentum_buffer"], ours[0].grad)


STEPS: dict[str, Any] = {
    "None": None,
    "string": "3",
    "several": torch.ones(2),
    "none": torch.ones(0),
    "negative": torch.tensor(-1.0),
    "negative int": -1,
    "NaN": torch.tensor(math.nan),
    "NaN float": math.nan,
    "meta": torch.tensor(1.0, device="meta"),
    "negative double": torch.tensor(-2.0, dtype=torch.float64),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("name", ["Adagrad", "RMSprop", "Adam"])
def test_a_count_that_is_none(name: str, step: Any) -> None:
    ours, optimizer = trained(Case(name, name, {"lr": 0.02}))
    optimizer.state[ours[1]]["step"] = step
    problem = check.problem_of(optimizer.spec, optimizer.state[ours[1]], ours[1])
    assert problem is not None
    assert problem.startswith("'step'")
    if isinstance(step, torch.Tensor) and step.numel() == 1 and step.device.type == "cpu":
        return  # the kernels read it
    with pytest.raises(RuntimeError, match="parameter 0 of group 1: 'step'"):
        optimizer.step()


def test_a_count_that_is_missing() -> None:
    ours, optimizer = trained(cases.BY_ID["adam"])
    del optimizer.state[ours[0]]["step"]
    before = picture(optimizer)
    with pytest.raises(RuntimeError, match="parameter 0 of group 0: 'step' is missing"):
        optimizer.step()
    assert_alike(picture(optimizer), before)


def _without_memory(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.clone()
    tensor.untyped_storage().resize_(0)
    return tensor


TENSORS = {
    "meta": lambda tensor: tensor.to("meta"),
    "shape": lambda tensor: tensor.flatten()[1:].clone(),
    "no memory": _without_memory,
    "no tensor": lambda tensor: tensor.tolist(),
    "integers": lambda tensor: tensor.long(),
}


@pytest.mark.parametrize("spoil", TENSORS.values(), ids=TENSORS)
@cases.classes
def test_a_state_that_cannot_be_used(case: Case, spoil: Any) -> None:
    ours, optimizer = trained(case)
    state = optimizer.state[ours[1]]
    key = case.state_keys[0]
    good, state[key] = state[key], spoil(state[key])
    weights = [p.detach().clone() for p in ours]
    with pytest.raises(RuntimeError, match=f"parameter 0 of group 1: '{key}'"):
        optimizer.step()
    for p, weight in zip(ours, weights, strict=True):
        assert torch.equal(p, weight)
    assert optimizer.steps_applied == 4
    state[key] = good
    optimizer.step()


def test_what_fits_a_storage() -> None:
    whole = torch.zeros(64)
    assert check.fits_storage(whole[3:60:7])
    assert check.fits_storage(torch.zeros(0))
    assert check.fits_storage(whole.expand(5, 64))
    assert check.fits_storage(torch.zeros(3).to_sparse())
    view = whole[32:]
    whole.untyped_storage().resize_(64 * 4 - 1)
    assert not check.fits_storage(view)
    assert not check.fits_storage(whole)
    assert check.fits_storage(whole[:63])


def test_a_state_in_a_small_storage() -> None:
    """The check that the slow path and loading use."""
    ours, optimizer = trained(cases.BY_ID["adam"])
    state = optimizer.state[ours[1]]
    state["exp_avg"].untyped_storage().resize_(64)
    problem = check.problem_of(optimizer.spec, state, ours[1])
    assert problem == "'exp_avg' does not fit its storage, which was resized to 64 bytes"


@pytest.mark.parametrize("whose", ["parameter", "gradient"])
@pytest.mark.parametrize("size", [0, 64])
def test_refused_for_its_storage(whose: str, size: int) -> None:
    (p,) = parameters([(70,)])
    p.grad = torch.ones(70)
    (p if whose == "parameter" else p.grad).untyped_storage().resize_(size)
    text = "its gradient" if whose == "gradient" else "parameter 0 of group 0"
    with pytest.raises(RuntimeError, match=f"{text} (has no memory|does not fit its storage)"):
        check.refuse([{"params": [p]}], 0, 0)
