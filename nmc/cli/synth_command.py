"""nmc synth."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from nmc.cli.output import heading, print_json, tell
from nmc.folders import replacing
from nmc_compiler.errors import NmcError
from nmc_emulator.tables import text_table
from nmc_hw.synth import RESULT, check_seed, missed, result_of, synthesise
from nmc_hw.synth_boards import board_named, sizes_for


def run(args: argparse.Namespace) -> int:
    check_seed(args.seed)
    board = board_named(args.board)
    sizes = sizes_for(board, args.cores, args.neurons, args.axons, args.synapses)
    built = synthesise(board, sizes, args.clock, args.seed, tell)
    result = result_of(built)
    slow = missed(result)
    out = Path(args.out or Path("build") / board.name)
    if not slow:
        with replacing(out, RESULT) as stage:
            for name in (*result["files"], RESULT):
                shutil.copyfile(built / name, stage / name)
    print_json(result) if args.json else _print(result, out)
    if slow:
        raise NmcError(f"{slow}. The reports are in {built}")
    return 0


def _print(result: dict[str, Any], out: Path) -> None:
    sizes = result["sizes"]
    cores = sizes["x"] * sizes["y"]
    print(
        f"{result['board']} ({result['device']}): {cores} core{'s' * (cores > 1)} of {sizes['neurons']} neurons, "
        f"{sizes['axons']} axons and {sizes['words']} synapse words at {result['clock_hz'] / 1e6:g} MHz; "
        f"build {result['build']}"
    )
    heading("Utilisation" if result["routed"] else "Utilisation, before placement")
    rows = []
    for each in result["utilisation"]:
        used, available = each["used"], each["available"]
        rows.append((each["resource"], f"{used:g}", str(available), f"{100 * used / available:.0f} %"))
    print("\n".join(text_table(("resource", "used", "of", ""), rows)))
    if result["clocks"]:
        heading("Clocks")
        rows = []
        for each in result["clocks"]:
            reaches, needs = each["achieved_mhz"], each["constraint_mhz"]
            rows.append(
                (each["name"], f"{reaches:.2f} MHz", f"{needs:.2f} MHz", "met" if reaches >= needs else "MISSED")
            )
        print("\n".join(text_table(("clock", "reaches", "has to", ""), rows)))
    print("\n" + ", ".join(f"{tool} {seconds:.0f} s" for tool, seconds in result["seconds"].items()))
    if result["bitstream"] is None:
        print(f"no bitstream: nothing but Vivado makes one. Its script, not tested: {out / 'vivado.tcl'}")
    elif not missed(result):
        print(f"bitstream: {out / result['bitstream']}")
