"""AdamW."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from onepass.hyper import options
from onepass.optim.adam import Adam
from onepass.schedule import Schedule
from onepass.schedule.plateau import Reduced


class AdamW(Adam, torch.optim.AdamW):
    r"""Adam with decoupled weight decay: the weights shrink by themselves, apart from the gradient.

    .. math::
        p_t = (1 - \gamma \lambda) \, p_{t-1} - \frac{\gamma}{1 - \beta_1^t} \,
              m_t \Big/ \Big(\sqrt{v_t / (1 - \beta_2^t)} + \epsilon\Big)

    with :math:`m_t` and :math:`v_t` as in :class:`onepass.Adam`.

    Args:
        params: Parameters, named parameters or parameter groups.
        lr: Learning rate :math:`\gamma \ge 0`, a number, a tensor of one element or a schedule. Default: 1e-3.
        betas: :math:`\beta_1, \beta_2` in [0, 1). Default: (0.9, 0.999).
        eps: :math:`\epsilon \ge 0`. Default: 1e-8.
        weight_decay: :math:`\lambda \ge 0`. Default: 1e-2.
        amsgrad: Divide by the largest :math:`v` so far. Default: False.
        maximize: Ascend instead of descend. Default: False.
        foreach: Only kept: torch's own step, where a group has to fall back to it, reads it. Default: None.
        capturable: On a CUDA device, count steps there, so that a CUDA graph can hold them. Default: False.
        differentiable: Run torch's own step, which autograd can follow. Default: False.
        fused: True lets `torch.amp.GradScaler` leave unscaling to the step. Default: None.
        **own: Options that torch does not have, see :class:`onepass.Options`.

    Raises:
        ValueError: A hyper-parameter is out of its range; the message names it.

    Example:
        >>> import torch, onepass
        >>> model = torch.nn.Linear(4, 1)
        >>> optimizer = onepass.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
        >>> model(torch.ones(2, 4)).sum().backward()
        >>> optimizer.step()

    Reference:
        Loshchilov & Hutter, Decoupled Weight Decay Regularization, 2019, algorithm 2; as in torch, the decay is
        multiplied by the learning rate.

    Difference from torch:
        None in the result. bfloat16 and float16 parameters are computed in float32 and rounded once.
    """

    spec = replace(Adam.spec, base=torch.optim.AdamW)

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
        weight_decay: float | Schedule = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
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
            maximize=maximize,
            foreach=foreach,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take in the state of a pickled or loaded optimizer; a checkpoint of an old torch does not say how it decays."""
        super().__setstate__(state)
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True
