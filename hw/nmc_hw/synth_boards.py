"""Boards that `nmc synth` knows: their chip, clock, constraints and the sizes that fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nmc_compiler.errors import UsageError
from nmc_compiler.neurocore import Sizes
from nmc_hw.link.simulated import FIRST_BAUD, rate_of
from nmc_hw.sim import mesh_parameters
from nmc_hw.verilate import HW

BOARDS_FOLDER = HW / "boards"
SMALLEST = Sizes(neurons=64, axons=64, words=256, types=2, geoms=2)


@dataclass(frozen=True)
class Board:
    """A board. ``has``: what its chip has of each resource; ``clock``: Hz of the core unless another is asked for."""

    name: str
    title: str
    family: str  # ecp5, ice40, xc7
    device: str
    route: tuple[str, ...]  # nextpnr's arguments for the chip
    constraints: str
    oscillator: int
    clock: int
    sizes: Sizes
    has: Mapping[str, int]
    loader: str  # the board's name in openFPGALoader
    own: Mapping[str, int] = field(default_factory=dict)  # other parameters of its top module
    quarters: bool = False  # block RAMs of a core go to a quarter of the chip (synth_places)

    @property
    def kind(self) -> str:
        """The folder of its sources: boards that differ in the chip alone share it."""
        return self.name.partition("-")[0]

    @property
    def top(self) -> str:
        return f"{self.kind}_top"

    @property
    def bitstream(self) -> str | None:
        """Name of the file that `nmc program` loads; None where only the vendor's tool makes one."""
        return {"ecp5": f"{self.name}.bit", "ice40": f"{self.name}.bin"}.get(self.family)

    def files(self) -> list[Path]:
        """Sources and constraints of the board."""
        return [BOARDS_FOLDER / "nc_reset.sv", *sorted((BOARDS_FOLDER / self.kind).iterdir())]


_ALL = (
    Board(
        name="ulx3s",
        title="Radiona ULX3S with LFE5U-85F",
        family="ecp5",
        device="LFE5U-85F-6CABGA381",
        route=("--85k", "--package", "CABGA381", "--speed", "6", "--router", "router2"),
        constraints="ulx3s.lpf",
        oscillator=25_000_000,
        clock=80_000_000,
        sizes=Sizes(axons=1024, words=32768, x=2, y=2),
        has={"LUT": 83_640, "BRAM": 208, "DSP": 156},
        loader="ulx3s",
        quarters=True,
    ),
    Board(
        name="ulx3s-25f",
        title="Radiona ULX3S with LFE5U-25F",
        family="ecp5",
        device="LFE5U-25F-6CABGA381",
        route=("--25k", "--package", "CABGA381", "--speed", "6"),
        constraints="ulx3s.lpf",
        oscillator=25_000_000,
        clock=62_500_000,
        sizes=Sizes(axons=1024, words=16384),
        has={"LUT": 24_288, "BRAM": 56, "DSP": 28},
        loader="ulx3s",
    ),
    Board(
        name="icebreaker",
        title="1BitSquared iCEBreaker with iCE40UP5K",
        family="ice40",
        device="iCE40UP5K-SG48",
        route=("--up5k", "--package", "sg48"),
        constraints="icebreaker.pcf",
        oscillator=12_000_000,
        clock=12_000_000,
        sizes=SMALLEST,
        has={"LUT": 5_280, "BRAM": 30, "DSP": 8},
        loader="ice40_generic",
        own={"LINE": 512, "LOG": 64},
    ),
    Board(
        name="cmoda7",
        title="Digilent Cmod A7-35T with XC7A35T",
        family="xc7",
        device="xc7a35tcpg236-1",
        route=(),
        constraints="cmoda7.xdc",
        oscillator=12_000_000,
        clock=80_000_000,
        sizes=Sizes(),
        has={"LUT": 20_800, "BRAM": 50, "DSP": 90},
        loader="cmoda7_35t",
    ),
)
BOARDS = {board.name: board for board in _ALL}


def board_named(name: str) -> Board:
    """UsageError for a board that there is not."""
    if name not in BOARDS:
        raise UsageError(f"board {name!r} is not known; known: {', '.join(BOARDS)}")
    return BOARDS[name]


def sizes_for(
    board: Board,
    cores: int | None = None,
    neurons: int | None = None,
    axons: int | None = None,
    synapses: int | None = None,
) -> Sizes:
    """The board's own sizes, with those that are given in their place. ``synapses``: words of a core.

    >>> sizes_for(BOARDS["ulx3s"], cores=2).as_dict()["x"]
    2
    """
    if cores not in (None, 1, 2, 4):
        raise UsageError(f"--cores {cores}: a mesh has 1, 2 or 4 cores")
    mesh = {} if cores is None else {"x": min(cores, 2), "y": max(cores // 2, 1)}
    given = {"neurons": neurons, "axons": axons, "words": synapses}
    return dataclasses.replace(
        board.sizes, **mesh, **{name: value for name, value in given.items() if value is not None}
    )


def clocking(board: Board, clock: int) -> tuple[int, dict[str, int]]:
    """Hz that the board's PLL makes of what is asked for, to within 1 % or UsageError, and the PLL's parameters."""
    if board.family == "ice40":
        choices: list[tuple[int, dict[str, int]]] = [(board.oscillator, {})]
    elif board.family == "ecp5":
        choices = list(_ecp5(board.oscillator))
    else:
        choices = list(_xc7(board.oscillator))
    made, parameters = min(choices, key=lambda choice: abs(choice[0] - clock))
    if abs(made - clock) > 0.01 * clock:
        raise UsageError(f"{board.name}: no clock of {clock / 1e6:g} MHz; the nearest is {made / 1e6:g} MHz")
    return made, parameters


def _ecp5(oscillator: int) -> list[tuple[int, dict[str, int]]]:
    """EHXPLLL: phase detector at 3.125 to 400 MHz, oscillator at 400 to 800 MHz, here as near to 600 as can be."""
    found = []
    for divide in range(1, 1 + oscillator // 3_125_000):
        for times in range(1, 65):
            hertz = oscillator * times // divide
            output = round(600e6 / hertz)
            if 1 <= output <= 128 and 400e6 <= hertz * output <= 800e6 and oscillator * times % divide == 0:
                found.append((hertz, {"CLKI_DIV": divide, "CLKFB_DIV": times, "CLKOP_DIV": output}))
    return found


def _xc7(oscillator: int) -> list[tuple[int, dict[str, int]]]:
    """MMCME2 of speed grade -1: oscillator at 600 to 1200 MHz."""
    return [
        (oscillator * times // divide, {"MULTIPLY": times, "DIVIDE": divide})
        for times in range(2, 65)
        for divide in range(1, 129)
        if 600e6 <= oscillator * times <= 1200e6 and oscillator * times % divide == 0
    ]


def parameters_of(board: Board, sizes: Sizes, clock: int) -> tuple[int, dict[str, int]]:
    """Hz of the core, and parameters of the board's top module but BUILD."""
    made, pll = clocking(board, clock)
    return made, mesh_parameters(sizes) | dict(board.own) | pll | {"CLOCK": made, "RATE": rate_of(FIRST_BAUD, made)}
