"""Shapes of a NIR network: what every node takes and gives, worked out from the Inputs and the parameters.

Shapes are NIR's: (N,), (C, L) or (C, H, W), without batch and time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.nir_flat import FlatGraph
from nmc_compiler.frontends.nir_loops import Timing
from nmc_compiler.nir.schema import NEURONS, NirNode

Shape = tuple[int, ...]
MAX_ELEMENTS = 1 << 28


@dataclass
class Shapes:
    """What each node takes and gives; ``notes`` per node about anything that was not said outright."""

    takes: dict[str, Shape] = field(default_factory=dict)
    gives: dict[str, Shape] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def note(self, node: NirNode, text: str) -> None:
        found = self.notes.setdefault(node.name, [])
        if text not in found:
            found.append(text)


def infer(flat: FlatGraph, timing: Timing) -> Shapes:
    """Shapes of all nodes, from the inputs on. FrontendError where one is missing or two do not agree."""
    shapes, sources = Shapes(), flat.sources()
    readers: dict[str, list[str]] = {name: [] for name in flat.nodes}
    for a, b in flat.edges:
        readers[a].append(b)
    for _ in range(2):  # the second time round for nodes that only edges of the timestep before lead to
        for name in timing.order:
            if name not in shapes.gives:
                _infer_node(flat, flat.nodes[name], sources[name], readers[name], shapes)
    for name in timing.order:
        if name not in shapes.gives:
            raise FrontendError(
                f"{flat.nodes[name].where}: its shape is not known: no Input leads to it through nodes with shapes; "
                "write parameters with one value per neuron, or input_shape"
            )
        for source in sources[name]:
            _check_edge(flat.nodes[source], flat.nodes[name], shapes)
    return shapes


def canonical(shape: Shape) -> tuple[int, int, int]:
    """(C, H, W) as the graph has it: a vector is (N, 1, 1), a signal (C, 1, L)."""
    if len(shape) == 2:
        return shape[0], 1, shape[1]
    c, h, w = (*shape, 1, 1, 1)[:3]
    return c, h, w


def bare(shape: Shape) -> Shape:
    """Without axes of length 1."""
    return tuple(n for n in shape if n != 1)


def alike(a: Shape, b: Shape) -> bool:
    """Whether values of one shape are those of the other in the same order, nothing but flat or squeezed."""
    same = math.prod(a) == math.prod(b)
    return same and (bare(a) == bare(b) or len(bare(a)) <= 1 or len(bare(b)) <= 1)


def _infer_node(flat: FlatGraph, node: NirNode, sources: list[str], readers: list[str], shapes: Shapes) -> None:
    if node.type == "Input":
        wanted = [w for w in (_wanted(flat.nodes[r]) for r in readers) if w is not None]
        found = _input(node, wanted, shapes)
        if found is None:
            return
        takes: Shape | None = found
    else:
        given = next((shapes.gives[s] for s in sources if s in shapes.gives), None)
        takes = _takes(node, given, shapes)
    if takes is None:
        return
    if not takes or min(takes) < 1 or math.prod(takes) > MAX_ELEMENTS:
        raise FrontendError(f"{node.where}: takes values of shape {list(takes)}; every size must be at least 1")
    shapes.takes[node.name], shapes.gives[node.name] = takes, _gives(node, takes, shapes)


# ---- inputs ----


def _wanted(node: NirNode) -> Shape | None:
    """The shape that a node's own parameters ask for, or None."""
    if node.type in ("Linear", "Affine") and node.values["weight"].ndim == 2:
        return (node.values["weight"].shape[1],)
    if node.type in ("Conv1d", "Conv2d") and node.get("input_shape") and node.values["weight"].ndim >= 3:
        return (node.values["weight"].shape[1] * node.values["groups"], *node.values["input_shape"])
    if node.type == "Flatten":
        return node.get("input_type")
    return own_shape(node)


def own_shape(node: NirNode) -> Shape | None:
    """The shape of a node's per-element parameters: None where all are single numbers."""
    if node.type not in (*NEURONS, "Scale", "Delay"):
        return None
    found = [v.shape for v in node.values.values() if isinstance(v, np.ndarray) and v.size != 1]
    return max(found, key=len) if found else None


def _input(node: NirNode, wanted: list[Shape], shapes: Shapes) -> Shape | None:
    """An Input's shape: what it says, without the axes of a sample's batch or time that exporters leave in."""
    said = node.get("shape")
    if said is None:
        return wanted[0] if wanted else None
    if not said or min(said) < 1:
        raise FrontendError(f"{node.where}: shape {list(said)}; every size must be at least 1")
    for want in wanted:
        if said == want:
            break
        if len(want) < len(said) and (bare(said) == bare(want) or _batched(said, want)):
            shapes.note(node, f"shape {list(said)} in the file, read as {list(want)}, which its reader wants")
            return want
    if len(said) > 3:
        raise FrontendError(f"{node.where}: shape {list(said)}; (N,), (C, L) or (C, H, W) was expected, without batch")
    return said


def _batched(said: Shape, want: Shape) -> bool:
    return len(said) > len(want) and said[len(said) - len(want) :] == want


# ---- the other nodes ----


def _takes(node: NirNode, given: Shape | None, shapes: Shapes) -> Shape | None:
    """The shape of a node's operand, or None where neither it nor its source tells."""
    wanted = _wanted(node)
    if node.type in (*NEURONS, "Scale", "Delay"):
        return _elementwise(node, wanted, given, shapes)
    if wanted is not None and given is None:
        return wanted
    if given is None:
        return None
    if wanted is None or given == wanted:
        return given
    if not alike(given, wanted):
        raise FrontendError(f"{node.where}: takes {list(wanted)}, but {list(given)} is what arrives")
    return wanted


def _elementwise(node: NirNode, own: Shape | None, given: Shape | None, shapes: Shapes) -> Shape | None:
    """One value per element, or single numbers for all of them."""
    for key, value in node.values.items():
        if own is not None and value.size != 1 and value.shape != own and value.ndim <= len(own):
            try:
                np.broadcast_to(value, own)
            except ValueError:
                raise FrontendError(
                    f"{node.where}: '{key}' has shape {list(value.shape)}, another parameter {list(own)}; "
                    "give all of them one shape, or single numbers"
                ) from None
    if own is None or given is None:
        return own if given is None else given
    if alike(own, given):
        return own if len(own) <= 3 else given
    try:
        if np.broadcast_shapes(own, given) == given and len(own) == len(given):
            shapes.note(node, f"parameters of shape {list(own)} hold for all of {list(given)}")
            return given
    except ValueError:
        pass
    raise FrontendError(
        f"{node.where}: parameters have shape {list(own)}, but {list(given)} is what arrives; "
        "give one value per neuron, or single numbers"
    )


def _gives(node: NirNode, takes: Shape, shapes: Shapes) -> Shape:
    if node.type in ("Linear", "Affine"):
        return (_matrix(node).shape[0],)
    if node.type in ("Conv1d", "Conv2d"):
        return _conv(node, takes)
    if node.type in ("SumPool2d", "AvgPool2d"):
        return _pool(node, takes)
    if node.type == "Flatten":
        return _flattened(node, takes, shapes)
    if node.type == "Output":
        _check_output(node, takes, shapes)
    return takes


def _matrix(node: NirNode) -> np.ndarray:
    weight = node.values["weight"]
    if weight.ndim != 2:
        raise FrontendError(f"{node.where}: weight has shape {list(weight.shape)}; [outputs, inputs] was expected")
    bias = node.get("bias")
    if bias is not None and bias.size != 1 and bias.shape != (weight.shape[0],):
        raise FrontendError(f"{node.where}: bias has shape {list(bias.shape)}, expected [{weight.shape[0]}]")
    return weight


def pair(value: Any) -> tuple[int, int]:
    """One or two numbers as two."""
    return (value[0], value[0]) if len(value) == 1 else (value[0], value[1])


def padding(node: NirNode, dims: int) -> list[tuple[int, int]]:
    """Zeros in front and behind, per axis. FrontendError for 'same' with a stride."""
    pad, kernel = node.values["padding"], node.values["weight"].shape[2:]
    stride, dilation = (pair(node.values[key])[:dims] for key in ("stride", "dilation"))
    if pad == "valid":
        return [(0, 0)] * dims
    if pad != "same":
        return [(p, p) for p in pair(pad)[:dims]]
    if set(stride) != {1}:
        raise FrontendError(f"{node.where}: padding 'same' with stride {list(stride)} has no meaning in NIR")
    total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    return [(t // 2, t - t // 2) for t in total]


def _conv(node: NirNode, takes: Shape) -> Shape:
    dims = int(node.type[4])
    weight, groups = node.values["weight"], node.values["groups"]
    if weight.ndim != dims + 2:
        raise FrontendError(f"{node.where}: weight has shape {list(weight.shape)}; {dims + 2} axes were expected")
    if len(takes) != dims + 1:
        raise FrontendError(f"{node.where}: takes {dims + 1} axes, channels first; {list(takes)} is what arrives")
    if groups < 1 or weight.shape[0] % groups or weight.shape[1] * groups != takes[0]:
        raise FrontendError(
            f"{node.where}: weight {list(weight.shape)} with groups {groups} takes {weight.shape[1] * max(groups, 0)} "
            f"channels, but {list(takes)} is what arrives"
        )
    bias = node.get("bias")
    if bias is not None and bias.size != 1 and bias.shape != (weight.shape[0],):
        raise FrontendError(f"{node.where}: bias has shape {list(bias.shape)}, expected [{weight.shape[0]}]")
    pads, sizes = padding(node, dims), []
    for axis in range(dims):
        stride, dilation = pair(node.values["stride"])[axis], pair(node.values["dilation"])[axis]
        sizes.append(_window(node, takes[1 + axis], weight.shape[2 + axis], stride, pads[axis], dilation))
    return (weight.shape[0], *sizes)


def _pool(node: NirNode, takes: Shape) -> Shape:
    if len(takes) != 3:
        raise FrontendError(f"{node.where}: takes (C, H, W); {list(takes)} is what arrives")
    kernel, stride, pad = (pair(node.values[key]) for key in ("kernel_size", "stride", "padding"))
    sizes = [_window(node, takes[1 + i], kernel[i], stride[i], (pad[i], pad[i]), 1) for i in (0, 1)]
    return (takes[0], *sizes)


def _window(node: NirNode, size: int, kernel: int, stride: int, pad: tuple[int, int], dilation: int) -> int:
    if min(kernel, stride, dilation) < 1 or min(pad) < 0:
        raise FrontendError(f"{node.where}: kernel, stride and dilation must be at least 1 and padding at least 0")
    out = (size + sum(pad) - dilation * (kernel - 1) - 1) // stride + 1
    if out < 1:
        raise FrontendError(f"{node.where}: a window of {kernel} (dilation {dilation}) does not fit into {size}")
    return out


def _flattened(node: NirNode, takes: Shape, shapes: Shapes) -> Shape:
    start, end = (int(node.values[key]) for key in ("start_dim", "end_dim"))
    axes = len(takes)
    first, last = (start + axes if start < 0 else start), (end + axes if end < 0 else end)
    if first == axes and last >= axes - 1:
        shapes.note(node, f"start_dim {start} lies behind {list(takes)}: nothing to flatten")
        return takes
    if not 0 <= first <= last < axes:
        raise FrontendError(f"{node.where}: start_dim {start} and end_dim {end} are no axes of {list(takes)}")
    return (*takes[:first], math.prod(takes[first : last + 1]), *takes[last + 1 :])


def _check_output(node: NirNode, takes: Shape, shapes: Shapes) -> None:
    said = node.get("shape")
    if said is None or said == takes:
        return
    if alike(said, takes) or _batched(said, takes):
        shapes.note(node, f"shape {list(said)} in the file, {list(takes)} is what arrives")
        return
    raise FrontendError(f"{node.where}: says shape {list(said)}, but {list(takes)} is what arrives")


def _check_edge(source: NirNode, node: NirNode, shapes: Shapes) -> None:
    given, takes = shapes.gives[source.name], shapes.takes[node.name]
    if given == takes:
        return
    if not alike(given, takes):
        raise FrontendError(f"{node.where}: takes {list(takes)}, but '{source.name}' gives {list(given)}")
    if canonical(given) != canonical(takes):
        shapes.note(node, f"{list(given)} of '{source.name}' is read as {list(takes)}, first axis slowest")
