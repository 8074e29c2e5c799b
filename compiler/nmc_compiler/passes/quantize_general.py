"""Integers for any spiking network: one scale per population, 12-bit decays, weights of 8 bits and a shift.

Works on what ``join_linear`` leaves: neurons that read sums of convolutions and synapse tables. With S synaptic
units per unit of the current, a = S x, the potential is V = 64 S v, hence vth = S theta and bias = 64 S leak; the
decays are du = 4096 (1 - alpha) - 1 and dv = 4096 (1 - beta). Every number and what it cost goes into the report.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from nmc_compiler.errors import LoweringError, UsageError
from nmc_compiler.graph import Attr, Graph, Kind, Node, Ref, Use, label, rebuild
from nmc_compiler.graph.ops_dynamics import TOP_VTH
from nmc_compiler.passes.agreement import Inputs, peaks_of
from nmc_compiler.passes.base import derived, stored
from nmc_compiler.passes.cells import CellForm, bias_bound, bias_of, gain_of, height_of, needs_cell, piled, top_of
from nmc_compiler.passes.counts import first_above
from nmc_compiler.passes.gates import event_norm
from nmc_compiler.passes.integer_form import GRAIN
from nmc_compiler.passes.projections import projections_of
from nmc_compiler.passes.quantize import CANDIDATES, Quantize
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.passes.scales import WeightRange

LOST_BITS = 2  # of a weight, for the sake of currents that are sure to stay in their register
HEADROOM = 8.0  # where that is not enough: by how much the static bound (all inputs at their worst) may be exceeded
MEASURED = 2.0  # room above what calibration data reached
DECAY = 4096


@dataclass(frozen=True)
class QuantizeGeneral:
    """``chip``: the numbers of the target. ``calibration``: inputs whose currents and potentials set the scales."""

    name: ClassVar[str] = "quantize"
    chip: Quantize
    calibration: Inputs | None = None

    def apply(self, graph: Graph, report: ConversionReport) -> Graph:
        return GeneralQuantizer(graph, self, report).run()


@dataclass(frozen=True)
class _Part:
    """A projection of a neuron: its float weights per code of the source, and the ends of the codes.

    ``shifts``: its sums may be shifted right. Sums of codes have bits to spare; a sum of few spikes would lose some.
    """

    node: Node
    weight: np.ndarray
    low: float
    high: float
    shifts: bool


class GeneralQuantizer:
    def __init__(self, graph: Graph, options: QuantizeGeneral, report: ConversionReport) -> None:
        self.graph, self.options, self.chip, self.report = graph, options, options.chip, report
        self.by_id = graph.by_id()
        self.peaks = {} if options.calibration is None else peaks_of(graph, options.calibration)
        self.tensors: dict[str, np.ndarray] = {}

    def run(self) -> Graph:
        nodes = [new for node in self.graph for new in self._rewritten(node)]
        return rebuild(self.graph, nodes, self.tensors, numbers="int")

    def _rewritten(self, node: Node) -> list[Node]:
        if node.op in ("neuron", "integrator"):
            return self._neuron(node)
        if node.op == "sigma_delta":
            raise LoweringError(f"'{label(node)}' is a sigma-delta neuron of real numbers; build its integers instead")
        if node.op == "input" and node.type.kind is Kind.REAL:
            return self._encoded(node)
        for ref in (a.value for a in node.attrs.values() if isinstance(a.value, Ref)):
            self.tensors[ref.key] = self.graph.tensors[ref.key]
        return [] if node.op in ("conv2d", "sparse", "add") else [node]

    # ---- inputs ----

    def _encoded(self, node: Node) -> list[Node]:
        """The input behind its graded codes; the encoder keeps the input's id, so that readers find it."""
        low, high = self.chip.input_range
        if not low < high:
            raise UsageError(f"input range {(low, high)} is empty; give its least and largest value")
        scale = derived(float(self._norm(node)))
        ends = {"lo": derived(-127 if low < 0 else 0), "hi": derived(127 if low < 0 else 255)}
        raw = replace(node, id=f"{node.id}.real")
        self.report.notes.append(
            f"input '{label(node)}' becomes codes of 8 bits, {1 / self._norm(node):.4g} each, from {low:g} to {high:g}"
        )
        return [raw, Node(node.id, "encode", (Use(raw.id),), {"scale": scale, **ends}, node.type)]

    def _norm(self, source: Node) -> float:
        """Codes per value of the source."""
        if source.op != "input" or source.type.kind is not Kind.REAL:
            return event_norm(source, self.by_id)
        low, high = self.chip.input_range
        return 255.0 / high if low >= 0 else 127.0 / max(-low, high)

    def _ends(self, source: Node) -> tuple[float, float]:
        """Least and greatest code of the source."""
        if source.op == "input" and source.type.kind is Kind.REAL:
            return (-127.0 if self.chip.input_range[0] < 0 else 0.0), 255.0
        if "levels" in source.attrs:
            return 0.0, float(source.attr("levels"))
        if "theta_low" in source.attrs:
            return -1.0, 1.0
        bits = max(source.type.bits, 1)
        return (-float(1 << bits - 1), float(1 << bits - 1)) if source.type.signed else (0.0, float((1 << bits) - 1))

    # ---- one population ----

    def _neuron(self, node: Node) -> list[Node]:
        parts = self._parts(node)
        du, dv = self._decays(node)
        scale, ranges, facts = self._scale(node, parts)
        projections, errors = self._projections(node, parts, scale, ranges)
        attrs = {"dv": derived(dv)} | ({"du": derived(du)} if du != DECAY - 1 else {})
        reasons = self._decay_reasons(node, du, dv)
        cell = self._microcoded(node)
        form = CellForm(self.graph, node, np.full(node.type.shape[0], GRAIN * scale), self.tensors) if cell else None
        drive = {} if form is None else form.drive(bias_of(self.graph, node), form.unit)
        attrs |= drive or self._biases(node, scale, facts, reasons)
        attrs |= self._starts(node, scale, reasons)
        if form is not None:
            attrs |= form.attrs | self._unit_of(node, scale)
            facts, reasons = facts | form.facts, [*reasons, *form.reasons]
            attrs |= {k: v for k, v in node.attrs.items() if k.startswith("record_")}
        elif node.op == "neuron":
            attrs |= self._threshold(node, scale, (du, dv), facts, reasons, attrs)
            attrs |= {k: v for k, v in node.attrs.items() if k.startswith("record_")}
        else:
            attrs["scale"] = derived(1.0 / (GRAIN * scale))
        if "part_of" in node.attrs:
            elements = self.graph.tensor(node, "elements")
            assert elements is not None
            attrs["part_of"] = node.attrs["part_of"]
            attrs["elements"] = stored(self.tensors, node.attr("elements").key, elements)
        if self.chip.profile != "loihi2":
            attrs["profile"] = Attr(self.chip.profile, "target")
        self.report.add(
            "quantize", label(node), kind=node.op, scale=scale, du=du, dv=dv, reasons=reasons,
            rating="approximate" if reasons else "faithful", weight_worst_error=errors, **facts,
        )  # fmt: skip
        op = "cell" if cell else "cuba_lif" if node.op == "neuron" else "int_integrator"
        return [*projections, replace(node, op=op, attrs=attrs, inputs=(Use(projections[-1].id),))]

    def _microcoded(self, node: Node) -> bool:
        """Whether a soma of microcode has to do it; LoweringError where the target has none."""
        if gain_of(node) != 1.0:
            raise LoweringError(f"'{label(node)}' has a gain of {gain_of(node):g} that nothing took in; not lowered")
        why = needs_cell(self.graph, node) if node.op == "neuron" else None
        if why is not None and not self.chip.cells:
            raise LoweringError(f"'{label(node)}' {why}, which takes a microcoded neuron; the target has none")
        return why is not None

    def _unit_of(self, node: Node, scale: float) -> dict[str, Attr]:
        """What makes potentials multiples of the threshold, where all channels have the same."""
        height = np.unique(height_of(self.graph, node))
        return (
            {"scale": derived(1.0 / (GRAIN * scale * float(height[0])))} if len(height) == 1 and height[0] > 0 else {}
        )

    def _parts(self, node: Node) -> list[_Part]:
        """Projections that the neuron sums, with weights per code."""
        parts = []
        for projection in projections_of(node, self.by_id):
            source = self.by_id[projection.inputs[0].node]
            weight = self.graph.tensor(projection, "weight")
            assert weight is not None
            low, high = self._ends(source)
            shifts = high > 1 and "extra" not in projection.attrs  # shifted for each delay by itself: not lowered
            parts.append(_Part(projection, weight.astype(np.float64) / self._norm(source), low, high, shifts))
        return parts

    def _value(self, node: Node, key: str, default: float = 0.0) -> np.ndarray:
        """A parameter as [C], or [C, H, W] where it is a start."""
        value = node.attr(key, default)
        plain = isinstance(value, (int, float))
        return np.asarray(value if plain else self.graph.tensors[value.key], np.float64)

    def _decays(self, node: Node) -> tuple[int, int]:
        """du and dv; one of each is all that a population has."""
        rounded = []
        for key, less in (("alpha", 1), ("beta", 0)):
            found = np.unique(np.rint(DECAY * (1.0 - self._value(node, key))).astype(int))
            if len(found) > 1:
                raise LoweringError(f"'{label(node)}' has {len(found)} different decays {key}; split it first")
            rounded.append(max(int(found[0]) - less, 0))
        return rounded[0], rounded[1]

    def _decay_reasons(self, node: Node, du: int, dv: int) -> list[str]:
        reasons = []
        for key, lost in (("alpha", du + 1), ("beta", dv)):
            value = float(self._value(node, key).flat[0])
            if key == "alpha" and key not in node.attrs:
                continue
            kept = 1.0 - lost / DECAY
            if kept != value:
                reasons.append(f"{key} {value:.6g} becomes {kept:.6g}{_in_steps(value, kept)}")
        return reasons

    # ---- scale ----

    def _scale(self, node: Node, parts: list[_Part]) -> tuple[float, dict[str, WeightRange], dict[str, Any]]:
        """Synaptic units per unit of the current, and what limits it."""
        u_bound, v_bound, charge = self._bounds(node, parts)
        theta = float(np.abs(top_of(self.graph, node)).max()) if node.op == "neuron" else 0.0
        hard = [self.chip.accumulator_max / max(charge, 1e-300)]
        hard += [self.chip.vth_max / theta] if theta else []
        leak = float(np.max(bias_bound(self.graph, node))) if node.op == "neuron" else self._leak(node)
        hard += [self._bias_max / (GRAIN * leak)] if leak else []
        safe = self.chip.current_max / max(u_bound, v_bound, 1e-300)
        some = [p for p in parts if p.weight.any()]
        top = min(*hard, *self._weight_limits(some, safe)) if some else min(4096.0 / (theta or 1.0), *hard, safe)
        room = max(int(math.log2(max(self.chip.accumulator_max / max(charge * top, 1e-300), 1.0))), 0)
        ranges = {p.node.id: self._range(p, room) for p in parts}
        scale = _best(some, self._grid(top, theta), ranges)
        facts = {"static_current": u_bound, "can_overflow": bool(scale > safe), "largest_code_sum": charge * scale}
        return scale, ranges, facts

    def _weight_limits(self, parts: list[_Part], safe: float) -> list[float]:
        """Largest scales that weights ask for.

        Plain events: as fine as the smallest projection asks for, with up to two bits of its weights less for the sake
        of currents that are sure to fit. Codes: what fits; their sums keep further bits and are shifted right.
        """
        allowed = self.chip.weights
        largest = [float(np.abs(p.weight).max()) for p in parts]
        limits = [allowed.hi * 2.0**allowed.most_shift / max(largest)]
        plain = [size for size, part in zip(largest, parts, strict=True) if not part.shifts]
        if len(plain) < len(parts):
            return [*limits, safe]
        finest, whole = (allowed.hi * 2.0**allowed.least_shift / pick(plain) for pick in (min, max))
        return [*limits, finest, max(safe, min(whole / 2**LOST_BITS, HEADROOM * safe))]

    def _range(self, part: _Part, room: int) -> WeightRange:
        """What weights may become; shifts below the least are shifts right of the sum."""
        allowed = self.chip.weights
        if not part.shifts:
            return allowed
        return replace(allowed, least_shift=allowed.least_shift - min(self.chip.rshift_max, room))

    @property
    def _bias_max(self) -> float:
        return float(((1 << (self.chip.bias_mant_bits - 1)) - 1) << self.chip.bias_exp_max)

    def _grid(self, top: float, theta: float) -> np.ndarray:
        """Candidates up to an octave below ``top``; those that make the threshold whole where there is one."""
        unit = theta or 1.0
        high = int(top * unit)
        if high < 1:
            return np.array([top])
        low = max(high // 2, 1)
        return np.unique(np.linspace(low, high, min(CANDIDATES, high - low + 1)).astype(np.int64)) / unit

    def _bounds(self, node: Node, parts: list[_Part]) -> tuple[float, float, float]:
        """Largest |u| and |v| that must fit their registers, and |a|, in units of the current.

        From the data where there were any, else statically. A potential that fires goes no higher than its
        threshold and one current; below, it saturates, which is counted.
        """
        up, down = np.zeros(node.type.shape), np.zeros(node.type.shape)
        for part in parts:
            for sign, sums in ((1.0, up), (-1.0, down)):
                sums += self._reach(part, sign)
        charge = float(np.maximum(up, down).max())
        alpha, beta = float(self._value(node, "alpha").max()), float(self._value(node, "beta").max())
        leak = float(np.max(bias_bound(self.graph, node))) if node.op == "neuron" else self._leak(node)
        u = charge * _piled(alpha, self.graph.timesteps)
        theta = float(np.abs(top_of(self.graph, node)).max()) if node.op == "neuron" else 0.0
        v = (u + leak) * _piled(beta, self.graph.timesteps) if node.op == "integrator" else u + leak + beta * theta
        v = max(v, (u + leak) * piled(self.graph, node))
        if label(node) in self.peaks:
            peak_u, peak_v = (MEASURED * peak for peak in self.peaks[label(node)])
            above = peak_u + leak + beta * theta  # where it fires, before the reset
            u, v = min(u, peak_u), min(v, max(peak_v, above if theta else 0.0))
        return u, v, charge

    def _leak(self, node: Node) -> float:
        return float(np.abs(self._value(node, "leak")).max())

    def _reach(self, part: _Part, sign: float) -> np.ndarray:
        """Largest sum towards a sign of every element [C, H, W], each source at its most harmful code."""
        w = sign * part.weight
        each = np.maximum(w, 0) * part.high + np.minimum(w, 0) * part.low
        if part.node.op == "conv2d":
            rows = each.reshape(len(each), -1).sum(axis=1)
            return np.broadcast_to(rows[:, None, None], part.node.type.shape)
        target = self.graph.tensor(part.node, "target")
        size = math.prod(part.node.type.shape)
        return np.bincount(target, each, size).reshape(part.node.type.shape)  # type: ignore[arg-type]

    # ---- weights ----

    def _projections(
        self, node: Node, parts: list[_Part], scale: float, ranges: dict[str, WeightRange]
    ) -> tuple[list[Node], float]:
        """Integer projections and their sum, last; and the worst error of a weight, relative to the largest weight."""
        nodes: list[Node] = []
        ends, worst = [], 0.0
        for part in parts:
            mantissa, power = ranges[part.node.id].quantise(part.weight, scale)
            worst = max(worst, self._report(part, mantissa, power, scale))
            shift = max(power, self.chip.weights.least_shift)
            nodes.append(self._integer(part.node, mantissa, shift))
            if shift > power:
                down = {"shift": derived(shift - power)}
                nodes.append(Node(f"{part.node.id}.right", "rshift", (Use(part.node.id),), down, part.node.type))
            ends.append(Use(nodes[-1].id))
        first = self.by_id[node.inputs[0].node]
        return [*nodes, *([replace(first, inputs=tuple(ends))] if first.op == "add" else [])], worst

    def _integer(self, projection: Node, mantissa: np.ndarray, shift: int) -> Node:
        keys = ("indptr", "target", "extra")
        attrs = {k: v for k, v in projection.attrs.items() if k not in (*keys, "weight")}
        for key in keys:
            array = self.graph.tensor(projection, key)
            if array is not None:
                attrs[key] = stored(self.tensors, projection.attr(key).key, array)
        attrs["weight"] = stored(self.tensors, projection.attr("weight").key, mantissa)
        return replace(projection, attrs=attrs | {"shift": derived(shift)})

    def _report(self, part: _Part, mantissa: np.ndarray, power: int, scale: float) -> float:
        """What became of the weights; the largest error, relative to the largest weight."""
        weight = part.weight
        error = np.abs(mantissa.astype(np.float64) * (2.0**power / scale) - weight)
        largest, square = float(np.abs(weight).max(initial=0.0)), float(np.mean(weight**2)) if weight.size else 0.0
        self.report.add(
            "quantize", label(part.node), kind="weights", scale=scale, shift=power, bits=self.chip.weight_bits,
            largest=largest, least=float(weight.min(initial=0.0)), greatest=float(weight.max(initial=0.0)),
            worst_error=float(error.max(initial=0.0)), mean_error=float(error.mean()) if error.size else 0.0,
            rms_error_relative=math.sqrt(float(np.mean(error**2)) / square) if square else 0.0,
            rounded_to_zero=int(np.count_nonzero((mantissa == 0) & (weight != 0))), weights=int(error.size),
        )  # fmt: skip
        return float(error.max(initial=0.0)) / (largest or 1.0)

    # ---- what else a soma has ----

    def _biases(self, node: Node, scale: float, facts: dict[str, Any], reasons: list[str]) -> dict[str, Attr]:
        wanted = np.broadcast_to(self._value(node, "leak") * scale * GRAIN, (node.type.shape[0],))
        if not wanted.any():
            return {}
        top = (1 << (self.chip.bias_mant_bits - 1)) - 1
        exp = max(0, math.ceil(math.log2(max(float(np.abs(wanted).max()) / top, 1e-9))))
        if exp > self.chip.bias_exp_max:
            raise LoweringError(
                f"leak of '{label(node)}' needs a bias exponent of {exp}, at most {self.chip.bias_exp_max} is there"
            )
        bias = (np.clip(np.rint(wanted / 2.0**exp), -top, top).astype(np.int64) << exp).astype(np.int32)
        error = float(np.abs(bias - wanted).max())
        facts |= {"bias_exp": exp, "bias_worst_error_units": error / GRAIN}
        if error:
            reasons.append(f"leaks are rounded by up to {error / (GRAIN * scale):.3g}")
        return {"bias": stored(self.tensors, f"{label(node)}.bias@int", bias)}

    def _starts(self, node: Node, scale: float, reasons: list[str]) -> dict[str, Attr]:
        attrs = {}
        for key in ("start_u", "start_v"):
            value = self._value(node, key)
            if not value.any():
                continue
            value = value[:, None, None] if value.ndim == 1 else value
            wanted = np.broadcast_to(value, node.type.shape) * scale * GRAIN
            top = (1 << (self.chip.state_bits - 1)) - 1
            if np.abs(wanted).max() > top:
                raise LoweringError(f"{key} of '{label(node)}' is {np.abs(wanted).max():.0f}, a register holds {top}")
            whole = np.rint(wanted).astype(np.int32)
            if (whole != wanted).any():
                reasons.append(f"{key} is rounded")
            attrs[key] = stored(self.tensors, f"{label(node)}.{key}@int", whole)
        return attrs

    def _threshold(
        self,
        node: Node,
        scale: float,
        decays: tuple[int, int],
        facts: dict[str, Any],
        reasons: list[str],
        attrs: dict[str, Attr],
    ) -> dict[str, Attr]:
        """vth [C]; where every potential is a whole number of synaptic units the compare is met to the letter."""
        compare = node.attr("compare")
        wanted = np.broadcast_to(self._value(node, "theta"), (node.type.shape[0],)) * scale
        small = np.abs(wanted)[wanted != 0]
        if small.size and small.min() < 0.5:
            raise LoweringError(
                f"threshold of '{label(node)}' would be {small.min():.2g} units of its current, whose largest value "
                f"fills the register; its weights are too large for its threshold"
            )
        if self._on_grain(decays, attrs):
            vth = np.array([first_above(w, compare) - 1 for w in wanted])
        else:
            vth = np.rint(wanted)
            if compare == "ge":
                reasons.append(">= becomes >")
        vth = np.clip(vth, -TOP_VTH - 1, min(self.chip.vth_max, TOP_VTH)).astype(np.int32)
        error = float((np.abs(np.rint(wanted) - wanted) / np.maximum(np.abs(wanted), 1e-300)).max())
        facts |= {"vth": np.unique(vth).tolist(), "vth_error_relative": error, "theta": float(wanted.max() / scale)}
        if error > 1e-9 and not self._on_grain(decays, attrs):
            reasons.append(f"the threshold is rounded by {100 * error:.2g} %")
        if wanted.min() == wanted.max() > 0:
            attrs["scale"] = derived(1.0 / (GRAIN * float(wanted[0])))
        return {"vth": stored(self.tensors, f"{label(node)}.vth", vth)}

    def _on_grain(self, decays: tuple[int, int], attrs: dict[str, Attr]) -> bool:
        """Whether potentials are whole synaptic units: nothing decays by a part, biases and starts are whole."""
        if decays[0] != DECAY - 1 or decays[1] not in (0, DECAY):
            return False
        arrays = [self.tensors[attrs[k].value.key] for k in ("bias", "start_u", "start_v") if k in attrs]  # type: ignore[union-attr]
        return not any((a % GRAIN).any() for a in arrays)


def _best(parts: list[_Part], grid: np.ndarray, ranges: dict[str, WeightRange]) -> float:
    """The scale of the least squared weight error, summed over projections, each relative to its own power."""
    samples = [(ranges[p.node.id], _sample(p.weight)) for p in parts]
    costs = [sum(r.error(w, float(scale)) / float(np.mean(w**2)) for r, w in samples) for scale in grid]
    return float(grid[_first_least(costs)]) if parts else float(grid[-1])


def _sample(weight: np.ndarray) -> np.ndarray:
    """At most a million of the weights, evenly taken, and the largest."""
    flat = weight.reshape(-1)
    return np.append(flat[:: 1 + (flat.size >> 20)], flat[np.abs(flat).argmax()])


def _first_least(costs: list[float]) -> int:
    """The first of the least; rounding does not make one less than another."""
    best = 0
    for i, cost in enumerate(costs):
        best = i if cost < costs[best] * (1 - 1e-9) else best
    return best


def _piled(keep: float, timesteps: int) -> float:
    """How many times its input a leaky sum can reach; with no leak and no end, as after a thousand timesteps."""
    steps = timesteps or 1000
    return float(steps) if keep >= 1.0 else (1.0 - keep**steps) / (1.0 - keep)


def _in_steps(wanted: float, kept: float) -> str:
    """The same as a time constant, where it has one."""
    if not (0 < wanted < 1 and 0 < kept < 1):
        return ""
    before, after = (-1.0 / math.log(x) for x in (wanted, kept))
    return f" (time constant {before:.4g} -> {after:.4g} steps)"
