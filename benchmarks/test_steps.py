"""One optimizer step of every case and contestant, under pytest-benchmark.

The roofline of a step is the time of its `limit`: the same bytes of the same tensors, with no arithmetic. Groups hold
what is to be compared. For figures to publish use `onepass bench`, which takes turns within one process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from onepass.bench import checking, contestants, memory
from onepass.bench.cases import OPTIMIZERS, Case
from onepass.bench.contestants import Contestant
from onepass.bench.models import MODELS, OPTIONAL
from onepass.bench.peers import PEERS, NotOffered, installed_peers

MODEL_NAMES = [name for name in MODELS if name not in OPTIONAL]
PEER_NAMES = [peer.name for peer in installed_peers()]

pytestmark = pytest.mark.filterwarnings("ignore")  # of the peers

Benchmark = Callable[[Callable[[], object]], Any]


def _started(case: Case) -> tuple[Contestant, Any]:
    free = memory.available()
    if free is not None and 2.5 * case.memory > free:
        pytest.skip(f"{2.5 * case.memory / 2**30:.0f} GiB of memory needed")
    own, optimizer = contestants.ours(case)
    checking.first_steps(own)
    return own, optimizer


@pytest.fixture(
    params=[f"{model}-{optimizer}" for model in MODEL_NAMES for optimizer in OPTIMIZERS]
)
def case(request: pytest.FixtureRequest, benchmark: Any) -> Case:
    model, optimizer = request.param.split("-", 1)
    case = Case(MODELS[model], OPTIMIZERS[optimizer])
    benchmark.group = f"{case.model.title}, {optimizer}"
    benchmark.extra_info["bytes"] = case.bytes_per_parameter * case.model.parameters
    return case


def test_onepass(case: Case, benchmark: Benchmark) -> None:
    own, _ = _started(case)
    benchmark(own.step)


def test_limit(case: Case, benchmark: Benchmark) -> None:
    own, optimizer = _started(case)
    before = own.parameters[0].detach().clone()
    benchmark(contestants.limit(case, own, optimizer).step)
    assert own.parameters[0].equal(before)


@pytest.mark.parametrize("name", PEER_NAMES)
def test_peer(case: Case, name: str, benchmark: Benchmark) -> None:
    own, _ = _started(case)
    try:
        peer = contestants.theirs(case, PEERS[name])
    except NotOffered as reason:
        pytest.skip(str(reason))
    checking.first_steps(peer)
    apart, allowed = checking.difference(peer, own), checking.tolerance(case, own)
    if name == "deepspeed" and case.configuration.kind == "Adagrad" and apart > allowed:
        pytest.xfail("its scalar code forgets the state of the last elements, up to 15 of a tensor")
    assert apart <= allowed
    del own
    benchmark(peer.step)


def test_floor(benchmark: Benchmark) -> None:
    own, _ = contestants.ours(Case(MODELS["policy"], OPTIMIZERS["SGD"]))
    benchmark(contestants.floor(own).step)
