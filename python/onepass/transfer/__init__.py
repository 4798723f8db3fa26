"""Transfer learning: named parameter groups, freezing that holds, new heads, decay to the old weights."""

from __future__ import annotations

from onepass.transfer.anchor import anchor_decay
from onepass.transfer.freezing import check_frozen, freeze, unfreeze
from onepass.transfer.groups import ParamGroups, param_groups
from onepass.transfer.head import replace_head
from onepass.transfer.loading import Loaded, load_by_name

__all__ = [
    "Loaded",
    "ParamGroups",
    "anchor_decay",
    "check_frozen",
    "freeze",
    "load_by_name",
    "param_groups",
    "replace_head",
    "unfreeze",
]
