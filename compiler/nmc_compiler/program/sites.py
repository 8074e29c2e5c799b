"""Active sites of a Program: which there are, which pairs of them a convolution joins, and the rules they keep."""

from __future__ import annotations

import itertools
import math

import numpy as np

from nmc_compiler.errors import LoweringError
from nmc_compiler.program.model import Program, Sites, SiteWindow
from nmc_compiler.program.rules import check_array, check_index, check_range, check_same, check_text, fail

MAX_EXTENT = 2**20  # along one axis: three coordinates make a key of 60 bits
MAX_TAPS = 2**10
MAX_SLOTS = 2**20
MAX_PAIRS = 2**25  # slots times taps of one convolution: a GiB while its pairs are looked for
NOBODY = -1

Triple = tuple[int, int, int]


def down_extent(extent: Triple, kernel: Triple, stride: Triple, pad: Triple) -> Triple:
    """Extent of what a strided convolution makes of a volume, as of a dense one."""
    sizes = zip(extent, kernel, stride, pad, strict=True)
    return tuple((n + 2 * p - k) // s + 1 for n, k, s, p in sizes)  # type: ignore[return-value]


def fixed(program: Program) -> bool:
    """Whether the sites are those of a fixed cloud, known before the run."""
    return bool(program.sites) and all(s.table is not None for s in program.sites or ())


def _keys(places: np.ndarray, extent: Triple) -> np.ndarray:
    """One number per site [n]; places int64 [n, 3] inside the extent."""
    return (places[:, 0] * extent[1] + places[:, 1]) * extent[2] + places[:, 2]


def _taps(kernel: Triple) -> np.ndarray:
    """[taps, 3] in C order."""
    return np.array(list(itertools.product(*map(range, kernel))), np.int64)


def down_table(table: np.ndarray, parent: Sites, made: Sites) -> np.ndarray:
    """Sites [n, 3] that the rule of ``made`` makes of the sites ``table`` [m, 3] of its parent, in their order."""
    extent = np.array(down_extent(parent.extent, made.kernel, made.stride, made.pad))
    scaled = table.astype(np.int64)[:, None] + np.array(made.pad) - _taps(made.kernel)[None]
    out, rest = np.divmod(scaled, np.array(made.stride))
    good = ((rest == 0) & (out >= 0) & (out < extent)).all(axis=2).reshape(-1)
    found = out.reshape(-1, 3)[good]
    _, first = np.unique(_keys(found, tuple(extent.tolist())), return_index=True)
    return found[np.sort(first)].astype(np.int32)


def neighbours(source: np.ndarray, target: np.ndarray, window: SiteWindow) -> np.ndarray:
    """Source slot that each target slot reads in each tap, int32 [target sites, taps]; -1: none."""
    source, target = source.astype(np.int64), target.astype(np.int64)
    stride, pad, taps = np.array(window.stride), np.array(window.pad), _taps(window.kernel)
    if window.inverse:
        read, rest = np.divmod(target[:, None] + pad - taps[None], stride)
        good = (rest == 0).all(axis=2)
    else:
        read = target[:, None] * stride - pad + taps[None]
        good = np.ones(read.shape[:2], bool)
    found = np.full(read.shape[:2], NOBODY, np.int32)
    if not len(source):
        return found
    extent: Triple = tuple((source.max(axis=0) + 1).tolist())  # type: ignore[assignment]
    good &= ((read >= 0) & (read < np.array(extent))).all(axis=2)
    keys = _keys(source, extent)
    order = np.argsort(keys)
    wanted = _keys(read[good], extent)
    at = np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)
    found[good] = np.where(keys[order[at]] == wanted, order[at], NOBODY)
    return found


# --- rules ------------------------------------------------------------------------------------------------


def check_sites(program: Program) -> None:
    """Raise VerifyError for the first rule of sites that the Program breaks."""
    for index, item in enumerate(program.sites or ()):
        _check_item(program, item, index, f"sites/{index}")
    for index, p in enumerate(program.populations):
        if p.sites is not None:
            _check_population(program, index)
        elif p.offset is not None:
            fail(f"populations/{index}/offset", "given, but this is no mean over sites")
    tables = [item.table is not None for item in program.sites or ()]
    if any(tables) and not all(tables):
        fail(f"sites/{tables.index(False)}/table", "missing, but other sites have one: all are fixed, or none is")
    if tables and not all(tables) and program.input_time:
        fail("input_time", "true, but the sites of a sample are the same in all its timesteps")


def _check_triple(path: str, values: Triple, low: int, high: int) -> None:
    for value in values:
        check_range(path, value, low, high)


def _check_item(program: Program, item: Sites, index: int, path: str) -> None:
    check_text(f"{path}/name", item.name)
    check_range(f"{path}/slots", item.slots, 1, MAX_SLOTS)
    _check_triple(f"{path}/extent", item.extent, 1, MAX_EXTENT)
    check_range(f"{path}/parent", item.parent, -1, index - 1)
    _check_window(item, path)
    parent = None if item.parent < 0 else (program.sites or ())[item.parent]
    if parent is not None:
        check_range(f"{path}/kernel", parent.slots * math.prod(item.kernel), 1, MAX_PAIRS)
        expected = down_extent(parent.extent, item.kernel, item.stride, item.pad)
        check_same(f"{path}/extent", item.extent, expected, f"what its window makes of {parent.extent}")
    elif item.table is None:
        check_same(f"{path}/slots", (item.slots, 1), program.input_shape[1:], "positions of the input")
        check_range("input_shape", program.input_shape[0], 4, MAX_SLOTS)
    if item.table is None:
        return
    check_array(f"{path}/table", item.table, np.int32, (item.slots, 3))
    if (item.table < 0).any() or (item.table >= np.array(item.extent)).any():
        fail(f"{path}/table", f"sites from {item.table.min(axis=0)} to {item.table.max(axis=0)} leave {item.extent}")
    if len(np.unique(_keys(item.table.astype(np.int64), item.extent))) != item.slots:
        fail(f"{path}/table", "a site has two slots")
    if parent is not None and parent.table is not None:
        made = down_table(parent.table, parent, item)
        if not np.array_equal(made, item.table):
            fail(f"{path}/table", f"not the {len(made)} sites that its window makes of {parent.name!r}")


def _check_window(item: Sites | SiteWindow, path: str) -> None:
    _check_triple(f"{path}/kernel", item.kernel, 1, MAX_TAPS)
    _check_triple(f"{path}/stride", item.stride, 1, MAX_EXTENT)
    _check_triple(f"{path}/pad", item.pad, 0, MAX_EXTENT)
    check_range(f"{path}/kernel", math.prod(item.kernel), 1, MAX_TAPS)


def _check_population(program: Program, index: int) -> None:
    p, path = program.populations[index], f"populations/{index}"
    assert p.sites is not None
    check_index(f"{path}/sites", p.sites, len(program.sites or ()), "sites")
    slots = (program.sites or ())[p.sites].slots
    if p.model == "readout":
        if p.offset is None:
            fail(f"{path}/offset", "missing, but a mean over sites needs it")
        check_array(f"{path}/offset", p.offset, np.int64, (p.shape[0],))
        if np.abs(p.offset.astype(np.float64)).max(initial=0) >= 2.0**53:
            fail(f"{path}/offset", "beyond 2^53, up to which numbers are exact")
        return
    if p.offset is not None:
        fail(f"{path}/offset", f"given, but model {p.model!r} has none")
    check_same(f"{path}/shape", p.shape[1:], (slots, 1), f"slots of sites/{p.sites}")


def check_window(program: Program, window: SiteWindow, weight: tuple[int, int], ends: tuple, path: str) -> None:
    """Rules of a convolution between sites; weight: its first two axes, ends: positions of source and target."""
    _check_window(window, path)
    check_same(f"{path}/kernel", weight, (math.prod(window.kernel), 1), "taps in rows of weights")
    for name, end in zip(("source", "target"), ends, strict=True):
        check_index(f"{path}/{name}", getattr(window, name), len(program.sites or ()), "sites")
        item = (program.sites or ())[getattr(window, name)]
        check_same(f"{path}/{name}", end, (item.slots, 1), f"slots of {item.name!r}")
        check_range(f"{path}/{name}", item.slots * math.prod(window.kernel), 1, MAX_PAIRS)


def refuse_sites(program: Program, who: str, instead: str) -> None:
    """LoweringError where a Program has sites, by whoever cannot do them."""
    item = next(iter(program.sites or ()), None)
    if item is not None:
        raise LoweringError(f"Program '{program.name}' has active sites ('{item.name}'), which {who}; {instead}")
