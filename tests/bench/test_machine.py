"""What the machine does for others."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from onepass.bench import machine


class System:
    """A system whose processors have worked for so many hundredths of a second."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.now = self.own = 0.0
        self.file = folder / "stat"
        monkeypatch.setattr(machine, "_TIMES", self.file)
        monkeypatch.setattr(os, "sysconf", lambda _: 100)
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(time, "process_time", lambda: self.own)

    def tell(self, *times: int) -> None:
        """Say how long they did what /proc/stat lists; guests are within the first two."""
        self.file.write_text(f"cpu  {' '.join(map(str, times))}\ncpu0 1 2 3 4 5 6 7 8 9 10\n")


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> System:
    return System(monkeypatch, tmp_path)


def test_work_of_others_is_all_that_is_not_ours(system: System) -> None:
    """10 seconds on two processors: ours took 9 seconds of them, others 3; 8 went by idle or waiting."""
    system.tell(1000, 50, 100, 4000, 10, 1, 2, 3, 500, 50)
    work = machine.OtherWork()
    system.now, system.own = 10.0, 9.0
    system.tell(
        1000 + 1000, 50 + 50, 100 + 100, 4000 + 700, 10 + 100, 1 + 10, 2 + 20, 3 + 20, 800, 90
    )
    assert work.processors() == 0.3


def test_hundredths_do_not_tell_of_shorter_times(system: System) -> None:
    system.tell(*[100] * 10)
    work = machine.OtherWork()
    system.now = 0.09
    system.tell(*[200] * 10)
    assert work.processors() is None


def test_a_system_that_does_not_tell(system: System) -> None:
    work = machine.OtherWork()
    system.now = 10.0
    assert not system.file.exists()
    assert work.processors() is None


def test_here_it_is_a_share_of_the_processors() -> None:
    work = machine.OtherWork()
    time.sleep(0.2)
    others = work.processors()
    assert others is None or 0.0 <= others < 1000.0
