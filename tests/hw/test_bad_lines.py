"""Sessions over lines that lose, change and double bytes, and over cables that are pulled: right, or told as wrong."""

import ctypes
import json
import threading
import time
from collections import Counter

import pytest

from boards import SIZES, run_nmc, simulated, small_program, virtual_board
from nmc_compiler.errors import LinkError
from nmc_compiler.neurocore import Image
from nmc_compiler.neurocore.build import build_image
from nmc_compiler.program import save_program
from nmc_emulator.neurocore import Machine
from nmc_hw.flash import flash
from nmc_hw.link.board import Board
from nmc_hw.link.port import PortLink
from nmc_hw.link.simulated import Faults

BAD = Faults(0.01, 0.01, 0.01)  # one percent of all bytes each, in both directions
STEPS = 4
NO_SERIAL = "pyserial is missing: pip install -e '.[hw]' in the checkout"


@pytest.fixture(scope="module")
def image() -> Image:
    return build_image(small_program(12)).image


def session(image: Image, seed: int) -> tuple[str, int]:
    """Program and run over a bad line: what became of it, judged over a good one, and how many bytes were harmed."""
    link = simulated(faults=Faults(BAD.drop, BAD.flip, BAD.dup, seed))
    said = "right"
    try:
        board = Board(link)
        flash(board, image, verify=False)
        spikes = [board.step().tolist() for _ in range(STEPS)]
    except LinkError as error:
        assert str(error).startswith("simulated board: ")
        said = "told"
    harmed = link.harmed
    link.library.nc_faults(link.device, 0.0, 0.0, 0.0, 1)
    judge = Board(link)
    if said == "right":
        machine = Machine(image)
        assert spikes == [machine.step().tolist() for _ in range(STEPS)]
        for memory in machine.memories[:15]:
            assert judge.read(0, memory.id).tolist() == machine.read(0, memory.id).tolist(), memory.name
    else:  # the board is no worse for it
        flash(judge, image)
    link.close()
    return said, harmed


def test_faults_on_the_line_never_make_a_wrong_memory(image) -> None:
    assert session(image, 1)[0] == "right"


@pytest.mark.slow
def test_a_hundred_sessions_on_a_bad_line(image) -> None:
    ended, harmed, longest = Counter[str](), 0, 0.0
    for seed in range(100, 200):
        began = time.monotonic()
        said, bytes_ = session(image, seed)
        ended[said], harmed, longest = ended[said] + 1, harmed + bytes_, max(longest, time.monotonic() - began)
    print(f"{dict(ended)}, {harmed} bytes harmed, the longest took {longest:.1f} s")
    assert ended["right"] >= 95


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_sessions_over_a_bad_serial_port(image, tmp_path, seed) -> None:
    """`nmc flash` reads everything back; a refusal to go on names the port."""
    pytest.importorskip("serial", reason=NO_SERIAL)
    save_program(small_program(12), tmp_path)
    with virtual_board("--byte-level", "--faults", str(Faults(BAD.drop, BAD.flip, BAD.dup, seed))) as name:
        done = run_nmc("flash", tmp_path, "--port", name, "--json", seconds=900)
    print(f"seed {seed}: status {done.returncode}: {done.stdout or done.stderr}")
    if done.returncode:
        assert done.returncode == 1 and f"nmc: error: {name}: " in done.stderr
    else:
        told = json.loads(done.stdout)
        assert told["verified"] and told["frames_sent_again"] > 20


class Cable:
    """Between this host and a board: when it is pulled the port vanishes, and the board keeps what it has."""

    def __init__(self) -> None:
        self.board = simulated()

    def plug(self) -> str:
        name = ctypes.create_string_buffer(256)
        self._server = self.board.library.nc_serve_open(self.board.device, name, len(name), float(self.board.clock))
        self._pulled = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return name.value.decode()

    def _serve(self) -> None:
        while not self._pulled.is_set():
            self.board.library.nc_serve(self._server, 5)
        self.board.library.nc_serve_close(self._server)

    def pull(self) -> None:
        self._pulled.set()
        self._thread.join()


@pytest.mark.parametrize("part", [0.02, 0.7])
def test_a_cable_pulled_while_flashing(image, part) -> None:
    pytest.importorskip("serial", reason=NO_SERIAL)
    cable, done = Cable(), 0
    name = cable.plug()
    items = sum(image.memory(mem).size for mem in range(15))

    def progress(count: int) -> None:
        nonlocal done
        done += count
        if done > part * items and not cable._pulled.is_set():
            cable.pull()

    began = time.monotonic()
    with pytest.raises(LinkError, match=rf"^{name}: "), Board(PortLink(name, 115200)) as board:
        flash(board, image, progress=progress)
    assert time.monotonic() - began < 40
    assert part * items < done < items
    with Board(PortLink(cable.plug(), 115200)) as again:
        assert again.sizes == SIZES and flash(again, image)["verified"]
    cable.pull()
    cable.board.close()
