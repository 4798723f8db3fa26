"""What a chapter of the demo is given, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from onepass.demo.digits import Digits
from onepass.demo.pair import Pair, Training, train_pair

Draw = Callable[[Any], None]
"""Draws on a panel of the picture."""


class Chapter(NamedTuple):
    """What a chapter has found."""

    name: str
    about: str
    """What `Pair.shows` is in this chapter."""
    pairs: list[Pair]
    panels: list[Draw]
    """Of the picture."""
    broken: tuple[str, ...] = ()
    """What onepass promises and did not keep."""


class Stage(NamedTuple):
    """What all chapters train on, and where they show it."""

    console: Console
    seed: int
    fast: bool
    train: Digits
    test: Digits

    def announce(self, name: str, text: str) -> None:
        """Print the heading of a chapter."""
        self.console.print(f"\n[bold]{name}[/bold]: {text}", soft_wrap=True)

    def pair(
        self,
        title: str,
        theirs: Training,
        ours: Training,
        batches: Iterable[Digits],
        steps: int,
        data: tuple[Digits, Digits] | None = None,
    ) -> Pair:
        """Train a pair under a progress bar of its own.

        Args:
            title: Of the pair.
            theirs: The training by torch.optim.
            ours: That by onepass, from the same weights.
            batches: What both train on.
            steps: How many batches there are.
            data: Images to train on and to test with. Default: None, all.
        """
        with _bar(self.console, title, steps) as after_batch:
            data = data or (self.train, self.test)
            return train_pair(title, (theirs, ours), batches, data, after_batch)


@contextmanager
def _bar(console: Console, title: str, steps: int) -> Iterator[Callable[[float, float], None]]:
    """Show a progress bar that ends as one line; where there is no terminal, that line is all."""
    progress = Progress(
        TextColumn("{task.description:<16}"),
        BarColumn(bar_width=8),
        TaskProgressColumn(),
        TextColumn("loss {task.fields[torch]:.3f}|{task.fields[onepass]:.3f}"),
        TimeElapsedColumn(),
        console=console,
    )
    with progress:
        bar = progress.add_task(title, total=steps, torch=0.0, onepass=0.0)
        yield lambda torch, onepass: progress.update(bar, advance=1, torch=torch, onepass=onepass)
