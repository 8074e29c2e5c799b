"""Block RAMs and multipliers of a chip with several cores, placed by hand: each core's in a quarter of the chip.

nextpnr spreads the block RAMs of all cores, nearly all that there are, over the whole chip, and whatever else a
core is made of has to reach them. In the netlist an attribute BEL says where a cell goes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Block RAMs of the LFE5U-85F: 52 in each of four rows, by column; quarters are halves of two rows that are neighbours.
COLUMNS = (
    *(4, 6, 8, 10, 13, 15, 17, 19, 22, 24, 26, 28, 31, 33, 35, 37, 40, 42, 44, 46, 49, 51, 53, 55, 58, 60),
    *(62, 64, 69, 71, 73, 75, 78, 80, 82, 84, 87, 89, 91, 93, 96, 98, 100, 102, 105, 107, 109, 111, 114, 116, 118, 120),
)
HALVES = (COLUMNS[:26], COLUMNS[26:])
MULTIPLIERS = (
    *(4, 5, 8, 9, 13, 14, 17, 18, 22, 23, 26, 27, 31, 32, 35, 36, 40, 41, 44, 45, 49, 50, 53, 54, 58, 59),
    *(62, 63, 69, 70, 73, 74, 78, 79, 82, 83, 87, 88, 91, 92, 96, 97, 100, 101, 105, 106, 109, 110, 114, 115, 118, 119),
)
# of the upper and the lower quarters: block RAMs of the way to the synapses, of the neurons, multipliers
ROWS = ((22, 46, 34), (82, 70, 58))

CORE = re.compile(r"\.mesh\.node\[(\d)\]\.present\.core\.(.*)")
WORDS = re.compile(r"deliver\.synapses\.part\[(\d)\]")
LINK = ("X60/Y46/EBR1", "X62/Y46/EBR2", "X60/Y70/EBR1", "X62/Y70/EBR2")  # in the middle: rings of the link, and the log
ROW_0 = ("scan.traces", "pending.ram", "walk.rows", "tables", "deliver.who")  # the others are in the row of the neurons


def places_of(rams: Sequence[str], multipliers: Sequence[str]) -> dict[str, str]:
    """Where cells go, by name; multipliers of no core stay free. Nothing where a core has more than its quarter.

    In each row of block RAMs the synapse words are on both sides of the memories around the pipelines.
    """
    found: dict[str, str] = {}
    for core in range(4):
        columns, *rows = _half(core)
        mine = _of_core(rams, core)
        for row, y in enumerate(rows[:2]):
            inner = [name for name, part in mine if not WORDS.match(part) and part.startswith(ROW_0) == (row == 0)]
            words = [name for name, part in mine if (match := WORDS.match(part)) and int(match[1]) // 4 == row]
            line = [*words[: len(words) // 2], *inner, *words[len(words) // 2 :]]
            places = [f"X{x}/Y{y}/EBR{COLUMNS.index(x) % 4}" for x in columns]
            if not _centred(line, places, found):
                return {}
        spots = MULTIPLIERS[:26] if core % 2 == 0 else MULTIPLIERS[26:]
        places = [f"X{x}/Y{rows[2]}/MULT18_{(0, 1, 4, 5)[MULTIPLIERS.index(x) % 4]}" for x in spots]
        if not _centred([name for name, _ in _of_core(multipliers, core)], places, found):
            return {}
    others = sorted((name for name in rams if not CORE.search(name)), reverse=True)
    return found | dict(zip(others, (bel for bel in LINK if bel not in found.values()), strict=False))


def _half(core: int) -> tuple[Sequence[int], int, int, int]:
    return (HALVES[core % 2], *ROWS[core // 2])


def _of_core(names: Sequence[str], core: int) -> list[tuple[str, str]]:
    """Names of the cells of a core, and what they are called in it."""
    return [(name, match[2]) for name in sorted(names) if (match := CORE.search(name)) and int(match[1]) == core]


def _centred(line: Sequence[str], places: Sequence[str], found: dict[str, str]) -> bool:
    first = (len(places) - len(line)) // 2
    found |= dict(zip(line, places[max(first, 0) :], strict=False))
    return first >= 0


def place(netlist: Path) -> int:
    """Write the places into a netlist of yosys; how many cells have one."""
    design: dict[str, Any] = json.loads(netlist.read_text())
    (top,) = (module for module in design["modules"].values() if int(module["attributes"].get("top", "0"), 2))
    cells = top["cells"]
    rams, multipliers = ([n for n, cell in cells.items() if cell["type"] == t] for t in ("DP16KD", "MULT18X18D"))
    places = places_of(rams, multipliers)
    for name, bel in places.items():
        cells[name]["attributes"]["BEL"] = bel
    netlist.write_text(json.dumps(design))
    return len(places)
