"""From the papers' formula to the mapped figure, step by step."""

from __future__ import annotations

from typing import Any

from nmc_emulator.energies import units_of

SYNAPSES = ("synop", "synop_conv", "synop_dense", "synop_sparse", "dyn_write", "dyn_read")
GROUPS = {
    "neuron updates": ("neuron_update", "neuron_active", "neuron_inactive"),
    "spikes made, sent and received": ("spike_out", "axon_out", "axon_in", "within_tile_spike"),
    "hops between routers": ("hop_ew", "hop_ns"),
    "biases": ("bias_event",),
    "gates, pools, relays and residual sums": (
        "gate_op",
        "pool_op",
        "pool_compare",
        "accumulator_add",
        "relay_event",
    ),
    "barriers, host and powered time": ("barrier", "host_mac", "host_message", "static", "static_core"),
}


def waterfalls(data: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """By mapped profile: steps of ``name``, ``pj`` per sample, of a stream per timestep, and ``unpriced``.

    A step is a difference, but for the first and last.

    The first step is the total of the papers' formula (``nmc.formula``, of the network as trained, at the rates of the
    run), the last that of the profile; what is between adds up. unpriced: terms that happened and have no price, so
    that the step is too small. No waterfalls where there is no formula to start from.
    """
    formula = next((e for e in data["energy"] if e["kind"] == "formula"), None)
    if formula is None:
        return {}
    n = units_of(data)
    return {e["profile"]: _steps(formula, e, n) for e in data["energy"] if e["kind"] == "mapped"}


def _steps(formula: dict[str, Any], mapped: dict[str, Any], samples: int) -> list[dict[str, Any]]:
    terms, missing = dict(mapped["terms_pj"]), set(mapped["missing"])
    paper = formula["terms_pj"]
    macs, acs = (sum(pj for term, pj in paper.items() if term.startswith(kind)) for kind in ("mac", "ac"))
    synapses = sum(terms.pop(term, 0.0) for term in SYNAPSES)

    def step(name: str, pj: float, among: tuple[str, ...]) -> dict[str, Any]:
        return {"name": name, "pj": pj / samples, "unpriced": sorted(missing & set(among))}

    found = [
        step("papers' formula", formula["total_pj"], ()),
        step("multiplications of real inputs", -macs, ()),
        step("a synapse in place of an adder", synapses - acs, SYNAPSES),
    ]
    for name, among in GROUPS.items():
        found.append(step(name, sum(terms.pop(term, 0.0) for term in among), among))
    found.append(step(mapped["title"], mapped["total_pj"], tuple(missing)))
    return found
