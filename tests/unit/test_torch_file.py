"""Checkpoints written by PyTorch are read to the same bits as by torch.load(weights_only=True)."""

import argparse
import io
import os
import pathlib
import subprocess
import sys
import time
import zipfile
from collections import Counter, OrderedDict

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.weights import read_checkpoint

torch = pytest.importorskip("torch", reason="the oracle is PyTorch: pip install 'nmc[torch]'")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # torch: beta features, deprecated storages

LAYOUTS = ("zip", "legacy")
DTYPES = [
    "float16", "float32", "float64", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "bool",
    "complex64", "complex128",
]  # fmt: skip
ONLY_IN_ZIP = ["uint16", "uint32", "uint64"]  # torch.load cannot read them in the legacy layout


def save(path, value, layout="zip", **options):
    torch.save(value, path, _use_new_zipfile_serialization=layout == "zip", **options)
    return path


def random_tensor(dtype: str, *shape: int):
    """Random bits, NaN payloads included."""
    kind = getattr(torch, dtype)
    if dtype == "bool":
        return torch.rand(*shape) > 0.5
    raw = torch.randint(0, 256, (*shape, kind.itemsize), dtype=torch.uint8)
    return raw.view(kind).reshape(shape)


def as_numpy(tensor) -> np.ndarray:
    tensor = tensor.detach().resolve_conj().resolve_neg()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def same(array: np.ndarray, tensor) -> None:
    expected = as_numpy(tensor)
    assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
    assert array.tobytes() == expected.tobytes()
    assert not array.flags.writeable and array.dtype.isnative and array.flags.aligned


def check_like_torch(path) -> dict[str, np.ndarray]:
    oracle = torch.load(path, weights_only=True, map_location="cpu")
    tensors = read_checkpoint(path).tensors
    assert list(tensors) == list(oracle)
    for key, array in tensors.items():
        same(array, oracle[key])
    return tensors


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_and_shape(tmp_path, layout, dtype):
    torch.manual_seed(0)
    base = random_tensor(dtype, 6, 8)
    state = {
        "plain": random_tensor(dtype, 3, 5),
        "scalar": random_tensor(dtype, 1)[0].clone(),
        "view of one": base[2, 3],
        "empty": random_tensor(dtype, 0),
        "empty 3d": random_tensor(dtype, 2, 0, 5),
        "transposed": base.t(),
        "columns": base[:, 1::3],
        "rows": base[::2],
        "tail": base[4:],
        "whole": base,
        "expanded": base[:, :1].expand(6, 4),
        "permuted": random_tensor(dtype, 2, 3, 4).permute(2, 0, 1),
        "channels last": random_tensor(dtype, 2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
    }
    check_like_torch(save(tmp_path / "x.pt", state, layout))


@pytest.mark.parametrize("dtype", ONLY_IN_ZIP)
def test_unsigned_dtypes(tmp_path, dtype):
    base = random_tensor(dtype, 6, 8)
    state = {"plain": base, "strided": base[1::2, ::3], "empty": base[:0]}
    check_like_torch(save(tmp_path / "x.pt", state))
    path = save(tmp_path / "l.pt", state, "legacy")
    with pytest.raises(AttributeError):
        torch.load(path, weights_only=True)
    with pytest.raises(FrontendError, match="UntypedStorage, which is not read"):
        read_checkpoint(path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bfloat16_is_widened_exactly_and_noted(tmp_path, layout):
    every = torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(torch.bfloat16)
    path = save(tmp_path / "x.pt", {"a": every, "b": torch.ones(2)}, layout)
    read = read_checkpoint(path)
    same(read.tensors["a"], every)
    assert read.notes == ["1 bfloat16 tensors read as float32, exactly; the first is 'a'"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_parameters_attributes_and_lazy_views(tmp_path, layout):
    tagged, parameter = torch.randn(3), torch.nn.Parameter(torch.randn(2, 2))
    tagged.note, parameter.note = "x", [1]
    number = torch.randn(4, dtype=torch.complex64)
    state = {
        "parameter": torch.nn.Parameter(torch.randn(2, 3)),
        "frozen": torch.nn.Parameter(torch.arange(3), requires_grad=False),
        "grad": torch.randn(2, requires_grad=True),
        "tagged": tagged,
        "tagged parameter": parameter,
        "conjugated": number.conj(),
        "negated": torch.randn(4, dtype=torch.complex64).conj().imag,
        "both": number.conj().conj(),
    }
    check_like_torch(save(tmp_path / "x.pt", state, layout))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_module_state_dict_keeps_its_order(tmp_path, layout):
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))
    state = model.state_dict()
    assert hasattr(state, "_metadata")
    check_like_torch(save(tmp_path / "x.pt", state, layout))
    check_like_torch(save(tmp_path / "r.pt", OrderedDict(reversed(state.items())), layout))


def test_tied_tensors_share_their_bytes(tmp_path):
    weight = torch.randn(64, 64)
    tensors = check_like_torch(save(tmp_path / "x.pt", {"a": weight, "b": weight.t(), "c": weight[3]}))
    assert np.shares_memory(tensors["a"], tensors["b"]) and np.shares_memory(tensors["a"], tensors["c"])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
def test_pickle_protocols_are_those_of_weights_only(tmp_path, layout, protocol):
    path = save(tmp_path / "x.pt", {"a": torch.randn(3)}, layout, pickle_protocol=protocol)
    agrees_with_torch(path)
    if protocol > 3:
        with pytest.raises(FrontendError, match=r"opcode FRAME \(protocol 4\) is refused.*weights_only"):
            read_checkpoint(path)


def agrees_with_torch(path) -> bool:
    """Both read it, to the same bits, or both refuse it."""
    try:
        torch.load(path, weights_only=True, map_location="cpu")
    except Exception:  # torch.load raises anything from RuntimeError to AttributeError
        with pytest.raises(FrontendError):
            read_checkpoint(path)
        return False
    check_like_torch(path)
    return True


def quantized():
    return torch.quantize_per_tensor(torch.randn(3), 0.1, 0, torch.qint8)


def make_loop() -> list:
    loop: list = []
    loop.append(loop)
    return loop


BESIDE = {
    "numbers": lambda: (1, -1, 2.5, 1 << 40, 1 << 300, -(1 << 300), True, None, 1j, float("nan")),
    "text": lambda: "a\u20ac\U0001f600\ud800",
    "bytes": lambda: b"\x00\xff",
    "bytearray": lambda: bytearray(b"xyz"),
    "set": lambda: {1, 2, "x"},
    "counter": lambda: Counter("aab"),
    "size": lambda: torch.Size([1, 2]),
    "dtype": lambda: torch.float8_e4m3fn,
    "device": lambda: torch.device("cuda", 1),
    "keys": lambda: {1: 2, (1, "x"): 3, None: 4, 1.5: 5, torch.float32: 6},
    "nested": lambda: [[], {}, (), ((1,), [2, {"x": 3}])],
    "optimizer": lambda: {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.randn(3)}}},
    "sparse": lambda: torch.eye(3).to_sparse(),
    "csr": lambda: torch.eye(3).to_sparse_csr(),
    "meta": lambda: torch.empty(3, device="meta"),
    "quantized": quantized,
    "storage": lambda: torch.randn(3).untyped_storage(),
    "empty bytes": lambda: b"",  # needs the global bytes: refused by both
    "frozenset": lambda: frozenset([1]),
    "path": lambda: pathlib.PurePosixPath("x"),
    "numpy scalar": lambda: np.float64(1.0),
    "numpy array": lambda: np.zeros(3),
    "function": lambda: torch.nn.functional.relu,
    "class": lambda: OrderedDict,
    "module": lambda: torch.nn.Linear(2, 2),
    "loop": make_loop,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("what", BESIDE)
def test_what_stands_beside_the_weights_is_read_or_refused_like_torch(tmp_path, layout, what):
    value = BESIDE[what]()
    state = {"w": torch.randn(4)}
    path = save(tmp_path / "x.pt", {"state_dict": state, "beside": value}, layout)
    try:
        torch.load(path, weights_only=True)
    except Exception:
        with pytest.raises(FrontendError, match=r"torch\.save\(model\.state_dict"):
            read_checkpoint(path)
        return
    read = read_checkpoint(path)
    same(read.tensors["w"], state["w"])
    assert read.notes[1].startswith("left aside: 'beside' (")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_full_models_are_refused_with_the_way_out(tmp_path, layout):
    path = save(tmp_path / "full.pt", torch.nn.Sequential(torch.nn.Linear(2, 2)), layout)
    with pytest.raises(FrontendError) as caught:
        read_checkpoint(path)
    assert "refers to 'torch.nn.modules.container.Sequential'" in str(caught.value)
    assert "torch.save(model.state_dict(), 'weights.pt')" in str(caught.value)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_namespaces_are_let_through_and_left_aside(tmp_path, layout):
    """timm stores its argparse.Namespace; torch.load needs add_safe_globals for it."""
    value = {"state_dict": {"w": torch.ones(2)}, "args": argparse.Namespace(lr=0.1, nested=[1])}
    path = save(tmp_path / "x.pt", value, layout)
    assert read_checkpoint(path).notes == [
        "weights taken from 'state_dict'",
        "left aside: 'args' (argparse.Namespace)",
    ]
    value["args"].path = pathlib.PurePosixPath("x")
    with pytest.raises(FrontendError, match="'pathlib.PurePosixPath'"):
        read_checkpoint(save(path, value, layout))


REFUSED_TENSORS = {
    "quantized": (
        quantized,
        "'w' is a quantized tensor",
    ),
    "sparse": (lambda: torch.eye(3).to_sparse(), "'w' is a sparse tensor"),
    "csr": (lambda: torch.eye(3).to_sparse_csr(), "'w' is a sparse tensor"),
    "meta": (lambda: torch.empty(3, device="meta"), "'w' is a tensor on the device 'meta'"),
    "nested": (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "'w' is a nested tensor"),
    "float8": (lambda: torch.ones(3).to(torch.float8_e5m2), r"'w': its dtype is torch\.float8_e5m2"),
    "complex32": (lambda: torch.ones(3, dtype=torch.complex32), r"'w': its dtype is torch\.complex32"),
    "storage": (lambda: torch.ones(3).untyped_storage(), "'w' in the state_dict is a bare storage"),
    "number": (lambda: 3, "'w' in the state_dict is a number"),
    "none": (lambda: None, "'w' in the state_dict is None"),
    "dict": (lambda: {"x": torch.ones(1)}, "'w' in the state_dict is a dict of 1"),
    "dtype": (lambda: torch.float32, "'w' in the state_dict is torch.float32"),
}


@pytest.mark.parametrize("what", REFUSED_TENSORS)
def test_entries_that_are_no_dense_tensors_are_named(tmp_path, what):
    make, match = REFUSED_TENSORS[what]
    path = save(tmp_path / "x.pt", {"a": torch.ones(2), "w": make()})
    with pytest.raises(FrontendError, match=match):
        read_checkpoint(path)


def test_torchscript_is_refused(tmp_path):
    path = tmp_path / "script.pt"
    with pytest.warns(Warning):
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    with pytest.raises(FrontendError, match="TorchScript"):
        read_checkpoint(path)


def rewrite(path, change):
    """Changes the records of a zip checkpoint: {name: content} -> {name: content}."""
    with zipfile.ZipFile(path) as archive:
        folder = archive.namelist()[0].split("/")[0]
        records = {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in change(records).items():
            archive.writestr(f"{folder}/{name}", content)
    return path


def test_big_endian_files(tmp_path):
    dtypes = [dtype for dtype in DTYPES if dtype != "bool"]
    state = {dtype: random_tensor(dtype, 4, 3) for dtype in dtypes} | {"bool": torch.tensor([True, False])}
    path = save(tmp_path / "x.pt", state)

    def reverse(records):
        for index, tensor in enumerate(state.values()):
            width = tensor.dtype.itemsize // (2 if tensor.is_complex() else 1)
            raw = np.frombuffer(records[f"data/{index}"], np.uint8).reshape(-1, width)
            records[f"data/{index}"] = raw[:, ::-1].tobytes()
        return records | {"byteorder": b"big"}

    tensors = check_like_torch(rewrite(path, reverse))
    for key, tensor in state.items():
        same(tensors[key], tensor)
    assert "the file is big-endian: numbers were reversed" in read_checkpoint(path).notes
    untyped = save(tmp_path / "u.pt", {"w": random_tensor("uint16", 3)})
    with pytest.raises(FrontendError, match="'w': it is uint16 in untyped storage of a big-endian file"):
        read_checkpoint(rewrite(untyped, lambda records: records | {"byteorder": b"big"}))


@pytest.mark.parametrize("missing", ["byteorder", ".format_version", ".storage_alignment", ".data/serialization_id"])
def test_records_that_older_versions_did_not_write(tmp_path, missing):
    path = save(tmp_path / "x.pt", {"a": torch.randn(3)})
    check_like_torch(rewrite(path, lambda records: {k: v for k, v in records.items() if k != missing}))


def test_files_without_checksums(tmp_path):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        path = save(tmp_path / "x.pt", {"a": torch.randn(3)})
    finally:
        torch.serialization.set_crc32_options(before)
    check_like_torch(path)
    assert "no checksum" in read_checkpoint(path).notes[0]


def test_a_file_written_to_memory_or_under_another_name(tmp_path):
    buffer = io.BytesIO()
    torch.save({"a": torch.arange(3)}, buffer)
    path = tmp_path / "\u0436 \u65e5.weird.name"
    path.write_bytes(buffer.getvalue())
    check_like_torch(path)
    check_like_torch(save(tmp_path / "\u0436 \u65e5.pt", {"a": torch.arange(3)}))


def test_golden_checkpoints(shared):
    for path in sorted(shared.glob("golden/*/model.pt")):
        check_like_torch(path)
        best = min(seconds_to_read(path) for _ in range(5))
        assert best < 0.03 * max(1, path.stat().st_size / 700e3), f"{path} took {best:.3f} s"


def seconds_to_read(path) -> float:
    start = time.perf_counter()
    read_checkpoint(path)
    return time.perf_counter() - start


def test_large_files_are_mapped_not_copied(tmp_path):
    """64 MB of weights, read in a process of its own: the peak stays where the imports left it."""
    path = save(tmp_path / "large.pt", {str(i): torch.zeros(1 << 20) for i in range(16)})
    program = f"""
import resource
from nmc_compiler.frontends.weights import read_checkpoint
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
tensors = read_checkpoint({os.fspath(path)!r}).tensors
assert len(tensors) == 16 and all(not t.flags.owndata for t in tensors.values())
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 8 << 10, "KiB"


def test_torch_is_not_imported(tmp_path):
    path = save(tmp_path / "x.pt", {"a": torch.ones(2)})
    program = (
        "import sys; from nmc_compiler.frontends.weights import read_checkpoint; "
        f"read_checkpoint({os.fspath(path)!r}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


@pytest.fixture(scope="module")
def victim(tmp_path_factory) -> dict[str, bytes]:
    """Small checkpoints without checksums, so that flipped bytes reach the pickle and the numbers."""
    state = {"a": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(7), "h": torch.ones(3, dtype=torch.half)}
    state["p"] = torch.nn.Parameter(state["a"][:, 1:])
    folder = tmp_path_factory.mktemp("victim")
    torch.serialization.set_crc32_options(False)
    try:
        return {layout: save(folder / layout, state, layout).read_bytes() for layout in LAYOUTS}
    finally:
        torch.serialization.set_crc32_options(True)


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_is_read_from_a_damaged_file_is_what_torch_reads(tmp_path, victim, layout, data):
    """Whatever torch.load refuses is refused: here on files with flipped bytes."""
    raw = bytearray(victim[layout])
    flips = st.tuples(st.integers(0, min(len(raw), 900) - 1), st.integers(0, 255))
    for at, value in data.draw(st.lists(flips, min_size=1, max_size=2)):
        raw[at] = value
    path = tmp_path / "x.pt"
    path.write_bytes(raw)
    try:
        tensors = read_checkpoint(path).tensors
    except FrontendError:
        return
    oracle = torch.load(path, weights_only=True, map_location="cpu")
    assert list(tensors) == list(oracle)
    for key, array in tensors.items():
        same(array, oracle[key])
