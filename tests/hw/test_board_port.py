"""The virtual board as a serial port: the command line, pyserial, ports that vanish, and a recording."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from boards import START, random_codes, run_nmc, simulated, small_program, virtual_board
from nmc.cli import main
from nmc_compiler.errors import LinkError
from nmc_compiler.neurocore.build import build_image
from nmc_compiler.program import save_program
from nmc_hw.flash import flash
from nmc_hw.link.board import Board
from nmc_hw.link.opening import open_board
from nmc_hw.link.port import PortLink

pytest.importorskip("serial", reason="pyserial is missing: pip install -e '.[hw]' in the checkout")


@pytest.fixture(scope="module")
def artefact(tmp_path_factory):
    """Folder of a Program, and a file of two samples for it."""
    folder = tmp_path_factory.mktemp("artefact")
    program = small_program(12)
    save_program(program, folder)
    codes = random_codes(program, 3, 2 * program.timesteps)
    samples = {name: c.reshape(2, program.timesteps, *c.shape[1:]) for name, c in codes.items()}
    np.savez(folder / "in.npz", **samples)
    return folder


@pytest.fixture(scope="module")
def port():
    with virtual_board("--byte-level") as name:
        yield name


def test_flash_and_run_are_as_the_emulator_says(artefact, port, tmp_path) -> None:
    done = run_nmc("flash", artefact, "--port", port, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["port"], told["verified"], told["frames_sent_again"]) == (port, True, 0)
    options = ("--input", artefact / "in.npz", "--record", "all", "--json")
    emulated = run_nmc("emulate", artefact, *options, "--engine", "neurocore", "-o", tmp_path / "emulated")
    ran = run_nmc("run", artefact, "--port", port, *options, "-o", tmp_path / "ran")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == json.loads(emulated.stdout)
    assert (tmp_path / "ran/spikes.npz").read_bytes() == (tmp_path / "emulated/spikes.npz").read_bytes()


@pytest.mark.slow
def test_a_run_plays_again_without_a_board(artefact, port, tmp_path) -> None:
    run_nmc("flash", artefact, "--port", port)
    options = ("--input", artefact / "in.npz", "--json", "-o", tmp_path / "run")
    first = run_nmc("run", artefact, "--port", port, *options, "--record-link", tmp_path / "link.jsonl")
    again = run_nmc("run", artefact, "--port", f"replay:{tmp_path / 'link.jsonl'}", *options)
    assert first.returncode == again.returncode == 0, again.stderr
    assert first.stdout == again.stdout


@pytest.mark.slow
def test_a_board_that_holds_nothing_is_told(artefact) -> None:
    with virtual_board("--byte-level") as fresh:
        done = run_nmc("run", artefact, "--port", fresh, "--input", artefact / "in.npz")
    assert done.returncode == 1
    assert "does not hold this image: core 0, " in done.stderr and "write it with nmc flash first" in done.stderr


@pytest.mark.slow
def test_a_flash_that_was_killed_is_no_obstacle(artefact, port) -> None:
    command = [sys.executable, "-c", START, "flash", str(artefact), "--port", port]
    for delay in (1.0, 1.3, 1.5):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
    done = run_nmc("flash", artefact, "--port", port)
    assert done.returncode == 0, done.stderr
    assert "equal" in done.stdout


def test_half_a_flash_is_no_obstacle(port) -> None:
    """The host is gone in the middle of a pipeline of frames, and of one frame."""
    image = build_image(small_program(12)).image
    board = open_board(port)
    write, sent = board.link.write, []

    class Gone(Exception):
        pass

    def cut(data: bytes) -> None:
        sent.append(len(data))
        if sum(sent) > 3000:
            write(data[: len(data) // 2 + 1])
            raise Gone
        write(data)

    board.link.write = cut  # type: ignore[method-assign]
    with pytest.raises(Gone):
        flash(board, image)
    board.link.close()
    with open_board(port) as again:
        assert flash(again, image)["verified"]


def test_a_port_that_vanishes_is_told(artefact) -> None:
    with virtual_board("--byte-level") as name:
        board = open_board(name)
    start = time.monotonic()
    with pytest.raises(LinkError, match=rf"^{name}: "):
        flash(board, build_image(small_program(12)).image)
    assert time.monotonic() - start < 30
    done = run_nmc("flash", artefact, "--port", name)
    assert done.returncode == 1 and f"nmc: error: {name}: cannot be opened: " in done.stderr


@pytest.mark.slow
def test_a_name_for_the_port(tmp_path) -> None:
    link = tmp_path / "ttyBoard"
    with virtual_board("--byte-level", "--link", str(link)) as name:
        assert name == str(link) and link.is_symlink()
        open_board(name).link.close()
    assert not os.path.lexists(link)


def test_a_board_behind_a_socket() -> None:
    """pyserial's socket:// with the simulated board behind a server."""
    board, server = simulated(), socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        client, _ = server.accept()
        with client:
            while data := client.recv(4096):
                board.write(data)
                while answer := board.read(0.01):  # of the board: until it has answered
                    client.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with Board(PortLink(f"socket://127.0.0.1:{server.getsockname()[1]}", 115200)) as remote:
        words = np.random.default_rng(1).integers(0, 2**18, 1000, dtype=np.uint64)
        remote.write(0, 0, 0, words)
        assert remote.read(0, 0, 0, 1000).tolist() == words.tolist()
    thread.join(10)
    server.close()


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["flash", "ART", "--port", "/dev/none"], 1, "/dev/none: cannot be opened: "),
        (["flash", "ART", "--port", "/dev/null"], 1, "/dev/null: "),
        (["board"], 2, "a board of hardware needs no command; give --rtl to simulate one"),
        (["board", "--rtl", "--faults", "drop=2"], 2, "chances from 0 to 1"),
        (["board", "--rtl", "--mesh", "3"], 2, "--mesh 3: expected WIDTHxHEIGHT, 2x2 say"),
        (
            ["board", "--rtl", "--neurons", "100"],
            2,
            "neurocore: neurons = 100; expected a power of two from 64",
        ),
        (["run", "ART", "--port", "replay:/none"], 1, "/none: cannot be read: No such file or directory"),
    ],
)
def test_mistakes_are_told_at_once(artefact, capsys, arguments: list[str], status: int, text: str) -> None:
    assert main([str(artefact) if a == "ART" else a for a in arguments]) == status
    assert text in capsys.readouterr().err
