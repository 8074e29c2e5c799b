"""The report of a run, with what is special about the run said first."""

from __future__ import annotations

from typing import Any

import numpy as np

from nmc_compiler.program.model import Program
from nmc_emulator import RunResult
from nmc_emulator.event_run import windowed
from nmc_emulator.report import Report, make_report

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
    program: Program, result: RunResult, labels: np.ndarray | None, digest: str, units: int, extra: dict[str, Any]
) -> Report:
    """Report of a run of ``units`` samples, or timesteps of a stream; ``extra``: values of SPECIAL keys.

    labels: int [samples], given only where ``result.logits`` tell classes.
    """
    stream = program.timesteps == 0
    data = dict(make_report(windowed(program, units) if stream else program, result, labels, digest).data)
    data |= SPECIAL | extra | {"stream": stream}
    if stream:
        data |= {"latency_ticks": program.depth + 1, "interval_ticks": program.ticks_per_step}
    return Report(data | {"assumptions": [*_said(data), *data["assumptions"]]})


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
