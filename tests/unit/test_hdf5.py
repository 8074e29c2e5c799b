"""HDF5 files as trees: what is read, what is refused, and that damaged ones end in one clear error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nmc_compiler.errors import FrontendError, NmcError, ToolNotFound
from nmc_compiler.frontends import hdf5, hdf5_worker
from nmc_compiler.frontends.hdf5 import Hdf5Group, read_hdf5

h5py = pytest.importorskip("h5py", reason="writes the HDF5 files: pip install h5py")


def write(path: Path, fill, **options) -> Path:
    with h5py.File(path, "w", **options) as file:
        fill(file)
    return path


def everything(file) -> None:
    file["n/whole"] = np.arange(6, dtype="i2").reshape(2, 3)
    file["n/real"] = np.array([1.0, -3.0], "f4")
    file["n/half"] = np.array([1.0, 2.5])
    file["n/bad"] = np.array([1.0, np.nan])
    file["n/big"] = np.array([2**63], "u8")
    file["n/flag"] = True
    file["n/none"] = h5py.Empty("f4")
    file["n/complex"] = np.zeros(2, complex)
    file.create_dataset("n/packed", data=np.arange(1000), compression="gzip", shuffle=True, chunks=(100,))
    file["t/one"] = "dense"
    file.create_dataset("t/fixed", (1,), "S10", [b"conv"])
    file["t/pairs"] = np.array([["a", "b"], ["b", "c"]], dtype=h5py.string_dtype())
    file["t/latin"] = np.array([b"caf\xe9"])


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Hdf5Group:
    return read_hdf5(write(tmp_path_factory.mktemp("h5") / "a.h5", everything))


def test_numbers_and_texts(tree):
    n, t = tree.group("n"), tree.group("t")
    assert tree.names == ["n", "t"] and "n" in tree and "x" not in tree
    assert np.array_equal(n.numbers("whole"), np.arange(6).reshape(2, 3)) and n.numbers("whole").dtype == np.int16
    assert n.integers("real").tolist() == [1, -3] and n.integers("real").dtype == np.int64
    assert n.integer("flag", 0, 1) == 1
    assert np.array_equal(n.numbers("packed"), np.arange(1000))
    assert (t.text("one"), t.text("fixed")) == ("dense", "conv")
    assert t.texts("pairs").tolist() == [["a", "b"], ["b", "c"]]


@pytest.mark.parametrize("latest", ["earliest", "latest"])
def test_any_version_of_the_format(tmp_path, latest):
    found = read_hdf5(write(tmp_path / "a.h5", everything, libver=latest))
    assert found.group("n").numbers("whole").shape == (2, 3) and len(found.group("n").names) == 9


@pytest.mark.parametrize(
    "ask, text",
    [
        (lambda f: f.group("x"), "/x is missing; the group has n, t"),
        (lambda f: f.group("n").group("whole"), "/n/whole is a dataset; a group was expected"),
        (lambda f: f.numbers("n"), "/n is a group; a dataset was expected"),
        (lambda f: f.group("t").numbers("one"), "/t/one holds text; numbers were expected"),
        (lambda f: f.group("n").text("flag"), "/n/flag holds numbers; text was expected"),
        (lambda f: f.group("n").numbers("bad"), "/n/bad has 1 values that are NaN or infinite"),
        (lambda f: f.group("n").integers("half"), "/n/half has 1 values that are not whole numbers, the first 2.5"),
        (lambda f: f.group("n").integers("big"), "/n/big has the value 9223372036854775808, which is beyond 63 bits"),
        (lambda f: f.group("n").integer("real", 0, 9), r"/n/real has shape \[2\]; one number was expected"),
        (lambda f: f.group("n").integer("flag", 2, 9), r"/n/flag is 1, outside 2\.\.9"),
        (lambda f: f.group("t").text("pairs"), r"/t/pairs has shape \[2, 2\]; one text was expected"),
        (lambda f: f.group("n").numbers("none"), "/n/none is empty"),
        (lambda f: f.group("n").numbers("complex"), "/n/complex holds complex128, neither numbers nor text"),
        (lambda f: f.group("t").texts("latin"), "/t/latin holds text that is not UTF-8"),
    ],
)
def test_what_is_not_as_expected_is_named(tree, ask, text):
    with pytest.raises(FrontendError, match=text):
        ask(tree)


def links(file) -> None:
    file["data"] = np.zeros(3)


@pytest.mark.parametrize(
    "fill, text",
    [
        (lambda f: f.update(x=h5py.ExternalLink("/etc/passwd", "/")), "'/x' is a link into another file, which is nev"),
        (lambda f: f.update(x=h5py.SoftLink("/data")), "'/x' is a soft link, which is never followed; write the data"),
        (lambda f: (links(f), f.update(x=f["data"])), "'/x' is in the file under two names; write it once for each"),
        (lambda f: f.update(x=f), "'/x' is in the file under two names"),
        (
            lambda f: f.create_dataset("x", (4,), "u1", external=[("/etc/passwd", 0, 4)]),
            "'/x' keeps its data in another file, which is never opened; copy the data into it",
        ),
        (
            lambda f: f.create_virtual_dataset("x", _virtual()),
            "'/x' keeps its data in another file, which is never opened",
        ),
        (lambda f: f.create_dataset("x", (1 << 40,), "f8", chunks=(1024,)), "bytes, but 0 are in the file: it is trun"),
        (lambda f: f.create_dataset("x", (1 << 40,), "f8"), "needs 8796093022208 bytes, but 0 are in the file"),
        (lambda f: f.create_dataset("x", data=np.arange(99), scaleoffset=0), "'/x' is packed by filter 6; repack it"),
        (lambda f: f.create_group("/".join("a" * 30)), "groups are nested deeper than 24"),
    ],
)  # fmt: skip
def test_what_is_never_read(tmp_path, fill, text):
    path = write(tmp_path / "a.h5", fill)
    with pytest.raises(FrontendError, match=text) as caught:
        read_hdf5(path)
    assert str(caught.value).startswith(f"{path}: ")


def _virtual():
    layout = h5py.VirtualLayout((4,), "f8")
    layout[:] = h5py.VirtualSource("other.h5", "data", (4,))
    return layout


@pytest.mark.parametrize(
    "fill, text",
    [
        (lambda f: f.create_group("a\nb"), r"/x\\ty is missing; the group has a\\nb$"),
        (lambda f: f.update({"d\x1b[31m": h5py.SoftLink("/x")}), r"'/d\\x1b\[31m' is a soft link, which is never foll"),
        (lambda f: h5py.h5g.create(f.id, b"c\xff"), "a.h5: damaged .*can't decode byte 0xff in position 1"),
    ],
)
def test_names_of_strangers_are_safe_to_print(tmp_path, fill, text):
    path = write(tmp_path / "a.h5", fill)
    with pytest.raises(FrontendError, match=text) as caught:
        read_hdf5(path).group("x\ty")
    assert str(caught.value).isprintable()


def test_what_is_no_file(tmp_path):
    with pytest.raises(FrontendError, match=r"a\.net: cannot be read: No such file"):
        read_hdf5(tmp_path / "a.net")
    with pytest.raises(FrontendError, match="not a regular file"):
        read_hdf5(tmp_path)
    (tmp_path / "b.net").write_bytes(b"GIF89a")
    with pytest.raises(FrontendError, match=r"b\.net: not an HDF5 file, or its beginning is damaged"):
        read_hdf5(tmp_path / "b.net")


def test_a_breakdown_of_the_library_is_an_error(tmp_path, monkeypatch):
    path = write(tmp_path / "a.h5", links)
    for code, text in [
        ("import os; os.abort()", r"damaged: the HDF5 library broke down on it \(signal 6\)"),
        ("raise SystemExit(3)", r"broke down on it \(exit status 3\)"),
        ("import os; os.kill(os.getpid(), 24)", "takes more than 20 s to read"),
    ]:
        (tmp_path / "worker.py").write_text(code)
        monkeypatch.setattr(hdf5_worker, "__file__", str(tmp_path / "worker.py"))
        with pytest.raises(FrontendError, match=text):
            read_hdf5(path)


def test_without_h5py_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(hdf5.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ToolNotFound, match=r"needs h5py; get it with: pip install 'nmc\[nir\]'"):
        read_hdf5("a.net")


def test_a_tree_from_memory_reads_as_one_from_a_file(tree):
    made = Hdf5Group.of("m", {"n": {"flag": True}, "t": {"one": "dense", "pairs": [["a", "b"]]}})
    assert made.group("t").text("one") == tree.group("t").text("one")
    assert made.group("t").texts("pairs").dtype == object and made.group("n").integer("flag", 0, 1) == 1
    assert made.group("t").where == "m: /t" and tree.group("t").where.endswith("a.h5: /t")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_files_end_in_one_clear_error(tmp_path, monkeypatch, data):
    monkeypatch.setattr(hdf5_worker, "SECONDS", 2)
    whole = bytearray(write(tmp_path / "a.h5", everything).read_bytes())
    if data.draw(st.booleans()):
        del whole[data.draw(st.integers(0, len(whole) - 1)) :]
    for at in data.draw(st.lists(st.integers(0, 4000), max_size=6)):
        if at < len(whole):
            whole[at] = data.draw(st.integers(0, 255))
    (tmp_path / "b.h5").write_bytes(whole)
    try:
        found = read_hdf5(tmp_path / "b.h5")
    except NmcError as error:
        assert str(error).startswith(str(tmp_path / "b.h5")) and "\n" not in str(error)
    else:
        assert isinstance(found, Hdf5Group)
