"""Rungs of a network with a part on the host: its integer graph, interpreted, against the emulator with the host in its
loop, tick after tick and settled, on noise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from nmc.artefact import Compiled
from nmc.general import EventJob, EventOutcome, run_job
from nmc.hosted import HostDrive, host_drive
from nmc.ladder.compare import compare_codes, describe
from nmc.ladder.rungs import Rung
from nmc.wishes import Wishes
from nmc_compiler.graph import Graph, Node
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.lowering.host import sending
from nmc_emulator.suits import engine_for
from nmc_emulator.trace import codes_of

STREAM_STEPS = 16
CLAIM = "every population, and every value of the host's outputs, is what the integer interpreter says, bit for bit"
SETTLED = "the host in the loop, tick after tick, gives what the tick engine gives once the host's answers have settled"


def host_noise(graph: Graph, samples: int) -> dict[str, np.ndarray]:
    """Random samples [N, T, C, H, W] of every input: numbers, spikes, codes, or tokens of the table that it is of."""
    rng, T = np.random.default_rng(0), graph.timesteps or STREAM_STEPS
    return {n.name or n.id: _noise(graph, n, rng, (samples, T, *n.type.shape)) for n in graph.sources}


def _noise(graph: Graph, node: Node, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    shape = shape if graph.input_time else (shape[0], *shape[2:])
    table = next((n for n in graph.users()[node.id] if n.op == "embedding"), None)
    if table is not None:
        weight = graph.tensor(table, "weight")
        assert weight is not None
        return rng.integers(0, len(weight), shape).astype(np.float64)
    if not node.type.is_event:
        encoder = next((n for n in graph.users()[node.id] if n.op == "encode"), None)
        low, high = (-2.0, 2.0) if encoder is None else (encoder.attr(k) / encoder.attr("scale") for k in ("lo", "hi"))
        return rng.uniform(low, high, shape)
    bits = max(node.type.bits, 1)
    low, high = (-(1 << bits - 1) + 1, 1 << bits - 1) if node.type.signed else (0, 1 << bits)
    return rng.integers(low, high, shape)


def host_rungs(compiled: Compiled, samples: int) -> Iterator[Rung]:
    """Integer interpreter = emulator with the host in its loop = ticks. samples: windows, or pieces of a stream."""
    graph, program = compiled.int_graph, compiled.program
    given = host_noise(graph, samples)
    senders = {p.name: sending(graph, p.name) for p in program.populations if p.model == "input"}
    ids = {name: node.id for name, node in senders.items() if node is not None}
    truth = interpret(graph, given, record="all", values=list(ids.values()))
    codes = truth.codes | {name: truth.values[i] for name, i in ids.items()}
    first = engine_for(program)
    fast, outputs = _run(compiled, given, first)
    steps = next(iter(codes.values())).shape[0]
    want = {n: v for n, v in truth.outputs.items() if n in outputs}
    yield _rung("int = emulator", CLAIM, compiled, _dense(fast, steps), codes, (outputs, want), first)
    slow, again = _run(compiled, given, "ticks")
    there = {n: np.moveaxis(v, 0, 1) for n, v in again.items()}
    yield _rung(
        f"{first} = ticks", SETTLED, compiled, _dense(fast, steps), _dense(slow, steps), (outputs, there), first
    )


def _run(compiled: Compiled, given: dict[str, np.ndarray], engine: str) -> tuple[EventOutcome, dict[str, np.ndarray]]:
    drive: HostDrive = host_drive(compiled, given)
    done = run_job(EventJob(drive, compiled.digest, Wishes("all"), engine), None, progress=False, catch=False)
    return done, drive.host.outputs


def _dense(done: EventOutcome, steps: int) -> dict[str, np.ndarray]:
    """Codes [T, N, C, H, W] by population."""
    found = {}
    for p in done.program.populations:
        if p.name in done.events:
            events = done.events[p.name]
            codes = codes_of(events, steps * done.result.samples, p.shape)
            found[p.name] = np.moveaxis(codes.reshape(-1, steps, *p.shape), 0, 1)
    return found


def _rung(
    name: str,
    claim: str,
    compiled: Compiled,
    found: dict[str, np.ndarray],
    wanted: dict[str, np.ndarray],
    outputs: tuple[dict[str, np.ndarray], dict[str, np.ndarray]],
    engine: str,
) -> Rung:
    """``outputs``: [N, T, ...] of the emulator, [T, N, ...] of the other."""
    program = compiled.program
    order = [p for p in sorted(program.populations, key=lambda p: p.level) if p.name in wanted and p.name in found]
    seen = compare_codes((p.name, wanted[p.name], found[p.name]) for p in order)
    got, want = outputs
    wrong = {n: int((np.moveaxis(got[n], 0, 1) != want[n]).sum()) for n in want}
    first: dict[str, Any] | None = None
    if seen.first is not None:
        p = next(p for p in order if p.name == seen.first.layer)
        first = describe(seen.first, p.shape, seen.first.timestep * program.ticks_per_step + p.level)
    elif any(wrong.values()):
        layer = next(n for n in wrong if wrong[n])
        first = {"layer": layer, "reason": f"{wrong[layer]} values of the host's output differ"}
    compared = seen.compared + sum(v.size for v in want.values())
    numbers = {"populations": len(order), "outputs": len(want), "engine": engine, "mapped": program.mapping is not None}
    return Rung(name, claim, compared, seen.different + sum(wrong.values()), first, numbers)
