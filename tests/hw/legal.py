"""Random images within the rules that the hardware relies on: a row with a rule shares no word, and has one axon."""

import dataclasses

import numpy as np

from nmc_compiler.neurocore import Image
from nmc_compiler.neurocore.items import DELAY, DENSE, DESCRIPTORS, SPARSE, pack, unpack


def legal(image: Image) -> tuple[Image, np.ndarray]:
    """The image with rows moved and events turned away where cores learn; for each axon the one to inject for it.

    Rows with a rule lie in the upper half of the words, all over it where there is room, all others in the lower half.
    """
    memories = {mem: items.copy() for mem, items in image.memories.items()}
    good = np.ones(image.sizes.axons, bool)
    for core in range(image.sizes.cores):
        if memories[14][core, 1] & 1:
            _move_rows(memories[1][core], image.sizes.words)
            good &= ~_shares_plastic(memories[1][core])
    places = np.flatnonzero(good)
    instead = np.where(good, np.arange(good.size), places[np.arange(good.size) % places.size])
    delays = memories[1] & np.uint64(7) == DELAY
    layout = DESCRIPTORS[DELAY]
    turned = unpack(layout, memories[1])
    turned["axon"] = instead[turned["axon"] % good.size]
    memories[1] = np.where(delays, pack(layout, **turned), memories[1])
    routes = memories[3].astype(np.int64)
    memories[3] = (routes & ~0x7FF | instead[routes % 2048 % good.size]).astype(np.uint64)
    if 11 in memories:
        memories[11] = memories[11] * good
    if 12 in memories:
        words = (good.reshape(-1, 32) << np.arange(32, dtype=np.uint64)).sum(axis=1, dtype=np.uint64)
        memories[12] = memories[12] & np.tile(words, 16)
    return dataclasses.replace(image, memories=memories), instead


def _fields(row: int) -> tuple[int, int, int, int]:
    return row & 7, row >> 7 & 7, (row >> 10 & 1023) + 1, row >> 20


def _move_rows(rows: np.ndarray, words: int) -> None:
    free, apart = words // 2, words // 2 // rows.size
    for i, row in enumerate(map(int, rows)):
        fmt, rule, length, base = _fields(row)
        if fmt == 3:  # at most 125 words
            rows[i] = row & ~(1023 << 26) | ((row >> 26) % max((words // 2 - 64) // 64 - 1, 1)) << 26
        if fmt not in (SPARSE, DENSE):
            continue
        size = length if fmt == SPARSE else 1 + (length + 1) // 2
        if rule and free + size <= words:
            rows[i] = row & ~(0xFFFF << 20) | free << 20
            free += max(-(-size // 4) * 4, apart if apart >= 64 else 0)
        else:
            rows[i] = row & ~(7 << 7 | 0xFFFF << 20) | base % (words // 2 - size) << 20


def _shares_plastic(rows: np.ndarray) -> np.ndarray:
    """Axons whose chain is the rest of another's and has a row with a rule."""
    shares = np.zeros(rows.size, bool)
    plastic_behind = False
    for i in range(rows.size - 1, -1, -1):
        fmt, rule, _, _ = _fields(int(rows[i]))
        behind = plastic_behind and bool(rows[i] & np.uint64(8))
        plastic_behind = behind or (fmt in (SPARSE, DENSE) and rule > 0)
        shares[i] = plastic_behind and i > 0 and bool(rows[i - 1] & np.uint64(8))
    return shares
