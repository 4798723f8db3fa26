"""The learning-rate range test: which learning rates a model can be trained with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from .base import Schedule, axes
from .check import count, number, one_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["RangeTest", "range_test"]

_SMOOTHING = 0.98


@dataclass(frozen=True)
class RangeTest:
    """What :func:`range_test` has seen.

    Attributes:
        lrs: learning rates that were tried, of the group with the largest one.
        losses: the loss of each step, before the step.
        smoothed: their running mean, each loss weighing 2 % and the start corrected for.

    Example:
        >>> RangeTest((0.01, 0.1, 1.0), (3.0, 1.0, 9.0), (3.0, 2.0, 4.0)).suggestion
        0.01
    """

    lrs: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]

    @property
    def suggestion(self) -> float | None:
        """Learning rate at which the smoothed loss falls most steeply by the logarithm of the rate.

        The first tenth, in which the mean has seen little, does not count. None if the loss never falls.
        The rule of fastai's first finder ("steep").
        """
        first = len(self.lrs) // 10
        slopes = [
            (b - a) / (math.log(s) - math.log(r))
            for a, b, r, s in zip(
                self.smoothed[first:], self.smoothed[first + 1 :], self.lrs[first:], self.lrs[first + 1 :],
                strict=False,
            )
        ]  # fmt: skip
        slopes = [slope if math.isfinite(slope) else 0.0 for slope in slopes]
        if not slopes or min(slopes) >= 0.0:
            return None
        return self.lrs[first + slopes.index(min(slopes))]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the losses over the learning rates, and return the Axes.

        Args:
            ax: matplotlib Axes to draw on. Default: pyplot's current ones.

        Raises:
            ImportError: matplotlib is missing.
        """
        ax = axes(ax)
        ax.plot(self.lrs, self.losses, alpha=0.3, label="loss")
        ax.plot(self.lrs, self.smoothed, label="smoothed")
        if self.suggestion is not None:
            ax.axvline(self.suggestion, linestyle=":", label=f"suggestion {self.suggestion:.2g}")
        ax.set_xscale("log")
        ax.set_xlabel("learning rate")
        ax.set_ylabel("loss")
        ax.legend()
        return ax


def range_test(
    opt: Optimizer,
    closure: Callable[[], Any],
    low: float = 1e-7,
    high: float = 10.0,
    steps: int = 100,
    kind: Literal["exponential", "linear"] = "exponential",
    stop: float = 4.0,
    model: nn.Module | None = None,
) -> RangeTest:
    r"""Train for some steps with a learning rate that grows, watch the loss, and put everything back.

    .. math:: lr(k) = low\,(high / low)^{k / (n - 1)} \qquad \text{or, linearly,} \qquad
        lr(k) = low + (high - low)\,k / (n - 1)

    Other groups keep their ratio to the one with the largest learning rate. It ends early once the smoothed loss
    exceeds `stop` times its least value, or a loss is not finite. Afterwards, also if something raises or the test is
    interrupted, parameters, gradients, the optimizer's state, groups and count of steps are bit for bit what they were.

    Args:
        opt: any optimizer of torch's interface. Schedules of ours for the learning rate are put aside meanwhile.
        closure: computes the loss of a new batch with its gradients, as for ``opt.step(closure)``, and returns it.
        low: first learning rate, above 0. Default: 1e-7.
        high: last learning rate, above ``low``. Default: 10.
        steps: n, at least 2. Default: 100.
        kind: ``"exponential"`` or ``"linear"``. Default: ``"exponential"``.
        stop: at least 1; inf never stops. Default: 4.
        model: the module whose buffers (statistics of BatchNorm, say) are to be put back, too. Default: None, they
            keep what the test has left in them.

    Returns:
        The learning rates, the losses, a suggestion, and a picture: :class:`RangeTest`.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range.

    Example:
        >>> import onepass, torch
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Linear(4, 1)
        >>> opt = onepass.SGD(model.parameters(), lr=0.1)
        >>> def closure():
        ...     opt.zero_grad()
        ...     x = torch.randn(64, 4)
        ...     loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        ...     loss.backward()
        ...     return loss
        >>> found = range_test(opt, closure, low=1e-4)
        >>> 1e-3 < found.suggestion < 1.0
        True

    Reference: Smith, Cyclical Learning Rates for Training Neural Networks, 2015, section 3.3; the exponential growth, the
    smoothing and the end are those of fastai's finder.

    Difference from torch: torch has none.
    """
    rates = _rates(opt, closure, low, high, steps, kind)
    stop = stop if stop == math.inf else number("stop", stop, low=1.0)
    if model is not None and not isinstance(model, nn.Module):
        message = f"model must be a torch.nn.Module, got {type(model).__name__}"
        raise TypeError(message)
    losses: list[float] = []
    smoothed: list[float] = []
    with _put_back(opt, model):
        shares = _shares(opt)
        mean = 0.0
        for rate in rates:
            for group, share in zip(opt.param_groups, shares, strict=True):
                group["lr"] = rate * share
            with torch.enable_grad():
                loss = closure()
            loss = loss.item() if isinstance(loss, torch.Tensor) else float(loss)
            mean = _SMOOTHING * mean + (1.0 - _SMOOTHING) * loss
            losses.append(loss)
            smoothed.append(mean / (1.0 - _SMOOTHING ** len(losses)))
            if not math.isfinite(loss) or smoothed[-1] > stop * min(smoothed):
                break
            opt.step()
    return RangeTest(tuple(rates[: len(losses)]), tuple(losses), tuple(smoothed))


def _rates(opt: Any, closure: Any, low: Any, high: Any, steps: Any, kind: Any) -> list[float]:
    if not isinstance(opt, Optimizer):
        message = f"opt must be a torch.optim.Optimizer, got {type(opt).__name__}"
        raise TypeError(message)
    if not callable(closure):
        message = f"closure must be a function that returns the loss, got {closure!r}"
        raise TypeError(message)
    low, high = number("low", low, open_low=True), number("high", high, open_low=True)
    if high <= low:
        message = f"high must be above low, {low!r}, got {high!r}"
        raise ValueError(message)
    last = count("steps", steps, low=2) - 1
    one_of("kind", kind, ("exponential", "linear"))
    if kind == "linear":
        return [low + (high - low) * (k / last) for k in range(last + 1)]
    return [low * (high / low) ** (k / last) for k in range(last + 1)]


def _shares(opt: Optimizer) -> list[float]:
    """Return how large each group's learning rate is beside the largest one; schedules of ours no longer write it."""
    rates = []
    for group in opt.param_groups:
        plain = group.get("schedules", {})
        if "lr" in plain:
            group["schedules"] = {name: s for name, s in plain.items() if name != "lr"}
        lr = group["lr"]
        rates.append(lr(0) if isinstance(lr, Schedule) else float(lr))
    largest = max(rates, default=0.0)
    return [rate / largest if largest else 1.0 for rate in rates]


@contextmanager
def _put_back(opt: Optimizer, model: nn.Module | None) -> Iterator[None]:
    """Have everything that training changes be afterwards what it was."""
    groups = [dict(group) for group in opt.param_groups]
    params = [p for group in groups for p in group["params"]]
    tensors = [p for p in params if isinstance(p, torch.Tensor)]
    tensors += [] if model is None else [*model.parameters(), *model.buffers()]
    before = [(t, t.detach().clone()) for t in {id(t): t for t in tensors}.values()]
    gradients = [(p, p.grad, None if p.grad is None else p.grad.clone()) for p in params]
    modes = [] if model is None else [(m, m.training) for m in model.modules()]
    state = {p: {k: _copied(v) for k, v in own.items()} for p, own in opt.state.items()}
    applied = getattr(opt, "steps_applied", None)
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in before:
                tensor.copy_(value)
            for p, grad, its in gradients:
                p.grad = grad
                if grad is not None:
                    grad.copy_(its)
        for module, mode in modes:
            module.training = mode
        opt.state.clear()
        opt.state.update(state)
        for group, own in zip(opt.param_groups, groups, strict=True):
            group.clear()
            group.update(own)
        if applied is not None:
            opt.steps_applied = applied  # type: ignore[attr-defined]


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else value
