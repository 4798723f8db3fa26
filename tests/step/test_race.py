"""Other threads, finalizers and signals beside a step: no crash, and a step is applied and counted, or neither."""

from __future__ import annotations

import sys
import textwrap

import pytest

from tests.helpers import EMULATED, run_in_children, run_python

pytestmark = pytest.mark.skipif(EMULATED, reason="about threads and objects of the host")

BESIDE = """
import gc, random, signal, sys, threading, time, weakref
import torch, onepass
torch.set_num_threads(1)
sys.setswitchinterval(1e-5)

def model(kind, shapes, **options):
    params = [torch.nn.Parameter(torch.ones(shape)) for shape in shapes]
    optimizer = kind(params, **options)
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    return params, optimizer

def beside(optimizer, edit, seconds=0.7, pause=0.0):
    # step in this thread while another one edits; errors that a step raises must be clear ones
    done, errors, edits = threading.Event(), [], 0
    def work():
        nonlocal edits
        chance = random.Random(1)
        while not done.is_set():
            edit(chance)
            edits += 1
            time.sleep(pause)
    thread = threading.Thread(target=work)
    thread.start()
    until, steps = time.monotonic() + seconds, 0
    try:
        while time.monotonic() < until:
            try:
                optimizer.step()
                steps += 1
            except RuntimeError as error:
                assert "parameter" in str(error) and "group" in str(error), error
                errors.append(error)
    finally:
        done.set()
        thread.join()
    assert edits > 10 and steps + len(errors) > 2, (edits, steps, errors[:1])
    return steps

kind = onepass.AdamW
"""

# Edits of a model of some large and many small parameters, as bodies of `edit(chance)`.
EDITS = {
    "states are dropped": "optimizer.state.pop(chance.choice(params), None)",
    "states are replaced": """
    own = optimizer.state.get(chance.choice(params))
    if own:
        key = chance.choice(sorted(own))
        own[key] = own[key].clone()""",
    "state dicts are replaced": """
    p = chance.choice(params)
    own = optimizer.state.get(p)
    if own:
        optimizer.state[p] = {key: value.clone() for key, value in dict(own).items()}""",
    # Not dropped: torch lets go of the GIL in the midst of `p.grad = None`, and crashes when it reads .grad itself then.
    "gradients are replaced": "p = chance.choice(params); p.grad = torch.ones_like(p)",
    "parameters get other data": "p = chance.choice(params); p.data = torch.ones_like(p.data)",
    "parameters are exchanged": """
    i = chance.randrange(len(params))
    new = torch.nn.Parameter(torch.ones_like(params[i].data))
    new.grad = torch.ones_like(new)
    its = optimizer.param_groups[0]["params"]
    optimizer.state.pop(params[i], None)
    its[i] = params[i] = new
    del new""",
    "lists are edited": """
    its = optimizer.param_groups[0]["params"]
    its.insert(chance.randrange(len(its)), its.pop(chance.randrange(len(its))))""",
    "groups are replaced": """
    optimizer.param_groups[0] = dict(optimizer.param_groups[0])
    optimizer.param_groups[0]["lr"] = chance.choice([1e-3, 1e-4])""",
    "all states are replaced": """
    import collections
    state = optimizer.state
    optimizer.state = collections.defaultdict(dict, {p: dict(s) for p, s in list(state.items())})""",
}


def run(code: str, **environment: str) -> None:
    done = run_python(BESIDE + code + "\nprint('done')\n", timeout=600, **environment)
    assert (done.returncode, done.stdout.strip()) == (0, "done"), (
        done.returncode,
        done.stdout[-1000:],
        done.stderr[-3000:],
    )


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_another_thread_edits() -> None:
    works = [
        f"""
def work():
    params, optimizer = model(kind, [(500_000,), (300, 1000), *[(16,)] * 30, (400_000,)])
    def edit(chance):
        {textwrap.indent(textwrap.dedent(edit).strip(), " " * 8).strip()}
    beside(optimizer, edit, pause=1e-4)
    for p in params:
        assert bool(p.isfinite().all())
results[{name!r}] = in_child(work)
"""
        for name, edit in EDITS.items()
    ]
    results = run_in_children(BESIDE + "".join(works))
    assert {name: found for name, found in results.items() if found != ["", 0]} == {}


def test_a_state_that_is_replaced_meanwhile_counts_as_replaced_before_or_after() -> None:
    """Steps of 1 from momentum 0: whatever is dropped between, each parameter has moved by a whole step."""
    run("""
params, optimizer = model(onepass.SGD, [(300_000,)] * 4, lr=1.0, momentum=0.5)
def edit(chance):
    optimizer.state.pop(chance.choice(params), None)
beside(optimizer, edit, pause=1e-3)
for p in params:
    assert bool((p == p[0]).all()), "elements of one tensor took different steps"
""")


def test_lr_of_another_thread_is_used_by_the_next_step() -> None:
    """It is read together with what is remembered of it: never stored beside the old number."""
    run("""
params, optimizer = model(onepass.SGD, [(3_000_000,)], lr=1.0)
group = optimizer.param_groups[0]
for trial in range(40):
    optimizer.step(); optimizer.step()
    old, new = (1.0, 2.0) if trial % 2 else (2.0, 1.0)
    group["lr"] = old
    optimizer.step(); optimizer.step()
    started = threading.Event()
    def write():
        started.wait()
        time.sleep(1e-4 * (trial % 10))
        group["lr"] = new
    thread = threading.Thread(target=write)
    thread.start()
    group["note"] = trial      # so that the step does not repeat, and remembers anew
    started.set()
    optimizer.step()
    thread.join()
    before = params[0][0].item()
    optimizer.step()
    moved = before - params[0][0].item()
    assert moved == new, (trial, moved, new)
""")


def test_gradient_is_a_property() -> None:
    """Reading it runs Python, which may edit whatever the step holds."""
    run("""
class Lazy(torch.nn.Parameter):
    @property
    def grad(self):
        for q in params[1:]:
            if self.chance.random() < 0.3:
                state.pop(q, None)
        if self.chance.random() < 0.3:
            group["params"].append(group["params"].pop(0))
        gc.collect(0)
        return self.own
    @grad.setter
    def grad(self, value):
        self.own = value
Lazy.chance = random.Random(3)
params = [torch.nn.Parameter(torch.ones(50)) for _ in range(8)]
for p in params:
    p.grad = torch.ones_like(p)
optimizer = kind(params)
group, state = optimizer.param_groups[0], optimizer.state
optimizer.step(); optimizer.step()
lazy = Lazy(torch.ones(50))
lazy.own = torch.ones(50)
group["params"].insert(0, lazy)
for _ in range(2000):
    try:
        optimizer.step()
    except (RuntimeError, IndexError) as error:
        assert "parameter" in str(error) or "changed" in str(error), error
for p in params:
    assert bool(p.isfinite().all())
""")


def test_hashing_runs_python() -> None:
    run("""
class Key(str):
    def __hash__(self):
        act()
        return str.__hash__(self)
    def __eq__(self, other):
        act()
        return str.__eq__(self, other)
class Hashed(torch.nn.Parameter):
    def __hash__(self):
        act()
        return id(self)
chance, ready = random.Random(5), False
def act():
    if ready and chance.random() < 0.2:
        p = chance.choice(params)
        if p in plain:
            state.pop(p, None)
plain = [torch.nn.Parameter(torch.ones(40)) for _ in range(6)]
plain = dict.fromkeys(plain)
params = [Hashed(torch.ones(40)) for _ in range(3)] + list(plain)
optimizer = kind(params)
state = optimizer.state
for p in params:
    p.grad = torch.ones_like(p)
optimizer.step()
for p in params:
    state[p] = {Key(key): value for key, value in state[p].items()}
ready = True
for _ in range(2000):
    try:
        optimizer.step()
    except RuntimeError as error:
        assert "parameter" in str(error) or "changed" in str(error), error
""")


def test_finalizers_edit_lists() -> None:
    """What a step lets go of may be the last of its kind, and its finalizer may do anything."""
    run("""
params, optimizer = model(kind, [(60,)] * 10)
group, state = optimizer.param_groups[0], optimizer.state
chance = random.Random(7)
class Cycle:
    def __init__(self, p):
        self.own, self.p = self, p
    def __del__(self):
        state.pop(self.p, None)
        group["params"].reverse()
        group["params"].append(group["params"].pop(0))
gc.set_threshold(5, 2, 2)
for turn in range(3000):
    p = chance.choice(params)
    Cycle(p)
    own = state.get(p)
    if own:
        key = chance.choice(sorted(own))
        weakref.finalize(own[key], group["params"].reverse)
        own[key] = own[key].clone()
    q = chance.choice(params)
    q.grad = None if turn % 3 else torch.ones_like(q)
    try:
        optimizer.step()
    except RuntimeError as error:
        assert "parameter" in str(error) and "group" in str(error), error
for p in params:
    assert bool(p.isfinite().all())
""")


INTERRUPTED = """
for options in [{}, {"max_grad_norm": 1e9}, {"ema_decay": 0.5}, {"train_from": 1}]:
    for shapes in [[(500_000,)], [(8,)] * 30, [(200_000,), *[(8,)] * 30]]:
        params = [torch.nn.Parameter(torch.zeros(shape)) for shape in shapes]
        optimizer = onepass.SGD(params, lr=1.0, momentum=0.0, **options)
        for p in params:
            p.grad = torch.full_like(p, -1.0)
        waiting = options.get("train_from", 0)
        chance, interrupts, until = random.Random(2), 0, time.monotonic() + 0.5
        while time.monotonic() < until:
            try:
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, 2e-3))
                for k in range(50):
                    optimizer.step()
                    optimizer.param_groups[0]["note"] = k if chance.random() < 0.3 else 0
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupts += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            counted = optimizer.report.steps_applied
            moved = {float(x) for p in params for x in p.detach().aminmax()}
            assert moved == {float(max(0, counted - waiting))}, (options, shapes[:1], counted, moved)
        assert interrupts > 10, interrupts
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs setitimer")
def test_keyboard_interrupt() -> None:
    """A step that is interrupted has either been applied and counted, or neither."""
    run("signal.signal(signal.SIGALRM, signal.default_int_handler)" + INTERRUPTED)
