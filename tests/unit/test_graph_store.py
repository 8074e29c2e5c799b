"""Graphs on disk: equal bytes for equal graphs, exact round trips, one clear error for anything damaged."""

import os
import re
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_models
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from nmc_compiler.errors import ArtefactError, VerifyError
from nmc_compiler.graph import Graph
from nmc_compiler.graph.store import load_graph, save_graph
from nmc_compiler.graph.text import to_text


@pytest.fixture(scope="module")
def graph() -> Graph:
    return tiny_models.graph("sdt_v1")


@pytest.mark.parametrize("name", list(tiny_models.CONFIGS))
def test_round_trip(tmp_path: Path, name: str) -> None:
    graph = tiny_models.graph(name)
    text, tensors = save_graph(graph, tmp_path, "graph.float")
    assert (text.name, tensors.name) == ("graph.float.txt", "graph.float.safetensors")
    assert text.read_text(encoding="utf-8") == to_text(graph)
    again = load_graph(tmp_path, "graph.float")
    assert again.nodes == graph.nodes
    assert again.tensors.keys() == graph.tensors.keys()
    for key, array in graph.tensors.items():
        assert again.tensors[key].dtype == array.dtype
        assert again.tensors[key].shape == array.shape
        assert np.array_equal(again.tensors[key], array)


def test_arrays_of_any_layout_and_dtype(tmp_path: Path, graph: Graph) -> None:
    """Views, other byte orders and no axes at all are stored by value."""
    arrays = dict(graph.tensors)
    key = "patch_embed.proj_conv1.weight"
    arrays[key] = np.asfortranarray(arrays[key].astype(">f8"))[:, :, ::-1, ::-1]
    arrays["head.bias"] = arrays["head.bias"].astype(np.float16)
    odd = replace(graph, tensors=arrays)
    save_graph(odd, tmp_path, "g")
    again = load_graph(tmp_path, "g")
    assert np.array_equal(again.tensors[key], arrays[key])
    assert again.tensors["head.bias"].dtype == np.float16


def test_equal_graphs_give_equal_bytes(tmp_path: Path, graph: Graph) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    save_graph(graph, tmp_path / "a", "g")
    shuffled = replace(graph, tensors=dict(reversed(graph.tensors.items())))
    save_graph(shuffled, str(tmp_path / "b"), "g")
    for suffix in ("txt", "safetensors"):
        assert (tmp_path / "a" / f"g.{suffix}").read_bytes() == (tmp_path / "b" / f"g.{suffix}").read_bytes()


def test_nothing_invalid_is_written(tmp_path: Path, graph: Graph) -> None:
    with pytest.raises(VerifyError, match="T must be a whole number"):
        save_graph(replace(graph, timesteps=0), tmp_path, "g")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder(tmp_path: Path, graph: Graph) -> None:
    want = re.escape(f"cannot write {tmp_path}/none/g.safetensors: No such file or directory")
    with pytest.raises(ArtefactError, match=f"^{want}$"):
        save_graph(graph, tmp_path / "none", "g")


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """Files cannot grow beyond ``size`` bytes: the kernel refuses the write as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("size", [0, 4096])
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, graph: Graph, size: int) -> None:
    small = tiny_models.graph("spikformer")
    save_graph(small, tmp_path, "g")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with disk_of(size), pytest.raises(ArtefactError, match=r"^cannot write .*g\.safetensors: File too large$"):
        save_graph(graph, tmp_path, "g")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    assert load_graph(tmp_path, "g").nodes == small.nodes


def test_no_half_is_replaced_when_the_other_cannot_be_written(tmp_path: Path, graph: Graph) -> None:
    """The text does not fit: the arrays, which did, are not put in place either."""
    text, tensors = save_graph(graph, tmp_path, "g")
    before = tensors.read_bytes()
    assert len(before) > 8000
    long = replace(graph, name="n" * len(before))
    with disk_of(len(before) + 100), pytest.raises(ArtefactError, match=r"^cannot write .*g\.txt: File too large$"):
        save_graph(long, tmp_path, "g")
    assert tensors.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["g.safetensors", "g.txt"]


def refused(folder: Path, message: str) -> None:
    with pytest.raises(ArtefactError, match=message):
        load_graph(folder, "g")


def test_missing_files(tmp_path: Path, graph: Graph) -> None:
    refused(tmp_path, "^cannot read .*/g.txt: No such file or directory$")
    _, tensors = save_graph(graph, tmp_path, "g")
    tensors.unlink()
    refused(tmp_path, "^cannot read .*/g.safetensors: No such file or directory")


def test_halves_of_different_graphs(tmp_path: Path, graph: Graph) -> None:
    text, _ = save_graph(graph, tmp_path, "g")
    text.write_text(text.read_text().replace("theta=1.0", "theta=2.0"))
    refused(tmp_path, r"/g\.txt and .*/g\.safetensors do not belong together: .*; write both again with nmc compile$")


def rewrite(folder: Path, text: bytes, arrays: dict[str, np.ndarray]) -> None:
    """A pair that belongs together, whatever it says."""
    import hashlib

    (folder / "g.txt").write_bytes(text)
    save_file(arrays, folder / "g.safetensors", {"text_sha256": hashlib.sha256(text).hexdigest()})


def test_a_pair_that_breaks_rules(tmp_path: Path, graph: Graph) -> None:
    text, arrays = to_text(graph).encode(), dict(graph.tensors)
    rewrite(tmp_path, text.replace(b"T=3", b"T=x"), arrays)
    refused(tmp_path, r"^.*/g\.txt: graph text, line 1, column 16: expected a number of timesteps, found 'x float")
    rewrite(tmp_path, text, {k: v for k, v in arrays.items() if k != "head.bias"})
    refused(
        tmp_path, r"""/g\.txt: graph text, line 48.*: %conv2d46 = conv2d "head": tensor 'head.bias' does not exist$"""
    )
    rewrite(tmp_path, text, {**arrays, "head.bias": np.full(3, np.inf, np.float32)})
    refused(tmp_path, r"/g\.txt: tensor 'head.bias' has 3 value\(s\) that are not finite, of 3$")
    rewrite(tmp_path, text, {**arrays, "spare": np.zeros(1)})
    refused(tmp_path, r"/g\.txt: graph 'sdt_v1': tensor 'spare' is stored, but no node refers to it$")
    rewrite(tmp_path, b"\xff" + text, arrays)
    refused(tmp_path, r"/g\.txt: 'utf-8' codec can't decode byte 0xff in position 0")


def test_a_text_of_absurd_size_is_not_read(tmp_path: Path, graph: Graph) -> None:
    text, _ = save_graph(graph, tmp_path, "g")
    os.truncate(text, 1 << 40)  # sparse: no disk is used
    refused(tmp_path, r"/g\.txt has 1099511627776 bytes, more than the 67108864 a graph may have$")


def test_arrays_from_elsewhere(tmp_path: Path, graph: Graph) -> None:
    save_graph(graph, tmp_path, "g")
    save_file(graph.tensors, tmp_path / "g.safetensors")
    refused(tmp_path, "do not belong together")
    (tmp_path / "g.safetensors").write_bytes(b"")
    refused(tmp_path, "g.safetensors is not a whole safetensors file of NumPy arrays: ")
    (tmp_path / "g.safetensors").unlink()
    (tmp_path / "g.safetensors").mkdir()
    refused(tmp_path, "cannot read .*/g.safetensors: ")


def bfloat16_file() -> bytes:
    header = b'{"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'
    return len(header).to_bytes(8, "little") + header + b"\x00\x00"


def test_a_dtype_that_numpy_lacks(tmp_path: Path, graph: Graph) -> None:
    save_graph(graph, tmp_path, "g")
    (tmp_path / "g.safetensors").write_bytes(bfloat16_file())
    refused(
        tmp_path, "g.safetensors is not a whole safetensors file of NumPy arrays: data type 'bfloat16' not understood"
    )


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, graph: Graph) -> tuple[Path, bytes, bytes]:
    folder = tmp_path_factory.mktemp("stored")
    text, tensors = save_graph(graph, folder, "g")
    return folder, text.read_bytes(), tensors.read_bytes()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_always_an_artefact_error(stored: tuple[Path, bytes, bytes], data: st.DataObject) -> None:
    """Any byte changed, cut or added: an ArtefactError, or (in array contents) other numbers, never a traceback."""
    folder, text, tensors = stored
    which = data.draw(st.sampled_from(["txt", "safetensors"]))
    raw = bytearray(text if which == "txt" else tensors)
    limit = len(raw) if which == "txt" else 3000  # the header, mostly
    at = data.draw(st.integers(0, limit - 1))
    raw[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    if data.draw(st.booleans()):
        raw = raw[:at]
    (folder / "g.txt").write_bytes(bytes(raw) if which == "txt" else text)
    (folder / "g.safetensors").write_bytes(bytes(raw) if which == "safetensors" else tensors)
    try:
        load_graph(folder, "g")
    except ArtefactError as error:
        assert str(folder) in str(error)
    else:
        assert which == "safetensors" or bytes(raw) == text
