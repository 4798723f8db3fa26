"""What every test may rely on: fixed seeds, its own thread count, a header that says what is tested."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator

import hypothesis
import numpy as np
import pytest
import torch

import onepass
from onepass import _core
from tests.helpers import EMULATED

hypothesis.settings.register_profile(
    "onepass",
    deadline=None,  # no test is timed
    derandomize=True,
    max_examples=60,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "onepass"))

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # as in a shell's background; children would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> list[str]:
    return [
        f"onepass {onepass.__version__} ({onepass.__file__}), instruction set {_core.isa()}",
        f"torch {torch.__version__}, numpy {np.__version__}, {torch.get_num_threads()} threads",
    ]


@pytest.fixture(autouse=True)
def _device() -> Iterator[None]:
    """With ONEPASS_TEST_DEVICE=emulated, run the steps of all tests on the emulated device."""
    if not EMULATED:
        yield
        return
    from tests.cuda.emulation import on_emulated_device

    with on_emulated_device():
        yield


@pytest.fixture(autouse=True)
def _same_start() -> Iterator[None]:
    """Give every test the same random numbers, and give back the thread count it has changed."""
    threads = torch.get_num_threads()
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  (clients' code may use the global generator)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)
