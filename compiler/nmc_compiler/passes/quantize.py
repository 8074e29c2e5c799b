"""Integer quantisation for the target: trained currents become synaptic units.

One scale per class (``scales.py``), chosen by searching for the least weight error;
weights are mantissas of the target's width times a power of two; thresholds, biases and
level tables follow from the scale. Counts (attention, gates) stay exact (``counts.py``).
Every choice and its error goes into the conversion report.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from nmc_compiler.errors import LoweringError, UsageError
from nmc_compiler.graph import Attr, Graph, Kind, Node, label, rebuild
from nmc_compiler.graph.ops_linear import MAX_SHIFT
from nmc_compiler.passes.counts import (
    CountNeuron,
    check_neuron,
    count_bound,
    decay_constant,
    first_above,
    halvings_of,
    levels_on_counts,
    lif_on_counts,
    or_on_counts,
)
from nmc_compiler.passes.gates import count_step, event_norm, input_gain
from nmc_compiler.passes.integer_form import GRAIN, IntegerForm
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.passes.scales import ScaleClass, WeightRange, best_scale, scale_classes, static_bound

HOST_FRACTION_BITS = 16  # the host reads its input as x * 2^16
HOST_WEIGHT_BITS = 22
HOST_SUM_BITS = 29  # of the weights of one output, so that 64 bits hold every sum
CANDIDATES = 96


@dataclass(frozen=True)
class Quantize:
    """Numbers of the target that quantisation needs; ``input_encoding`` names how the real input enters."""

    name: ClassVar[str] = "quantize"
    weight_bits: int = 8
    weight_exp_max: int = 7
    rshift_max: int = 8  # -1 times the least weight exponent
    bias_mant_bits: int = 13
    bias_exp_max: int = 7
    vth_bits: int = 17
    state_bits: int = 24
    accumulator_bits: int = 24
    headroom: float = 2.0
    channel_bins: int = 4
    input_encoding: str = "host-current"
    input_range: tuple[float, float] = (0.0, 1.0)
    attn_order: str = "auto"
    profile: str = "loihi2"  # the target's integer rules

    @property
    def vth_max(self) -> int:
        return (1 << self.vth_bits) - 1

    @property
    def current_max(self) -> int:
        """Largest |a| whose shifted value stays in the state register."""
        return (1 << (self.state_bits - 1 - 6)) - 1

    @property
    def accumulator_max(self) -> int:
        return (1 << (self.accumulator_bits - 1)) - 1

    @property
    def weights(self) -> WeightRange:
        """Mixed-sign weights: b bits with sign; the least significant bit of the 9-bit value is always 0."""
        half = 1 << (self.weight_bits - 1)
        least = 9 - self.weight_bits
        return WeightRange(-half, half - 1, least, least + self.weight_exp_max)

    def apply(self, graph: Graph, report: ConversionReport) -> Graph:
        return _Quantizer(graph, self, report).run()


class _Quantizer:
    """Plans the integers class by class."""

    def __init__(self, graph: Graph, options: Quantize, report: ConversionReport) -> None:
        self.graph, self.options, self.report = graph, options, report
        self.by_id, self.users = graph.by_id(), graph.users()
        self.tensors: dict[str, np.ndarray] = {}
        self.plans: dict[str, Any] = {}  # node id -> what its integer form needs

    def run(self) -> Graph:
        if self.options.input_encoding not in ("host-current", "graded8"):
            raise LoweringError(f"unknown input encoding '{self.options.input_encoding}'; known: host-current, graded8")
        if not self.options.input_range[0] < self.options.input_range[1]:
            raise UsageError(f"input range {self.options.input_range} is empty; give its least and largest value")
        if not 2 <= self.options.weight_bits <= 8:
            raise LoweringError(f"target has weights of {self.options.weight_bits} bits; nmc quantises to 2 to 8 bits")
        for cls in scale_classes(self.graph):
            if cls.is_counts:
                self._plan_counts(cls)
            elif cls.counts:
                raise LoweringError(
                    f"'{label(cls.counts[0])}' (a count) is added to weighted currents; no neuron here does that"
                )
            else:
                self._plan_weighted(cls)
        form = IntegerForm(self.graph, self.plans, self.tensors, self.options.attn_order, self._codes())
        nodes = [self._under_profile(new) for node in self.graph for new in form.rewrite(node)]
        return rebuild(self.graph, nodes, self.tensors, numbers="int")

    def _under_profile(self, node: Node) -> Node:
        """The node as it is under loihi2; under other rules its attribute says so."""
        if self.options.profile == "loihi2" or node.op not in ("cuba_lif", "levels", "int_readout"):
            return node
        return node.with_attrs(profile=Attr(self.options.profile, "target"))

    def _codes(self) -> tuple[float, int, int] | None:
        """Scale and range of the graded input codes, None where the host computes the first layer."""
        if self.options.input_encoding == "host-current":
            return None
        signed = self.options.input_range[0] < 0
        return self._input_scale(), -127 if signed else 0, 127 if signed else 255

    # ---- counts ----

    def _plan_counts(self, cls: ScaleClass) -> None:
        steps = {count_step(self.graph, n, self.by_id) for n in cls.counts}
        if len(steps) != 1 or len(cls.readers) != 1:
            raise LoweringError(
                f"counts of '{label(cls.counts[0])}' have {len(steps)} different steps and {len(cls.readers)} "
                f"reader(s); one of each is lowered"
            )
        reader, step = cls.readers[0], steps.pop()
        if step is None or step <= 0:
            raise LoweringError(f"counts of '{label(cls.counts[0])}' are scaled by {step}; a factor above 0 is lowered")
        plan = self._count_plan(reader, step)
        self.plans[reader.id] = plan
        for leaf in cls.counts:
            self.plans[leaf.id] = plan
        self.report.add(
            "quantize", label(reader), kind="counts", exact=plan.exact, step=step, shift=plan.shift, vth=plan.vth,
            thresholds=[t // GRAIN for t in plan.thresholds], remark=plan.remark,
        )  # fmt: skip

    def _count_plan(self, reader: Node, step: float) -> CountNeuron:
        if reader.attr("bias") is not None:
            raise LoweringError(f"neuron '{label(reader)}' reads counts and has a bias; not lowered")
        check_neuron(reader)
        bound = count_bound(self.by_id[reader.operands[0]], self.by_id)
        most = min(self.options.current_max, self.options.vth_max)
        if reader.attr("role") == "or":
            return or_on_counts(reader, bound, most)
        if reader.op == "lif":
            return lif_on_counts(reader, step, self.graph.timesteps, bound, most)
        if reader.op == "multilevel":
            return levels_on_counts(reader, step, bound, most)
        raise LoweringError(f"{reader.op} '{label(reader)}' reads counts; only lif and multilevel are lowered")

    # ---- weighted currents ----

    def _real_weight(self, conv: Node) -> np.ndarray:
        """Weights per code of the source (value = code/norm)."""
        weight = self.graph.tensor(conv, "weight")
        assert weight is not None
        return weight.astype(np.float64) / self._source_norm(conv)

    def _weight_key(self, conv: Node) -> str:
        """Convolutions with one key hold the same integers: the same weights per code of their source."""
        norm = self._source_norm(conv)
        return conv.attr("weight").key + ("" if norm == 1.0 else f"/{norm:.17g}")

    def _source_norm(self, conv: Node) -> float:
        source = self.by_id[conv.operands[0]]
        if source.op == "input":
            return self._input_scale() if self.options.input_encoding == "graded8" else 1.0
        return event_norm(source, self.by_id)

    def _input_scale(self) -> float:
        lo, hi = self.options.input_range
        return 255.0 / hi if lo >= 0 else 127.0 / max(-lo, hi)

    def _span(self, node: Node) -> tuple[float, float]:
        """Least and largest code of an event, or value of the input."""
        if node.op == "input":
            norm = self._input_scale() if self.options.input_encoding == "graded8" else 1.0
            lo, hi = self.options.input_range
            return min(lo, 0.0) * norm, max(hi, 0.0) * norm
        if node.type.kind is Kind.SPIKE:
            return 0.0, 1.0
        return 0.0, float(node.attr("levels")) if node.op == "multilevel" else float((1 << node.type.bits) - 1)

    def _plan_weighted(self, cls: ScaleClass) -> None:
        graded = cls.hosts if self.options.input_encoding == "graded8" else []
        convs = cls.convs + graded
        for reader in cls.readers:
            check_neuron(reader)
        weights = {self._weight_key(n): self._real_weight(n) for n in convs}
        scale = self._choose_scale(list(weights.values()), self._threshold_unit(cls), self._class_limit(cls))
        shifts = {r.id: self._reader_shift(r, scale) for r in cls.readers}
        bins = self._channel_bins(cls, list(weights.values()), scale, shifts)
        for conv in convs:
            self.plans[conv.id] = self._plan_conv(conv, weights[self._weight_key(conv)], scale, bins, cls)
        for host in cls.hosts:
            if host.id not in self.plans:
                self.plans[host.id] = self._plan_host(host, scale * 2.0**bins, cls)
        for reader in cls.readers:
            self.plans[reader.id] = self._plan_reader(reader, scale / 2 ** shifts[reader.id], shifts[reader.id], bins)

    def _reader_shift(self, reader: Node, scale: float) -> int:
        if not self._can_shift(reader):
            return 0
        return max(0, math.ceil(math.log2(scale / float(self._reader_limit(reader).min()))))

    def _channel_bins(
        self, cls: ScaleClass, weights: list[np.ndarray], scale: float, shifts: dict[str, int]
    ) -> np.ndarray:
        """Extra power-of-two scale of each output channel, [C]: a small channel uses its whole mantissa.

        Channels of one bin share a threshold, so bins are neuron groups; no bin makes a weight, bias,
        threshold or accumulator leave its field.
        """
        channels = cls.readers[0].type.shape[0]
        if any(r.op == "readout" for r in cls.readers) or self.options.channel_bins < 2 or not weights:
            return np.zeros(channels, np.int64)
        room = np.full(channels, float(self.options.channel_bins - 1))
        allowed = self.options.weights
        for w in weights:
            top = allowed.hi * 2.0 ** allowed.shift_for(float(np.abs(w).max()) * scale)
            rows = np.abs(w).reshape(channels, -1).max(axis=1) * scale
            room = np.minimum(room, np.log2(top / np.maximum(rows, 1e-300)))
        for reader in cls.readers:
            at_reader = self._reader_limit(reader) / (scale / 2.0 ** shifts[reader.id])
            at_dendrite = self.options.accumulator_max / np.maximum(self._bound(reader) * scale, 1e-300)
            room = np.minimum(room, np.log2(np.maximum(np.minimum(at_reader, at_dendrite), 1.0)))
        return np.floor(np.maximum(room, 0)).astype(np.int64)

    def _threshold_unit(self, cls: ScaleClass) -> float:
        """theta/kappa of the first LIF: scales that make vth whole are preferred."""
        for reader in cls.readers:
            if reader.op == "lif":
                return (float(reader.attr("theta")) - float(reader.attr("v_reset", 0.0))) / input_gain(reader)
        return 1.0

    def _class_limit(self, cls: ScaleClass) -> float:
        """Largest scale: accumulators stay in their register, and so does every reader behind its shift."""
        limits = [self.options.accumulator_max / max(float(self._bound(r).max()), 1e-12) for r in cls.readers]
        shifts = {r.id: self.options.rshift_max if self._can_shift(r) else 0 for r in cls.readers}
        return min(limits + [float(self._reader_limit(r).min()) * 2.0 ** shifts[r.id] for r in cls.readers])

    def _can_shift(self, reader: Node) -> bool:
        """A reader alone at its input may take it shifted right (a negative weight exponent, after summation)."""
        return len(self.users[reader.operands[0]]) == 1

    def _reader_limit(self, reader: Node) -> np.ndarray:
        """Largest scale per channel [C] at which bias and threshold fit their fields and the current its register.

        A shared sum of several projections (a residual stream) is allowed ``headroom`` times its static bound,
        which supposes every input at its most harmful value at once; what overflows at run time is counted and
        reported.
        """
        limit = np.full(reader.type.shape[0], np.inf)
        bias = self.graph.tensor(reader, "bias")
        if bias is not None:
            top = ((1 << (self.options.bias_mant_bits - 1)) - 1) << self.options.bias_exp_max
            limit = np.minimum(limit, top / (GRAIN * np.maximum(np.abs(bias), 1e-12)))
        if reader.op == "lif":
            theta = float(reader.attr("theta")) - float(reader.attr("v_reset", 0.0))
            limit = np.minimum(limit, self.options.vth_max * input_gain(reader) / theta)
        steps = self.graph.timesteps if reader.op == "readout" else 1
        single = self.by_id[reader.operands[0]].op == "conv2d"
        headroom = 1.0 if single or self._can_shift(reader) else self.options.headroom
        return np.minimum(limit, headroom * self.options.current_max / np.maximum(self._bound(reader) * steps, 1e-12))

    def _bound(self, reader: Node) -> np.ndarray:
        """Largest |current + bias| of each channel, statically, [C], in units of the trained model."""
        bound = static_bound(self.graph, self.by_id[reader.operands[0]], self._real_weight, self._span)
        bias = self.graph.tensor(reader, "bias")
        return bound + (0.0 if bias is None else np.abs(bias))

    def _choose_scale(self, weights: list[np.ndarray], unit: float, limit: float) -> float:
        allowed = self.options.weights
        largest = [float(np.abs(w).max()) for w in weights if w.any()]
        if largest:
            finest = allowed.hi * 2.0**allowed.least_shift / min(largest)
            coarsest = allowed.hi * 2.0**allowed.most_shift / max(largest)
            top = min(finest, coarsest, limit)
        else:
            top = min(4096.0 / unit, limit)
        hi = int(top * unit)
        if hi < 1:
            return top
        lo = max(hi // 2, 1)
        grid = np.unique(np.linspace(lo, hi, min(CANDIDATES, hi - lo + 1)).astype(np.int64)) / unit
        return best_scale(weights, grid, allowed) if largest else float(grid[-1])

    def _plan_conv(
        self, conv: Node, weight: np.ndarray, scale: float, bins: np.ndarray, cls: ScaleClass
    ) -> dict[str, Any]:
        gain = (2.0**bins)[:, None, None, None]
        mantissa, shift = self.options.weights.quantise(weight * gain, scale)
        key = f"{self._weight_key(conv)}@{cls.index}"
        self.tensors.setdefault(key, mantissa)
        error = mantissa.astype(np.float64) * (2.0**shift / scale) / gain - weight
        power = math.sqrt(float(np.mean(weight**2))) or 1.0
        self.report.add(
            "quantize", label(conv), kind="weights", scale=scale, shift=shift, bits=self.options.weight_bits,
            channels_per_bin=np.bincount(bins).tolist(),
            largest=float(np.abs(weight).max(initial=0.0)), worst_error=float(np.abs(error).max(initial=0.0)),
            least=float(weight.min(initial=0.0)), greatest=float(weight.max(initial=0.0)),
            mean_error=float(np.abs(error).mean()) if error.size else 0.0,
            rms_error_relative=math.sqrt(float(np.mean(error**2))) / power,
        )  # fmt: skip
        return {"key": key, "shift": shift, "exact": not error.any()}

    def _plan_host(self, host: Node, scale: np.ndarray, cls: ScaleClass) -> dict[str, Any]:
        """``scale`` [C] synaptic units per unit of the model's current."""
        weight = self._real_weight(host) * scale[:, None, None, None]
        rows = np.abs(weight).reshape(len(weight), -1)
        largest, total = (max(float(r.max()), 1e-300) for r in (rows, rows.sum(axis=1)))
        bits = min(HOST_WEIGHT_BITS - math.ceil(math.log2(largest)), HOST_SUM_BITS - math.ceil(math.log2(total)))
        bits = min(bits, MAX_SHIFT - HOST_FRACTION_BITS)
        key = f"{host.attr('weight').key}@{cls.index}.host"
        self.tensors[key] = np.rint(weight * 2.0**bits).astype(np.int32)
        self.tensors[f"{key}.bias"] = np.zeros(weight.shape[0], np.int64)
        self.report.add(
            "quantize", label(host), kind="host", scale=float(scale.min()), weight_fraction_bits=bits,
            input_fraction_bits=HOST_FRACTION_BITS,
        )  # fmt: skip
        return {"key": key, "frac": HOST_FRACTION_BITS, "shift": HOST_FRACTION_BITS + bits}

    def _plan_reader(self, reader: Node, base: float, rshift: int, bins: np.ndarray) -> dict[str, Any]:
        """``base`` is the scale of bin 0 after the right shift."""
        scale = base * 2.0**bins
        plan: dict[str, Any] = {"scale": base, "rshift": rshift}
        bias = self.graph.tensor(reader, "bias")
        facts: dict[str, Any] = {}
        if bias is not None and bias.any():
            plan["bias"], facts = self._quantise_bias(reader, bias.astype(np.float64) * scale * GRAIN)
        bound = float(self._planned_bound(reader, plan).max())
        piled = bound * self._pile(reader)
        if reader.op == "lif":
            facts |= self._plan_lif(reader, scale, plan)
        elif reader.op == "multilevel":
            plan["thresholds"] = self._level_table(reader, scale)
            facts["thresholds"] = np.unique(plan["thresholds"], axis=0).tolist()
        self.report.add(
            "quantize", label(reader), kind=reader.op, scale=base, rshift=rshift, static_bound=bound,
            current_max=self.options.current_max, can_overflow=bool(piled > self.options.current_max), **facts,
        )  # fmt: skip
        return plan

    def _planned_bound(self, reader: Node, plan: dict[str, Any]) -> np.ndarray:
        """Largest |current + bias| of each channel, statically, [C], in the integers that were chosen."""

        def weight(conv: Node) -> np.ndarray:
            chosen = self.plans[conv.id]
            power = chosen["frac"] - chosen["shift"] if "frac" in chosen else chosen["shift"]
            return self.tensors[chosen["key"]].astype(np.float64) * 2.0**power

        bound = static_bound(self.graph, self.by_id[reader.operands[0]], weight, self._span) / 2.0 ** plan["rshift"]
        bound = bound + 1.0  # the host rounds, and a shift rounds down
        return bound + np.abs(plan["bias"]) / GRAIN if "bias" in plan else bound

    def _pile(self, reader: Node) -> float:
        """How many times its largest current a membrane potential can come to within T timesteps."""
        if reader.op == "multilevel":
            return 1.0
        keep = 1.0 - 1.0 / float(reader.attr("tau")) if reader.op == "lif" else 1.0
        return sum(keep**t for t in range(self.graph.timesteps))

    def _plan_lif(self, reader: Node, scale: np.ndarray, plan: dict[str, Any]) -> dict[str, Any]:
        theta = float(reader.attr("theta")) - float(reader.attr("v_reset", 0.0))
        wanted = scale * theta / input_gain(reader)
        settled = self._is_exact(reader, plan, scale)
        vth = np.array([first_above(w, reader.attr("compare")) - 1 for w in wanted]) if settled else np.rint(wanted)
        vth = vth.astype(np.int32)
        if wanted.min() < 0.5:
            bound = float((self._bound(reader) * scale / wanted).max())
            raise LoweringError(
                f"threshold of '{label(reader)}' would be {wanted.min():.2g} units of its current, whose largest value "
                f"is {bound:.3g} thresholds and fills the register; retrain with smaller weights before this neuron"
            )
        dv, exact = decay_constant(reader)
        plan |= {"vth": vth, "dv": dv}
        return {
            "vth": np.unique(vth).tolist(), "vth_error_relative": float(np.abs(vth / wanted - 1).max()), "dv": dv,
            "dv_exact": exact, "compare": f"{reader.attr('compare')} becomes gt on the 64-grain",
            **({"exact": True} if settled else {}),
        }  # fmt: skip

    def _is_exact(self, reader: Node, plan: dict[str, Any], scale: np.ndarray) -> bool:
        """Whether no number before a LIF was rounded and its potentials are all multiples of 64.

        Then its compare is met to the letter, ties included. Trained weights hardly ever are so; small whole ones are.
        """
        halvings, bias = halvings_of(reader), self.graph.tensor(reader, "bias")
        chosen = [self.plans[n.id] for n in self._projections(reader.operands[0])]
        if halvings is None or plan["rshift"] or not all(c.get("exact") for c in chosen):
            return False
        grain = 1 << halvings * (self.graph.timesteps - 1)
        added = [self.tensors[c["key"]].astype(np.int64) << c["shift"] for c in chosen]
        if "bias" in plan:
            if (plan["bias"] != bias * scale * GRAIN).any() or (plan["bias"] % GRAIN).any():  # type: ignore[operator]
                return False
            added.append(plan["bias"].astype(np.int64) // GRAIN)
        return not any((a % grain).any() for a in added)

    def _projections(self, node_id: str) -> list[Node]:
        """Convolutions below a current."""
        node = self.by_id[node_id]
        return [node] if node.op == "conv2d" else [p for i in node.operands for p in self._projections(i)]

    def _level_table(self, reader: Node, scale: np.ndarray) -> np.ndarray:
        """[C, D], or [1, D] where rows agree. Level n starts at n - 1/2; half to even excludes the tie for odd n."""
        levels = np.arange(1, reader.attr("levels") + 1)
        z = (levels[None, :] - 0.5) * (GRAIN * scale / float(reader.attr("gain", 1.0)))[:, None]
        excluded = (levels % 2 == 1) & (reader.attr("rounding") == "half_even")
        table = np.where(excluded[None, :], np.floor(z) + 1, np.ceil(z))
        table = np.minimum(table, 1 << (self.options.state_bits - 1)).astype(np.int32)  # beyond any potential
        return table[:1] if (table == table[:1]).all() else table

    def _quantise_bias(self, reader: Node, bias: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        """Mantissa << exponent, the exponent shared by the population."""
        top = (1 << (self.options.bias_mant_bits - 1)) - 1
        exp = max(0, math.ceil(math.log2(max(float(np.abs(bias).max()) / top, 1e-9))))
        if exp > self.options.bias_exp_max:
            raise LoweringError(
                f"bias of '{label(reader)}' needs exponent {exp}, the target has at most {self.options.bias_exp_max}"
            )
        mantissa = np.clip(np.rint(bias / 2.0**exp), -top, top).astype(np.int64)
        error = float(np.abs(mantissa * 2.0**exp - bias).max())
        return (mantissa << exp).astype(np.int32), {"bias_exp": exp, "bias_worst_error_units": error / GRAIN}
