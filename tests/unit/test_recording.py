"""events.npz: what is written is read back; what is damaged or hostile gives one clear error."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from programs import map_program, random_images, random_program

from nmc.recording import Recorder, read_recording
from nmc_compiler.errors import FrontendError, UsageError
from nmc_compiler.program.model import Program
from nmc_emulator import RunResult, run
from nmc_emulator.recost import recording_of, recost

SAMPLES = 5


def record(path: Path, program: Program, images: np.ndarray, labels: np.ndarray | None = None) -> RunResult:
    result = run(program, images, record="all")
    recording = recording_of(program, "d" * 64, result, images)
    recorder = Recorder(path, program)
    for chunk in recording.chunks():
        recorder.add(chunk)
    recorder.close()
    recorder.finish(recording.program, result.logits_int, recording.overflow, labels)
    return result


@pytest.fixture(scope="module", params=[True, False], ids=["graded", "plain"])
def recorded(request, tmp_path_factory) -> tuple[Path, Program, np.ndarray, RunResult]:
    program = random_program(17, layers=6, graded=request.param, input_time=request.param)
    path, images = tmp_path_factory.mktemp("events") / "events.npz", random_images(program, 17, SAMPLES)
    return path, program, images, record(path, program, images, np.zeros(SAMPLES, np.int64))


def test_what_is_read_recosts_as_what_ran(recorded, monkeypatch, tmp_path: Path) -> None:
    path, program, images, result = recorded
    monkeypatch.setattr("nmc.recording.group_size", lambda p: 2)  # three groups
    record(tmp_path / "groups.npz", program, images)
    for file in (path, tmp_path / "groups.npz"):
        for other in (program, map_program(program, 1, cores=6, parts=4)):
            recording = read_recording(file, other)
            assert recost(other, recording).differences(run(other, images).counters) == []
            assert np.array_equal(recording.logits_int, result.logits_int) and recording.samples == SAMPLES
    assert read_recording(path, program).labels.tolist() == [0] * SAMPLES
    assert read_recording(tmp_path / "groups.npz", program).labels is None


def test_equal_runs_give_equal_bytes(recorded, tmp_path: Path) -> None:
    path, program, images, _ = recorded
    record(tmp_path / "again.npz", program, images, np.zeros(SAMPLES, np.int64))
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()


def test_numpy_reads_it(recorded) -> None:
    path, program, _, result = recorded
    with np.load(path) as file:
        about = json.loads(bytes(file["about"]))
        assert about["schema"] == "nmc.events/1" and about["populations"] == [p.name for p in program.populations]
        assert file["000000/count"].tolist() == [
            np.count_nonzero(result.codes[p.name]) for p in program.populations if p.model != "readout"
        ]


def altered(path: Path, out: Path, name: str, change) -> Path:
    """A copy of an .npz with one array put through ``change`` (None: left out)."""
    with np.load(path) as file, zipfile.ZipFile(out, "w") as new:
        for key in file.files:
            array = change(file[key].copy()) if key == name else file[key]
            if array is not None:
                buffer = io.BytesIO()
                np.save(buffer, array)
                new.writestr(f"{key}.npy", buffer.getvalue())
    return out


def first(value: int):
    def change(array: np.ndarray) -> np.ndarray:
        array[0] = value
        return array

    return change


def about(**changes):
    def change(array: np.ndarray) -> np.ndarray:
        return np.frombuffer(json.dumps(json.loads(bytes(array)) | changes).encode(), np.uint8)

    return change


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("about", lambda a: None, "has no array 'about'"),
        ("about", lambda a: a.astype(np.int64), "its array 'about' is no text"),
        ("about", lambda a: a[:-9], "its array 'about' is not valid JSON"),
        ("about", about(schema="nmc.events/9"), "not a recording of this version of nmc (nmc.events/1)"),
        ("about", about(samples=-1), "its array 'about' does not hold what it should"),
        ("about", about(group="x"), "its array 'about' does not hold what it should"),
        ("about", about(populations=["a", "a"]), "its array 'about' does not hold what it should"),
        ("about", about(populations=["a", "b"]), "its populations are not those it has parts of"),
        ("about", about(samples=2**30), "array 'logits_int' is int64"),
        ("about", about(group=1), "is int32 ["),
        ("logits_int", lambda a: a[:-1], "array 'logits_int' is int64"),
        ("overflow", lambda a: a.astype(np.int32), "array 'overflow' is int32"),
        ("labels", lambda a: a[:-1], "array 'labels' is int64 [4] instead of int64 [5]"),
        ("000000/count", first(-1), "'000000/count' holds numbers out of range"),
        ("000000/count", first(2**50), "'000000/count' holds numbers out of range"),
        ("000000/count", first(2**39), "array '000000/step' is int64"),
        ("000000/count", lambda a: None, "has no array '000000/count'"),
        ("000000/step", first(10**6), "are out of range or order"),
        ("000000/step", first(-1), "are out of range or order"),
        ("000000/soma", first(10**6), "are out of range or order"),
        ("000000/soma", lambda a: a[::-1], "are out of range or order"),
    ],
)
def test_damage_is_told(recorded, tmp_path: Path, name: str, change, told: str) -> None:
    path, program, *_ = recorded
    if name == "about" and told == "is int32 [":
        told = "are out of range or order"  # the first group holds timesteps beyond its one sample
    with pytest.raises(FrontendError) as error:
        for _ in read_recording(altered(path, tmp_path / "x.npz", name, change), program).chunks():
            pass
    assert str(error.value).startswith(f"{tmp_path}/x.npz: ") and told in str(error.value)


def test_no_code_is_zero(recorded, tmp_path: Path) -> None:
    path, program, *_ = recorded
    with np.load(path) as file:
        coded = len(file["000000/code"]) > 0
    if coded:
        with pytest.raises(FrontendError, match="are out of range or order"):
            list(read_recording(altered(path, tmp_path / "x.npz", "000000/code", first(0)), program).chunks())


def test_another_network_is_refused(recorded) -> None:
    path, program, *_ = recorded
    with pytest.raises(UsageError) as error:
        read_recording(path, random_program(3))
    told = str(error.value)
    assert told.startswith(f"{path}: Program 'random-3' does not compute what the recorded Program dddddddddddd did: ")


def test_not_an_npz(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_text("no")
    with pytest.raises(FrontendError, match="not a whole .npz file"):
        read_recording(tmp_path / "x.npz", random_program(3))
