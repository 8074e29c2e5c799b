"""The active sites of the sample at hand: tables, and what each convolution between them joins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nmc_compiler.errors import UsageError
from nmc_compiler.program.model import Program, Sites, SiteWindow
from nmc_compiler.program.sites import fixed, neighbours

from .kernels import sites as kernels

EMPTY = -1  # coordinates of a slot without a site


def runtime_sites(program: Program) -> bool:
    """Whether every sample has sites of its own."""
    return bool(program.sites) and not fixed(program)


def form_of(item: Sites | SiteWindow) -> np.ndarray:
    """Kernel, stride and pad as the kernels take them."""
    return np.array([item.kernel, item.stride, item.pad], np.int64)


@dataclass
class Table:
    """Sites of one entry of ``Program.sites``: table int32 [slots, 3], count int64 [1], and its hash table."""

    spec: Sites
    table: np.ndarray
    count: np.ndarray
    extent: np.ndarray
    keys: np.ndarray
    slots: np.ndarray

    @classmethod
    def blank(cls, spec: Sites) -> Table:
        size = kernels.capacity(spec.slots)
        table, keys, slots = (
            np.full((spec.slots, 3), EMPTY, np.int32),
            np.zeros(size, np.int64),
            np.zeros(size, np.int32),
        )
        return cls(spec, table, np.zeros(1, np.int64), np.array(spec.extent, np.int64), keys, slots)

    def hash(self) -> None:
        """Make the hash table that of the sites."""
        kernels.fill(self.table, 0, int(self.count[0]), self.extent, self.keys, self.slots)


class SiteTables:
    """Tables of all sites of a Program; ``load`` makes them those of a sample, in place."""

    def __init__(self, program: Program) -> None:
        self.program, self.fixed = program, fixed(program)
        self.tables = [Table.blank(spec) for spec in program.sites or ()]
        self._rules: dict[SiteWindow, tuple[np.ndarray, int]] = {}
        if self.fixed:
            for t in self.tables:
                assert t.spec.table is not None
                t.table[:], t.count[0] = t.spec.table, t.spec.slots
                t.hash()

    def load(self, image: np.ndarray, index: int) -> None:
        """Sites of sample ``index``, whose input is ``image`` [1, 3 + F, slots, 1].

        UsageError where its first three channels are no sites, or where a table has too few slots.
        """
        if self.fixed:
            return
        for t in self.tables:
            if t.spec.parent < 0:
                self._given(t, image[0, :3, :, 0], index)
            else:
                self._made(t, index)

    def _given(self, t: Table, places: np.ndarray, index: int) -> None:
        who = f"sample {index}: sites of '{t.spec.name}'"
        used = int(np.count_nonzero(places[0] != EMPTY))
        taken = places[:, :used]
        if not np.isfinite(places).all() or (np.rint(places) != places).any():
            raise UsageError(f"{who} have coordinates that are no whole numbers; give voxels (nmc.voxels)")
        if (places[:, used:] != EMPTY).any() or (taken < 0).any():
            raise UsageError(f"{who}: empty slots (-1 in all three coordinates) come behind all sites")
        if used and (taken.max(axis=1) >= t.extent).any():
            raise UsageError(f"{who} reach {taken.max(axis=1).astype(int).tolist()}, beyond {t.extent.tolist()}")
        t.table[:], t.count[0] = places.T, used
        t.hash()
        if np.count_nonzero(t.keys != kernels.NOBODY) != used:
            raise UsageError(f"{who}: a site is there twice; give each voxel once")

    def _made(self, t: Table, index: int) -> None:
        parent = self.tables[t.spec.parent]
        found = kernels.allocate(
            parent.table, int(parent.count[0]), form_of(t.spec), t.extent, t.keys, t.slots, t.table
        )
        if found > t.spec.slots:
            raise UsageError(
                f"sample {index}: more than the {t.spec.slots} slots of '{t.spec.name}' are needed; compile with more"
            )
        t.count[0] = found

    def counts(self) -> np.ndarray:
        """Sites of each table, int64."""
        return np.array([int(t.count[0]) for t in self.tables], np.int64)

    def near(self, window: SiteWindow, out: np.ndarray) -> int:
        """Rulebook of a convolution into ``out`` int32 [target slots, taps]; the number of its pairs."""
        source, target = self.tables[window.source], self.tables[window.target]
        operands = source.table, int(source.count[0]), form_of(window), window.inverse
        return kernels.join(*operands, target.extent, target.keys, target.slots, out)

    def rulebook(self, window: SiteWindow) -> tuple[np.ndarray, int]:
        """(near, pairs) of a convolution, kept where the sites are those of a fixed cloud."""
        if window not in self._rules:
            near = self.blank_near(window)
            found = near, self.near(window, near)
            if not self.fixed:
                return found
            self._rules[window] = found
        return self._rules[window]

    def blank_near(self, window: SiteWindow) -> np.ndarray:
        """Room for a rulebook."""
        return np.full((self.tables[window.target].spec.slots, int(np.prod(window.kernel))), EMPTY, np.int32)


class Rulebooks:
    """Pairs of every convolution between sites, and the fan-out rows that follow from them, for one sample at a time.

    ``near``: by window, int32 [target slots, taps], the source slot that a target reads in a tap or -1.
    """

    def __init__(self, program: Program) -> None:
        self.tables = SiteTables(program)
        windows = [c.sites for c in program.convs if c.sites is not None]
        self.near = {window: self.tables.blank_near(window) for window in windows}
        self.pairs = dict.fromkeys(windows, 0)
        self._rows: list[tuple[np.ndarray, np.ndarray]] = []
        if self.tables.fixed:
            self._join()

    def follow(self, rows: np.ndarray, near: np.ndarray) -> None:
        """Keep ``rows`` [sources], synapses of each source slot to targets in ``near``, up to date."""
        self._rows.append((rows, near))

    def load(self, image: np.ndarray, index: int) -> None:
        """Everything as the sites of sample ``index`` have it, in place; nothing to do for a fixed cloud."""
        if self.tables.tables and not self.tables.fixed:
            self.tables.load(image, index)
            self._join()
            for rows, near in self._rows:
                rows[:] = degrees(near, len(rows))

    def _join(self) -> None:
        for window, near in self.near.items():
            self.pairs[window] = self.tables.near(window, near)


def degrees(near: np.ndarray, sources: int) -> np.ndarray:
    """Synapses of each source slot in a rulebook, or in part of its targets: int64 [sources]."""
    return np.bincount(near[near != EMPTY], minlength=sources).astype(np.int64)


def near_of(program: Program, window: SiteWindow) -> np.ndarray:
    """The rulebook of a fixed cloud; an empty one where every sample has sites of its own."""
    items = program.sites or ()
    source, target = items[window.source].table, items[window.target].table
    if source is None or target is None:
        return np.full((items[window.target].slots, int(np.prod(window.kernel))), EMPTY, np.int32)
    return neighbours(source, target, window)


def by_source(near: np.ndarray, sources: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(start [sources + 1], target, tap) of a rulebook [targets, taps], source by source."""
    target, tap = np.nonzero(near != EMPTY)
    source = near[target, tap]
    order = np.argsort(source, kind="stable")
    start = np.concatenate([[0], np.cumsum(np.bincount(source, minlength=sources))]).astype(np.int64)
    return start, target[order].astype(np.int64), tap[order].astype(np.int64)


class Addressing:
    """How events find their targets, sample by sample: for the tick engine, event by event.

    The sites of a fixed cloud have a rulebook by source slot; those of a sample are looked up, tap by tap, in the hash
    table of the sites that a tile holds.
    """

    def __init__(self, program: Program, images: np.ndarray) -> None:
        self.program, self.images, self.fixed = program, images, fixed(program)
        self._samples: dict[int, SiteTables] = {}
        self._rules: dict[SiteWindow, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        self._held: dict[tuple[int, int, int, int], tuple[np.ndarray, np.ndarray]] = {}

    def tables(self, sample: int) -> SiteTables:
        """Tables of one sample, made when they are first asked for."""
        if sample not in self._samples:
            self._samples[sample] = SiteTables(self.program)
            self._samples[sample].load(self.images[sample], sample)
        return self._samples[sample]

    def add(
        self,
        sample: int,
        window: SiteWindow,
        events: np.ndarray,
        weight: np.ndarray,
        collapse: bool,
        shift: int,
        box: np.ndarray,
        acc: np.ndarray,
    ) -> int:
        """Do all synapses of events onto one tile; the SynOps done (operands as ``kernels.site_event`` takes them)."""
        if self.fixed:
            return kernels.rule_event(events, *self._rule(window), weight, collapse, shift, box, acc)
        tables = self.tables(sample)
        target = tables.tables[window.target]
        rows = (0, target.spec.slots) if collapse else (int(box[2]), int(box[3]))
        held = target.extent, *self._hash(sample, window.target, *rows)
        source = tables.tables[window.source].table
        operands = form_of(window), window.inverse, *held, weight, collapse, shift, box, acc
        return kernels.site_event(events, source, *operands)

    def _rule(self, window: SiteWindow) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if window not in self._rules:
            items = self.program.sites or ()
            self._rules[window] = by_source(near_of(self.program, window), items[window.source].slots)
        return self._rules[window]

    def _hash(self, sample: int, number: int, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Hash table of the sites that a tile holds."""
        key = (sample, number, first, last)
        if key not in self._held:
            t = self.tables(sample).tables[number]
            size = kernels.capacity(last - first)
            keys, slots = np.zeros(size, np.int64), np.zeros(size, np.int32)
            kernels.fill(t.table, first, min(last, int(t.count[0])), t.extent, keys, slots)
            self._held[key] = keys, slots
        return self._held[key]

    def silence(self, sample: int, number: int, codes: np.ndarray, box: np.ndarray) -> None:
        """No event comes from an empty slot: codes [C, rows, 1] of a tile's box."""
        if not self.fixed:
            count = int(self.tables(sample).tables[number].count[0])
            codes[:, max(count - int(box[2]), 0) :] = 0


def site_counts(program: Program, images: np.ndarray) -> np.ndarray:
    """Sites of the read-out's table for each of images [N, T or 1, C, H, W], at least 1; int64 [N]."""
    readout = next(p for p in program.populations if p.model == "readout")
    assert readout.sites is not None
    tables, found = SiteTables(program), np.ones(len(images), np.int64)
    for i, image in enumerate(images):
        tables.load(image, i)
        found[i] = max(int(tables.counts()[readout.sites]), 1)
    return found


def refuse_samples_sites(program: Program, what: str) -> None:
    """UsageError for what needs to know all synapses before the run, where every sample has sites of its own."""
    if runtime_sites(program):
        raise UsageError(
            f"Program '{program.name}' takes its sites from each sample, and {what} needs them before the run; compile"
            " for a fixed cloud (--cloud)"
        )


def logits_of(program: Program, read: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Logits float64 [N, classes] of what was read int64 [N, classes] of images [N, T or 1, C, H, W]."""
    readout = next((p for p in program.populations if p.model == "readout"), None)
    if readout is None or readout.sites is None:
        return read * (1.0 if readout is None else readout.readout_scale)
    assert readout.offset is not None
    return (read / site_counts(program, images)[:, None] + readout.offset) * readout.readout_scale
