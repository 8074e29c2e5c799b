"""Through the UART, bit by bit: how fast a board is programmed, and rates that change."""

from dataclasses import astuple

import numpy as np
import pytest

from boards import SIZES, simulated, virtual_board
from nmc_compiler.errors import LinkError, UsageError
from nmc_hw.link.board import Board
from nmc_hw.link.opening import open_board
from nmc_hw.link.simulated import Faults

pytestmark = pytest.mark.slow  # another build of the board, and ten million clocks

CLOCK, BAUD = 12_000_000, 3_000_000
SYNAPSES = 65_536


def test_64k_synapses_at_the_rate_of_the_line() -> None:
    link = simulated(bits=True, clock=CLOCK)
    board = Board(link)
    board.set_baud(BAUD)
    resent = board.session.losses.resent  # the host was quicker than the change
    words = np.random.default_rng(7).integers(0, 2**18, SYNAPSES, dtype=np.uint64).reshape(-1, SIZES.words)
    for block in words:  # the core of the test's sizes holds a part at a time
        begin = link.clocks
        board.write(0, 0, 0, block)
        seconds = (link.clocks - begin) / CLOCK
        begin = link.clocks
        assert board.read(0, 0).tolist() == block.tolist()
        back = (link.clocks - begin) / CLOCK
        whole = SIZES.words * 3 * 10 / BAUD
        print(f"{SIZES.words} synapses: {seconds:.4f} s, {whole / seconds:.1%}; back {back:.4f} s, {whole / back:.1%}")
        assert whole / seconds >= 0.9 and seconds * SYNAPSES / SIZES.words < 1
    assert board.session.losses.resent == resent


def test_a_rate_that_the_board_cannot_do() -> None:
    board = Board(simulated(bits=True, clock=CLOCK))
    with pytest.raises(UsageError, match=r"^--baud 4000000: the board's clock of 12 MHz gives up to 3000000 baud, to"):
        board.set_baud(4_000_000)
    board.set_baud(1_000_000)
    assert board.read(0, 14).tolist() == [0] * 16


def test_a_rate_that_the_line_cannot_do() -> None:
    """What the host sends at 1 Mbaud does not arrive as such: the board goes back by itself."""
    link = simulated(bits=True, clock=CLOCK)
    board = Board(link)
    change = link.set_baud
    link.set_baud = lambda baud: change(500_000 if baud == 1_000_000 else baud)  # type: ignore[method-assign]
    with pytest.raises(LinkError, match=r"no answer at 1000000 baud; the board goes back to 115196 by itself: choose"):
        board.set_baud(1_000_000)
    assert Board(link).identity == board.identity


def test_faults_at_the_rate_of_the_line() -> None:
    link = simulated(bits=True, clock=CLOCK)
    board = Board(link)
    board.set_baud(BAUD)
    link.library.nc_faults(link.device, *astuple(Faults(0.002, 0.002, 0.002, seed=4)))
    words = np.random.default_rng(1).integers(0, 2**18, 1000, dtype=np.uint64)
    board.write(0, 0, 0, words)
    assert board.read(0, 0, 0, 1000).tolist() == words.tolist()
    assert board.session.losses.resent > 0


def test_a_port_at_another_rate() -> None:
    """The pseudo terminal has the host's rate, so a wrong one is garbage as on a real line."""
    pytest.importorskip("serial", reason="pyserial is missing: pip install -e '.[hw]' in the checkout")
    with virtual_board("--clock", str(CLOCK)) as port:
        words = np.random.default_rng(1).integers(0, 2**18, 2000, dtype=np.uint64)
        with open_board(port, baud=BAUD) as board:
            board.write(0, 0, 0, words)
            assert board.read(0, 0, 0, 2000).tolist() == words.tolist()
        with open_board(port) as board:  # a host that does not know: the board is at 3 Mbaud still
            assert board.read(0, 0, 0, 100).tolist() == words[:100].tolist()
        with pytest.raises(LinkError, match=r"no answer to HELLO"):
            open_board(port, first=9600)
