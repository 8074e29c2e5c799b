"""The netlist that synthesis makes of a small core, gate by gate, on the random images that the RTL is tested with."""

import importlib.resources
import sys
from pathlib import Path

import pytest
from test_core_fuzz import run_both

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "neurocore"))

from naive_core import Naive

from nmc_compiler.neurocore import Sizes
from nmc_hw import sim, verilate
from nmc_hw.sim import PARTS, mesh_parameters
from nmc_hw.synth import SYNTHESIS
from nmc_hw.synth_tools import YOSYS, run_tool, version_of
from nmc_hw.verilate import TOOL, find_verilator, rtl_sources

pytestmark = pytest.mark.slow

SIZES = Sizes(neurons=64, axons=64, words=256, types=2, geoms=2)


@pytest.fixture(scope="module")
def gates(tmp_path_factory):
    """RtlMachine runs the netlist of nc_mesh for iCE40 (whose cells have models that simulate, block RAMs too)."""
    if version_of(YOSYS) is None or find_verilator() is None:
        pytest.skip(f"needs {TOOL} and {YOSYS.name} (pip install {YOSYS.name}=={YOSYS.version})")
    folder = tmp_path_factory.mktemp("gates")
    for path in rtl_sources():
        if path.stem in PARTS:
            (folder / path.name).write_bytes(path.read_bytes())
    given = " ".join(f"-chparam {name} {value}" for name, value in mesh_parameters(SIZES).items())
    script = f"""
        read_verilog -sv -DSYNTHESIS {" ".join(sorted(p.name for p in folder.glob("*.sv")))}
        hierarchy -check -top nc_mesh {given}
        {SYNTHESIS["ice40"].split(" -json")[0].format(top="nc_mesh")}
        check -assert
        write_verilog -noattr netlist.v
    """
    (folder / "gates.ys").write_text(script)
    run_tool("yosys", ["-q", "-s", "gates.ys"], folder)
    cells = importlib.resources.files(YOSYS.module) / "share" / "ice40" / "cells_sim.v"
    model = folder / "cells_sim.v"
    model.write_text("`define NO_ICE40_DEFAULT_ASSIGNMENTS\n" + cells.read_text())
    netlist = [folder / "netlist.v", model]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verilate, "CACHE", folder / "built")
        patch.setattr(verilate, "OPTIMISE", "-O0")
        patch.setattr(sim, "built", lambda top, _, __, cpp, shared: verilate.built(top, {}, netlist, cpp, shared))
        sim._library.cache_clear()
        yield
        sim._library.cache_clear()


@pytest.mark.parametrize(("seed", "learn"), [(17, 0), (36, 0), (7, 1), (15, 1), (31, 1)])
def test_the_netlist_does_what_the_twin_does(gates, seed, learn) -> None:
    counts = run_both(Naive, seed, SIZES, learn, steps=8)
    assert counts[0] > 0 and counts[2] > 0  # SynOps and spikes
    assert not learn or (counts[8] > 0 and counts[9] > 0)  # weights lowered and raised
