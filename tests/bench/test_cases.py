"""The lists of models, optimizers and peers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import onepass
from onepass.bench.cases import OPTIMIZERS, Case, new_parameters
from onepass.bench.models import MODELS, Model
from onepass.bench.peers import PEERS, NotOffered

TINY = Model("tiny", "tiny", ((5, 3), (7,), ()))


@pytest.mark.parametrize(
    ("name", "tensors", "parameters"),
    [
        ("policy", 13, 11_085),
        ("small1000", 1000, 64_000),
        ("mlp", 6, 85_614),
        ("resnet50", 161, 25_557_032),
        ("gpt2", 148, 124_439_808),
        ("tensor64m", 1, 2**26),
        ("tensor1g", 1, 2**28),
    ],
)
def test_models_have_their_published_size(name: str, tensors: int, parameters: int) -> None:
    assert len(MODELS[name].shapes) == tensors
    assert MODELS[name].parameters == parameters


def test_every_optimizer_of_the_package_is_measured() -> None:
    public = {
        name
        for name in onepass.__all__
        if isinstance(kind := getattr(onepass, name), type)
        and issubclass(kind, torch.optim.Optimizer)
    }
    assert public == {configuration.kind for configuration in OPTIMIZERS.values()}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_states_are_all_that_the_optimizer_keeps(name: str) -> None:
    """The bytes that are counted follow from the list of states."""
    configuration = OPTIMIZERS[name]
    parameters = new_parameters(Case(TINY, configuration))
    optimizer = getattr(torch.optim, configuration.kind)(parameters, **configuration.options)
    optimizer.step()
    state = optimizer.state[parameters[0]]
    kept = {key for key, value in state.items() if value is not None and value.shape == (5, 3)}
    assert kept == set(configuration.states)


def test_bytes_of_adam() -> None:
    """Read p g m v, write p m v."""
    case = Case(TINY, OPTIMIZERS["Adam"])
    assert case.bytes_per_parameter == 28
    assert replace(case, dtype=torch.bfloat16).bytes_per_parameter == 14
    assert case.memory == 4 * 4 * TINY.parameters


def test_contestants_start_alike_on_tensors_of_their_own() -> None:
    case = Case(TINY, OPTIMIZERS["SGD"])
    a, b = new_parameters(case), new_parameters(case)
    for x, y in zip(a, b, strict=True):
        assert x.grad is not None
        assert y.grad is not None
        assert torch.equal(x, y)
        assert torch.equal(x.grad, y.grad)
        assert x.data_ptr() != y.data_ptr()
        assert x.grad.data_ptr() != y.grad.data_ptr()


def test_what_torch_cannot_fuse_is_not_offered() -> None:
    case = Case(TINY, OPTIMIZERS["RMSprop"])
    with pytest.raises(NotOffered, match="RMSprop"):
        PEERS["torch-fused"].make(case.configuration, new_parameters(case))
