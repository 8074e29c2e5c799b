"""What the host did in a run: its ops, what crossed, and what of it has a price; said first in the report."""

from __future__ import annotations

from typing import Any

from nmc.hosted import HostSource
from nmc_compiler.program.model import Program
from nmc_emulator.energies import choose_profiles, priced
from nmc_emulator.report import GIVEN, Report

WAYS = {"read": "reads", "sent": "sends"}  # of what crosses, in a run and in the Program


def share_of(program: Program, host: HostSource, timesteps: int) -> dict[str, Any]:
    """``report.json``'s "host": work by op over the run, and what crossed each way. ``timesteps`` over all samples."""
    ops: dict[str, dict[str, int]] = {}
    total: dict[str, int] = dict.fromkeys(("macs", "ops", "exps", "divisions"), 0)
    for step in program.meta["host"]["steps"]:
        row = ops.setdefault(step["op"], {"nodes": 0})
        row["nodes"] += 1
        for kind, count in step["work"].items():
            row[kind] = row.get(kind, 0) + count * timesteps
            total[kind] += count * timesteps
    crossed = {"read": host.counts["read"], "sent": host.counts["sent"]}
    bits = {way: sum(s["values"] * s["bits"] for s in program.meta["host"][key]) for way, key in WAYS.items()}
    return {
        "timesteps": timesteps,
        "work": total,
        "by_op": ops,
        "messages": crossed,
        "values_per_timestep": {
            way: sum(s["values"] for s in program.meta["host"][key]) for way, key in WAYS.items()
        },
        "bits_per_timestep_at_most": bits,
        "saturated": dict(host.host.overflows),
    }  # fmt: skip


def with_host(report: Report, program: Program, host: HostSource) -> Report:
    """A report that says what the host did, and whose energies name what of that has no price."""
    share = share_of(program, host, report["samples"] * max(report["timesteps"], 1))
    work, cores = share["work"], report["synops_effective"]
    share["macs_share"] = work["macs"] / (work["macs"] + cores) if work["macs"] + cores else 0.0
    said = (
        f"the host computes {len(program.meta['host']['steps'])} ops of real numbers in every timestep: "
        f"{work['macs']:,} MACs, {work['exps']:,} exponentials and {work['divisions']:,} divisions in this run, "
        f"against {cores:,} SynOps on cores ({100 * share['macs_share']:.1f} % of both); it reads "
        f"{share['messages']['read']:,} values and sends {share['messages']['sent']:,} events"
    )
    totals = {"host_macs": work["macs"], "host_messages": share["messages"]["read"]}
    data = {**report.data, **{key: report[key] + more for key, more in totals.items()}}
    others = [text for text in report["assumptions"] if text != GIVEN]  # what the host sends is counted
    data |= {"host": share, "assumptions": [said, *others]}
    return Report(priced(data, choose_profiles()))
