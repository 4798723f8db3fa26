"""One element, in order: sign, unscale, clip, value clamp, coupled decay, decoupled decay, rule, L1, EMA, write."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import cases, tolerances
from tests.cases import Case
from tests.helpers import gradients, parameters
from tests.one_pass import oracle
from tests.one_pass.oracle import Expected

SHAPES = [(5, 7), (300,), ()]

ALONE: dict[str, dict[str, Any]] = {
    "proximal": {"l1_decay": 0.3},
    "subgradient": {"l1_decay": 0.3, "l1_mode": "subgradient"},
    "norm": {"max_grad_norm": 0.7},
    "norm-not-reached": {"max_grad_norm": 1e4},
    "value": {"max_grad_value": 0.25},
    "skip": {"skip_nonfinite": True},
    "ema": {"ema_decay": 0.75},
    "master": {"master_weights": True},
    "stochastic": {"rounding": "stochastic", "seed": 3},
    "float32": {"state_dtype": torch.float32},
    "bfloat16": {"state_dtype": torch.bfloat16},
    "8bit": {"state_dtype": "8bit"},
}


def assert_as_expected(optimizer: Any, expected: dict[torch.Tensor, Expected]) -> None:
    """Assert that a step did what it should: weights, averages and states within the rounding of their storage."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p in expected:
                _assert_parameter(optimizer, group, p, expected[p])


def _assert_parameter(optimizer: Any, group: dict[str, Any], p: Any, want: Expected) -> None:
    # the gradient takes three more roundings on its way here, which the size of the terms stands for
    size = want.size * 1.5
    low = p.dtype in cases.HALVES
    if low and group.get("master_weights"):
        whole = oracle.weights(optimizer, p)
        tolerances.one_rounding(whole.float(), want.weight, size)
        # the parameter is the rounding of its float32; the one value that has no pair is a tie, and rounds as well
        half_ulp = tolerances.spacing(whole, p.dtype) / 2
        assert bool(((p.detach().double() - whole).abs() <= half_ulp).all())
    elif low and group.get("rounding") == "stochastic":
        inside = 12 * torch.finfo(torch.float32).eps * size
        ulp = tolerances.spacing(want.weight.abs() + inside, p.dtype)
        assert bool(((p.detach().double() - want.weight).abs() < ulp + inside).all())
    else:
        tolerances.one_rounding(p, want.weight, size)
    own = optimizer.state.get(p, {})
    actual = oracle.states(optimizer, p)
    assert actual.keys() - {"step"} == want.state.keys() - {"step"}
    for key, value in want.state.items():
        if key == "step":
            assert key not in actual or actual[key] == value
        elif key == "ema":
            assert own[key].dtype == torch.float32
            tolerances.one_rounding(own[key], value, size + value.abs())
        else:
            terms = value.abs() + 4 * (1 + want.gradient) ** 2 + size / group["lr"]
            _assert_state(group, p, own, key, value, terms)


def _assert_state(
    group: dict[str, Any],
    p: torch.Tensor,
    own: dict[str, Any],
    key: str,
    value: torch.Tensor,
    terms: torch.Tensor,
) -> None:
    if group.get("state_dtype") != "8bit":
        assert own[key].dtype == oracle.state_dtype(group, p)
        tolerances.one_rounding(own[key], value, terms)
        return
    nonnegative = key in oracle.NONNEGATIVE
    stored = oracle.decode(own[f"{key}_code"], own[f"{key}_scale"], nonnegative=nonnegative)
    inside = 12 * torch.finfo(torch.float32).eps * terms
    largest = value.abs().max() if value.numel() else 0.0  # of the tensor: at least that of a block
    allowed = inside + oracle.code_step(value, largest, nonnegative=nonnegative)
    assert bool(((stored - value).abs() <= allowed).all())
    assert bool((stored[value == 0].abs() <= inside[value == 0]).all())


def run(
    case: Case,
    dtype: torch.dtype,
    groups: list[dict[str, Any]],
    *,
    unscale: float = 1.0,
    steps: int = 3,
    **options: Any,
) -> Any:
    """Train a few steps, each of which is compared with the formulas; every step starts from what is stored."""
    made = [{"params": parameters(SHAPES, dtype), **group} for group in groups]
    fused = {"fused": True} if unscale != 1.0 else {}
    if case.hyper.get("initial_accumulator_value"):  # one that the 8-bit code holds exactly
        options = {"initial_accumulator_value": (1.5 * 2**15 - 1.125) * 2.0**-19, **options}
    optimizer = case.ours(made, **fused, **options)
    params = [p for group in made for p in group["params"]]
    for step in range(steps):
        gradients(params)
        params[step % len(params)].grad = None  # gradients come and go
        if unscale != 1.0:
            optimizer.grad_scale = torch.tensor(1 / unscale)
            optimizer.found_inf = torch.tensor(0.0)
        expected = oracle.expected_step(case, optimizer, unscale=unscale)
        kept = {p: p.grad.clone() for p in params if p.grad is not None}
        without = {p: p.detach().clone() for p in params if p.grad is None}
        optimizer.step()
        assert_as_expected(optimizer, expected)
        for p, grad in kept.items():
            assert p.grad is not None
            tolerances.exact(p.grad, grad)
        for p, before in without.items():
            tolerances.exact(p, before)
    return optimizer


@pytest.mark.parametrize(
    ("case", "name", "dtype"),
    [
        pytest.param(case, name, dtype, id=f"{case}-{name}-{str(dtype).removeprefix('torch.')}")
        for i, case in enumerate(cases.CASES)
        for k, name in enumerate(ALONE)
        for dtype in [cases.DTYPES[(i + k) % len(cases.DTYPES)]]
    ],
)
def test_one_option(case: Case, name: str, dtype: torch.dtype) -> None:
    """Each option with each configuration in one dtype in turn: with each dtype several times."""
    run(case, dtype, [{}], **ALONE[name])


@cases.all_dtypes
@cases.rules
def test_all_options_at_once(case: Case, dtype: torch.dtype) -> None:
    run(
        case,
        dtype,
        [
            {"ema_decay": 0.5, "state_dtype": torch.bfloat16},
            {"l1_decay": 0.2, "master_weights": True},
        ],
        unscale=1 / 8,
        max_grad_norm=2.0,
        max_grad_value=0.2,
        skip_nonfinite=True,
        l1_decay=0.1,
        l1_mode="subgradient",
        ema_decay=0.9,
        rounding="stochastic",
        seed=7,
    )


@cases.classes
def test_options_belong_to_their_group(case: Case) -> None:
    """What one group asks for leaves no trace in another."""
    options: list[dict[str, Any]] = [
        {"l1_decay": 0.2},
        {"l1_decay": 0.2, "l1_mode": "subgradient"},
        {"ema_decay": 0.5},
        {"master_weights": True},
        {"rounding": "stochastic"},
        {"state_dtype": torch.bfloat16},
        {"state_dtype": "8bit"},
        {},
    ]
    optimizer = run(case, torch.bfloat16, options)
    for group in optimizer.param_groups:
        for p in group["params"]:
            keys = set(optimizer.state[p]) if p in optimizer.state else set()
            assert ("ema" in keys) == ("ema_decay" in group)
            assert ("master" in keys) == ("master_weights" in group)
            if case.state_keys:
                assert any(k.endswith("_code") for k in keys) == (
                    group.get("state_dtype") == "8bit"
                )


PER_GROUP = st.fixed_dictionaries(
    {},
    optional={
        "l1_decay": st.sampled_from([0.0, 0.02, 0.5]),
        "l1_mode": st.sampled_from(["proximal", "subgradient"]),
        "ema_decay": st.sampled_from([None, 0.0, 0.9, 1.0]),
        "master_weights": st.booleans(),
        "rounding": st.sampled_from(["nearest", "stochastic"]),
        "state_dtype": st.sampled_from([None, torch.float32, torch.bfloat16, "8bit"]),
        "weight_decay": st.sampled_from([0.0, 0.05]),
    },
)
WHOLE = st.fixed_dictionaries(
    {},
    optional={
        "max_grad_norm": st.sampled_from([None, 0.5, 1e3]),
        "max_grad_value": st.sampled_from([None, 0.25]),
        "skip_nonfinite": st.booleans(),
        "seed": st.sampled_from([0, 1, 2**64 - 1]),
    },
)


@settings(max_examples=200)
@given(
    case=st.sampled_from(cases.CASES),
    dtype=st.sampled_from(cases.DTYPES),
    whole=WHOLE,
    groups=st.lists(PER_GROUP, min_size=1, max_size=3),
    unscale=st.sampled_from([1.0, 0.25]),
    random=st.integers(0, 2**31),
)
def test_random_combinations(
    case: Case,
    dtype: torch.dtype,
    whole: dict[str, Any],
    groups: list[dict[str, Any]],
    unscale: float,
    random: int,
) -> None:
    torch.manual_seed(random)
    run(case, dtype, groups, unscale=unscale, steps=2, **whole)


def stepped(value: float, grad: float, name: str = "SGD", **options: Any) -> float:
    import onepass

    p = torch.nn.Parameter(torch.tensor([value], dtype=torch.float64))
    optimizer = getattr(onepass, name)([p], **options)
    p.grad = torch.tensor([grad], dtype=torch.float64)
    optimizer.step()
    return p.item()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # p = 2, g = 3, lr = 0.5; worked by hand
        ({}, 2 - 0.5 * 3),
        ({"maximize": True}, 2 + 0.5 * 3),
        ({"max_grad_norm": 1.0}, 2 - 0.5 * 3 * (1 / (3 + 1e-6))),
        ({"max_grad_value": 1.0}, 2 - 0.5),
        # clip before the clamp: the clamp sees about 1
        ({"max_grad_norm": 1.0, "max_grad_value": 2.0}, 2 - 0.5 * 3 * (1 / (3 + 1e-6))),
        # coupled decay after clip and clamp: neither limits it
        ({"max_grad_value": 1.0, "weight_decay": 4.0}, 2 - 0.5 * (1 + 8)),
        (
            {"max_grad_value": 1.0, "l1_decay": 4.0, "l1_mode": "subgradient"},
            2 - 0.5 * (1 + 4),
        ),
        ({"max_grad_norm": 1.0, "weight_decay": 4.0}, 2 - 0.5 * (3 / (3 + 1e-6) + 8)),
        # the sign belongs to the gradient, not to what pulls to zero
        ({"maximize": True, "weight_decay": 4.0}, 2 - 0.5 * (-3 + 8)),
        (
            {"maximize": True, "l1_decay": 1.0, "l1_mode": "subgradient"},
            2 - 0.5 * (-3 + 1),
        ),
        ({"maximize": True, "max_grad_value": 1.0}, 2 + 0.5),
        # L1 after the update, with the learning rate
        ({"l1_decay": 0.5}, 2 - 1.5 - 0.25),
        ({"l1_decay": 1.5}, 0.0),
    ],
)
def test_worked_example(options: dict[str, Any], expected: float) -> None:
    assert stepped(2.0, 3.0, lr=0.5, **options) == pytest.approx(expected, rel=1e-15, abs=1e-15)


def test_decoupled_decay_comes_before_the_rule_and_l1_after() -> None:
    """With p = 2, lr = 0.1, decay 3: 2 (1 - 0.3) = 1.4; Adam first moves by lr sign(g); then 0.1 of L1."""
    found = stepped(2.0, 5.0, "AdamW", lr=0.1, weight_decay=3.0, eps=0.0, l1_decay=1.0)
    assert found == pytest.approx(1.4 - 0.1 - 0.1, rel=1e-14)


def test_l1_uses_the_decayed_rate_of_adagrad() -> None:
    p = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    import onepass

    optimizer = onepass.Adagrad([p], lr=0.5, lr_decay=1.0, l1_decay=0.2)
    p.grad = torch.zeros(1, dtype=torch.float64)
    optimizer.step()
    assert p.item() == pytest.approx(1 - 0.5 * 0.2, rel=1e-15)
    optimizer.step()
    assert p.item() == pytest.approx(1 - 0.5 * 0.2 - 0.25 * 0.2, rel=1e-15)


def test_average_is_of_the_weights_before_they_are_rounded() -> None:
    """1 + 2^-10 is between two bfloat16 numbers; the average has the digits of float32."""
    import onepass

    p = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    p.grad = torch.full_like(p, -(2.0**-10))
    optimizer = onepass.SGD([p], lr=1.0, ema_decay=0.5)
    optimizer.step()
    assert p.tolist() == [1.0] * 3
    assert optimizer.state[p]["ema"].tolist() == [1 + 2.0**-10] * 3


def test_average_is_of_the_weights_after_l1() -> None:
    import onepass

    p = torch.nn.Parameter(torch.tensor([0.05, 2.0]))
    p.grad = torch.zeros_like(p)
    optimizer = onepass.SGD([p], lr=0.1, l1_decay=1.0, ema_decay=0.5)
    optimizer.step()
    tolerances.exact(optimizer.state[p]["ema"], p)
    assert p[0].item() == 0.0
