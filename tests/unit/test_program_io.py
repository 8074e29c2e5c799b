"""The artefact on disk: what is written comes back, byte for byte the same each time, or not at all."""

from __future__ import annotations

import json
import os
import resource
import shutil
import struct
import subprocess
import sys
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from mapping_nets import random_net, sdt_v1, sdt_v3, spikformer
from networks import random_network

from nmc_compiler.errors import ArtefactError, VerifyError
from nmc_compiler.mapping import map_program
from nmc_compiler.program import load_program, program_digest, save_program
from nmc_compiler.program.digest import digest_of
from nmc_compiler.program.model import Program
from nmc_compiler.target import load_target

TESTS = Path(__file__).resolve().parents[1]
FILES = {"program.json", "arrays.safetensors"}
RECURRENT = [lambda s=s: map_program(random_network(s).program(), load_target("loihi2"))[0] for s in range(6)]


def small() -> Program:
    return map_program(sdt_v1(16, 16, 1, 2), load_target("loihi2"))[0]


@pytest.fixture(scope="module")
def program() -> Program:
    return small()


@pytest.fixture
def saved(program, tmp_path) -> Path:
    save_program(program, tmp_path / "build")
    return tmp_path / "build"


def same(a, b) -> bool:
    """Equal in every field, arrays with dtype and shape."""
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
    if is_dataclass(a):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, (tuple, list)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def edit(folder: Path, change, digest: bool = False) -> None:
    """Apply `change` to the parsed manifest; with `digest`, make the digest fit again."""
    path = folder / "program.json"
    tree = json.loads(path.read_text())
    change(tree)
    if digest:
        tree["digest"] = digest_of(tree, (folder / "arrays.safetensors").read_bytes())
    path.write_text(json.dumps(tree))


def message(folder: Path) -> str:
    with pytest.raises((ArtefactError, VerifyError)) as error:
        load_program(folder)
    return str(error.value)


# --- round trip -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [small, spikformer, sdt_v3, *(lambda s=s: random_net(s) for s in range(12)), *RECURRENT]
)
def test_round_trip(make, tmp_path):
    program = make()
    digest = save_program(program, tmp_path)
    loaded = load_program(tmp_path)
    assert same(program, loaded)
    assert program_digest(loaded) == program_digest(program) == digest
    assert {f.name for f in tmp_path.iterdir()} == FILES


def test_manifest(program, saved):
    tree = json.loads((saved / "program.json").read_text())
    assert tree["schema"] == "nmc.program/2"
    assert list(tree) == sorted(tree)
    assert tree["target"]["name"] == "loihi2" and tree["target"]["limits"]["neurons"] == 4096
    assert tree["meta"] == {"made_by": "tests"}
    assert tree["arrays"]["tensors"]["convs/0/weight"] == {"dtype": "int8", "shape": [3, 3, 2, 4]}
    assert tree["arrays"]["bytes"] == (saved / "arrays.safetensors").stat().st_size


def test_arrays_are_fresh_writable_and_aligned(saved):
    weight = load_program(saved).convs[0].weight
    assert weight.flags.c_contiguous and weight.flags.writeable and weight.flags.aligned


def test_equal_arrays_are_stored_once(tmp_path):
    """Spikformer's added spikes are read by projections with the same weights."""
    program = spikformer(16, 16, 2)
    save_program(program, tmp_path)
    assert len({c.weight_key for c in program.convs if c.weight_key}) < sum(bool(c.weight_key) for c in program.convs)
    weights = sum(c.weight.nbytes for c in program.convs)
    assert (tmp_path / "arrays.safetensors").stat().st_size < weights


def test_digest_covers_everything(program):
    def bump(array):
        changed = array.copy()
        changed.flat[0] ^= 1
        return changed

    variants = [
        replace(program, name="other"),
        replace(program, meta={"made_by": "somebody else"}),
        replace(program, interval=program.interval + 1),
        replace(program, convs=(replace(program.convs[0], weight=bump(program.convs[0].weight)), *program.convs[1:])),
        replace(program, mapping=replace(program.mapping, cores=program.mapping.cores[::-1].copy())),
    ]
    digests = {program_digest(p) for p in (program, *variants)}
    assert len(digests) == 1 + len(variants)
    assert program_digest(small()) == program_digest(program)


CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from test_program_io import small
from nmc_compiler.program import save_program
print(save_program(small(), sys.argv[2]))
"""


def test_bytes_do_not_depend_on_the_process(tmp_path):
    """Hash seeds, thread counts and folders differ; mapping, placement and files are the same."""
    runs = []
    for number, (seed, threads) in enumerate((("0", "1"), ("1", "2"))):
        folder = tmp_path / f"run{number}" / "build"
        path = os.pathsep.join([str(TESTS), str(TESTS / "unit")])
        env = os.environ | {"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": threads, "PYTHONPATH": path}
        done = subprocess.run(
            [sys.executable, "-c", CHILD, str(TESTS / "unit"), str(folder)],
            env=env, capture_output=True, text=True, cwd=tmp_path, check=True,
        )  # fmt: skip
        runs.append((done.stdout, {f.name: f.read_bytes() for f in folder.iterdir()}))
    assert runs[0] == runs[1]
    assert set(runs[0][1]) == FILES


# --- what cannot be saved ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"meta": {"a": (1, 2)}}, "meta/a: (1, 2) cannot be stored as JSON"),
        ({"meta": {"a": [1.0, float("nan")]}}, "meta/a/1: nan cannot be stored as JSON"),
        ({"meta": {1: 2}}, "meta: {1: 2} cannot be stored as JSON"),
        ({"record_time": 1}, "record_time: expected bool, got 1"),
        ({"interval": 30.5}, "interval: expected int, got 30.5"),
    ],
)
def test_what_json_would_change_is_refused(program, tmp_path, change, text):
    with pytest.raises(VerifyError) as error:
        save_program(replace(program, **change), tmp_path / "build")
    assert text in str(error.value)
    assert not (tmp_path / "build").exists()


def test_an_invalid_program_is_not_written(program, tmp_path):
    with pytest.raises(VerifyError, match=r"Program field interval: 1 is outside 4\.\."):
        save_program(replace(program, interval=1), tmp_path / "build")
    assert not (tmp_path / "build").exists()


# --- full disks -------------------------------------------------------------------------------------------------


def broken_write(after: int):
    """`write` that stores some bytes and then finds the disk full, from the given call on."""
    calls = 0

    def write(path, data):
        nonlocal calls
        calls += 1
        if calls <= after:
            return path.write_bytes(data)
        path.write_bytes(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    return write


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("earlier", [False, True])
def test_failed_write_leaves_what_was_there(program, tmp_path, monkeypatch, after, earlier):
    folder = tmp_path / "a" / "build"
    if earlier:
        old = random_net(3)
        save_program(old, folder)
    monkeypatch.setattr("nmc_compiler.program.io._write", broken_write(after))
    with pytest.raises(ArtefactError) as error:
        save_program(program, folder)
    assert "could not write arrays.safetensors, program.json" in str(error.value)
    assert "No space left on device; nothing was left behind" in str(error.value)
    monkeypatch.undo()
    if earlier:
        assert same(load_program(folder), old)
        assert {f.name for f in folder.iterdir()} == FILES
    else:
        assert not (tmp_path / "a").exists()


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("mounting a file system needs root; the test with a file size limit stands in")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_file_system(tiny_disk):
    old = random_net(3)
    save_program(old, tiny_disk / "build")
    with pytest.raises(ArtefactError, match="No space left on device"):
        save_program(spikformer(), tiny_disk / "build")
    assert same(load_program(tiny_disk / "build"), old)
    assert {f.name for f in (tiny_disk / "build").iterdir()} == FILES


def test_file_size_limit(program, tmp_path):
    """A real failing write: the process may not write more than 8 kB into one file."""
    save_program(random_net(3), tmp_path / "build")
    before = {f.name: f.read_bytes() for f in (tmp_path / "build").iterdir()}
    pid = os.fork()
    if pid == 0:  # the child leaves by _exit alone
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
        try:
            save_program(program, tmp_path / "build")
        except ArtefactError as error:
            os._exit(7 if "File too large" in str(error) else 8)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert {f.name: f.read_bytes() for f in (tmp_path / "build").iterdir()} == before


def test_folder_that_is_a_file(program, tmp_path):
    (tmp_path / "build").write_text("mine")
    with pytest.raises(ArtefactError, match="File exists"):
        save_program(program, tmp_path / "build")
    assert (tmp_path / "build").read_text() == "mine"


# --- what cannot be loaded --------------------------------------------------------------------------------------


def test_no_folder(tmp_path):
    assert "No such file or directory; give a folder that `nmc compile` wrote" in message(tmp_path / "none")


@pytest.mark.parametrize("name", sorted(FILES))
def test_missing_and_truncated_files(saved, name):
    data = (saved / name).read_bytes()
    (saved / name).write_bytes(data[: len(data) // 2])
    text = message(saved)
    assert name in text and ("not valid JSON" in text or f"{len(data) // 2} bytes, but program.json says" in text)
    (saved / name).unlink()
    assert "No such file" in message(saved)


def test_not_a_regular_file(saved):
    (saved / "program.json").unlink()
    os.mkfifo(saved / "program.json")
    assert "not a regular file" in message(saved)


def test_a_flipped_bit_in_the_arrays(saved):
    data = bytearray((saved / "arrays.safetensors").read_bytes())
    data[-1] ^= 1
    (saved / "arrays.safetensors").write_bytes(data)
    assert "digest is" in message(saved) and "compile again" in message(saved)


def test_another_schema(saved):
    edit(saved, lambda tree: tree.update(schema="nmc.program/9"))
    assert "schema 'nmc.program/9', but this nmc reads 'nmc.program/2'" in message(saved)


def test_an_edited_field_without_digest(saved):
    edit(saved, lambda tree: tree.update(timesteps=2))
    assert "digest is" in message(saved)


def set_path(path: str, value):
    """Change of one field of the manifest, by its path."""

    def change(tree):
        *parents, last = (int(p) if p.isdigit() else p for p in path.split("/"))
        for parent in parents:
            tree = tree[parent]
        tree[last] = value

    return change


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("timesteps", "4", "program.json: timesteps: expected int, got '4'"),
        ("timesteps", True, "program.json: timesteps: expected int, got True"),
        ("timesteps", 2**70, "program.json: timesteps: expected int"),
        ("interval", 10**30, "interval: an integer of 100 bits is out of range"),
        ("populations/0/model", "snn", "populations/0/model: expected one of 'lif', 'levels'"),
        ("populations/0/shape", [1, 2], "populations/0/shape: 2 items, expected 3"),
        ("populations/0/vth", 5, "populations/0/vth: expected the key of an array, got 5"),
        ("populations/0/vth", "none", "populations/0/vth: array 'none' is not in arrays.safetensors"),
        ("populations/0/extra", 1, "populations/0/extra': unknown field"),
        ("populations", {}, "populations: expected a list, got {}"),
        ("mapping", [], "mapping: expected an object with the fields of Mapping"),
        ("logits", "max", "logits: expected one of 'mean', got 'max'"),
        ("meta", 3, "meta: expected dict, got 3"),
        ("convs/0/weight", "convs/1/weight", "arrays that no field names"),
    ],
)
def test_an_edited_field_with_a_new_digest(saved, path, value, text):
    if text == "program.json: timesteps: expected int":
        text = f"timesteps: an integer of {value.bit_length()} bits is out of range"
    edit(saved, set_path(path, value), digest=True)
    assert text in message(saved)


def test_a_missing_field(saved):
    edit(saved, lambda tree: tree["convs"][0].pop("delay"), digest=True)
    assert "convs/0/delay: missing" in message(saved)


def test_array_table_must_fit(saved):
    edit(saved, set_path("arrays/tensors", {}), digest=True)
    assert "is int8 [3, 3, 2, 4] in arrays.safetensors, but program.json says absent" in message(saved)
    edit(saved, set_path("arrays/bytes", "many"), digest=True)
    assert "bytes must be an integer" in message(saved)
    edit(saved, set_path("arrays", []), digest=True)
    assert "arrays: expected" in message(saved)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[" * 100_000, "not valid JSON"),
        ('{"schema": "nmc.program/2", "a": ' + "[" * 90 + "]" * 90 + "}", "nested deeper than 64 levels"),
        ('{"schema": "nmc.program/2", "schema": "nmc.program/2"}', "a key is given twice"),
        ('{"schema": NaN}', "NaN is not a JSON number"),
        ('{"schema": 1e999}', "beyond the range of a double"),
        ("[]", "schema no object"),
        ("", "not valid JSON"),
        ("\xff\xfe", "not valid JSON"),
    ],
)
def test_hostile_json(saved, text, why):
    (saved / "program.json").write_bytes(text.encode("latin-1"))
    assert why in message(saved)


def test_hostile_array_header(saved):
    """A header that promises more than there is, with manifest and digest to fit."""
    for header in (b"{}", b'{"x":{"dtype":"I8","shape":[9999999999],"data_offsets":[0,9999999999]}}', b"\xff" * 9):
        blob = struct.pack("<Q", len(header)) + header
        (saved / "arrays.safetensors").write_bytes(blob)
        edit(saved, set_path("arrays/bytes", len(blob)), digest=True)
        text = message(saved)
        assert "not a safetensors file" in text or "absent in arrays.safetensors" in text
