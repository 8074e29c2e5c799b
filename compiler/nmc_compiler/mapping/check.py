"""The independent checker: does the mapping carry out the netlist?

It shares no code with the partitioner or the axon builder. Every table is replayed from
the netlist's geometry, forward: which accumulators does an event at this position reach,
which tiles hold them, and how often do the axon rows bring the event there? Exactly once
where it has work to do, and nothing that has none. Tiles cover every soma once, pools
and sums find all their inputs in the tile, and no core exceeds a limit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from nmc_compiler.errors import VerifyError
from nmc_compiler.mapping.check_rows import replay_rows
from nmc_compiler.mapping.resources import core_usage, limits
from nmc_compiler.program.model import Conv, Dynamic, Map, Mapping, Program, SiteWindow, Transfer
from nmc_compiler.program.shapes import FLAT, channel_blocks
from nmc_compiler.program.validate import validate_program
from nmc_compiler.target import Target

MAX_SHOWN = 8


@dataclass
class CheckResult:
    """What was replayed. ``synapses``: accumulator updates that one event of every neuron would cause,
    halo copies included; entries of dynamic tables written and read count as one each."""

    projections: int = 0
    axons: int = 0
    synapses: int = 0
    problems: list[str] = field(default_factory=list)


def check_mapping(program: Program, target: Target) -> CheckResult:
    """Replay the mapping of `program`; raises VerifyError with the first problems if there are any."""
    validate_program(program)
    result = find_problems(program, target)
    if result.problems:
        more = len(result.problems) - MAX_SHOWN
        lines = result.problems[:MAX_SHOWN] + ([f"and {more} more"] if more > 0 else [])
        raise VerifyError("the mapping does not carry out the netlist:\n  " + "\n  ".join(lines))
    return result


def find_problems(program: Program, target: Target) -> CheckResult:
    """Replay the mapping of a valid `program` and list everything that is wrong with it."""
    if program.mapping is None:
        raise VerifyError("the Program has no mapping to check; map it first")
    result = CheckResult(axons=len(program.mapping.axons))
    result.problems += _coverage(program, program.mapping)
    result.problems += _tile_boxes(program, program.mapping)
    result.problems += _transfers(program, program.mapping)
    for stream in _streams(program):
        result.projections += 1
        _replay(program, program.mapping, stream, result)
    for index in range(len(program.sparses)):
        synapses, problems = replay_rows(program, program.mapping, index)
        result.projections += 1
        result.synapses += synapses
        result.problems += problems
    result.problems += _delays(program, target)
    result.problems += _limits(program, program.mapping, target)
    return result


# --- tiles and pieces -------------------------------------------------------------------------------------


def _coverage(program: Program, mapping: Mapping) -> Iterator[str]:
    """Accumulators that somas read are held once; all others at least once."""
    for index, dendrite in enumerate(program.dendrites):
        held = np.zeros(dendrite.shape, np.int32)
        for box in mapping.pieces[mapping.pieces[:, 1] == index, 2:]:
            held[_slices(box)] += 1
        read = any(p.dendrite == index for p in program.populations)
        wrong = held != 1 if read else held < 1
        if wrong.any():
            where = np.argwhere(wrong)[0].tolist()
            rule = "once" if read else "at least once"
            yield (
                f"dendrite {dendrite.name!r}: accumulator {where} is held {held[tuple(where)]} times "
                f"instead of {rule} ({int(wrong.sum())} such)"
            )


def _slices(box: np.ndarray) -> tuple[slice, slice, slice]:
    c0, c1, y0, y1, x0, x1 = box.tolist()
    return slice(c0, c1), slice(y0, y1), slice(x0, x1)


def _tile_boxes(program: Program, mapping: Mapping) -> Iterator[str]:
    """A tile has the box of one of its pieces, and a piece of every dendrite of its cluster."""
    members: dict[int, set[int]] = {}
    for index, dendrite in enumerate(program.dendrites):
        members.setdefault(dendrite.cluster, set()).add(index)
    for number, tile in enumerate(mapping.tiles):
        mine = mapping.pieces[mapping.pieces[:, 0] == number]
        missing = members[int(tile[0])] - set(mine[:, 1].tolist())
        if missing:
            yield f"tile {number}: holds nothing of dendrite {program.dendrites[min(missing)].name!r}"
        elif not (mine[:, 2:] == tile[2:]).all(axis=1).any():
            yield f"tile {number}: box {tile[2:].tolist()} is not the box of any of its pieces"


def _transfers(program: Program, mapping: Mapping) -> Iterator[str]:
    """Each tile holds every input of the pools and sums whose results it holds."""
    boxes: dict[int, dict[int, np.ndarray]] = {}  # dendrite -> tile -> box
    for row in mapping.pieces:
        boxes.setdefault(int(row[1]), {})[int(row[0])] = row[2:]
    for transfer in program.transfers:
        source = program.dendrites[transfer.src]
        inputs = boxes.get(transfer.src, {})
        for tile, box in boxes.get(transfer.dst, {}).items():
            have = inputs.get(tile)
            if have is None or not _has_inputs(transfer, source.shape, box, have):
                held = "nothing" if have is None else f"only {have.tolist()}"
                yield (
                    f"transfer {transfer.name!r}: tile {tile} holds the results {box.tolist()}, "
                    f"but {held} of its inputs in {source.name!r}"
                )


def _has_inputs(transfer: Transfer, shape: tuple[int, int, int], box: np.ndarray, have: np.ndarray) -> bool:
    if not have[0] <= box[0] < box[1] <= have[1]:
        return False
    for axis in (0, 1):
        low, high = have[2 + 2 * axis], have[3 + 2 * axis]
        needed = np.arange(shape[1 + axis])
        if transfer.mode == "maxpool":
            outs = np.arange(box[2 + 2 * axis], box[3 + 2 * axis])
            taps = np.arange(transfer.kernel[axis])
            needed = (outs[:, None] * transfer.stride[axis] + taps - transfer.pad[axis]).ravel()
            needed = needed[(needed >= 0) & (needed < shape[1 + axis])]
        if not ((needed >= low) & (needed < high)).all():
            return False
    return True


# --- axons ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Stream:
    """Events of one population for one projection; ``hits[axis]`` [source, target] counts the ways
    from a source to a target coordinate (kernel taps, or 1); ``height``: rows of a slice of the source."""

    label: str
    kind: int
    index: int
    role: int
    src: int
    dst: int
    hits: tuple[np.ndarray, np.ndarray, np.ndarray]
    height: int


def _streams(program: Program) -> Iterator[_Stream]:
    for index, conv in enumerate(program.convs):
        height = program.populations[conv.src].shape[1] // (conv.depth or FLAT).source
        yield _Stream(f"conv {conv.name!r}", 0, index, 0, conv.src, conv.dst, _conv_hits(program, conv), height)
    for index, item in enumerate(program.maps):
        height = program.populations[item.src].shape[1]
        yield _Stream(f"map {item.name!r}", 1, index, 0, item.src, item.dst, _map_hits(program, item), height)
    for index, dynamic in enumerate(program.dynamics):
        for role, name in enumerate("qkv"):
            hits = _dynamic_hits(program, dynamic, name)
            source = getattr(dynamic, name)
            label, height = f"{name} of dynamic {dynamic.name!r}", program.populations[source].shape[1]
            yield _Stream(label, 2, index, role, source, dynamic.dst, hits, height)


def _window_hits(sources: int, targets: int, kernel: int, stride: int, pad: int, dilation: int) -> np.ndarray:
    """[source, target]: number of taps k with source + pad - k*dilation == target*stride."""
    hits = np.zeros((sources, targets), np.int64)
    source = np.arange(sources)
    for tap in range(kernel):
        scaled = source + pad - tap * dilation
        target = scaled // stride
        good = (scaled % stride == 0) & (target >= 0) & (target < targets)
        hits[source[good], target[good]] += 1
    return hits


def _site_hits(program: Program, conv: Conv, window: SiteWindow) -> np.ndarray:
    """[source slot, target slot]: whether a tap leads from one site to the other; all, where samples have their own."""
    items = program.sites or ()
    source, target = items[window.source], items[window.target]
    hits: np.ndarray = np.zeros((source.slots, target.slots), np.int8)
    if source.table is None or target.table is None:
        hits[:] = 1
        return hits
    fine, coarse = (target.table, source.table) if window.inverse else (source.table, target.table)
    slot = {tuple(site): number for number, site in enumerate(coarse.tolist())}
    for number, site in enumerate(fine.tolist()):
        for tap in itertools.product(*map(range, window.kernel)):
            moved = [n + p - k for n, p, k in zip(site, window.pad, tap, strict=True)]
            if any(n % s for n, s in zip(moved, window.stride, strict=True)):
                continue
            other = slot.get(tuple(n // s for n, s in zip(moved, window.stride, strict=True)))
            if other is not None:
                hits[(other, number) if window.inverse else (number, other)] += 1
    return hits


def _conv_hits(program: Program, conv: Conv) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    inputs, outputs = program.populations[conv.src].shape[0], conv.weight.shape[3]
    group_in = np.arange(inputs) // conv.weight.shape[2]
    group_out = np.arange(outputs) // (outputs // conv.groups)
    channels = (group_in[:, None] == group_out[None, :]).astype(np.int64)
    if conv.sites is not None:
        hits = _site_hits(program, conv, conv.sites)
        return channels, hits.sum(axis=1, keepdims=True) if conv.collapse else hits, np.ones((1, 1), np.int64)
    d, (high, wide) = conv.depth or FLAT, program.populations[conv.src].shape[1:]
    grid = (high // d.source, conv.out_hw[0] // d.target, conv.weight.shape[0] // d.kernel)
    ends = grid, (wide, conv.out_hw[1], conv.weight.shape[1])
    rows, columns = (_window_hits(*ends[a], conv.stride[a], conv.pad[a], conv.dilation[a]) for a in (0, 1))
    if conv.depth is not None:
        slices = _window_hits(d.source, d.target, d.kernel, d.stride, d.pad, d.dilation)
        rows = np.kron(slices.astype(np.int8), rows.astype(np.int8))  # at most one tap leads from place to place
    if conv.collapse:
        rows, columns = rows.sum(axis=1, keepdims=True), columns.sum(axis=1, keepdims=True)
    return channels, rows, columns


def _map_hits(program: Program, item: Map) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    src, dst = program.populations[item.src].shape, program.dendrites[item.dst].shape
    inputs, outputs = channel_blocks(src, dst)
    channels = np.kron(np.eye(src[0] // inputs, dtype=np.int64), np.ones((inputs, outputs), np.int64))
    if item.mode in ("same", "reduce_channels", "broadcast_channels"):
        return channels, np.eye(src[1], dtype=np.int64), np.eye(src[2], dtype=np.int64)
    if item.mode == "window":
        rows, columns = (
            _window_hits(src[1 + a], dst[1 + a], item.kernel[a], item.stride[a], item.pad[a], 1) for a in (0, 1)
        )
        return channels, rows, columns
    return channels, np.ones((src[1], dst[1]), np.int64), np.ones((src[2], dst[2]), np.int64)


def _dynamic_hits(program: Program, item: Dynamic, role: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """q and k serve all of their head's targets, v the target of its own channel; tokens all meet."""
    src = program.populations[getattr(item, role)].shape
    dst = program.dendrites[item.dst].shape
    channels = np.eye(src[0], dtype=np.int64)
    if role != "v":
        head_of_source = np.arange(src[0]) * item.heads // src[0]
        head_of_target = np.arange(dst[0]) * item.heads // dst[0]
        channels = (head_of_source[:, None] == head_of_target[None, :]).astype(np.int64)
    return channels, np.ones((src[1], dst[1]), np.int64), np.ones((src[2], dst[2]), np.int64)


def _replay(program: Program, mapping: Mapping, stream: _Stream, result: CheckResult) -> None:
    """Compare, for every piece of the target, what its axon rows bring with what has work to do there."""
    axons = mapping.axons
    key = (axons[:, 1:4] == (stream.kind, stream.index, stream.role)).all(axis=1)
    numbers = np.flatnonzero(key)
    into = axons[numbers, 4]
    source_boxes = _soma_boxes(program, mapping, stream.src)
    pieces = mapping.pieces[mapping.pieces[:, 1] == stream.dst]
    for piece in pieces:
        rows = numbers[into == piece[0]]
        result.problems += _replay_piece(mapping, stream, piece, rows, source_boxes)
        result.synapses += _work(stream, piece)
    strangers = numbers[~np.isin(into, pieces[:, 0])]
    result.problems += [
        f"{stream.label}: axon {row} goes to tile {axons[row, 4]}, which holds no target" for row in strangers
    ]


def _soma_boxes(program: Program, mapping: Mapping, population: int) -> dict[int, np.ndarray]:
    """Box of the population's somas on each tile; tile -1 is the host with all of an input."""
    dendrite = program.populations[population].dendrite
    if dendrite < 0:
        c, h, w = program.populations[population].shape
        return {-1: np.array([0, c, 0, h, 0, w])}
    return {int(row[0]): row[2:] for row in mapping.pieces if row[1] == dendrite}


def _work(stream: _Stream, piece: np.ndarray) -> int:
    """Accumulator updates in `piece` if every source neuron fired once."""
    total = 1
    for hits, low, high in zip(stream.hits, piece[2::2], piece[3::2], strict=True):
        total *= int(hits[:, low:high].sum())
    return total


def _replay_piece(
    mapping: Mapping, stream: _Stream, piece: np.ndarray, rows: np.ndarray, somas: dict[int, np.ndarray]
) -> Iterator[str]:
    useful = [
        np.asarray(hits[:, low:high].any(axis=1))
        for hits, low, high in zip(stream.hits, piece[2::2], piece[3::2], strict=True)
    ]
    brought = np.zeros([len(axis) for axis in useful], np.int32)
    for row in rows:
        box, held = mapping.axons[row, 5:], somas.get(int(mapping.axons[row, 0]))
        if held is None or (box[0::2] < held[0::2]).any() or (box[1::2] > held[1::2]).any():
            yield f"{stream.label}: axon {row} takes {box.tolist()} from a tile without all of these somas"
            continue
        brought[_slices(box)] += 1
        bounds = zip(useful, box[0::2], box[1::2], strict=True)
        if not all(axis[low:high].any() for axis, low, high in bounds):
            yield f"{stream.label}: axon {row} brings {box.tolist()} to tile {piece[0]} without any synapse"
    needed = useful[0][:, None, None] & useful[1][:, None] & useful[2]
    stray = _outside(useful, stream.height, needed, brought)
    for wrong, text in ((needed & (brought != 1), "instead of once"), (stray, "in vain")):
        if wrong.any():
            where = np.argwhere(wrong)[0].tolist()
            yield (
                f"{stream.label}: the event of source {where} reaches tile {piece[0]} "
                f"{brought[tuple(where)]} times {text} ({int(wrong.sum())} such)"
            )


def _outside(useful: list[np.ndarray], height: int, needed: np.ndarray, brought: np.ndarray) -> np.ndarray:
    """Events brought from outside the smallest box around the useful ones, slice by slice of a volume, or twice.

    Inside it, positions that a stride or dilation skips come along: a box cannot leave them out.
    """
    c, y, x = (_around(axis, size) for axis, size in zip(useful, (len(useful[0]), height, len(useful[2])), strict=True))
    return (brought > (c[:, None, None] & y[:, None] & x)) & ~needed  # what is needed is judged by the exact count


def _around(useful: np.ndarray, size: int) -> np.ndarray:
    """Whether a place lies between useful ones of its stretch of `size` places, or is one."""
    stretches = useful.reshape(-1, size)
    after = np.logical_or.accumulate(stretches, axis=1)
    before = np.logical_or.accumulate(stretches[:, ::-1], axis=1)[:, ::-1]
    return (after & before).reshape(-1)


# --- delays and limits ------------------------------------------------------------------------------------


def _delays(program: Program, target: Target) -> Iterator[str]:
    """Every delay is at least one tick and within what the target's delay field adds to that."""
    top = target.core.delay_max.value + 1
    named = [(item.name, item.delay) for kind in (program.convs, program.maps) for item in kind]
    for sparse in program.sparses:
        later = 0 if sparse.extra is None else int(sparse.extra.max(initial=0))
        named += [(sparse.name, sparse.delay), (sparse.name, sparse.delay + later * program.ticks_per_step)]
    for item in program.dynamics:
        named += [(f"{item.name} ({role})", getattr(item, f"delay_{role}")) for role in "qkv"]
    for name, delay in named:
        if not 1 <= delay <= top:
            yield f"projection {name!r}: delay {delay} is outside 1..{top} ticks of target {target.name}"


def _limits(program: Program, mapping: Mapping, target: Target) -> Iterator[str]:
    top = limits(target)
    for resource, used in core_usage(program, mapping, target).items():
        for core in np.flatnonzero(used > top[resource]):
            yield f"core {core}: {resource} {used[core]}/{top[resource]}"
    if mapping.chips * target.mesh.cores < len(mapping.cores):
        yield f"{len(mapping.cores)} cores on {mapping.chips} chips of {target.mesh.cores}"
