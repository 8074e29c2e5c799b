"""Networks whose timesteps are the positions of a sequence, with convolutions along it that look ahead.

A convolution of three taps needs one position that comes later, so what it gives is a timestep late. Every signal is
as long as the input; before its first position and behind its last one its neurons are held at rest by a gain of 0,
which is the zero padding of the next convolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nmc_compiler.frontends.build import FamilyBuilder
from nmc_compiler.graph import Attr, Ref, Use
from nmc_compiler.graph.ops_shape import MAX_EXTRA


@dataclass(frozen=True)
class Signal:
    """A node, and how many timesteps after the input's its first position is."""

    node: str
    late: int = 0


class SequenceBuilder(FamilyBuilder):
    """A FamilyBuilder of ``steps`` positions, the last of which leave the network ``late`` timesteps later."""

    steps: int
    late: int

    def begin(self, steps: int, late: int, channels: Attr) -> Signal:
        """The input: vectors, position by position, and zeros behind the last one."""
        self.steps, self.late = steps, late
        shape = Attr((channels.value, 1, 1), channels.evidence)  # type: ignore[arg-type]
        return Signal(self.graph.add("input", id="x", name="x", shape=shape))

    def along(self, x: Signal, key: str, out: int | None = None) -> Signal:
        """Conv1d ``key`` along the sequence, of three taps, padded by one zero at either end, without bias."""
        weight = self.take(f"{key}.weight", (out, self.shape(x.node)[0], 3))
        taps = [
            self.graph.add("conv2d", Use(x.node, 2 - k), name=f"{key}[{k}]",
                           weight=self._kept(f"{key}.weight[{k}]", weight[:, :, k, None, None]))
            for k in range(3)
        ]  # fmt: skip
        return Signal(self.graph.add("add", self.graph.add("add", *taps[:2]), taps[2]), x.late + 1)

    def at_point(self, x: Signal, key: str, bias: bool = True, out: int | None = None) -> Signal:
        """Linear or Conv1d ``key`` of one tap."""
        return Signal(self.conv(x.node, key, bias=bias, out=out), x.late)

    def normed(self, x: Signal, key: str) -> Signal:
        return Signal(self.norm(x.node, key), x.late)

    def plus(self, one: Signal, other: Signal) -> Signal:
        """The sum position by position: the earlier one waits."""
        late = max(one.late, other.late)
        return Signal(self.graph.add("add", *(Use(s.node, late - s.late) for s in (one, other))), late)

    def fired(self, x: Signal, name: str, theta: str = "v_threshold") -> Signal:
        """LIF ``name``, at rest outside the sequence."""
        return Signal(self.lif(x.node, name, theta, layout="C", **self._window(x.late)), x.late)

    def remembered(self, x: Signal, key: str, response: np.ndarray) -> Signal:
        """Sum over k of response[:, k] x[t - k], of one channel x: a synapse for each output and delay."""
        size, taps = response.shape
        terms = []
        for first in range(0, taps, MAX_EXTRA + 1):
            part = response[:, first : first + MAX_EXTRA + 1]
            arrays = {
                "indptr": np.array([0, part.size]),
                "target": np.tile(np.arange(size), part.shape[1]),
                "weight": part.T.reshape(-1),
                "extra": np.repeat(np.arange(part.shape[1]), size).astype(np.uint8),
            }
            refs: dict[str, Any] = {
                n: Attr(self.graph.tensor(f"{key}[{first}].{n}", a), "checkpoint") for n, a in arrays.items()
            }
            terms.append(
                self.graph.add("sparse", Use(x.node, first), name=f"{key}[{first}]",
                               shape=Attr((size, 1, 1), "checkpoint"), **refs)
            )  # fmt: skip
        total = terms[0]
        for term in terms[1:]:
            total = self.graph.add("add", total, term)
        return Signal(total, x.late)

    def beside(self, *parts: Signal) -> Signal:
        """Channels of several signals of one time, one behind the other."""
        channels = sum(self.shape(p.node)[0] for p in parts)
        index = Attr(self._once(f"all of {channels}", np.arange(channels)), "family")
        shape = Attr((channels, 1, 1), "family")
        return Signal(self.graph.add("take", *(p.node for p in parts), shape=shape, index=index), parts[0].late)

    def mean_readout(self, x: Signal, key: str, classes: int) -> None:
        """Linear ``key`` on every position, and the mean over the sequence."""
        current = self.conv(x.node, key, out=classes)
        longer = Attr((self.steps + self.late) / self.steps, "family")  # a readout divides by all timesteps
        scaled = self.graph.add("scale", current, factor=longer)
        self.graph.add("readout", scaled, name=key, bias=self.bias_ref(key, classes))

    def _window(self, late: int) -> dict[str, Any]:
        if not self.late:
            return {}
        key, time = f"positions.{late}", np.arange(self.steps + self.late)
        inside = ((time >= late) & (time < late + self.steps)).astype(np.float64)
        window = Attr((late, self.steps), "family")
        return {"gain_t": Attr(self._once(key, inside), "family"), "record_window": window}

    def _once(self, key: str, array: np.ndarray) -> Ref:
        """A tensor that several nodes may ask for."""
        return Ref(key) if key in self.graph.tensors else self.graph.tensor(key, array)
