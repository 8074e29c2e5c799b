"""Integer quantisation for the target: a scale for each class of currents, or for each population.

A neuron or integrator that alone reads a sum of convolutions and synapse tables has a scale of its own, by the rules
of ``quantize_general``. Everything else (residual streams, pools of currents, counts, readouts) is planned by classes
of currents, by those of ``quantize``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Graph, Kind, Node, label, rebuild
from nmc_compiler.passes.agreement import Inputs
from nmc_compiler.passes.quantize import Quantize, Quantizer
from nmc_compiler.passes.quantize_general import GeneralQuantizer, QuantizeGeneral
from nmc_compiler.passes.regions import GENERAL_NEURONS, is_general
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.passes.scales import PROJECTIONS, ScaleClass, scale_classes

HOSTED = ("input", "constant", "output", "reshape", "take", "gather")  # no currents: nothing to plan


@dataclass(frozen=True)
class QuantizeAll:
    """``chip``: the numbers of the target. ``calibration``: inputs whose currents and potentials set the scales of
    neurons that have one of their own, and of shared sums."""

    name: ClassVar[str] = "quantize"
    chip: Quantize = field(default_factory=Quantize)
    calibration: Inputs | None = None

    def apply(self, graph: Graph, report: ConversionReport) -> Graph:
        general = QuantizeGeneral(self.chip, self.calibration)
        if is_general(graph):
            return general.apply(graph, report)
        if not graph.outputs and not any(n.op in GENERAL_NEURONS or n.op == "sparse" for n in graph):
            return Quantizer(graph, self.chip, report, self.calibration).run()
        return _Mixed(graph, self.chip, general, report).run()


class _Mixed:
    def __init__(self, graph: Graph, chip: Quantize, general: QuantizeGeneral, report: ConversionReport) -> None:
        self.graph, self.report, self.by_id, self.users = graph, report, graph.by_id(), graph.users()
        self.classes = scale_classes(graph)
        self.alone = {c.readers[0].id: c for c in self.classes if self._is_alone(c)}
        self.encoded = chip.input_encoding == "graded8" or self._must_encode()
        if self.encoded and chip.input_encoding != "graded8" and any(_is_real(n) for n in graph):
            chip = replace(chip, input_encoding="graded8")
            report.notes.append("the input becomes events: more than convolutions of one image reads it")
        self.streams = Quantizer(graph, chip, report, general.calibration)
        self.general = GeneralQuantizer(graph, replace(general, chip=chip), report)
        self.general.tensors = self.streams.tensors

    def run(self) -> Graph:
        self.streams.check()
        for cls in self.classes:
            if cls.readers and cls.readers[0].id in self.alone:
                continue
            self.streams.plan(cls)
        self.form = self.streams.form()
        mine = {i for reader in self.alone.values() for i in self._below(reader)}
        nodes = [new for node in self.graph if node.id not in mine for new in self._rewritten(node)]
        return rebuild(self.graph, nodes, self.streams.tensors, numbers="int")

    def _rewritten(self, node: Node) -> list[Node]:
        if node.id in self.alone:
            return self.general._neuron(node)
        if node.op in HOSTED:
            if _is_real(node) and not self.encoded:
                return [node]
            return self.general._rewritten(node)
        return self.streams.rewritten(self.form, node)

    def _is_alone(self, cls: ScaleClass) -> bool:
        """Whether one general neuron alone reads projections of events (or of what the host sends)."""
        if len(cls.readers) != 1 or cls.readers[0].op not in GENERAL_NEURONS or cls.counts:
            return False
        source = self.by_id[cls.readers[0].inputs[0].node]
        parts = [self.by_id[u.node] for u in source.inputs] if source.op == "add" else [source]
        if any(p.op not in PROJECTIONS for p in parts) or any(len(self.users[p.id]) != 1 for p in (source, *parts)):
            return False
        if cls.readers[0].op == "sigma_delta":
            raise LoweringError(
                f"'{label(cls.readers[0])}' is a sigma-delta neuron of real numbers; build its integers instead"
            )
        return True

    def _below(self, cls: ScaleClass) -> list[str]:
        source = self.by_id[cls.readers[0].inputs[0].node]
        return [source.id, *(u.node for u in source.inputs if source.op == "add")]

    def _must_encode(self) -> bool:
        """Whether the host cannot compute all that reads the real input as currents of one image."""
        real = [n for n in self.graph if _is_real(n)]
        if self.graph.outputs or len(self.graph.sources) > 1:
            return True
        mine = {i for reader in self.alone.values() for i in self._below(reader)}
        readers = [u for n in real for u in self.users[n.id]]
        return any(u.op != "conv2d" or u.id in mine or any(use.lag for use in u.inputs) for u in readers)


def _is_real(node: Node) -> bool:
    return node.op == "input" and node.type.kind is Kind.REAL
