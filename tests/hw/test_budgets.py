"""What the chips must hold, from the reports of the tools: minutes of synthesis and routing each."""

import pytest

from boards import needs_yosys
from nmc_compiler.errors import CapacityError, ToolNotFound
from nmc_compiler.neurocore import Sizes
from nmc_hw.sim import PARTS, mesh_parameters
from nmc_hw.synth import missed, result_of, synthesise
from nmc_hw.synth_boards import BOARDS, sizes_for
from nmc_hw.synth_report import netlist_of, stat_of
from nmc_hw.synth_tools import run_tool
from nmc_hw.verilate import rtl_sources

pytestmark = pytest.mark.slow


def built(board, sizes):
    try:
        return result_of(synthesise(board, sizes))
    except ToolNotFound as missing:
        pytest.skip(str(missing))


def test_one_core_on_7_series(tmp_path) -> None:
    """Less than 2,500 look-up tables, those that are RAM, shift registers and inverters among them; 45 block RAMs.

    Multiplexers of eight inputs and more go through the slices' own (MUXF7, MUXF8), as vendors' tools do it.
    """
    needs_yosys()
    for path in rtl_sources():
        if path.stem in PARTS:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    given = {name: value for name, value in mesh_parameters(Sizes()).items() if name not in "XY"}
    script = f"""
        read_verilog -sv -DSYNTHESIS {" ".join(sorted(p.name for p in tmp_path.glob("*.sv")))}
        hierarchy -check -top nc_core {" ".join(f"-chparam {name} {value}" for name, value in given.items())}
        synth_xilinx -family xc7 -flatten -noiopad -noclkbuf -widemux 8 -top nc_core
        check -assert
        tee -o stat.json stat -json -tech xilinx
    """
    (tmp_path / "core.ys").write_text(script)
    run_tool("yosys", ["-q", "-s", "core.ys"], tmp_path)
    cells = stat_of(tmp_path / "stat.json", "nc_core")
    used = netlist_of("xc7", cells)
    print(used, cells)
    assert used["LUT"] < 2500 and used["BRAM"] < 45, (used, cells)


def test_four_cores_on_the_ulx3s() -> None:
    """4 * 1,024 neurons and 4 * 32,768 synapses, routed at 80 MHz for speed grade 6."""
    board = BOARDS["ulx3s"]
    assert board.sizes == Sizes(axons=1024, words=32768, x=2, y=2) and "6" in board.route
    result = built(board, board.sizes)
    assert missed(result) is None, result["clocks"]
    assert max(clock["achieved_mhz"] for clock in result["clocks"]) >= 80.0


def test_a_whole_board_with_one_core() -> None:
    result = built(BOARDS["ulx3s-25f"], BOARDS["ulx3s-25f"].sizes)
    assert missed(result) is None and result["bitstream"] in result["files"]


def test_the_cmod_a7_holds_a_whole_core() -> None:
    board = BOARDS["cmoda7"]
    result = built(board, board.sizes)
    assert all(each["used"] <= each["available"] for each in result["utilisation"])
    assert "vivado.tcl" in result["files"] and result["bitstream"] is None


def test_the_icebreaker_is_too_small() -> None:
    try:
        with pytest.raises(CapacityError, match=r"icebreaker: the netlist takes .* of 30 BRAM of iCE40UP5K"):
            synthesise(BOARDS["icebreaker"], sizes_for(BOARDS["icebreaker"]))
    except ToolNotFound as missing:
        pytest.skip(str(missing))
