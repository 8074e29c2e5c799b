"""Rules of projections and transfers: indices, geometry, weights, shifts, delays."""

from __future__ import annotations

import dataclasses
import math
from typing import NoReturn

import numpy as np

from nmc_compiler.program.learning import check_rule
from nmc_compiler.program.model import Conv, Depth, Dynamic, Lasting, Map, Program, Shape, Sparse, Transfer
from nmc_compiler.program.rules import (
    NUMBER_LIMIT,
    check_array,
    check_index,
    check_pair,
    check_range,
    check_same,
    check_text,
    check_values,
    fail,
)
from nmc_compiler.program.shapes import conv_grid, conv_out, windows_start_inside
from nmc_compiler.program.sites import check_window
from nmc_compiler.program.timing import largest_extra

MAX_SHIFT = 24
MAX_RSHIFT = 31
MAX_SATURATE = 2**31 - 1
MAX_EXTRA = 63  # timesteps that a synapse may add to its projection's delay (Lava's DelayDense, DelaySparse)
MAX_SYNAPSES = 2**31  # of all sparse projections together; about 10 GiB


def check_edges(program: Program) -> None:
    """Raise VerifyError for the first projection or transfer that does not fit its ends."""
    for index, conv in enumerate(program.convs):
        _check_conv(program, conv, f"convs/{index}")
    for index, item in enumerate(program.maps):
        _check_map(program, item, f"maps/{index}")
    for index, dynamic in enumerate(program.dynamics):
        _check_dynamic(program, dynamic, f"dynamics/{index}")
    for index, sparse in enumerate(program.sparses):
        _check_sparse(program, sparse, f"sparses/{index}")
    _check_synapses(program)
    for index, transfer in enumerate(program.transfers):
        _check_transfer(program, transfer, f"transfers/{index}")
    _check_weight_keys(program)
    _check_transfer_cycles(program)


def delay_limit(program: Program) -> int:
    """Largest delay in ticks that the Program's target facts allow (one tick is the least)."""
    limits = program.target.get("limits")
    top = limits.get("delay_max") if isinstance(limits, dict) else None
    if top is None:
        return NUMBER_LIMIT
    if type(top) is not int or not 0 <= top <= NUMBER_LIMIT:
        fail("target/limits/delay_max", f"{ascii(top)[:60]} is not a number of ticks")
    return top + 1


def _check_ends(program: Program, item: Conv | Map | Sparse, path: str) -> tuple[Shape, Shape]:
    """Shapes of source population and target dendrite, with the rules that all projections share."""
    check_text(f"{path}/name", item.name)
    src = _check_source(program, f"{path}/src", item.src)
    check_index(f"{path}/dst", item.dst, len(program.dendrites), "dendrite")
    check_range(f"{path}/shift", item.shift, 0, MAX_SHIFT)
    check_range(f"{path}/delay", item.delay, 1, delay_limit(program))
    check_range(f"{path}/lag", item.lag, 0, NUMBER_LIMIT)
    if not isinstance(item, Sparse):
        check_pair(f"{path}/stride", item.stride, 1)
        check_pair(f"{path}/pad", item.pad, 0)
    return src, program.dendrites[item.dst].shape


def _check_source(program: Program, path: str, index: int) -> Shape:
    check_index(path, index, len(program.populations), "population")
    population = program.populations[index]
    if population.model == "readout":
        fail(path, f"{population.name!r} is a readout and never fires")
    return population.shape


def _check_conv(program: Program, conv: Conv, path: str) -> None:
    src, dst = _check_ends(program, conv, path)
    check_pair(f"{path}/dilation", conv.dilation, 1)
    check_array(f"{path}/weight", conv.weight, np.int8, (None, None, None, None))
    _, _, per_group, out = conv.weight.shape
    check_range(f"{path}/groups", conv.groups, 1, src[0])
    check_same(f"{path}/weight", per_group * conv.groups, src[0], "the channels of the source")
    check_same(f"{path}/weight", out, dst[0], "the channels of the target")
    check_same(f"{path}/groups", out % conv.groups, 0, f"{out} output channels leave a rest")
    if conv.sites is not None:
        _check_between_sites(program, conv, (src, dst), path)
        return
    if conv.depth is not None:
        _check_depth(conv.depth, src[1], conv.weight.shape[0], f"{path}/depth")
    grid = conv_grid(conv, src)
    check_same(f"{path}/out_hw", conv.out_hw, grid, f"output of kernel {conv.weight.shape[:2]} on {src[1:]}")
    check_pair(f"{path}/out_hw", conv.out_hw, 1)
    check_same(f"{path}/dst", dst[1:], (1, 1) if conv.collapse else grid, "positions of the target dendrite")


def _check_between_sites(program: Program, conv: Conv, ends: tuple[Shape, Shape], path: str) -> None:
    plain = (conv.stride, conv.pad, conv.dilation, conv.groups, conv.depth) == ((1, 1), (0, 0), (1, 1), 1, None)
    check_same(f"{path}/sites", plain, True, "the window is that of the sites alone, without groups and depth")
    check_window(program, conv.sites, conv.weight.shape[:2], (ends[0][1:], conv.out_hw), f"{path}/sites")  # type: ignore[arg-type]
    grid = (1, 1) if conv.collapse else conv.out_hw
    check_same(f"{path}/dst", ends[1][1:], grid, "positions of the target dendrite")


def _check_depth(depth: Depth, rows: int, taps: int, path: str) -> None:
    for field in dataclasses.fields(depth):
        check_range(f"{path}/{field.name}", getattr(depth, field.name), int(field.name != "pad"), NUMBER_LIMIT)
    check_same(f"{path}/source", rows % depth.source, 0, f"slices of equal height; {rows} rows leave a rest")
    check_same(f"{path}/kernel", taps % depth.kernel, 0, f"taps of equal height; {taps} rows of weights leave a rest")
    target = conv_out(depth.source, depth.kernel, depth.stride, depth.pad, depth.dilation)
    check_same(f"{path}/target", depth.target, target, f"output of kernel {depth.kernel} on {depth.source} slices")


def _check_sparse(program: Program, item: Sparse, path: str) -> None:
    src, dst = _check_ends(program, item, path)
    check_array(f"{path}/indptr", item.indptr, np.int64, (math.prod(src) + 1,))
    synapses = int(item.indptr[-1])
    if item.indptr[0] != 0 or (item.indptr[1:] < item.indptr[:-1]).any():
        fail(f"{path}/indptr", "does not rise from 0: the synapses of a soma are indptr[s] to indptr[s + 1]")
    for name, dtype in (("target", np.int32), ("weight", _weight_dtype(item)), ("extra", np.uint8)):
        array = getattr(item, name)
        if array is not None:
            check_array(f"{path}/{name}", array, dtype, (synapses,))
    check_values(f"{path}/target", item.target, 0, math.prod(dst) - 1)
    if item.rule is not None:
        check_rule(program, item, path)
    check_range(f"{path}/extra", largest_extra(item), 0, MAX_EXTRA)
    ticks, top = item.delay + largest_extra(item) * program.ticks_per_step, delay_limit(program)
    if ticks > top:
        fail(
            f"{path}/extra", f"up to {largest_extra(item)} timesteps after {item.delay} ticks, {ticks} in all of {top}"
        )


def _weight_dtype(item: Sparse) -> type:
    return np.int16 if item.weight.dtype == np.int16 else np.int8


def _check_synapses(program: Program) -> None:
    """A small file may name one array many times; what an engine makes of it must stay within bounds."""
    total = sum(len(item.target) for item in program.sparses)
    if total > MAX_SYNAPSES:
        fail("sparses", f"{total} synapses in all, at most {MAX_SYNAPSES} can be handled")


def _check_map(program: Program, item: Map, path: str) -> None:
    src, dst = _check_ends(program, item, path)
    if item.mode in ("reduce_channels", "broadcast_channels"):
        _check_channel_map(item, src, dst, path)
        return
    check_same(f"{path}/dst", dst[0], src[0], "a map keeps the channels")
    if item.mode == "window":
        check_pair(f"{path}/kernel", item.kernel, 1)
        _check_windows(item, src, dst, path)
    elif item.mode == "same":
        check_same(f"{path}/dst", dst, src, "mode 'same' keeps the shape")
    else:
        one, name = (dst, "dst") if item.mode == "reduce" else (src, "src")
        check_same(f"{path}/{name}", one[1:], (1, 1), f"mode {item.mode!r} has a single position there")


def _check_channel_map(item: Map, src: Shape, dst: Shape, path: str) -> None:
    check_same(f"{path}/dst", dst[1:], src[1:], f"mode {item.mode!r} keeps the positions")
    many, few = (src[0], dst[0]) if item.mode == "reduce_channels" else (dst[0], src[0])
    if many % few:
        fail(f"{path}/dst", f"{few} channels do not divide {many}: mode {item.mode!r} has blocks of equal size")


def _check_windows(item: Map | Transfer, src: Shape, dst: Shape, path: str) -> None:
    if not windows_start_inside(item, src, dst):
        fail(
            f"{path}/pad",
            f"{list(item.pad)}: kernel {list(item.kernel)}, stride {list(item.stride)} from {list(src[1:])} "
            f"to {list(dst[1:])} positions has a window without any source; pad must stay below kernel",
        )


def _check_dynamic(program: Program, item: Dynamic, path: str) -> None:
    check_text(f"{path}/name", item.name)
    shapes = {role: _check_source(program, f"{path}/{role}", getattr(item, role)) for role in ("q", "k", "v")}
    check_index(f"{path}/dst", item.dst, len(program.dendrites), "dendrite")
    shapes["dst"] = program.dendrites[item.dst].shape
    check_range(f"{path}/heads", item.heads, 1, NUMBER_LIMIT)
    check_range(f"{path}/shift", item.shift, 0, MAX_SHIFT)
    check_range(f"{path}/saturate", item.saturate, 1, MAX_SATURATE)
    for role in ("q", "k", "v"):
        check_range(f"{path}/delay_{role}", getattr(item, f"delay_{role}"), 1, delay_limit(program))
        if program.populations[getattr(item, role)].signed:
            fail(f"{path}/{role}", "codes may be negative, but saturation needs codes from 0 up")
    for role, shape in shapes.items():
        if shape[0] % item.heads:
            fail(f"{path}/heads", f"{item.heads} heads do not divide the {shape[0]} channels of {role}")
        tokens = math.prod(shapes["q"][1:])
        check_same(f"{path}/{role}", math.prod(shape[1:]), tokens, "tokens of q")
    check_same(f"{path}/k", shapes["k"][0], shapes["q"][0], "channels of q")
    check_same(f"{path}/dst", shapes["dst"][0], shapes["v"][0], "channels of v")
    if item.lasting is not None:
        _check_lasting(program, item, item.lasting, f"{path}/lasting")


def _check_lasting(program: Program, item: Dynamic, lasting: Lasting, path: str) -> None:
    check_array(f"{path}/keep", lasting.keep, np.int32, (item.heads,))
    check_values(f"{path}/keep", lasting.keep, 0, 4096)
    check_range(f"{path}/frac", lasting.frac, 0, 15)
    check_range(f"{path}/block", lasting.block, 0, NUMBER_LIMIT)
    if item.order != "kv":
        fail(path, "only tables of order 'kv' last")
    if program.timesteps == 0:
        fail(path, "a stream has no windows that a table could last for")


def _check_transfer(program: Program, item: Transfer, path: str) -> None:
    check_text(f"{path}/name", item.name)
    check_range(f"{path}/level", item.level, 0, NUMBER_LIMIT)
    for end in ("src", "dst"):
        check_index(f"{path}/{end}", getattr(item, end), len(program.dendrites), "dendrite")
    src, dst = program.dendrites[item.src], program.dendrites[item.dst]
    check_same(f"{path}/dst", dst.cluster, src.cluster, "a transfer stays within one cluster")
    check_same(f"{path}/dst", dst.shape[0], src.shape[0], "a transfer keeps the channels")
    check_pair(f"{path}/kernel", item.kernel, 1)
    check_pair(f"{path}/stride", item.stride, 1)
    check_pair(f"{path}/pad", item.pad, 0)
    check_range(f"{path}/rshift", item.rshift, 0, MAX_RSHIFT)
    if item.mode == "sum":
        check_same(f"{path}/dst", dst.shape[1:], (1, 1), "mode 'sum' has a single position there")
    else:
        _check_windows(item, src.shape, dst.shape, path)


def _check_weight_keys(program: Program) -> None:
    first: dict[str, int] = {}
    for index, conv in enumerate(program.convs):
        if not conv.weight_key:
            continue
        number = first.setdefault(conv.weight_key, index)
        other = program.convs[number]
        if other.groups != conv.groups or not np.array_equal(other.weight, conv.weight):
            key = ascii(conv.weight_key)[:60]
            fail(f"convs/{index}/weight_key", f"{key} stands for other weights in convs/{number}")


def _check_transfer_cycles(program: Program) -> None:
    """Transfers form no cycle, and a later one never adds to what an earlier one of its level has read."""
    targets: dict[int, list[int]] = {}
    for item in program.transfers:
        targets.setdefault(item.src, []).append(item.dst)
    state: dict[int, int] = {}
    for start in targets:
        _walk(start, targets, state)
    for index, item in enumerate(program.transfers):
        for earlier in program.transfers[:index]:
            if earlier.src == item.dst and earlier.level == item.level:
                fail(
                    f"transfers/{index}",
                    f"adds to what {earlier.name!r} has read before at level {item.level}",
                )


def _walk(start: int, targets: dict[int, list[int]], state: dict[int, int]) -> None:
    """Depth-first search without recursion: state 1 is on the path, 2 is done."""
    stack = [start]
    while stack:
        node = stack[-1]
        if state.get(node) is None:
            state[node] = 1
        fresh = [n for n in targets.get(node, []) if state.get(n) != 2]
        if any(state.get(n) == 1 for n in fresh):
            _cycle(node)
        if fresh:
            stack.append(fresh[0])
        else:
            state[stack.pop()] = 2


def _cycle(dendrite: int) -> NoReturn:
    fail("transfers", f"form a cycle through dendrite {dendrite}")
