"""The extension for CUDA where it was built: what it needs, and that nothing needs it."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from onepass.device import extension
from tests.helpers import run_python
from tests.package.test_build import tool


@pytest.fixture
def module() -> Any:
    found = extension.cuda_module()
    if found is None:
        pytest.skip("built without CUDA")
    return found


def test_it_links_neither_torch_nor_cuda(module: Any) -> None:
    """The runtime is linked in; the driver is looked for when it is used."""
    lines = tool("readelf", "-d", module.__file__).splitlines()
    needed = [line.split("[")[1].rstrip("]") for line in lines if "NEEDED" in line]
    allowed = (
        "libstdc++",
        "libm.",
        "libgcc_s",
        "libc.",
        "libpthread",
        "librt",
        "libdl",
        "ld-linux",
    )
    assert all(name.startswith(allowed) for name in needed), needed


def test_it_exports_its_module_only(module: Any) -> None:
    lines = tool("nm", "-D", "-C", "--defined-only", module.__file__).splitlines()
    symbols = [line.split(maxsplit=2)[1:] for line in lines]
    assert [name for kind, name in symbols if kind not in "WVu"] == ["PyInit__cuda"]
    assert not [name for _, name in symbols if "onepass::" in name]


def test_without_a_driver_there_is_no_extension(module: Any) -> None:
    if module.driver_problem():
        assert extension.cuda() is None
    else:
        assert extension.cuda() is not None


def test_import_and_steps_without_it() -> None:
    """It is loaded when a CUDA parameter is first met, and may be missing."""
    done = run_python(
        "import sys; sys.modules['onepass._cuda'] = None\n"
        "import torch, onepass\n"
        "p = torch.nn.Parameter(torch.ones(3)); p.grad = torch.ones(3)\n"
        "onepass.SGD([p], lr=0.5).step(); print(p.tolist())\n"
        "from onepass.device import extension; print(extension.cuda())\n"
    )
    assert done.stdout.split("\n")[:2] == ["[0.5, 0.5, 0.5]", "None"], done.stderr


def test_steps_on_the_cpu_do_not_load_it() -> None:
    done = run_python(
        "import sys, torch, onepass\n"
        "p = torch.nn.Parameter(torch.ones(3)); p.grad = torch.ones(3)\n"
        "onepass.Adam([p]).step(); print('onepass._cuda' in sys.modules)\n"
    )
    assert done.stdout.strip() == "False", done.stderr
    assert sys.modules["onepass"] is not None
