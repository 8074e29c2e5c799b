"""Which source coordinates reach a box of a dendrite: one rule per projection and role.

Channels, rows and columns are independent of each other in every projection, so a
reach maps intervals of the target to intervals of the source, axis by axis. Rows of a
volume are slices of rows: an interval of them may need several intervals of the source.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nmc_compiler.mapping.between_sites import Between
from nmc_compiler.mapping.intervals import constant, reached, sources_of_outputs
from nmc_compiler.mapping.volumes import sources_of_rows, useful_rows
from nmc_compiler.program.model import Conv, Dynamic, Map, Program, Shape, Sparse
from nmc_compiler.program.shapes import Window, channel_blocks, conv_windows
from nmc_compiler.program.validate_mapping import ROLES

CONV, MAP, DYNAMIC, SPARSE = 0, 1, 2, 3


@dataclass(frozen=True)
class Reach:
    """One stream of events into one dendrite: a Conv, a Map, a Sparse, or one role of a Dynamic.

    Any soma of the source may have a synapse in any part of a Sparse's target: intervals say only that.
    """

    kind: int
    index: int  # into convs, maps, dynamics or sparses
    role: int  # 0 q, 1 k, 2 v of a Dynamic, else 0
    item: Conv | Map | Dynamic | Sparse
    src: int  # population
    dst: int  # dendrite
    src_shape: Shape
    dst_shape: Shape
    depth: int = 0  # d of a Dynamic: channels of q and k per head
    between: Between | None = None  # of a Conv between sites

    @property
    def carries_site(self) -> bool:
        """Whether every event of a tile goes to every tile of the target, which looks its site up."""
        return self.between is not None and not self.between.known

    def sources(self, axis: int, spans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Intervals of source coordinates along `axis` whose events reach `spans` [n, 2] of the target.

        Two arrays: the intervals [m, 2], disjoint for each span, and the span [m] that each belongs to, ascending.
        All spans have one, perhaps empty, but rows of volumes and slots of sites, which have as many as they need.
        """
        if axis == 1 and self.between is not None:
            return self.between.reaching(self._outputs(axis, spans))
        if axis == 1 and isinstance(self.item, Conv) and self.item.depth is not None:
            return sources_of_rows(self._outputs(axis, spans), *conv_windows(self.item, self.src_shape)[:2])
        return self._single(axis, spans), np.arange(len(spans))

    def _single(self, axis: int, spans: np.ndarray) -> np.ndarray:
        if axis == 0:
            return self.channels(spans)
        window = self._window(axis)
        if window is not None:
            outs, (size, _, *form) = self._outputs(axis, spans), window
            return sources_of_outputs(outs, size, *form)
        if isinstance(self.item, Map) and self.item.mode in ("same", "reduce_channels", "broadcast_channels"):
            return spans
        return constant(spans, 0, self.src_shape[axis])

    def useful(self, axis: int, low: int, high: int) -> np.ndarray | None:
        """Bool [size]: source positions along `axis` that reach target positions low..high.

        None where these are all of `sources`: only a stride or a dilation leaves gaps.
        """
        window = self._window(axis) if axis > 0 else None
        if window is None or (window.dilation == 1 and window.kernel >= window.stride):
            return None
        outs = self._outputs(axis, np.array([[low, high]], np.int64))
        if axis == 1 and isinstance(self.item, Conv) and self.item.depth is not None:
            return useful_rows(outs, *conv_windows(self.item, self.src_shape)[:2])
        return reached(window, *outs[0].tolist())

    def _window(self, axis: int) -> Window | None:
        """The window along rows, within one slice of a volume, or columns, where there is one at all."""
        if self.between is not None:
            return None
        a, item = axis - 1, self.item
        if isinstance(item, Conv):
            return conv_windows(item, self.src_shape)[axis]
        if isinstance(item, Map) and item.mode == "window":
            sizes = self.src_shape[axis], self.dst_shape[axis]
            return Window(*sizes, item.kernel[a], item.stride[a], item.pad[a], 1)
        return None

    def _outputs(self, axis: int, spans: np.ndarray) -> np.ndarray:
        """Output positions behind those of the target: all, where outputs collapse into one."""
        if isinstance(self.item, Conv) and self.item.collapse:
            return constant(spans, 0, self.item.out_hw[axis - 1])
        return spans

    def channels(self, spans: np.ndarray) -> np.ndarray:
        """Intervals [n, 2] of source channels whose events reach those of the target."""
        if isinstance(self.item, Conv):
            groups = self.item.groups
            return _blocks(spans, self.dst_shape[0] // groups, self.src_shape[0] // groups)
        if isinstance(self.item, Dynamic) and self.role < 2:
            heads = self.item.heads
            return _blocks(spans, self.dst_shape[0] // heads, self.src_shape[0] // heads)
        if isinstance(self.item, Sparse):
            return constant(spans, 0, self.src_shape[0])
        if isinstance(self.item, Map):
            source, target = channel_blocks(self.src_shape, self.dst_shape)
            return _blocks(spans, target, source)
        return spans


def _blocks(spans: np.ndarray, target: int, source: int) -> np.ndarray:
    """Intervals of whole blocks of `source` channels for those of `target` channels that are touched."""
    return np.stack([spans[:, 0] // target * source, -(-spans[:, 1] // target) * source], axis=1)


def find_reaches(program: Program) -> list[Reach]:
    """Every reach of the netlist, in the order of convs, maps, dynamics (q, k, v), sparses."""
    found = [_reach(program, CONV, i, 0, item, item.src) for i, item in enumerate(program.convs)]
    found += [_reach(program, MAP, i, 0, item, item.src) for i, item in enumerate(program.maps)]
    for index, item in enumerate(program.dynamics):
        found += [_reach(program, DYNAMIC, index, r, item, getattr(item, name)) for r, name in enumerate(ROLES)]
    return found + [_reach(program, SPARSE, i, 0, item, item.src) for i, item in enumerate(program.sparses)]


def _reach(program: Program, kind: int, index: int, role: int, item: Conv | Map | Dynamic | Sparse, src: int) -> Reach:
    shapes = program.populations[src].shape, program.dendrites[item.dst].shape
    depth = program.populations[item.q].shape[0] // item.heads if isinstance(item, Dynamic) else 0
    between = Between(program, item) if isinstance(item, Conv) and item.sites is not None else None
    return Reach(kind, index, role, item, src, item.dst, *shapes, depth, between)


def is_dense(reach: Reach) -> bool:
    """A conv between single positions: a plain weight matrix, stored row by row with indices."""
    ends = math.prod(reach.src_shape[1:]) == 1 and math.prod(reach.dst_shape[1:]) == 1
    return reach.kind == CONV and ends
