"""What one core of full size takes of a 7-series chip: no link, no router, every row format, learning."""

import json
import shutil

import pytest

from nmc_hw.sim import PARTS
from nmc_hw.synth_tools import YOSYS, run_tool, version_of
from nmc_hw.verilate import RTL

pytestmark = [
    pytest.mark.skipif(
        version_of(YOSYS) is None, reason=f"needs {YOSYS.name}: pip install {YOSYS.name}=={YOSYS.version}"
    ),
    pytest.mark.slow,
]


def test_a_core_of_full_size_fits_a_small_chip(tmp_path) -> None:
    """Two look-up tables of few inputs share a cell: `estimated_num_lc` counts them so. Those that are RAM or shift
    registers come on top."""
    names = [f"{part}.sv" for part in PARTS if part not in ("nc_mesh", "nc_router")]
    for name in names:
        shutil.copy(RTL / name, tmp_path)
    script = (
        f"read_verilog -sv -DSYNTHESIS {' '.join(names)}; chparam -set N 1024 -set A 2048 -set W 65536 nc_core; "
        "synth_xilinx -family xc7 -flatten -top nc_core; check -assert; tee -o stat.json stat -tech xilinx -json"
    )
    run_tool("yosys", ["-q", "-p", script], tmp_path)
    report = json.loads((tmp_path / "stat.json").read_text())["design"]
    cells = report["num_cells_by_type"]
    tables = sum(cells.get(f"LUT{n}", 0) for n in range(1, 7))
    memories = 4 * (cells.get("RAM32M", 0) + cells.get("RAM64M", 0)) + cells.get("SRL16E", 0) + cells.get("SRLC32E", 0)
    packed = report["estimated_num_lc"] + memories
    blocks = cells["RAMB36E1"] + cells.get("RAMB18E1", 0) / 2
    print(f"{packed} LUT packed ({tables} LUT1 to LUT6; {memories} of RAM and shift registers), {blocks:g} RAMB36, "
          f"{cells['FDRE']} FDRE, {cells['DSP48E1']} DSP")  # fmt: skip
    assert packed < 2500 and tables < 2500 and blocks <= 45
