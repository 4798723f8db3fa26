"""The learning-rate range test: a learning rate that grows, the loss beside it, and all put back."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from .anneals import Linear
from .base import Schedule, current_axes
from .check import choice, count, number
from .decays import Exponential
from .kept import keep_training, parameters

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["RangeTest", "range_test"]

SKIPPED_LAST = 5
"""Steps that a suggestion does not look at, since there the loss may be running away already; as in fastai."""


@dataclass(frozen=True, slots=True)
class RangeTest:
    """What `range_test` has seen.

    Attributes:
        lrs: the learning rates, of the parameter group with the largest one.
        losses: the loss that the closure gave before the step with each of them.
        smoothed: the average of the losses so far, of which the newer ones count more.
        suggestion: a learning rate to start with, or None where the loss did not fall.

    Example:
        >>> from onepass.schedule import RangeTest
        >>> seen = RangeTest((0.1, 1.0), (0.7, 0.5), (0.7, 0.6), None)
        >>> seen.losses[seen.lrs.index(1.0)]
        0.5
    """

    lrs: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    suggestion: float | None

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the losses over the learning rates, on a logarithmic axis, and return the Axes.

        Args:
            ax: matplotlib Axes to draw on. Default: pyplot's current ones.

        Raises:
            ImportError: matplotlib is missing.
        """
        if ax is None:
            ax = current_axes()
        ax.plot(self.lrs, self.losses, alpha=0.3, label="loss")
        ax.plot(self.lrs, self.smoothed, label="smoothed loss")
        if self.suggestion is not None:
            text = f"suggestion {self.suggestion:.2g}"
            ax.axvline(self.suggestion, color="gray", linestyle="--", label=text)
        ax.set_xscale("log")
        ax.set_xlabel("learning rate")
        ax.set_ylabel("loss")
        return ax


def range_test(
    opt: Optimizer,
    closure: Callable[[], Any],
    *,
    low: float = 1e-7,
    high: float = 10.0,
    steps: int = 100,
    kind: Literal["exponential", "linear"] = "exponential",
    beta: float = 0.98,
    stop: float = 4.0,
    model: Module | None = None,
) -> RangeTest:
    r"""Train for some steps with a growing learning rate, put everything back, and say what the loss did.

    With n = ``steps`` and the loss :math:`\ell_i` of step i:

    .. math::
        lr_i = low\,(high / low)^{i / (n - 1)}, \qquad
        a_i = \beta a_{i-1} + (1 - \beta)\,\ell_i, \qquad
        smoothed_i = a_i / (1 - \beta^{i + 1})

    Groups keep the ratios of their learning rates; the largest is :math:`lr_i`. The test ends early
    where the smoothed loss is not finite, or above the least one so far by more than ``stop`` - 1
    times its size.

    The suggestion is that of fastai's ``valley``: among the smoothed losses without the first tenth
    of ``steps`` and the last 5, let the longest series of ever smaller ones (not always neighbours)
    have L members and end at i; it is the learning rate at i - L + L // 3 + L // 6.

    Afterwards parameters, the optimizer's state and groups, and the gradients are what they were, to
    the bit, also if ``closure`` raises or Ctrl-C is pressed; so are the buffers (BatchNorm's
    averages, say) and the training modes of ``model``. **Without** ``model`` **the buffers stay as
    the test has left them.** Random number generators, and the data that ``closure`` draws, move
    on. A copy of all that is put back is held meanwhile.

    Args:
        opt: any torch optimizer. Schedules of ours are out of the groups during the test: what they
            give otherwise stays at its number. Schedulers of torch are not touched.
        closure: computes the loss of a batch, with its gradients, and returns it, as for
            ``opt.step(closure)``; it zeroes the gradients first.
        low: the first learning rate, above 0. Default: 1e-7.
        high: the last one, above ``low``. Default: 10.
        steps: n, at least 2. Default: 100.
        kind: ``"exponential"`` or ``"linear"`` growth. Default: ``"exponential"``.
        beta: of the average, in [0, 1). Default: 0.98.
        stop: at least 1; a large one never stops. Default: 4.
        model: the model whose buffers and training modes are to be put back, too.

    Returns:
        A `RangeTest`, with the learning rates, the losses and a suggestion.

    Raises:
        ValueError: an argument is out of range, or ``closure`` leaves no gradients.
        TypeError: an argument has the wrong type, or ``closure`` returns no number.

    Example:
        >>> import torch
        >>> from onepass.schedule import range_test
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(64, 5)
        >>> model = torch.nn.Linear(5, 1)
        >>> opt = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> def closure():
        ...     opt.zero_grad()
        ...     loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        ...     loss.backward()
        ...     return loss
        >>> found = range_test(opt, closure)
        >>> found.suggestion is not None and 1e-4 < found.suggestion < 1
        True
        >>> opt.param_groups[0]["lr"]
        0.1

    Reference: Smith, Cyclical Learning Rates for Training Neural Networks, 2015, section 3.3; the
    exponential growth, the stop and the suggestion are those of fastai's ``Learner.lr_find``.

    Difference from torch: torch has none. fastai's ``lr_find`` starts a fit of its own.
    """
    _check(opt, closure, model)
    low = number("low", low, open_low=True)
    high = number("high", high)
    if high <= low:
        message = f"high must be above low, {low!r}, got {high!r}"
        raise ValueError(message)
    last = count("steps", steps, low=2) - 1
    choice("exponential", "linear")["check"]("kind", kind)
    beta = number("beta", beta, high=1.0)
    if beta == 1.0:
        message = "beta must be a finite number in [0, 1), got 1.0"
        raise ValueError(message)
    stop = number("stop", stop, low=1.0)
    growth = Linear(low, last, high) if kind == "linear" else Exponential(low, high / low, last)

    stepper = vars(opt).get("_stepper")  # of our optimizers
    applied = stepper and opt.report.steps_applied  # type: ignore[attr-defined]
    put_back = keep_training(opt, model)
    try:
        if stepper:  # the steps of the test are counted and reported elsewhere
            opt._stepper = type(stepper)(stepper.spec, applied)  # type: ignore[attr-defined]
        lrs, losses, smoothed = _sweep(opt, closure, growth, steps, beta, stop, model)
    finally:
        try:
            put_back()
        except KeyboardInterrupt:
            put_back()
            raise
    looked_at = slice(steps // 10, max(len(lrs) - SKIPPED_LAST, 0))
    suggestion = _valley(lrs[looked_at], smoothed[looked_at])
    return RangeTest(tuple(lrs), tuple(losses), tuple(smoothed), suggestion)


def _check(opt: Any, closure: Any, model: Any) -> None:
    if not isinstance(opt, Optimizer):
        message = f"opt must be a torch.optim.Optimizer, got {opt!r}"
        raise TypeError(message)
    if not callable(closure):
        message = f"closure must be a function that returns the loss, got {closure!r}"
        raise TypeError(message)
    if model is not None and not isinstance(model, Module):
        message = f"model must be a torch.nn.Module or None, got {model!r}"
        raise TypeError(message)


def _sweep(
    opt: Optimizer,
    closure: Callable[[], Any],
    growth: Schedule,
    steps: int,
    beta: float,
    stop: float,
    model: Module | None,
) -> tuple[list[float], list[float], list[float]]:
    lrs, losses, smoothed = list[float](), list[float](), list[float]()
    originals = [group["lr"] for group in opt.param_groups]
    largest = max(map(float, originals))
    ratios = [float(lr) / largest if largest else 1.0 for lr in originals]
    for group in opt.param_groups:
        group.pop("schedules", None)
    for p in parameters(opt, model):
        p.grad = None

    def measured() -> Any:
        loss = closure()
        value = _number(loss)
        if len(losses) < len(lrs):  # the first call of a step; LBFGS makes more
            losses.append(value)
            if len(losses) == 1 and all(p.grad is None for p in parameters(opt, None)):
                message = "closure must call backward(): it left no gradients"
                raise ValueError(message)
        return loss

    average, best = 0.0, math.inf
    for i in range(steps):
        lrs.append(growth(i))
        for group, lr, ratio in zip(opt.param_groups, originals, ratios, strict=True):
            value = lrs[-1] * ratio
            group["lr"] = torch.full_like(lr, value) if isinstance(lr, Tensor) else value
        opt.step(measured)
        average = beta * average + (1.0 - beta) * losses[-1]
        smoothed.append(average / (1.0 - beta ** (i + 1)))
        best = min(best, smoothed[-1])
        if not smoothed[-1] - best <= (stop - 1.0) * abs(best):  # NaN is not, either
            break
    return lrs, losses, smoothed


def _number(loss: Any) -> float:
    try:
        return float(loss.detach() if isinstance(loss, Tensor) else loss)
    except (TypeError, ValueError, RuntimeError) as error:
        message = f"closure must return the loss, one number, got {loss!r}"
        raise TypeError(message) from error


def _valley(lrs: Sequence[float], smoothed: Sequence[float]) -> float | None:
    """Return fastai's suggestion, from the longest strictly falling subsequence."""
    ends = list[float]()  # the highest end, negated, of a falling subsequence of each length
    longest = end = 0
    for i, loss in enumerate(smoothed):
        length = bisect_left(ends, -loss) + 1
        ends[length - 1 : length] = [-loss]
        if length > longest:
            longest, end = length, i
    if longest < 2:
        return None
    return lrs[max(end - longest + longest // 3 + longest // 6, 0)]
