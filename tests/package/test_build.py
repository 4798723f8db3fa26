"""What was built: what the extension exports and needs, and how it chooses an instruction set."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import re
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


def test_extension_links_neither_torch_nor_an_openmp_runtime() -> None:
    needed = [
        line for line in tool("readelf", "-d", _core.__file__).splitlines() if "NEEDED" in line
    ]
    libraries = {line.split("[")[1].rstrip("]") for line in needed}
    assert not [name for name in libraries if "torch" in name or "c10" in name or "python" in name]
    allowed = ("libstdc++", "libm.", "libgcc_s", "libc.", "libdl.", "libpthread", "ld-linux")
    assert all(name.startswith(allowed) for name in libraries)


ROOT = Path(__file__).parents[2]


def setting(name: str) -> list[str]:
    """Return the words of a variable of CMakeLists.txt."""
    found = re.search(rf"set\({name} ([^)]*)\)", (ROOT / "CMakeLists.txt").read_text())
    assert found is not None
    return found[1].replace('""', "").split()


def built(isa: str) -> dict[str, Path]:
    """Return the objects that a build in this folder has left, by their sources; none if one is older than these."""
    sources = {name: ROOT / name for name in setting("KERNEL_SOURCES")}
    changed = max(path.stat().st_mtime for path in (ROOT / "csrc").rglob("*.?pp"))
    for folder in ROOT.glob(f"build/cp*/CMakeFiles/kernels_{isa}.dir"):
        objects = {name: folder / f"{name}.o" for name in sources}
        if all(path.exists() and path.stat().st_mtime > changed for path in objects.values()):
            return objects
    return {}


@functools.cache
def kernel_objects(isa: str, folder: Path) -> dict[str, Path]:
    """Return the kernels' objects as they were built, or as CMake would build them, which takes a minute."""
    if not (ROOT / "CMakeLists.txt").exists():
        pytest.skip("no source beside the tests")
    if objects := built(isa):
        return objects
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    flags = ["-std=c++20", "-fPIC", "-fvisibility=hidden", "-DNDEBUG", f"-I{ROOT / 'csrc'}"]
    flags += [*setting("KERNEL_OPTIONS"), *setting(f"{isa}_OPTIONS"), f"-DONEPASS_ISA={isa}"]
    objects = {}
    for name in setting("KERNEL_SOURCES"):
        objects[name] = folder / f"{isa}-{name.replace('/', '-')}.o"
        subprocess.run(
            [compiler, *flags, "-c", str(ROOT / name), "-o", str(objects[name])], check=True
        )
    return objects


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("objects")


X86 = platform.machine() in ("x86_64", "AMD64")
all_isas = pytest.mark.parametrize("isa", ["portable", *(("v3", "v4") if X86 else ())])


@all_isas
def test_kernels_leak_no_code_of_their_instruction_set(isa: str, folder: Path) -> None:
    """A weak symbol (an inline function, a template) of the AVX-512 object could be linked into the baseline.

    What -O3 does not inline is outside in one compiler's objects and inside in another's: so of those that are used.
    """
    for source, path in kernel_objects(isa, folder).items():
        symbols = [line.split() for line in tool("nm", "--defined-only", str(path)).splitlines()]
        shared = [s[-1] for s in symbols if (s[-2].isupper() and s[-2] != "N") or s[-2] in "vwu"]
        assert len(shared) == 1, (source, shared)
        assert f"_{isa}" in shared[0]


@all_isas
def test_kernels_ask_for_memory_ahead(isa: str, folder: Path) -> None:
    """Every loop over large tensors, for each of its operands; a step is up to 10 % slower without.

    gcc 12 leaves out calls of functions that only prefetch.
    """
    objects = kernel_objects(isa, folder)
    code = tool("objdump", "-dC", "--no-show-raw-insn", str(objects["csrc/cpu/update.cpp"]))
    functions = dict(re.findall(r"^[0-9a-f]+ <(.*)>:\n((?:.+\n)+)", code, re.MULTILINE))
    sweeps = {
        name: body for name, body in functions.items() if " sweep<" in name or "::sweep<" in name
    }
    assert len(sweeps) > 4 * len(_core.specs())  # and more: of each combination of dtypes
    for name, body in sweeps.items():
        operands = 2 + sum(name.count(f"::{rule},") * states for rule, states in STATES.items())
        assert body.count("prefetch") >= operands, name


STATES = {"Momentum": 1, "Adagrad": 1, "RMSprop": 1, "Adam": 2, "AmsGrad": 3}


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
