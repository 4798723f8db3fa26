"""Adagrad."""

from __future__ import annotations

import torch
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from onepass.hyper import options
from onepass.hyper.checks import at_least
from onepass.hyper.spec import Group, Spec
from onepass.optim.optimizer import OnePass
from onepass.schedule import Schedule
from onepass.schedule.plateau import Reduced
from onepass.state.make import prefer_huge_pages


class Adagrad(OnePass, torch.optim.Adagrad):
    r"""Adagrad: each element's learning rate falls with the sum of its squared gradients.

    .. math::
        \gamma_t &= \gamma / (1 + (t - 1) \eta) \\
        s_t &= s_{t-1} + g_t^2, \quad s_0 = s_{\text{init}} \\
        p_t &= p_{t-1} - \gamma_t \, g_t / (\sqrt{s_t} + \epsilon)

    Args:
        params: Parameters, named parameters or parameter groups.
        lr: Learning rate :math:`\gamma \ge 0`, a number, a tensor of one element or a schedule. Default: 1e-2.
        lr_decay: :math:`\eta \ge 0`. Default: 0.
        weight_decay: L2 strength, added to the gradient, at least 0. Default: 0.
        initial_accumulator_value: :math:`s_{\text{init}} \ge 0`. Default: 0.
        eps: :math:`\epsilon \ge 0`. Default: 1e-10.
        foreach: Only kept: torch's own step, where a group has to fall back to it, reads it. Default: None.
        maximize: Ascend instead of descend. Default: False.
        differentiable: Run torch's own step, which autograd can follow. Default: False.
        fused: True lets `torch.amp.GradScaler` leave unscaling to the step. Default: None.
        **own: Options that torch does not have, see :class:`onepass.Options`.

    Raises:
        ValueError: A hyper-parameter is out of its range; the message names it.

    Example:
        >>> import torch, onepass
        >>> model = torch.nn.Linear(4, 1)
        >>> optimizer = onepass.Adagrad(model.parameters(), lr=0.1)
        >>> model(torch.ones(2, 4)).sum().backward()
        >>> optimizer.step()

    Reference:
        Duchi, Hazan & Singer, Adaptive Subgradient Methods for Online Learning and Stochastic Optimization, 2011.

    Difference from torch:
        None in the result. A parameter of a group that was added later works, too.
    """

    spec = Spec(
        base=torch.optim.Adagrad,
        rules=("adagrad",),
        initial={"sum": "initial_accumulator_value"},
    )

    @options.documented
    def __init__(
        self,
        params: ParamsT,
        lr: float | torch.Tensor | Schedule | Reduced = 1e-2,
        lr_decay: float = 0,
        weight_decay: float | Schedule = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        **own: Unpack[options.Options],
    ) -> None:
        self._start(
            params,
            own,
            lr=lr,
            lr_decay=lr_decay,
            weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value,
            eps=eps,
            foreach=foreach,
            maximize=maximize,
            differentiable=differentiable,
            fused=fused,
        )

        for group in self.param_groups:
            if group.keys() & {
                "state_dtype",
                "master_weights",
            }:  # torch has made state of another dtype
                for p in group["params"]:
                    del self.state[p]
        prefer_huge_pages(self.state.values(), "sum")

    def check(self, group: Group) -> None:
        """Raise ValueError for a hyper-parameter out of range."""
        names = ("lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps")
        at_least(0.0, **{name: group[name] for name in names})
