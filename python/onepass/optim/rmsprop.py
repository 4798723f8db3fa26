"""RMSprop."""

from __future__ import annotations

import math

import torch
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from onepass.hyper import options
from onepass.hyper.checks import at_least
from onepass.hyper.spec import Group, Spec
from onepass.optim.optimizer import OnePass
from onepass.schedule import Schedule
from onepass.schedule.plateau import Reduced


class RMSprop(OnePass, torch.optim.RMSprop):
    r"""RMSprop: the gradient divided by a running average of its magnitude.

    .. math::
        v_t &= \alpha v_{t-1} + (1 - \alpha) g_t^2 \\
        a_t &= \alpha a_{t-1} + (1 - \alpha) g_t \quad\text{(centered, else } a_t = 0) \\
        b_t &= \mu b_{t-1} + g_t / (\sqrt{v_t - a_t^2} + \epsilon) \\
        p_t &= p_{t-1} - \gamma b_t

    Args:
        params: Parameters, named parameters or parameter groups.
        lr: Learning rate :math:`\gamma \ge 0`, a number, a tensor of one element or a schedule. Default: 1e-2.
        alpha: :math:`\alpha \ge 0`. Default: 0.99.
        eps: :math:`\epsilon \ge 0`. Default: 1e-8.
        weight_decay: L2 strength, added to the gradient, at least 0. Default: 0.
        momentum: :math:`\mu \ge 0`. Default: 0, which keeps no buffer.
        centered: Subtract the squared mean of the gradient. Default: False.
        capturable: On a CUDA device, count steps there, so that a CUDA graph can hold them. Default: False.
        foreach: Only kept: torch's own step, where a group has to fall back to it, reads it. Default: None.
        maximize: Ascend instead of descend. Default: False.
        differentiable: Run torch's own step, which autograd can follow. Default: False.
        fused: True lets `torch.amp.GradScaler` leave unscaling to the step. torch's RMSprop has no such
            argument. Default: None.
        **own: Options that torch does not have, see :class:`onepass.Options`.

    Raises:
        ValueError: A hyper-parameter is out of its range; the message names it.

    Example:
        >>> import torch, onepass
        >>> model = torch.nn.Linear(4, 1)
        >>> optimizer = onepass.RMSprop(model.parameters(), lr=0.01, centered=True)
        >>> model(torch.ones(2, 4)).sum().backward()
        >>> optimizer.step()

    Reference:
        Hinton, Neural Networks for Machine Learning, lecture 6e, 2012; centered: Graves, Generating Sequences
        With Recurrent Neural Networks, 2013, eq. 38 to 45.

    Difference from torch:
        :math:`v_t - a_t^2` is at least 0: rounding can leave it just below, where torch's result is NaN. With
        ``state_dtype="8bit"`` it is at least :math:`v_t / 16`, since both terms are rounded.
    """

    spec = Spec(
        base=torch.optim.RMSprop,
        rules=(
            "rmsprop",
            "rmsprop_momentum",
            "rmsprop_centered",
            "rmsprop_centered_momentum",
        ),
        computed={"trusted": lambda group: 1 / 16 if group.get("state_dtype") == "8bit" else 0.0},
        scheduled={"momentum": math.inf},
    )

    @options.documented
    def __init__(
        self,
        params: ParamsT,
        lr: float | torch.Tensor | Schedule | Reduced = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float | Schedule = 0,
        momentum: float | Schedule = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        *,
        fused: bool | None = None,
        **own: Unpack[options.Options],
    ) -> None:
        self._start(
            params,
            own,
            lr=lr,
            alpha=alpha,
            eps=eps,
            weight_decay=weight_decay,
            momentum=momentum,
            centered=centered,
            capturable=capturable,
            foreach=foreach,
            maximize=maximize,
            differentiable=differentiable,
        )
        if fused:
            if differentiable:
                message = "`fused` does not support `differentiable`"
                raise RuntimeError(message)
            if foreach:
                message = "`fused` and `foreach` cannot be `True` together."
                raise RuntimeError(message)
            self.defaults["fused"] = True
            self._offer_unscaling()

    def check(self, group: Group) -> None:
        """Raise ValueError for a hyper-parameter out of range."""
        at_least(
            0.0,
            **{name: group[name] for name in ("lr", "alpha", "eps", "weight_decay", "momentum")},
        )

    def rule(self, group: Group) -> str:
        """Return the name of a group's update rule."""
        centered = "_centered" if group["centered"] else ""
        return f"rmsprop{centered}{'_momentum' if group['momentum'] > 0 else ''}"
