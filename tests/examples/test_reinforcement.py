"""Stable-Baselines3 trains with our Adam as with torch's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch.nn.utils import parameters_to_vector

import onepass
from tests.examples.running import here

pytest.importorskip("stable_baselines3")
pytest.importorskip("gymnasium")


def test_every_optimizer_trains_in_every_round(tmp_path: Path) -> None:
    few = ("--timesteps", 1, "--rounds", 2, "--episodes", 1)
    output = here("reinforcement", *few, "--picture", tmp_path / "seconds.png")
    assert "160 steps of the optimizer in every training" in output
    for name in ("torch.optim.Adam", "torch.optim.Adam, fused", "onepass.Adam"):
        assert re.search(rf"{name} \d+\.\d\d \d\.\d\d \d\.\d\d to \d\.\d\d \d+", output)
    assert (tmp_path / "seconds.png").read_bytes().startswith(b"\x89PNG")


def test_each_is_first_in_its_turn() -> None:
    import reinforcement

    first, second, third, fourth = map(reinforcement.turns, range(4))
    assert {first[0], second[0], third[0]} == set(reinforcement.OPTIMIZERS)
    assert sorted(first) == sorted(second) == sorted(third)
    assert fourth == first


def test_one_rollout_teaches_all_the_same() -> None:
    """Later on rounding changes a move, and from then on they see different games."""
    import reinforcement

    torch.set_num_threads(1)  # as the example does
    trainings = reinforcement.compete("", 1, seed=0).values()
    policies = [training.agent.policy for training in trainings]
    theirs, *others = (parameters_to_vector(policy.parameters()) for policy in policies)
    for other in others:
        torch.testing.assert_close(other, theirs, rtol=1e-3, atol=1e-4)
    assert [type(policy.optimizer) for policy in policies] == [
        torch.optim.Adam,
        torch.optim.Adam,
        onepass.Adam,
    ]
