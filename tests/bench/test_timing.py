"""The stop watch, on a clock that only the contestants advance."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from onepass.bench import timing
from onepass.bench.timing import Spread


class Clock:
    """A clock that stands still except when something takes time."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def step(
        self, seconds: float, calls: list[str] | None = None, name: str = ""
    ) -> Callable[[], None]:
        """Return a step that takes so long."""

        def run() -> None:
            self.now += seconds
            if calls is not None:
                calls.append(name)

        return run


def test_spread_is_median_and_quartiles() -> None:
    assert Spread.of([4, 1, 3, 2, 5]) == Spread(median=3, low=2, high=4)
    assert Spread.of([7]) == Spread(7, 7, 7)


def test_every_contestant_is_timed_in_every_round() -> None:
    clock = Clock()
    seen = timing.watch(
        {"a": clock.step(1.0), "b": clock.step(3.0)}, rounds=4, turn=6.0, clock=clock
    )
    assert seen["a"].seconds == pytest.approx([1.0] * 4)
    assert seen["b"].seconds == pytest.approx([3.0] * 4)
    assert (seen["a"].steps_per_turn, seen["b"].steps_per_turn) == (6, 2)


def test_a_step_longer_than_a_turn_runs_once() -> None:
    clock = Clock()
    seen = timing.watch({"a": clock.step(5.0)}, rounds=3, turn=0.1, clock=clock)
    assert seen["a"].steps_per_turn == 1


def test_a_turn_is_cut_short_when_steps_become_slow() -> None:
    """The length was chosen in a lucky moment."""
    clock, calls = Clock(), list[int]()

    def step() -> None:
        calls.append(1)
        clock.now += 0.001 if len(calls) <= 4 else 1.0

    seen = timing.watch({"a": step}, rounds=3, turn=0.32, clock=clock)
    assert seen["a"].steps_per_turn == 320
    assert seen["a"].seconds == pytest.approx([1.0] * 3)
    assert len(calls) == 4 + 3 * (1 + 2)  # the clock is read after the first step and the second


def test_each_round_begins_with_another_contestant() -> None:
    clock, calls = Clock(), list[str]()
    steps = {name: clock.step(1.0, calls, name) for name in "abc"}
    timing.watch(steps, rounds=3, turn=0.5, clock=clock)
    turns = [name for name, before in zip(calls, [None, *calls], strict=False) if name != before]
    assert "".join(turns).endswith("abcbcacab")


def test_ratios_are_paired_by_rounds() -> None:
    """A disturbance that lasts for a round changes the times of both and leaves the ratio alone."""
    fast = timing.Watched(1, [1.0, 10.0, 1.0])
    slow = timing.Watched(1, [2.0, 20.0, 2.0])
    assert timing.ratios(slow, fast) == [2.0, 2.0, 2.0]


def test_one_that_raises_is_taken_out_with_its_error() -> None:
    clock = Clock()

    def broken() -> None:
        message = "no kernel\nfor this"
        raise RuntimeError(message)

    seen = timing.watch({"a": clock.step(1.0), "b": broken}, rounds=3, turn=1.0, clock=clock)
    assert seen["b"].error == "RuntimeError: no kernel"
    assert seen["b"].seconds == []
    assert len(seen["a"].seconds) == 3


def test_the_deadline_leaves_the_fewest_rounds() -> None:
    clock = Clock()
    seen = timing.watch({"a": clock.step(1.0)}, rounds=50, turn=1.0, deadline=0.0, clock=clock)
    assert len(seen["a"].seconds) == timing.FEWEST_ROUNDS


def test_no_turn_begins_after_the_end() -> None:
    """Five steps choose the length of a's turn, one is not timed and one is; then it is 7, and b's turn would begin."""
    clock = Clock()
    steps = {"a": clock.step(1.0), "b": clock.step(1.0)}
    seen = timing.watch(steps, rounds=50, turn=1.0, end=5.5, clock=clock)
    assert (seen["a"].seconds, seen["b"].seconds) == ([1.0], [])
    seen = timing.watch(steps, rounds=50, turn=1.0, end=0.0, clock=clock)
    assert clock.now == 6.0
    assert seen["a"].seconds == []


def test_waits_for_a_device_before_the_clock_is_read() -> None:
    """A step that only enqueues is charged with what it enqueued."""
    time, queued = [0.0], [0]

    def step() -> None:
        queued[0] += 1

    def wait() -> None:
        time[0] += queued[0]
        queued[0] = 0

    seen = timing.watch({"slow": step}, rounds=3, turn=10.0, clock=lambda: time[0], wait=wait)
    assert seen["slow"].seconds == pytest.approx([1.0] * 3, rel=0.2)
