"""The table of `transformers.get_scheduler`'s names: its formulas, written out, and the schedules that the page gives."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from onepass import schedule

V, W, N, S, D, P, F, M, C = 0.5, 10, 110, 40, 60, 2.0, 0.01, 0.05, 4
PAGE = (Path(__file__).parents[2] / "docs" / "schedules.md").read_text()


def part(t: int) -> float:
    return (t - W) / (N - W)


def half_cosine(x: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * x))


# The factor of the learning rate at step t, from W on (the warm-up before it is one step earlier here).
FORMULAS: dict[str, Callable[[int], float]] = {
    "constant": lambda _: 1.0,
    "constant_with_warmup": lambda _: 1.0,
    "linear": lambda t: max(0.0, (N - t) / (N - W)),
    "cosine": lambda t: half_cosine(part(t)),
    "cosine_with_min_lr": lambda t: half_cosine(part(t)) * (1 - M / V) + M / V,
    "cosine_with_restarts": lambda t: half_cosine((C * part(t)) % 1.0),
    "polynomial": lambda t: ((V - F) * (1 - part(t)) ** P + F) / V,
    "inverse_sqrt": lambda t: 1.0 / math.sqrt(((t - W) + W) / W),
    "warmup_stable_decay": lambda t: (
        1.0 if t < W + S else (1 - M / V) * half_cosine((t - W - S) / D) + M / V
    ),
}


def of_the_page(name: str) -> str:
    found = re.search(rf"^\| `{name}`[^|]*\| `([^`]*)`", PAGE, re.MULTILINE)
    assert found, name
    return found[1]


@pytest.mark.parametrize("name", FORMULAS)
def test_rates(name: str) -> None:
    letters = {"v": V, "W": W, "N": N, "S": S, "D": D, "p": P, "f": F, "m": M, "C": C}
    s = eval(of_the_page(name), {**vars(schedule), **letters})
    for t in range(W, N):
        value = s if isinstance(s, float) else s(t)
        assert value == pytest.approx(V * FORMULAS[name](t), rel=1e-12, abs=1e-15), t


def test_every_name_stands_in_the_table() -> None:
    assert of_the_page("reduce_lr_on_plateau") == "v * Plateau()"
