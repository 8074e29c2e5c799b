"""The reader of foreign .npz files equals NumPy's on good ones, and refuses what could hurt."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nmc.npz import Npz
from nmc_compiler.errors import FrontendError

DTYPES = st.sampled_from([np.uint8, np.int8, np.int64, np.float32, np.float64, np.float16, np.bool_, ">i4", ">f8"])
ARRAYS = DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0)))


@given(array=ARRAYS, fortran=st.booleans(), packed=st.booleans(), first=st.none() | st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_it_reads_what_numpy_wrote(tmp_path_factory, array, fortran, packed, first) -> None:
    path = tmp_path_factory.mktemp("npz") / "x.npz"
    stored = np.asarray(array, order="F" if fortran else "C")
    (np.savez_compressed if packed else np.savez)(path, a=stored, **{"spikes/b": np.arange(3)})
    with Npz(path) as file:
        assert file.names == ["a", "spikes/b"] and "a" in file and "c" not in file
        header = file.header("a")
        assert (header.shape, header.dtype) == (array.shape, array.dtype)
        read = file.read("a", first) if array.ndim else file.read("a")
    expected = array[:first] if array.ndim else array
    assert read.dtype == array.dtype and read.shape == expected.shape
    assert np.array_equal(read, expected, equal_nan=array.dtype.kind == "f")


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_damage_is_one_error_or_goes_unnoticed(tmp_path_factory, data) -> None:
    """Any bytes: either an array comes back or a FrontendError, nothing else."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=np.arange(60, dtype=np.float32).reshape(3, 20))
    raw = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("npz") / "x.npz"
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw)
    try:
        with Npz(path) as file:
            for name in file.names:
                file.read(name)
    except FrontendError as error:
        assert str(error).startswith(f"{path}: ")


def test_a_bomb_takes_no_memory_for_what_is_not_asked_for(tmp_path: Path) -> None:
    """A gigabyte of zeros packed into a megabyte: its first rows can be read."""
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file, file.open("images.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": (1 << 18, 1024)})
        for _ in range(64):  # 64 MiB of the gigabyte that the header promises
            member.write(bytes(1 << 20))
    with Npz(path) as file:
        assert file.header("images").nbytes == 1 << 30
        with pytest.raises(FrontendError, match=r"needs 1073741824 bytes, but \d+ are in the file"):
            file.read("images", 4)


def test_more_than_the_machine_has_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "x.npz", images=np.zeros((100, 10)))
    monkeypatch.setattr("os.sysconf", lambda name: 50)
    with Npz(tmp_path / "x.npz") as file:
        with pytest.raises(FrontendError, match="needs 8000 bytes, more than the 2500 of this machine"):
            file.read("images")
        assert file.read("images", 2).shape == (2, 10)


@pytest.mark.parametrize(
    ("write", "text"),
    [
        (lambda z: z.writestr("readme.txt", "hello"), "'readme.txt' in it is not one array"),
        (
            lambda z: [z.writestr("a.npy", b""), z.writestr("a.npy", b"")],
            "'an array given twice' in it is not one array",
        ),
        (lambda z: z.writestr("a.npy", b"", zipfile.ZIP_LZMA), "'a.npy' is packed in a way NumPy never uses"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_odd_archives_are_refused(tmp_path: Path, write, text: str) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
        write(file)
    with pytest.raises(FrontendError) as error:
        Npz(tmp_path / "x.npz")
    assert text in str(error.value)


def test_a_folder_and_a_pipe_are_no_files(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(FrontendError, match="not a regular file; give an .npz file"):
            Npz(path)
