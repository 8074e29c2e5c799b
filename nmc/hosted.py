"""The host's part of a run: ops between the parts that cores compute, fed by what it reads of them (docs/host.md)."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nmc.artefact import Compiled
from nmc.drive import ONLY_INPUT, Drive
from nmc.encoding import encoded, encodings
from nmc.inputs import check_classes
from nmc.npz import Npz
from nmc.scores import classes_of
from nmc_compiler.errors import ArtefactError, FrontendError, NmcError, UsageError, VerifyError
from nmc_compiler.graph import Graph, Node, label
from nmc_compiler.graph.analysis import is_neuron
from nmc_compiler.graph.registry import Call, op_spec
from nmc_compiler.lowering.host import host_facts, sending
from nmc_compiler.program.model import Program
from nmc_emulator.event_run import windowed
from nmc_emulator.trace import Events, check_events, coded, events_of


def is_hosted(program: Program) -> bool:
    """Whether a Program is the cores' part of a network that the host has a part of."""
    return "host" in program.meta


def refuse_hosted(program: Program, what: str) -> None:
    """UsageError where ``what`` is asked of the cores' part of a network alone."""
    if is_hosted(program):
        steps = len(program.meta["host"]["steps"])
        raise UsageError(
            f"{what}: Program '{program.name}' is the cores' part of a network, of which the host computes {steps} ops "
            f"in every timestep (docs/host.md); only nmc emulate and nmc verify run both"
        )


# --- the host, step by step -------------------------------------------------------------------------------


class HostSteps:
    """Evaluates nodes of the integer graph that no core computes, timestep by timestep, sample by sample.

    inputs: the network's own, by name, [N, T, C, H, W].  steps: timesteps of a sample.  flight: of them that are on the
    chip at once, at most.  of_chip: outputs that are populations.
    """

    def __init__(
        self, graph: Graph, inputs: Mapping[str, np.ndarray], steps: int, flight: int, of_chip: Collection[str]
    ) -> None:
        self.graph, self.by_id, self.steps = graph, graph.by_id(), steps
        self.inputs = {n.id: inputs[n.name or n.id] for n in graph.sources}
        self.horizon = flight + max((u.lag for n in graph for u in n.inputs), default=0)
        self.read = {n.id: n.operands[0] for n in graph if n.op == "host_read"}
        self.outputs = [n for n in graph.outputs if (n.name or n.id) not in of_chip]
        self.overflows: dict[str, int] = {}
        self.strict = False  # whether a code that is kept at its end is an error
        self.forget()

    def forget(self) -> None:
        """Back to before the first timestep."""
        self.values: dict[int, dict[str, np.ndarray]] = {}  # timestep over all samples -> node -> value
        self.state: dict[tuple[int, str], dict[str, Any]] = {}
        self.kept: dict[str, list[np.ndarray]] = {n.name or n.id: [] for n in self.outputs}
        self.done = 0  # timesteps that are read in whole
        self.overflows.clear()

    def hear(self, node: str, step: int, value: np.ndarray) -> None:
        """The value of a population at a timestep; its outputs, once all are there."""
        self.values.setdefault(step, {})[node] = value
        while self._whole(self.done):
            for out in self.outputs:
                self.kept[out.name or out.id].append(self.value(out.operands[0], self.done))
            past = self.done - self.horizon
            self.values.pop(past, None)
            for key in [k for k in self.state if k[0] < past // self.steps]:
                del self.state[key]
            self.done += 1

    def _whole(self, step: int) -> bool:
        known = self.values.get(step, {})
        return all(source in known for source in self.read.values())

    def value(self, node_id: str, step: int) -> np.ndarray:
        """[C, H, W] of a node at a timestep, counted over all samples; VerifyError where that is not read yet."""
        known = self.values.setdefault(step, {})
        if node_id not in known:
            known[node_id] = self._made(self.by_id[node_id], step)
        return known[node_id]

    def _made(self, node: Node, step: int) -> np.ndarray:
        sample, t = divmod(step, self.steps)
        if node.op == "input":
            found: np.ndarray = self.inputs[node.id][sample, t]
            return found
        if is_neuron(node):
            raise VerifyError(f"the host needs '{label(node)}' of timestep {step} before it is read")
        operands = [self._operand(u.node, u.lag, sample, t) for u in node.inputs]
        state = self.state.setdefault((sample, node.id), {})
        where = node.name or f"%{node.id}"
        found = op_spec(node.op).evaluate(
            Call(
                [x[None] for x in operands], node.attrs, self.graph.tensors, state, t, self.steps, True, where,
                self._overflow,
            )
        )[0]  # fmt: skip
        return found

    def _operand(self, node_id: str, lag: int, sample: int, t: int) -> np.ndarray:
        if lag > t:
            return np.zeros(self.by_id[node_id].type.shape)
        return self.value(node_id, sample * self.steps + t - lag)

    def _overflow(self, where: str, register: str, mask: np.ndarray) -> None:
        count = int(np.count_nonzero(mask))
        if count and self.strict:
            raise VerifyError(
                f"'{where}' of the host: {count} values do not fit the bits of their codes, and would be kept at their "
                f"end; run without strict to count such values"
            )
        if count:
            self.overflows[where] = self.overflows.get(where, 0) + count


class HostSource:
    """What drives the cores: the network's own inputs, and what the host makes of what it reads.

    ``counts``: values read of and events sent to the chip, so far.
    """

    def __init__(self, program: Program, graph: Graph, inputs: dict[str, np.ndarray], steps: int) -> None:
        flight = program.depth // program.ticks_per_step + 2
        of_chip = [o["name"] for o in program.meta["outputs"]]
        self.program, self.steps_of = program, steps
        self.host = HostSteps(graph, inputs, steps, flight, of_chip)
        names = {p.name: i for i, p in enumerate(program.populations)}
        by_id, nodes = graph.by_id(), {label(n): n for n in graph if is_neuron(n)}
        self.reads: Mapping[int, bool] = {}
        self.node = {}
        for source in dict.fromkeys(by_id[n.operands[0]].id for n in graph if n.op == "host_read"):
            i = names[label(by_id[source])]
            self.reads = {**self.reads, i: not by_id[source].type.is_event}
            self.node[i] = nodes[program.populations[i].name]
        self.sent = {i: sending(graph, name) for name, i in names.items() if program.populations[i].model == "input"}
        own = {i: program.populations[i].name.lstrip("%") for i, node in self.sent.items() if node is None}
        self.own = {i: inputs[name] for i, name in own.items()}
        self.by = encodings(program)
        self.counts = {"read": 0, "sent": 0}

    def forget(self) -> None:
        """Start again before the first timestep."""
        self.host.forget()
        self.counts = {"read": 0, "sent": 0}

    def hear(self, population: int, step: int, values: np.ndarray) -> None:
        """Codes, or potentials, [somas] of one timestep, in order."""
        node = self.node[population]
        self.counts["read"] += values.size if self.reads[population] else int(np.count_nonzero(values))
        exact = values if values.dtype.kind == "f" else values.astype(np.int64)  # real: --arithmetic float
        self.host.hear(node.id, step, exact.reshape(node.type.shape))

    def take(self, population: int, first: int, last: int) -> Events:
        """Checked events of timesteps first..last - 1."""
        p = self.program.populations[population]
        codes = np.zeros((max(last - first, 0), int(np.prod(p.shape))), np.int32)
        for row, step in enumerate(range(first, last)):
            codes[row] = self._codes(population, step).reshape(-1)
        found = events_of(codes, coded(p))
        checked = check_events(p, found, max(last - first, 1))
        self.counts["sent"] += len(found) if self.sent[population] is not None else 0
        return Events(checked.step + first, checked.soma, checked.code)

    def _codes(self, population: int, step: int) -> np.ndarray:
        node, name = self.sent[population], self.program.populations[population].name
        if node is not None:
            return self.host.value(node.id, step)
        values = self.own[population][divmod(step, self.steps_of)]
        return encoded(name, values, self.by[name]) if name in self.by else values

    @property
    def outputs(self) -> dict[str, np.ndarray]:
        """Outputs of the host, [N, T, C, H, W], of the timesteps that are over."""
        found = {}
        for name, values in self.host.kept.items():
            whole = len(values) // self.steps_of * self.steps_of
            if whole:
                found[name] = np.stack(values[:whole]).reshape(-1, self.steps_of, *values[0].shape)
        return found


# --- a run ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HostDrive(Drive):
    """A Drive whose source is the host; ``graph`` is what it computes from."""

    graph: Graph | None = field(default=None, repr=False)

    @property
    def host(self) -> HostSource:
        assert isinstance(self.source, HostSource)
        return self.source


def host_drive(
    compiled: Compiled, x: Any, labels: Any = None, *, steps: int | None = None, limit: int | None = None
) -> HostDrive:
    """What ``x`` makes of a network that the host has a part of.

    x: by the names of the network's inputs (or alone, where there is one) [T, C, H, W], or of samples [N, T, C, H, W];
    [N, C, H, W] where an image is shown all the time; or an .npz of these.  FrontendError or UsageError for others.
    """
    program, graph = compiled.program, compiled.int_graph
    _check_facts(program, graph)
    if steps is not None:
        raise UsageError(f"--steps {steps}: a network with a part on the host runs as long as its input")
    if isinstance(x, (str, os.PathLike)):
        x, stored = _read(Path(x), graph)
        labels = stored if labels is None else labels
    arrays = {n.name or n.id: a for n, a in _arrays(graph, program, x)}
    sizes = {a.shape[:2] for a in arrays.values()}
    if len(sizes) != 1:
        raise UsageError(f"inputs differ in samples or timesteps: {', '.join(map(str, sorted(sizes)))}; give all alike")
    samples, length = sizes.pop()
    if limit is not None:
        if limit < 1:
            raise UsageError(f"limit {limit}: at least 1 sample is needed")
        samples = min(samples, limit)
    run = program if program.timesteps else windowed(program, length)
    known = None if labels is None else _labels(run, labels, next(iter(arrays.values())).shape[0])[:samples]
    source = HostSource(run, graph, {k: a[:samples] for k, a in arrays.items()}, length)
    note = f"input: {samples} samples of {length} timesteps, with the host in the loop"
    window = 0 if program.timesteps else length
    return HostDrive(run, source, samples, known, _digest(arrays, samples), note, window, graph)


def _check_facts(program: Program, graph: Graph) -> None:
    """ArtefactError where the Program and the graph do not tell the same of the host."""
    try:
        same = json.loads(json.dumps(host_facts(graph, program))) == program.meta["host"]
    except (KeyError, IndexError, NmcError):
        same = False
    if not same:
        raise ArtefactError(
            f"Program '{program.name}': meta/host is not what its integer graph leaves to the host; compile again"
        )


def _arrays(graph: Graph, program: Program, x: Any) -> list[tuple[Node, np.ndarray]]:
    """Every input as float64 or integers [N, T, C, H, W]."""
    names = [n.name or n.id for n in graph.sources]
    if x is None:
        raise UsageError(f"Program '{program.name}' has the inputs {', '.join(names)}; give --input FILE")
    if not isinstance(x, Mapping):
        x = {names[0] if len(names) == 1 else ONLY_INPUT: x}
    if ONLY_INPUT in x and len(names) == 1 and names[0] not in x:
        x = {names[0]: x[ONLY_INPUT]}
    if set(x) != set(names):
        raise UsageError(f"Program '{program.name}' has the inputs {', '.join(names)}; given: {', '.join(x) or 'none'}")
    return [(n, _array(n, np.asarray(x[n.name or n.id]), graph)) for n in graph.sources]


def _array(node: Node, a: np.ndarray, graph: Graph) -> np.ndarray:
    name, T = node.name or node.id, graph.timesteps
    if graph.input_time and a.ndim == 4:
        a = a[None]
    if not graph.input_time and a.ndim == 4:
        a = np.broadcast_to(a[:, None], (len(a), T, *a.shape[1:]))
    shape = (*([T] if T else []), *node.type.shape)
    if a.ndim != 5 or a.shape[5 - len(shape) :] != shape or not a.size or a.dtype.kind not in "iufb":
        wanted = ", ".join(map(str, ["N", *([] if T else ["T"]), *shape]))
        raise FrontendError(f"input '{name}' is {a.dtype} {list(a.shape)}; give numbers [{wanted}]")
    if a.dtype.kind == "f" and not np.isfinite(a).all():
        raise FrontendError(f"input '{name}' has {np.count_nonzero(~np.isfinite(a))} values that are not finite")
    if node.type.is_event:
        low, high = _payload(node)
        if (a != np.rint(a)).any() or a.min() < low or a.max() > high:
            raise FrontendError(f"input '{name}' takes whole codes in {low}..{high}")
        return a.astype(np.int64)
    return a.astype(np.float64)


def _payload(node: Node) -> tuple[int, int]:
    bits = max(node.type.bits, 1)
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if node.type.signed else (0, (1 << bits) - 1)


def _labels(program: Program, labels: Any, samples: int) -> np.ndarray:
    known = np.asarray(labels)
    if known.shape != (samples,) or known.dtype.kind not in "iu":
        raise FrontendError(f"labels are {known.dtype} {list(known.shape)}; give whole numbers [{samples}]")
    check_classes(known, classes_of(program), "labels")
    return known.astype(np.int64)


def _read(path: Path, graph: Graph) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    names = [n.name or n.id for n in graph.sources]
    with Npz(path) as file:
        wanted = [*names, *([ONLY_INPUT] if len(names) == 1 and names[0] not in file else [])]
        found = {name: file.read(name) for name in wanted if name in file}
        stray = [name for name in file.names if name not in (*wanted, "labels")]
        if stray:
            raise FrontendError(
                f"{path}: its array '{stray[0]}' is no input of the network, which are {', '.join(names)}"
            )
        return found, file.read("labels") if "labels" in file and "labels" not in names else None


def _digest(arrays: Mapping[str, np.ndarray], samples: int) -> str:
    hasher = hashlib.sha256(str(samples).encode())
    for name, a in sorted(arrays.items()):
        hasher.update(f"\0{name}\0{a.dtype.str}{a.shape}".encode())
        hasher.update(np.ascontiguousarray(a).data)
    return hasher.hexdigest()


def need_graph(compiled: Compiled | Program) -> Compiled:
    """ArtefactError for a Program without the graph that the host's part is in."""
    if isinstance(compiled, Program):
        raise ArtefactError(
            f"Program '{compiled.name}' is the cores' part of a network; the host's is in the folder that nmc compile "
            f"wrote; give that, or what nmc.compile returned"
        )
    return compiled
