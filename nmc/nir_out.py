"""The float graph of an artefact as a NIR file, read back before it is written."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nmc.artefact import Compiled
from nmc.folders import write_file
from nmc_compiler.errors import LoweringError, UsageError
from nmc_compiler.export.nir import nir_bytes, nir_tree
from nmc_compiler.frontends.hdf5 import Hdf5Group
from nmc_compiler.frontends.nir import NirOptions, build
from nmc_compiler.graph import Attr, Graph, Node, Ref
from nmc_compiler.nir.rules import DEFAULT, Rule, check_dt, rule_of
from nmc_compiler.nir.say import input_kind_of, name_of

ROUNDED = 1e-6  # relative; NIR's numbers are read in single precision


@dataclass(frozen=True)
class NirExport:
    """``dt`` in seconds, ``rule`` and ``reset``: None, as the network was read. ``extension``: see docs/nir.md."""

    dt: float | None = None
    rule: str | None = None
    reset: str | None = None
    extension: bool = False


def export_nir(compiled: Compiled, out: str | os.PathLike[str], options: NirExport) -> Path:
    """Write the float graph as trained; quantisation and mapping are no part of it.

    UsageError without a timestep; LoweringError for what NIR cannot say; ArtefactError where it cannot be written.
    """
    dt, rule = _as_read(compiled, options)
    graph = compiled.float_graph
    tree, _ = nir_tree(graph, rule, dt, options.extension)
    check_round_trip(graph, tree, rule, dt)
    return write_file(out, nir_bytes(tree))


def _as_read(compiled: Compiled, options: NirExport) -> tuple[float, Rule]:
    """Timestep and rule: as given, else those that a NIR file was read with."""
    config: Any = compiled.program.meta.get("config")
    of_nir = compiled.program.meta.get("family") == "nir" and isinstance(config, dict)
    known = {key: entry.get("value") for key, entry in config.items()} if of_nir else {}
    dt = options.dt if options.dt is not None else known.get("dt")
    if dt is None:
        raise UsageError(
            f"Program '{compiled.program.name}' was not made from a NIR graph, and knows no seconds; give the timestep "
            "with --dt"
        )
    reset = known.get("reset") if options.reset is None and options.rule is None else options.reset
    return check_dt(dt), rule_of(str(options.rule or known.get("rule") or DEFAULT), reset)


def check_round_trip(graph: Graph, tree: dict[str, Any], rule: Rule, dt: float) -> None:
    """Read the file back: LoweringError unless it is the same network, number by number to single precision."""
    inputs = input_kind_of(graph.sources[0]) if graph.sources else "spikes"
    kinds = {input_kind_of(node) for node in graph.sources}
    extended = any(key.startswith("nmc:") for key in tree["node"])
    if len(kinds) > 1 and not extended:
        raise LoweringError(
            f"graph '{graph.name}' has inputs of several kinds ({', '.join(sorted(kinds))}), of which NIR says nothing"
        )
    options = NirOptions(dt, graph.timesteps, rule.name, rule.reset, inputs)
    again, _, _ = build(Hdf5Group.of("the NIR file", tree), options, graph.name)
    wrong = difference(graph, again)
    if wrong:
        raise LoweringError(
            f"graph '{graph.name}': {wrong} in a NIR file; --nir-extension writes one that other readers refuse"
        )


def difference(a: Graph, b: Graph) -> str:
    """The first node that two graphs do not have alike, ids and origins of values apart; empty where there is none."""
    mine, theirs = _Names(a), _Names(b)
    for name, node in mine.nodes.items():
        if name not in theirs.nodes:
            return f"node '{name}' would be lost"
        why = _unlike(mine, node, theirs, theirs.nodes[name])
        if why:
            return f"node '{name}' would {why}"
    return next((f"there would be a node '{name}'" for name in theirs.nodes if name not in mine.nodes), "")


class _Names:
    """A graph by the names of its nodes; sums and values in another shape belong to whoever reads them."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.by_id = graph, graph.by_id()
        self.nodes = {name_of(n): n for n in graph if not self._between(n)}

    @staticmethod
    def _between(node: Node) -> bool:
        return not node.name and node.op in ("add", "map", "reshape", "sumpool2d")

    def reads(self, node: Node, lag: int = 0, pooled: str = "") -> list[tuple[str, int, str]]:
        """Names of what a node reads, each with its lag and the pool on its way."""
        out: list[tuple[str, int, str]] = []
        for use in node.inputs:
            source, late = self.by_id[use.node], lag + use.lag
            if not self._between(source):
                out.append((name_of(source), late, pooled))
                continue
            how = str([source.attr(k) for k in ("kernel", "stride", "pad")]) if source.op == "sumpool2d" else ""
            out += self.reads(source, late, pooled + how)
        return sorted(out)

    def value(self, attr: Attr) -> Any:
        return self.graph.tensors[attr.value.key] if isinstance(attr.value, Ref) else attr.value


def _unlike(a: _Names, node: Node, b: _Names, other: Node) -> str:
    if node.op != other.op or node.type != other.type:
        return f"become {other.op} {other.type} instead of {node.op} {node.type}"
    mine, theirs = a.reads(node), b.reads(other)
    if mine != theirs:
        odd = next(x for x, y in zip([*mine, ("", 0, "")], [*theirs, ("", 0, "")], strict=False) if x != y)
        return f"have other operands: '{odd[0]}', {odd[1]} timesteps late, is not among them"
    for key in sorted(set(node.attrs) | set(other.attrs)):
        both = key in node.attrs and key in other.attrs
        if not both or not _close(a.value(node.attrs[key]), b.value(other.attrs[key])):
            return f"have another {key}"
    return ""


def _close(x: Any, y: Any) -> bool:
    if isinstance(x, (str, tuple, bool)) or isinstance(y, (str, tuple, bool)):
        return bool(x == y)
    first, second = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return first.shape == second.shape and bool(np.allclose(first, second, ROUNDED, 0.0))
