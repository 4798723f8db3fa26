"""The chapters of the demo, each against what can be known without it."""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Iterable, Iterator
from itertools import combinations, islice
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from rich.console import Console
from torch import Tensor

import onepass
from onepass import demo
from onepass.demo import augmentation, digits, picture
from onepass.demo.chapter import Chapter, Stage
from onepass.demo.digits import Digits
from onepass.demo.optimizers import side
from onepass.demo.pair import Outcome, Pair, Training, train_pair


class Watch(Stage):
    """A stage that keeps the trainings, and the weights before and after every step."""

    kept: ClassVar[dict[str, tuple[Training, Training]]]
    states: ClassVar[dict[str, list[tuple[dict[str, Tensor], dict[str, Tensor]]]]]

    def pair(
        self,
        title: str,
        theirs: Training,
        ours: Training,
        batches: Iterable[Digits],
        steps: int,
        data: tuple[Digits, Digits] | None = None,
    ) -> Pair:
        def look() -> None:
            self.states[title].append(
                (copy.deepcopy(theirs.model.state_dict()), copy.deepcopy(ours.model.state_dict()))
            )

        def watched() -> Iterator[Digits]:
            for batch in batches:
                look()
                yield batch
            look()

        self.kept[title] = (theirs, ours)
        self.states[title] = []
        pair = super().pair(title, theirs, ours, watched(), steps, data)
        assert len(self.states[title]) == steps + 1  # the bar is full
        return pair


@pytest.fixture
def stage() -> Watch:
    torch.set_num_threads(1)  # conftest.py gives them back
    Watch.kept, Watch.states = {}, {}
    return Watch(Console(quiet=True), 0, True, *digits.load(0))


@pytest.fixture(scope="module")
def trained() -> list[Chapter]:
    """Return all chapters."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    stage = Stage(Console(quiet=True), 0, True, *digits.load(0))
    chapters = [train(stage) for train in demo.CHAPTERS.values()]
    torch.set_num_threads(threads)
    return chapters


def test_one_seed_gives_one_result() -> None:
    torch.set_num_threads(1)

    def outcome(seed: int) -> tuple[Outcome, float]:
        data = digits.load(seed)
        sides = tuple(side(library, "MLP", "AdamW", seed) for library in (torch.optim, onepass))
        batches = islice(data[0].batches(64, 1, seed), 10)
        pair = train_pair("MLP", sides, batches, data, lambda *_: None)  # type: ignore[arg-type]
        return pair.onepass._replace(seconds=1.0, step_seconds=0.0), pair.difference

    assert outcome(3) == outcome(3)
    assert outcome(3) != outcome(4)


def test_the_split_keeps_every_image_once() -> None:
    train, test = digits.load(0)
    assert len(train.labels) + len(test.labels) == 1797
    assert len(torch.unique(torch.cat([train.images, test.images]), dim=0)) == 1797


def test_schedule(stage: Watch) -> None:
    """Both libraries follow the formulas, and one another."""
    chapter = demo.CHAPTERS["schedule"](stage)
    steps, warmup = 132, 13
    cosine = [(1 + math.cos(math.pi * t / (steps - warmup))) / 2 for t in range(steps - warmup)]
    expected = {
        "constant": [1.0] * steps,
        "exponential": [0.01 ** (t / steps) for t in range(steps)],
        "warm-up, cosine": [(t + 1) / warmup for t in range(warmup)] + cosine,
    }
    assert [pair.title for pair in chapter.pairs] == list(expected)
    for pair in chapter.pairs:
        for outcome in (pair.torch, pair.onepass):
            assert outcome.rates[0] == pytest.approx([0.003 * f for f in expected[pair.title]])
        assert pair.torch.losses == pytest.approx(pair.onepass.losses, abs=1e-3)
        theirs, ours = (side.model.parameters() for side in stage.kept[pair.title])
        apart = max((p - q).abs().max().item() for p, q in zip(theirs, ours, strict=True))
        assert 0 < apart < 1e-3
        assert pair.shows.startswith(f"{apart:.0e}, ")
    assert demo.verdict([chapter]) == 0


def test_l1_l2(stage: Watch) -> None:
    chapter = demo.CHAPTERS["l1-l2"](stage)
    zeros, sums = {}, {}
    for pair in chapter.pairs:
        layers = [[side.model[i].weight for i in (1, 3, 5)] for side in stage.kept[pair.title]]
        zeros[pair.title] = [w[0].numel() - int(torch.count_nonzero(w[0])) for w in layers]
        sums[pair.title] = [sum(x.square().sum().item() for x in w[1:]) for w in layers]
        assert all(torch.count_nonzero(x) == x.numel() for w in layers for x in w[1:])
        assert pair.shows == "|".join(f"{n / layers[0][0].numel():.1%}" for n in zeros[pair.title])
    assert zeros["neither"] == zeros["L1 as gradient"] == [0, 0]
    assert zeros["L1 proximal"][0] == 0
    assert zeros["L1 proximal"][1] > 500
    for theirs, ours in sums.values():
        assert ours == pytest.approx(theirs, rel=1e-3)
    assert sums["L1 as gradient"][1] < 0.99 * sums["neither"][1]  # L2 shrinks the other layers
    assert [pair.comparable for pair in chapter.pairs] == [True, True, False]


def test_augmentation(stage: Watch) -> None:
    chapter = demo.CHAPTERS["augmentation"](stage)
    without, with_ = chapter.pairs
    gains = (
        with_.torch.accuracy - without.torch.accuracy,
        with_.onepass.accuracy - without.onepass.accuracy,
    )
    assert with_.shows == "|".join(f"{gain:+.2%}" for gain in gains)
    assert with_.onepass.final_loss > without.onepass.final_loss  # it is harder to learn by heart


def test_augmented_batches_are_the_same_images_warped() -> None:
    train = digits.load(0)[0].first(10)
    given = list(train.batches(augmentation.BATCH, 2, 0))
    warped, again = (list(augmentation.warped(train, 2, 0)) for _ in range(2))
    assert len(given) == len(warped) == 10
    for plain, batch, same in zip(given, warped, again, strict=True):
        assert torch.equal(plain.labels, batch.labels)
        assert torch.equal(batch.images, same.images)
        moved = (batch.images - plain.images).abs().flatten(1).amax(1)
        assert moved.min() > 0.01
        assert batch.images.mean() == pytest.approx(plain.images.mean().item(), rel=0.2)


def test_transfer(stage: Watch) -> None:
    chapter = demo.CHAPTERS["transfer"](stage)
    base = [name for name in stage.states["0 to 4"][0][0] if not name.startswith("7.")]
    assert len(base) == 12
    for library in (0, 1):
        # the base goes on from the digits 0 to 4, and is bit-equal in every step while it is frozen
        learned = stage.states["0 to 4"][-1][library]
        frozen = [state[library] for state in stage.states["base frozen"]]
        for state in frozen:
            assert all(torch.equal(state[name], learned[name]) for name in base)
        assert not torch.equal(frozen[-1]["7.weight"], frozen[0]["7.weight"])
        # then each layer waits for its step
        states = [state[library] for state in stage.states["unfrozen"]]
        assert all(torch.equal(states[0][name], learned[name]) for name in base)
        for name, first in (("0.weight", 44), ("1.bias", 44), ("3.weight", 22), ("7.weight", 0)):
            assert torch.equal(states[0][name], states[first][name])
            assert not torch.equal(states[0][name], states[first + 1][name])
    *_, frozen_pair, unfrozen = chapter.pairs
    assert frozen_pair.shows == "0|0"
    numbers = sum(learned[name].numel() for name in base)
    assert all(0.99 * numbers < int(n) <= numbers for n in unfrozen.shows.split("|"))
    for theirs, ours in (frozen_pair[1:3], unfrozen[1:3]):
        assert theirs.losses == pytest.approx(ours.losses, abs=1e-3)
    top, middle, bottom = (unfrozen.onepass.rates[i][0] for i in (2, 1, 0))
    assert (top, middle, bottom) == (0.002, 0.001, 0.0005)


def test_a_wrong_update_is_noticed(stage: Watch) -> None:
    class Tenth(onepass.Adam):
        def step(self, *args: Any, **kwargs: Any) -> Any:
            for group in self.param_groups:
                group["lr"] = 0.0003
            return super().step(*args, **kwargs)

    theirs = side(torch.optim, "MLP", "Adam", 0)
    model = side(onepass, "MLP", "Adam", 0).model
    wrong = Training(model, Tenth(model.parameters()))
    pair = stage.pair("MLP Adam", theirs, wrong, stage.train.batches(64, 2, 0), 44)
    assert demo.verdict([Chapter("optimizers", "", [pair], [])]) == 1


@pytest.mark.parametrize(
    ("name", "attribute", "value", "message"),
    [
        (
            "schedule",
            "scheduler",
            lambda *_: None,
            "the learning rates of exponential are 3e-03 apart",
        ),
        ("l1-l2", "L1", 0.0, "proximal L1 has left no exact zeros"),
        ("transfer", "freeze", lambda model, _: model, "the frozen base has moved"),
    ],
)
def test_broken_promises_are_a_failure(
    name: str,
    attribute: str,
    value: Any,
    message: str,
    stage: Watch,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = importlib.import_module(f"onepass.demo.{name.replace('-', '_')}")
    monkeypatch.setattr(module, attribute, value)
    assert demo.verdict([demo.CHAPTERS[name](stage)]) == 1
    assert f"onepass demo: {name}: {message}" in capsys.readouterr().err


@pytest.mark.parametrize("delay", [0.0, 100.0])
@pytest.mark.parametrize("shown", [slice(0, 5), slice(3, 5), slice(2, 3)])
def test_no_text_in_the_picture_is_cut_off_or_overprinted(
    shown: slice,
    delay: float,
    trained: list[Chapter],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor where something else has held up the training by onepass for so many seconds."""
    seen = []

    def look(figure: Any, *_: Any, **__: Any) -> None:
        figure.draw_without_rendering()
        beyond = {label for panel in figure.axes for label in _hidden_tick_labels(panel)}
        texts = [text for text in figure.findobj(Text) if text.get_visible() and text not in beyond]
        boxes = {
            (text.get_text(), i): text.get_window_extent()
            for i, text in enumerate(texts)
            if text.get_text()
        }
        seen.append((figure.bbox, boxes))

    monkeypatch.setattr(Figure, "savefig", look)
    *others, last = trained[shown]
    late = [
        p._replace(onepass=p.onepass._replace(seconds=p.onepass.seconds + delay))
        for p in last.pairs
    ]
    picture.save([*others, last._replace(pairs=late)], tmp_path / "x.png")
    ((whole, boxes),) = seen
    for name, box in boxes.items():
        assert whole.x0 <= box.x0 <= box.x1 <= whole.x1, name
        assert whole.y0 <= box.y0 <= box.y1 <= whole.y1, name
    for (name, box), (other, another) in combinations(boxes.items(), 2):
        assert not box.overlaps(another), (name, other)


def _hidden_tick_labels(panel: Any) -> Iterator[Text]:
    """Yield those of ticks beyond the limits, which matplotlib makes but does not draw."""
    for axis in (panel.xaxis, panel.yaxis):
        low, high = sorted(axis.get_view_interval())
        for minor in (False, True):
            places = axis.get_ticklocs(minor=minor)
            labels = axis.get_ticklabels(minor=minor)
            yield from (
                label
                for place, label in zip(places, labels, strict=True)
                if not low <= place <= high
            )
