"""Stochastic gradient descent, with momentum."""

from __future__ import annotations

import math

import torch
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from onepass.hyper import options
from onepass.hyper.checks import at_least, numbers, one_of
from onepass.hyper.spec import Group, Spec
from onepass.optim.optimizer import OnePass
from onepass.schedule import Schedule
from onepass.schedule.plateau import Reduced


class SGD(OnePass, torch.optim.SGD):
    r"""Stochastic gradient descent, optionally with (Nesterov) momentum.

    .. math::
        g_t &= \nabla f(p_{t-1}) + \lambda p_{t-1} \\
        b_t &= \mu b_{t-1} + (1 - \tau) g_t, \quad b_1 = g_1 \\
        p_t &= p_{t-1} - \gamma \, (g_t + \mu b_t \text{ if nesterov, else } b_t)

    Args:
        params: Parameters, named parameters or parameter groups.
        lr: Learning rate :math:`\gamma \ge 0`, a number, a tensor of one element or a schedule. Default: 1e-3.
        momentum: :math:`\mu \ge 0`. Default: 0, which keeps no state.
        dampening: :math:`\tau`. Default: 0.
        weight_decay: L2 strength :math:`\lambda \ge 0`, added to the gradient. Default: 0.
        nesterov: Use Nesterov's form; needs momentum and no dampening. Default: False.
        maximize: Ascend instead of descend. Default: False.
        foreach: Only kept: torch's own step, where a group has to fall back to it, reads it. Default: None.
        differentiable: Run torch's own step, which autograd can follow. Default: False.
        fused: True lets `torch.amp.GradScaler` leave unscaling to the step. Default: None.
        **own: Options that torch does not have, see :class:`onepass.Options`.

    Raises:
        ValueError: A hyper-parameter is out of its range; the message names it.

    Example:
        >>> import torch, onepass
        >>> model = torch.nn.Linear(4, 1)
        >>> optimizer = onepass.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> model(torch.ones(2, 4)).sum().backward()
        >>> optimizer.step()

    Reference:
        Robbins & Monro, A Stochastic Approximation Method, 1951; Sutskever et al., On the importance of
        initialization and momentum in deep learning, 2013.

    Difference from torch:
        None in the result. bfloat16 and float16 parameters are computed in float32 and rounded once.
    """

    spec = Spec(
        base=torch.optim.SGD,
        rules=("sgd", "momentum"),
        scheduled={"momentum": math.inf},
        counted=False,
    )

    @options.documented
    def __init__(
        self,
        params: ParamsT,
        lr: float | torch.Tensor | Schedule | Reduced = 1e-3,
        momentum: float | Schedule = 0,
        dampening: float = 0,
        weight_decay: float | torch.Tensor | Schedule = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
        **own: Unpack[options.Options],
    ) -> None:
        self._start(
            params,
            own,
            lr=lr,
            momentum=momentum,
            dampening=dampening,
            weight_decay=weight_decay,
            nesterov=nesterov,
            maximize=maximize,
            foreach=foreach,
            differentiable=differentiable,
            fused=fused,
        )

    def check(self, group: Group) -> None:
        """Raise ValueError for a hyper-parameter out of range."""
        at_least(0.0, **{name: group[name] for name in ("lr", "momentum", "weight_decay")})
        numbers(dampening=group["dampening"])
        one_of((False, True), nesterov=group["nesterov"])

    def rule(self, group: Group) -> str:
        """Return the name of a group's update rule."""
        return "sgd" if group["momentum"] == 0 else "momentum"
