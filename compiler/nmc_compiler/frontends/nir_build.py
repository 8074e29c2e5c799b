"""From a flat NIR graph to the float SpikeGraph, node by node, with a line of the conversion report for each."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.nir_flat import FlatGraph
from nmc_compiler.frontends.nir_loops import Timing
from nmc_compiler.frontends.nir_neurons import Discrete, compact, elements
from nmc_compiler.frontends.nir_shapes import Shapes, canonical, padding, pair
from nmc_compiler.graph import Attr, Graph, GraphBuilder, Kind, Ref, Use, ValueType
from nmc_compiler.nir.rules import Rule
from nmc_compiler.nir.schema import FIRING, INTEGRATING, NirNode

FILE = "checkpoint"  # evidence
FAITHFUL, APPROXIMATE = "faithful", "approximate"
OFF_GRID = 1e-6  # of dt: a delay this close to whole timesteps is one
MAX_STEPS = 1 << 16


@dataclass(frozen=True)
class InputKind:
    """What the inputs carry: None real values, 0 spikes, else codes of so many bits, maybe signed."""

    bits: int | None = 0
    signed: bool = False

    @property
    def type(self) -> tuple[Kind, int, bool]:
        if self.bits is None:
            return Kind.REAL, 0, False
        return (Kind.GRADED, self.bits, self.signed) if self.bits else (Kind.SPIKE, 0, False)


@dataclass
class Builder:
    """State of a build: the graph so far, and the report entries. ``ruled`` and ``told`` are the evidence of what the
    rule and the kind of input say: "config" where the user named them, else "default".
    """

    flat: FlatGraph
    timing: Timing
    shapes: Shapes
    rule: Rule
    dt: float
    inputs: InputKind
    graph: GraphBuilder
    ruled: str
    told: str
    entries: list[dict[str, Any]] = field(default_factory=list)

    def build(self) -> Graph:
        """Add every node in order; what is read a timestep late is announced before."""
        kinds = self._kinds()
        for name in sorted({a for a, _ in self.timing.late}):
            kind, bits, signed = kinds[name]
            self.graph.declare(name, ValueType(kind, canonical(self.shapes.gives[name]), bits, signed))
        sources = self.flat.sources()
        for name in self.timing.order:
            node = self.flat.nodes[name]
            operand = self._operand(node, sources[name])
            changes, facts = _BUILD.get(node.type, _neuron)(self, node, operand)
            self._report(node, changes, facts)
        return self.graph.build()

    # ---- operands ----

    def _operand(self, node: NirNode, sources: list[str]) -> Use | str:
        """What a node reads: one value, or the sum of several, in its shape."""
        if node.type == "Input":
            return ""
        shape = canonical(self.shapes.takes[node.name])
        uses: list[Use | str] = []
        for source in sources:
            use: Use | str = Use(source, int((source, node.name) in self.timing.late))
            if canonical(self.shapes.gives[source]) != shape:
                use = self.graph.add("reshape", use, id=self.helper(f"{source}:{node.name}"), shape=shape)
            uses.append(use)
        if len(uses) == 1:
            return uses[0]
        terms = [self._current(use, f"{s}:{node.name}:in") for use, s in zip(uses, sources, strict=True)]
        return self.graph.add("add", *terms, id=self.helper(f"{node.name}:sum"))

    def _current(self, use: Use | str, name: str) -> Use | str:
        """Events as a current, so that they can be added to others."""
        id = use.node if isinstance(use, Use) else use
        known = self.graph.nodes.get(id)
        type_ = known.type if known else self.graph.declared[id]
        return self.graph.add("map", use, id=self.helper(name), mode="same") if type_.is_event else use

    def helper(self, name: str) -> str:
        """An id of a node that NIR has no name for."""
        while name in self.flat.nodes or name in self.graph.nodes:
            name += "+"
        return name

    def _kinds(self) -> dict[str, tuple[Kind, int, bool]]:
        """Kinds of the values that each node gives; Flatten and Delay hand on what they read."""
        out: dict[str, tuple[Kind, int, bool]] = {}
        sources = self.flat.sources()
        for _ in range(2):
            for name in self.timing.order:
                node, read = self.flat.nodes[name], sources[name]
                if node.type == "Input":
                    out[name] = self.inputs.type
                elif node.type in (*FIRING, "Threshold"):
                    out[name] = (Kind.SPIKE, 0, False)
                elif node.type in INTEGRATING:
                    out[name] = (Kind.REAL, 0, False)
                elif node.type in ("Flatten", "Delay", "Output") and len(read) == 1:
                    out[name] = out.get(read[0], (Kind.CURRENT, 0, False))
                else:
                    out[name] = (Kind.CURRENT, 0, False)
        return out

    # ---- values ----

    def number(self, name: str, key: str, value: np.ndarray, evidence: str = FILE) -> Attr:
        """A parameter: one number where all are equal, else a tensor [C] or [C, H, W]."""
        found = compact(value)
        return Attr(found if isinstance(found, float) else self.tensor(name, key, found), evidence)

    def tensor(self, name: str, key: str, array: np.ndarray) -> Ref:
        return self.graph.tensor(f"{name}.{key}", np.ascontiguousarray(array))

    def _report(self, node: NirNode, changes: list[str], facts: dict[str, Any]) -> None:
        notes = self.shapes.notes.get(node.name, [])
        late = sorted(a for a, b in self.timing.late if b == node.name)
        if any(b == node.name for _, b in self.timing.forced):
            changes = [*changes, "is read a timestep late by neurons that lie ahead, too"]
        if late:
            facts = {**facts, "late": f"reads {', '.join(late)} one timestep late: a loop"}
        entry: dict[str, Any] = {"pass": "nir", "layer": node.name, "type": node.type}
        entry["rating"] = APPROXIMATE if changes else FAITHFUL
        entry["shape"] = list(self.shapes.gives[node.name])
        self.entries.append(entry | facts | ({"notes": [*changes, *notes]} if changes or notes else {}))


Result = tuple[list[str], dict[str, Any]]


def _input(b: Builder, node: NirNode, _: Use | str) -> Result:
    given: dict[str, Any] = {} if b.inputs.bits is None else {"bits": Attr(b.inputs.bits, b.told)}
    if b.inputs.signed:
        given["signed"] = Attr(True, b.told)
    shape = Attr(canonical(b.shapes.gives[node.name]), FILE)
    b.graph.add("input", id=node.name, name=node.name, shape=shape, **given)
    return [], {}


def _output(b: Builder, node: NirNode, operand: Use | str) -> Result:
    b.graph.add("output", operand, id=node.name, name=node.name)
    return [], {}


def _linear(b: Builder, node: NirNode, operand: Use | str) -> Result:
    weight = node.values["weight"][:, :, None, None]
    bias = _bias(b, node, len(weight))
    b.graph.add("conv2d", operand, id=node.name, name=node.name, weight=_file(b, node, "weight", weight), bias=bias)
    return [], {}


def _file(b: Builder, node: NirNode, key: str, array: np.ndarray) -> Attr:
    kept = array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)
    return Attr(b.tensor(node.name, key, kept), FILE)


def _bias(b: Builder, node: NirNode, channels: int) -> Attr | None:
    """A bias of zeros is none."""
    bias = node.get("bias")
    if bias is None or not bias.any():
        return None
    return _file(b, node, "bias", np.broadcast_to(bias.reshape(-1), (channels,)))


def _conv(b: Builder, node: NirNode, operand: Use | str) -> Result:
    dims = int(node.type[4])
    weight, facts = node.values["weight"], {}
    pads = padding(node, dims)
    dilation = pair(node.values["dilation"])[:dims]
    if node.values["padding"] == "same":
        facts["padding"] = f"same: {', '.join(f'{a}+{z}' for a, z in pads)} zeros"
    for axis, (front, behind) in enumerate(pads):
        if front != behind:
            weight = _evened(node, weight, 2 + axis, dilation[axis])
    shape = {"stride": pair(node.values["stride"])[:dims], "pad": [z for _, z in pads], "dilation": dilation}
    if dims == 1:
        weight = weight[:, :, None, :]
        shape = {key: ((0 if key == "pad" else 1), value[0]) for key, value in shape.items()}
    usual = {"stride": (1, 1), "pad": (0, 0), "dilation": (1, 1)}
    given = {k: Attr(tuple(int(n) for n in v), FILE) for k, v in shape.items() if tuple(v) != usual[k]}
    groups = node.values["groups"]
    b.graph.add(
        "conv2d",
        operand,
        id=node.name,
        name=node.name,
        weight=_file(b, node, "weight", weight),
        bias=_bias(b, node, len(weight)),
        groups=Attr(groups, FILE) if groups != 1 else None,
        **given,
    )
    return [], facts


def _evened(node: NirNode, weight: np.ndarray, axis: int, dilation: int) -> np.ndarray:
    """'same' with an even kernel pads one zero more behind: a zero in front of the kernel makes the two equal."""
    if dilation != 1:
        raise FrontendError(f"{node.where}: padding 'same' with an even kernel and dilation {dilation} is not even")
    zeros = np.zeros_like(np.take(weight, [0], axis))
    return np.concatenate([zeros, weight], axis)


def _sum_pool(b: Builder, node: NirNode, operand: Use | str) -> Result:
    b.graph.add("sumpool2d", operand, id=node.name, name=node.name, **_window(node))
    return [], {}


def _average(b: Builder, node: NirNode, operand: Use | str) -> Result:
    window = _window(node)
    total = b.graph.add("sumpool2d", operand, id=b.helper(f"{node.name}:sum"), **window)
    size = math.prod(pair(node.values["kernel_size"]))
    b.graph.add("scale", total, id=node.name, name=node.name, factor=Attr(1.0 / size, "derived"))
    return [], {"padding": "zeros count"} if "pad" in window else {}


def _window(node: NirNode) -> dict[str, Any]:
    kernel, stride, pad = (pair(node.values[key]) for key in ("kernel_size", "stride", "padding"))
    given = {"kernel": Attr(kernel, FILE), "stride": Attr(stride, FILE)}
    return given | ({"pad": Attr(pad, FILE)} if pad != (0, 0) else {})


def _flatten(b: Builder, node: NirNode, operand: Use | str) -> Result:
    shape = Attr(canonical(b.shapes.gives[node.name]), FILE)
    b.graph.add("reshape", operand, id=node.name, name=node.name, shape=shape)
    return [], {}


def _scale(b: Builder, node: NirNode, operand: Use | str) -> Result:
    value = elements(node, "scale", b.shapes.gives[node.name])
    b.graph.add("scale", operand, id=node.name, name=node.name, factor=b.number(node.name, "factor", value))
    return [], {}


def _delay(b: Builder, node: NirNode, operand: Use | str) -> Result:
    steps, worst = steps_of(node, b.dt)
    full = steps.reshape(1) if steps.size == 1 else steps.reshape(canonical(b.shapes.gives[node.name]))
    if isinstance(operand, Use) and operand.lag:
        full = full - 1  # the edge itself takes the first of them
    found = compact(full)
    value = int(found) if isinstance(found, float) else b.tensor(node.name, "steps", found)
    b.graph.add("delay", operand, id=node.name, name=node.name, steps=Attr(value, FILE))
    facts = {"steps": [int(steps.min()), int(steps.max())], "worst_error": worst}
    off = worst > OFF_GRID * b.dt
    return [f"delays rounded to whole timesteps: up to {worst:g} s off"] if off else [], facts


def steps_of(node: NirNode, dt: float) -> tuple[np.ndarray, float]:
    """Delays in whole timesteps, and the largest error in seconds."""
    delay = node.values["delay"].astype(np.float64)
    if delay.size and delay.min() < 0:
        raise FrontendError(f"{node.where}: a delay of {delay.min():g} s is negative")
    steps = np.rint(delay / dt)
    if delay.size and steps.max() > MAX_STEPS:
        raise FrontendError(
            f"{node.where}: a delay of {delay.max():g} s is {steps.max():.0f} timesteps of --dt {dt:g}, more than "
            f"{MAX_STEPS}; give a longer --dt"
        )
    return steps.astype(np.int64), float(np.abs(delay - steps * dt).max()) if delay.size else 0.0


def _neuron(b: Builder, node: NirNode, operand: Use | str) -> Result:
    found = Discrete(node, b.shapes.gives[node.name], b.rule, b.dt)
    attrs: dict[str, Attr] = {key: b.number(node.name, key, value) for key, value in found.values.items()}
    attrs = {key: attr for key, attr in attrs.items() if key not in ("leak", "start_v", "v_reset") or attr.value != 0.0}
    attrs |= {key: Attr(value, b.ruled) for key, value in found.choices.items()}
    op = "neuron" if node.type in (*FIRING, "Threshold") else "integrator"
    b.graph.add(op, operand, id=node.name, name=node.name, **attrs)
    return found.changes, found.facts


_BUILD = {
    "Input": _input,
    "Output": _output,
    "Linear": _linear,
    "Affine": _linear,
    "Conv1d": _conv,
    "Conv2d": _conv,
    "SumPool2d": _sum_pool,
    "AvgPool2d": _average,
    "Flatten": _flatten,
    "Scale": _scale,
    "Delay": _delay,
}
