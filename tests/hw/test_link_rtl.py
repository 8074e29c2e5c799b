"""The link's RTL, module by module, in cocotb on Icarus."""

from pathlib import Path

import pytest
from benches import RTL, TB, bench


@pytest.mark.parametrize(
    ("module", "top", "parts", "parameters"),
    [
        ("bench_crc32", "nc_crc32", (), {}),
        ("bench_uart_rx", "nc_uart_rx", (), {}),
        ("bench_uart_tx", "nc_uart_tx", (), {}),
        ("bench_cobs_rx", "nc_cobs_rx", ("nc_crc32", "nc_ram"), {"DEPTH": 512}),
        ("bench_cobs_tx", "nc_cobs_tx", ("nc_crc32", "nc_ram"), {"DEPTH": 512}),
    ],
)
def test_a_part_of_the_link(tmp_path, module, top, parts, parameters) -> None:
    bench(tmp_path, module, top, [RTL / f"{name}.sv" for name in (top, *parts)], parameters)


LINK = ("crc32", "cobs_rx", "cobs_tx", "log", "rate", "link", "top_bytes", "ram")
SMALL = {"N": 64, "A": 64, "W": 128, "TYPES": 2, "GEOMS": 2, "X": 2, "Y": 1, "LOG": 64, "RETURN": 64}


def test_the_command_engine(tmp_path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))  # for the device in plain Python
    sources = [*(RTL / f"nc_{name}.sv" for name in LINK), TB / "mesh_model.sv"]
    bench(tmp_path, "bench_link", "nc_top_bytes", sources, SMALL)


def test_the_whole_device_over_its_pins(tmp_path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    names = (*LINK, "uart_rx", "uart_tx", "top")
    sources = [*(RTL / f"nc_{name}.sv" for name in names), TB / "mesh_model.sv"]
    clocks = {"CLOCK": 100_000_000, "RATE": 2**20 // 8, "RETURN": 4000}
    bench(tmp_path, "bench_top", "nc_top", sources, SMALL | clocks | {"X": 1, "LOG": 1024})
