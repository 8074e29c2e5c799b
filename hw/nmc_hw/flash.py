"""An image onto a board: written over the link, read back, compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from nmc_compiler.errors import LinkError, UsageError
from nmc_compiler.neurocore import Image
from nmc_compiler.neurocore.sizes import COUNTERS, REGISTER_STEP, REGISTERS, RULE_ITEMS, TYPES
from nmc_hw.link.board import Board

RUN_ITEMS = 32  # equal items in a row from which on one FILL is shorter than writing them
# Bits that mean something, by memory and item modulo the length: the rest reads 0 (docs/neurocore.md).
MEANT = {TYPES: ((1 << 33) - 1, (1 << 36) - 1, (1 << 26) - 1, 0), RULE_ITEMS: ((1 << 25) - 1, (1 << 16) - 1)}
SAMPLES, SAMPLE_ITEMS = 4, 64  # of each memory, for `holds`


@dataclass(frozen=True)
class Piece:
    """Items of one memory of one core: written one by one, or all the same."""

    core: int
    mem: int
    first: int
    items: np.ndarray
    same: bool


def pieces(image: Image) -> Iterator[Piece]:
    """Everything that a board must be told for an image, zero memories included; counters are not of it."""
    for mem in range(COUNTERS):
        for core, items in enumerate(image.memory(mem)):
            if mem == REGISTERS:
                items = items[:REGISTER_STEP]
            for first, last, same in _runs(items):
                yield Piece(core, mem, first, items[first:last], same)


def _runs(items: np.ndarray) -> Iterator[tuple[int, int, bool]]:
    """Cut where long runs of equal items begin and end."""
    edges = np.concatenate([[0], np.flatnonzero(np.diff(items)) + 1, [len(items)]])
    begin = 0
    for start, end in zip(edges[:-1], edges[1:], strict=True):
        if end - start >= RUN_ITEMS:
            if begin < start:
                yield begin, int(start), False
            yield int(start), int(end), True
            begin = int(end)
    if begin < len(items):
        yield begin, len(items), False


def flash(
    board: Board, image: Image, verify: bool = True, progress: Callable[[int], object] = lambda done: None
) -> dict[str, Any]:
    """Bring an image onto a board and compare what is then there; ``progress`` is told items.

    Gives what it took. Raises UsageError where the board has other sizes, LinkError where the line or the board fails.
    """
    check_sizes(board, image)
    began = time.monotonic()
    board.restart()
    items = 0
    for piece in pieces(image):
        if piece.same:
            board.fill(piece.core, piece.mem, piece.first, len(piece.items), int(piece.items[0]))
            progress(len(piece.items))
        else:
            board.write(piece.core, piece.mem, piece.first, piece.items, progress)
        items += len(piece.items)
    for core in range(image.sizes.cores):
        board.write(core, COUNTERS, 0, np.zeros(1))
    written = time.monotonic()
    if verify:
        compare(board, image, progress)
    losses = board.session.losses
    return {
        "port": board.link.name,
        "items": items,
        "seconds": round(written - began, 3),
        "verified": verify,
        "verify_seconds": round(time.monotonic() - written, 3),
        "frames_sent_again": losses.resent,
        "replies_damaged": board.session.damaged,
    }


def steps_of(image: Image, verify: bool) -> int:
    """What ``progress`` of `flash` adds up to."""
    items = sum(image.memory(mem).size for mem in range(REGISTERS)) + REGISTER_STEP * image.sizes.cores
    return items * (2 if verify else 1)


def check_sizes(board: Board, image: Image) -> None:
    """UsageError where the image is of other sizes than the board."""
    there, wanted = board.sizes.as_dict(), image.sizes.as_dict()
    if there != wanted:
        differ = ", ".join(
            f"{name} {there[name]} there, {wanted[name]} here" for name in wanted if there[name] != wanted[name]
        )
        raise UsageError(
            f"{board.link.name}: the board is of other sizes than the image: {differ}; compile for a target of the "
            "board's sizes, or load another bitstream"
        )


def compare(board: Board, image: Image, progress: Callable[[int], object] = lambda done: None) -> None:
    """Read everything back. LinkError with the first difference and their number."""
    wrong, first = 0, ""
    for mem in range(COUNTERS):
        for core, items in enumerate(image.memory(mem)):
            count = REGISTER_STEP if mem == REGISTERS else len(items)
            got, wanted = board.read(core, mem, 0, count, progress), meant(mem, items[:count])
            bad = np.flatnonzero(got != wanted)
            if len(bad) and not wrong:
                at = int(bad[0])
                where = f"core {core}, {board.memories[mem].name}, item {at}"
                first = f"{where} is {int(got[at]):#x}, expected {int(wanted[at]):#x}"
            wrong += len(bad)
    if wrong:
        raise LinkError(
            f"{board.link.name}: {wrong} items differ from the image after writing, the first: {first}; "
            "flash again, and if it stays, the board or its bitstream is faulty"
        )


def meant(mem: int, items: np.ndarray, first: int = 0) -> np.ndarray:
    """Items as the board keeps them: without bits that mean nothing."""
    masks = MEANT.get(mem)
    if masks is None:
        return items
    return items & np.array(masks, np.uint64)[(first + np.arange(len(items))) % len(masks)]


def holds(board: Board, image: Image) -> None:
    """LinkError where samples of the board's tables show that it does not hold this image.

    Weights that learning may have changed are not looked at.
    """
    check_sizes(board, image)
    learns = bool((image.memory(REGISTERS)[:, 1] & np.uint64(1)).any())
    for mem in range(1 if learns else 0, RULE_ITEMS + 1):
        for core, items in enumerate(image.memory(mem)):
            for first in np.unique(np.linspace(0, max(0, len(items) - SAMPLE_ITEMS), SAMPLES).astype(int)):
                piece = items[first : first + SAMPLE_ITEMS]
                if (board.read(core, mem, int(first), len(piece)) != meant(mem, piece, int(first))).any():
                    what = f"core {core}, {board.memories[mem].name}, items {first} to {first + len(piece) - 1}"
                    raise LinkError(
                        f"{board.link.name}: the board does not hold this image: {what} differ; "
                        "write it with nmc flash first"
                    )
