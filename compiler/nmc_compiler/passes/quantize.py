"""Integer quantisation for the target: trained currents become synaptic units.

One scale per class (``scales.py``), chosen by searching for the least weight error;
weights are mantissas of the target's width times a power of two; thresholds, biases and
level tables follow from the scale. Counts (attention, gates) stay exact (``counts.py``).
Every choice and its error goes into the conversion report.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from nmc_compiler.errors import LoweringError, UsageError
from nmc_compiler.graph import Attr, Graph, Kind, Node, label, rebuild
from nmc_compiler.graph.ops_linear import MAX_SHIFT
from nmc_compiler.passes.agreement import Inputs
from nmc_compiler.passes.base import derived
from nmc_compiler.passes.cells import (
    CellForm,
    bias_of,
    decay_of,
    gain_of,
    height_of,
    kept_of,
    needs_cell,
)
from nmc_compiler.passes.cells_on_counts import cell_on_counts
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
from nmc_compiler.passes.gates import count_step, event_norm
from nmc_compiler.passes.integer_form import GRAIN, IntegerForm
from nmc_compiler.passes.lasting_tables import LastingTable, lasting
from nmc_compiler.passes.limits import FIRING, MEASURED, Limits
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.passes.scales import (
    PROJECTIONS,
    ScaleClass,
    WeightRange,
    best_scale,
    scale_classes,
    static_bound,
)

HOST_FRACTION_BITS = 16  # the host reads its input as x * 2^16
BEYOND = 1024  # thresholds: no event of a trained network means that much
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
    relay_bits: int = 12  # of a relayed current, with its sign: what it multiplies must still fit the accumulators
    channel_bins: int = 4
    input_encoding: str = "host-current"
    input_range: tuple[float, float] = (0.0, 1.0)
    attn_order: str = "auto"
    profile: str = "loihi2"  # the target's integer rules
    cells: bool = True  # whether the target has microcoded neurons

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
    def seen_shift(self) -> int:
        """The largest shift to the right behind which an accumulator that overflowed is a current that does."""
        return self.accumulator_bits - self.state_bits + 6

    @property
    def weights(self) -> WeightRange:
        """Mixed-sign weights: b bits with sign; the least significant bit of the 9-bit value is always 0."""
        half = 1 << (self.weight_bits - 1)
        least = 9 - self.weight_bits
        return WeightRange(-half, half - 1, least, least + self.weight_exp_max)

    def apply(self, graph: Graph, report: ConversionReport) -> Graph:
        return Quantizer(graph, self, report).run()


class Quantizer:
    """Plans the integers class by class. ``calibration``: inputs whose currents bound sums of several projections."""

    def __init__(
        self, graph: Graph, options: Quantize, report: ConversionReport, calibration: Inputs | None = None
    ) -> None:
        self.graph, self.options, self.report = graph, options, report
        self.by_id, self.users = graph.by_id(), graph.users()
        self.tensors: dict[str, np.ndarray] = {}
        self.plans: dict[str, Any] = {}  # node id -> what its integer form needs
        self.beyond: set[str] = set()  # convolutions whose weights are beyond all bounds
        self.limits = Limits(graph, options, self._bounding_weight, self._span, calibration)
        self.tables: dict[str, LastingTable] = {}  # of attention products that have one

    def run(self) -> Graph:
        self.check()
        for cls in scale_classes(self.graph):
            self.plan(cls)
        form = self.form()
        nodes = [new for node in self.graph for new in self.rewritten(form, node)]
        return rebuild(self.graph, nodes, self.tensors, numbers="int")

    def check(self) -> None:
        """Options and numbers of the target that quantisation can work with."""
        if self.options.input_encoding == "graded8" and any(n.op == "features" for n in self.graph):
            raise LoweringError(
                "features of sites are not encoded as graded8; compile with --input-encoding host-current"
            )
        if self.options.input_encoding not in ("host-current", "graded8"):
            raise LoweringError(f"unknown input encoding '{self.options.input_encoding}'; known: host-current, graded8")
        if not self.options.input_range[0] < self.options.input_range[1]:
            raise UsageError(f"input range {self.options.input_range} is empty; give its least and largest value")
        if not 2 <= self.options.weight_bits <= 8:
            raise LoweringError(f"target has weights of {self.options.weight_bits} bits; nmc quantises to 2 to 8 bits")

    def plan(self, cls: ScaleClass) -> None:
        if cls.is_counts:
            self._plan_counts(cls)
        elif cls.counts:
            raise LoweringError(
                f"'{label(cls.counts[0])}' (a count) is added to weighted currents; no neuron here does that"
            )
        else:
            self._plan_weighted(cls)

    def form(self) -> IntegerForm:
        """What rewrites nodes once every class is planned."""
        return IntegerForm(self.graph, self.plans, self.tensors, self.options.attn_order, self._codes(), self.tables)

    def rewritten(self, form: IntegerForm, node: Node) -> list[Node]:
        return [self._under_profile(new) for new in form.rewrite(node)]

    def _under_profile(self, node: Node) -> Node:
        """The node as it is under loihi2; under other rules its attribute says so."""
        if self.options.profile == "loihi2" or node.op not in ("cuba_lif", "cell", "levels", "int_readout"):
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
        tables = {n.id: lasting(self.graph, n) for n in cls.counts if n.op == "attn"}
        frac = self._fraction(cls, tables)
        plan = self._count_plan(reader, step / 2**frac)
        lossy = [t.remark for t in tables.values() if t is not None and not t.exact]
        if lossy:
            plan = replace(plan, exact=False, remark="; ".join(r for r in (plan.remark, lossy[0]) if r))
        self.tables |= {i: t for i, t in tables.items() if t is not None}
        self.plans[reader.id] = plan
        for leaf in cls.counts:
            self.plans[leaf.id] = plan
        self.report.add(
            "quantize", label(reader), kind="counts", exact=plan.exact, step=step, shift=plan.shift, vth=plan.vth,
            thresholds=[t // GRAIN for t in plan.thresholds], remark=plan.remark,
        )  # fmt: skip

    def _fraction(self, cls: ScaleClass, tables: dict[str, LastingTable | None]) -> int:
        """Bits below a count, which all counts of a class have."""
        fractions = {0 if tables.get(n.id) is None else tables[n.id].frac for n in cls.counts}  # type: ignore[union-attr]
        if len(fractions) > 1:
            raise LoweringError(
                f"counts of '{label(cls.counts[0])}' are added up with different fractions of a count; "
                f"give the attention products one decay, or each a neuron of its own"
            )
        return fractions.pop()

    def _count_plan(self, reader: Node, step: float) -> CountNeuron:
        if reader.attr("bias") is not None:
            raise LoweringError(f"neuron '{label(reader)}' reads counts and has a bias; not lowered")
        check_neuron(reader)
        bound = count_bound(self.by_id[reader.operands[0]], self.by_id)
        most = min(self.options.current_max, self.options.vth_max)
        if reader.attr("role") == "or":
            return or_on_counts(reader, bound, most)
        if self._needs_cell(reader):
            return cell_on_counts(self.graph, reader, step, bound, self.tensors, most)
        if reader.op == "lif":
            return lif_on_counts(reader, step, self.graph.timesteps, bound, most)
        if reader.op == "neuron" and isinstance(reader.attr("theta"), (int, float)) and "leak" not in reader.attrs:
            kept = gain_of(reader), self._kept(reader)
            return lif_on_counts(reader, step, self.graph.timesteps, bound, most, kept)
        if reader.op == "multilevel":
            return levels_on_counts(reader, step, bound, most)
        raise LoweringError(f"{reader.op} '{label(reader)}' reads counts; only lif and multilevel are lowered")

    def _needs_cell(self, reader: Node) -> bool:
        """Whether a soma of microcode has to do it; LoweringError where the target has none."""
        why = needs_cell(self.graph, reader)
        if why is not None and not self.options.cells:
            raise LoweringError(
                f"neuron '{label(reader)}' {why}, which takes a microcoded neuron, and the target has none; choose a "
                f"target that has, or train it otherwise"
            )
        return why is not None

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
        if source.op == "input" and not source.type.is_event:
            return self._input_scale() if self.options.input_encoding == "graded8" else 1.0
        return self.plans[source.id]["scale"] if source.op == "relay" else event_norm(source, self.by_id)

    def _input_scale(self) -> float:
        lo, hi = self.options.input_range
        return 255.0 / hi if lo >= 0 else 127.0 / max(-lo, hi)

    def _span(self, node: Node) -> tuple[float, float]:
        """Least and largest code of an event, or value of the input."""
        encoded = self.options.input_encoding == "graded8"
        if node.op in ("input", "features") and not (encoded and node.type.is_event):
            norm = self._input_scale() if encoded else 1.0
            lo, hi = self.options.input_range
            return min(lo, 0.0) * norm, max(hi, 0.0) * norm
        if node.type.kind is Kind.SPIKE:
            return 0.0, 1.0
        if node.op == "relay":
            return -self.plans[node.id]["span"], self.plans[node.id]["span"]
        if node.type.signed:
            return -float(1 << node.type.bits - 1), float((1 << node.type.bits - 1) - 1)
        return 0.0, float(node.attr("levels", (1 << node.type.bits) - 1))

    def _plan_weighted(self, cls: ScaleClass) -> None:
        graded = cls.hosts if self.options.input_encoding == "graded8" else []
        convs = cls.convs + graded
        for reader in cls.readers:
            check_neuron(reader)
        weights, unit = {self._weight_key(n): self._real_weight(n) for n in convs}, self._threshold_unit(cls)
        self._find_beyond(convs, unit)
        sane = [weights[k] for k in dict.fromkeys(self._weight_key(n) for n in convs if n.id not in self.beyond)]
        scale = self._choose_scale(sane, unit, self.limits.of_class(cls))
        shifts = {r.id: self._reader_shift(r, scale) for r in cls.readers}
        bins = self._channel_bins(cls, sane, scale, shifts)
        self._limit_beyond(convs, weights, scale, bins, unit)
        for conv in convs:
            self.plans[conv.id] = self._plan_conv(conv, weights[self._weight_key(conv)], scale, bins, cls)
        for host in cls.hosts:
            if host.id not in self.plans:
                self.plans[host.id] = self._plan_host(host, scale * 2.0**bins, cls)
        for reader in cls.readers:
            self.plans[reader.id] = self._plan_reader(reader, scale / 2 ** shifts[reader.id], shifts[reader.id], bins)

    def _find_beyond(self, convs: list[Node], unit: float) -> None:
        """Convolutions of which one event moves a potential by ``BEYOND`` thresholds, beside others that do not.

        So does a branch that was silent in training: its batch norms hold a variance of 0, and divide by it.
        """
        largest = {n.id: float(np.abs(self._real_weight(n)).max(initial=0.0)) for n in convs}
        beyond = {i for i, w in largest.items() if w > BEYOND * unit}
        self.beyond |= beyond if len(beyond) < len(largest) else set()

    def _limit_beyond(
        self, convs: list[Node], weights: dict[str, np.ndarray], scale: float, bins: np.ndarray, unit: float
    ) -> None:
        """Their weights at most the largest that the target holds, which still is many thresholds."""
        allowed = self.options.weights
        most = allowed.hi * 2.0 ** (allowed.most_shift - int(bins.max(initial=0))) / scale
        for conv in (n for n in convs if n.id in self.beyond):
            key, largest = self._weight_key(conv), float(np.abs(weights[self._weight_key(conv)]).max())
            weights[key] = np.clip(weights[key], -most, most)
            reason = f"weights of up to {largest / unit:.3g} thresholds become at most {most / unit:.3g}"
            self.report.add("limit-weights", label(conv), rating="approximate", reasons=[reason])

    def _bounding_weight(self, conv: Node) -> np.ndarray:
        """What a convolution can add, for bounds: those beyond all bounds are left out, and may overflow."""
        weight = self._real_weight(conv)
        return np.zeros_like(weight) if conv.id in self.beyond else weight

    def _reader_shift(self, reader: Node, scale: float) -> int:
        if not self.limits.can_shift(reader):
            return 0
        return max(0, math.ceil(math.log2(scale / float(self.limits.of_reader(reader).min()))))

    def _channel_bins(
        self, cls: ScaleClass, weights: list[np.ndarray], scale: float, shifts: dict[str, int]
    ) -> np.ndarray:
        """Extra power-of-two scale of each output channel, [C]: a small channel uses its whole mantissa.

        Channels of one bin share a threshold, so bins are neuron groups; no bin makes a weight, bias,
        threshold or accumulator leave its field.
        """
        channels = cls.readers[0].type.shape[0]
        if any(r.op in ("readout", "relay") for r in cls.readers) or self.options.channel_bins < 2 or not weights:
            return np.zeros(channels, np.int64)
        if any(conv.op == "sparse" for conv in (*cls.convs, *cls.hosts)):
            return np.zeros(channels, np.int64)
        room = np.full(channels, float(self.options.channel_bins - 1))
        allowed = self.options.weights
        for w in weights:
            top = allowed.hi * 2.0 ** allowed.shift_for(float(np.abs(w).max()) * scale)
            rows = np.abs(w).reshape(channels, -1).max(axis=1) * scale
            room = np.minimum(room, np.log2(top / np.maximum(rows, 1e-300)))
        for reader in cls.readers:
            at_reader = self.limits.of_reader(reader) / (scale / 2.0 ** shifts[reader.id])
            held = self.limits.sum(reader, shifts[reader.id])
            at_dendrite = self.options.accumulator_max / np.maximum(held * scale, 1e-300)
            room = np.minimum(room, np.log2(np.maximum(np.minimum(at_reader, at_dendrite), 1.0)))
        return np.floor(np.maximum(room, 0)).astype(np.int64)

    def _threshold_unit(self, cls: ScaleClass) -> float:
        """theta/kappa of the first LIF: scales that make vth whole are preferred."""
        for reader in cls.readers:
            if reader.op in FIRING:
                return float(height_of(self.graph, reader).flat[0]) / gain_of(reader)
        return 1.0

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
        gain = (2.0**bins)[:, None, None, None] if conv.op != "sparse" else 1.0
        mantissa, shift = self.options.weights.quantise(weight * gain, scale)
        key = f"{self._weight_key(conv)}@{cls.index}"
        self.tensors.setdefault(key, mantissa)
        error = mantissa.astype(np.float64) * (2.0**shift / scale) / gain - weight
        power = math.sqrt(float(np.mean(weight**2))) if weight.size else 0.0  # a table may have no synapses
        self.report.add(
            "quantize", label(conv), kind="weights", scale=scale, shift=shift, bits=self.options.weight_bits,
            channels_per_bin=np.bincount(bins).tolist(),
            largest=float(np.abs(weight).max(initial=0.0)), worst_error=float(np.abs(error).max(initial=0.0)),
            least=float(weight.min(initial=0.0)), greatest=float(weight.max(initial=0.0)),
            mean_error=float(np.abs(error).mean()) if error.size else 0.0,
            rms_error_relative=math.sqrt(float(np.mean(error**2))) / power if power else 0.0,
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
        bias = bias_of(self.graph, reader)
        facts: dict[str, Any] = {}
        if self._needs_cell(reader):
            facts = self._plan_cell(reader, scale, plan, bias)
            bias = None
        if self.by_id[reader.operands[0]].op == "mean_sites":
            plan["offset"] = np.zeros(len(scale)) if bias is None else bias.astype(np.float64)  # the host adds it
        elif bias is not None and bias.any():
            plan["bias"], facts = self._quantise_bias(reader, bias.astype(np.float64) * scale * GRAIN)
        bound = float(self._planned_bound(reader, plan).max())
        piled = bound * self._pile(reader)
        if "cell" in plan:
            pass
        elif reader.op in ("lif", "neuron"):
            facts |= self._plan_lif(reader, scale, plan)
        elif reader.op == "relay":
            plan["span"] = facts["span"] = math.ceil(bound)
        elif reader.op == "multilevel":
            plan["thresholds"] = self._level_table(reader, scale)
            facts["thresholds"] = np.unique(plan["thresholds"], axis=0).tolist()
        if reader.id in self.limits.reach:
            facts |= {"measured_current": self.limits.reach[reader.id][0] * base, "room_above_measured": MEASURED}
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
        if reader.op in ("multilevel", "relay"):
            return 1.0
        keep = float(kept_of(self.graph, reader).max()) if reader.op in FIRING else 1.0
        steps = self.graph.timesteps
        return float(steps) if keep == 1.0 else (1.0 - keep**steps) / (1.0 - keep)

    def _plan_cell(
        self, reader: Node, scale: np.ndarray, plan: dict[str, Any], bias: np.ndarray | None
    ) -> dict[str, Any]:
        """A soma of microcode: every number but the decays in membrane units."""
        self._check_height(reader, scale)
        form = CellForm(self.graph, reader, GRAIN * scale / gain_of(reader), self.tensors)
        drive, facts = form.drive(bias, GRAIN * scale), dict[str, Any]()
        if not drive and bias is not None and bias.any():
            plan["bias"], facts = self._quantise_bias(reader, bias.astype(np.float64) * scale * GRAIN)
        dv, exact = self._kept(reader)
        plan["cell"] = {"dv": derived(dv), **form.attrs, **drive, **form.starts()}
        return {"dv": dv, "dv_exact": exact, "reasons": form.reasons, **form.facts, **facts}

    def _kept(self, reader: Node) -> tuple[int, bool]:
        """dv, and whether it is exact."""
        if reader.op == "lif":
            return decay_constant(reader)
        kept = np.unique(kept_of(self.graph, reader)) if reader.op in FIRING else np.zeros(1)
        if len(kept) > 1 or "alpha" in reader.attrs:
            raise LoweringError(
                f"{reader.op} '{label(reader)}' has a current that lasts, or decays that differ by channel, and shares "
                f"the current it reads, or reads a pool of currents; one decay is lowered there"
            )
        return decay_of(float(kept[0]))

    def _check_height(self, reader: Node, scale: np.ndarray) -> np.ndarray:
        """The threshold in synaptic units, [C]."""
        wanted = scale * height_of(self.graph, reader) / gain_of(reader)
        if wanted.min() < 0.5:
            bound = float((self.limits.bound(reader) * scale / wanted).max())
            raise LoweringError(
                f"threshold of '{label(reader)}' would be {wanted.min():.2g} units of its current, whose largest value "
                f"is {bound:.3g} thresholds and fills the register; retrain with smaller weights before this neuron"
            )
        return wanted

    def _plan_lif(self, reader: Node, scale: np.ndarray, plan: dict[str, Any]) -> dict[str, Any]:
        wanted = self._check_height(reader, scale)
        settled = self._is_exact(reader, plan, scale)
        vth = np.array([first_above(w, reader.attr("compare")) - 1 for w in wanted]) if settled else np.rint(wanted)
        vth = vth.astype(np.int32)
        dv, exact = self._kept(reader)
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
        halvings, bias = halvings_of(*self._kept(reader)), bias_of(self.graph, reader)
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
        if node.type.kind is Kind.SITES:
            return []
        return [node] if node.op in PROJECTIONS else [p for i in node.operands for p in self._projections(i)]

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
