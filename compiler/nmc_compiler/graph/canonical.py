"""One form for equal graphs: what two front ends say of one network, in the same text if they mean the same.

Left out is what does not change what a graph computes: ids, the graph's name, where a value comes from, names of nodes
that are no neurons, attributes at their defaults, nodes that nothing reads, the order of operands that add up, and
where a constant factor or a read-out's bias stands between linear ops. Tensors are called by their contents.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np

from nmc_compiler.graph.graph import Graph, Node, Use, rebuild
from nmc_compiler.graph.ops_linear import bn_affine
from nmc_compiler.graph.registry import op_spec
from nmc_compiler.graph.types import Attr, Ref

GAINED = ("lif", "neuron", "multilevel", "ilif")
LINEAR = ("conv2d", "sum_positions", "reshape")
DEFAULTS: dict[str, Any] = {
    "stride": (1, 1),
    "pad": (0, 0),
    "dilation": (1, 1),
    "groups": 1,
    "v_reset": 0.0,
    "norm": 1,
    "gain": 1.0,
    "gain_v": 1.0,
    "alpha": 0.0,
    "leak": 0.0,
    "scale": 1.0,
    "reset_at": "same",
    "current": "new",
    "fire": "new",
    "signed": False,
}


def canonical(graph: Graph) -> Graph:
    """The canonical form of a graph; ``to_text`` of two of them is equal where the graphs are.

    Equal means equal numbers, bit for bit in double precision: 32-bit weights and their 64-bit copies are the same, and
    so are the zeros of both signs.
    What a RepConv pads with, which is what its batch norm makes of zero, may have been computed in single precision.
    """
    nodes = {n.id: n for n in graph}
    tensors = {
        k: v.astype(np.float64) + 0.0 if v.dtype.kind == "f" else v.astype(np.int64) for k, v in graph.tensors.items()
    }
    nodes = _rings(_factors(nodes, tensors), tensors)
    plain = [_plain(n, tensors, nodes) for n in _live(nodes)]
    named, renamed = _by_contents(plain, tensors)
    ordered = _renamed(named)
    return rebuild(replace(graph, name="canonical"), ordered, renamed)


# ---- what is left out ----


def _live(nodes: dict[str, Node]) -> list[Node]:
    """Nodes that an end needs, in the given order; inputs stay."""
    users = {use.node for n in nodes.values() for use in n.inputs}
    stack = [n.id for n in nodes.values() if n.op in ("output", "readout", "int_readout", "input")]
    stack = stack or [i for i in nodes if i not in users]
    seen: set[str] = set()
    while stack:
        found = stack.pop()
        if found not in seen:
            seen.add(found)
            stack += nodes[found].operands
    return [n for n in nodes.values() if n.id in seen]


def _plain(node: Node, tensors: dict[str, np.ndarray], nodes: dict[str, Node]) -> Node:
    """No evidence, no defaults, no names but those of populations, inputs and ends."""
    kept = {}
    for key, attr in sorted(node.attrs.items()):
        value = attr.value
        if isinstance(value, int) and not isinstance(value, bool) and key in ("norm", "theta", "tau"):
            value = float(value)
        if key in DEFAULTS and value == DEFAULTS[key] and type(value) is not bool or value is False:
            continue
        if key == "bias" and isinstance(value, Ref) and not tensors[value.key].any():
            continue
        kept[key] = Attr(value)
    if (
        node.op == "map"
        and kept.get("channels", Attr(0)).value == node.type.shape[0]
        and nodes[node.inputs[0].node].type.shape == node.type.shape
    ):
        kept = {"mode": Attr("same")}  # heads of one channel
    kept = _record(kept, node)
    spec = op_spec(node.op)
    name = node.name if spec.neuron or node.op in ("input", "output") else ""
    return replace(node, attrs=kept, name=name)


def _record(attrs: dict[str, Attr], node: Node) -> dict[str, Attr]:
    """A layout that orders elements as (C, H, W) does is none; only its shape is kept where it has another."""
    perm = attrs.get("record_perm")
    if perm is None or not node.inputs:
        return attrs
    shape = node.type.shape
    own = np.arange(math.prod(shape)).reshape(shape)
    if np.array_equal(own.transpose(perm.value).reshape(-1), own.reshape(-1)):  # type: ignore[arg-type]
        attrs = {k: v for k, v in attrs.items() if k != "record_perm"}
    if attrs.get("record_shape", Attr(())).value == shape:
        attrs = {k: v for k, v in attrs.items() if k != "record_shape"}
    return attrs


# ---- factors ----


def _factors(nodes: dict[str, Node], tensors: dict[str, np.ndarray]) -> dict[str, Node]:
    """Constant factors go behind linear ops, and into attentions; a read-out has the bias of the layer before it."""
    out = dict(nodes)
    changed = True
    while changed:
        changed = False
        readers: dict[str, list[str]] = defaultdict(list)
        for n in out.values():
            for use in n.inputs:
                readers[use.node].append(n.id)
        for node in list(out.values()):
            if len(node.inputs) != 1 or node.inputs[0].lag:
                continue
            source = out[node.inputs[0].node]
            alone = readers[source.id] == [node.id]
            if _is_factor(node) and source.op == "attn" and alone:
                scale = source.attr("scale", 1.0) * node.attr("factor")
                out[node.id] = replace(source, id=node.id, attrs=source.attrs | {"scale": Attr(scale)})
                changed = True
            elif _is_factor(node) and _is_factor(source) and alone:
                factor = node.attr("factor") * source.attr("factor")
                out[node.id] = replace(node, inputs=source.inputs, attrs={"factor": Attr(factor)})
                changed = True
            elif node.op in GAINED and source.op == "attn" and alone and source.attr("scale", 1.0) != 1.0:
                if "bias" in node.attrs or not isinstance(node.attr("gain", 1.0), (int, float)):
                    continue
                out[source.id] = replace(source, attrs={k: v for k, v in source.attrs.items() if k != "scale"})
                out[node.id] = node.with_attrs(gain=Attr(node.attr("gain", 1.0) * source.attr("scale")))
                changed = True
            elif node.op in GAINED and _is_factor(source) and isinstance(node.attr("gain", 1.0), (int, float)):
                if "bias" in node.attrs:
                    continue
                gain = Attr(node.attr("gain", 1.0) * source.attr("factor"))
                out[node.id] = replace(node, inputs=source.inputs, attrs=node.attrs | {"gain": gain})
                changed = True
            elif node.op == "readout" and alone:
                changed = _bias_out(node, source, out, tensors, readers) or changed
            elif node.op in LINEAR and _is_factor(source) and alone and "bias" not in node.attrs:
                below = out[source.inputs[0].node]
                if not below.type.is_event or node.op == "conv2d":
                    out[source.id] = replace(node, id=source.id, inputs=source.inputs)
                    out[node.id] = replace(source, id=node.id, inputs=(Use(source.id),), type=node.type)
                    changed = True
            if changed:
                break
    return out


def _bias_out(
    node: Node, source: Node, out: dict[str, Node], tensors: dict[str, np.ndarray], readers: dict[str, list[str]]
) -> bool:
    """readout(f * (conv + b)) reads f * conv, plus its own bias f * b."""
    factor, conv = 1.0, source
    if _is_factor(source):
        factor, conv = source.attr("factor"), out[source.inputs[0].node]
        if readers[conv.id] != [source.id]:
            return False
    if conv.op != "conv2d" or "bias" not in conv.attrs or source.op not in ("conv2d", "scale"):
        return False
    bias = tensors[conv.attr("bias").key] * factor
    own = node.attr("bias")
    bias = bias if own is None else bias + tensors[own.key]
    key = f"{node.id}.bias@canonical"
    tensors[key] = bias
    out[conv.id] = replace(conv, attrs={k: v for k, v in conv.attrs.items() if k != "bias"})
    out[node.id] = node.with_attrs(bias=Attr(Ref(key)))
    return True


def _rings(nodes: dict[str, Node], tensors: dict[str, np.ndarray]) -> dict[str, Node]:
    """The padding of a batch norm that holds what the norm makes of zero, computed anew in double precision."""
    out = dict(nodes)
    for node in nodes.values():
        source = out[node.inputs[0].node] if node.op == "pad2d" else node
        if source.op != "batch_norm":
            continue
        arrays = {k: tensors[a.value.key] for k, a in source.attrs.items() if isinstance(a.value, Ref)}
        _, offset = bn_affine(arrays.get, source.attr("eps"))
        if node is not source and np.allclose(offset, tensors[node.attr("value").key], rtol=1e-4, atol=1e-6):
            tensors[f"{node.id}.value@canonical"] = offset
            out[node.id] = node.with_attrs(value=Attr(Ref(f"{node.id}.value@canonical")))
    return out


def _is_factor(node: Node) -> bool:
    return node.op == "scale" and isinstance(node.attr("factor"), (int, float))


# ---- names by contents ----


def _by_contents(nodes: list[Node], tensors: dict[str, np.ndarray]) -> tuple[list[Node], dict[str, np.ndarray]]:
    """Tensors under the digest of what they hold."""
    keys = {}
    for key, array in tensors.items():
        head = f"{array.dtype}{array.shape}".encode()
        keys[key] = "t" + hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()[:24]
    used = {a.value.key for n in nodes for a in n.attrs.values() if isinstance(a.value, Ref)}
    out = []
    for node in nodes:
        attrs = {k: Attr(Ref(keys[a.value.key])) if isinstance(a.value, Ref) else a for k, a in node.attrs.items()}
        out.append(replace(node, attrs=attrs))
    return out, {keys[key]: tensors[key] for key in tensors if key in used}


def _renamed(nodes: list[Node]) -> list[Node]:
    """Ids by structure: a node is called after what it computes, then all are numbered from the inputs on."""
    by_id = {n.id: n for n in nodes}
    commutes = {n.id for n in nodes if _commutes(n, by_id)}
    prints = {i: _own_print(n) for i, n in by_id.items()}
    for _ in range(2):  # the second round tells nodes apart that differ in what they read a timestep late
        late = dict(prints)
        for node in nodes:
            reads = [f"{late[u.node]}-{u.lag}" if u.lag else prints[u.node] for u in node.inputs]
            reads = sorted(reads) if node.id in commutes else reads
            prints[node.id] = _digest(_own_print(node), *reads)
    readers: dict[str, list[str]] = defaultdict(list)
    for node in reversed(nodes):
        readers[node.id].sort()
        full = _digest(prints[node.id], *readers[node.id])
        for place, use in enumerate(node.inputs):
            readers[use.node].append(_digest(full, "" if node.id in commutes else str(place)))
    rank = {n.id: _digest(prints[n.id], *readers[n.id]) for n in nodes}
    return _numbered(by_id, rank, commutes)


def _commutes(node: Node, by_id: dict[str, Node]) -> bool:
    """Sums, and masks of the size of what they mask."""
    return node.op == "add" or node.op == "mul" and len({by_id[i].type.shape for i in node.operands}) == 1


def _numbered(by_id: dict[str, Node], rank: dict[str, str], commutes: set[str]) -> list[Node]:
    """Nodes as soon as their operands are there, those of the lowest rank first."""
    waiting = {i: {u.node for u in n.inputs if not u.lag} for i, n in by_id.items()}
    ready = sorted((rank[i], i) for i, needs in waiting.items() if not needs)
    ids: dict[str, str] = {}
    order = []
    while ready:
        _, found = ready.pop(0)
        ids[found] = f"n{len(ids)}"
        order.append(found)
        del waiting[found]
        fresh = []
        for i, needs in waiting.items():
            if found in needs:
                needs.discard(found)
                if not needs:
                    fresh.append((rank[i], i))
        ready = sorted(ready + fresh)
    out = []
    for found in order:
        node = by_id[found]
        uses = [Use(ids[u.node], u.lag) for u in node.inputs]
        if found in commutes:
            uses.sort(key=lambda u: (u.lag, int(u.node[1:])))
        out.append(replace(node, id=ids[found], inputs=tuple(uses)))
    return out


def _own_print(node: Node) -> str:
    attrs = [f"{k}={a.value!r}" for k, a in sorted(node.attrs.items())]
    return _digest(node.op, node.name, str(node.type), *attrs)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
