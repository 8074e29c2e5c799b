"""Finished parts of a run on their way to its checkpoint: written when they are many, or old."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

RECORD_BYTES = 1 << 26  # a checkpoint's record is written when it holds as much, or is as old as
RECORD_SECONDS = 2.0

Item = TypeVar("Item")


class Waiting(Generic[Item]):
    """Parts that ``write`` has not got yet."""

    def __init__(self, write: Callable[[list[Item]], object]) -> None:
        self.write = write
        self.items: list[Item] = []
        self.bytes, self.since = 0, time.monotonic()

    def add(self, item: Item, size: int) -> None:
        """A part just computed, of ``size`` bytes."""
        self.items.append(item)
        self.bytes += size
        if self.bytes >= RECORD_BYTES or time.monotonic() - self.since >= RECORD_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if self.items:
            self.write(self.items)
        self.items, self.bytes, self.since = [], 0, time.monotonic()
