"""Rows of one source soma: which synapses go into which descriptors, and where their words lie."""

from __future__ import annotations

import numpy as np

from nmc_compiler.errors import CapacityError, LoweringError
from nmc_compiler.neurocore import items
from nmc_compiler.neurocore.conv import BLOCK

LONGEST = 1024  # synapses of a row
LAST_SHIFT = 7
LARGEST = 127  # weight
REPEATS = 4  # words per target, at most, before low and high bits go into rows of their own
WORDS_PER_DESCRIPTOR = 16  # price of a descriptor in words: a core has 16 to 32 words for each
GAP = 8  # targets apart from each other that far may be better off in rows of their own


class Words:
    """Synapse words of one core: kernels at multiples of 64, rows in what is left. Equal rows are stored once."""

    def __init__(self, core: int, limit: int) -> None:
        self.core, self.limit = core, limit
        self.items = np.zeros(limit, np.uint64)
        self.top = 0
        self.gaps: list[tuple[int, int]] = []  # (first, words)
        self.known: dict[bytes, int] = {}
        self.missing = 0  # words that did not fit

    @property
    def used(self) -> int:
        return self.top - sum(size for _, size in self.gaps) + self.missing

    def place(self, words: np.ndarray, align: int = 1, shared: bool = True) -> int:
        """First word of a row; 0 where the memory is full, which `check` tells."""
        key = words.tobytes() if shared else b""
        if key and key in self.known and self.known[key] % align == 0:
            return self.known[key]
        first = self._gap(len(words), align)
        if first < 0:
            first = -(-self.top // align) * align
            if first + len(words) > self.limit:
                self.missing += len(words)
                return 0
            if first > self.top:
                self.gaps.append((self.top, first - self.top))
            self.top = first + len(words)
        self.items[first : first + len(words)] = words
        if key:
            self.known[key] = first
        return first

    def _gap(self, size: int, align: int) -> int:
        for number, (start, length) in enumerate(self.gaps):
            first = -(-start // align) * align
            if first + size <= start + length:
                rest = [(start, first - start), (first + size, start + length - first - size)]
                self.gaps[number : number + 1] = [gap for gap in rest if gap[1] > 0]
                return first
        return -1

    def kernel(self, words: np.ndarray) -> int:
        """Block number of a kernel."""
        return self.place(words, BLOCK) // BLOCK

    def check(self) -> None:
        """CapacityError where not everything fitted."""
        if self.missing:
            raise CapacityError(
                f"core {self.core}: synapse words {self.used}/{self.limit}. Use smaller or sparser layers, more cores, "
                "or a target with more words per core"
            )


def encoded(target: np.ndarray, weight: np.ndarray, shift: int, words: Words, where: str) -> list[int]:
    """Descriptors of ``weight << shift`` from one source with one delay: the cheapest rows.

    ``target``: ascending and unique. Weights wider than 8 bits are halved where they all are even, named more than
    once in one row where that is short, else put into a row of low and one of high bits. LoweringError, naming
    ``where``, for weights that no rows hold.
    """
    given = int(weight.min()), int(weight.max()), shift
    while shift > LAST_SHIFT:
        weight, shift = weight * 2, shift - 1
    while shift < LAST_SHIFT and not _fits(weight) and not (weight & 1).any():
        weight, shift = weight >> 1, shift + 1
    if _fits(weight):
        return _rows(target, weight, shift, words)
    times = -(-np.abs(weight) // LARGEST)
    if times.sum() <= min(REPEATS * len(target), LONGEST):
        return [_repeated(target, weight, times, shift, words)]
    for bits in range(1, min(7, LAST_SHIFT - shift) + 1):
        if _fits(weight >> bits):
            found = []
            for part, by in ((weight & ((1 << bits) - 1), shift), (weight >> bits, shift + bits)):
                kept = part != 0
                found += _rows(target[kept], part[kept], by, words) if kept.any() else []
            return found
    raise LoweringError(
        f"'{where}': weights {given[0]} to {given[1]} shifted by {given[2]} do not fit rows of 8-bit weights "
        f"shifted by 0 to {LAST_SHIFT}; use smaller weights or another scale"
    )


def _fits(weight: np.ndarray) -> bool:
    return int(weight.min()) >= -128 and int(weight.max()) <= LARGEST


def _repeated(target: np.ndarray, weight: np.ndarray, times: np.ndarray, shift: int, words: Words) -> int:
    """A SPARSE row that names a target so many times, with parts of its weight."""
    index = np.repeat(np.arange(len(target)), times)
    turn = np.arange(len(index)) - np.repeat(np.cumsum(times) - times, times)
    rest = np.abs(weight)[index] - turn * LARGEST
    parts = np.sign(weight)[index] * np.minimum(rest, LARGEST)
    base = words.place(items.sparse_words(target[index], parts))
    return int(items.descriptor(items.SPARSE, shift=shift, len=len(index), base=base))


def _rows(target: np.ndarray, weight: np.ndarray, shift: int, words: Words) -> list[int]:
    """Descriptors for weights of 8 bits: one row, or one for every run of targets."""
    runs = np.split(np.arange(len(target)), np.flatnonzero(np.diff(target) > GAP) + 1)
    apart = sum(_price(target[run]) for run in runs)
    groups = runs if len(runs) > 1 and apart < _price(target) else [np.arange(len(target))]
    found: list[int] = []
    for group in groups:
        for start in range(0, len(group), LONGEST):
            part = group[start : start + LONGEST]
            found.append(_row(target[part], weight[part], shift, words))
    return found


def _price(target: np.ndarray) -> int:
    if len(target) == 1:
        return WORDS_PER_DESCRIPTOR
    return WORDS_PER_DESCRIPTOR * -(-len(target) // LONGEST) + min(len(target), _dense_words(target))


def _dense_words(target: np.ndarray) -> int:
    span = int(target[-1] - target[0]) + 1
    return 1 + -(-span // 2)


def _row(target: np.ndarray, weight: np.ndarray, shift: int, words: Words) -> int:
    if len(target) == 1:
        return int(items.descriptor(items.ONE, shift=shift, weight=weight[0], target=target[0]))
    if _dense_words(target) < len(target):
        return dense_row(target, weight, shift, words)
    base = words.place(items.sparse_words(target, weight))
    return int(items.descriptor(items.SPARSE, shift=shift, len=len(target), base=base))


def dense_row(target: np.ndarray, weight: np.ndarray, shift: int, words: Words, rule: int = 0) -> int:
    """Descriptor of a DENSE row over all targets from the first to the last."""
    full = np.zeros(int(target[-1] - target[0]) + 1, np.int64)
    full[target - target[0]] = weight
    row = items.dense_words(int(target[0]), full)
    base = words.place(row, align=4 if rule else 1, shared=not rule)
    return int(items.descriptor(items.DENSE, shift=shift, rule=rule, len=len(full), base=base))


def plastic_row(
    target: np.ndarray, weight: np.ndarray, shift: int, rule: int, words: Words
) -> tuple[int, np.ndarray, np.ndarray]:
    """Descriptor of plastic synapses, and the word and low bit of each weight.

    DENSE where no target is skipped, else SPARSE; never shared.
    """
    place = np.arange(len(target))
    if len(target) > 1 and (np.diff(target) == 1).all():
        row = dense_row(target, weight, shift, words, rule)
        return row, _base(row) + 1 + place // 2, 8 * (place % 2)
    base = words.place(items.sparse_words(target, weight), align=4, shared=False)
    row = int(items.descriptor(items.SPARSE, shift=shift, rule=rule, len=len(target), base=base))
    return row, base + place, 0 * place


def _base(row: int) -> int:
    return int(items.unpack(items.DESCRIPTORS[items.DENSE], np.array(row, np.uint64))["base"])
