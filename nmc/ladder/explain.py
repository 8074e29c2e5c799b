"""What a neuron got to read: its currents and events, recomputed one neuron at a time.

For a Program it walks the netlist backwards with plain loops, from recorded events, so it is a
third opinion beside the interpreter and the kernels; slow, and only run on a mismatch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nmc_compiler.graph import Graph, Node
from nmc_compiler.graph.analysis import is_neuron
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.graph.ops_sites import made_sites, pairs, sites_of
from nmc_compiler.program.model import Conv, Dynamic, HostCurrent, Lasting, Map, Program, SiteWindow, Sparse, Transfer
from nmc_compiler.program.shapes import channel_blocks, conv_windows

MAX_TERMS = 24
PARAMETERS = ("theta", "tau", "v_reset", "levels", "dv", "role")

# --- graphs -----------------------------------------------------------------------------------------------


def explain_graph(graph: Graph, image: np.ndarray, layer: str, neuron: tuple[int, int, int], t: int) -> dict[str, Any]:
    """Currents that reach a neuron of ``graph`` at timesteps 0..t, and what they are made of at t."""
    node = next(n for n in graph if n.name == layer and is_neuron(n))
    nodes = _behind(graph, node)
    run = interpret(graph, image[None], values=[n.id for n in nodes])
    read = run.values[node.operands[0]][:, 0]
    terms = [_graph_term(n, run.values[n.id][t, 0], neuron) for n in nodes[:MAX_TERMS]]
    c = neuron[0]
    parameters: dict[str, Any] = {k: node.attr(k) for k in PARAMETERS if node.attr(k) is not None}
    for key in ("vth", "bias", "thresholds"):
        values = graph.tensor(node, key)
        if values is not None:
            parameters[key] = values[c if len(values) > 1 else 0].tolist()
    return {"currents": [_plain(v) for v in read[: t + 1, *neuron]], "made_of": terms, "parameters": parameters}


def _behind(graph: Graph, node: Node) -> list[Node]:
    """The nodes between a neuron and the events it reads, sources of events included; nearest first."""
    by_id = graph.by_id()
    found: dict[str, Node] = {}
    pending = list(node.operands)
    while pending:
        current = by_id[pending.pop(0)]
        if current.id in found:
            continue
        found[current.id] = current
        if not current.type.is_event and current.op != "input":
            pending += current.operands
    return list(found.values())


def _graph_term(node: Node, value: np.ndarray, neuron: tuple[int, int, int]) -> dict[str, Any]:
    term: dict[str, Any] = {"node": node.name or f"%{node.id}", "op": node.op}
    if node.type.is_event:
        return term | {"events": int(np.count_nonzero(value)), "of": int(value.size)}
    inside = all(i < n for i, n in zip(neuron, value.shape, strict=True))
    return term | ({"here": _plain(value[neuron])} if inside else {"shape": list(value.shape)})


def _plain(value: Any) -> int | float:
    return int(value) if isinstance(value, (int, np.integer)) else float(value)


# --- Programs ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reader:
    """Codes of one image, population -> [T, C, H, W], and the image itself."""

    program: Program
    codes: dict[str, np.ndarray]
    image: np.ndarray

    def events(self, population: int, t: int) -> np.ndarray:
        """Codes of one timestep, int64 [C, H, W]; none before the first."""
        p = self.program.populations[population]
        return np.zeros(p.shape, np.int64) if t < 0 else self.codes[p.name][t].astype(np.int64)


def explain_program(reader: Reader, layer: str, neuron: tuple[int, int, int], t: int) -> dict[str, Any]:
    """Currents that reach a neuron of a Program at timesteps 0..t, and what adds up to that at t."""
    program = reader.program
    p = next(p for p in program.populations if p.name == layer)
    if p.dendrite < 0:
        return {"currents": [], "made_of": [{"from": "host", "via": "host codes"}], "parameters": {}}
    terms: list[dict[str, Any]] = []
    currents = [accumulate(reader, p.dendrite, neuron, step, p.level) for step in range(t)]
    currents.append(accumulate(reader, p.dendrite, neuron, t, p.level, terms))
    c = neuron[0]
    parameters: dict[str, Any] = {"model": p.model, "dv": p.dv}
    for key in ("vth", "bias", "thresholds"):
        values = getattr(p, key)
        if values is not None:
            parameters[key] = values[c if len(values) > 1 else 0].tolist()
    return {"currents": currents, "made_of": terms[:MAX_TERMS], "parameters": parameters}


def accumulate(
    reader: Reader,
    dendrite: int,
    at: tuple[int, int, int],
    t: int,
    level: int,
    terms: list[dict[str, Any]] | None = None,
) -> int:
    """What one accumulator holds for timestep ``t`` when level ``level`` reads it; ``terms`` gets its parts."""
    program, size = reader.program, reader.program.dendrites[dendrite].shape[0]
    found: list[tuple[str, str, int, int]] = []  # from, via, events, adds
    statics: list[Conv | Map] = [*program.convs, *program.maps]
    for item in statics:
        if item.dst == dendrite and program.arrival(item.src, item.delay, item.lag) <= level:
            codes = reader.events(item.src, t - item.lag)
            if isinstance(item, Conv):
                events, adds = _conv(item, codes, at) if item.sites is None else _between_sites(reader, item, codes, at)
            else:
                events, adds = _map(item, codes, at, size)
            found.append((program.populations[item.src].name, item.name, events, adds))
    for s in program.sparses:
        if s.dst == dendrite and program.arrival(s.src, s.delay, s.lag) <= level:
            found.append((program.populations[s.src].name, s.name, *_sparse(reader, s, at, t)))
    for d in program.dynamics:
        if d.dst == dendrite and _read_level(program, d) <= level:
            found.append((program.populations[d.q].name, d.name, *_dynamic(reader, d, at, t)))
    for transfer in program.transfers:
        if transfer.dst == dendrite and transfer.level <= level:
            source = program.dendrites[transfer.src].name
            found.append((source, f"{transfer.mode} {transfer.name}", 0, _transfer(reader, transfer, at, t)))
    for host in program.host_currents:
        if host.dst == dendrite and host.level <= level:
            made = _host if host.sites is None else _host_sites
            found.append(("host", host.name, 0, made(reader, host, t, at)))
    if terms is not None:
        terms += [{"from": a, "via": b, "events": n, "adds": value} for a, b, n, value in found]
    return sum(value for *_, value in found)


def _read_level(program: Program, d: Dynamic) -> int:
    return program.arrival(d.q, d.delay_q) if d.order == "kv" else program.arrival(d.v, d.delay_v)


def _window(codes: np.ndarray, at: tuple[int, int], item: Conv | Map | Transfer) -> np.ndarray:
    """Positions of a window that lie inside: codes [..., taps] cut out of [..., H, W]."""
    (kh, kw), (sy, sx), (py, px) = item.kernel, item.stride, item.pad  # type: ignore[union-attr]
    y, x = at[0] * sy - py, at[1] * sx - px
    return codes[..., max(y, 0) : max(y + kh, 0), max(x, 0) : max(x + kw, 0)]


def _conv(conv: Conv, codes: np.ndarray, at: tuple[int, int, int]) -> tuple[int, int]:
    o, y0, x0 = at
    _, _, per_group, outputs = conv.weight.shape
    group = o // (outputs // conv.groups)
    windows = conv_windows(conv, codes.shape)
    inputs = codes[group * per_group : (group + 1) * per_group].reshape(-1, *(w.size for w in windows))
    kernel = conv.weight[..., o].reshape(*(w.kernel for w in windows), per_group).astype(np.int64)
    positions = [(*divmod(y0, windows[1].out), x0)]
    if conv.collapse:
        positions = list(np.ndindex(*(w.out for w in windows)))
    events = total = 0
    for position in positions:
        for tap in np.ndindex(kernel.shape[:3]):
            read = [p * w.stride - w.pad + k * w.dilation for p, k, w in zip(position, tap, windows, strict=True)]
            if all(0 <= at < w.size for at, w in zip(read, windows, strict=True)):
                column = inputs[:, *read]
                events += int(np.count_nonzero(column))
                total += int(column @ kernel[tap])
    return events, total << conv.shift


def _map(item: Map, codes: np.ndarray, at: tuple[int, int, int], channels: int) -> tuple[int, int]:
    c, y, x = at
    inputs, outputs = channel_blocks((len(codes), 1, 1), (channels, 1, 1))
    first = c // outputs * inputs
    read = {
        "same": lambda: codes[c, y, x],
        "reduce": lambda: codes[c],
        "broadcast": lambda: codes[c, 0, 0],
        "window": lambda: _window(codes[c], (y, x), item),
        "reduce_channels": lambda: codes[first : first + inputs, y, x],
        "broadcast_channels": lambda: codes[first, y, x],
    }[item.mode]()
    return int(np.count_nonzero(read)), int(np.sum(read)) << item.shift


def _sparse(reader: Reader, s: Sparse, at: tuple[int, int, int], t: int) -> tuple[int, int]:
    """Events of the sources of an accumulator, each as many timesteps ago as its synapse is late, and what they add."""
    mine = np.flatnonzero(s.target == np.ravel_multi_index(at, reader.program.dendrites[s.dst].shape))
    source = np.searchsorted(s.indptr, mine, side="right") - 1
    late = np.zeros(len(mine), np.int64) if s.extra is None else s.extra[mine].astype(np.int64)
    total = events = 0
    for extra in np.unique(late).tolist():
        codes = reader.events(s.src, t - s.lag - extra).reshape(-1)[source[late == extra]]
        codes = codes if s.graded else (codes != 0).astype(np.int64)
        events += int(np.count_nonzero(codes))
        total += int(codes @ s.weight[mine[late == extra]].astype(np.int64))
    return events, total << s.shift


def _dynamic(reader: Reader, d: Dynamic, at: tuple[int, int, int], t: int) -> tuple[int, int]:
    q, k, v = (reader.events(p, t) for p in (d.q, d.k, d.v))
    q, k, v = (codes.reshape(len(codes), -1) for codes in (q, k, v))
    head, token = at[0] // (len(v) // d.heads), at[1] * reader.program.dendrites[d.dst].shape[2] + at[2]
    depth = len(q) // d.heads
    mine = slice(head * depth, (head + 1) * depth)
    table = k[mine] @ v[at[0]] if d.lasting is None else _lasting(reader, d, d.lasting, (head, at[0]), t)
    total = int(table @ q[mine, token])
    return int(np.count_nonzero(q[mine, token])), min(total, d.saturate) << d.shift


def _lasting(reader: Reader, d: Dynamic, lasting: Lasting, at: tuple[int, int], t: int) -> np.ndarray:
    """Entries of one head and column of v, after the writes of timestep t."""
    (head, column), depth = at, reader.program.populations[d.k].shape[0] // d.heads
    table: np.ndarray = np.zeros(depth, np.int64)
    for s in range(t - t % lasting.block if lasting.block else 0, t + 1):
        k, v = (reader.events(p, s).astype(np.int64) for p in (d.k, d.v))
        written = k.reshape(len(k), -1)[head * depth : (head + 1) * depth] @ v.reshape(len(v), -1)[column]
        table = (int(lasting.keep[head]) * table >> 12) + (written << lasting.frac)
    return table


def _transfer(reader: Reader, item: Transfer, at: tuple[int, int, int], t: int) -> int:
    c, y, x = at
    _, height, width = reader.program.dendrites[item.src].shape
    grid = np.arange(height * width).reshape(height, width)
    inside = grid if item.mode == "sum" else _window(grid, (y, x), item)
    where = [(c, *divmod(int(i), width)) for i in inside.reshape(-1)]
    values = [accumulate(reader, item.src, place, t, item.level) for place in where]
    return (sum(values) if item.mode == "sum" else max(values)) >> item.rshift


def _pairs(reader: Reader, window: SiteWindow) -> np.ndarray:
    """(source slot, tap, target slot) of each pair of the image's sites that a convolution joins, [pairs, 3]."""
    items = reader.program.sites or ()
    tables: list[np.ndarray] = []
    for item in items:
        if item.table is not None:
            tables.append(item.table.T)
        elif item.parent < 0:
            tables.append(reader.image[:3, :, 0].astype(np.int64))
        else:
            made = made_sites(sites_of(tables[item.parent]), item.kernel, item.stride, item.pad, item.extent)
            tables.append(np.array(made, np.int64).reshape(-1, 3).T)
    form = window.kernel, window.stride, window.pad, window.inverse
    return np.array(pairs(tables[window.source], tables[window.target], *form), np.int64).reshape(-1, 3)


def _between_sites(reader: Reader, conv: Conv, codes: np.ndarray, at: tuple[int, int, int]) -> tuple[int, int]:
    assert conv.sites is not None
    events = total = 0
    for source, tap, target in _pairs(reader, conv.sites).tolist():
        if conv.collapse or target == at[1]:
            events += int(np.count_nonzero(codes[:, source, 0]))
            total += int(codes[:, source, 0] @ conv.weight[tap, 0, :, at[0]].astype(np.int64))
    return events, total << conv.shift


def _host_sites(reader: Reader, host: HostCurrent, t: int, at: tuple[int, int, int]) -> int:
    assert host.sites is not None
    found = [(s, tap) for s, tap, target in _pairs(reader, host.sites).tolist() if target == at[1]]
    features = reader.image[-host.weight.shape[1] :, :, 0].astype(np.float64)  # behind coordinates, where there are any
    whole, total = np.rint(features * 2.0**host.frac).astype(np.int64), int(host.bias[at[0]])
    for source, tap in found:
        total += int(whole[:, source] @ host.weight[at[0], :, tap, 0].astype(np.int64))
    return (total + (1 << host.shift >> 1)) >> host.shift if found else 0


def _host(reader: Reader, host: HostCurrent, t: int, at: tuple[int, int, int]) -> int:
    o, y, x = at
    image = reader.image[t if reader.program.input_time else ...]
    whole = np.rint(image.astype(np.float64) * 2.0**host.frac).astype(np.int64)
    outputs, per_group, kh, kw = host.weight.shape
    first = o // (outputs // host.groups) * per_group
    total = int(host.bias[o])
    for ky in range(kh):
        for kx in range(kw):
            iy = y * host.stride[0] - host.pad[0] + ky * host.dilation[0]
            ix = x * host.stride[1] - host.pad[1] + kx * host.dilation[1]
            if 0 <= iy < whole.shape[1] and 0 <= ix < whole.shape[2]:
                column = whole[first : first + per_group, iy, ix]
                total += int(column @ host.weight[o, :, ky, kx].astype(np.int64))
    return (total + (1 << host.shift >> 1)) >> host.shift
