"""Figures out of the reports of yosys and nextpnr."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nmc_compiler.errors import NmcError

# What one cell of a netlist takes of the chip. Look-up tables that serve as RAM or shift registers count, as in Vivado.
NETLIST: dict[str, dict[str, dict[str, float]]] = {
    "ecp5": {"LUT": {"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 4}, "BRAM": {"DP16KD": 1}, "DSP": {"MULT18X18D": 1}},
    "ice40": {"LUT": {"SB_LUT4": 1}, "BRAM": {"SB_RAM40_4K": 1}, "DSP": {"SB_MAC16": 1}},
    "xc7": {
        "LUT": {
            **{f"LUT{n}": 1 for n in range(1, 7)},
            "INV": 1,
            **{"RAM32M": 4, "RAM64M": 4, "RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1D": 4, "SRL16E": 1, "SRLC32E": 1},
        },
        "BRAM": {"RAMB36E1": 1, "RAMB18E1": 0.5},
        "DSP": {"DSP48E1": 1},
    },
}
ROUTED = {
    "ecp5": {"LUT": "TRELLIS_COMB", "BRAM": "DP16KD", "DSP": "MULT18X18D"},
    "ice40": {"LUT": "ICESTORM_LC", "BRAM": "ICESTORM_RAM", "DSP": "ICESTORM_DSP"},
}


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise NmcError(f"{path.name}: the tool left no report that can be read: {error}") from None


def stat_of(path: Path, top: str) -> dict[str, int]:
    """Cells by type of a flattened netlist, from yosys' ``stat -json``."""
    tree = _load(path)
    modules = {name.removeprefix("\\"): module for name, module in tree["modules"].items()}
    cells = (modules.get(top) or tree["design"])["num_cells_by_type"]
    return {name: count for name, count in sorted(cells.items()) if not name.startswith("$")}


def netlist_of(family: str, cells: dict[str, int]) -> dict[str, float]:
    """Resources that a netlist takes at least."""
    return {
        resource: sum(cells.get(cell, 0) * weight for cell, weight in weights.items())
        for resource, weights in NETLIST[family].items()
    }


def routed_of(path: Path, family: str) -> dict[str, float]:
    """Resources taken after placement, from nextpnr's report."""
    used = _load(path)["utilization"]
    return {resource: used[cell]["used"] for resource, cell in ROUTED[family].items()}


def clocks_of(path: Path) -> list[dict[str, Any]]:
    """Each clock with the frequency reached and the one asked for, MHz, from nextpnr's report."""
    return [
        {"name": name, "achieved_mhz": round(clock["achieved"], 2), "constraint_mhz": round(clock["constraint"], 2)}
        for name, clock in sorted(_load(path)["fmax"].items())
    ]
