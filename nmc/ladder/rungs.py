"""The rungs: each compares two independent computations of the same network and says what it saw."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nmc.artefact import Compiled
from nmc.ladder.compare import Comparison, Place, compare_codes, describe
from nmc.ladder.explain import Reader, explain_graph, explain_program
from nmc.ladder.golden import Golden
from nmc_compiler.errors import ArtefactError
from nmc_compiler.graph import Graph
from nmc_compiler.graph.analysis import populations
from nmc_compiler.graph.interpret import Interpretation, interpret
from nmc_compiler.mapping import find_problems
from nmc_compiler.program.model import Program
from nmc_compiler.target import Target
from nmc_emulator import RunResult

FLIP_RATE = 1e-6  # a potential within float rounding of its threshold may go either way
LOGIT_TOLERANCE = 1e-4
ACCURACY_POINTS = 1.0  # by how much 8-bit weights may change the accuracy, in percent
CHUNK = 16  # images interpreted at once: bounds memory, changes nothing


@dataclass(frozen=True)
class Rung:
    """One rung of the ladder.

    ``compared`` things were compared, ``mismatches`` of them break what the rung claims; ``first``
    tells the first one, with the inputs of the neuron, or is None. ``numbers``: what else was seen.
    """

    name: str
    claim: str
    compared: int
    mismatches: int
    first: dict[str, Any] | None = None
    numbers: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.mismatches == 0

    def as_json(self) -> dict[str, Any]:
        keys = ("name", "claim", "compared", "mismatches", "first", "numbers")
        return {key: getattr(self, key) for key in keys} | {"ok": self.ok}


# --- 1: golden = float interpreter ------------------------------------------------------------------------


def golden_rung(graph: Graph, golden: Golden, logits: np.ndarray) -> Rung:
    """Recorded spikes and logits = float interpreter; ``logits`` are the interpreter's, [N, classes].

    One flip moves much behind it. Where more differ than rounding explains, every layer is judged by itself: each
    population gets the recorded spikes of those before it.
    """
    recorded = golden.samples.images[: golden.recorded]
    run = interpret(graph, recorded, record=list(golden.codes))
    order = [n.name for n in populations(graph) if n.name in golden.codes]
    seen = judged = compare_codes((name, golden.codes[name], run.codes[name]) for name in order)
    if seen.different > FLIP_RATE * seen.compared:
        alone = interpret(graph, recorded, record=list(golden.codes), given=golden.codes)
        judged = compare_codes((name, golden.codes[name], alone.codes[name]) for name in order)
        if judged.different <= FLIP_RATE * judged.compared:
            logits = np.concatenate([alone.logits, logits[golden.recorded :]])
    error = np.abs(logits - golden.logits).max(axis=1)
    off = np.flatnonzero(~(error <= LOGIT_TOLERANCE)).tolist()
    flips = _Flips(judged, golden, off)
    bad = flips.unexplained(off)
    first = None
    if not flips.few_seen and seen.first is not None:
        first = _in_graph(graph, golden, seen.first)
    elif bad:
        first = {"image": bad[0], "layer": "logits", "expected": golden.logits[bad[0]].tolist()}
        first |= {"got": logits[bad[0]].tolist(), "tolerance": LOGIT_TOLERANCE}
    return Rung(
        "golden = float",
        "the recorded spikes and logits are those of the float interpreter",
        seen.compared + golden.logits.size,
        (0 if flips.few_seen else seen.different) + len(bad),
        first,
        {
            "populations": len(order),
            "images": golden.recorded,
            "spikes_compared": seen.compared,
            "flips": seen.different,
            "flips_behind_recorded_spikes": judged.different,
            "flips_allowed": int(FLIP_RATE * seen.compared),
            "logits_compared": int(golden.logits.size),
            "images_with_logits_off": len(off),
            "largest_logit_error": float(error.max()),
            "logit_tolerance": LOGIT_TOLERANCE,
        },
    )


class _Flips:
    """Whether flips are few enough to be rounding, and which logits they explain.

    A flip moves the logits of its image. Where the spikes were not recorded a flip cannot be seen, so
    an image whose logits are off counts as one flip, under the same rate.
    """

    def __init__(self, seen: Comparison, golden: Golden, off: list[int]) -> None:
        self.images, self.recorded = seen.images, golden.recorded
        self.few_seen = seen.different <= FLIP_RATE * seen.compared
        unseen = sum(i >= golden.recorded for i in off)
        spikes = seen.compared / golden.recorded * len(golden.samples.images)
        self.few = self.few_seen and seen.different + unseen <= FLIP_RATE * spikes

    def unexplained(self, off: list[int]) -> list[int]:
        """Images whose logits are off though no flip accounts for it."""
        return [i for i in off if not ((self.few_seen and i in self.images) or (self.few and i >= self.recorded))]


def _in_graph(graph: Graph, golden: Golden, place: Place) -> dict[str, Any]:
    node = next(n for n in populations(graph) if n.name == place.layer)
    image = golden.samples.images[place.image]
    inputs = explain_graph(graph, image, place.layer, place.neuron, place.timestep)
    return describe(place, node.type.shape, None, inputs=inputs)


# --- 2: float ~ int interpreter ---------------------------------------------------------------------------


def accuracy_rung(golden: Golden, float_logits: np.ndarray, int_logits: np.ndarray) -> Rung:
    """Accuracy of the integer graph within a point of the float graph's, on the labelled images."""
    labels = golden.samples.labels
    assert labels is not None  # read_golden refuses files without
    right = [logits.argmax(axis=1) == labels for logits in (float_logits, int_logits)]
    images, changed = len(labels), int((right[0] != right[1]).sum())
    correct = [int(r.sum()) for r in right]
    apart, allowed = abs(correct[0] - correct[1]), _images_allowed(images, changed)
    first = None
    if apart > allowed:
        first = {"layer": "logits", "expected": correct[0] / images, "got": correct[1] / images}
        first |= {"reason": f"{correct[0]} and {correct[1]} of {images} images right; {allowed} apart are allowed"}
    return Rung(
        "float ~ int",
        "quantisation changes the accuracy by at most one point",
        images,
        apart if apart > allowed else 0,
        first,
        {
            "float_accuracy": correct[0] / images,
            "int_accuracy": correct[1] / images,
            "images_apart": apart,
            "images_apart_allowed": allowed,
            "images_right_in_one_only": changed,
        },
    )


def _images_allowed(images: int, changed: int) -> int:
    """One point. Fewer than 100 images cannot show one: there, two standard errors of the difference.

    ``changed`` images are right in one of the two only; by chance alone their balance has a standard
    deviation of sqrt(changed) (McNemar 1947).
    """
    if images >= 100:
        return int(images * ACCURACY_POINTS / 100)
    return max(math.isqrt(4 * changed), 1)


def all_logits(graph: Graph, images: np.ndarray) -> np.ndarray:
    """Logits [N, classes] of the interpreter, in chunks."""
    parts = [interpret(graph, images[i : i + CHUNK]).logits for i in range(0, len(images), CHUNK)]
    return np.concatenate(parts)


# --- 3: int interpreter = emulator ------------------------------------------------------------------------


def emulator_rung(compiled: Compiled, images: np.ndarray, run: RunResult) -> Rung:
    """Integer interpreter = emulator, every population and the read-out, bit for bit."""
    graph, program = compiled.int_graph, compiled.program
    truth, codes = _interpreted(graph, images)
    relays = _relays(program, set(codes))
    _same_populations(set(codes), program, relays)
    order = sorted((p for p in program.populations if p.model != "readout"), key=lambda p: p.level)
    pairs = ((p.name, codes[relays.get(p.name, p.name)], _time_first(run, p.name)) for p in order)
    seen = compare_codes(pairs)
    assert truth.raw_logits is not None
    wrong = truth.raw_logits.astype(np.int64) != run.logits_int
    first = None
    if seen.first is not None:
        first = _in_program(compiled, images, run, seen.first, relays)
    elif wrong.any():
        first = _read_out(program, images, run, wrong, truth.raw_logits.astype(np.int64))
    return Rung(
        "int = emulator",
        "every population of the mapped Program emits what the integer interpreter says, bit for bit",
        seen.compared + wrong.size,
        seen.different + int(wrong.sum()),
        first,
        {"populations": len(order), "images": len(images), "engine": run.engine, "mapped": run.mapped},
    )


def _interpreted(graph: Graph, images: np.ndarray) -> tuple[Interpretation, dict[str, np.ndarray]]:
    """A run of the interpreter, and the codes of all that emits events, the encoded input included."""
    by_id = graph.by_id()
    inputs = {n.id: n.name or by_id[n.operands[0]].name or "input" for n in graph if n.op == "encode"}
    run = interpret(graph, images, record="all", values=list(inputs))
    return run, run.codes | {name: run.values[node] for node, name in inputs.items()}


def _relays(program: Program, emitters: set[str]) -> dict[str, str]:
    """Relays that lowering put between two populations -> the population whose codes they hand on."""
    found: dict[str, str] = {}
    for item in program.maps:
        for p in program.populations:
            if p.dendrite == item.dst and p.role == "relay" and p.name not in emitters:
                source = program.populations[item.src].name
                found[p.name] = found.get(source, source)
    return found


def _same_populations(emitters: set[str], program: Program, relays: dict[str, str]) -> None:
    """Both sides must have the same populations, or something would go uncompared."""
    names = {p.name for p in program.populations if p.model != "readout"} - set(relays)
    stray = sorted(names ^ emitters)
    if stray or not names:
        where = "the Program" if stray and stray[0] in names else "the graph"
        raise ArtefactError(
            f"Program '{program.name}' and its integer graph have different populations: only {where} has "
            f"{stray[0] if stray else 'any'!r} ({len(stray)} such); compile again"
        )


def _time_first(run: RunResult, name: str) -> np.ndarray:
    return np.moveaxis(run.codes[name], 0, 1)  # [N, T, ...] -> [T, N, ...]


def _in_program(
    compiled: Compiled, images: np.ndarray, run: RunResult, place: Place, relays: dict[str, str]
) -> dict[str, Any]:
    program = compiled.program
    p = next(p for p in program.populations if p.name == place.layer)
    reader = Reader(program, {name: code[place.image] for name, code in run.codes.items()}, images[place.image])
    inputs: dict[str, Any] = {
        "program": explain_program(reader, place.layer, place.neuron, place.timestep),
    }
    if place.layer not in relays and p.model != "input":
        args = (images[place.image], place.layer, place.neuron, place.timestep)
        inputs["interpreter"] = explain_graph(compiled.int_graph, *args)
    tick = place.timestep * program.ticks_per_step + p.level
    return describe(place, p.shape, tick, inputs=inputs)


def _read_out(
    program: Program, images: np.ndarray, run: RunResult, wrong: np.ndarray, truth: np.ndarray
) -> dict[str, Any]:
    """The read-out differs though every spike agrees."""
    image, c = (int(i) for i in np.argwhere(wrong)[0])
    p = next(p for p in program.populations if p.model == "readout")
    last = program.timesteps - 1
    place = Place(p.name, image, last, (c, 0, 0), int(truth[image, c]), int(run.logits_int[image, c]))
    reader = Reader(program, {name: code[image] for name, code in run.codes.items()}, images[image])
    inputs = {"program": explain_program(reader, p.name, place.neuron, last)}
    return describe(place, p.shape, last * program.ticks_per_step + p.level, inputs=inputs)


# --- 4: layers engine = ticks engine ----------------------------------------------------------------------


ENGINE_CLAIMS = {
    "ticks": "computing a layer over all timesteps gives what running tick by tick from the mapping's tables gives",
    "neurocore": "computing a layer over all timesteps gives what the image of the cores gives",
}


def engines_rung(compiled: Compiled, images: np.ndarray, layers: RunResult, ticks: RunResult) -> Rung:
    """Layers engine = ticks engine, or engine of a neurocore: every population, the read-out, and every counter."""
    program = compiled.program
    order = sorted((p for p in program.populations if p.model != "readout"), key=lambda p: p.level)
    seen = compare_codes((p.name, _time_first(ticks, p.name), _time_first(layers, p.name)) for p in order)
    wrong = ticks.logits_int != layers.logits_int
    counters = ticks.counters.differences(layers.counters)
    names = len(ticks.counters.tables) + len(ticks.counters.bound) + len(ticks.counters.overflow)
    first: dict[str, Any] | None = None
    if seen.first is not None:
        first = _in_program(compiled, images, layers, seen.first, {p.name: p.name for p in order})
    elif wrong.any():
        first = _read_out(program, images, layers, wrong, ticks.logits_int)
    elif counters:
        first = {"layer": "counters", "reason": f"counters differ: {', '.join(counters)}"}
        first |= _counter_values(ticks, layers, counters[0])
    return Rung(
        f"layers = {ticks.engine}",
        ENGINE_CLAIMS[ticks.engine],
        seen.compared + wrong.size + names,
        seen.different + int(wrong.sum()) + len(counters),
        first,
        {"populations": len(order), "images": len(images), "counters": names},
    )


def _counter_values(ticks: RunResult, layers: RunResult, name: str) -> dict[str, Any]:
    kind, _, key = name.rpartition(".")
    pick = {"": "tables", "bound": "bound", "overflow": "overflow"}[kind]
    values = [np.sum(getattr(run.counters, pick)[key]).item() for run in (ticks, layers)]
    return {"counter": name, "expected": values[0], "got": values[1]}


# --- 5: mapping checker -----------------------------------------------------------------------------------


def mapping_rung(program: Program, target: Target) -> Rung:
    """The mapping carries out the netlist, and no core exceeds a limit."""
    result = find_problems(program, target)
    first = {"layer": "mapping", "reason": result.problems[0]} if result.problems else None
    return Rung(
        "mapping",
        "every event reaches each of its synapses once, on a core that has room for them",
        result.synapses,
        len(result.problems),
        first,
        {"event_streams": result.projections, "axon_rows": result.axons},
    )
