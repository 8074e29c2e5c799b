"""Runs in chunks and their checkpoints: equal to runs in one go, wherever they were cut off."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import map_program, random_images, random_program

from nmc_compiler.errors import ArtefactError, UsageError
from nmc_compiler.program.model import Program
from nmc_emulator import Emulator, run
from nmc_emulator.checkpoint import HEAD, MAGIC, Checkpoint
from nmc_emulator.chunked import ChunkedRun, Piece, flatten, joined, unflatten

N = 6
OPTIONS = st.fixed_dictionaries(
    {
        "pipelined": st.booleans(),
        "input_time": st.booleans(),
        "graded": st.booleans(),
        "lags": st.booleans(),
        "ticks": st.sampled_from([1, 2]),
    }
)


def begin(program: Program, images: np.ndarray, batch: int = 2) -> ChunkedRun:
    return ChunkedRun(Emulator(program, record="all", engine="layers", batch=batch), images)


def open_checkpoint(path: Path, going: ChunkedRun, **about: str) -> Checkpoint:
    fields = [(column.dtype, column.shape) for column in going.columns()]
    return Checkpoint(path, {"program": "x"} | about, going.samples, fields, going.state_size)


def take_up(path: Path, going: ChunkedRun) -> tuple[Checkpoint, list[Piece]]:
    """What the checkpoint holds; the run goes on behind it."""
    checkpoint = open_checkpoint(path, going)
    pieces = [unflatten(first, arrays, going.columns()) for first, arrays in checkpoint.records()]
    if checkpoint.state is not None:
        going.resume(checkpoint.done, checkpoint.state)
    return checkpoint, pieces


def same(program: Program, images: np.ndarray, going: ChunkedRun, pieces: list[Piece]) -> None:
    """Fail unless a finished run in pieces equals a run in one go."""
    whole, want = joined(pieces), run(program, images[: going.done], record="all")
    assert going.counters().differences(want.counters) == []
    assert np.array_equal(whole.logits_int, want.logits_int)
    for i, codes in whole.codes.items():
        assert np.array_equal(codes, want.codes[program.populations[i].name])


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), OPTIONS, st.integers(1, 4), st.data())
def test_a_run_taken_up_anywhere_equals_one_in_one_go(tmp_path_factory, seed, options, batch, data):
    """Each process computes a little, is killed in the middle of a write, and the next goes on."""
    program = map_program(random_program(seed, **options), seed, cores=5, parts=3)
    images = random_images(program, seed, N)
    path = tmp_path_factory.mktemp("runs") / "run.checkpoint"
    for _ in range(50):
        going = begin(program, images, batch)
        checkpoint, pieces = take_up(path, going)
        if going.done == N:
            break
        waiting = []
        for _ in range(data.draw(st.integers(1, 2))):
            if going.done < N:
                waiting.append(going.step())
        before = path.stat().st_size
        checkpoint.add(flatten(joined(waiting)), going.state())
        checkpoint.close()
        if data.draw(st.booleans()):
            os.truncate(path, data.draw(st.integers(before, path.stat().st_size)))
    same(program, images, going, pieces)


def test_a_run_that_stops_early_equals_a_shorter_one():
    program = map_program(random_program(9, pipelined=True), 9, cores=5, parts=3)
    images = random_images(program, 9, N)
    going = begin(program, images)
    pieces = [going.step(), going.step()]
    assert going.done == 4
    same(program, images, going, pieces)


def test_only_the_layer_engine_stops_between_samples():
    program = random_program(1)
    with pytest.raises(UsageError) as error:
        ChunkedRun(Emulator(program, engine="ticks"), random_images(program, 1, 1))
    assert str(error.value).startswith("engine 'ticks' cannot stop between samples")


# --- the file ---------------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, ChunkedRun, list[int]]:
    """A checkpoint of three records, and the file's size before and after each."""
    program = map_program(random_program(13), 13, cores=4, parts=2)
    going = begin(program, random_images(program, 13, N))
    checkpoint = open_checkpoint(tmp_path / "c", going)
    assert list(checkpoint.records()) == []
    sizes = [(tmp_path / "c").stat().st_size]
    while going.done < N:
        checkpoint.add(flatten(going.step()), going.state())
        sizes.append((tmp_path / "c").stat().st_size)
    checkpoint.close()
    return tmp_path / "c", going, sizes


def recovered(path: Path, going: ChunkedRun) -> int:
    checkpoint = open_checkpoint(path, going)
    count = sum(len(arrays[0]) for _, arrays in checkpoint.records())
    checkpoint.close()
    return count


def test_every_whole_record_survives_any_cut(written) -> None:
    path, going, sizes = written
    data = path.read_bytes()
    cuts = {
        *range(sizes[0], sizes[0] + HEAD.size + 2),
        *sizes,
        *(s - 1 for s in sizes[1:]),
        *range(sizes[1], len(data), 97),
    }
    for cut in sorted(cuts):
        path.write_bytes(data[:cut])
        whole = sum(cut >= s for s in sizes[1:])
        assert recovered(path, going) == 2 * whole
        assert path.stat().st_size == sizes[whole]  # what was cut off is gone: the next record takes its place


def test_a_flipped_bit_ends_what_is_believed(written) -> None:
    path, going, sizes = written
    data = path.read_bytes()
    for at in (sizes[1], sizes[1] + 9, sizes[1] + 20, sizes[1] + HEAD.size + 5, sizes[2] - 1):
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        assert recovered(path, going) == 2, at


def test_checkpoints_of_other_runs_are_refused(written) -> None:
    path, going, _ = written
    before = path.read_bytes()
    with pytest.raises(UsageError) as error:
        open_checkpoint(path, going, program="y" * 30, strict="no")
    assert str(error.value) == (
        f'{path}: belongs to another run: program "x" instead of "yyyyyyyyyyyyyyyy...", strict null instead of "no"; '
        "give the same command again, another --checkpoint, or remove it"
    )
    assert path.read_bytes() == before


def test_other_files_are_never_touched(tmp_path: Path, written) -> None:
    _, going, _ = written
    for data in (b"", b"precious\n", b"nmc.checkpoint/9\n{}\n"):
        (tmp_path / "f").write_bytes(data)
        with pytest.raises(UsageError, match="is there and is no checkpoint of this version; choose another file"):
            open_checkpoint(tmp_path / "f", going)
        assert (tmp_path / "f").read_bytes() == data


@pytest.mark.parametrize("line", [b"[1]\n", b"{", b"[" * 5000 + b"\n", b"x" * (1 << 17)])
def test_damaged_headers_are_told(tmp_path: Path, written, line: bytes) -> None:
    _, going, _ = written
    (tmp_path / "f").write_bytes(MAGIC + line)
    with pytest.raises(ArtefactError, match="its first lines are damaged; remove it and run again"):
        open_checkpoint(tmp_path / "f", going)


def test_a_record_of_wrong_size_is_told_and_never_unpacked(written) -> None:
    import hashlib
    import struct
    import zlib

    path, going, sizes = written
    for packed in (zlib.compress(b"\0" * 10), zlib.compress(b"\0" * 50_000_000), b"no zlib"):
        head = struct.pack("<QQ", 1, len(packed))
        record = head + hashlib.sha256(head + packed).digest() + packed
        path.write_bytes(path.read_bytes()[: sizes[0]] + record)
        with pytest.raises(ArtefactError, match=r"a record holds \d+ bytes, not \d+; remove it and run again"):
            recovered(path, going)


def test_two_runs_do_not_write_into_one_file(written) -> None:
    path, going, _ = written
    first = open_checkpoint(path, going)
    with pytest.raises(UsageError, match="another run is writing to it; wait, or choose another file"):
        open_checkpoint(path, going)
    first.close()
    open_checkpoint(path, going).close()


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path, written) -> None:
    _, going, _ = written
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtefactError, match="File exists; choose another --checkpoint"):
        open_checkpoint(tmp_path / "file" / "c", going)
