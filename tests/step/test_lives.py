"""Optimizers to which between steps all is done that a caller may do: each step is that of a fresh copy, and torch's."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests import cases
from tests.helpers import EMULATED, run_python
from tests.step import lives

LIVES = 400

pytestmark = [
    pytest.mark.skipif(EMULATED, reason="states are copied by their storages on the host"),
    pytest.mark.filterwarnings("ignore"),
]


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_random_lives() -> None:
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.step.lives import main
sys.exit(main(["--lives", "{LIVES}", "--jobs", "1"]))
"""
    done = run_python(code, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


class Machine(RuleBasedStateMachine):
    """The same actions, drawn by hypothesis, which makes what has gone wrong short."""

    life: lives.Life

    @initialize(random=st.randoms(use_true_random=False))
    def begin(self, random: random.Random) -> None:
        self.life = lives.begin(random)
        self.life.unwatched = False


def _rule(name: str) -> Callable[..., None]:
    def act(self: Machine, random: random.Random) -> None:
        lives.act(self.life, name, random)

    act.__name__ = name
    return act


for _name in lives.ACTIONS:
    for _copy in range(5 if _name == "step" else 1):  # all rules are as likely
        _decorate: Any = rule(random=st.randoms(use_true_random=False))
        setattr(Machine, f"{_name}_{_copy}", _decorate(_rule(_name)))


def test_machine() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    settings = hypothesis.settings(
        max_examples=100,
        stateful_step_count=15,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
    )
    run_state_machine_as_test(Machine, settings=settings)
    torch.set_num_threads(threads)


def test_every_kind_of_optimizer_has_options_to_change() -> None:
    assert {case.name for case in cases.CASES} == set(lives.TORCHS)


def test_a_life_is_the_same_again() -> None:
    logs = []
    for _ in range(2):
        try:
            logs.append(lives.live(7).log)
        except lives.Difference as error:
            logs.append([str(error)])
    assert logs[0] == logs[1]
