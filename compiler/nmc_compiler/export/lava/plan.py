"""The network of Lava Processes that computes what a Program computes.

One Lava time step is one tick. A connection Process takes one step, so an event of a population of level L
that is for a reader of level A passes through A - L + lag * P of them, one in the synapses and the others in
a delay line; what the Program calls the delay only says when, before A, the event arrives. A dendrite with
one reader is the reader's own InPort, which adds up; one with several is an Accumulator.

Between the windows of samples a stock soma runs on. What it then sends arrives between windows, too, because
every way is exactly A - L long; where one is longer (``lag``, ``extra``) somas with a window are generated.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.export.lava.layout import Part, Synapses, numbers, synapses_of
from nmc_compiler.export.lava.somas import MAX_BINS, bins, generated, static, stock, window_of
from nmc_compiler.program.model import Conv, Map, Population, Program, Shape, Sparse, Transfer
from nmc_compiler.program.sites import refuse_sites
from nmc_compiler.program.timing import dynamic_level

PORTS = 48  # folder/processes.py
LONGEST = 63  # steps that Lava's DelaySparse adds
WRAP = 2**23  # Lava's Conv wraps its sum to 24 bits
STOCK = ("LIF", "LIFReset", "TernaryLIF", "SigmaDelta", "Conv", "Sparse", "DelaySparse", "ProdNeuron", "Source", "Ones")
LAVA = {"Source": "RingBuffer (source)", "Ones": "RingBuffer (source)"}


@dataclass(frozen=True)
class Process:
    """One Lava Process: ``arrays`` maps parameters to arrays of the folder; ``part`` of the Program it stands for."""

    name: str
    kind: str
    part: str
    params: dict[str, Any]
    arrays: dict[str, str]

    @property
    def origin(self) -> str:
        return "stock" if self.kind in STOCK else "generated"


@dataclass(frozen=True)
class Sink:
    """Where values for a dendrite go: a port that holds them for a reader at ``level``."""

    process: str
    port: str
    level: int
    channels: np.ndarray


@dataclass
class Plan:
    """What is exported."""

    program: Program
    processes: list[Process] = field(default_factory=list)
    connections: list[tuple[str, str, str, str]] = field(default_factory=list)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    parts: dict[int, list[Part]] = field(default_factory=dict)  # population -> its Processes

    def add(self, kind: str, part: str, params: dict[str, Any], arrays: dict[str, np.ndarray] | None = None) -> str:
        """A new Process; its name."""
        name = f"n{len(self.processes)}"
        keys = {}
        for parameter, values in (arrays or {}).items():
            keys[parameter] = f"{name}.{parameter}"
            self.arrays[keys[parameter]] = np.ascontiguousarray(values)
        self.processes.append(Process(name, kind, part, params, keys))
        return name

    def connect(self, src: str, out: str, dst: str, port: str) -> None:
        self.connections.append((src, out, dst, port))


def make_plan(program: Program) -> Plan:
    """Plan the export of a valid Program. LoweringError where a part has no Process."""
    refuse_sites(program, "no Process of Lava has", "run it with nmc emulate")
    lasting = next((d for d in program.dynamics if d.lasting is not None), None)
    if lasting is not None:
        raise LoweringError(
            f"attention '{lasting.name}' has a table that lasts from timestep to timestep, which no Process of Lava "
            f"has; run it with nmc emulate"
        )
    return _Planner(program).plan


class _Planner:
    def __init__(self, program: Program) -> None:
        self.program, self.plan = program, Plan(program)
        self.sinks: dict[tuple[int, int], list[Sink]] = {}
        self.lines: dict[tuple[str, bool], list[tuple[int, str]]] = {}  # what sends -> lines, ascending in ticks
        self.convs: list[tuple[int, Conv, Part, Sink]] = []  # ticks first
        self.readers: dict[int, list[tuple[int, str, int]]] = {}
        for i, p in enumerate(program.populations):
            if p.dendrite >= 0:
                self.readers.setdefault(p.dendrite, []).append((p.level, "population", i))
        for i, t in enumerate(program.transfers):
            self.readers.setdefault(t.src, []).append((t.level, "transfer", i))
        self.transfers: dict[int, str] = {}
        self._somas()
        self._transfers()
        for d in range(len(program.dendrites)):
            self._dendrite(d)
        self._host()
        for item in static(program):
            self._projection(item)
        for ticks, conv, part, sink in sorted(self.convs, key=lambda entry: entry[0]):
            self._conv(conv, part, sink, ticks)
        for index in range(len(program.dynamics)):
            self._dynamic(index)
        for i, t in enumerate(program.transfers):
            for sink in self._into(t.dst, t.level):
                self._pass_on(self.transfers[i], "s_out", program.dendrites[t.dst].shape, sink, t.level, t.name)

    # -- somas -----------------------------------------------------------------------------------

    def _somas(self) -> None:
        encoded = {h.population: h for h in self.program.host_codes}
        for i, p in enumerate(self.program.populations):
            if p.model == "input":
                self.plan.parts[i] = [self._input(p, encoded.get(i))]
            else:
                self.plan.parts[i] = self._population(p)

    def _input(self, p: Population, host: Any) -> Part:
        channels = np.arange(p.shape[0])
        spec: dict[str, Any] = {"level": p.level, "channels": channels.tolist(), "shape": list(p.shape)}
        if host is None:
            spec |= {"kind": "codes", "input": p.name, "range": _range(p)}
        else:
            spec |= {"kind": "encoded", "scale": host.scale, "lo": host.lo, "hi": host.hi}
        return Part(self.plan.add("Source", f"population {p.name}", spec), channels)

    def _population(self, p: Population) -> list[Part]:
        groups, gain = bins(self.program, p), self._gain(p) if p.model == "readout" else 0.0
        forms = [stock(self.program, p, channels, gain) for channels in groups]
        whole = len(groups) > 1 and not self._separable(p)
        if whole or len(groups) > MAX_BINS or any(form is None for form in forms):
            groups, forms = [np.arange(p.shape[0])], [generated(self.program, p)]
        found = []
        for channels, form in zip(groups, forms, strict=True):
            assert form is not None
            kind, values, arrays = form
            part = Part("", channels)
            params = {"shape": part.shape(p.shape)} | values
            found.append(Part(self.plan.add(kind, f"population {p.name}", params, arrays), channels))
        return found

    def _separable(self, p: Population) -> bool:
        """Whether some channels of it can be a Process of their own."""
        read = {i for d in self.program.dynamics for i in (d.q, d.k, d.v)}
        if any(self.program.populations[i] is p for i in read):
            return False  # a dynamic synapse reads whole populations
        if len(self.readers[p.dendrite]) > 1:
            return True  # an Accumulator sends any channels
        whole = [t.dst for t in self.program.transfers] + [d.dst for d in self.program.dynamics]
        return p.dendrite not in whole

    def _gain(self, p: Population) -> float:
        """Bound of |a| of a readout's dendrite, inf where it is not known."""
        total = 0.0
        program = self.program
        others = [t.dst for t in program.transfers] + [d.dst for d in program.dynamics]
        others += [h.dst for h in program.host_currents] + [i.dst for i in static(program) if not isinstance(i, Conv)]
        for c in program.convs:
            if c.dst == p.dendrite:
                positions = c.out_hw[0] * c.out_hw[1] if c.collapse else 1
                total += positions * _worst(program, c)
        return float("inf") if p.dendrite in others else total

    # -- dendrites -------------------------------------------------------------------------------

    def _transfers(self) -> None:
        for i, t in enumerate(self.program.transfers):
            src, dst = self.program.dendrites[t.src].shape, self.program.dendrites[t.dst].shape
            self.transfers[i] = self._shift(t, src) if _only_shifts(t, src, dst) else self._pool(t, src, dst)

    def _shift(self, t: Transfer, shape: Shape) -> str:
        """A value times 1, shifted right: Lava's ProdNeuron with a constant at one input."""
        part, size = f"transfer {t.name}", [shape[2], shape[1], shape[0]]
        name = self.plan.add("ProdNeuron", part, {"shape": size, "vth": 0, "exp": t.rshift})
        ones = self.plan.add("Ones", part, {"shape": size})
        self.plan.connect(ones, "s_out", name, "a_in2")
        return name

    def _pool(self, t: Transfer, src: Shape, dst: Shape) -> str:
        params = {"shape_in": list(src[::-1]), "shape_out": list(dst[::-1]), "mode": t.mode, "rshift": t.rshift}
        params |= {"kernel": list(t.kernel[::-1]), "stride": list(t.stride[::-1]), "pad": list(t.pad[::-1])}
        return self.plan.add("Pool", f"transfer {t.name}", params)

    def _taps(self, d: int) -> list[tuple[int, Sink]]:
        """Ports of all readers of a dendrite, with their levels."""
        found, every = [], np.arange(self.program.dendrites[d].shape[0])
        for level, what, index in self.readers.get(d, []):
            if what == "population":
                for part in self.plan.parts[index]:
                    found.append((level, Sink(part.process, "a_in", level, part.channels)))
            else:
                name = self.transfers[index]
                kind = next(p.kind for p in self.plan.processes if p.name == name)
                found.append((level, Sink(name, "a_in1" if kind == "ProdNeuron" else "a_in", level, every)))
        return found

    def _dendrite(self, d: int) -> None:
        taps, arrivals = self._taps(d), sorted(self._arrivals(d))
        if len(self.readers.get(d, [])) == 1:
            for a in arrivals:
                self.sinks[d, a] = [sink for _, sink in taps]
            return
        dendrite = self.program.dendrites[d]
        if max(len(arrivals), len(taps)) > PORTS:
            raise LoweringError(
                f"dendrite '{dendrite.name}': {len(arrivals)} arrivals and {len(taps)} readers; the Accumulator of"
                f" the export has {PORTS} ports each way. Compile with --residual duplicate or --stream-pieces"
            )
        params = {"shape": list(dendrite.shape[::-1]), "arrivals": arrivals, "readers": [level for level, _ in taps]}
        params["channels"] = [sink.channels.tolist() for _, sink in taps]
        name = self.plan.add("Accumulator", f"dendrite {dendrite.name}", params)
        for j, (_, sink) in enumerate(taps):
            self.plan.connect(name, f"out{j}", sink.process, sink.port)
        every = np.arange(dendrite.shape[0])
        for k, a in enumerate(arrivals):
            self.sinks[d, a] = [Sink(name, f"in{k}", a, every)]

    def _arrivals(self, d: int) -> set[int]:
        p = self.program
        found = {p.arrival(i.src, i.delay, i.lag) for i in static(p) if i.dst == d}
        found |= {dynamic_level(p, item) for item in p.dynamics if item.dst == d}
        found |= {t.level for t in p.transfers if t.dst == d}
        return found | {h.level for h in p.host_currents if h.dst == d}

    def _into(self, d: int, arrival: int) -> list[Sink]:
        return self.sinks[d, arrival]

    # -- what adds to dendrites ------------------------------------------------------------------

    def _host(self) -> None:
        for number, h in enumerate(self.program.host_currents):
            arrays = {"weight": h.weight, "bias": h.bias}
            keys = {k: f"host{number}.{k}" for k in arrays}
            self.plan.arrays |= {keys[k]: np.ascontiguousarray(v) for k, v in arrays.items()}
            for sink in self._into(h.dst, h.level):
                spec: dict[str, Any] = {"kind": "current", "level": sink.level, "channels": sink.channels.tolist()}
                spec |= {"frac": h.frac, "shift": h.shift, "groups": h.groups} | keys
                spec |= {"stride": list(h.stride), "pad": list(h.pad), "dilation": list(h.dilation)}
                name = self.plan.add("Source", f"host current {h.name}", spec)
                self.plan.connect(name, "s_out", sink.process, sink.port)

    def _projection(self, item: Conv | Map | Sparse) -> None:
        program, p = self.program, self.program.populations[item.src]
        late = item.lag or (isinstance(item, Sparse) and item.extra is not None and bool(item.extra.any()))
        plane = isinstance(item, Conv) and item.depth is None and not item.collapse
        fits = isinstance(item, Conv) and plane and not late and _worst(program, item) < WRAP
        synapses = None if fits else synapses_of(program, item)
        for part in self.plan.parts[item.src]:
            for sink in self._into(item.dst, program.arrival(item.src, item.delay, item.lag)):
                ticks = sink.level - p.level + item.lag * program.ticks_per_step
                if isinstance(item, Conv) and synapses is None:
                    self.convs.append((ticks, item, part, sink))
                    continue
                assert synapses is not None
                mine = self._cut(item, synapses, part, sink)
                if program.timesteps and late:
                    self._windowed(item, part, sink, mine, ticks)
                else:
                    self._matrices(item, part, sink, mine, ticks)

    def _conv(self, c: Conv, part: Part, sink: Sink, ticks: int) -> None:
        p = self.program.populations[c.src]
        weight, groups = c.weight.astype(np.int32), c.groups
        if groups > 1 and (len(part.channels) < p.shape[0] or len(sink.channels) < weight.shape[3]):
            weight, groups = _ungrouped(weight, groups), 1
        if groups == 1:
            weight = weight[:, :, part.channels][..., sink.channels]
        lava = weight[::-1, ::-1].transpose(3, 1, 0, 2)  # Lava flips kernels back
        params = {
            "input_shape": part.shape(p.shape), "stride": list(c.stride[::-1]), "padding": list(c.pad[::-1]),
            "dilation": list(c.dilation[::-1]), "groups": groups, "shift": c.shift,
            "num_message_bits": 24 if p.payload_bits else 0,
        }  # fmt: skip
        src = self._line(part.process, part.shape(p.shape), ticks - 1, p.name, p.payload_bits > 0)
        name = self.plan.add("Conv", f"projection {c.name}", params, {"weight": lava})
        self.plan.connect(src, self._out(src), name, "s_in")
        self.plan.connect(name, "a_out", sink.process, sink.port)

    def _line(self, src: str, shape: list[int], ticks: int, what: str, graded: bool, blocks: bool = False) -> str:
        """A Process that hands on what ``src`` sent ``ticks`` ago; ``src`` itself for 0.

        Longer lines go on where shorter ones end: Lava works every step through all steps of a DelaySparse.
        Asked for in ascending order, or with ``blocks`` for multiples of the longest delay in any.
        """
        if ticks == 0:
            return src
        lines = self.lines.setdefault((src, blocks), [])
        known = next((name for done, name in lines if done == ticks), None)
        if known is not None:
            return known
        done, last = lines[-1] if lines else (0, src)
        while done < ticks:
            step, n = min(ticks - done, LONGEST + 1), int(np.prod(shape))
            name = self._delayed(f"delay of {what}", (n, n), _identity(n), step, -1, graded)
            self.plan.connect(last, self._out(last), name, "s_in")
            done, last = done + step, name
            lines.append((done, name))
        return last

    def _delayed(
        self, part: str, size: tuple[int, int], arrays: dict[str, np.ndarray], ticks: int, exponent: int, graded: bool
    ) -> str:
        """Sparse or, for more than one tick, DelaySparse."""
        params = {"size": list(size), "weight_exp": exponent, "num_message_bits": 24 if graded else 0}
        if ticks == 1 and "delay" not in arrays:
            return self.plan.add("Sparse", part, params, arrays)
        if "delay" not in arrays:
            params["delay"] = ticks - 1
        return self.plan.add("DelaySparse", part, params, arrays)

    def _pass_on(self, src: str, out: str, shape: Shape, sink: Sink, level: int, what: str) -> None:
        """Connect what is known at ``level`` to a reader at the sink's."""
        ticks = sink.level - level
        if ticks:
            n = int(np.prod(shape))
            while ticks:
                step = min(ticks, LONGEST + 1)
                name = self._delayed(f"delay of {what}", (n, n), _identity(n), step, -1, True)
                self.plan.connect(src, out, name, "s_in")
                src, out, ticks = name, "a_out", ticks - step
        self.plan.connect(src, out, sink.process, sink.port)

    # -- synapses one by one ---------------------------------------------------------------------

    def _cut(self, item: Conv | Map | Sparse, all_: Synapses, part: Part, sink: Sink) -> Synapses:
        """The synapses between a part and a sink, in Lava's numbers."""
        source = numbers(self.program.populations[item.src].shape, part.channels)[all_.source]
        target = numbers(self.program.dendrites[item.dst].shape, sink.channels)[all_.target]
        keep = (source >= 0) & (target >= 0)
        return Synapses(source[keep], target[keep], all_.weight[keep], all_.extra[keep])

    def _size(self, item: Conv | Map | Sparse, part: Part, sink: Sink) -> tuple[int, int]:
        src, dst = self.program.populations[item.src].shape, self.program.dendrites[item.dst].shape
        return len(sink.channels) * dst[1] * dst[2], len(part.channels) * src[1] * src[2]

    def _graded(self, item: Conv | Map | Sparse) -> bool:
        return self.program.populations[item.src].payload_bits > 0 and getattr(item, "graded", True)

    def _matrices(self, item: Conv | Map | Sparse, part: Part, sink: Sink, s: Synapses, ticks: int) -> None:
        """Sparse Processes: weights in digits of 8 bits, and of two delays between a pair each its own."""
        size = self._size(item, part, sink)
        delay = ticks - 1 + s.extra * self.program.ticks_per_step
        p = self.program.populations[item.src]
        block = delay // (LONGEST + 1)
        for ahead in np.unique(block).tolist():
            mine, before = block == ahead, ahead * (LONGEST + 1)
            some = Synapses(s.source[mine], s.target[mine], s.weight[mine], s.extra[mine])
            src = self._line(part.process, part.shape(p.shape), before, p.name, p.payload_bits > 0, True)
            for rank in _ranked(size, some, delay[mine] - before):
                self._digits(item, src, sink, rank, size)

    def _digits(self, item: Conv | Map | Sparse, src: str, sink: Sink, rank: Synapses, size: tuple[int, int]) -> None:
        """Sparse Processes that add up to weights of any size; ``rank.extra`` are their delays."""
        digit, weight = 0, rank.weight
        while weight.any():
            low = (weight + 128 & 255) - 128
            arrays = _csr(size, rank, 2 * low)
            if arrays["delay"].any():
                same = len(np.unique(rank.extra)) == 1
                arrays |= {"delay": arrays["delay"][:1]} if same else {}
            else:
                del arrays["delay"]
            exponent = item.shift - 1 + 8 * digit
            name = self._delayed(f"projection {item.name}", size, arrays, 1, exponent, self._graded(item))
            self.plan.connect(src, self._out(src), name, "s_in")
            self.plan.connect(name, "a_out", sink.process, sink.port)
            digit, weight = digit + 1, (weight - low) >> 8

    def _out(self, name: str) -> str:
        """The OutPort of what sends events: a delay line is a connection."""
        return "a_out" if any(name == line for lines in self.lines.values() for _, line in lines) else "s_out"

    def _windowed(self, item: Conv | Map | Sparse, part: Part, sink: Sink, s: Synapses, ticks: int) -> None:
        program, extras = self.program, np.unique(s.extra).tolist() or [0]
        arrays: dict[str, np.ndarray] = {}
        size = self._size(item, part, sink)
        for k, extra in enumerate(extras):
            mine = s.extra == extra
            rank = Synapses(s.source[mine], s.target[mine], s.weight[mine], s.extra[mine])
            found = _csr(size, _summed(size, rank, rank.extra), None)
            arrays |= {f"{key}{k}": found[key] for key in ("weight", "source", "indptr")}
        params = {
            "window": window_of(program, program.populations[item.src].level), "size": list(size),
            "later": [item.lag + e for e in extras], "ticks": [ticks + e * program.ticks_per_step for e in extras],
            "graded": self._graded(item), "shift": item.shift,
        }  # fmt: skip
        name = self.plan.add("WindowedSynapses", f"projection {item.name}", params, arrays)
        self.plan.connect(part.process, "s_out", name, "s_in")
        self.plan.connect(name, "a_out", sink.process, sink.port)

    def _dynamic(self, index: int) -> None:
        program, d = self.program, self.program.dynamics[index]
        shapes = {k: list(program.populations[i].shape[::-1]) for k, i in (("q", d.q), ("k", d.k), ("v", d.v))}
        params: dict[str, Any] = {f"shape_{k}": shape for k, shape in shapes.items()}
        params |= {"order": d.order, "heads": d.heads, "shift": d.shift, "saturate": d.saturate}
        name = self.plan.add(
            "DynamicSynapse", f"projection {d.name}", params | {"delays": [d.delay_q, d.delay_k, d.delay_v]}
        )
        for role, population in (("q", d.q), ("k", d.k), ("v", d.v)):
            [part] = self.plan.parts[population]
            self.plan.connect(part.process, "s_out", name, f"{role}_in")
        level = dynamic_level(program, d)
        for sink in self._into(d.dst, level):
            self._pass_on(name, "a_out", program.dendrites[d.dst].shape, sink, level, d.name)


def _range(p: Population) -> list[int]:
    bits = max(p.payload_bits, 1)
    return [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if p.signed else [0, 2**bits - 1]


def _worst(program: Program, c: Conv) -> float:
    """Bound of the magnitude of a Conv's sum at one position."""
    largest = max(abs(end) for end in _range(program.populations[c.src]))
    return float(np.abs(c.weight.astype(np.int64)).sum(axis=(0, 1, 2)).max(initial=0)) * 2.0**c.shift * largest


def _only_shifts(t: Transfer, src: Shape, dst: Shape) -> bool:
    ones = (t.kernel, t.stride, t.pad) == ((1, 1), (1, 1), (0, 0))
    return src == dst and (ones if t.mode == "maxpool" else src[1:] == (1, 1))


def _identity(n: int) -> dict[str, np.ndarray]:
    """Twice an identity: Lava keeps even weights, and the exponent takes the 2 back."""
    return {"weight": np.full(n, 2, np.int16), "source": np.arange(n), "indptr": np.arange(n + 1)}


def _ungrouped(weight: np.ndarray, groups: int) -> np.ndarray:
    kh, kw, per_group, outs = weight.shape
    found = np.zeros((kh, kw, per_group * groups, outs), weight.dtype)
    each = outs // groups
    for g in range(groups):
        mine = slice(g * each, (g + 1) * each)
        found[:, :, g * per_group : (g + 1) * per_group, mine] = weight[..., mine]
    return found


def _summed(size: tuple[int, int], s: Synapses, delay: np.ndarray) -> Synapses:
    """One synapse per pair and delay; ``extra`` of the result is the delay. Ordered by delay, target, source."""
    where = (delay * size[0] + s.target) * size[1] + s.source
    keys, at = np.unique(where, return_inverse=True)
    weight = np.zeros(len(keys), np.int64)
    np.add.at(weight, at, s.weight)
    pair, source = keys // size[1], keys % size[1]
    return Synapses(source, pair % size[0], weight, pair // size[0])


def _ranked(size: tuple[int, int], s: Synapses, delay: np.ndarray) -> list[Synapses]:
    """Synapses in as few sets as possible, in each of which a pair has one synapse."""
    s = _summed(size, s, delay)
    pair = s.target * size[1] + s.source
    order = np.argsort(pair, kind="stable")
    ordered = pair[order]
    first = np.concatenate(([True], ordered[1:] != ordered[:-1])) if len(ordered) else np.zeros(0, bool)
    start = np.maximum.accumulate(np.where(first, np.arange(len(ordered)), 0))
    rank = np.empty(len(pair), np.int64)
    rank[order] = np.arange(len(ordered)) - start
    sets = [rank == r for r in range(int(rank.max(initial=-1)) + 1)]
    return [Synapses(s.source[m], s.target[m], s.weight[m], s.extra[m]) for m in sets]


def _csr(size: tuple[int, int], s: Synapses, weight: np.ndarray | None) -> dict[str, np.ndarray]:
    """Rows are targets: weight, source and delay of every synapse, and where each row starts."""
    order = np.lexsort((s.source, s.target))
    indptr = np.concatenate(([0], np.cumsum(np.bincount(s.target, minlength=size[0]))))
    values = s.weight if weight is None else weight
    return {
        "weight": values[order].astype(np.int32), "source": s.source[order].astype(np.int32),
        "indptr": indptr.astype(np.int32), "delay": s.extra[order].astype(np.int16),
    }  # fmt: skip
