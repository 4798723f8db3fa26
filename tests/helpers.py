"""What several tests share."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import torch

from tests import reference
from tests.cases import Case

EMULATED = os.environ.get("ONEPASS_TEST_DEVICE") == "emulated"
host_decides = pytest.mark.skipif(
    EMULATED, reason="where a device skips a step, the host learns of it when it asks"
)

Optimizer = Any  # ours are compared with torch's, and both with classes that wrap them


def parameters(
    shapes: Iterable[Sequence[int]], dtype: torch.dtype = torch.float32
) -> list[torch.nn.Parameter]:
    """Return random parameters; the same after the same seed."""
    return [
        torch.nn.Parameter(torch.randn(tuple(shape), dtype=torch.float64).to(dtype))
        for shape in shapes
    ]


def twin(params: Iterable[torch.nn.Parameter]) -> list[torch.nn.Parameter]:
    """Return copies of parameters, without their gradients, laid out as they are."""
    return copy.deepcopy(list(params))


def gradients(*groups: Sequence[torch.nn.Parameter]) -> None:
    """Give parameters random gradients, the same ones to every group."""
    for same in zip(*groups, strict=True):
        grad = torch.randn(same[0].shape, dtype=torch.float64).to(same[0].dtype)
        for p in same:
            p.grad = grad.clone()


ANY_GRADIENT = hasattr(torch.Tensor, "grad_dtype")
"""Whether this torch lets a gradient have another dtype than its parameter: from 2.10."""


def allow_gradients_of(p: torch.Tensor, dtype: torch.dtype) -> None:
    """Let a parameter have gradients of a dtype; skip the test where torch does not."""
    if ANY_GRADIENT:
        p.grad_dtype = dtype
    elif dtype != p.dtype:
        pytest.skip("before torch 2.10 a gradient has its parameter's dtype")


def skip_where_torch_begins_no_state(case: Case) -> None:
    """Skip a test that gives torch's Adagrad a parameter after its constructor, where its step then finds no state."""
    if case.name != "Adagrad":
        return
    p, q = parameters([(1,), (1,)])
    optimizer = torch.optim.Adagrad([p])
    optimizer.add_param_group({"params": [q]})
    q.grad = torch.ones(1)
    try:
        optimizer.step()
    except KeyError:
        pytest.skip("this torch's Adagrad has states of its constructor's parameters only")


def state_of(optimizer: Optimizer, p: torch.Tensor) -> dict[str, Any]:
    """Return a copy of a parameter's state in float64, for `reference.step`."""
    return {
        key: value.detach().to(torch.float64).clone()
        if value.dim() or key != "step"
        else float(value)
        for key, value in optimizer.state.get(p, {}).items()
    }


def expected_step(
    case: Case, optimizer: Optimizer, p: torch.nn.Parameter, **options: Any
) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    """Return what the next step should make of a parameter: value, magnitude of its terms, state; all in float64."""
    assert p.grad is not None
    state = state_of(optimizer, p)
    value, magnitude = reference.step(
        case.name, {**case.hyper, **options}, p.detach().clone(), p.grad.clone(), state
    )
    return value, magnitude, state


def assert_same(
    ours: Optimizer,
    theirs: Optimizer,
    *,
    rtol: float,
    atol: float,
) -> None:
    """Assert that two optimizers hold the same parameters and states (names, shapes, dtypes, values)."""
    for a, b in zip(ours.param_groups, theirs.param_groups, strict=True):
        for i, (p, q) in enumerate(zip(a["params"], b["params"], strict=True)):
            close(p, q, rtol, atol, f"parameter {i}")
            s, t = ours.state.get(p, {}), theirs.state.get(q, {})
            assert set(s) == set(t)
            for key in s:
                close(s[key], t[key], rtol, atol, f"{key} of parameter {i}")


def close(actual: Any, expected: Any, rtol: float, atol: float, what: str) -> None:
    """Assert that two tensors are close, with their name in the message."""
    torch.testing.assert_close(
        actual, expected, rtol=rtol, atol=atol, msg=lambda text: f"{what}: {text}"
    )


def run_python(
    code: str, timeout: float = 300, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter, so that a crash or a hang is a failed test."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


IN_CHILDREN = """
import json, os, signal, sys
import numpy, torch
torch.set_num_threads(1)

def in_child(work, **environment):
    # run work() in a forked child: what it printed, and its exit code (negative: the signal that killed it)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(300)
        os.dup2(write, 1)
        os.environ.update(environment)
        try:
            work()
            code = 0
        except BaseException as error:
            print(type(error).__name__, error)
            code = 1
        sys.stdout.flush()
        os._exit(code)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    return text.strip(), os.waitstatus_to_exitcode(status)

results = {}
"""


def run_in_children(code: str) -> dict[str, Any]:
    """Run code that fills `results` by `in_child(work, **environment)`: torch is imported only once."""
    done = run_python(IN_CHILDREN + code + "\nprint(json.dumps(results))", timeout=900)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
