from __future__ import annotations

import inspect

import pytest
import torch

import onepass
from tests import cases
from tests.cases import CASES, CLASSES, RULES, WRONG


def test_every_class_is_in_the_list() -> None:
    classes = {name for name in onepass.__all__ if isinstance(getattr(onepass, name), type)}
    optimizers = classes - {"Options"}
    assert optimizers == {case.name for case in CASES}
    assert optimizers == {case.name for case in CLASSES}
    assert optimizers == {wrong.name for wrong in WRONG}


def test_every_update_rule_is_in_the_list() -> None:
    from onepass import _core

    assert len(
        {(case.name in ("Adam", "AdamW"), case.state_keys, case.name) for case in RULES}
    ) == len(_core.specs())


def test_ids_are_unique() -> None:
    assert len(cases.BY_ID) == len(CASES)


@cases.classes
def test_signature_begins_with_that_of_torch(case: cases.Case) -> None:
    """A script that changes `torch.optim.` to `onepass.` may pass arguments by position."""
    ours = inspect.signature(case.kind).parameters
    theirs = inspect.signature(case.torch_kind).parameters
    for (name, own), (torchs_name, torchs) in zip(ours.items(), theirs.items(), strict=False):
        assert (name, own.kind, own.default) == (torchs_name, torchs.kind, torchs.default)
    more = list(ours.values())[len(theirs) :]
    assert {p.kind for p in more} == {inspect.Parameter.KEYWORD_ONLY}
    assert {"l1_decay", "l1_mode"} <= {p.name for p in more}


@cases.classes
def test_is_a_subclass_of_torchs_class(case: cases.Case) -> None:
    assert issubclass(case.kind, case.torch_kind)
    assert case.kind.__name__ == case.torch_kind.__name__
    assert case.kind.__doc__


@cases.classes
def test_defaults_are_torchs(case: cases.Case) -> None:
    p = torch.nn.Parameter(torch.zeros(2))
    assert case.kind([p]).defaults == case.torch_kind([p]).defaults


@cases.classes
def test_unknown_argument_is_a_type_error(case: cases.Case) -> None:
    with pytest.raises(TypeError, match="momentun"):
        case.ours([torch.nn.Parameter(torch.zeros(2))], momentun=0.9)
