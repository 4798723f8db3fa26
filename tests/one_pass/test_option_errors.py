"""Options out of their range, options of the whole optimizer in one group, and groups that cannot have options."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch

import onepass
from tests import cases, tolerances
from tests.cases import Case
from tests.helpers import gradients, parameters

NAN, INF = math.nan, math.inf

# option, value, what the message says of the range
WRONG: list[tuple[str, Any, str]] = [
    ("l1_decay", -1.0, ">= 0"),
    ("l1_decay", NAN, ">= 0"),
    ("l1_mode", "lasso", "'proximal', 'subgradient'"),
    ("l1_mode", None, "'proximal', 'subgradient'"),
    ("max_grad_norm", 0.0, "> 0"),
    ("max_grad_norm", -2.0, "> 0"),
    ("max_grad_norm", NAN, "> 0"),
    ("max_grad_value", 0, "> 0"),
    ("max_grad_value", -0.5, "> 0"),
    ("max_grad_value", NAN, "> 0"),
    ("skip_nonfinite", "yes", "False, True"),
    ("skip_nonfinite", None, "False, True"),
    ("ema_decay", -0.1, ">= 0"),
    ("ema_decay", 1.5, "<= 1"),
    ("ema_decay", NAN, ">= 0"),
    ("master_weights", "float32", "False, True"),
    ("master_weights", 2, "False, True"),
    ("rounding", "up", "'nearest', 'stochastic'"),
    ("rounding", True, "'nearest', 'stochastic'"),
    ("state_dtype", "8-bit", "None, torch.float32, torch.bfloat16, '8bit'"),
    ("state_dtype", torch.float16, "None, torch.float32, torch.bfloat16, '8bit'"),
    ("state_dtype", torch.int8, "None, torch.float32, torch.bfloat16, '8bit'"),
    ("state_dtype", 8, "None, torch.float32, torch.bfloat16, '8bit'"),
    ("seed", -1, ">= 0"),
    ("seed", 2**64, "< 18446744073709551616|< 1\\.8"),
    ("seed", NAN, "whole number"),
]
# All classes check by one function: each value with one of them in turn, and each class with several values.
wrong = pytest.mark.parametrize(
    ("case", "option", "value", "allowed"),
    [
        pytest.param(case, *values, id=f"{case}-{values[0]}={values[1]}")
        for i, values in enumerate(WRONG)
        for case in [cases.CLASSES[i % len(cases.CLASSES)]]
    ],
)


def pattern(option: str, value: Any, allowed: str) -> str:
    def plain(text: str) -> str:
        return text if "|" in text else text.replace("(", r"\(").replace("[", r"\[")

    shown = str(value).replace("+", r"\+").replace(".", r"\.")
    return rf"(?s)(?=.*{option})(?=.*{shown})(?=.*({plain(allowed)}))"


@wrong
def test_constructor(case: Case, option: str, value: Any, allowed: str) -> None:
    with pytest.raises(ValueError, match=pattern(option, value, allowed)):
        case.ours(parameters([(3,)]), **{option: value})


@wrong
def test_group(case: Case, option: str, value: Any, allowed: str) -> None:
    p, q = parameters([(3,), (3,)])
    with pytest.raises(ValueError, match=pattern(option, value, allowed)):
        case.ours([{"params": [p]}, {"params": [q], option: value}])
    optimizer = case.ours([p])
    with pytest.raises(ValueError, match=pattern(option, value, allowed)):
        optimizer.add_param_group({"params": [q], option: value})
    assert len(optimizer.param_groups) == 1


def test_seed_that_is_no_whole_number_is_refused_at_once() -> None:
    """With the name of the option, and not in the first step."""
    with pytest.raises((TypeError, ValueError), match=r"(?s)seed.*1\.5"):
        onepass.SGD(parameters([(3,)], torch.bfloat16), rounding="stochastic", seed=1.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("option", "whole", "own"),
    [
        ("max_grad_norm", 1.0, 2.0),
        ("max_grad_norm", None, 2.0),
        ("max_grad_norm", 1.0, None),
        ("max_grad_value", 1.0, 2.0),
        ("max_grad_value", None, 2.0),
        ("skip_nonfinite", False, True),
        ("skip_nonfinite", True, False),
        ("seed", 0, 1),
        ("seed", 1, 0),
    ],
)
@cases.classes
def test_options_of_the_whole_optimizer(case: Case, option: str, whole: Any, own: Any) -> None:
    p, q = parameters([(3,), (3,)])
    match = rf"(?s)(?=.*{option})(?=.*whole)(?=.*{whole!r})(?=.*{own!r})"
    with pytest.raises(ValueError, match=match):
        case.ours([{"params": [p]}, {"params": [q], option: own}], **{option: whole})
    optimizer = case.ours([{"params": [p], option: whole}], **{option: whole})
    with pytest.raises(ValueError, match=match):
        optimizer.add_param_group({"params": [q], option: own})
    assert len(optimizer.param_groups) == 1
    optimizer.add_param_group({"params": [q], option: whole})  # the same value is none of its own


@cases.classes
def test_limits_of_the_ranges_are_allowed(case: Case) -> None:
    for option, value in (
        ("l1_decay", 0.0),
        ("max_grad_norm", 1e-30),
        ("max_grad_norm", INF),
        ("max_grad_value", INF),
        ("ema_decay", 0.0),
        ("ema_decay", 1.0),
        ("seed", 2**64 - 1),
    ):
        params = parameters([(3,)], torch.bfloat16)
        optimizer = case.ours(params, rounding="stochastic", **{option: value})
        gradients(params)
        optimizer.step()
        assert optimizer.report.applied


@cases.classes
def test_unknown_option_names_the_others(case: Case) -> None:
    with pytest.raises(TypeError, match=r"(?s)max_gradnorm.*max_grad_norm"):
        case.ours(parameters([(3,)]), max_gradnorm=1.0)


# Groups that fall back to torch's own step

ALONE: list[dict[str, Any]] = [
    {"l1_decay": 0.1},
    {"l1_mode": "subgradient", "l1_decay": 0.1},
    {"max_grad_norm": 1.0},
    {"max_grad_value": 1.0},
    {"skip_nonfinite": True},
    {"ema_decay": 0.9},
    {"master_weights": True},
    {"rounding": "stochastic"},
    {"state_dtype": torch.bfloat16},
    {"state_dtype": "8bit"},
]


KINDS = {"complex": cases.CLASSES, "differentiable": cases.CLASSES, "sparse": cases.CLASSES[:2]}


@pytest.mark.parametrize(
    ("case", "kind", "options"),
    [
        pytest.param(case, kind, options, id=f"{case}-{kind}-{options}")
        for kind, classes in KINDS.items()
        for i, options in enumerate(ALONE)
        for case in [classes[i % len(classes)]]  # torch refuses sparse gradients in others itself
    ],
)
def test_fallback_with_an_option(case: Case, kind: str, options: dict[str, Any]) -> None:
    """A clear error before anything is written, in this group or in others."""
    ordinary, p = parameters([(4,), (6, 3)])
    if kind == "complex":
        p = torch.nn.Parameter(torch.randn(3, dtype=torch.complex64))
    more = {"differentiable": True} if kind == "differentiable" else {}
    known = {"weight_decay": 0.0} if kind == "sparse" else {}
    optimizer = case.ours(
        [{"params": [ordinary]}, {"params": [p], **more}],
        **known,
        **options,
    )
    gradients([ordinary])
    p.grad = torch.randn_like(p)
    if kind == "sparse":
        p.grad = p.grad.to_sparse(1)
    before = [ordinary.detach().clone(), p.detach().clone()]
    versions = [ordinary._version, p._version]
    state = copy.deepcopy(optimizer.state_dict()["state"])
    option = next(name for name in options if name != "l1_mode" or len(options) == 1)
    with pytest.raises(RuntimeError, match=r"(?s)group 1.*nothing was updated") as caught:
        optimizer.step()
    assert any(name in str(caught.value) for name in options), option
    for q, old, version in zip((ordinary, p), before, versions, strict=True):
        assert torch.equal(q, old)
        assert q._version == version
    after = optimizer.state_dict()["state"]
    assert after.keys() == state.keys()
    for i, own in state.items():
        for key, value in own.items():
            tolerances.exact(after[i][key], value)
    assert optimizer.report.steps_applied == 0


@cases.classes
def test_other_groups_may_fall_back(case: Case) -> None:
    """An option of one group does not bother a group of another kind."""
    p = torch.nn.Parameter(torch.randn(70))
    c = torch.nn.Parameter(torch.randn(3, dtype=torch.complex64))
    optimizer = case.ours(
        [{"params": [p], "ema_decay": 0.5, "state_dtype": "8bit"}, {"params": [c]}]
    )
    for _ in range(2):
        p.grad, c.grad = torch.randn_like(p), torch.randn_like(c)
        before = p.detach().clone(), c.detach().clone()
        optimizer.step()
        assert not torch.equal(p, before[0])
        assert not torch.equal(c, before[1])
    assert "ema" in optimizer.state[p]
    assert "ema" not in optimizer.state[c]


def test_duplicated_parameter_with_an_option() -> None:
    """Torch steps it twice, which the kernels leave to torch."""
    (p,) = parameters([(4,)])
    with pytest.warns(UserWarning, match="duplicate"):
        optimizer = onepass.SGD([p, p], lr=0.1, ema_decay=0.5)
    p.grad = torch.ones(4)
    before = p.detach().clone()
    with pytest.raises(RuntimeError, match="ema_decay"):
        optimizer.step()
    tolerances.exact(p, before)
