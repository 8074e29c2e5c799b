"""How far an integer network is off the float network it was made from, on data, population by population.

It answers why a network that works in float does not work in fixed point: which population is the first whose
spikes differ, which differs most when all its input is right, and by how much of a threshold its potentials are off.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nmc_compiler.errors import VerifyError
from nmc_compiler.graph import Graph, Node, label
from nmc_compiler.graph.interpret import Interpretation, interpret
from nmc_compiler.graph.types import Attr
from nmc_compiler.passes.forced import forced_run
from nmc_compiler.passes.integer_form import GRAIN

COMPARED = ("neuron", "integrator", "lif", "ilif", "multilevel")
Inputs = np.ndarray | Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Agreement:
    """One population in both networks.

    ``different``: spikes (codes) that only one of them has; ``first`` the first of these: sample, timestep, element
    (C order); ``own``: how many still differ where the population hears the float network's spikes (`forced_run`).
    ``worst`` and ``mean``: error of the potential where neither fires, in units of the threshold; of an integrator,
    relative to the largest value it reaches. None where the population has no threshold above 0 to measure by.
    ``own_worst``, ``own_mean``: likewise where it hears the float network's spikes.
    ``overflows``: registers of the integer network that left their range, and how often.
    """

    layer: str
    kind: str  # "neuron" or "integrator"
    neurons: int
    steps: int
    samples: int
    spikes_float: int
    spikes_int: int
    different: int
    own: int
    first: tuple[int, int, int] | None
    worst: float | None
    mean: float | None
    own_worst: float | None
    own_mean: float | None
    overflows: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        found = asdict(self)
        return found | {"first": None if self.first is None else list(self.first)}


def agreement(float_graph: Graph, int_graph: Graph, inputs: Inputs, exact: Container[str] = ()) -> list[Agreement]:
    """Both graphs on the same inputs, [N, T, C, H, W] or one such array per input: one entry per population.

    ``int_graph`` is what ``compile_graph`` made of ``float_graph``. Populations that it left out (nothing reads
    them) are left out here too.  exact: those whose compare is met to the letter (``exact`` in the report).
    VerifyError where the inputs do not fit.
    """
    if float_graph.numbers != "float" or int_graph.numbers != "int":
        raise VerifyError(
            f"agreement compares a float with an int graph, not {float_graph.numbers}, {int_graph.numbers}"
        )
    real = interpret(float_graph, inputs, record="all", states="all")
    whole = interpret(int_graph, inputs, record="all", states="all")
    cut, given = forced_run(int_graph, real.codes, inputs)
    alone = interpret(cut, given, record="all", states="all")
    parts: dict[str, list[Node]] = {}
    for node in int_graph:
        if node.op in ("cuba_lif", "cell", "int_integrator", "levels") and node.attr("role") not in ("pool", "and"):
            parts.setdefault(node.attr("part_of", label(node)), []).append(node)
    pairs = [(n, parts[label(n)]) for n in float_graph if n.op in COMPARED and label(n) in parts]
    return [_Pair(float_graph, int_graph, node, found, exact).compared(real, whole, alone) for node, found in pairs]


@dataclass(frozen=True)
class _Pair:
    """A population of the float network and its parts in the integer one."""

    float_graph: Graph
    int_graph: Graph
    node: Node
    parts: list[Node]
    exact: Container[str]

    def compared(self, real: Interpretation, whole: Interpretation, alone: Interpretation) -> Agreement:
        node, name = self.node, label(self.node)
        fires = node.op != "integrator"
        codes = _flat(real.codes[name]) if fires else np.zeros(_flat(real.states[name]["v"]).shape, np.int64)
        steps, samples, neurons = codes.shape
        sent, v = self._integers(whole, codes.shape, fires)
        sent_alone, v_alone = self._integers(alone, codes.shape, fires)
        worst, mean = self._error(real, v, codes, sent)
        own_worst, own_mean = self._error(real, v_alone, codes, sent_alone)
        apart = np.argwhere(codes != sent)
        names = {label(part) for part in self.parts}
        return Agreement(
            layer=name,
            kind=node.op,
            neurons=neurons,
            steps=steps,
            samples=samples,
            spikes_float=int(codes.sum()),
            spikes_int=int(sent.sum()),
            different=len(apart),
            own=int(np.count_nonzero(codes != sent_alone)),
            first=None if not len(apart) else (int(apart[0][1]), int(apart[0][0]), int(apart[0][2])),
            worst=worst,
            mean=mean,
            own_worst=own_worst,
            own_mean=own_mean,
            overflows={k.split(": ", 1)[1]: n for k, n in whole.overflows.items() if k.split(": ", 1)[0] in names},
        )

    def _integers(self, run: Interpretation, shape: tuple[int, ...], fires: bool) -> tuple[np.ndarray, np.ndarray]:
        """Codes and potentials of the integer network; potentials in thresholds, NaN where nothing measures them."""
        codes, v = np.zeros(shape, np.int64), np.full(shape, np.nan)
        for part in self.parts:
            at = self.int_graph.tensor(part, "elements")
            at = np.arange(shape[-1]) if at is None else at
            unit, states = self._unit(part), run.states[label(part)]
            if unit is not None and "v" in states:
                v[..., at] = _flat(states["v"] * unit)
            if fires:
                codes[..., at] = _flat(run.codes[label(part)])
        return codes, v

    def _unit(self, part: Node) -> float | np.ndarray | None:
        """What a potential is multiplied by to be in thresholds."""
        if part.op == "cell":
            key = "step" if self.node.attr("levels", 1) > 1 else "thresholds"
            one = self.int_graph.tensor(part, key)
            return None if one is None else (1.0 / one.reshape(len(one), -1)[:, 0].astype(np.float64))[:, None, None]
        if part.attr("scale") is not None or part.op != "cuba_lif":
            return part.attr("scale")
        if part.attr("role") == "or" or self.node.op != "lif":
            return None
        vth = self.int_graph.tensor(part, "vth")
        assert vth is not None
        above = vth.astype(np.float64) + (label(part) in self.exact)  # strict: it fires from the next multiple on
        return (1.0 / (GRAIN * np.where(above > 0, above, np.nan)))[:, None, None]

    def _error(
        self, real: Interpretation, v_int: np.ndarray, codes: np.ndarray, sent: np.ndarray
    ) -> tuple[float | None, float | None]:
        """Largest and mean error of the potential where neither fires."""
        node, states = self.node, real.states[label(self.node)]
        if "v" not in states:
            return None, None
        v = _flat(states["v"])
        if node.op == "integrator":
            error = np.abs(v_int - v).reshape(-1) / (float(np.abs(v).max(initial=0.0)) or 1.0)
        else:
            offset, theta = _offset(self.float_graph, node), _theta(self.float_graph, node)
            error = np.abs(v_int - (v - offset) / (theta - offset))[(codes == 0) & (sent == 0)]
        error = error[np.isfinite(error)]
        return (float(error.max()), float(error.mean())) if error.size else (None, None)


def peaks_of(graph: Graph, inputs: Inputs) -> dict[str, tuple[float, float]]:
    """Largest |current| and |potential| of every neuron on these inputs (the potential as kept after a reset)."""
    states = interpret(graph, inputs, states="all").states
    return {name: tuple(float(np.abs(found[k]).max()) for k in "uv") for name, found in states.items() if "u" in found}  # type: ignore[misc]


def reach_of(graph: Graph, inputs: Inputs, readers: list[Node]) -> dict[str, tuple[float, float]]:
    """Largest |current| that reaches each of some neurons of a float graph on these inputs, and largest |potential|
    (as kept after a reset; 0 where it keeps none), by id."""
    run = interpret(graph, inputs, values={n.operands[0] for n in readers}, states=[label(n) for n in readers])
    return {
        n.id: (float(np.abs(run.values[n.operands[0]]).max()), float(np.abs(run.states[label(n)].get("v", 0.0)).max()))
        for n in readers
    }


def _flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(*x.shape[:2], -1)


def _elements(graph: Graph, node: Node, attr: Attr | None) -> np.ndarray:
    """A parameter, element by element in C order."""
    value = 0.0 if attr is None else attr.value
    array = np.asarray(value if isinstance(value, (int, float)) else graph.tensors[value.key], np.float64)  # type: ignore[union-attr]
    array = array[:, None, None] if array.ndim == 1 else array
    return np.broadcast_to(array, node.type.shape).reshape(-1)


def _offset(graph: Graph, node: Node) -> np.ndarray:
    """What the integer potential is counted from."""
    return _elements(graph, node, node.attrs.get("v_reset") if node.attr("reset") == "hard" else None)


def _theta(graph: Graph, node: Node) -> np.ndarray:
    theta = _elements(graph, node, node.attrs.get("theta"))
    above = theta > _offset(graph, node)
    return np.where(above, theta, np.nan)
