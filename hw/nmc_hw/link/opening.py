"""Which link a name stands for."""

from __future__ import annotations

import os

from nmc_hw.link.board import Board
from nmc_hw.link.port import PortLink
from nmc_hw.link.replay import Recorder, Replay
from nmc_hw.link.simulated import FIRST_BAUD
from nmc_hw.link.stream import Link

REPLAY = "replay:"


def open_link(port: str, baud: int = FIRST_BAUD, record: str | os.PathLike[str] | None = None) -> Link:
    """A serial port, a URL that pyserial knows, or ``replay:FILE``; with ``record`` all that passes is written down."""
    link: Link = Replay(port.removeprefix(REPLAY)) if port.startswith(REPLAY) else PortLink(port, baud)
    return link if record is None else Recorder(link, record)


def open_board(
    port: str, baud: int | None = None, first: int = FIRST_BAUD, record: str | os.PathLike[str] | None = None
) -> Board:
    """The board at a port. ``first``: its rate after reset, at which it is greeted; ``baud``: the rate from then on.

    Raises LinkError where no board answers.
    """
    link = open_link(port, first, record)
    try:
        board = Board(link)
        if baud is not None and baud != first:
            board.set_baud(baud)
    except BaseException:
        link.close()
        raise
    return board
