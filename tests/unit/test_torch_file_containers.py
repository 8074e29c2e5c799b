"""Which state_dict a file holds, its config, the notes; safetensors; finite weights."""

import argparse
import hashlib
import json
import struct
from collections import OrderedDict

import numpy as np
import pytest

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.weights import Checkpoint, check_finite, read_checkpoint


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="files are written by PyTorch: pip install 'nmc[torch]'")


@pytest.fixture
def saved(torch, tmp_path):
    """Writes a value and reads the file."""

    def write_and_read(value) -> Checkpoint:
        path = tmp_path / "x.pt"
        torch.save(value, path)
        return read_checkpoint(path)

    return write_and_read


@pytest.fixture
def refused(saved):
    def check(value, match: str) -> None:
        with pytest.raises(FrontendError, match=match):
            saved(value)

    return check


def values(read: Checkpoint) -> dict[str, float]:
    return {key: float(array.ravel()[0]) for key, array in read.tensors.items()}


@pytest.fixture(scope="module")
def one(torch):
    return lambda value: torch.full((2,), float(value))


def test_bare_state_dict(saved, one, tmp_path):
    read = saved(OrderedDict(b=one(1), a=one(2)))
    assert list(read.tensors) == ["b", "a"] and values(read) == {"b": 1, "a": 2}
    assert read.config is None and read.notes == [] and read.path == tmp_path / "x.pt"
    assert read.sha256 == hashlib.sha256(read.path.read_bytes()).hexdigest()


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state"])
def test_state_dict_under_a_key(saved, one, key):
    read = saved({"epoch": 3, key: {"a": one(1)}, "optimizer": {"state": {0: one(2)}}, "arch": "net"})
    assert values(read) == {"a": 1}
    assert read.notes == [
        f"weights taken from {key!r}",
        "left aside: 'epoch' (a number), 'optimizer' (a dict of 1), 'arch' (a text)",
    ]


@pytest.mark.parametrize("ema", ["state_dict_ema", "model_ema"])
def test_the_moving_average_is_preferred_and_said(saved, one, ema):
    read = saved({"state_dict": {"a": one(1)}, ema: {"a": one(2)}, "args": argparse.Namespace(x=1)})
    assert values(read) == {"a": 2}
    assert read.notes == [
        f"weights taken from {ema!r}, the moving average, in preference to 'state_dict'; --state KEY chooses another",
        "left aside: 'args' (argparse.Namespace)",
    ]


def test_an_absent_moving_average_is_none(saved, one):
    read = saved({"state_dict": {"a": one(1)}, "state_dict_ema": None})
    assert values(read) == {"a": 1}
    assert read.notes == ["weights taken from 'state_dict'", "left aside: 'state_dict_ema' (None)"]


def test_two_candidates_are_not_guessed_between(refused, one):
    both = {"state_dict": {"a": one(1)}, "model": {"a": one(2)}}
    refused(both, r"under each of \['state_dict', 'model'\]: name the one that is meant with --state")
    averages = {"state_dict_ema": {"a": one(1)}, "model_ema": {"a": one(2)}, "model": {"a": one(3)}}
    refused(averages, r"under each of \['state_dict_ema', 'model_ema'\]")


def test_the_state_dict_that_is_asked_for(saved, one):
    """In place of the moving average, or of two candidates; one that is not there is refused."""
    three = {"state_dict": {"a": one(1)}, "model": {"a": one(2)}, "state_dict_ema": {"a": one(3)}, "epoch": 9}
    path = saved(three).path
    for key, value, others in (
        ("state_dict", 1, "'state_dict_ema', 'model'"),
        ("model", 2, "'state_dict_ema', 'state_dict'"),
        ("state_dict_ema", 3, "'state_dict', 'model'"),
    ):
        read = read_checkpoint(path, key)
        average = ", the moving average," if key.endswith("ema") else ""
        assert values(read) == {"a": value}
        assert read.notes == [
            f"weights taken from {key!r}{average} in preference to {others}; --state KEY chooses another",
            "left aside: 'epoch' (a number)",
        ]
    with pytest.raises(FrontendError, match=r"it holds no state_dict under 'net' \(--state\); those it holds are"):
        read_checkpoint(path, "net")
    with pytest.raises(FrontendError, match="those it holds are none: it is a bare state_dict"):
        read_checkpoint(saved({"a": one(1)}).path, "state_dict")


def test_many_other_entries_are_counted(saved, one):
    read = saved({"model": {"a": one(1)}} | {f"k{i:02d}": i for i in range(20)})
    assert read.notes[1].endswith("'k11' (a number) and 8 more")


def test_a_layer_called_model_is_no_container(saved, one):
    assert values(saved({"model": one(1), "state_dict": one(2)})) == {"model": 1, "state_dict": 2}


@pytest.mark.parametrize("prefixes", [["module."], ["_orig_mod."], ["module._orig_mod.", "module."]])
def test_uniform_prefixes_are_removed(saved, one, prefixes):
    read = saved({f"{prefixes[0]}a": one(1), f"{prefixes[0]}b.module.c": one(2)})
    assert list(read.tensors) == ["a", "b.module.c"]
    assert read.notes[0] == f"prefix {prefixes[-1]!r} removed from all 2 keys"


def test_a_prefix_of_some_keys_stays(saved, one):
    read = saved({"module.a": one(1), "b": one(2)})
    assert list(read.tensors) == ["module.a", "b"] and read.notes == []
    assert list(saved({"module.module.a": one(1)}).tensors) == ["module.a"]


def test_config_beside_the_state_dict(saved, one):
    config = {"T": 4, "pooling": "0011", "size": (32, 32), "mean": [0.5], "deep": {"x": None, "y": True}}
    read = saved({"state_dict": {"a": one(1)}, "config": config})
    assert read.config == config | {"size": [32, 32]}
    assert read.notes == ["weights taken from 'state_dict'"]
    assert saved({"model": {"a": one(1)}, "config": OrderedDict(T=4)}).config == {"T": 4}
    assert saved({"model": {"a": one(1)}, "config": None}).config is None


NOT_PLAIN = {
    "tensor": (lambda torch: {"x": [torch.ones(1)]}, "it holds a tensor, which is not plain data"),
    "namespace": (lambda torch: {"x": argparse.Namespace(T=4)}, "it holds argparse.Namespace, which"),
    "dtype": (lambda torch: {"x": torch.float32}, "it holds torch.float32, which"),
    "device": (lambda torch: {"x": torch.device("cpu")}, "it holds torch.device, which"),
    "bytes": (lambda torch: {"x": b"y"}, "it holds bytes, which"),
    "complex": (lambda torch: {"x": 1j}, "it holds a complex number, which"),
    "set": (lambda torch: {"x": {1}}, "it holds a set of 1, which"),
    "key": (lambda torch: {4: "x"}, "it holds a key that is a number, which"),
    "whole": (lambda torch: argparse.Namespace(T=4), "it is argparse.Namespace, not a dict of plain data"),
    "path": (lambda torch: "conf.yaml", "it is a text, not a dict of plain data"),
    "deep": (lambda torch: nested(40), "it holds data nested more than 32 deep, which"),
    "large": (lambda torch: {"x": list(range(200_000))}, "it holds more than 100000 values, which"),
    "shared": (lambda torch: {"x": widely_shared()}, "it holds more than 100000 values, which"),
}


def nested(depth: int) -> dict:
    return {"x": nested(depth - 1)} if depth else {}


def widely_shared() -> list:
    wide = [dict.fromkeys(map(str, range(1000)), 1)]
    return wide * 1000


@pytest.mark.parametrize("what", NOT_PLAIN)
def test_a_config_that_is_not_plain_data_is_left_aside_with_the_reason(saved, torch, one, what):
    make, reason = NOT_PLAIN[what]
    read = saved({"state_dict": {"a": one(1)}, "config": make(torch)})
    assert read.config is None
    assert read.notes[1].startswith(f"'config' left aside: {reason}")


def test_files_without_a_state_dict(refused, one, torch):
    refused(one(1), "holds a tensor, not a state_dict: save one with torch.save")
    refused([one(1)], "holds a list of 1, not a state_dict")
    refused({}, "no tensors: its keys are none")
    refused({"a": 1, "b": "x"}, "no tensors: its keys are 'a', 'b'. A state_dict is read at the top level or")
    refused({"weights": {"a": one(1)}}, "no tensors: its keys are 'weights'")
    refused({"state_dict": {}, "a": one(1)}, "no tensors: its keys are none")


def test_entries_that_are_no_tensors_are_named(refused, one):
    refused({"a": one(1), "epoch": 3}, "'epoch' in the state_dict is a number, not a tensor: remove it")
    refused({"model": {"a": one(1), "config": {"T": 4}}}, "'config' in the state_dict is a dict of 1")
    refused({"a": one(1), 7: one(2)}, "a key of the state_dict is 7, which is not text")
    refused({"a": one(1), ("b", 1): one(2)}, "a key of the state_dict is a tuple of 2")
    refused({"a": one(1), "\ud800": one(2)}, r"key of the state_dict is '\\ud800', which is not text")


def test_long_keys_do_not_flood_the_message(refused, one):
    refused({"a": one(1), "k" * 5000: 3}, r": 'k{80}' in the state_dict is a number")


# --- safetensors -------------------------------------------------------------------------------------------


def raw_safetensors(path, header: dict | bytes, data: bytes = b"", length: int | None = None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def test_safetensors_are_read_in_file_order(tmp_path):
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    tensors = {
        name: rng.integers(0, 2, (3, 4)).astype(name)
        for name in [
            "float16",
            "float32",
            "float64",
            "int8",
            "int16",
            "int32",
            "int64",
            "uint8",
            "uint16",
            "uint32",
            "uint64",
            "bool",
        ]
    }
    tensors |= {"scalar": np.array(3, np.float32), "empty": np.zeros((0, 4), np.float32)}
    path = tmp_path / "x.safetensors"
    save_file(tensors, path)
    read = read_checkpoint(path)
    assert sorted(read.tensors) == sorted(tensors)
    starts = [array.ctypes.data for array in read.tensors.values() if array.size]
    assert starts == sorted(starts)
    for key, array in read.tensors.items():
        np.testing.assert_array_equal(array, tensors[key])
        assert (array.dtype, array.shape) == (tensors[key].dtype, tensors[key].shape)
        assert not array.flags.writeable and (array.size == 0 or not array.flags.owndata)


@pytest.mark.parametrize("padding", range(0, 264, 8))
def test_a_header_of_any_length_is_safetensors(tmp_path, padding):
    from safetensors.numpy import save_file

    path = tmp_path / "model.pt"  # lengths of 128 mod 256 start with 0x80, as a pickle does
    save_file({"w": np.arange(3.0)}, path, metadata={"pad": "x" * padding})
    assert read_checkpoint(path).tensors["w"].tolist() == [0.0, 1.0, 2.0]


def test_safetensors_written_by_torch(torch, tmp_path):
    from safetensors.torch import save_file

    state = {"h": torch.randn(3, 4).bfloat16(), "c": torch.randn(2, dtype=torch.complex64), "w": torch.randn(2, 3)}
    path = tmp_path / "x.bin"  # the content decides, not the suffix
    save_file({f"module.{key}": value for key, value in state.items()}, path, metadata={"format": "pt"})
    read = read_checkpoint(path)
    for key, value in state.items():
        expected = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
        assert read.tensors[key].tobytes() == expected.tobytes()
    assert read.notes == [
        "prefix 'module.' removed from all 3 keys",
        "1 bfloat16 tensors read as float32, exactly; the first is 'h'",
    ]


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
SAFETENSORS = {
    "short": ({"a": ENTRY}, b"1234567", "no valid safetensors file"),
    "long": ({"a": ENTRY}, b"123456789", "no valid safetensors file"),
    "gap": ({"a": ENTRY, "b": ENTRY | {"data_offsets": [12, 20]}}, bytes(20), "no valid safetensors file"),
    "overlap": ({"a": ENTRY, "b": ENTRY | {"data_offsets": [4, 12]}}, bytes(12), "no valid safetensors file"),
    "shape": ({"a": ENTRY | {"shape": [3]}}, bytes(8), "no valid safetensors file"),
    "overflow": ({"a": ENTRY | {"shape": [1 << 63, 1 << 63]}}, bytes(8), "no valid safetensors file"),
    "negative": ({"a": ENTRY | {"shape": [-2]}}, bytes(8), "no valid safetensors file"),
    "unknown_dtype": ({"a": ENTRY | {"dtype": "Q4"}}, bytes(8), "no valid safetensors file"),
    "float8": ({"a": ENTRY | {"dtype": "F8_E4M3", "shape": [8]}}, bytes(8), "'a' has the dtype F8_E4M3"),
    "not_json": (b"{abc", b"", "no valid safetensors file"),
    "empty": ({}, b"", "no tensors"),
}  # fmt: skip


@pytest.mark.parametrize("case", SAFETENSORS)
def test_wrong_safetensors(tmp_path, case):
    header, data, match = SAFETENSORS[case]
    path = raw_safetensors(tmp_path / "x.safetensors", header, data)
    with pytest.raises(FrontendError, match=match) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)


def test_a_safetensors_header_longer_than_the_file(tmp_path):
    path = raw_safetensors(tmp_path / "x.safetensors", {"a": ENTRY}, bytes(8), length=1 << 40)
    with pytest.raises(FrontendError, match="no valid safetensors file"):
        read_checkpoint(path)
    path.write_bytes(b"abc")
    with pytest.raises(FrontendError, match="no valid safetensors file"):
        read_checkpoint(path)


def test_unaligned_safetensors_are_copied_to_alignment(tmp_path):
    header = json.dumps({"a": ENTRY}).encode()
    header += b" " * (7 - len(header) % 8)
    path = raw_safetensors(tmp_path / "x.safetensors", header, np.array([1, 2], "<f4").tobytes())
    array = read_checkpoint(path).tensors["a"]
    np.testing.assert_array_equal(array, [1, 2])
    assert array.flags.aligned and not array.flags.writeable


# --- finite weights ----------------------------------------------------------------------------------------


def test_finite_weights_pass():
    check_finite({"a": np.ones((2, 3), np.float32), "n": np.array(7), "e": np.zeros((0, 2)), "b": np.array(True)})


def test_not_finite_weights_are_named_counted_and_placed():
    good, bad = np.ones((2, 3), np.float32), np.ones((4, 3), np.float32)
    bad[1, 2], bad[2, 0], bad[3, 1] = np.nan, np.inf, -np.inf
    with pytest.raises(FrontendError) as caught:
        check_finite({"good": good, "bad": bad})
    assert str(caught.value) == (
        "tensor 'bad' of shape (4, 3) has 1 NaN and 2 infinite values, the first at (1, 2): such a network "
        "computes nothing; use a checkpoint from before training diverged"
    )
    with pytest.raises(FrontendError, match=r"'bad'.*the first at \(1, 2\) \(1 other tensors too\)"):
        check_finite({"bad": bad, "scalar": np.array(np.nan)})
    with pytest.raises(FrontendError, match=r"1 NaN and 0 infinite values, the first at \(\)"):
        check_finite({"scalar": np.array(np.nan)})
    with pytest.raises(FrontendError, match="1 NaN and 1 infinite"):
        check_finite({"c": np.array([complex(0, np.nan), complex(np.inf, 0)])})
    with pytest.raises(FrontendError, match=r"1 NaN and 1 infinite values, the first at \(0, 2\)"):
        check_finite({"strided": bad.T[1:, 1:]})
