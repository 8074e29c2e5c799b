"""Parts of the core and the mesh by themselves, in cocotb on Icarus."""

from pathlib import Path

import pytest
from benches import RTL, TB, bench

SMALL = {"N": 64}


@pytest.mark.parametrize(
    ("module", "top", "parts", "parameters"),
    [
        (
            "bench_deliver",
            "nc_deliver",
            ("nc_ram", "nc_lutram", "nc_bits", "nc_delay", "nc_near", "nc_change", "nc_lane", "nc_words"),
            SMALL | {"W": 256},
        ),
        (
            "bench_update",
            "nc_update",
            ("nc_ram", "nc_lutram", "nc_decay", "nc_delay", "nc_near"),
            SMALL | {"TYPES": 16},
        ),
        ("bench_pending", "nc_pending", ("nc_ram", "nc_near", "nc_pair"), {"A": 64}),
    ],
)
def test_a_part_of_the_core(tmp_path, monkeypatch, module, top, parts, parameters) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "neurocore"))  # the twin in plain Python
    bench(tmp_path, module, top, [RTL / f"{name}.sv" for name in (top, *parts)], parameters)


def test_routers_lose_nothing(tmp_path) -> None:
    parts = [RTL / f"nc_{name}.sv" for name in ("router", "fifo", "lutram")]
    bench(tmp_path, "bench_router", "routers", [*parts, TB / "routers.sv"])
