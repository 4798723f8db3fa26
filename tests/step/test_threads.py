"""Threads and processes: torch's settings hold, and nothing hangs."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from onepass import _core
from onepass.reader import make_reader
from tests import cases, tolerances
from tests.cases import Case
from tests.helpers import assert_same, parameters, run_python, twin

LARGE = 200_000  # elements: enough for several threads


def test_set_num_threads_is_obeyed() -> None:
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        assert _core.available_threads() == threads


THREADS_OF_A_STEP = """
import os, torch, onepass
torch.set_num_threads({threads})
p = torch.nn.Parameter(torch.zeros(1_000_000))
p.grad = torch.ones(1_000_000).mul_(1)
before = len(os.listdir("/proc/self/task"))
onepass.Adam([p]).step()
print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_one_thread_starts_none() -> None:
    done = run_python(THREADS_OF_A_STEP.format(threads=1))
    assert (done.returncode, done.stdout.strip()) == (0, "0"), done.stderr


def test_set_num_threads_holds_in_other_threads() -> None:
    """Torch's setting is the process's: a thread that is started later must obey it, too."""
    torch.set_num_threads(1)
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(_core.available_threads()))
    thread.start()
    thread.join()
    assert seen == [1]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_one_openmp_runtime() -> None:
    cases.BY_ID["sgd"].ours(parameters([(3,)])).step()
    mapped = {
        line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/" in line
    }
    runtimes = {
        Path(name).resolve()
        for name in mapped
        if any(part in Path(name).name for part in ("libgomp", "libomp", "libiomp"))
    }
    # scikit-learn and other guests bring their own; ours and torch's must be one
    owner = Path(_core.openmp_runtime()).resolve()
    assert owner in runtimes
    assert owner.is_relative_to(Path(torch.__file__).parent) or len(runtimes) == 1


def test_one_openmp_runtime_in_a_fresh_process() -> None:
    done = run_python(
        "import onepass, re\n"
        "names = set(re.findall(r'\\S*lib(?:g|i)?omp\\S*', open('/proc/self/maps').read()))\n"
        "print(len(names), sorted(names))"
    )
    assert done.stdout.startswith("1 "), done.stdout + done.stderr


@cases.classes
def test_two_optimizers_in_two_threads(case: Case) -> None:
    results: dict[int, list[torch.Tensor]] = {}
    start = [[torch.randn(LARGE), torch.randn(30)] for _ in range(2)]
    grads = [[[torch.randn_like(x) for x in own] for _ in range(4)] for own in start]

    def train(i: int) -> None:
        params = [torch.nn.Parameter(x.clone()) for x in start[i]]
        optimizer = case.ours(params)
        for step in grads[i]:
            for p, g in zip(params, step, strict=True):
                p.grad = g.clone()
            optimizer.step()
        results[i] = [p.detach() for p in params]

    threads = [threading.Thread(target=train, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    parallel = dict(results)
    for i in range(2):
        train(i)
        for a, b in zip(parallel[i], results[i], strict=True):
            tolerances.exact(a, b)


MANY_THREADS = """
import sys, threading
import torch, onepass
from onepass.cli import info

sys.setswitchinterval(1e-6)
torch.set_num_threads(1)
failures = []
def train(i):
    try:
        params = [torch.nn.Parameter(torch.zeros(*[1 + i] * (1 + (k + i) % 6), 1)) for k in range(60)]
        optimizer = onepass.SGD(params, lr=1.0, momentum=0.5)
        for p in params:
            p.grad = torch.ones_like(p)
        for step in range(500):
            optimizer.step()
            if step % 50 == i:  # its place is found anew
                optimizer.state[params[i]] = dict(optimizer.state[params[i]])
        buffer = weight = 0.0
        for step in range(500):
            buffer = 0.5 * buffer + 1.0
            weight -= buffer
        assert all(bool((p == weight).all()) for p in params), "wrong result"
    except Exception as error:
        failures.append(repr(error))
threads = [threading.Thread(target=train, args=(i,)) for i in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(failures, info()["tensors read through"])
"""


@pytest.mark.parametrize(
    ("way", "name"), [("native", "libtorch"), ("functions", "libtorch"), ("dlpack", "DLPack")]
)
def test_many_switches_between_threads(way: str, name: str) -> None:
    """Reading tensors must survive that another thread steps in between, in each way of reading."""
    if make_reader(way=way).way != way:
        pytest.skip("this torch has no DLPack exchange table")
    done = run_python(MANY_THREADS, ONEPASS_READER=way)
    assert done.returncode == 0, done.stderr[-2000:]
    failures, used = done.stdout.strip().split(maxsplit=1)
    assert failures == "[]"
    assert name in used


@cases.classes
def test_other_threads_run_during_a_large_step(case: Case) -> None:
    """Two threads that step the same shared parameters: Hogwild. Every step takes part."""
    (p,) = parameters([(LARGE,)])
    optimizers = [case.ours([q]) for q in (p, torch.nn.Parameter(p.detach()))]
    assert optimizers[0].param_groups[0]["params"][0].data_ptr() == p.data_ptr()
    for optimizer in optimizers:
        optimizer.param_groups[0]["params"][0].grad = torch.ones(LARGE)
    threads = [threading.Thread(target=optimizer.step) for optimizer in optimizers]
    before = p.detach().clone()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bool((p.detach() != before).all())
    assert bool(p.isfinite().all())


@pytest.mark.parametrize("threads", [1, 2])
def test_parameters_that_share_memory(threads: int) -> None:
    """Weights tied by `a.data = b.data`: torch updates them one after the other, for each of their gradients.

    Two threads that each take one of such parameters lose updates.
    """
    torch.set_num_threads(threads)
    for _ in range(5):
        tied = [torch.zeros(8192) for _ in range(8)]
        params = [torch.nn.Parameter(x) for x in tied for _ in range(2)]
        assert params[0].data_ptr() == params[1].data_ptr()
        for p in params:
            p.grad = torch.full((8192,), -1.0)
        optimizer = cases.BY_ID["sgd"].ours(params, lr=1.0)
        for _ in range(100):
            optimizer.step()
        for x in tied:
            assert bool((x == 200).all())


FORK = """
import os, signal, sys
import numpy, torch, onepass

torch.set_num_threads(2)
def new(kind):  # torch's own operations on large tensors hang in a forked child, so NumPy makes the tensors
    p = torch.nn.Parameter(torch.from_numpy(numpy.zeros(400_000, "float32")))
    p.grad = torch.from_numpy(numpy.ones(400_000, "float32"))
    return p, kind([p], lr=0.5)
def numbers(p):
    return p.detach().numpy().copy()
kind = onepass.{kind}
p, optimizer = new(kind)
optimizer.step()
once = numbers(p)
child = os.fork()
if child == 0:
    signal.alarm(60)  # ends a child that hangs
    q, other = new(kind) if {fresh} else (p, optimizer)
    other.step()
    same = (numbers(q) == once).all() if {fresh} else not (numbers(q) == once).any()
    os._exit(0 if same else 3)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status))
optimizer.step()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
@pytest.mark.parametrize(
    ("name", "fresh"),
    [("SGD", True), ("Adam", False), ("Adam", True)],
    ids=["no state", "old state", "new state"],
)
def test_fork_after_a_large_step(name: str, fresh: bool) -> None:
    """Libgomp's threads do not exist in a forked child: neither the step nor making its state may wait for them."""
    done = run_python(FORK.format(kind=name, fresh=fresh), timeout=300)
    assert (done.returncode, done.stdout.strip()) == (0, "0"), done.stderr


def _train_shared(optimizer: Any, steps: int) -> None:
    torch.set_num_threads(1)
    params = optimizer.param_groups[0]["params"]
    for _ in range(steps):
        for p in params:
            p.grad = torch.ones_like(p)
        optimizer.step()


def test_spawned_process_updates_shared_memory() -> None:
    """Hogwild: pickling to another process moves weights and state into shared memory; both go on with them."""
    case = cases.BY_ID["adam"]
    ours = parameters([(5,), (70,)])
    theirs = twin(ours)
    optimizer, torchs = case.ours(ours), case.torchs(theirs)
    _train_shared(optimizer, 1)
    context = torch.multiprocessing.get_context("spawn")
    process = context.Process(target=_train_shared, args=(optimizer, 3))
    process.start()
    process.join(120)
    assert process.exitcode == 0
    assert ours[0].untyped_storage().is_shared()
    _train_shared(optimizer, 2)
    for _ in range(6):
        for q in theirs:
            q.grad = torch.ones_like(q)
        torchs.step()
    assert_same(optimizer, torchs, **tolerances.accumulated(6))


def test_step_inside_a_data_loader_worker() -> None:
    """A worker process that trains a small model of its own."""
    done = run_python(WORKER, timeout=300)
    assert (done.returncode, done.stdout.strip()) == (0, "done"), done.stderr


WORKER = """
import torch, onepass
p = torch.nn.Parameter(torch.zeros(400_000))
p.grad = torch.ones(400_000)
onepass.AdamW([p]).step()
class Data(torch.utils.data.Dataset):
    def __len__(self): return 4
    def __getitem__(self, i):
        q = torch.nn.Parameter(torch.zeros(100_000))
        q.grad = torch.ones(100_000)
        onepass.AdamW([q]).step()
        return q.detach()[:3]
for batch in torch.utils.data.DataLoader(Data(), num_workers=1, multiprocessing_context="fork", timeout=200):
    assert bool((batch < 0).all())
print("done")
"""
