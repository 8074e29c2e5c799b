"""The report of a run, with what is special about the run said first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nmc_compiler.program.model import Program
from nmc_emulator import RunResult
from nmc_emulator.cost import chip_terms, least_time
from nmc_emulator.counters import Counters
from nmc_emulator.energies import energy_range, priced, units_of
from nmc_emulator.event_run import windowed
from nmc_emulator.price_profile import PriceProfile
from nmc_emulator.report import SECONDS_REST, Report, make_report, seconds_of

SPECIAL: dict[str, Any] = {
    "input": None,
    "partial": None,
    "recosted_from": None,
    "timing": None,
    "arithmetic": "exact",
    "classes": None,
    "stream": False,
}


def report_of(
    program: Program,
    result: RunResult,
    labels: np.ndarray | None,
    digest: str,
    units: int,
    extra: dict[str, Any],
) -> Report:
    """Report of a run of ``units`` samples, or timesteps of a stream; ``extra``: values of SPECIAL keys.

    labels: int [samples], given only where ``result.logits`` tell classes.
    """
    stream = program.timesteps == 0
    ran = windowed(program, units) if stream else program
    data = dict(make_report(ran, result, labels, digest).data)
    data |= SPECIAL | extra | {"stream": stream}
    if stream:
        data |= {"latency_ticks": program.depth + 1, "interval_ticks": program.ticks_per_step}
        data |= {"energy_range": energy_range(data["energy"], units_of(data))}
    data |= {"seconds": data["seconds"] | bound_pace(data)}
    return Report(data | {"assumptions": [*_said(data), *data["assumptions"]]})


def under(
    report: Report,
    program: Program,
    counters: Counters,
    profiles: Sequence[PriceProfile],
    rates: PriceProfile | None = None,
) -> Report:
    """The report of a run of ``program`` with energies under ``profiles``, and at the times of ``rates``, if given."""
    data = dict(report.data)
    if rates is not None:
        ran, n = windowed(program, data["timesteps"]) if data["stream"] else program, data["samples"]
        time = least_time(ran, counters, n, rates)
        data |= {"seconds": seconds_of(time, n), "chip_terms": chip_terms(ran, counters, n, time.ns)}
        data["seconds"] |= bound_pace(data)
        said = f"{SECONDS_REST} the times of {rates.name}; they are a bound from below"
        data["assumptions"] = [said if line.startswith(SECONDS_REST) else line for line in data["assumptions"]]
    return Report(priced(data, profiles))


def bound_pace(data: Mapping[str, Any]) -> dict[str, float]:
    """Seconds that a sample (of a stream: a timestep) takes at the least, and how many at most end per second.

    Where one starts before the one before has ended, work cannot be told apart, and only ticks bound the latency.
    """
    bounds, units = data["seconds"]["bounds"], units_of(data)
    tick = bounds.get("ticks", 0.0) / data["run_ticks"]
    work = max((value for name, value in bounds.items() if name != "ticks"), default=0.0) / units
    apart = data["interval_ticks"] >= data["latency_ticks"]
    latency = max(tick * data["latency_ticks"], work if apart else 0.0)
    between = max(tick * data["interval_ticks"], work)
    return {"latency": latency, "throughput": 1 / between if between else 0.0}


def _said(data: dict[str, Any]) -> list[str]:
    said = []
    if data["partial"]:
        unit = "timesteps" if data["stream"] else "samples"
        said.append(f"PARTIAL: the run was stopped behind {data['partial'][unit]} of {data['partial']['of']} {unit}")
    if data["recosted_from"]:
        said.append(
            f"re-costed from the events of a run of Program {data['recosted_from'][:12]}, which computes the same;"
            " this Program was not run"
        )
    if data["arithmetic"] == "float":
        said.append("potentials of lif somas are real numbers in this run: not what the chip computes")
    return said + [text for text in (data["input"], data["classes"]) if text]
