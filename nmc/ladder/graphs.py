"""A rung of networks without a read-out: their integer graph, interpreted, against the emulator, on noise."""

from __future__ import annotations

from typing import Any

import numpy as np

from nmc.artefact import Compiled
from nmc.ladder.compare import compare_codes, describe
from nmc.ladder.engines import answer
from nmc.ladder.lava import noise
from nmc.ladder.rungs import Rung
from nmc_compiler.errors import ArtefactError
from nmc_compiler.graph import Graph, Node, label
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.program.model import Program

CLAIM = "every population of the mapped Program sends what the integer interpreter says, on noise, bit for bit"


def graph_rung(compiled: Compiled, samples: int) -> Rung:
    """Integer interpreter = emulator on every population.  samples: windows, or pieces of a stream."""
    graph, program = compiled.int_graph, compiled.program
    inputs = {key: _held(graph, program, key, codes) for key, codes in noise(program, samples).items()}
    found = answer(program, inputs, samples, "auto")
    steps, windows = next(iter(found.codes.values())).shape[:2]
    truth = interpret(graph, _values(graph, program, inputs, windows, steps), record="all").codes
    order = [p for p in sorted(program.populations, key=lambda p: p.level) if p.name in truth]
    if missing := sorted(set(truth) - {p.name for p in order}):
        raise ArtefactError(
            f"Program '{program.name}' and its integer graph have different populations: only the graph has"
            f" {missing[0]!r} ({len(missing)} such); compile again"
        )
    seen = compare_codes((p.name, truth[p.name], found.codes[p.name]) for p in order)
    first: dict[str, Any] | None = None
    if seen.first is not None:
        p = next(p for p in order if p.name == seen.first.layer)
        first = describe(seen.first, p.shape, seen.first.timestep * program.ticks_per_step + p.level)
    sent = sum(int(np.count_nonzero(found.codes[p.name])) for p in order)
    numbers = {"populations": len(order), "windows": windows, "timesteps": steps * windows, "events": sent}
    return Rung(
        "int = emulator", CLAIM, seen.compared, seen.different, first,
        numbers | {"engine": found.engine, "mapped": program.mapping is not None},
    )  # fmt: skip


def _held(graph: Graph, program: Program, key: str, codes: np.ndarray) -> np.ndarray:
    """Codes within the range of their encoder; the same throughout a window where the network sees one image."""
    encoder = _encoder(graph, key.removeprefix("codes/"))
    if encoder is None:
        return codes
    codes = np.clip(codes, encoder.attr("lo"), encoder.attr("hi"))
    T = program.timesteps
    return codes if graph.input_time else np.repeat(codes[::T], T, axis=0)


def _values(
    graph: Graph, program: Program, inputs: dict[str, np.ndarray], windows: int, steps: int
) -> dict[str, np.ndarray]:
    """What the interpreter takes: values by the graph's own inputs, [N, T, C, H, W], or [N, C, H, W] of images."""
    given = {}
    for key, codes in inputs.items():
        name = key.removeprefix("codes/")
        encoder, values = _encoder(graph, name), codes.reshape(windows, steps, *codes.shape[1:])
        if encoder is not None:
            values = values / encoder.attr("scale")
        given[name.lstrip("%")] = values if graph.input_time else values[:, 0]
    return given


def _encoder(graph: Graph, population: str) -> Node | None:
    """The encoder of an input, which the Program calls by the input's name."""
    encoders = (n for n in graph if n.op == "encode")
    return next((n for n in encoders if label(graph.node(n.operands[0])) == population), None)
