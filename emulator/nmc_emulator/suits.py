"""Which Programs which engine runs."""

from __future__ import annotations

from nmc_compiler.program.learning import only_neurocore
from nmc_compiler.program.model import Population, Program


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
        "convolutions between sites": [c for c in program.convs if c.sites is not None],
    }
    for what, items in parts.items():
        if items:
            return f"{what} (first '{items[0].name}', {len(items)} in all)"  # type: ignore[attr-defined]
    return None


def why_not_layers(program: Program) -> str | None:
    """What of the Program the layer engine does not run; None if it runs it all."""
    if program.timesteps == 0:
        return "no last timestep (a stream)"
    for p in program.populations:
        if p.model == "sigma_delta":
            return f"population '{p.name}'"
    return None


def lasts(p: Population) -> bool:
    """Whether a lif has more than a potential that decays from 0."""
    kept = p.restart, p.start_u, p.start_v, p.vth_low
    return p.model == "lif" and (p.du != 4095 or any(k is not None for k in kept))


def takes_events(program: Program) -> bool:
    """Whether an input has no encoder: its events are given."""
    encoded = {h.population for h in program.host_codes}
    return any(p.model == "input" and i not in encoded for i, p in enumerate(program.populations))


def engine_for(program: Program) -> str:
    """The fast engine for a Program: "layers" if it can run it, and "events" where a loop or synapses one by one make
    that slow; "ticks" where neither can; "neurocore" where nothing else computes it.
    """
    if only_neurocore(program) is not None:
        return "neurocore"
    loops = any(e.lag for e in (*program.convs, *program.maps, *program.sparses))  # type: ignore[attr-defined]
    layers = why_not_layers(program) is None
    slow = loops or program.sparses or takes_events(program) or any(lasts(p) for p in program.populations)
    if why_not_events(program) is None and (slow or not layers):
        return "events"
    return "layers" if layers else "ticks"
