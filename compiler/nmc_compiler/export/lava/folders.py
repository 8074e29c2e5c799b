"""The files of an exported folder."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.export.lava.plan import LAVA, Plan, Process, make_plan
from nmc_compiler.program import program_digest, validate_program
from nmc_compiler.program.learning import only_neurocore
from nmc_compiler.program.model import Program

SCHEMA = "nmc.lava/1"
SOURCES = ("assemble.py", "host.py", "processes.py", "run.py")


def export_lava(program: Program) -> dict[str, bytes]:
    """File name -> content of a folder that runs ``program`` in Lava; the same bytes for the same Program.

    VerifyError for a Program that breaks its own rules, LoweringError, naming the part, where something
    in it has no Process.
    """
    validate_program(program)
    if program.current_rule is not None:
        profile = program.target["profile"]
        how = "wrap in two's complement" if program.modular else "saturate"
        raise LoweringError(
            f"Program '{program.name}' is for {profile}, whose currents {how}; Lava's models wrap"
            " otherwise (docs/integers.md); compile it for loihi2 to run it in Lava"
        )
    if (special := only_neurocore(program)) is not None:
        raise LoweringError(
            f"Program '{program.name}' has {special}, which only a neurocore computes; Lava has no Process of it"
        )
    _check_time(program)
    plan = make_plan(program)
    here = Path(__file__).parent / "folder"
    files = {name: (here / name).read_bytes() for name in SOURCES}
    files["network.json"] = _json(_network(plan))
    files["arrays.npz"] = _npz(plan.arrays)
    files["program.json"] = _json(_became(plan))
    files["README.md"] = _readme(plan).encode()
    if program.mapping is not None:
        files["placement.json"] = _json(_placement(plan))
    return files


def _check_time(program: Program) -> None:
    takes = _takes(program)
    if "images" in takes and len(takes) > 1:
        raise LoweringError(
            f"Program '{program.name}' takes images and events of its input '{takes[1]}': the exported script reads"
            " one of the two; give the input an encoding"
        )


def _takes(program: Program) -> list[str]:
    """What the input file must hold: "images", or names of inputs that are given as events."""
    encoded = {h.population for h in program.host_codes}
    events = [p.name for i, p in enumerate(program.populations) if p.model == "input" and i not in encoded]
    return (["images"] if program.host_currents or encoded else []) + events


def _json(tree: Any) -> bytes:
    return (json.dumps(tree, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **{key: arrays[key] for key in sorted(arrays)})  # type: ignore[arg-type]
    return stream.getvalue()


def _network(plan: Plan) -> dict[str, Any]:
    p, kinds = plan.program, {item.name: item.kind for item in plan.processes}
    populations = []
    for i, population in enumerate(p.populations):
        readout = population.model == "readout"
        parts = [
            {"process": part.process, "channels": part.channels.tolist(), "monitor": readout and _silent(kinds, part)}
            for part in plan.parts[i]
        ]
        entry = {"name": population.name, "level": population.level, "shape": list(population.shape), "parts": parts}
        populations.append(entry | {"readout": readout, "scale": population.readout_scale})
    return {
        "schema": SCHEMA, "name": p.name, "program": program_digest(p), "timesteps": p.timesteps,
        "period": p.ticks_per_step, "interval": p.interval, "depth": p.depth, "input_shape": list(p.input_shape),
        "input_time": p.input_time, "takes": _takes(p), "populations": populations,
        "processes": [
            {"name": i.name, "kind": i.kind, "origin": i.origin, "of": i.part, "params": i.params, "arrays": i.arrays}
            for i in plan.processes
        ],
        "connections": [list(c) for c in plan.connections],
    }  # fmt: skip


def _silent(kinds: dict[str, str], part: Any) -> bool:
    """Whether a readout's Process keeps its potential to itself."""
    return kinds[part.process] != "Readout"


def _became(plan: Plan) -> dict[str, Any]:
    """Which Processes every part of the Program became."""
    found: dict[str, list[dict[str, str]]] = {}
    for item in plan.processes:
        entry = {"process": item.name, "kind": LAVA.get(item.kind, item.kind), "origin": item.origin}
        found.setdefault(item.part, []).append(entry)
    origins = Counter(item.origin for item in plan.processes)
    return {
        "schema": SCHEMA, "name": plan.program.name, "program": program_digest(plan.program), "parts": found,
        "processes": {"stock": origins["stock"], "generated": origins["generated"]},
    }  # fmt: skip


def _placement(plan: Plan) -> dict[str, Any]:
    """Cores and axons of the mapping; Lava's simulation has no use for them."""
    p, mapping = plan.program, plan.program.mapping
    assert mapping is not None
    readers: dict[int, list[str]] = {}
    for population in p.populations:
        readers.setdefault(population.dendrite, []).append(population.name)
    pieces = [
        {
            "core": int(mapping.tiles[tile, 1]), "dendrite": p.dendrites[d].name, "box": [int(v) for v in box],
            "populations": readers.get(d, []),
        }
        for tile, d, *box in mapping.pieces.tolist()
    ]  # fmt: skip
    cores = [dict(zip(("chip", "x", "y", "index"), row, strict=True)) for row in mapping.cores.tolist()]
    columns = ["src_tile", "kind", "projection", "role", "dst_tile", "c0", "c1", "y0", "y1", "x0", "x1"]
    return {
        "schema": SCHEMA, "target": p.target.get("name", ""), "chips": mapping.chips, "cores": cores, "pieces": pieces,
        "axons": {"columns": columns, "rows": mapping.axons.tolist(), "kinds": ["Conv", "Map", "Dynamic", "Sparse"]},
        "tile_core": mapping.tiles[:, 1].tolist(),
    }  # fmt: skip


README = """# {name}, for Lava

Exported by nmc from Program `{digest}`. Python 3.10 and lava-nc 0.10.0 run it; nmc is not needed:

    python3.10 -m venv lava310 && lava310/bin/pip install lava-nc==0.10.0
    lava310/bin/python run.py input.npz -o results.npz

`input.npz` holds {input}. `results.npz` then holds `spikes/<population>`, int32 [samples, timesteps, C, H, W], what
every soma sent inside its sample's window{logits}; and `outside/<population>`, how many events
it sent outside of one.

It runs under `Loihi2SimCfg(select_tag="fixed_pt")`. `--hw` takes `Loihi2HwCfg` instead: **not tested**, for want of a
chip; at best the stock Processes find a model for it. `--unroll` makes every Conv a Sparse of the same synapses, which
Lava runs faster where torch is not installed; the integers are the same.

| file | what |
|---|---|
| `network.json`, `arrays.npz` | Processes, their parameters and connections (arrays load without pickle) |
| `processes.py` | Processes that Lava lacks, with bit-accurate models: what microcode of a chip would have to do |
| `assemble.py`, `host.py`, `run.py` | makes the Processes; computes what the host sends; runs them |
| `program.json` | which Processes every part of the Program became |
{placement}
Everything is laid out (X, Y, C). One time step of Lava is one tick{period}: a population of level L lives timestep t of
sample n at time step `n * {interval} + t * {ticks} + L + 1`.

{stock} Processes are Lava's own, {generated} generated:

| Process | origin | how many |
|---|---|---|
{table}

{between}"""
PLACEMENT = "| `placement.json` | cores and axons of the mapping; only information |\n"
BETWEEN = """Stock somas know no windows: between two samples they run on, and may send events (their biases go on).
What they hold is wiped by LIFReset when a window starts, and what they send between windows arrives between windows,
so it changes nothing that is read; on a chip it would cost energy that nmc does not count.
"""


def _readme(plan: Plan) -> str:
    p = plan.program
    takes = _takes(p)
    image = "`images` [N, T, C, H, W]" if p.input_time else "`images` [N, C, H, W]"
    events = ", ".join(f"`codes/{name}` [timesteps, C, H, W]" for name in takes)
    found = Counter((LAVA.get(i.kind, i.kind), i.origin) for i in plan.processes)
    rows = [f"| {kind} | {origin} | {n} |" for (kind, origin), n in sorted(found.items(), key=_by_origin)]
    origins = Counter(i.origin for i in plan.processes)
    read = any(q.model == "readout" for q in p.populations)
    return README.format(
        name=p.name, digest=program_digest(p), input=image if "images" in takes else events,
        logits=", `logits_int` and `logits`" if read else "", stock=origins["stock"], generated=origins["generated"],
        table="\n".join(rows), interval=p.interval if p.timesteps else 0, ticks=p.ticks_per_step,
        period="" if p.ticks_per_step == 1 else f", a timestep is {p.ticks_per_step}",
        placement="" if p.mapping is None else PLACEMENT,
        between=BETWEEN if any(_runs_on(i) for i in plan.processes) and p.timesteps else "",
    )  # fmt: skip


def _by_origin(entry: tuple[tuple[str, str], int]) -> tuple[str, str]:
    (kind, origin), _ = entry
    return origin, kind


def _runs_on(item: Process) -> bool:
    return item.kind in ("LIF", "LIFReset", "TernaryLIF")
