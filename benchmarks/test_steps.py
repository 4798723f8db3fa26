"""One optimizer step of every case and contestant, under pytest-benchmark.

The roofline of a step is the time of its `limit`: the same bytes of the same tensors, with no arithmetic. Groups hold
what is to be compared. For figures to publish use `onepass bench`, which takes turns within one process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from onepass.bench import checking, contestants, memory
from onepass.bench.cases import OPTIMIZERS, OPTIONS, Case
from onepass.bench.contestants import Contestant
from onepass.bench.models import MODELS
from onepass.bench.peers import PEERS, NotOffered, installed_peers
from onepass_cli.bench import OPTIONAL

MODEL_NAMES = [name for name in MODELS if name not in OPTIONAL]
PEER_NAMES = [peer.name for peer in installed_peers()]
CONFIGURATIONS = {**OPTIMIZERS, **OPTIONS}

pytestmark = pytest.mark.filterwarnings("ignore")  # of the peers

Benchmark = Callable[[Callable[[], object]], Any]


def _started(case: Case) -> tuple[Contestant, Any]:
    free = memory.available()
    if free is not None and 2.5 * case.memory > free:
        pytest.skip(f"{2.5 * case.memory / 2**30:.0f} GiB of memory needed")
    own, optimizer = contestants.ours(case)
    checking.first_steps(case, own)
    return own, optimizer


def _check(case: Case, contestant: Contestant, own: Contestant) -> checking.Apart:
    checking.first_steps(case, contestant)
    return checking.difference(contestant, own, checking.tolerance(case, own))


@pytest.fixture(params=[f"{model}-{name}" for model in MODEL_NAMES for name in CONFIGURATIONS])
def case(request: pytest.FixtureRequest, benchmark: Any) -> Case:
    model, name = request.param.split("-", 1)
    configuration = CONFIGURATIONS[name]
    case = Case(MODELS[model], configuration, configuration.dtype(torch.float32))
    benchmark.group = f"{case.model.title}, {configuration.name}"
    benchmark.extra_info["bytes"] = case.bytes_per_parameter * case.model.parameters
    return case


def test_onepass(case: Case, benchmark: Benchmark) -> None:
    own, _ = _started(case)
    benchmark(own.step)


def test_limit(case: Case, benchmark: Benchmark) -> None:
    own, optimizer = _started(case)
    before = own.parameters[0].detach().clone()
    try:
        limit = contestants.limit(case, own, optimizer)
    except NotOffered as reason:
        pytest.skip(str(reason))
    benchmark(limit.step)
    assert own.parameters[0].equal(before)


def test_float32(case: Case, benchmark: Benchmark) -> None:
    if not case.configuration.reduced:
        pytest.skip("this is float32")
    own, _ = _started(case)
    plain = contestants.in_float32(case)
    assert not _check(case, plain, own).too_far
    del own
    benchmark(plain.step)


@pytest.mark.parametrize("name", PEER_NAMES)
def test_peer(case: Case, name: str, benchmark: Benchmark) -> None:
    own, _ = _started(case)
    try:
        peer = contestants.theirs(case, PEERS[name])
    except NotOffered as reason:
        pytest.skip(str(reason))
    apart = _check(case, peer, own)
    if name == "deepspeed" and case.configuration.kind == "Adagrad" and apart.too_far:
        pytest.xfail("its scalar code forgets the state of the last elements, up to 15 of a tensor")
    huge = case.model.name == "tensor64m"
    if huge and case.configuration is OPTIONS["everything"] and apart.too_far:
        pytest.xfail("torch's norm is a sum in float32, which loses digits over one huge tensor")
    assert not apart.too_far, apart
    del own
    benchmark(peer.step)


def test_floor(benchmark: Benchmark) -> None:
    own, _ = contestants.ours(Case(MODELS["policy"], OPTIMIZERS["SGD"]))
    benchmark(contestants.floor(own).step)
