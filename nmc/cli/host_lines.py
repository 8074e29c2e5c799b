"""What of a compiled network is the host's, as a table."""

from __future__ import annotations

from nmc_compiler.program.model import Program
from nmc_emulator.tables import text_table

KINDS = ("macs", "ops", "exps", "divisions")


def host_lines(program: Program) -> list[str]:
    """Its ops, by kind, with their work in a timestep, and what crosses; nothing where nothing is the host's."""
    if "host" not in program.meta:
        return []
    host = program.meta["host"]
    rows: dict[str, dict[str, int]] = {}
    for step in host["steps"]:
        row = rows.setdefault(step["op"], dict.fromkeys(("nodes", *KINDS), 0))
        row["nodes"] += 1
        for kind, count in step["work"].items():
            row[kind] += count
    cells = [(op, *(f"{n:,}" if n else "" for n in row.values())) for op, row in sorted(rows.items())]
    total = [f"{sum(row[k] for row in rows.values()):,}" for k in ("nodes", *KINDS)]
    read, sent = (sum(x["values"] for x in host[way]) for way in ("reads", "sends"))
    bits = sum(x["values"] * x["bits"] for x in host["sends"])
    table = text_table(("op", "nodes", "MACs", "other ops", "exponentials", "divisions"), [*cells, ("total", *total)])
    crossing = (
        f"  it reads {read:,} values (populations: {len(host['reads'])}) and sends codes of {sent:,}, {bits:,} bits "
        f"(inputs: {len(host['sends'])})"
    )
    return [*table, crossing]
