"""Equality with torch's schedulers, stepped as torch's own loop steps them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler as theirs

from onepass.schedule import (
    Constant,
    Cosine,
    Exponential,
    Linear,
    MultiStep,
    OneCycle,
    Polynomial,
    Schedule,
    Step,
    WarmRestarts,
)

V = 0.1
# torch multiplies step by step: about one rounding per step is lost, of the peak where it adds
DRIFT = 1e-12


def stepped(make: Callable[[torch.optim.SGD], Any], n: int) -> list[float]:
    """Return the learning rates of the first ``n`` steps under a torch scheduler."""
    opt = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=V)
    scheduler = make(opt)
    values = [float(opt.param_groups[0]["lr"])]
    for _ in range(n - 1):
        opt.step()
        scheduler.step()
        values.append(float(opt.param_groups[0]["lr"]))
    return values


def one_cycle(**options: Any) -> Callable[[torch.optim.SGD], Any]:
    return lambda opt: theirs.OneCycleLR(opt, max_lr=V, cycle_momentum=False, **options)


PAIRS: list[tuple[Schedule, Callable[[torch.optim.SGD], Any], int]] = [
    (Constant(V), lambda o: theirs.ConstantLR(o, factor=1.0), 20),
    (Step(V, 7, gamma=0.3), lambda o: theirs.StepLR(o, 7, gamma=0.3), 100),
    (MultiStep(V, [3, 9, 50]), lambda o: theirs.MultiStepLR(o, [3, 9, 50]), 100),
    (Exponential(V, 0.97), lambda o: theirs.ExponentialLR(o, 0.97), 300),
    (Cosine(V, 50), lambda o: theirs.CosineAnnealingLR(o, 50), 51),
    (Cosine(V, 33, final=0.02), lambda o: theirs.CosineAnnealingLR(o, 33, eta_min=0.02), 34),
    (Linear(V, 40, final=V / 4), lambda o: theirs.LinearLR(o, 1.0, 0.25, 40), 60),
    (Polynomial(V, 40, 0.9), lambda o: theirs.PolynomialLR(o, 40, 0.9), 60),
    (Polynomial(V, 40, 2), lambda o: theirs.PolynomialLR(o, 40, 2), 60),
    (WarmRestarts(V, 7), lambda o: theirs.CosineAnnealingWarmRestarts(o, 7), 100),
    (
        WarmRestarts(V, 5, 3, final=0.01),
        lambda o: theirs.CosineAnnealingWarmRestarts(o, 5, 3, eta_min=0.01),
        700,
    ),
    (OneCycle(V, 100), one_cycle(total_steps=100), 100),
    (OneCycle(V, 33), one_cycle(total_steps=33), 33),
    (OneCycle(V, 1), one_cycle(total_steps=1), 1),
    (OneCycle(V, 2), one_cycle(total_steps=2), 2),
    (OneCycle(V, 50, pct_start=0.0), one_cycle(total_steps=50, pct_start=0.0), 50),
    (OneCycle(V, 50, pct_start=1.0), one_cycle(total_steps=50, pct_start=1.0), 50),
    (
        OneCycle(V, 77, 0.4, "linear", 10.0, 100.0),
        one_cycle(
            total_steps=77,
            pct_start=0.4,
            anneal_strategy="linear",
            div_factor=10.0,
            final_div_factor=100.0,
        ),
        77,
    ),
    (OneCycle(V, 77, three_phase=True), one_cycle(total_steps=77, three_phase=True), 77),
    (
        OneCycle(V, 10, pct_start=0.5, three_phase=True),
        one_cycle(total_steps=10, pct_start=0.5, three_phase=True),
        10,
    ),
]


@pytest.mark.parametrize(("ours", "make", "n"), PAIRS, ids=[repr(s) for s, _, _ in PAIRS])
def test_same_values(ours: Schedule, make: Callable[[torch.optim.SGD], Any], n: int) -> None:
    want = stepped(make, n)
    assert [ours(t) for t in range(n)] == pytest.approx(want, rel=DRIFT, abs=DRIFT * V)


def test_one_cycle_defaults_are_torchs() -> None:
    opt = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=V, momentum=0.9)
    scheduler = theirs.OneCycleLR(opt, max_lr=V, total_steps=60)
    s = OneCycle(V, 60)
    for t in range(60):
        assert s(t) == pytest.approx(opt.param_groups[0]["lr"], rel=DRIFT)
        if t < 59:
            opt.step()
            scheduler.step()
    assert s(59) == s(60) == s(10**9)


def test_warmup_is_sequential_lr_with_the_first_step_not_wasted() -> None:
    n = 5

    def warm(opt: torch.optim.SGD) -> theirs.SequentialLR:
        rise = theirs.LinearLR(opt, start_factor=1 / n, total_iters=n - 1)
        return theirs.SequentialLR(opt, [rise, theirs.CosineAnnealingLR(opt, 40)], [n])

    ours = Cosine(V, 40).warmup(n)
    assert [ours(t) for t in range(45)] == pytest.approx(
        stepped(warm, 45), rel=DRIFT, abs=DRIFT * V
    )


def test_then_is_sequential_lr() -> None:
    def chain(opt: torch.optim.SGD) -> theirs.SequentialLR:
        first, second = theirs.ExponentialLR(opt, 0.9), theirs.StepLR(opt, 10, 0.5)
        return theirs.SequentialLR(opt, [first, second], [20])

    ours = Exponential(V, 0.9).then(Step(V, 10, 0.5), at=20)
    assert [ours(t) for t in range(60)] == pytest.approx(stepped(chain, 60), rel=DRIFT)
