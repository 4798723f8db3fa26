"""What was built: what the extension exports and needs, and how it chooses an instruction set."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import onepass
from onepass import _core
from tests.helpers import run_in_children


def tool(name: str, *arguments: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"no {name}")
    return subprocess.run([path, *arguments], capture_output=True, text=True, check=True).stdout


def test_extension_exports_its_module_only() -> None:
    """A visible symbol could be taken over by, or take over, one of another library.

    Compilers leave weak copies of the standard library's templates and type names visible; those are alike anywhere.
    """
    lines = tool("nm", "-D", "-C", "--defined-only", _core.__file__).splitlines()
    symbols = [line.split(maxsplit=2)[1:] for line in lines]
    assert [name for kind, name in symbols if kind not in "WVu"] == ["PyInit__core"]
    assert not [name for _, name in symbols if "onepass::" in name]


def test_extension_links_no_torch() -> None:
    needed = [
        line for line in tool("readelf", "-d", _core.__file__).splitlines() if "NEEDED" in line
    ]
    libraries = {line.split("[")[1].rstrip("]") for line in needed}
    assert not [name for name in libraries if "torch" in name or "c10" in name or "python" in name]
    assert "libgomp.so.1" in libraries
    allowed = ("libgomp", "libstdc++", "libm.", "libgcc_s", "libc.", "libpthread", "ld-linux")
    assert all(name.startswith(allowed) for name in libraries)


def kernel_objects(folder: Path) -> dict[str, Path]:
    """Compile the kernels as the build does, one object per instruction set."""
    source = Path(__file__).parent.parent / "csrc" / "cpu" / "update.cpp"
    compiler = shutil.which("g++")
    if compiler is None or not source.exists():
        pytest.skip("no g++, or no source beside the tests")
    flags = {
        "portable": [],
        "v3": ["-march=x86-64-v3"],
        "v4": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
    }
    objects = {}
    for isa, own in flags.items():
        if isa != "portable" and isa not in _core.isas():
            continue
        objects[isa] = folder / f"{isa}.o"
        command = [
            compiler,
            "-std=c++20",
            "-O1",
            "-fPIC",
            "-fvisibility=hidden",
            "-ffp-contract=off",
            f"-I{source.parent.parent}",
            *own,
        ]
        subprocess.run(
            [*command, f"-DONEPASS_ISA={isa}", "-c", str(source), "-o", str(objects[isa])],
            check=True,
        )
    return objects


def test_kernels_leak_no_code_of_their_instruction_set(tmp_path: Path) -> None:
    """A weak symbol (an inline function, a template) of the AVX-512 object could be linked into the baseline."""
    for isa, path in kernel_objects(tmp_path).items():
        symbols = [line.split() for line in tool("nm", "--defined-only", str(path)).splitlines()]
        shared = [s[-1] for s in symbols if (s[-2].isupper() and s[-2] != "N") or s[-2] in "vwu"]
        assert len(shared) == 1, shared
        assert f"update_{isa}" in shared[0]


@pytest.mark.skipif("v3" not in _core.isas(), reason="another processor's instructions")
def test_kernels_ask_for_memory_ahead() -> None:
    """A step is up to 10 % slower without: gcc 12 leaves out calls of functions that only prefetch."""
    code = tool("objdump", "-d", "--no-show-raw-insn", _core.__file__)
    sweeps = len(_core.specs()) * len(_core.isas())  # and more: of each combination of dtypes
    assert code.count("prefetch") > 2 * sweeps


def test_version() -> None:
    assert onepass.__version__ == importlib.metadata.version("onepass")


CHOICES = """
def work():
    from onepass import _core
    print(_core.isa())

for name in {names}:
    results[name] = in_child(work, ONEPASS_CPU=name)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_choice_of_the_instruction_set() -> None:
    """By name; an empty name means the best; an unknown or unsupported one is an ImportError that says what there is."""
    isas = _core.isas()
    unknown = ["v5", "avx2", " v3", "x86", "V4"]
    results = run_in_children(CHOICES.format(names=[*isas, "", *unknown]))
    for name, supported in isas.items():
        text, code = results[name]
        if supported:
            assert (text, code) == (name, 0)
        else:
            assert text.startswith(f"ImportError ONEPASS_CPU={name}")
            assert "does not support" in text
    assert results[""] == [[name for name, supported in isas.items() if supported][-1], 0]
    for name in unknown:
        text, code = results[name]
        assert code == 1
        assert text.startswith(f"ImportError ONEPASS_CPU={name}: unknown")
        assert all(isa in text for isa in isas)


IMPORTS = """
def modules():
    before = set(sys.modules)
    import onepass
    print([m for m in set(sys.modules) - before if m.startswith(("torch._dynamo", "torch._inductor"))])

def missing():
    sys.modules["onepass._core"] = None
    try:
        import onepass
    except ImportError as error:
        print(error, getattr(error, "__notes__", ""))

results["modules"] = in_child(modules)
results["missing"] = in_child(missing)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_import() -> None:
    """It loads no compiler, and says what to do where the extension is missing."""
    results = run_in_children(IMPORTS)
    assert results["modules"] == ["[]", 0]
    text, code = results["missing"]
    assert code == 0, text
    assert "pip install" in text


def test_source_uses_nothing_newer_than_its_oldest_python() -> None:
    """`requires-python` allows 3.10: no `add_note`, no `ExceptionGroup`, no `typing.Unpack`."""
    import ast

    root = Path(onepass.__file__).parent
    newer = {
        "add_note",
        "ExceptionGroup",
        "BaseExceptionGroup",
        "except*",
        "tomllib",
        "StrEnum",
        "batched",
    }
    for path in sorted(root.rglob("*.py")):
        tree = ast.parse(path.read_text(), feature_version=(3, 10))
        names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        names |= {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        assert not names & newer, f"{path.name}: {names & newer}"
