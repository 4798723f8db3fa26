"""Parameter groups for every optimizer: named, complete, and there from the start."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any, Literal

import torch
from torch import nn

from onepass.schedule import Schedule
from onepass.schedule.plateau import Reduced
from onepass.transfer import rules as matching
from onepass.transfer.kinds import kind_of
from onepass.transfer.layers import layers
from onepass.transfer.parts import named_owners, owners, refuse_lazy
from onepass.transfer.table import table

__all__ = ["ParamGroups", "param_groups"]

Group = dict[str, Any]
NoDecay = Literal["norm+bias", "norm", "bias"] | None
_NO_DECAY = {"norm+bias": ("norm", "bias"), "norm": ("norm",), "bias": ("bias",), None: ()}
_DECAYS = ("weight_decay", "l1_decay")
_RESERVED = ("params", "param_names", "name", "lr_factor")


class ParamGroups(list[Group]):
    """Parameter groups, as an optimizer takes them; printed, they are a table."""

    def __init__(self, groups: Iterable[Group] = ()) -> None:
        super().__init__(groups)
        # an optimizer fills the groups with its defaults, which the table leaves out
        self._options = {name for group in self for name in group}

    def __str__(self) -> str:
        return table([{n: v for n, v in group.items() if n in self._options} for group in self])

    def __repr__(self) -> str:
        return f"<ParamGroups: {', '.join(repr(group['name']) for group in self)}>"


def param_groups(
    model: nn.Module,
    rules: matching.Rules | None = None,
    *,
    lr: float | torch.Tensor | Schedule | Reduced,
    layer_decay: float | None = None,
    no_decay: NoDecay = "norm+bias",
    weight_decay: float | Schedule | None = None,
    **options: Any,
) -> ParamGroups:
    r"""Return named parameter groups that hold every trainable parameter exactly once.

    .. math:: lr_p = lr \cdot d^{\,L - 1 - \ell(p)} \cdot f_p

    where :math:`d` is `layer_decay`, :math:`\ell(p)` the layer of the parameter among :math:`L`, and :math:`f_p` the
    `lr_factor` of its rule. The factor is in the group's "lr" and, for information and for
    :func:`onepass.schedule.as_torch_scheduler`, beside it as "lr_factor". Schedulers of torch multiply each
    group's own rate, and so keep the ratios.

    The groups are all there from the start. To unfreeze gradually, give a rule `train_from`, the number of steps
    that it waits; groups, checkpoints and schedulers then never change.

    Parameters that do not require a gradient are left out. A parameter with several names (tied weights) comes
    once, under its first name; a rule finds it under any.

    Layers, for `layer_decay`: the model is taken apart from the top, in the order in which its modules were
    defined, which has to be that of the forward pass.

    * A `Sequential` or `ModuleList` falls into its entries, and every entry is a layer. A list inside a
      list falls apart only if it holds blocks (modules with parts of their own): a row of convolution, norm and
      activation is one layer.
    * Another module falls into its children if it is the only child, or if there is a list of several
      entries inside and no module of its class beside it; an entry of a list, only if that list is the model
      itself and the list inside holds blocks. Else it is one layer.
    * What comes before the first entry of a list is one layer (the stem), and so is what comes behind the last
      one (the head). Where a classifier is itself a list, as in VGG, its last entry is the head.
    * Norms and loose parameters belong to the layer before them.

    Args:
        model: Whose parameters.
        rules: Pairs `(glob, options)` for dotted names of parameters; `*` matches dots too. Options are group
            keys (`lr`, taken as it is; `weight_decay`, `train_from`, `betas`, ...), `lr_factor` :math:`f \ge 0`,
            `name` of the group, and `no_decay`. Default: None, no rules.
        lr: Learning rate of the top layer: a number, a tensor, or a schedule.
        layer_decay: :math:`0 < d \le 1`. Default: None, all layers alike.
        no_decay: Which parameters get neither `weight_decay` nor `l1_decay`, also where a rule sets one: "norm",
            "bias", "norm+bias" or None. A norm is known by the type of its module (a class with "norm" in its
            name that holds vectors only is one, too); "bias" is every other parameter of at most one dimension,
            and what is called so. Default: "norm+bias".
        weight_decay: Of the others. Default: None, the optimizer's.
        **options: Further options of all groups, as `momentum=0.9` or `ema_decay=0.999`.

    Returns:
        A list of dicts for the first argument of an optimizer, with the keys "params" (pairs of name and
        parameter), "name", "lr", "lr_factor" and the options. `print` shows it as a table.

    Raises:
        ValueError: A pattern matches no trainable parameter; two patterns match the same one; the decay of a rule
            would reach none of its parameters; an argument is out of range; nothing is trainable; a lazy layer has not
            seen an input, so that nobody knows which of its parameters are biases.
        TypeError: An argument has the wrong type.

    Example:
        >>> import onepass
        >>> from torch import nn
        >>> body = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3))
        >>> model = nn.Sequential(body, nn.Flatten(), nn.Linear(8, 5))
        >>> groups = param_groups(model, [("2.*", {"name": "head"}), ("0.*", {"lr_factor": 0.1})], lr=0.02)
        >>> print(groups)
        group           tensors  numbers     lr  lr_factor  weight_decay
        0.*                   2      648  0.002        0.1       default
        0.*, no decay         4       32  0.002        0.1             0
        head                  1       40   0.02          1       default
        head, no decay        1        5   0.02          1             0
        total                 8      725
        >>> optimizer = onepass.AdamW(groups)

    Reference:
        Howard & Ruder, Universal Language Model Fine-tuning for Text Classification, 2018 (discriminative
        rates); Clark et al., ELECTRA, 2020 (layer-wise decay); He et al., Bag of Tricks for Image
        Classification, 2019, section 3.1 (no decay of norms and biases).

    Difference from timm: `param_groups_layer_decay` writes "lr_scale", which only timm's schedulers apply.
    Difference from Lightning and fastai: groups are not added while training.
    """
    rules = list(rules or ())
    matching.check(rules)
    _check(lr, layer_decay, options)
    refuse_lazy(model, owners(model, None))
    named = {p: places for p, places in named_owners(model).items() if p.requires_grad}
    if not named:
        message = "model must have a trainable parameter: it has none, or all are frozen"
        raise ValueError(message)
    rule_of = matching.assign(model, rules, {p: [n for n, _ in named[p]] for p in named})
    ladder = layers(model) if layer_decay is not None else []
    layer_of = {p: i for i in reversed(range(len(ladder))) for p in ladder[i].params}

    groups: dict[tuple[int, int, bool], Group] = {}
    for p, ((name, owner), *_) in named.items():
        layer, number = layer_of.get(p, -1), rule_of.get(p, -1)
        pattern, own = rules[number] if number >= 0 else ("rest" if rules else "all", {})
        kind = kind_of(owner, name.rpartition(".")[2], p)
        key = layer, number, kind in _spared(own.get("no_decay", no_decay))
        if key not in groups:
            label = [ladder[layer].name or "model"] if ladder else []
            label += [] if ladder and number < 0 else [str(own.get("name", pattern))]
            factor = 1.0 if layer_decay is None else layer_decay ** (len(ladder) - 1 - layer)
            settings = {"weight_decay": weight_decay, **options, **own}
            groups[key] = _group(label, settings, lr, factor, spared=key[2])
        groups[key]["params"].append((name, p))
    _check_reach(rules, {number for _, number, spared in groups if not spared})
    return ParamGroups(groups[key] for key in (sorted(groups) if ladder else groups))


def _group(label: list[str], settings: Group, lr: Any, factor: float, *, spared: bool) -> Group:
    """Return a group without its parameters."""
    own = {name: value for name, value in settings.items() if name not in (*_RESERVED, "no_decay")}
    if own["weight_decay"] is None:
        del own["weight_decay"]
    if spared:
        own.update(dict.fromkeys(_DECAYS, 0.0))
    if "lr" in own:
        known = isinstance(own["lr"], Real) and isinstance(lr, Real) and float(lr) > 0
        factors = {"lr_factor": float(own["lr"]) / float(lr)} if known else {}
    else:
        factor *= float(settings.get("lr_factor", 1.0))
        # tensors are filled in place by schedulers, so that every group needs its own
        own["lr"] = lr if factor == 1.0 and not isinstance(lr, torch.Tensor) else lr * factor
        factors = {"lr_factor": factor}
    name = ", ".join([*label, *(["no decay"] if spared else [])])
    return {"params": [], "name": name, "lr": own.pop("lr"), **factors, **own}


def _spared(no_decay: Any) -> tuple[str, ...]:
    if no_decay not in _NO_DECAY:
        message = f"no_decay must be one of {', '.join(map(repr, _NO_DECAY))}, got {no_decay!r}"
        raise ValueError(message)
    return _NO_DECAY[no_decay]


def _check(lr: Any, layer_decay: Any, options: Mapping[str, Any]) -> None:
    if isinstance(lr, bool) or not isinstance(lr, Real | torch.Tensor | Schedule | Reduced):
        message = f"lr must be a number, a tensor or a schedule, got {lr!r}"
        raise TypeError(message)
    if layer_decay is not None and not 0.0 < layer_decay <= 1.0:
        message = f"layer_decay must be in (0, 1], got {layer_decay!r}"
        raise ValueError(message)
    for name in _RESERVED:
        if name in options:
            message = f"{name} must be an option of a rule, not of all groups"
            raise ValueError(message)
    matching.check_names(options, "param_groups has")


def _check_reach(rules: matching.Rules, reached: set[int]) -> None:
    for number, (pattern, options) in enumerate(rules):
        for decay in _DECAYS:
            value = options.get(decay)
            if number not in reached and (isinstance(value, Schedule) or value):
                message = (
                    f"{decay}={value!r} of rule {pattern!r} reaches no parameter: all that match are norms or "
                    "biases; add 'no_decay': None to the rule to decay them"
                )
                raise ValueError(message)
