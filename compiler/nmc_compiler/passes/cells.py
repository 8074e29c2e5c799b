"""Neurons that need a soma of microcode, and their integers: thresholds, resets and what moves them.

With ``unit`` membrane units per unit of the model's potential, above its reset value, V = unit * v; hence every
threshold, step, bound and jump is a product, and a compare at or above a whole number meets the model's to the letter.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Attr, Graph, Node, Ref, label
from nmc_compiler.graph.ops_cell import CELL_ONE
from nmc_compiler.passes.base import derived, stored
from nmc_compiler.passes.gates import input_gain

TOP = (1 << 23) - 1  # of a potential
DECAY = 4096
GRAIN = 64  # membrane units per synaptic unit
EPSILON = 1e-9
NEED = ("theta_decay", "theta_t", "gain_t", "bias_t", "levels", "theta_low", "sum_low")  # attributes no plain soma has


def kept_of(graph: Graph, node: Node) -> np.ndarray:
    """What a potential keeps of a step: a number or [C]."""
    if node.op == "lif":
        return np.asarray(1.0 - 1.0 / float(node.attr("tau")))
    return value_of(graph, node, "beta")


def piled(graph: Graph, node: Node) -> float:
    """How many times its current a potential that nothing resets can reach; 1 for others."""
    kept = float(np.max(kept_of(graph, node))) if node.op == "neuron" and node.attr("reset") == "none" else 0.0
    if not kept:
        return 1.0
    steps = graph.timesteps or 1000
    most = float(steps) if kept >= 1.0 else (1.0 - kept**steps) / (1.0 - kept)
    gain = graph.tensor(node, "gain_t")
    return most if gain is None else min(most, max(float(np.abs(gain).reshape(len(gain), -1).sum(0).max()), 1.0))


def value_of(graph: Graph, node: Node, key: str, default: float = 0.0) -> np.ndarray:
    """A parameter: a number, [C], or [C, H, W]."""
    value = node.attr(key, default)
    return np.asarray(graph.tensors[value.key] if isinstance(value, Ref) else value, np.float64)


def needs_cell(graph: Graph, node: Node) -> str | None:
    """What of a neuron only a soma of microcode does; None where a plain one will do."""
    if node.op == "ilif":
        return "keeps what is left of a potential behind a code"
    if node.op == "psn":
        return "filters its current over time"
    if node.op not in ("lif", "neuron"):
        return next((f"has {key}" for key in NEED[2:4] if key in node.attrs), None)
    found = next((key for key in NEED if key in node.attrs), None)
    if found is not None:
        return f"has {found}"
    forgets, at = not np.any(kept_of(graph, node)), node.attr("reset_at", "same")
    if at == "next_end" and node.attr("reset") != "none":
        return "resets in the update after its spike"
    if forgets:
        return None
    if node.attr("reset") != "hard":
        return f"has reset {node.attr('reset')}"
    return "has v_min" if "v_min" in node.attrs else None


def gain_of(node: Node) -> float:
    """kappa in h = kept * h + kappa * (x + bias)."""
    if node.op == "neuron":  # its gains have become scales, of which some went back into it
        return float(node.attr("gain", 1.0)) * float(node.attr("gain_v", 1.0))
    return input_gain(node) if node.op == "lif" else float(node.attr("gain", 1.0))


def bias_of(graph: Graph, node: Node) -> np.ndarray | None:
    """What is added to a current, [C]: the bias, or of a general neuron the leak, in units of the current."""
    if node.op != "neuron":
        return graph.tensor(node, "bias")
    leak = value_of(graph, node, "leak") / gain_of(node)
    return np.broadcast_to(leak, node.type.shape[:1]) if leak.any() else None


def bias_bound(graph: Graph, node: Node) -> np.ndarray | float:
    """Largest |bias| at any timestep, behind a gain of at most 1."""
    bias, table = bias_of(graph, node), graph.tensor(node, "bias_t")
    most = 0.0 if bias is None else np.abs(bias.astype(np.float64))
    return most if table is None else most + np.abs(table.astype(np.float64)).reshape(len(table), -1).max(axis=0)


def height_of(graph: Graph, node: Node) -> np.ndarray:
    """The threshold above what potentials are counted from; a number or [C]."""
    return value_of(graph, node, "theta", 1.0) - origin_of(graph, node)


def top_of(graph: Graph, node: Node) -> np.ndarray:
    """The highest threshold."""
    return height_of(graph, node) * (node.attr("levels") - _below(node) if "levels" in node.attrs else 1.0)


def _below(node: Node) -> float:
    """How far below n thresholds level n starts."""
    return 0.0 if node.attr("rounding") == "down" else 0.5


def origin_of(graph: Graph, node: Node) -> np.ndarray:
    """What potentials are counted from: the value of a hard reset."""
    return value_of(graph, node, "v_reset") if node.attr("reset", "soft") == "hard" else np.zeros(())


def decay_of(kept: float) -> tuple[int, bool]:
    """12-bit decay that keeps this of a step, and whether it is exact."""
    lost = DECAY * (1.0 - kept)
    return int(round(lost)), lost == round(lost)


def whole(z: float) -> tuple[float, bool]:
    """A number within the rounding of a double of a whole one is that, a tie."""
    near = float(round(z))
    return (near, True) if abs(z - near) <= EPSILON * max(abs(z), 1.0) else (z, False)


def first_at(z: float, compare: str) -> int:
    """The least whole number that is >= z ("ge"), or > z ("gt")."""
    z, _ = whole(z)
    return math.ceil(z) if compare == "ge" else math.floor(z) + 1


def first_at_each(z: np.ndarray, compare: str) -> np.ndarray:
    """``first_at`` of an array."""
    near = np.rint(z)
    tie = np.abs(z - near) <= EPSILON * np.maximum(np.abs(z), 1.0)
    at_least = np.where(tie, near, np.ceil(z))
    return at_least if compare == "ge" else np.where(tie, near, np.floor(z)) + 1.0


class CellForm:
    """Attributes of one ``cell``; ``facts`` and ``reasons`` are for the report."""

    def __init__(self, graph: Graph, node: Node, unit: np.ndarray, tensors: dict[str, np.ndarray]) -> None:
        """``unit`` [C]: membrane units per unit of the potential."""
        self.graph, self.node, self.unit, self.tensors = graph, node, unit, tensors
        self.facts: dict[str, Any] = {}
        self.reasons: list[str] = []
        self.origin = origin_of(graph, node)
        self.attrs: dict[str, Attr] = self._thresholds() | self._reset() | self._others()

    def _value(self, key: str) -> np.ndarray:
        """A parameter of each channel; theta of a stateless one is 1."""
        found = value_of(self.graph, self.node, key, 1.0 if key == "theta" else 0.0)
        if found.ndim > 1:
            raise LoweringError(f"{key} of '{label(self.node)}' differs by position; a soma shares it by channel")
        return np.broadcast_to(found, self.unit.shape)

    def _put(self, key: str, wanted: np.ndarray, what: str) -> dict[str, Attr]:
        """Whole numbers of 24 bits under an attribute; what rounding cost is a reason."""
        whole = np.rint(wanted)
        if np.abs(whole).max(initial=0) > TOP:
            raise LoweringError(
                f"{what} of '{label(self.node)}' would be {np.abs(whole).max():.4g} membrane units; at most {TOP} fit"
            )
        error = float(np.abs(whole - wanted).max(initial=0.0))
        if error > 1e-9 * max(float(np.abs(wanted).max(initial=0.0)), 1.0):
            self.reasons.append(f"{what} is rounded by up to {error / float(self.unit.min()):.3g}")
        return {key: stored(self.tensors, f"{label(self.node)}.{key}", whole.astype(np.int32))}

    def _thresholds(self) -> dict[str, Attr]:
        table = self._levels() if "levels" in self.node.attrs else self._one()
        table = np.clip(table, -TOP - 1, TOP + 1).astype(np.int32)  # beyond any potential
        table = table[:1] if (table == table[:1]).all() and "low" not in self.node.attrs else table
        self.facts["thresholds"] = np.unique(table, axis=0).tolist()
        self.facts["vth"] = np.unique(table[:, 0] / GRAIN).tolist()
        return {"thresholds": stored(self.tensors, f"{label(self.node)}.thresholds", table)}

    def _one(self) -> np.ndarray:
        wanted = self.unit * (self._value("theta") - self.origin)
        return np.array([[first_at(float(w), self.node.attr("compare"))] for w in wanted])

    def _levels(self) -> np.ndarray:
        """Level n starts at n - 1/2, rounding down at n; half to even leaves the tie out for odd n."""
        levels = np.arange(1, self.node.attr("levels") + 1)
        wanted = (levels[None, :] - _below(self.node)) * (self.unit * self._value("theta"))[:, None]
        table, ties = np.zeros(wanted.shape), 0
        for at, z in np.ndenumerate(wanted):
            ties += whole(float(z))[1]
            odd = levels[at[1]] % 2 == 1 and self.node.attr("rounding") == "half_even"
            table[at] = first_at(float(z), "gt" if odd else "ge")
        self.facts["ties"] = ties
        return table

    def _reset(self) -> dict[str, Attr]:
        node = self.node
        reset = "none" if node.op == "multilevel" else node.attr("reset", "soft")
        attrs = {"reset": derived(reset)}
        if node.attr("reset_at") == "next_end":
            attrs["late"] = derived(True)
        if reset == "soft":
            subtracted = self._value("step") if "step" in node.attrs else self._value("theta")
            attrs |= self._put("step", self.unit * subtracted, "what a spike subtracts")
            self.facts["step"] = np.unique(self.tensors[attrs["step"].value.key]).tolist()  # type: ignore[union-attr]
        return attrs

    def _others(self) -> dict[str, Attr]:
        node, attrs = self.node, dict[str, Attr]()
        if "theta_low" in node.attrs:
            compare = "gt" if node.attr("compare_low") == "le" else "ge"  # below the first that is above
            low = np.array([float(first_at(float(z), compare)) for z in self.unit * self._value("theta_low")])
            attrs |= self._put("low", low, "the lower threshold")
        if "v_min" in node.attrs:
            floor = np.maximum(self.unit * (self._value("v_min") - self.origin), -TOP)
            if node.attr("reset_at") == "next_start" and (floor > 0).any():
                raise LoweringError(f"'{label(node)}' has v_min above its reset, and resets after it; not lowered")
            attrs |= self._put("floor", floor, "v_min")
        if "theta_decay" in node.attrs:
            attrs |= self._adaptive()
        if "theta_t" in node.attrs:
            attrs |= self._put("rise_t", self._rise(), "a threshold by timestep")
        if "sum_low" in node.attrs:
            attrs["sums"] = derived((node.attr("sum_low"), node.attr("sum_high")))
        return attrs

    def _rise(self) -> np.ndarray:
        """[T, C]: what is added to the threshold; to the letter but where a spike subtracts it, too."""
        wanted, base = (self.unit * (x - self.origin) for x in (self._table("theta_t"), self._value("theta")))
        if self.node.attr("reset", "soft") != "soft":
            wanted, base = (first_at_each(z, self.node.attr("compare")) for z in (wanted, base))
        return np.minimum(wanted - base, TOP)  # no potential reaches more

    def _adaptive(self) -> dict[str, Attr]:
        kept = np.unique(value_of(self.graph, self.node, "theta_decay"))
        if len(kept) > 1:
            raise LoweringError(f"'{label(self.node)}' has {len(kept)} different theta_decay; a population has one")
        db, exact = decay_of(float(kept[0]))
        if not exact:
            self.reasons.append(f"theta_decay {kept[0]:.6g} becomes {1.0 - db / DECAY:.6g}")
        jump = self.unit * self._value("theta_step")
        return {"db": derived(db)} | self._put("jump", jump, "what a spike raises the threshold by")

    def _table(self, key: str) -> np.ndarray:
        """[T, C] of a table [T] or [T, C]."""
        table = self.graph.tensor(self.node, key)
        assert table is not None
        found = table.astype(np.float64).reshape(len(table), -1)
        return np.broadcast_to(found, (len(found), len(self.unit)))

    def starts(self) -> dict[str, Attr]:
        """The potential before the first update."""
        value = value_of(self.graph, self.node, "start_v")
        if self.node.op != "neuron" or not (value - self.origin).any():
            return {}
        unit = self.unit[:, None, None]
        value, origin = (x[:, None, None] if x.ndim == 1 else x for x in (value, self.origin))
        return self._put("start_v", np.broadcast_to((value - origin) * unit, self.node.type.shape), "start_v")

    def drive(self, bias: np.ndarray | None, unit: np.ndarray) -> dict[str, Attr]:
        """Gain and bias by timestep; ``unit`` [C]: membrane units per unit of the current behind the gain."""
        node, attrs = self.node, dict[str, Attr]()
        if "gain_t" not in node.attrs and "bias_t" not in node.attrs:
            return {}
        gain = self._table("gain_t") if "gain_t" in node.attrs else np.ones((len(self._table("bias_t")), len(unit)))
        if "gain_t" in node.attrs:
            whole = np.rint(gain * CELL_ONE)
            error = float(np.abs(whole / CELL_ONE - gain).max())
            if error:
                self.reasons.append(f"gains by timestep are rounded by up to {error:.3g} of the greatest")
            whole = whole[:, :1] if (whole == whole[:, :1]).all() else whole
            attrs["gain_t"] = stored(self.tensors, f"{label(node)}.gain_t", whole.astype(np.int32))
        added = np.zeros((len(gain), len(unit)))
        if bias is not None:  # a general neuron's is behind the gain
            added = added + (bias if node.op == "neuron" else gain * bias)
        added = added + (self._table("bias_t") if "bias_t" in node.attrs else 0.0)
        if added.any():
            attrs |= self._put("bias_t", added * unit, "a bias by timestep")
        return attrs
