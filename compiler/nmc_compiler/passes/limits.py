"""Largest scales at which what a neuron hears fits its registers: always, or as far as calibration data reach."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from nmc_compiler.graph import Graph, Node
from nmc_compiler.graph.analysis import CONVOLUTIONS
from nmc_compiler.passes.agreement import Inputs, reach_of
from nmc_compiler.passes.cells import bias_bound, bias_of, gain_of, piled, top_of
from nmc_compiler.passes.integer_form import GRAIN
from nmc_compiler.passes.scales import JOINING, ScaleClass, static_bound

if TYPE_CHECKING:
    from nmc_compiler.passes.quantize import Quantize

FIRING = ("lif", "neuron", "ilif")
MEASURED = 2.0  # room above what calibration data reached


class Limits:
    """``weight(conv)``: what a convolution can add per code; ``span(node)``: least and largest code of an event.

    ``calibration``: inputs whose currents bound those of sums. ``reach``: the largest |current| and |potential| there.
    """

    def __init__(
        self,
        graph: Graph,
        options: Quantize,
        weight: Callable[[Node], np.ndarray],
        span: Callable[[Node], tuple[float, float]],
        calibration: Inputs | None,
    ) -> None:
        self.graph, self.options, self.weight, self.span = graph, options, weight, span
        self.by_id, self.users = graph.by_id(), graph.users()
        sums = [n for n in graph if n.op in (*FIRING, "multilevel") and self.by_id[n.operands[0]].op in JOINING]
        self.reach = {} if calibration is None or not sums else reach_of(graph, calibration, sums)

    def of_class(self, cls: ScaleClass) -> float:
        """Largest scale: accumulators stay in their register, and so does every reader behind its shift."""
        limits = []
        for reader in cls.readers:
            fits, most = float(self.of_reader(reader).min()), self.options.rshift_max * self.can_shift(reader)
            shifts = {most, min(most, self.options.seen_shift)}
            limits.append(max(min(self._of_sum(reader, shift), fits * 2.0**shift) for shift in shifts))
        return min(limits)

    def _of_sum(self, reader: Node, shift: int) -> float:
        return self.options.accumulator_max / max(float(self.sum(reader, shift).max()), 1e-12)

    def sum(self, reader: Node, shift: int) -> np.ndarray:
        """What a sum that a reader hears, shifted right by so much, has to hold, [C], in units of the trained model.

        By calibration data it may overflow as long as the current register behind its shift is bound to do so too and
        to be counted (``seen_shift``). What a pool or a sum over positions takes on the way has to fit always.
        """
        always = self.bound(reader)
        if reader.id not in self.reach or shift > self.options.seen_shift:
            return always
        below = [float(self._static(i).max()) for i in self._transferred(reader.operands[0])]
        return np.minimum(always, np.maximum(self._measured(reader), max(below, default=0.0)))

    def of_reader(self, reader: Node) -> np.ndarray:
        """Largest scale per channel [C] at which bias and threshold fit their fields and the current its register.

        A shared sum of several projections (a residual stream) is allowed ``headroom`` times its static bound,
        which supposes every input at its most harmful value at once, and any sum what leaves room for ``MEASURED``
        times what calibration data reached; what overflows at run time is counted and reported.
        """
        limit = np.full(reader.type.shape[0], np.inf)
        bias = bias_of(self.graph, reader)
        if bias is not None:
            top = ((1 << (self.options.bias_mant_bits - 1)) - 1) << self.options.bias_exp_max
            limit = np.minimum(limit, top / (GRAIN * np.maximum(np.abs(bias), 1e-12)))
        if reader.op in FIRING:
            limit = np.minimum(limit, self.options.vth_max * gain_of(reader) / top_of(self.graph, reader))
        steps = self.graph.timesteps if reader.op == "readout" else piled(self.graph, reader)
        single = self.by_id[reader.operands[0]].op in CONVOLUTIONS
        headroom = 1.0 if single or self.can_shift(reader) else self.options.headroom
        most = (1 << self.options.relay_bits - 1) - 1 if reader.op == "relay" else self.options.current_max
        fits = headroom * most / np.maximum(self.bound(reader) * steps, 1e-12)
        if reader.id in self.reach:
            fits = np.maximum(fits, most / np.maximum(self._measured(reader), 1e-12))
        return np.minimum(limit, fits)

    def can_shift(self, reader: Node) -> bool:
        """A reader alone at its input may take it shifted right (a negative weight exponent, after summation).

        A relay always may: its codes are to be small.
        """
        return reader.op == "relay" or len(self.users[reader.operands[0]]) == 1

    def bound(self, reader: Node) -> np.ndarray:
        """Largest |current + bias| of each channel, statically, [C], in units of the trained model."""
        return self._static(reader.operands[0]) + bias_bound(self.graph, reader)

    def _static(self, node_id: str) -> np.ndarray:
        return static_bound(self.graph, self.by_id[node_id], self.weight, self.span)

    def _measured(self, reader: Node) -> np.ndarray:
        """What a current plus bias, and the potential that it makes, may reach by calibration data, [C]."""
        current, potential = self.reach[reader.id]
        return np.asarray(MEASURED * max(current, potential / gain_of(reader)) + bias_bound(self.graph, reader))

    def _transferred(self, node_id: str) -> list[str]:
        """Sums whose accumulators others take over, below a current."""
        node = self.by_id[node_id]
        if node.op not in JOINING:
            return []
        return [*(node.operands if node.op != "add" else []), *(t for i in node.operands for t in self._transferred(i))]
