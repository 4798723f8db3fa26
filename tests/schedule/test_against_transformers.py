"""The table of names of transformers.get_scheduler, against the factors that its functions return, written out here."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest

from onepass import schedule
from onepass.schedule import Schedule
from tests.schedule.test_docs import PAGE

V, W, N = 3e-4, 20, 140
END, POWER, CYCLES, DECAY = 2e-5, 1.7, 3, 35


def warm(t: int) -> float:
    return t / max(1, W)


def progress(t: int) -> float:
    return (t - W) / max(1, N - W)


def cosine(x: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * x))


def lifted(factor: float) -> float:
    return factor * (1 - END / V) + END / V


def polynomial(t: int) -> float:
    remaining = 1 - (t - W) / (N - W)
    return float((V - END) * remaining**POWER + END) / V


def wsd(t: int) -> float:
    stable = N - W - DECAY
    if t < W + stable:
        return 1.0
    return max(0.0, cosine((t - W - stable) / DECAY)) if t < N else 0.0


def after_warmup(factor: Callable[[int], float]) -> Callable[[int], float]:
    return lambda t: warm(t) if t < W else factor(t)


FACTORS: dict[str, Callable[[int], float]] = {
    "constant": lambda _: 1.0,
    "constant_with_warmup": after_warmup(lambda _: 1.0),
    "linear": after_warmup(lambda t: max(0.0, (N - t) / max(1, N - W))),
    "cosine": after_warmup(lambda t: max(0.0, cosine(progress(t)))),
    "cosine_with_restarts": after_warmup(
        lambda t: 0.0 if t >= N else max(0.0, cosine((CYCLES * progress(t)) % 1.0))
    ),
    "polynomial": after_warmup(lambda t: END / V if t > N else polynomial(t)),
    "inverse_sqrt": after_warmup(lambda t: 1.0 / math.sqrt(t / W)),
    "cosine_with_min_lr": after_warmup(lambda t: max(0.0, lifted(cosine(progress(t))))),
    "cosine_warmup_with_min_lr": lambda t: (
        (t + 1.0) / W if t < W else max(0.0, lifted(cosine((t - W + 1.0) / (N - W))))
    ),
    "warmup_stable_decay": after_warmup(wsd),
}


def rows() -> dict[str, str]:
    return dict(re.findall(r'^\| `"(\w+)"`[^|]*\| `([^`]+)` \|$', PAGE.read_text(), re.MULTILINE))


def test_every_name_is_there() -> None:
    assert rows().keys() == {*FACTORS, "reduce_lr_on_plateau"}
    assert rows()["reduce_lr_on_plateau"] == "lr * Plateau(...)"


@pytest.mark.parametrize("name", FACTORS)
def test_same_rates(name: str) -> None:
    letters: dict[str, Any] = {
        "v": V,
        "W": W,
        "N": N,
        "f": END,
        "p": POWER,
        "c": CYCLES,
        "D": DECAY,
    }
    rise = schedule.Linear(0.0, W, final=V)
    s: Schedule = eval(rows()[name], {**vars(schedule), **letters, "rise": rise})
    assert eval(repr(s), vars(schedule).copy()) == s
    last = N + 50 if name in ("inverse_sqrt", "constant_with_warmup", "linear") else N
    for t in range(last):
        # 1 - x and (c * x) % 1 there, in the place of what is left here, lose digits where that is little
        assert s(t) == pytest.approx(V * FACTORS[name](t), rel=1e-11, abs=1e-13 * V), t
