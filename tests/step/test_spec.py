"""What an optimizer is, and what a rule is, is said once."""

from __future__ import annotations

import copy
import math
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

import onepass
from onepass import _core
from onepass.hyper import options
from onepass.hyper.spec import RULES, SLOTS, Spec
from onepass.optim import OnePass
from onepass.step.row import EMPTY_ROW, pack
from tests import cases
from tests.cases import Case
from tests.helpers import parameters

CLASSES: list[type[OnePass]] = [
    onepass.SGD,
    onepass.Adagrad,
    onepass.RMSprop,
    onepass.Adam,
    onepass.AdamW,
]
CSRC = Path(__file__).parents[2] / "csrc"


@pytest.mark.parametrize("name", RULES)
def test_every_rule_says_what_it_is(name: str) -> None:
    rule = RULES[name]
    assert rule.number == list(RULES).index(name)
    assert len(rule.kinds) == len(rule.states) == len(set(rule.states))
    assert all(kind in (0, 1, 2) for kind in rule.kinds)
    assert rule.hypers[0] == "lr"
    assert len(set(rule.hypers)) == len(rule.hypers)
    assert any(name in cls.spec.rules for cls in CLASSES)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_hyper_parameter_has_a_source(cls: type[OnePass]) -> None:
    make: Any = cls
    group = make([torch.nn.Parameter(torch.zeros(2))], lr=0.1).param_groups[0]
    for rule in cls.spec.rules:
        assert len(cls.spec.getters[rule]) == len(RULES[rule].hypers) - 1
        row = pack(cls.spec, rule, group, 1.0)
        assert len(row.numbers) == len(SLOTS) + len(RULES[rule].hypers) - 1
        assert all(math.isfinite(float(number)) for number in row.numbers[SLOTS["hyper"] :])
    assert set(cls.spec.core) <= set(cls.spec.states)


@cases.rules
def test_states_are_those_of_torch(case: Case) -> None:
    (p,) = parameters([(3,)])
    optimizer = case.ours([p])
    assert RULES[optimizer.rule(optimizer.param_groups[0])].states == case.state_keys


def test_numbers_stand_in_their_slots() -> None:
    """Each by the name that stands in C++."""
    (p,) = parameters([(3,)])
    optimizer = onepass.AdamW(
        [p],
        lr=0.5,
        weight_decay=0.25,
        betas=(0.75, 0.875),
        eps=0.125,
        l1_decay=0.0625,
        max_grad_value=3.0,
        ema_decay=0.75,
        rounding="stochastic",
        maximize=True,
    )
    numbers = pack(optimizer.spec, "adam", optimizer.param_groups[0], 2.0).numbers
    found = dict(zip(SLOTS, numbers, strict=False))
    assert found == {
        "scale": -2.0,
        "clamp": 3.0,
        "coupled": 0.0,
        "subgradient": 0.0,
        "anchor_coupled": 0.0,
        "anchor_decoupled": 0.0,
        "decoupled": 0.25,
        "proximal": 0.0625,
        "ema_decay": 0.75,
        "stochastic": 1.0,
        "hyper": 0.5,
    }
    assert numbers[SLOTS["hyper"] :] == (0.5, 0.75, 0.875, 0.125)
    assert EMPTY_ROW.numbers[: SLOTS["hyper"]] == (1.0, math.inf, *[0.0] * (SLOTS["hyper"] - 2))


def test_what_may_vary() -> None:
    varying = onepass.AdamW.spec.varying("adam", {"decoupled_weight_decay": True})
    assert varying == {
        "lr": (SLOTS["hyper"], math.inf),
        "weight_decay": (SLOTS["decoupled"], math.inf),
        "l1_decay": (SLOTS["proximal"], math.inf),
        "betas": (SLOTS["hyper"] + 1, 1.0),
        "ema_decay": (SLOTS["ema_decay"], 1.0),
    }
    varying = onepass.RMSprop.spec.varying("rmsprop_momentum", {"l1_mode": "subgradient"})
    assert varying["momentum"] == (SLOTS["hyper"] + 3, math.inf)
    assert varying["weight_decay"][0] == SLOTS["coupled"]
    assert varying["l1_decay"][0] == SLOTS["subgradient"]


def test_a_class_by_the_recipe() -> None:
    """A Spec and a check are all that a class needs; here one that is Adam under another name."""

    class Plain(OnePass, torch.optim.Adam):
        spec = Spec(
            base=torch.optim.Adam,
            rules=("adam",),
            sources={"beta1": ("betas", 0), "beta2": ("betas", 1)},
        )

        def __init__(self, params: Any, **more: Any) -> None:
            self._start(params, {}, **{"lr": 0.1, "betas": (0.9, 0.99), "weight_decay": 0, **more})

        def check(self, group: dict[str, Any]) -> None:
            assert group["lr"] >= 0

    ours, theirs = (parameters([(7,)]) for _ in range(2))
    with torch.no_grad():
        theirs[0].copy_(ours[0])
    optimizers: list[Any] = [Plain(ours), torch.optim.Adam(theirs, lr=0.1, betas=(0.9, 0.99))]
    for _ in range(3):
        for (p,), optimizer in zip((ours, theirs), optimizers, strict=True):
            p.grad = torch.linspace(-1, 1, 7)
            optimizer.step()
    torch.testing.assert_close(ours[0], theirs[0])


TENTH = """
#include "rules/rules.hpp"
namespace onepass { namespace {
template <class C>
struct Tenth {
  static constexpr const char* name = "tenth";
  static constexpr int states = 1;
  %s
  %s
  static constexpr bool has_root = false;
  ONEPASS_DEVICE static Prepared prepare(const double* h, double) { return {h[0], {h[0]}}; }
  C lr;
  ONEPASS_DEVICE explicit Tenth(const double* s) : lr(static_cast<C>(s[0])) {}
  ONEPASS_ELEMENT void operator()(C& p, C g, C& m) const { m = m + g; p = p - lr * m; }
};
using More = RuleList<Sgd, Tenth>;
static_assert(state_kinds(RuleList<Sgd, Momentum, Adagrad, RMSprop, RMSpropMomentum, RMSpropCentered,
                                   RMSpropCenteredMomentum, Adam, Tenth>{}).of[8][0] == StateKind::maximum);
static_assert(Tenth<double>::hypers[0][0] == 'l' && More::count == 2);
}}
"""
STATE = 'static constexpr State state[max_states] = {{"total", StateKind::maximum}};'
HYPERS = 'static constexpr const char* hypers[] = {"lr"};'


@pytest.mark.parametrize(
    ("state", "hypers", "compiles"),
    [
        (STATE, HYPERS, True),
        ("", HYPERS, False),
        (STATE, "", False),
        ("static constexpr State state[max_states] = {};", HYPERS, False),
        (STATE.replace(", StateKind::maximum", ""), HYPERS, False),
    ],
    ids=["complete", "no states", "no hypers", "states without names", "state without a kind"],
)
def test_a_tenth_rule(tmp_path: Path, state: str, hypers: str, compiles: bool) -> None:
    source = tmp_path / "tenth.cpp"
    source.write_text(TENTH % (state, hypers))
    command = ["g++", "-std=c++20", "-fsyntax-only", f"-I{CSRC}", str(source)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs a compiler")
    assert (done.returncode == 0) == compiles, done.stderr


def test_an_option_is_one_record() -> None:
    assert [option.name for option in options.OPTIONS] == list(onepass.Options.__annotations__)
    for option in options.OPTIONS:
        option.check(**{option.name: option.default})
    assert set(options.WHOLE) == {"max_grad_norm", "max_grad_value", "skip_nonfinite", "seed"}


def test_fused_adagrad_lets_the_scaler_leave_unscaling() -> None:
    """As torch's, which says so itself since 2.13."""
    (p,) = parameters([(3,)])
    optimizer = onepass.Adagrad([p], fused=True)
    assert getattr(optimizer, "_step_supports_amp_scaling", False)
    assert not getattr(onepass.Adagrad([p]), "_step_supports_amp_scaling", False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=["kernels", "torch's step"])
def test_adamw_decays_decoupled_whatever_was_loaded(dtype: torch.dtype) -> None:
    """Groups of an old torch do not say how they decay."""
    ours, theirs = (torch.nn.Parameter(torch.ones(7, dtype=dtype)) for _ in range(2))
    optimizer = onepass.AdamW([ours], weight_decay=0.5)
    torchs = torch.optim.AdamW([theirs], weight_decay=0.5)
    ours.grad = theirs.grad = torch.ones(7, dtype=dtype)
    torchs.step()
    saved = copy.deepcopy(torchs.state_dict())
    for group in saved["param_groups"]:
        group.pop("decoupled_weight_decay", None)
    with torch.no_grad():
        ours.copy_(theirs)
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["decoupled_weight_decay"] is True
    for _ in range(2):
        optimizer.step()
        torchs.step()
    torch.testing.assert_close(ours, theirs)


def test_the_core_names_its_rules() -> None:
    assert list(_core.specs()) == list(RULES)
