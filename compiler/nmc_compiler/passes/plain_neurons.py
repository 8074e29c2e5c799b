"""Leaky neurons of any framework as the one that a soma is: no gains, reset to 0, the current of this timestep.

What can be rewritten exactly is: input gains become scales, a reset value moves the origin of the potential, a current
that acts a timestep late becomes a delay. Other resets, bounds and thresholds that move stay where the target has
microcoded neurons; elsewhere they are refused by name, or approximated where the options allow it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Graph, Kind, Node, Use, label, rebuild
from nmc_compiler.graph.analysis import pool_name
from nmc_compiler.passes.base import derived, stored
from nmc_compiler.passes.regions import by_class, is_general
from nmc_compiler.passes.report import ConversionReport

Parameter = float | np.ndarray  # a number, [C] or [C, H, W]
MOVED = ("theta_decay", "theta_t", "gain_t", "bias_t", "levels", "theta_low", "sum_low")  # of microcoded neurons alone
APPROXIMATIONS = {
    "soft-reset": "subtracts its threshold at a spike; a soma resets to 0",
    "late-reset": "resets after its next update; a soma resets at once",
    "v-min": "keeps its potential above a lower bound; a soma has none",
}


@dataclass(frozen=True)
class PlainNeurons:
    """``allow``: names of APPROXIMATIONS that may be made where the target has no microcoded neurons (``cells``)."""

    name: ClassVar[str] = "plain-neurons"
    allow: tuple[str, ...] = ()
    cells: bool = True

    def apply(self, graph: Graph, report: ConversionReport) -> Graph:
        return _Rewriter(graph, self.allow, self.cells, report).run()


class _Rewriter:
    def __init__(self, graph: Graph, allow: tuple[str, ...], cells: bool, report: ConversionReport) -> None:
        self.graph, self.allow, self.cells, self.report = graph, allow, cells, report
        self.tensors = dict(graph.tensors)
        self.by_id = graph.by_id()
        self.alone = is_general(graph)  # no neuron shares its current with others
        self.refused: dict[str, str] = {}  # neuron -> why

    def run(self) -> Graph:
        known = {"neuron": self._neuron, "integrator": self._integrator, "psn": self._psn}
        if self.alone:  # elsewhere a pool of spikes is a gate behind a constant-weight map
            known["maxpool2d"] = self._maxpool
        nodes = [new for node in self.graph for new in (known[node.op](node) if node.op in known else [node])]
        self._refuse()
        return rebuild(self.graph, nodes, self.tensors)

    def _refuse(self) -> None:
        """Every neuron that is refused is in the report; the error tells the first and names the others."""
        if not self.refused:
            return
        (first, why), *others = self.refused.items()
        names = ", ".join(f"'{name}'" for name in [name for name, _ in others][:8]) + (
            ", ..." if len(others) > 8 else ""
        )
        raise LoweringError(f"'{first}' {why}" + (f"; refused as well: {names}" if others else ""))

    # ---- parameters ----

    def _get(self, node: Node, key: str, default: float = 0.0) -> Parameter:
        value = node.attr(key, default)
        return float(value) if isinstance(value, (int, float)) else self.tensors[value.key].astype(np.float64)

    def _put(self, node: Node, key: str, value: Parameter) -> dict[str, Any]:
        """The attribute, left out where it is 0; equal numbers are one."""
        if np.ndim(value) and (np.asarray(value) == np.asarray(value).flat[0]).all():
            value = float(np.asarray(value).flat[0])
        if not np.ndim(value):
            return {key: derived(float(value))} if value else {}
        return {key: stored(self.tensors, f"{label(node).lstrip('%')}.{key}@plain", np.asarray(value))}

    # ---- neurons ----

    def _neuron(self, node: Node) -> list[Node]:
        reasons, refusals = self._approximations(node)
        beta, leak, theta = self._get(node, "beta"), self._get(node, "leak"), self._get(node, "theta")
        start, stateless = self._get(node, "start_v"), not np.any(beta)
        remarks: list[str] = []
        origin: Parameter = self._get(node, "v_reset") if node.attr("reset") == "hard" else 0.0
        if np.any(origin):
            theta, start = _minus(theta, origin), _minus(start, origin)
            leak = _minus(leak, _times(_minus(1.0, beta), origin))
            remarks.append("the potential is counted from the reset value")
        if node.attr("reset_at", "same") == "next_start" and not stateless:
            remarks.append("resets at the spike instead of before the next update: the same spikes")
        unit: Parameter = 1.0
        if np.min(theta) > 0 and np.min(theta) < np.max(theta):  # thresholds are neuron groups, of which a core has few
            unit, theta = 1.0 / np.asarray(theta), 1.0
            leak, start = _times(leak, unit), _times(start, unit)
            remarks.append("potential and weights are counted in thresholds, which differ")
        elif not self.alone and by_class(node):  # a scale would stand between it and the current that others read
            unit = 1.0 / self._gains(node)
            theta, leak, start = (_times(value, unit) for value in (theta, leak, start))
        attrs = {"theta": derived(0.0)} | self._put(node, "theta", theta)
        attrs |= {"reset": derived("hard"), "compare": node.attrs["compare"]}
        if self.cells:
            attrs |= self._microcoded(node, origin, unit)
        rating = "refused" if refusals else "approximate" if reasons else "faithful"
        self.report.add(PlainNeurons.name, label(node), rating=rating, reasons=refusals or reasons, remarks=remarks)
        if refusals:
            self.refused[label(node)] = refusals[0]
        return self._plain(node, {"leak": leak, "start_v": start}, attrs, unit)

    def _gains(self, node: Node) -> float:
        """What its current is multiplied by, where that is one number above 0; else 1."""
        gain = _times(self._get(node, "gain", 1.0), self._get(node, "gain_v", 1.0))
        return float(gain) if not np.ndim(gain) and gain > 0 else 1.0

    def _microcoded(self, node: Node, origin: Parameter, unit: Parameter) -> dict[str, Any]:
        """What a soma of microcode has besides, counted from ``origin`` in ``unit``."""
        stateless, at = not np.any(self._get(node, "beta")), node.attr("reset_at", "same")
        kept = ("levels", "rounding", "norm", "sum_low", "sum_high", "theta_decay", "compare_low")
        attrs: dict[str, Any] = {key: node.attrs[key] for key in kept if key in node.attrs}
        if not stateless or at == "next_end":
            attrs["reset"] = node.attrs["reset"]
            attrs |= {"reset_at": derived("next_end")} if at == "next_end" else {}
        for key in ("v_min", "theta_low", "theta_step", "step"):
            if key in node.attrs and not (key == "v_min" and stateless):
                counted = _minus(self._get(node, key), origin if key in ("v_min", "theta_low") else 0.0)
                attrs |= {key: derived(0.0)} | self._put(node, key, _times(counted, unit))
        if "theta_t" in node.attrs:
            attrs |= self._table(node, "theta_t", (np.asarray(self._get(node, "theta_t")) - origin) * unit)
        for key in ("gain_t", "bias_t"):
            if key in node.attrs:
                factor = 1.0 if key == "gain_t" else self._drive(node, unit)
                attrs |= self._table(node, key, _late(node, np.asarray(self._get(node, key))) * factor)
        return attrs

    def _table(self, node: Node, key: str, table: np.ndarray) -> dict[str, Any]:
        return {key: stored(self.tensors, f"{label(node).lstrip('%')}.{key}@plain", table)}

    def _differs_late(self, node: Node) -> bool:
        """Whether a reset before the next update is another than one at the spike."""
        moving = node.attr("reset") == "soft" and {"theta_decay", "theta_t"} & set(node.attrs)
        high = np.any(self._get(node, "v_min") > 0) or {"levels", "theta_low"} & set(node.attrs)
        return bool(moving or ("v_min" in node.attrs and high))

    def _drive(self, node: Node, unit: Parameter) -> Parameter:
        """What a current is multiplied by on its way into the potential."""
        if "alpha" in node.attrs:
            raise LoweringError(f"'{label(node)}' has a bias by timestep and a current that lasts; not lowered")
        return _times(_times(self._get(node, "gain", 1.0), self._get(node, "gain_v", 1.0)), unit)

    def _integrator(self, node: Node) -> list[Node]:
        self.report.add(PlainNeurons.name, label(node), rating="faithful", reasons=[], remarks=[])
        return self._plain(node, {"leak": self._get(node, "leak"), "start_v": self._get(node, "start_v")}, {}, 1.0)

    def _plain(self, node: Node, values: dict[str, Parameter], attrs: dict[str, Any], unit: Parameter) -> list[Node]:
        """The neuron behind the scale and the delay that its gains and its late current become."""
        alpha, gain_v = self._get(node, "alpha"), _times(self._get(node, "gain_v", 1.0), unit)
        gain, start = _times(self._get(node, "gain", 1.0), gain_v), _times(self._get(node, "start_u"), gain_v)
        chain, source = [], node.inputs[0]
        if np.any(np.asarray(gain) != 1.0) or self.by_id[source.node].type.is_event:
            key = f"{node.id}.gain"
            factor = {"factor": derived(1.0)} | self._put(node, "factor", gain)
            chain.append(replace(node, id=key, op="scale", attrs=factor, name="", inputs=(source,)))
            source = Use(key)
        if node.attr("current", "new") == "old":
            start = np.asarray(start) / alpha if np.any(start) and np.all(alpha) else start
            late = replace(node, id=f"{node.id}.late", op="delay", attrs={"steps": derived(1)}, name="")
            chain.append(replace(late, inputs=(source,)))
            source = Use(late.id)
        for key, value in {"alpha": alpha, "start_u": start, **values}.items():
            attrs |= self._put(node, key, value)
        attrs["beta"] = self._put(node, "beta", self._get(node, "beta")).get("beta", derived(0.0))
        kept = {k: v for k, v in node.attrs.items() if k.startswith("record_")}
        return [*chain, replace(node, inputs=(source,), attrs=attrs | kept)]

    def _approximations(self, node: Node) -> tuple[list[str], list[str]]:
        """What is changed, as the options allow, and why the neuron is refused otherwise."""
        stateless = not np.any(self._get(node, "beta"))
        reset, when = node.attr("reset"), node.attr("reset_at", "same")
        refusals = []
        if node.attr("fire", "new") == "old":
            refusals.append("fires on the potential before its update; a soma compares after it; no rewriting is exact")
        if reset == "none" and not stateless and not self.cells:
            refusals.append("keeps its potential when it fires (reset none); a soma resets to 0")
        late = node.attr("current", "new") == "old" and np.any(self._get(node, "start_u"))
        if late and not np.all(self._get(node, "alpha")):
            refusals.append("starts with a current that it has no decay (alpha) for")
        if not self.cells:
            moving = next((key for key in MOVED if key in node.attrs), None)
            if moving is not None:
                refusals.append(f"has {moving}, for which a soma that is not microcoded has no register")
        wanted = []
        if when == "next_start" and not stateless and self._differs_late(node):
            refusals.append(
                "resets before its next update, by a threshold that moves or behind a lower bound; no soma does both"
            )
        if self.cells:
            return [], refusals
        if reset == "soft" and not (stateless and when != "next_end"):
            wanted.append("soft-reset")
        if when == "next_end" and reset != "none":
            wanted.append("late-reset")
        if "v_min" in node.attrs and not stateless:
            wanted.append("v-min")
        refusals += [
            f"{APPROXIMATIONS[name]}; allow the approximation '{name}', or train it otherwise"
            for name in wanted
            if name not in self.allow
        ]
        return [f"{name}: {APPROXIMATIONS[name]}" for name in wanted], refusals

    # ---- parallel spiking neurons ----

    def _psn(self, node: Node) -> list[Node]:
        """A sliding one is a gate behind its current and earlier ones, each with a weight: delays of synapses."""
        taps, theta = self._taps(node), self._get(node, "theta")
        chain: list[Node] = []
        for late in np.flatnonzero(taps).tolist():
            type_ = replace(node.type, kind=Kind.CURRENT)
            delayed = Node(f"{node.id}.late{late}", "delay", node.inputs, {"steps": derived(late)}, type_)
            factor = {"factor": derived(float(taps[late]))}
            chain += [delayed, Node(f"{node.id}.tap{late}", "scale", (Use(delayed.id),), factor, type_)]
        uses = tuple(Use(n.id) for n in chain if n.op == "scale")
        if not uses:
            raise LoweringError(f"'{label(node)}' has taps of 0 only; it hears nothing; remove it")
        total = Node(f"{node.id}.sum", "add", uses, {}, replace(node.type, kind=Kind.CURRENT))
        attrs: dict[str, Any] = {"beta": derived(0.0), "reset": derived("hard"), "theta": derived(float(np.max(theta)))}
        attrs["compare"] = node.attrs.get("compare", derived("ge"))
        if np.ndim(theta):
            attrs["theta_t"] = stored(self.tensors, f"{label(node)}.theta_t@plain", np.asarray(theta)[:, None])
        kept = {k: v for k, v in node.attrs.items() if k.startswith("record_")}
        self.report.add(PlainNeurons.name, label(node), rating="faithful", reasons=[], remarks=[f"{len(uses)} taps"])
        return [*chain, total, replace(node, op="neuron", inputs=(Use(total.id),), attrs=attrs | kept)]

    def _taps(self, node: Node) -> np.ndarray:
        """Weights of the current of this timestep, of the one before, ..."""
        taps = self.graph.tensor(node, "taps")
        if taps is not None:
            return taps.astype(np.float64)
        weight = self.graph.tensor(node, "weight")
        assert weight is not None
        return weight[:, 0].astype(np.float64)  # of equal diagonals: psn-banks takes the others

    # ---- pools ----

    def _maxpool(self, node: Node) -> list[Node]:
        """The maximum of spikes is whether there is one."""
        source = self.by_id[node.inputs[0].node]
        if source.type.kind is not Kind.SPIKE:
            raise LoweringError(f"max-pool '{label(node)}' reads {source.type}; only plain spikes can be pooled so")
        window = replace(node, id=f"{node.id}.in", op="sumpool2d", name="")
        attrs = {"beta": 0.0, "theta": 0.5, "reset": "hard", "compare": "gt"}
        gate = replace(node, op="neuron", name=pool_name(self.graph, node), inputs=(Use(window.id),))
        return [window, replace(gate, attrs={k: derived(v) for k, v in attrs.items()})]


def _late(node: Node, table: np.ndarray) -> np.ndarray:
    """A table by timestep as a current meets it that acts a timestep late."""
    return np.concatenate([0.0 * table[:1], table[:-1]]) if node.attr("current", "new") == "old" else table


def _full(value: Parameter, like: Parameter) -> np.ndarray:
    """A [C] array beside one of [C, H, W] gets its axes."""
    array = np.asarray(value, np.float64)
    return array[:, None, None] if array.ndim == 1 and np.ndim(like) == 3 else array


def _minus(a: Parameter, b: Parameter) -> Parameter:
    return _full(a, b) - _full(b, a)


def _times(a: Parameter, b: Parameter) -> Parameter:
    return _full(a, b) * _full(b, a)
