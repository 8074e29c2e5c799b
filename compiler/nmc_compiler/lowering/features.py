"""What a Program needs the chip to be able to do, checked against what the target says it can."""

from __future__ import annotations

from typing import Any

from nmc_compiler.errors import LoweringError
from nmc_compiler.program.model import Program
from nmc_compiler.program.timing import largest_extra
from nmc_compiler.target import Target

WAY_OUT = {
    "dynamic_synapse": "choose a target that has it",
    "active_sites": "choose a target that has them",
    "current_pool": "train with pooling on plain spikes, or choose a target that has it",
    "stream_accumulator": "compile with --residual duplicate",
    "multi_level_neuron": "choose a target that has it",
    "microcoded_neuron": "choose a target that has it",
    "graded_input": "compile with --input-encoding host-current",
    "host_current": "compile with --input-encoding graded8",
    "graded_spikes": "train with plain spikes, or choose a target that has it",
}


def needed_features(program: Program) -> dict[str, str]:
    """Feature name -> the first part of the Program that needs it."""
    need: dict[str, str] = {}
    readers: dict[int, int] = {}
    late: dict[int, int] = {}  # timesteps that delays of synapses keep a dendrite's accumulators ahead
    for item in program.sparses:
        late[item.dst] = max(late.get(item.dst, 0), largest_extra(item))
    for p in program.populations:
        readers[p.dendrite] = readers.get(p.dendrite, 0) + 1
        if (p.bias is not None and p.bias.any()) or (p.cell is not None and p.cell.bias is not None):
            need.setdefault("bias_gating", p.name)
        if p.model == "levels":
            need.setdefault("multi_level_neuron", p.name)
        if p.model == "cell":
            need.setdefault("microcoded_neuron", p.name)
        if p.payload_bits:
            need.setdefault("graded_input" if p.model == "input" else "graded_spikes", p.name)
    for i, d in enumerate(program.dendrites):
        if d.ring > 1 + late.get(i, 0) or readers.get(i, 0) > 1:
            need.setdefault("stream_accumulator", d.name)
    if program.host_currents:
        need["host_current"] = program.host_currents[0].name
    if program.convs:
        need["conv_synapses"] = program.convs[0].name
    for t in program.transfers:  # a 1x1 one is only a negative weight exponent
        if t.mode == "sum" or t.kernel != (1, 1):
            need.setdefault("current_pool" if t.mode == "maxpool" else "stream_accumulator", t.name)
    if program.sites:
        need["active_sites"] = program.sites[0].name
    if program.dynamics:
        need["dynamic_synapse"] = program.dynamics[0].name
    return dict(sorted(need.items()))


def check_features(program: Program, target: Target) -> list[dict[str, Any]]:
    """Features the Program rests on, with the target's evidence; an unsupported one is refused by name."""
    found = []
    for name, where in needed_features(program).items():
        feature = getattr(target.features, name)
        if not feature.supported:
            raise LoweringError(
                f"'{where}' needs {name.replace('_', ' ')}, which target '{target.name}' has not "
                f"({feature.source}); {WAY_OUT.get(name, 'choose another target')}"
            )
        found.append({"feature": name, "first_use": where, "evidence": feature.evidence, "source": feature.source})
    return found
