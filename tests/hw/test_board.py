"""The driver on the RTL in this process: memories, steps, whole images, whole runs, lines with faults."""

import numpy as np
import pytest

from boards import SIZES, random_codes, simulated, small_program
from nmc_compiler.errors import LinkError, UsageError
from nmc_compiler.neurocore import Image, Sizes
from nmc_compiler.neurocore.build import build_image
from nmc_emulator import Emulator
from nmc_emulator.neurocore import Machine
from nmc_emulator.neurocore.machines import machine_of
from nmc_hw.flash import compare, flash, holds, pieces, steps_of
from nmc_hw.link.board import Board

HARDWARE_ONLY = (4, 5, 12)  # counters of clocks


@pytest.fixture
def board() -> Board:
    return Board(simulated())


def image_of(seed: int) -> Image:
    return build_image(small_program(seed)).image


def steps_agree(board: Board, machine: Machine, seed: int, steps: int) -> None:
    """The same random events into both; spikes and, in the end, all memories are equal."""
    rng = np.random.default_rng(seed)
    for step in range(steps):
        axons = np.flatnonzero(rng.random(SIZES.axons) < 0.02)
        slot = int(rng.integers(step, step + 3)) % 16
        board.inject(0, axons, slot)
        machine.inject(0, axons, slot)
        assert board.step().tolist() == machine.step().tolist(), f"step {step}"
    for memory in machine.memories:
        ours, theirs = board.read(0, memory.id), machine.read(0, memory.id)
        if memory.name == "counters":
            ours[list(HARDWARE_ONLY)] = theirs[list(HARDWARE_ONLY)] = 0
        assert ours.tolist() == theirs.tolist(), memory.name


def test_what_the_board_says_of_itself(board: Board) -> None:
    identity = board.identity
    assert (identity.sizes, identity.credit, identity.log, identity.rate) == (SIZES, 2048, 1024, 0)
    assert identity.build != 0


@pytest.mark.parametrize("seed", [12, pytest.param(48, marks=pytest.mark.slow)])
def test_an_image_runs_as_in_the_emulator(board: Board, seed: int) -> None:
    image = image_of(seed)
    told = []
    done = flash(board, image, progress=told.append)
    assert done["verified"] and done["frames_sent_again"] == 0
    assert sum(told) == steps_of(image, verify=True)
    holds(board, image)
    steps_agree(board, Machine(image), seed, 25)


@pytest.mark.parametrize("seed", [48, pytest.param(12, marks=pytest.mark.slow)])
def test_a_program_runs_as_in_the_emulator(board: Board, seed: int) -> None:
    program = small_program(seed)
    codes = random_codes(program, seed, 12)
    wanted = Emulator(program, record="all", engine="neurocore").run_events(codes, 12)
    flash(board, build_image(program).image, verify=False)
    with machine_of(lambda image: board):
        got = Emulator(program, record="all", engine="neurocore").run_events(codes, 12)
    assert got.events.keys() == wanted.events.keys()
    for name, events in wanted.events.items():
        assert got.events[name].step.tolist() == events.step.tolist(), name
        assert got.events[name].soma.tolist() == events.soma.tolist(), name


def test_more_spikes_than_the_log_holds(board: Board) -> None:
    """Every neuron fires in every step: the log of 1,024 is full in the middle of the ninth."""
    n = SIZES.neurons
    board.fill(0, 3, 0, n, 1 << 15)  # logged, sent nowhere
    board.write(0, 4, 0, np.array([4096 | 4096 << 13, 0, 0, 0]))  # fires where v > 0
    board.fill(0, 2, 0, n, 64)  # bias
    found = board.run_until(20)
    assert found.tolist() == [[step, 0, neuron] for step in range(20) for neuron in range(n)]
    assert int(board.counters()[0, 2]) == 20 * n


@pytest.mark.slow
def test_a_snapshot_brings_everything_back(board: Board) -> None:
    image = image_of(12)
    flash(board, image, verify=False)
    machine = Machine(image)
    steps_agree(board, machine, 1, 5)
    kept = board.snapshot()
    steps_agree(board, machine, 2, 5)
    board.restore(kept)
    assert board.step_count == 5
    assert all((board.snapshot()[mem] == items).all() for mem, items in kept.items())


def test_pieces_of_an_image_cover_it_once() -> None:
    image = image_of(48)
    seen = {mem: np.zeros(items.shape, int) for mem, items in ((m, image.memory(m)) for m in range(15))}
    for piece in pieces(image):
        seen[piece.mem][piece.core, piece.first : piece.first + len(piece.items)] += 1
        if piece.same:
            assert len(set(piece.items.tolist())) == 1
    assert all((count == 1).all() for mem, count in seen.items() if mem != 14)
    assert seen[14][0].tolist() == [1, 1, 1] + [0] * 13
    assert sum(len(p.items) for p in pieces(image)) == steps_of(image, verify=False)


def test_a_board_of_other_sizes_is_refused(board: Board) -> None:
    other = Image(Sizes(64, 2048, 4096, 16, 16, 1, 1), {})
    with pytest.raises(UsageError, match=r"of other sizes than the image: neurons 128 there, 64 here; compile"):
        flash(board, other)


def test_a_wrong_item_is_found(board: Board) -> None:
    image = image_of(12)
    flash(board, image)
    wrong = int(image.memory(0)[0, 7]) ^ 5
    board.write(0, 0, 7, np.array([wrong]))
    with pytest.raises(LinkError, match=r"1 items differ from the image after writing, the first: core 0, synapse wo"):
        compare(board, image)
    with pytest.raises(LinkError, match=r"does not hold this image: core 0, synapse words, items 0 to 63 differ; wr"):
        holds(board, image)
