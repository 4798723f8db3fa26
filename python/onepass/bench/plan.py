"""What a measurement consists of."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from onepass.bench.cases import Case, Configuration
from onepass.bench.models import Model
from onepass.bench.peers import Peer


@dataclass(frozen=True)
class Plan:
    """What to measure, and how."""

    models: list[Model]
    optimizers: list[Configuration]
    peers: list[Peer]
    dtypes: list[torch.dtype]
    threads: list[int]
    rounds: int = 15
    turn: float = 0.01
    deadline: float | None = None
    """When `time.perf_counter` shows this, nothing begins any more."""
    command: str = ""
    device: str = "cpu"
    apart: bool = False
    """Whether each case has a process of its own, whose memory no other case has cut into pieces. Peers are those of
    `PEERS` then, and `deadline` is ignored."""

    def cases(self) -> list[tuple[Case, int]]:
        """Return every case with its number of threads; what is for other dtypes only is measured with one of those."""
        found: dict[tuple[str, str, torch.dtype, int], Case] = {}
        for wanted in self.dtypes:
            for threads in self.threads:
                for model in self.models:
                    for configuration in self.optimizers:
                        dtype = configuration.dtype(wanted)
                        key = (model.name, configuration.name, dtype, threads)
                        found.setdefault(key, Case(model, configuration, dtype, self.device))
        return [(case, threads) for (*_, threads), case in found.items()]
