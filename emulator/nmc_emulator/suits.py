"""Which Programs which engine runs."""

from __future__ import annotations

from nmc_compiler.program.learning import only_neurocore
from nmc_compiler.program.model import Program


def why_not_events(program: Program) -> str | None:
    """What of the Program the event engine does not run; None if it runs it all."""
    pools = [
        t
        for t in program.transfers
        if t.mode != "maxpool"
        or (*t.kernel, *t.stride, *t.pad) != (1, 1, 1, 1, 0, 0)
        or program.dendrites[t.src].shape != program.dendrites[t.dst].shape
    ]
    parts = {
        "attention": program.dynamics,
        "constant-weight projections": program.maps,
        "currents from the host": program.host_currents,
        "pooling": pools,
        "level tables": [p for p in program.populations if p.model == "levels"],
        "collapsing convolutions": [c for c in program.convs if c.collapse],
    }
    for what, items in parts.items():
        if items:
            return f"{what} (first '{items[0].name}', {len(items)} in all)"  # type: ignore[attr-defined]
    return None


def why_not_layers(program: Program) -> str | None:
    """What of the Program the layer engine does not run; None if it runs it all."""
    if program.timesteps == 0:
        return "no last timestep (a stream)"
    if program.sparses:
        return f"sparse projection '{program.sparses[0].name}'"
    for i, p in enumerate(program.populations):
        kept = p.restart, p.start_u, p.start_v, p.vth_low
        if p.model == "sigma_delta" or any(k is not None for k in kept) or (p.model == "lif" and p.du != 4095):
            return f"population '{p.name}'"
        if p.model == "input" and all(h.population != i for h in program.host_codes):
            return f"input '{p.name}', whose events are given"
    return None


def engine_for(program: Program) -> str:
    """The fast engine for a Program: "layers" if it can run it, and "events" where a loop makes that slow.

    "neurocore" where nothing else computes it.
    """
    if only_neurocore(program) is not None:
        return "neurocore"
    loops = any(e.lag for e in (*program.convs, *program.maps, *program.sparses))  # type: ignore[attr-defined]
    events = why_not_events(program) is None and (loops or why_not_layers(program) is not None)
    return "events" if events else "layers"
