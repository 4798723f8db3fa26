"""The learning-rate range test: what it measures, and that it leaves nothing behind."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import onepass
from onepass.schedule import Cosine, Linear, Plateau, RangeTest, as_torch_scheduler, range_test
from onepass.schedule.kept import keep
from onepass.schedule.range_test import _valley
from tests import cases, tolerances
from tests.cases import Case

Closure = Callable[[], Any]


class Model(nn.Module):
    """With averages, a parameter that gets no gradient and one that no optimizer has."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.norm = nn.BatchNorm1d(8)
        self.last = nn.Linear(8, 1)
        self.idle = nn.Parameter(torch.randn(3))
        self.beside = nn.Parameter(torch.randn(1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.norm(self.first(x)).relu()) + self.beside
        return out


def of(model: Model) -> list[Any]:
    return [p for name, p in model.named_parameters() if name != "beside"]


def closure_of(
    model: Model, opt: Any, fails_at: tuple[int, type[BaseException]] | None = None
) -> Closure:
    source = torch.Generator().manual_seed(5)
    calls = iter(range(10**6))

    def closure() -> Tensor:
        if fails_at is not None and next(calls) == fails_at[0]:
            message = "as asked"
            raise fails_at[1](message)
        x = torch.randn(16, 6, generator=source)
        opt.zero_grad()
        loss: Tensor = (model(x) - x.sum(1, keepdim=True)).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    return closure


def trained(make: Callable[[Model], Any], steps: int = 3) -> tuple[Model, Any]:
    torch.manual_seed(1)
    model = Model()
    opt = make(model)
    closure = closure_of(model, opt)
    for _ in range(steps):
        opt.step(closure)
    model.norm.eval()  # so that not all modes are one
    return model, opt


def everything(model: Model, opt: Any) -> Any:
    """Return copies of all that has to be what it was, and the identities of the tensors."""
    gradients = {n: p.grad for n, p in model.named_parameters()}
    groups = [{k: v for k, v in g.items() if k != "params"} for g in opt.param_groups]
    state = {n: dict(opt.state[p]) for n, p in model.named_parameters() if p in opt.state}
    modes = [m.training for m in model.modules()]
    held = (dict(model.state_dict(keep_vars=True)), gradients, groups, state)
    return copy.deepcopy((*held, modes)), [id(x) for x in tensors(held)]


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value
    return [t for v in parts for t in tensors(v)] if isinstance(value, dict | list | tuple) else []


def assert_same(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    if isinstance(a, Tensor):
        assert a.dtype == b.dtype
        tolerances.exact(a, b)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        assert_same(list(a.values()), list(b.values()))
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


def groups_of(model: Model) -> list[dict[str, Any]]:
    head, rest = of(model)[:2], of(model)[2:]
    return [{"params": head}, {"params": rest, "lr": Linear(0.02, 9), "train_from": 2}]


def lbfgs(model: Model) -> Any:
    return torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)


MAKERS: dict[str, Callable[[Model], Any]] = {
    "torch-sgd": lambda m: torch.optim.SGD(of(m), lr=0.01, momentum=0.9),
    "torch-adam": lambda m: torch.optim.Adam(of(m), lr=0.01, amsgrad=True),
    "torch-adam-tensor-lr": lambda m: torch.optim.Adam(of(m), lr=torch.tensor(0.01)),
    "torch-radam": lambda m: torch.optim.RAdam(of(m), lr=0.01),
    "torch-rprop": lambda m: torch.optim.Rprop(of(m), lr=0.01),
    "torch-lbfgs": lbfgs,
    "ours-number": lambda m: onepass.AdamW(of(m), lr=0.01, max_grad_norm=1.0),
    "ours-schedule": lambda m: onepass.AdamW(
        groups_of(m),
        lr=Cosine(0.01, 100).warmup(20),
        weight_decay=Linear(0.1, 50),
        ema_decay=0.9,
        skip_nonfinite=True,
    ),
}
makers = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@pytest.mark.parametrize("steps", [0, 3])
@makers
def test_all_is_put_back(make: Callable[[Model], Any], steps: int) -> None:
    model, opt = trained(make, steps)
    before, report = everything(model, opt), getattr(opt, "report", None)
    closure = closure_of(model, opt)
    found = range_test(opt, closure, steps=30, model=model)
    assert len(found.lrs) == len(found.losses) == len(found.smoothed) > 10
    assert_same(everything(model, opt), before)
    assert getattr(opt, "report", None) == report


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("call", [0, 4])
@makers
def test_all_is_put_back_after_an_error(
    make: Callable[[Model], Any], call: int, error: type[BaseException]
) -> None:
    model, opt = trained(make)
    before, report = everything(model, opt), getattr(opt, "report", None)
    with pytest.raises(error, match="as asked"):
        range_test(opt, closure_of(model, opt, (call, error)), steps=30, model=model)
    assert_same(everything(model, opt), before)
    assert getattr(opt, "report", None) == report


def go_on(model: Model, opt: Any) -> list[Tensor]:
    closure = closure_of(model, opt)
    for _ in range(4):
        opt.step(closure)
    return [p.detach() for p in model.parameters()]


@pytest.mark.parametrize("steps", [0, 3])
@makers
def test_training_goes_on_as_without_it(make: Callable[[Model], Any], steps: int) -> None:
    (model, opt), (other, others) = trained(make, steps), trained(make, steps)
    range_test(opt, closure_of(model, opt), steps=20, model=model)
    assert_same(go_on(model, opt), go_on(other, others))
    assert_same([g.get("lr") for g in opt.param_groups], [g.get("lr") for g in others.param_groups])


@cases.classes
def test_training_goes_on_with_a_schedule(case: Case) -> None:
    def make(model: Model) -> Any:
        return case.ours(of(model), lr=Cosine(0.05, 20).warmup(10))

    (model, opt), (other, others) = trained(make), trained(make)
    assert range_test(opt, closure_of(model, opt), steps=20, model=model).lrs[-1] > 0.1
    assert opt.steps_applied == opt.param_groups[0]["steps_applied"] == 3
    assert_same(go_on(model, opt), go_on(other, others))
    assert opt.param_groups[0]["lr"] == Cosine(0.05, 20).warmup(10)(7)


def test_buffers_stay_without_the_model() -> None:
    model, opt = trained(MAKERS["torch-sgd"])
    model.norm.train()
    weights = [p.detach().clone() for p in model.parameters()]
    range_test(opt, closure_of(model, opt), steps=5)
    assert int(model.norm.num_batches_tracked) == 3 + 5  # type: ignore[arg-type]
    assert_same([p.detach() for p in model.parameters()], weights)


def test_torch_schedulers_are_not_touched() -> None:
    model, opt = trained(MAKERS["torch-sgd"], steps=0)
    plain = torch.optim.lr_scheduler.StepLR(opt, 2)
    other = as_torch_scheduler(opt, Cosine(0.5, 10))
    before = copy.deepcopy((plain.state_dict(), other.state_dict(), opt.param_groups[0]["lr"]))
    range_test(opt, closure_of(model, opt), steps=5, model=model)
    assert (plain.state_dict(), other.state_dict(), opt.param_groups[0]["lr"]) == before
    with pytest.warns(UserWarning, match="before `optimizer.step"):  # it was none of the training
        other.step()


# What it measures


class Recorder(torch.optim.SGD):
    """Notes the learning rates of its groups at each step, as they are."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen: list[list[float]] = []

    def step(self, closure: Any = None) -> Any:
        self.seen.append([float(g["lr"]) for g in self.param_groups])
        return super().step(closure)


def scripted(losses: list[float]) -> tuple[Recorder, Closure]:
    p, q = (nn.Parameter(torch.zeros(1)) for _ in range(2))
    opt = Recorder([{"params": [p], "lr": 0.05}, {"params": [q], "lr": 0.2}], lr=1.0)
    script = iter(losses)

    def closure() -> float:
        p.grad = torch.ones(1)
        return next(script)

    return opt, closure


def test_learning_rates_grow_and_keep_their_ratios() -> None:
    opt, closure = scripted([1.0] * 7)
    found = range_test(opt, closure, low=1e-3, high=1.0, steps=7)
    want = np.geomspace(1e-3, 1.0, 7)
    np.testing.assert_allclose(found.lrs, want, rtol=1e-13)
    np.testing.assert_allclose(opt.seen, np.stack([want / 4, want], 1), rtol=1e-13)
    opt, closure = scripted([1.0] * 7)
    found = range_test(opt, closure, low=1e-3, high=1.0, steps=7, kind="linear")
    np.testing.assert_allclose(found.lrs, np.linspace(1e-3, 1.0, 7), rtol=1e-13)


def test_groups_of_rate_zero() -> None:
    opt, closure = scripted([1.0] * 6)
    opt.param_groups[0]["lr"] = 0.0
    range_test(opt, closure, steps=3)
    assert [lrs[0] for lrs in opt.seen] == [0.0] * 3
    opt.param_groups[1]["lr"] = 0.0  # as a scheduler's warm-up begins
    range_test(opt, closure, steps=3)
    assert opt.seen[-1] == pytest.approx([10.0, 10.0])


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=30), st.floats(0, 0.99))
def test_smoothed_is_the_weighted_mean(losses: list[float], beta: float) -> None:
    opt, closure = scripted(losses)
    found = range_test(opt, closure, steps=len(losses), beta=beta, stop=1e9)
    assert found.losses == tuple(losses)
    for i, smoothed in enumerate(found.smoothed):
        weights = [beta ** (i - j) for j in range(i + 1)]
        assert smoothed == pytest.approx(np.average(losses[: i + 1], weights=weights), rel=1e-9)


@pytest.mark.parametrize(
    ("losses", "seen"),
    [
        ([1.0, 0.5, 1.9, 2.0, 2.1, 0.1], 5),
        ([1.0, 0.5, math.nan, 0.1, 0.1, 0.1], 3),
        ([math.inf, 0.5, 0.5, 0.5, 0.5, 0.5], 1),
        ([-1.0, -2.0, 3.9, 4.1, -3.0, -3.0], 4),  # 4 times -2 would stop it at once
        ([-1.0, -math.inf, 0.0, 0.0, 0.0, 0.0], 2),
        ([1.0, 2.0, 3.0, 4.0, 3.0, 1.0], 6),
    ],
)
def test_stops_when_the_loss_runs_away(losses: list[float], seen: int) -> None:
    opt, closure = scripted(losses)
    found = range_test(opt, closure, steps=6, beta=0.0)
    assert len(found.losses) == len(found.lrs) == len(found.smoothed) == len(opt.seen) == seen
    assert found.losses == pytest.approx(losses[:seen], nan_ok=True)


def fastai_valley(lrs: list[float], losses: list[float]) -> float:
    """Written from the description of the rule: quadratic, and with an index of -1 where all of the few fall."""
    n = len(losses)
    length = [1] * n
    end = start = 0
    for i in range(1, n):
        length[i] = 1 + max((length[j] for j in range(i) if losses[i] < losses[j]), default=0)
        if length[i] > length[end]:
            end, start = i, i - length[i]
    third = (end - start) / 3
    return lrs[max(start + int(third) + int(third / 2), 0)]


@given(st.lists(st.integers(0, 30).map(float), max_size=60))
def test_suggestion_is_fastais(smoothed: list[float]) -> None:
    lrs = np.geomspace(1e-7, 10, max(len(smoothed), 1)).tolist()
    falls = any(b < a for i, a in enumerate(smoothed) for b in smoothed[i:])
    assert _valley(lrs, smoothed) == (fastai_valley(lrs, smoothed) if falls else None)


def test_suggestion_skips_both_ends() -> None:
    """The first tenth, where nothing is known yet, and the last 5."""
    losses = [*range(20, 10, -1), *[5.0] * 85, 4.0, 3.0, 2.0, 1.0, 0.5]
    opt, closure = scripted(losses)
    assert range_test(opt, closure, beta=0.0).suggestion is None
    losses[50:60] = [4.9 - 0.1 * i for i in range(10)]
    opt, closure = scripted(losses)
    found = range_test(opt, closure, beta=0.0)
    assert found.suggestion == found.lrs[59 - 11 + 11 // 3 + 11 // 6]


@pytest.mark.parametrize("ours", [False, True])
def test_suggestion_trains(ours: bool) -> None:
    model, opt = trained(lambda m: (onepass if ours else torch.optim).Adam(of(m), lr=1.0), steps=0)
    found = range_test(opt, closure_of(model, opt), model=model)
    assert found.suggestion is not None
    assert 1e-4 < found.suggestion < 0.1
    opt.param_groups[0]["lr"] = found.suggestion
    closure = closure_of(model, opt)
    first = closure().item()
    for _ in range(300):
        last = opt.step(closure).item()
    assert last < first / 4


def test_result_is_immutable() -> None:
    found = RangeTest((0.1,), (1.0,), (1.0,), None)
    with pytest.raises(AttributeError):
        found.lrs = ()  # type: ignore[misc]
    assert found == RangeTest((0.1,), (1.0,), (1.0,), None)


# What is kept


def test_keep_reaches_what_is_nested() -> None:
    a, b, c = torch.ones(2, requires_grad=True), torch.ones(2), torch.zeros(1).expand(3)
    value: Any = {"x": [a, (b, {"y": 1})], "c": c}
    put_back = keep(value)
    for _ in range(2):
        with torch.no_grad():
            a += 1
            b.mul_(3)
        value["x"].append(5)
        value["x"][1][1]["z"] = 3
        del value["c"]
        value["new"] = 1
        assert put_back() is value
        assert value["x"][0] is a
        assert value["x"][1][0] is b
        assert value["c"] is c
        assert_same(
            value, {"x": [torch.ones(2, requires_grad=True), (torch.ones(2), {"y": 1})], "c": c}
        )


def test_sparse_gradients() -> None:
    table = nn.Embedding(5, 3, sparse=True)
    opt = torch.optim.SparseAdam(table.parameters(), lr=0.1)

    def closure() -> Tensor:
        opt.zero_grad()
        loss = table(torch.tensor([1, 3])).square().sum()
        loss.backward()
        return loss  # type: ignore[no-any-return]

    opt.step(closure)  # type: ignore[no-untyped-call]
    gradient, weights = table.weight.grad, table.weight.detach().clone()
    assert gradient is not None
    numbers = gradient.to_dense()
    range_test(opt, closure, steps=4)
    assert table.weight.grad is gradient
    assert_same([gradient.to_dense(), table.weight.detach()], [numbers, weights])


def test_ctrl_c_while_all_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    model, opt = trained(MAKERS["torch-adam"])
    before = everything(model, opt)
    closure, copies = closure_of(model, opt), iter(range(10**6))
    copy_ = Tensor.copy_
    armed: list[bool] = []

    def interrupted(self: Tensor, *args: Any) -> Tensor:
        if armed and next(copies) == 3:
            raise KeyboardInterrupt
        return copy_(self, *args)

    def arming() -> Any:
        armed.append(True)
        return closure()

    with monkeypatch.context() as patch:
        patch.setattr(Tensor, "copy_", interrupted)
        with pytest.raises(KeyboardInterrupt):
            range_test(opt, arming, steps=3, model=model)
    assert_same(everything(model, opt), before)


# Bad input


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"low": 0.0}, ValueError, r"low must be a finite number > 0, got 0\.0"),
        ({"low": "1"}, TypeError, "low must be a finite number > 0, got '1'"),
        ({"high": 1e-8}, ValueError, "high must be above low, 1e-07, got 1e-08"),
        ({"high": math.inf}, ValueError, "high must be a finite number >= 0, got inf"),
        ({"steps": 1}, ValueError, r"steps must be an integer in \[2, "),
        ({"steps": 10.0}, TypeError, r"steps must be an integer in \[2, "),
        (
            {"kind": "cosine"},
            ValueError,
            "kind must be one of 'exponential', 'linear', got 'cosine'",
        ),
        ({"beta": 1.0}, ValueError, r"beta must be a finite number in \[0, 1\), got 1"),
        ({"beta": -0.1}, ValueError, r"beta must be a finite number in \[0, 1\], got -0\.1"),
        ({"stop": 0.5}, ValueError, r"stop must be a finite number >= 1, got 0\.5"),
        ({"model": 3}, TypeError, r"model must be a torch\.nn\.Module or None, got 3"),
        ({"opt": 3}, TypeError, r"opt must be a torch\.optim\.Optimizer, got 3"),
        ({"closure": 3}, TypeError, "closure must be a function that returns the loss, got 3"),
        (
            {"closure": lambda: None},
            TypeError,
            "closure must return the loss, one number, got None",
        ),
        ({"closure": lambda: torch.ones(2)}, TypeError, "closure must return the loss, one number"),
        ({"closure": lambda: 1.0}, ValueError, r"closure must call backward\(\): it left no"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    model, opt = trained(MAKERS["torch-sgd"])
    before = everything(model, opt)
    given = {"opt": opt, "closure": closure_of(model, opt), "steps": 4, **arguments}
    with pytest.raises(error, match=message):
        range_test(given.pop("opt"), given.pop("closure"), **given)
    assert_same(everything(model, opt), before)


# The picture


def test_plot() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = RangeTest((0.1, 1.0, 10.0), (0.7, 0.5, math.inf), (0.7, 0.6, math.inf), 0.3)
    figure, ax = pyplot.subplots()
    try:
        assert found.plot(ax) is ax
        raw, smoothed, suggestion = ax.lines
        assert [np.asarray(x).tolist() for x in raw.get_data()] == [
            list(found.lrs),
            list(found.losses),
        ]
        assert np.asarray(smoothed.get_ydata()).tolist() == list(found.smoothed)
        assert suggestion.get_label() == "suggestion 0.3"
        assert ax.get_xscale() == "log"
        figure.canvas.draw()
        assert RangeTest((0.1, 1.0), (0.7, 0.5), (0.7, 0.6), None).plot() is ax
        assert len(ax.lines) == 5
    finally:
        pyplot.close(figure)


def test_plot_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        RangeTest((0.1,), (1.0,), (1.0,), None).plot()


def test_a_plateau_is_put_aside() -> None:
    p = nn.Parameter(torch.ones(3))
    opt = onepass.SGD([p], lr=0.5 * Plateau(patience=0))
    for metric in (1.0, 1.0):
        opt.observe(metric)
    before, rates = copy.deepcopy(opt.state_dict()), []

    def closure() -> torch.Tensor:
        rates.append(opt.param_groups[0]["lr"])
        opt.zero_grad()
        loss = p.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    found = range_test(opt, closure, steps=8)
    assert tuple(rates) == found.lrs
    assert opt.state_dict() == before
    assert opt.param_groups[0]["lr"] == 0.05
    opt.observe(1.0)
    assert opt.param_groups[0]["lr"] == pytest.approx(0.005)
