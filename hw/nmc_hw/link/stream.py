"""What every link is: two streams of bytes."""

from __future__ import annotations

import os
from typing import Protocol


class Link(Protocol):
    """Bytes to a board and from it. A link that is gone raises LinkError from any method but `close`."""

    @property
    def name(self) -> str:
        """What to call it in messages."""
        ...

    @property
    def nonce(self) -> int:
        """A number below 2^32 that hardly any other session has."""
        ...

    def write(self, data: bytes) -> None:
        """Send; returns when the bytes are handed on."""
        ...

    def read(self, seconds: float) -> bytes:
        """What has come; waits up to ``seconds`` for the first byte. Nothing: none has come."""
        ...

    def set_baud(self, baud: int) -> None:
        """Change the host's rate, where the link has one."""
        ...

    def discard(self) -> None:
        """Throw away what has come and was not read."""
        ...

    def close(self) -> None:
        """Give it back. May be called again."""
        ...


def fresh_nonce() -> int:
    """A nonce that nobody can guess."""
    return int.from_bytes(os.urandom(4), "little")
