"""Which source coordinates reach a box of a dendrite: one rule per projection and role.

Channels, rows and columns are independent of each other in every projection, so a
reach maps intervals of the target to intervals of the source, axis by axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nmc_compiler.mapping.intervals import constant, sources_of_outputs
from nmc_compiler.program.model import Conv, Dynamic, Map, Program, Shape
from nmc_compiler.program.validate_mapping import ROLES

CONV, MAP, DYNAMIC = 0, 1, 2


@dataclass(frozen=True)
class Reach:
    """One stream of events into one dendrite: a Conv, a Map, or one role of a Dynamic."""

    kind: int
    index: int  # into convs, maps or dynamics
    role: int  # 0 q, 1 k, 2 v of a Dynamic, else 0
    item: Conv | Map | Dynamic
    src: int  # population
    dst: int  # dendrite
    src_shape: Shape
    dst_shape: Shape
    depth: int = 0  # d of a Dynamic: channels of q and k per head

    def sources(self, axis: int, spans: np.ndarray) -> np.ndarray:
        """Intervals [n, 2] of source coordinates along `axis` whose events reach those of the target."""
        if axis == 0:
            return self._channels(spans)
        if isinstance(self.item, Dynamic):
            return constant(spans, 0, self.src_shape[axis])
        if isinstance(self.item, Conv):
            return self._conv_rows(self.item, axis, spans)
        return self._map_rows(self.item, axis, spans)

    def _conv_rows(self, conv: Conv, axis: int, spans: np.ndarray) -> np.ndarray:
        a = axis - 1
        outs = constant(spans, 0, conv.out_hw[a]) if conv.collapse else spans
        kernel = conv.weight.shape[a]
        return sources_of_outputs(
            outs, self.src_shape[axis], kernel, conv.stride[a], conv.pad[a], conv.dilation[a]
        )

    def _map_rows(self, item: Map, axis: int, spans: np.ndarray) -> np.ndarray:
        a = axis - 1
        if item.mode == "same":
            return spans
        if item.mode == "window":
            return sources_of_outputs(
                spans, self.src_shape[axis], item.kernel[a], item.stride[a], item.pad[a], 1
            )
        return constant(spans, 0, self.src_shape[axis])

    def _channels(self, spans: np.ndarray) -> np.ndarray:
        if isinstance(self.item, Conv):
            groups = self.item.groups
            return _blocks(spans, self.dst_shape[0] // groups, self.src_shape[0] // groups)
        if isinstance(self.item, Dynamic) and self.role < 2:
            heads = self.item.heads
            return _blocks(spans, self.dst_shape[0] // heads, self.src_shape[0] // heads)
        return spans


def _blocks(spans: np.ndarray, target: int, source: int) -> np.ndarray:
    """Intervals of whole blocks of `source` channels for those of `target` channels that are touched."""
    return np.stack([spans[:, 0] // target * source, -(-spans[:, 1] // target) * source], axis=1)


def find_reaches(program: Program) -> list[Reach]:
    """Every reach of the netlist, in the order of convs, maps, dynamics (q, k, v)."""
    found = [_reach(program, CONV, i, 0, item, item.src) for i, item in enumerate(program.convs)]
    found += [_reach(program, MAP, i, 0, item, item.src) for i, item in enumerate(program.maps)]
    for index, item in enumerate(program.dynamics):
        found += [
            _reach(program, DYNAMIC, index, r, item, getattr(item, name)) for r, name in enumerate(ROLES)
        ]
    return found


def _reach(program: Program, kind: int, index: int, role: int, item: Conv | Map | Dynamic, src: int) -> Reach:
    shapes = program.populations[src].shape, program.dendrites[item.dst].shape
    depth = program.populations[item.q].shape[0] // item.heads if isinstance(item, Dynamic) else 0
    return Reach(kind, index, role, item, src, item.dst, *shapes, depth)


def is_dense(reach: Reach) -> bool:
    """A conv between single positions: a plain weight matrix, stored row by row with indices."""
    ends = math.prod(reach.src_shape[1:]) == 1 and math.prod(reach.dst_shape[1:]) == 1
    return reach.kind == CONV and ends
