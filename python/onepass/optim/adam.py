"""Adam."""

from __future__ import annotations

import torch
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from onepass.hyper import options
from onepass.hyper.checks import at_least, betas_in_range
from onepass.hyper.spec import Group, Spec
from onepass.optim.optimizer import OnePass
from onepass.schedule import Schedule
from onepass.schedule.plateau import Reduced


class Adam(OnePass, torch.optim.Adam):
    r"""Adam: momentum divided by a running average of the gradient's magnitude, both corrected for their start.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        p_t &= p_{t-1} - \frac{\gamma}{1 - \beta_1^t} \,
               m_t \Big/ \Big(\sqrt{v_t / (1 - \beta_2^t)} + \epsilon\Big)

    Args:
        params: Parameters, named parameters or parameter groups.
        lr: Learning rate :math:`\gamma \ge 0`, a number, a tensor of one element or a schedule. Default: 1e-3.
        betas: :math:`\beta_1, \beta_2` in [0, 1). Default: (0.9, 0.999).
        eps: :math:`\epsilon \ge 0`. Default: 1e-8.
        weight_decay: L2 strength, at least 0: added to the gradient, or decoupled. Default: 0.
        amsgrad: Divide by the largest :math:`v` so far. Default: False.
        foreach: Only kept: torch's own step, where a group has to fall back to it, reads it. Default: None.
        maximize: Ascend instead of descend. Default: False.
        capturable: On a CUDA device, count steps there, so that a CUDA graph can hold them. Default: False.
        differentiable: Run torch's own step, which autograd can follow. Default: False.
        fused: True lets `torch.amp.GradScaler` leave unscaling to the step. Default: None.
        decoupled_weight_decay: Decay the weights themselves, as AdamW. Default: False.
        **own: Options that torch does not have, see :class:`onepass.Options`.

    Raises:
        ValueError: A hyper-parameter is out of its range; the message names it.

    Example:
        >>> import torch, onepass
        >>> model = torch.nn.Linear(4, 1)
        >>> optimizer = onepass.Adam(model.parameters(), lr=1e-3)
        >>> model(torch.ones(2, 4)).sum().backward()
        >>> optimizer.step()

    Reference:
        Kingma & Ba, Adam: A Method for Stochastic Optimization, 2015, algorithm 1; amsgrad: Reddi, Kale &
        Kumar, On the Convergence of Adam and Beyond, 2018.

    Difference from torch:
        None in the result. bfloat16 and float16 parameters are computed in float32 and rounded once.
    """

    spec = Spec(
        base=torch.optim.Adam,
        rules=("adam", "amsgrad"),
        sources={"beta1": ("betas", 0), "beta2": ("betas", 1)},
        scheduled={"betas": 1.0},
    )

    @options.documented
    def __init__(
        self,
        params: ParamsT,
        lr: float | torch.Tensor | Schedule | Reduced = 1e-3,
        betas: tuple[float | torch.Tensor | Schedule, float | torch.Tensor | Schedule] = (
            0.9,
            0.999,
        ),
        eps: float = 1e-8,
        weight_decay: float | Schedule = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
        **own: Unpack[options.Options],
    ) -> None:
        self._start(
            params,
            own,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            amsgrad=amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=decoupled_weight_decay,
        )

    def check(self, group: Group) -> None:
        """Raise ValueError for a hyper-parameter out of range."""
        at_least(0.0, **{name: group[name] for name in ("lr", "eps", "weight_decay")})
        betas_in_range(group["betas"])

    def rule(self, group: Group) -> str:
        """Return the name of a group's update rule."""
        return "amsgrad" if group["amsgrad"] else "adam"
