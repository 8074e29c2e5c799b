"""What learning asks of an image (docs/neurocore.md): the words of a row with a rule are of that row alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nmc_compiler.errors import VerifyError
from nmc_compiler.neurocore import items
from nmc_compiler.neurocore.items import CONV, DELAY, DENSE, SPARSE
from nmc_compiler.neurocore.sizes import (
    DESCRIPTORS,
    GEOMETRIES,
    PENDING,
    PRE,
    REGISTER_LEARN,
    REGISTERS,
    ROUTES,
    SYNAPSES,
    Sizes,
)

MORE = np.uint64(1 << 3)
ALIGN = 4  # words


def check_plastic(sizes: Sizes, memory: Callable[[int], np.ndarray], inputs: np.ndarray) -> None:
    """VerifyError where rows with a rule on a core that learns break what learning without hazards rests on.

    memory: gives the uint64 [cores, items] of an image by id; inputs: its table of that name.
    """
    for core in np.flatnonzero(memory(REGISTERS)[:, REGISTER_LEARN] & np.uint64(1)).tolist():
        _check_core(sizes, core, memory, _events(sizes, core, memory, inputs))


def _events(sizes: Sizes, core: int, memory: Callable[[int], np.ndarray], inputs: np.ndarray) -> np.ndarray:
    """bool [A]: the axons of a core that something else than a row gives events or traces."""
    routes = items.unpack(items.ROUTE, memory(ROUTES))
    pending = memory(PENDING)[core].reshape(-1, sizes.axons // 32, 1) >> np.arange(32, dtype=np.uint64)
    found = (pending & np.uint64(1)).any(axis=0).reshape(-1) | (memory(PRE)[core] > 0)
    found[inputs[inputs[:, 2] == core, 3]] = True
    found[routes["axon"][routes["cores"] >> core & 1 > 0] % sizes.axons] = True
    return found


def _check_core(sizes: Sizes, core: int, memory: Callable[[int], np.ndarray], events: np.ndarray) -> None:
    rows, words = memory(DESCRIPTORS)[core], memory(SYNAPSES)[core]
    chains, fmt = _chains(rows, events), (rows & np.uint64(7)).astype(int)
    row = items.unpack(items.DESCRIPTORS[SPARSE], rows)
    plastic = (chains > 0) & np.isin(fmt, (SPARSE, DENSE)) & (row["rule"] > 0)
    if not plastic.any():
        return
    begin, count = _spans(sizes, fmt, row, rows, memory(GEOMETRIES)[core])
    used = np.zeros(sizes.words, np.int64)
    for i in np.flatnonzero(chains > 0):
        used[(begin[i] + np.arange(count[i])) % sizes.words] += 1
    for i in np.flatnonzero(plastic):
        mine = (begin[i] + np.arange(count[i])) % sizes.words
        targets = (words[mine] >> np.uint64(8)).astype(np.int64) if fmt[i] == SPARSE else np.arange(row["len"][i])
        for broken, what in (
            (begin[i] % ALIGN, f"begins at word {begin[i]}, which is no multiple of {ALIGN}"),
            (chains[i] > 1, f"is in the chains of {chains[i]} axons that have events"),
            (
                (used[mine] > 1).any(),
                f"shares some of its words {begin[i]} to {begin[i] + count[i] - 1} with another row",
            ),
            (len(np.unique(targets % sizes.neurons)) < len(targets), "names a target twice"),
        ):
            if broken:
                raise VerifyError(f"image: core {core}, row {i} has a rule and {what}; the core would learn wrongly")


def _chains(rows: np.ndarray, events: np.ndarray) -> np.ndarray:
    """int64 [A]: of how many axons that have events each row is in the chain. DELAY rows give events to axons, too."""
    last = (rows & MORE) == 0
    last[-1] = True
    ends = np.flatnonzero(last)[np.searchsorted(np.flatnonzero(last), np.arange(len(rows)))]
    delay = items.unpack(items.DESCRIPTORS[DELAY], rows)
    delays = (rows & np.uint64(7) == DELAY) & (delay["d"] > 0)
    active = events.copy()
    while True:
        edges = np.zeros(len(rows) + 1, np.int64)
        np.add.at(edges, np.flatnonzero(active), 1)
        np.add.at(edges, ends[active] + 1, -1)
        chains = np.cumsum(edges)[:-1]
        reached = delay["axon"][delays & (chains > 0)] % len(rows)
        if active[reached].all():
            return chains
        active[reached] = True


def _spans(
    sizes: Sizes, fmt: np.ndarray, row: dict[str, np.ndarray], rows: np.ndarray, geometries: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """First word and number of words of every row, 0 where it has none, and at most all there are."""
    conv = items.unpack(items.DESCRIPTORS[CONV], rows)
    form = items.unpack(items.GEOMETRY[0], geometries[::4][conv["geom"] % sizes.geoms])
    kernel = form["kh"] * form["kw"] * -(-form["cout"] // 2)
    begin = np.where(fmt == CONV, conv["base64"] * 64, row["base"])
    words = {SPARSE: row["len"], DENSE: 1 + -(-row["len"] // 2), CONV: kernel}
    count = np.select([fmt == kind for kind in words], list(words.values()), 0)
    return begin, np.minimum(count, sizes.words)
