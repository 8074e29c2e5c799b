"""Everything that the page of a run says, as one JSON object: the page shows nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nmc.artefact import Compiled, load
from nmc.conversion import conversion_table
from nmc.page.hints import hints_of
from nmc.page.traffic import Traffic, traffic_of
from nmc.page.waterfall import waterfalls
from nmc_compiler.errors import UsageError
from nmc_compiler.mapping.resources import core_usage, limits
from nmc_emulator.report import Report

SCHEMA = "nmc.details/2"
LEFT_OUT = ("logits", "prices")  # of the report: many numbers that the page does not show, or shows as its own


def details_of(report: Report, compiled: Compiled | None, events: Path | None) -> dict[str, Any]:
    """The object (docs/formats.md#details). compiled: its artefact, or None where the run stands alone.

    events: ``events.npz`` of the run, for raster, load over time and links.
    """
    data = {key: value for key, value in report.data.items() if key not in LEFT_OUT}
    program = compiled.program if compiled is not None else None
    traffic = traffic_of(program, events) if program is not None and events is not None else None
    return {
        "schema": SCHEMA,
        "report": data,
        "program": None if compiled is None else _about(compiled),
        "conversion": _conversion(compiled),
        "cores": None if compiled is None else _cores(compiled),
        "energy": data["energy_range"],
        "waterfalls": waterfalls(data),
        "hints": hints_of(data),
        "prices": report["prices"],
        "traffic": None if traffic is None else _traffic(traffic),
    }


def details_of_run(report: Report, artefact: Path | None, events: Path) -> dict[str, Any]:
    """The same of a run on disk: its artefact, where that is of the same Program, and ``events.npz`` if it is there.

    ArtefactError or FrontendError for damaged files.
    """
    compiled = load(artefact) if artefact is not None else None
    if compiled is not None and compiled.digest != report["program"]:
        compiled = None
    return details_of(report, compiled, events if events.is_file() and not report["recosted_from"] else None)


def _about(compiled: Compiled) -> dict[str, Any]:
    program = compiled.program
    return {
        "digest": compiled.digest,
        "populations": len(program.populations),
        "neurons": sum(int(np.prod(p.shape)) for p in program.populations if p.model != "input"),
        "features": program.meta.get("features", []),
        "notes": list(compiled.conversion.get("notes", [])),
    }


def _conversion(compiled: Compiled | None) -> dict[str, Any] | None:
    if compiled is None:
        return None
    try:
        return conversion_table(compiled.conversion).as_json()
    except UsageError:  # not made from a model
        return None


def _cores(compiled: Compiled) -> dict[str, Any] | None:
    """Where each core is, and what of its memories is used."""
    program = compiled.program
    if program.mapping is None:
        return None
    target = compiled.target()
    return {
        "at": program.mapping.cores.tolist(),
        "chips": program.mapping.chips,
        "mesh": program.target["mesh"],
        "used": {name: used.tolist() for name, used in core_usage(program, program.mapping, target).items()},
        "limit": limits(target),
    }


def _traffic(traffic: Traffic) -> dict[str, Any]:
    return {
        "raster": traffic.raster,
        "ticks": {name: values.tolist() for name, values in traffic.ticks.items()},
        "ticks_per_bin": traffic.width,
        "links": traffic.links.tolist(),
        "routers": list(traffic.routers),
    }
