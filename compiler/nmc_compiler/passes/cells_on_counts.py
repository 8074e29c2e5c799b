"""Neurons that keep what a spike leaves of their potential, where they read counts (attention products)."""

from __future__ import annotations

import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Graph, Node, label
from nmc_compiler.passes.base import derived
from nmc_compiler.passes.cells import CellForm, decay_of, gain_of, kept_of, value_of
from nmc_compiler.passes.counts import CountBound, CountNeuron, halvings_of, room_for, table_bound

FRACTION = 6  # bits of a potential below a count


def cell_on_counts(
    graph: Graph, node: Node, step: float, bound: CountBound, tensors: dict[str, np.ndarray], most: int
) -> CountNeuron:
    """V = 64 * 2^shift * (sum of counts) with the decay; nothing saturates, because what is left of a count counts.

    Exact where the decay is 2^-j, its j (T - 1) fraction bits fit, and thresholds and steps come out whole.
    """
    if any(key in node.attrs for key in ("bias_t", "gain_t", "alpha")):
        raise LoweringError(f"neuron '{label(node)}' reads counts and has tables by timestep, or a current that lasts")
    kept = np.unique(kept_of(graph, node)) if node.op in ("lif", "ilif", "neuron") else np.zeros(1)
    if len(kept) > 1:
        raise LoweringError(f"neuron '{label(node)}' reads counts and decays differently by channel; not lowered")
    dv, exact = decay_of(float(kept[0]))
    halvings = halvings_of(dv, exact)
    wanted = max((2 if halvings is None else halvings) * (graph.timesteps - 1) - FRACTION, 0)
    full = max(table_bound(graph.node(node.operands[0]), graph.by_id()), 1)
    shift = min(wanted, room_for(node, bound.of(full), 0, most))
    unit = 64.0 * 2.0**shift / (gain_of(node) * step)
    form = CellForm(graph, node, np.full(node.type.shape[0], unit), tensors)
    facts, wholes = form.facts, _whole(graph, node, unit)
    exact = halvings is not None and shift >= wanted and not form.reasons and wholes
    remark = "" if exact else "; ".join([*form.reasons, f"{shift} of {wanted} fraction bits beyond {FRACTION}"])
    attrs = {"dv": derived(dv), **form.attrs, **form.starts()}
    thresholds = tuple(int(t) for t in facts["thresholds"][0])
    return CountNeuron(shift, full, dv=dv, thresholds=thresholds, exact=exact, remark=remark, cell=attrs)


def _whole(graph: Graph, node: Node, unit: float) -> bool:
    """Whether the threshold is a whole number of membrane units, so that no rounding moves what is left."""
    theta = value_of(graph, node, "theta", 1.0) * unit
    return bool((theta == np.rint(theta)).all())
