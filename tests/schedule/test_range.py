"""The learning-rate range test: what it tries, what it finds, and that nothing is left of it."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import onepass
from onepass.schedule import Cosine, Plateau, RangeTest, range_test
from tests import cases, tolerances
from tests.cases import Case

Closure = Callable[[], torch.Tensor]


def problem(make: Callable[..., Any], **options: Any) -> tuple[nn.Module, Any, Closure]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.1), nn.Linear(5, 1))
    groups = [
        {"params": list(model[0].parameters()), "lr": 0.02},
        {"params": list(model[1].parameters())},
        {"params": list(model[3].parameters())},
    ]
    opt = make(groups, lr=0.1, **options)

    def closure() -> torch.Tensor:
        opt.zero_grad()
        x = torch.randn(32, 4)
        loss: torch.Tensor = (model(x) - x.sum(1, keepdim=True)).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    return model, opt, closure


def everything(model: nn.Module, opt: Any) -> Any:
    gradients = [p.grad for p in model.parameters()]
    return copy.deepcopy(
        (model.state_dict(), opt.state_dict(), gradients, getattr(opt, "steps_applied", None))
    )


def assert_same(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        tolerances.exact(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("whose", ["ours", "torchs"])
@cases.classes
def test_nothing_is_left_of_it(case: Case, whose: str, steps: int) -> None:
    model, opt, closure = problem(case.ours if whose == "ours" else case.torchs)
    for _ in range(steps):
        closure()
        opt.step()
    before = everything(model, opt)
    found = range_test(opt, closure, steps=20, model=model)
    assert_same(everything(model, opt), before)
    assert len(found.lrs) == len(found.losses) == len(found.smoothed) >= 2
    closure()
    opt.step()  # and it goes on


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_when_it_is_interrupted(error: type[BaseException]) -> None:
    model, opt, closure = problem(onepass.AdamW, ema_decay=0.5)
    closure()
    opt.step()
    before = everything(model, opt)
    calls = itertools.count()

    def breaks() -> Any:
        loss = closure()
        if next(calls) == 5:
            raise error
        return loss

    with pytest.raises(error):
        range_test(opt, breaks, model=model)
    assert next(calls) == 6
    assert_same(everything(model, opt), before)


def test_schedules_are_put_aside() -> None:
    model, opt, closure = problem(onepass.SGD, momentum=0.9, weight_decay=Cosine(0.1, 100))
    for group in opt.param_groups:
        group["lr"] = Cosine(0.1, 100) * Plateau()
    for _ in range(3):
        closure()
        opt.step()
    before, rates = everything(model, opt), []

    def watched() -> torch.Tensor:
        rates.append(opt.param_groups[0]["lr"])
        return closure()

    found = range_test(opt, watched, steps=10, model=model, stop=math.inf)
    assert rates == list(found.lrs)
    assert_same(everything(model, opt), before)
    assert opt.param_groups[0]["lr"] == pytest.approx(Cosine(0.1, 100)(3))
    closure()
    opt.step()
    assert opt.param_groups[0]["lr"] == pytest.approx(Cosine(0.1, 100)(4))


@pytest.mark.parametrize("kind", ["exponential", "linear"])
def test_the_rates(kind: Any) -> None:
    _, opt, closure = problem(onepass.SGD)
    seen = []

    def watched() -> torch.Tensor:
        seen.append([group["lr"] for group in opt.param_groups])
        return closure()

    found = range_test(opt, watched, low=1e-5, high=1e-2, steps=7, kind=kind)
    want = (np.geomspace if kind == "exponential" else np.linspace)(1e-5, 1e-2, 7)
    np.testing.assert_allclose(found.lrs, want, rtol=1e-12)
    np.testing.assert_allclose(seen, np.outer(want, [0.2, 1.0, 1.0]), rtol=1e-12)


def test_the_mean_and_the_end() -> None:
    p = nn.Parameter(torch.zeros(1))
    opt = torch.optim.SGD([p], lr=0.1)
    p.grad = torch.zeros(1)
    losses = iter([4.0, 3.0, 2.0, 400.0, 0.0])
    found = range_test(opt, lambda: next(losses))
    assert found.losses == (4.0, 3.0, 2.0, 400.0)
    weights = 0.02 * 0.98 ** np.arange(4)
    for n in range(1, 5):
        mean = np.average(found.losses[:n], weights=weights[:n][::-1])
        assert found.smoothed[n - 1] == pytest.approx(mean)
    losses = iter([1.0, math.nan, 1.0])
    assert len(range_test(opt, lambda: next(losses)).losses) == 2
    losses = iter([1.0, 1e9, 1.0])
    assert len(range_test(opt, lambda: next(losses), steps=3, stop=math.inf).losses) == 3


def test_the_suggestion() -> None:
    lrs = tuple(10.0**k for k in range(-10, 10))
    falls = tuple(1.0 / (1.0 + math.exp(k)) for k in range(-10, 10))  # steepest at 10**0
    assert RangeTest(lrs, falls, falls).suggestion in (0.1, 1.0)
    assert RangeTest(lrs, falls, falls[::-1]).suggestion is None
    assert RangeTest((1.0,), (1.0,), (1.0,)).suggestion is None
    assert RangeTest((), (), ()).suggestion is None


def test_a_good_rate_is_found() -> None:
    """With the suggestion the problem is solved, which a rate a thousand times less does not manage."""
    ends = []
    for factor in (1.0, 1e-3):
        _, opt, closure = problem(onepass.AdamW)
        rate = range_test(opt, closure, low=1e-5).suggestion
        assert rate is not None
        for group in opt.param_groups:
            group["lr"] = rate * factor
        losses = []
        for _ in range(150):
            losses.append(closure().item())
            opt.step()
        ends.append(sum(losses[-20:]) / sum(losses[:3]))
    assert ends[0] < ends[1]


def test_picture() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, ax = pyplot.subplots()
    try:
        assert RangeTest((1.0, 2.0), (3.0, 1.0), (3.0, 2.0)).plot(ax) is ax
        assert ax.get_xscale() == "log"
        drawn = [np.asarray(line.get_ydata()).tolist() for line in ax.lines[:2]]
        assert drawn == [[3.0, 1.0], [3.0, 2.0]]
    finally:
        pyplot.close(figure)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"opt": None}, TypeError, "opt must be"),
        ({"closure": 3}, TypeError, "closure must be"),
        ({"low": 0.0}, ValueError, "low must be"),
        ({"low": "a"}, TypeError, "low must be"),
        ({"high": 1e-9}, ValueError, "high must be above low"),
        ({"steps": 1}, ValueError, "steps must be"),
        ({"steps": 2.5}, TypeError, "steps must be"),
        ({"kind": "cosine"}, ValueError, "kind must be one of"),
        ({"stop": 0.5}, ValueError, "stop must be"),
        ({"model": "net"}, TypeError, "model must be"),
    ],
    ids=str,
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], match: str) -> None:
    _, opt, closure = problem(onepass.SGD)
    with pytest.raises(error, match=match):
        range_test(**{"opt": opt, "closure": closure, **arguments})
