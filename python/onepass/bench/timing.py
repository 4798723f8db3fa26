"""The stop watch: contestants in turn, round after round, in one process.

Everything that varies slowly (clock frequency, other processes, memory) meets all contestants of a round alike, so
that the ratios within rounds are steadier than the times themselves.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

Step = Callable[[], object]
Clock = Callable[[], float]

FEWEST_ROUNDS = 3
MOST_STEPS = 100_000
_BLOCKS = 16
"""A turn has so many blocks of steps, between which the clock is read; the first of them are shorter."""
_LONGEST_TURN = 4
"""A turn is cut short after so many times its length."""


@dataclass(frozen=True)
class Spread:
    """A median with its quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Summarise one value or more."""
        values = list(values)
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass
class Watched:
    """What the watch saw of one contestant."""

    steps_per_turn: int
    seconds: list[float]
    """Of one step, in each round."""
    error: str | None = None


def ratios(of: Watched, to: Watched) -> list[float]:
    """Return how much longer `of` took than `to`, round by round."""
    return [a / b for a, b in zip(of.seconds, to.seconds, strict=False)]


def watch(
    steps: Mapping[str, Step],
    *,
    rounds: int,
    turn: float,
    deadline: float | None = None,
    end: float | None = None,
    clock: Clock = time.perf_counter,
    wait: Callable[[], None] = lambda: None,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, Watched]:
    """Time one step of each contestant.

    Args:
        steps: What each of them does. Those that raise are taken out, with the error noted.
        rounds: How often each has its turn. The contestant that begins a round is another one each time.
        turn: Seconds that a turn should take: it is filled with as many steps as fit, at least one. A step before
            them is not timed, so that caches hold what this contestant's own last step has left in them.
        deadline: When the clock shows this, no further round begins, but `FEWEST_ROUNDS` there are.
        end: When the clock shows this, no further turn begins, though there may be none of some contestants yet.
        clock: Tells the time.
        wait: Waits for what steps have only begun, on a device; called before the clock is read.
        progress: Called after every round.
    """
    seen = {}

    def now() -> float:
        wait()
        return clock()

    for name, step in steps.items():
        seen[name] = Watched(1, [])
        if over(end, clock):
            continue
        _attempt(seen[name], partial(_choose_length, step, seen[name], turn, now))
    collecting = gc.isenabled()
    gc.disable()
    try:
        for number in range(rounds):
            if deadline is not None and number >= FEWEST_ROUNDS and clock() > deadline:
                break
            names = [name for name in steps if seen[name].error is None]
            first = number % max(1, len(names))
            for name in names[first:] + names[:first]:
                watched = seen[name]
                if over(end, clock):
                    return seen
                _attempt(watched, partial(_take_turn, steps[name], watched, turn, now))
            progress()
    finally:
        if collecting:
            gc.enable()
    return seen


def over(end: float | None, clock: Clock = time.perf_counter) -> bool:
    """Return whether the time is up."""
    return end is not None and clock() > end


def _attempt(watched: Watched, action: Callable[[], None]) -> None:
    try:
        action()
    except Exception as error:
        watched.error = describe(error)


def describe(error: Exception) -> str:
    """Return type and first line of an exception's message."""
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


def _choose_length(step: Step, watched: Watched, turn: float, clock: Clock) -> None:
    step()
    done, start, spent = 0, clock(), 0.0
    while done < 3 and (done == 0 or spent < turn):
        step()
        done += 1
        spent = clock() - start
    fitting = turn * done / spent if spent > 0 else MOST_STEPS
    watched.steps_per_turn = int(min(MOST_STEPS, max(1.0, fitting)))


def _take_turn(step: Step, watched: Watched, turn: float, clock: Clock) -> None:
    """Time the steps of a turn; cut it short where steps take far longer than they did at first."""
    longest = math.ceil(watched.steps_per_turn / _BLOCKS)
    done, spent = 0, 0.0
    step()
    start = clock()
    while done < watched.steps_per_turn and (done == 0 or spent < _LONGEST_TURN * turn):
        count = min(max(1, done), longest, watched.steps_per_turn - done)
        for _ in range(count):
            step()
        done += count
        spent = clock() - start
    watched.seconds.append(spent / done)
