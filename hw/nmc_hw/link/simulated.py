"""A board inside this process: the RTL under Verilator, called directly. Time is the board's own, in clocks."""

from __future__ import annotations

import ctypes
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path

from nmc_compiler.errors import UsageError
from nmc_compiler.neurocore import Sizes
from nmc_hw.link.stream import fresh_nonce
from nmc_hw.sim import mesh_parameters
from nmc_hw.verilate import HW, built, digest_of, rtl_sources

CLOCK = 48_000_000  # Hz, of boards that nothing else is said of
FIRST_BAUD = 115_200  # after reset
RETURN = 1 << 21  # clocks until a rate at which nobody comes is left: simulated time is slow
LEAST_CLOCKS = 1000  # of a read


@dataclass(frozen=True)
class Faults:
    """Chances that a byte is lost, that one of its bits is changed, that it comes twice; in both directions."""

    drop: float = 0.0
    flip: float = 0.0
    dup: float = 0.0
    seed: int = 1

    def __post_init__(self) -> None:
        if not all(0 <= x <= 1 for x in (self.drop, self.flip, self.dup)) or self.drop + self.flip + self.dup > 1:
            raise UsageError(f"faults {self.drop}, {self.flip}, {self.dup}: chances from 0 to 1, together at most 1")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"faults: seed {self.seed}; expected 0 to 2^63 - 1")

    def __str__(self) -> str:
        return f"drop={self.drop},flip={self.flip},dup={self.dup},seed={self.seed}"


def parse_faults(text: str) -> Faults:
    """Faults of a text.

    >>> parse_faults("drop=0.01,seed=7")
    Faults(drop=0.01, flip=0.0, dup=0.0, seed=7)
    """
    given: dict[str, float | int] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        try:
            given[name] = int(value) if name == "seed" else float(value)
        except ValueError:
            name = ""
        if name not in ("drop", "flip", "dup", "seed"):
            raise UsageError(f"faults: {part!r}; expected drop=, flip=, dup= (chances) and seed= (a whole number)")
    return Faults(**given)  # type: ignore[arg-type]


def rate_of(baud: float, clock: int) -> int:
    """Phase increment of the UART. Raises UsageError where the clock is too slow or too coarse for the rate."""
    rate = round(baud * 2**20 / clock)
    if not 1 <= rate <= 2**18 or abs(rate * clock / 2**20 - baud) > 0.01 * baud:
        raise UsageError(
            f"{baud:g} baud: a board with a clock of {clock / 1e6:g} MHz does rates up to {clock // 4} to within 1 %"
        )
    return rate


def board_parameters(sizes: Sizes, bits: bool, clock: int = CLOCK) -> tuple[str, dict[str, int], list[Path]]:
    """Top module, its parameters and its sources; ``bits``: behind a UART. BUILD is the digest of the rest."""
    top, sources = "nc_top" if bits else "nc_top_bytes", rtl_sources()
    parameters = mesh_parameters(sizes) | {
        "CLOCK": clock,
        "RATE": rate_of(FIRST_BAUD, clock) if bits else 0,
        "RETURN": RETURN,
    }
    build = int(digest_of(sources, top, sorted(parameters.items()))[:16], 16)
    return top, parameters | {"BUILD": build}, sources


@cache
def _library(sizes: Sizes, bits: bool, clock: int) -> ctypes.CDLL:
    top, parameters, sources = board_parameters(sizes, bits, clock)
    folder = HW / "board_sim"
    cpp = [folder / "library.cpp", folder / "server.h", folder / "device.h"]
    library = ctypes.CDLL(str(built(top, parameters, sources, cpp, shared=True)))
    device, number, real = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_double
    for name, result, arguments in (
        ("open", device, []),
        ("close", None, [device]),
        ("faults", None, [device, real, real, real, number]),
        ("bit", None, [device, real]),
        ("write", None, [device, ctypes.c_char_p, number]),
        ("read", number, [device, ctypes.c_char_p, number, number]),
        ("clocks", number, [device]),
        ("harmed", number, [device]),
        ("serve_open", device, [device, ctypes.c_char_p, number, real]),
        ("serve", ctypes.c_int, [device, ctypes.c_int]),
        ("serve_close", None, [device]),
    ):
        function = getattr(library, f"nc_{name}")
        function.restype, function.argtypes = result, arguments
    return library


class SimulatedLink:
    """A board of its own, from reset; ``bits``: through its UART, at `clock` Hz. Raises ToolNotFound without Verilator.

    A read waits in the board's time, and where the board has nothing to do it gives nothing at once.
    """

    def __init__(
        self, sizes: Sizes, bits: bool = False, faults: Faults | None = None, clock: int = CLOCK, baud: int = FIRST_BAUD
    ) -> None:
        self.name, self.nonce, self.clock = "simulated board", fresh_nonce(), clock
        self.library = _library(sizes, bits, clock)
        self.device = self.library.nc_open()
        self._buffer = ctypes.create_string_buffer(1 << 16)
        if faults is not None:
            self.library.nc_faults(self.device, *astuple(faults))
        self.set_baud(baud)

    @property
    def clocks(self) -> int:
        """Clocks of the board since reset."""
        return self.library.nc_clocks(self.device)

    @property
    def harmed(self) -> int:
        """Bytes that the faults have touched."""
        return self.library.nc_harmed(self.device)

    def write(self, data: bytes) -> None:
        self.library.nc_write(self.device, data, len(data))

    def read(self, seconds: float) -> bytes:
        clocks = max(LEAST_CLOCKS, int(seconds * self.clock))
        size = self.library.nc_read(self.device, self._buffer, len(self._buffer), clocks)
        return self._buffer.raw[:size]

    def set_baud(self, baud: int) -> None:
        self.library.nc_bit(self.device, self.clock / baud)

    def discard(self) -> None:
        while self.read(0):
            pass

    def close(self) -> None:
        if self.device is not None:
            self.library.nc_close(self.device)
            self.device = None
