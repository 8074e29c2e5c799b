"""Boards for the tests: the sizes that are built, links with faults, and the command line's virtual board."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from naive_link import NaiveDevice

from nmc_compiler.errors import ToolNotFound
from nmc_compiler.neurocore import Sizes
from nmc_compiler.program.model import Program
from nmc_compiler.target import Target, load_target
from nmc_hw.link.simulated import Faults, SimulatedLink
from nmc_hw.synth_tools import YOSYS, version_of

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "neurocore"))

from nets import random_codes as random_codes
from nets import random_program

SIZES = Sizes(128, 2048, 4096, 16, 16, 1, 1)  # one build for all tests of whole boards


class NaiveLink:
    """The device in plain Python at the end of a line with faults."""

    name = "naive board"

    def __init__(self, device: NaiveDevice, faults: Faults | None = None, nonce: int = 1) -> None:
        self.device, self.nonce, self.faults = device, nonce, faults or Faults()
        self._random = random.Random(self.faults.seed)
        self._rest, self._out = b"", b""

    def _harmed(self, data: bytes) -> bytes:
        f, out = self.faults, bytearray()
        for byte in data:
            x = self._random.random()
            if x < f.drop:
                continue
            flipped = f.drop <= x < f.drop + f.flip
            out.append(byte ^ 1 << self._random.randrange(8) if flipped else byte)
            if f.drop + f.flip <= x < f.drop + f.flip + f.dup:
                out.append(byte)
        return bytes(out)

    def write(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + self._harmed(data)).split(b"\0")
        for line in lines:
            self._out += self._harmed(self.device.take(line + b"\0"))

    def read(self, seconds: float) -> bytes:
        got, self._out = self._out, b""
        return got

    def set_baud(self, baud: int) -> None:
        pass

    def discard(self) -> None:
        self._out = b""

    def close(self) -> None:
        pass


def simulated(bits: bool = False, faults: Faults | None = None, sizes: Sizes = SIZES, **options: int) -> SimulatedLink:
    """The RTL in this process; skips where the tools for it are missing."""
    try:
        return SimulatedLink(sizes, bits, faults, **options)
    except ToolNotFound as missing:
        pytest.skip(str(missing))


START = "import sys; from nmc.cli import main; sys.exit(main())"


@contextlib.contextmanager
def virtual_board(*options: str, sizes: Sizes = SIZES) -> Iterator[str]:
    """`nmc board --rtl` in a process of its own; gives the port."""
    simulated(bits="--byte-level" not in options, sizes=sizes).close()  # builds it, or skips
    numbers = {"neurons": sizes.neurons, "axons": sizes.axons, "words": sizes.words, "mesh": f"{sizes.x}x{sizes.y}"}
    given = [text for name, value in numbers.items() for text in (f"--{name}", str(value))]
    command = [sys.executable, "-c", START, "board", "--rtl", "--json", "--until-input-ends", *given, *options]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout and process.stderr and process.stdin
        said = ""
        while not said.endswith("}\n") or "\n}" not in said:
            line = process.stdout.readline()
            if not line:
                pytest.fail(process.stderr.read())
            said += line
        try:
            yield json.loads(said)["port"]
        finally:
            process.stdin.close()
            process.wait(20)


def run_nmc(*arguments: object, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    command = [sys.executable, "-c", START, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds)


def small_target() -> Target:
    """One core of the test's sizes."""
    base = load_target("neurocore-1").model_dump(mode="json", by_alias=True)
    base["core"]["neurons"]["value"], base["core"]["synapse_words"]["value"] = SIZES.neurons, SIZES.words
    return Target.model_validate(base)


def small_program(seed: int) -> Program:
    """A random network on one core of the test's sizes."""
    return random_program(seed, small_target())


def needs_yosys() -> None:
    """Skips where it is missing."""
    if version_of(YOSYS) is None:
        pytest.skip(f"needs {YOSYS.name}: pip install {YOSYS.name}=={YOSYS.version}")
