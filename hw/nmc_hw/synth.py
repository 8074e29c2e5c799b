"""A bitstream from the RTL: yosys, nextpnr, the packer of the chip; kept by what it was made of.

A result lies in ``build/synth`` of the checkout under a digest of the sources, their parameters, the scripts and the
tools' versions. It counts as whole where every file in it still has the digest that ``result.json`` has for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nmc_compiler.errors import CapacityError, NmcError, UsageError
from nmc_compiler.neurocore import Sizes
from nmc_hw import synth_places
from nmc_hw.synth_boards import Board, parameters_of
from nmc_hw.synth_report import clocks_of, netlist_of, routed_of, stat_of
from nmc_hw.synth_tools import NEXTPNR, YOSYS, run_tool, versions
from nmc_hw.verilate import HW, digest_of, rtl_sources

CACHE = HW.parent / "build" / "synth"
RESULT = "result.json"
STAGES = {
    "ecp5": ("yosys", "nextpnr-ecp5", "ecppack"),
    "ice40": ("yosys", "nextpnr-ice40", "icepack"),
    "xc7": ("yosys",),
}
Tell = Callable[[str], object]


def quiet(text: str) -> None:
    """Tells nobody."""


def synthesise(board: Board, sizes: Sizes, clock: int | None = None, seed: int = 1, tell: Tell = quiet) -> Path:
    """The folder of a build, made or found: bitstream, logs, reports, and ``result.json`` (docs/fpga.md).

    clock: Hz of the core (default: the board's).  seed: of placement.  tell: is told of every stage.
    Raises ToolNotFound, UsageError, CapacityError where the chip is too small, NmcError where a tool fails. A build
    that misses its clock is a build: see :func:`missed`.
    """
    packages = [YOSYS] if board.family == "xc7" else [YOSYS, NEXTPNR[board.family]]
    tools = versions(packages)
    hertz, parameters = parameters_of(board, sizes, clock or board.clock)
    sources = rtl_sources()
    names = [path.name for path in sources]
    script = yosys_script(board, {**parameters, "BUILD": 0}, [*names, *(p.name for p in board.files())])
    made_with = [*sources, *board.files(), Path(synth_places.__file__)]
    key = digest_of(made_with, script, tools, seed, route_arguments(board, seed, hertz))[:24]
    folder = CACHE / f"{board.name}-{key}"
    if folder.is_dir():
        if whole(folder):
            return folder
        tell(f"{folder}: damaged, made again")
        shutil.rmtree(folder)
    parameters["BUILD"] = int(key[:16], 16)
    stage = CACHE / f".{folder.name}.{os.getpid()}"
    try:
        stage.mkdir(parents=True, exist_ok=True)
        for path in (*sources, *board.files()):
            shutil.copyfile(path, stage / path.name)
        result = {
            "schema": "nmc.synth/1",
            "board": board.name,
            "device": board.device,
            "sizes": sizes.as_dict(),
            "clock_hz": hertz,
            "build": key[:16],
            "seed": seed,
            "tools": tools,
        }
        result |= _run(board, hertz, seed, yosys_script(board, parameters, list_sources(stage)), stage, tell)
        kept = _tidy(board, stage)
        result["files"] = {path.name: _digest(path) for path in kept}
        (stage / RESULT).write_text(json.dumps(result, indent=2) + "\n")
        with contextlib.suppress(OSError):  # another process was first: its build is the same
            os.rename(stage, folder)
    except OSError as error:
        raise NmcError(f"{stage}: could not be written: {error.strerror or error}; nothing was left behind") from None
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return folder


def list_sources(folder: Path) -> list[str]:
    """Names of the SystemVerilog files of a folder."""
    return sorted(path.name for path in folder.glob("*.sv"))


def result_of(folder: Path) -> dict[str, Any]:
    """What ``result.json`` of a build says."""
    return json.loads((folder / RESULT).read_text())


def whole(folder: Path) -> bool:
    """Whether every file of a build is as it was made."""
    try:
        files = result_of(folder)["files"]
        return isinstance(files, dict) and all(
            _digest(folder / Path(name).name) == kept for name, kept in files.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def missed(result: Mapping[str, Any]) -> str | None:
    """Says which clock of a build is slower than asked for, or None."""
    for clock in result["clocks"]:
        if clock["achieved_mhz"] < clock["constraint_mhz"]:
            return (
                f"{result['board']}: clock {clock['name']} reaches {clock['achieved_mhz']:.1f} MHz, and "
                f"{clock['constraint_mhz']:g} MHz were asked for; try another --seed than {result['seed']}, "
                "a lower --clock, or smaller sizes"
            )
    return None


def yosys_script(board: Board, parameters: Mapping[str, int], files: list[str]) -> str:
    """Synthesis for the board's chip; the netlist goes to netlist.json (or an .edif), the cell counts to stat.json."""
    sources = " ".join(sorted(name for name in files if name.endswith(".sv")))
    given = " ".join(f"-chparam {name} {_literal(value)}" for name, value in sorted(parameters.items()))
    lines = [f"read_verilog -sv -DSYNTHESIS {sources}"]
    lines += [f"read_verilog -lib {cells}" for cells in CELLS[board.family]]
    lines.append(f"hierarchy -check -top {board.top} {given}")
    lines += SYNTHESIS[board.family].format(top=board.top).splitlines()
    return "\n".join((*lines, "check -assert", f"tee -o stat.json stat -json{STAT[board.family]}", ""))


SYNTHESIS = {
    "ecp5": "synth_ecp5 -top {top} -json netlist.json",
    # this chip has no RAM of look-up tables: what asks for it becomes flip-flops
    "ice40": "setattr -unset ram_style */m:mem\nsynth_ice40 -dsp -abc9 -device u -top {top} -json netlist.json",
    "xc7": "synth_xilinx -family xc7 -flatten -top {top}",
}
CELLS = {"ecp5": ["+/ecp5/cells_bb.v"], "ice40": [], "xc7": ["+/xilinx/cells_sim.v", "+/xilinx/cells_xtra.v"]}
STAT = {"ecp5": "", "ice40": "", "xc7": " -tech xilinx"}


def route_arguments(board: Board, seed: int, hertz: int) -> list[str]:
    """Arguments of nextpnr; none where there is none for the chip."""
    if not board.route:
        return []
    pins, routed = {"ecp5": ("--lpf", "--textcfg"), "ice40": ("--pcf", "--asc")}[board.family]
    arguments = [*board.route, "--json", "netlist.json", pins, board.constraints, routed, "routed", "--seed", str(seed)]
    arguments += ["--freq", f"{hertz / 1e6:g}", "--timing-allow-fail", "--report", "route.json"]
    return [*arguments, "--quiet", "--log", "route.log"]


def _run(board: Board, hertz: int, seed: int, script: str, folder: Path, tell: Tell) -> dict[str, Any]:
    """All stages; what they found."""
    (folder / "synth.ys").write_text(script)
    seconds: dict[str, float] = {}
    stages = STAGES[board.family]

    def do(program: str, arguments: list[str], doing: str) -> None:
        tell(f"{len(seconds) + 1}/{len(stages)} {program}: {doing}")
        began = time.monotonic()
        run_tool(program, arguments, folder)
        seconds[program] = round(time.monotonic() - began, 1)

    do("yosys", ["-q", "-s", "synth.ys"], f"synthesis for {board.device}")
    cells = stat_of(folder / "stat.json", board.top)
    used = netlist_of(board.family, cells)
    _fits(board, used)
    if board.quarters:
        synth_places.place(folder / "netlist.json")
    found: dict[str, Any] = {"cells": cells, "routed": bool(board.route), "clocks": []}
    if board.route:
        do(stages[1], route_arguments(board, seed, hertz), f"placement and routing at {hertz / 1e6:g} MHz, seed {seed}")
        found["clocks"] = clocks_of(folder / "route.json")
        used = routed_of(folder / "route.json", board.family)
        pack = ["--compress", "--input", "routed", "--bit", str(board.bitstream)]
        do(stages[2], pack if board.family == "ecp5" else ["routed", str(board.bitstream)], "bitstream")
    else:
        (folder / "vivado.tcl").write_text(vivado(board, folder, script))
    found["utilisation"] = [
        {"resource": name, "used": used[name], "available": available} for name, available in board.has.items()
    ]
    return found | {"bitstream": board.bitstream, "seconds": seconds}


def _fits(board: Board, needs: Mapping[str, float]) -> None:
    """CapacityError before hours of placement, where the netlist alone is more than the chip has."""
    over = [f"{needs[name]:g} of {has} {name}" for name, has in board.has.items() if needs[name] > has]
    if over:
        raise CapacityError(
            f"{board.name}: the netlist takes {', '.join(over)} of {board.device}; ask for fewer --cores, "
            "--synapses, --neurons or --axons, or take a larger board"
        )


def vivado(board: Board, folder: Path, script: str) -> str:
    """A Tcl script for Vivado in non-project mode, to be run beside the sources: no test here has run it."""
    generics = [word for word in script.split("hierarchy", 1)[1].splitlines()[0].split("-chparam ")[1:]]
    values = " ".join("=".join(word.split()) for word in generics)
    return "\n".join(
        (
            "# vivado -mode batch -source vivado.tcl. Not tested: there was no Vivado here.",
            f"read_verilog -sv [list {' '.join(list_sources(folder))}]",
            f"read_xdc {board.constraints}",
            f"synth_design -top {board.top} -part {board.device} -verilog_define SYNTHESIS=1 -generic {{{values}}}",
            "opt_design",
            "place_design",
            "route_design",
            "report_utilization -file utilization.rpt",
            "report_timing_summary -file timing.rpt",
            f"write_bitstream -force {board.name}.bit",
            "",
        )
    )


def _tidy(board: Board, folder: Path) -> list[Path]:
    """Remove what can be had again; gives the files kept. Sources stay where another tool has to read them."""
    for path in sorted(folder.iterdir()):
        source = path.suffix in (".sv", ".lpf", ".pcf", ".xdc")
        if path.name in ("netlist.json", "routed") or (source and board.route):
            path.unlink()
    return sorted(folder.iterdir())


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _literal(value: int) -> str:
    return str(value) if value < 1 << 31 else f"64'h{value:016x}"


def check_seed(seed: int) -> None:
    """UsageError outside what nextpnr takes."""
    if not 0 <= seed < 2**31:
        raise UsageError(f"seed {seed}: expected 0 to 2^31 - 1")
