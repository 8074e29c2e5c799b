"""Hostile, damaged and truncated checkpoints: each gives one FrontendError or arrays, never anything else.

Files are put together by hand here, so these tests need no PyTorch.
"""

import os
import struct
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends import torch_calls, torch_names, unpickle
from nmc_compiler.frontends.weights import read_checkpoint

MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
WEIGHT = np.arange(6, dtype="<f4").tobytes()


# --- an assembler of pickles -------------------------------------------------------------------------------


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def tup(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def ints(*values: int) -> bytes:
    return tup(*map(integer, values))


def storage(key="0", count=6, kind="FloatStorage", module="torch", view: bytes | None = None) -> bytes:
    parts = [text("storage"), name(module, kind), text(key), text("cpu"), integer(count)]
    return tup(*parts, *([view] if view else [])) + b"Q"


def tensor(source: bytes | None = None, offset=b"K\x00", shape=None, strides=None, tail=b"") -> bytes:
    args = [source or storage(), offset, shape or ints(2, 3), strides or ints(3, 1), b"\x89", b"}", tail]
    return name("torch._utils", "_rebuild_tensor_v2") + tup(*args) + b"R"


def state(*pairs: tuple[str, bytes]) -> bytes:
    return b"\x80\x02}(" + b"".join(text(key) + value for key, value in pairs) + b"u."


GOOD = state(("w", tensor()))


def write_zip(path: Path, pickle: bytes = GOOD, records=None, crc=True, **method) -> Path:
    """A zip as torch.save lays it out, less the alignment."""
    contents = {"data.pkl": pickle, "byteorder": b"little", "data/0": WEIGHT, "version": b"3\n"}
    with zipfile.ZipFile(path, "w", **method) as archive:
        for record, content in (contents | (records or {})).items():
            if content is not None:
                archive.writestr(f"model/{record}", content)
    if not crc:
        path.write_bytes(without_checksums(path.read_bytes()))
    return path


def without_checksums(raw: bytes) -> bytes:
    """Zeroes the checksums of the directory, as torch.serialization.set_crc32_options(False) does."""
    out = bytearray(raw)
    at = out.rfind(b"PK\x05\x06")
    pos = struct.unpack_from("<L", out, at + 16)[0]
    while out[pos : pos + 4] == b"PK\x01\x02":
        out[pos + 16 : pos + 20] = bytes(4)
        pos += 46 + sum(struct.unpack_from("<3H", out, pos + 28))
    return bytes(out)


def write_legacy(path: Path, pickle: bytes | None = None, keys: bytes | None = None, tail=None) -> Path:
    pickle = pickle if pickle is not None else state(("w", tensor(storage(view=b"N"))))
    keys = keys if keys is not None else b"\x80\x02]" + text("0") + b"a."
    tail = tail if tail is not None else struct.pack("<q", 6) + WEIGHT
    sys_info = b"\x80\x02}" + text("little_endian") + b"\x88s."
    path.write_bytes(MAGIC + b"\x80\x02M\xe9\x03." + sys_info + pickle + keys + tail)
    return path


def refused(path: Path, match: str) -> str:
    with pytest.raises(FrontendError, match=match) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert str(path) in message and len(message) < 1500 and "\n" not in message
    return message


def test_the_assembler_makes_good_files(tmp_path):
    expected = np.arange(6, dtype=np.float32).reshape(2, 3)
    for path in (write_zip(tmp_path / "z.pt"), write_legacy(tmp_path / "l.pt")):
        tensors = read_checkpoint(path).tensors
        assert list(tensors) == ["w"]
        np.testing.assert_array_equal(tensors["w"], expected)
        assert tensors["w"].dtype == np.float32 and not tensors["w"].flags.writeable


def call(function: str, *args: bytes) -> bytes:
    return name(*function.rsplit(".", 1)) + tup(*args) + b"R"


# --- code that wants to run --------------------------------------------------------------------------------

FROM_TYPE = "torch._tensor._rebuild_from_type_v2"
SIZE, TENSOR = name("torch", "Size"), name("torch", "Tensor")
TOUCH = text("touch /tmp/nmc_was_run")
EVIL = {
    "global": (b"\x80\x02" + name("posix", "system") + tup(TOUCH) + b"R.", "'posix.system'"),
    "os.system": (b"\x80\x02" + name("os", "system") + tup(TOUCH) + b"R.", "'os.system'"),
    "stack_global": (b"\x80\x04\x8c\x02os\x8c\x06system\x93" + tup(TOUCH) + b"R.", "SHORT_BINUNICODE"),
    "stack_global_2": (b"\x80\x04" + text("os") + text("system") + b"\x93)R.", "STACK_GLOBAL"),
    "inst": (b"(" + TOUCH + b"ios\nsystem\n.", "opcode INST"),
    "obj": (b"(" + name("os", "system") + TOUCH + b"o.", "'os.system'"),
    "obj_allowed_class": (b"(" + name("collections", "OrderedDict") + TOUCH + b"o.", "opcode OBJ"),
    "newobj": (b"\x80\x02" + name("subprocess", "Popen") + tup(TOUCH) + b"\x81.", "'subprocess.Popen'"),
    "newobj_allowed_function": (
        b"\x80\x02" + name("_codecs", "encode") + tup(TOUCH) + b"\x81.",
        "makes an object of _codecs.encode",
    ),
    "newobj_ex": (b"\x80\x04" + name("argparse", "Namespace") + b")}\x92.", "opcode NEWOBJ_EX"),
    "ext1": (b"\x80\x02\x82\x01.", "opcode EXT1"),
    "persid": (b"Pstorage\n.", "opcode PERSID"),
    "eval": (b"\x80\x02" + name("__builtin__", "eval") + tup(text("1")) + b"R.", "'builtins.eval'"),
    "getattr": (b"\x80\x02" + name("builtins", "getattr") + b".", "'builtins.getattr'"),
    "dotted": (b"\x80\x02" + name("torch._utils", "_rebuild_tensor_v2.__globals__") + b".", "__globals__"),
    "dotted_module": (b"\x80\x02" + name("torch", "serialization.os.system") + b".", "os.system"),
    "module_class": (b"\x80\x02" + name("torch.nn.modules.linear", "Linear") + b")\x81.", "Linear"),
    "main_class": (b"\x80\x02" + name("__main__", "Net") + b")\x81.", r"'__main__\.Net'"),
    "numpy": (b"\x80\x02" + name("numpy.core.multiarray", "_reconstruct") + b".", "_reconstruct"),
    "empty_bytes": (b"\x80\x02" + name("__builtin__", "bytes") + b")R.", "'builtins.bytes'"),
    "codec": (b"\x80\x02" + call("_codecs.encode", text("x"), text("zlib_codec")) + b".", "wrong arguments"),
    "call_text": (b"\x80\x02" + text("os.system") + tup(TOUCH) + b"R.", "which is no function"),
    "call_dtype": (b"\x80\x02" + name("torch", "float32") + b")R.", "torch.float32, which is no function"),
    "call_storage_class": (b"\x80\x02" + name("torch", "FloatStorage") + ints(9) + b"R.", "no function"),
    "call_namespace": (b"\x80\x02" + name("argparse", "Namespace") + b")R.", "no function"),
    "legacy_tensor_class": (b"\x80\x02" + name("torch", "FloatTensor") + ints(9) + b"R.", "FloatTensor"),
    "build_dict": (b"\x80\x02}}b.", "sets the state of a dict"),
    "build_name": (b"\x80\x02" + name("torch", "Tensor") + b"}b.", "sets the state of torch.Tensor"),
    "build_slots": (b"\x80\x02" + name("collections", "OrderedDict") + b")R}}\x86b.", "from a tuple"),
    "build_int": (b"\x80\x02K\x01}b.", "sets the state of a number"),
    "from_type_of_other": (b"\x80\x02" + call(FROM_TYPE, SIZE, SIZE, b")", b"}") + b".", "wrong arguments"),
    "from_type_nested": (
        b"\x80\x02" + call(FROM_TYPE, name("torch._tensor", "_rebuild_from_type_v2"), TENSOR, b")", b"}") + b".",
        "wrong arguments",
    ),
    "append_to_dict": (b"\x80\x02}K\x01a.", "appended to a dict"),
    "setitem_on_list": (b"\x80\x02]K\x01K\x02s.", "sets an item of a list"),
    "setitem_on_text": (b"\x80\x02" + text("x") + b"K\x01K\x02s.", "sets an item of a text"),
}  # fmt: skip


@pytest.mark.parametrize("case", EVIL)
def test_nothing_runs_and_the_first_refused_name_is_given(tmp_path, case):
    pickle, match = EVIL[case]
    refused(write_zip(tmp_path / "z.pt", pickle), match)
    refused(write_legacy(tmp_path / "l.pt", pickle), match)
    assert not os.path.exists("/tmp/nmc_was_run")


def test_a_refused_name_comes_with_the_way_out(tmp_path):
    pickle = b"\x80\x02" + name("torch.nn.modules.container", "Sequential") + b")\x81" + name("os", "system") + b"."
    message = refused(write_zip(tmp_path / "full.pt", pickle), "nothing was run")
    assert "'torch.nn.modules.container.Sequential'" in message and "os.system" not in message
    assert "torch.save(model.state_dict(), 'weights.pt')" in message


def test_no_opcode_beyond_those_of_weights_only_is_known():
    opcodes = "\x80cR\x81bQaesu(t\x85\x86\x87N\x88\x89)]}JKMGXU\x8ahjqr"
    assert set(unpickle._HANDLERS) == set(map(ord, opcodes))


# --- damaged pickles ---------------------------------------------------------------------------------------

BROKEN = {
    "build_tensor": (state(("w", tensor() + b"}b")), "sets the state of a tensor"),
    "append_to_tensor": (state(("w", tensor() + b"K\x01a")), "appended to a StoredTensor"),
    "empty": (b"", "without a STOP"),
    "only_protocol": (b"\x80\x02", "without a STOP"),
    "no_opcode": (b"\x80\x02\xff.", "byte 0xff is no opcode"),
    "underflow": (b"\x80\x02R.", "stack is empty"),
    "underflow_tuple": (b"\x80\x02\x87.", "stack is empty"),
    "stop_on_nothing": (b"\x80\x02.", "stops with 0 objects"),
    "two_objects": (b"\x80\x02}}.", "stops with 2 objects"),
    "open_mark": (b"\x80\x02}(.", "open marks"),
    "no_mark": (b"\x80\x02t.", "MARK is missing"),
    "put_on_nothing": (b"\x80\x02q\x00.", "stack is empty"),
    "memo_missing": (b"\x80\x02h\x07.", "memo entry 7"),
    "memo_from_inside": (b"\x80\x02(h\x00t.", "memo entry 0"),
    "long_memo_missing": (b"\x80\x02j\xff\xff\xff\xff.", "memo entry 4294967295"),
    "odd_items": (b"\x80\x02}(K\x01u.", "a key has no value"),
    "args_no_tuple": (b"\x80\x02" + name("collections", "OrderedDict") + b"]R.", "not a tuple"),
    "unhashable_key": (b"\x80\x02}]K\x01s.", "key is a list"),
    "text_too_long": (b"\x80\x02X\xff\xff\xff\xffabc.", "4294967295 bytes announced, 4 left"),
    "text_not_utf8": (b"\x80\x02X\x01\x00\x00\x00\xff.", "not UTF-8"),
    "binstring_not_utf8": (b"\x80\x02U\x01\xff.", "not UTF-8"),
    "name_without_end": (b"\x80\x02c" + b"a" * 2000, "does not end"),
    "long1_cut": (b"\x80\x02\x8a\xff\x01", "255 bytes announced"),
    "float_cut": (b"\x80\x02G\x00", "8 bytes announced"),
    "pid_text": (b"\x80\x02" + text("storage") + b"Q.", "no storage: a text"),
    "pid_module": (b"\x80\x02" + tup(text("module"), b"N", b"N", b"N", b"N") + b"Q.", "no storage"),
    "complex_huge": (b"\x80\x02" + call("builtins.complex", integer(1 << 2000), b"K\x00") + b".", "complex"),
    "set_of_lists": (b"\x80\x02" + name("__builtin__", "set") + tup(b"]]a") + b"R.", "key is a list"),
    "pairs": (b"\x80\x02" + name("collections", "OrderedDict") + tup(b"]K\x01a") + b"R.", "wrong arguments"),
    "counter": (b"\x80\x02" + name("collections", "Counter") + tup(text("aab")) + b"R.", "wrong arguments"),
    "parameter_of_text": (
        b"\x80\x02" + name("torch._utils", "_rebuild_parameter") + tup(text("w"), b"\x88", b"}") + b"R.",
        "a text where a tensor is due",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_broken_pickles(tmp_path, case):
    pickle, match = BROKEN[case]
    refused(write_zip(tmp_path / "z.pt", pickle), match)


TENSORS = {
    "beyond_storage": (tensor(shape=ints(2, 4)), "needs 32 bytes|needs 28 bytes"),
    "offset_beyond": (tensor(offset=integer(1)), "needs 28 bytes of storage '0', which has 24"),
    "stride_beyond": (tensor(strides=ints(4, 1)), "needs 28 bytes"),
    "negative_stride": (tensor(strides=ints(-3, 1)), "strides of a tensor hold -3"),
    "negative_size": (tensor(shape=ints(-2, 3)), "sizes of a tensor hold -2"),
    "negative_offset": (tensor(offset=integer(-1)), "starts at element -1"),
    "huge_size": (tensor(shape=ints(1 << 62, 3)), "needs"),
    "huger_size": (tensor(shape=ints(1 << 200, 3)), "counts below"),
    "huge_stride": (tensor(strides=ints(1 << 62, 1)), "needs"),
    "huge_expanded": (tensor(shape=ints(1 << 60, 1 << 60), strides=ints(0, 0)), "larger than any memory"),
    "large_expanded": (tensor(shape=ints(1 << 40), strides=ints(0)), "the limit for a file of"),
    "huge_empty": (tensor(shape=ints(0, 1 << 62), strides=ints(1, 1)), "larger than any memory"),
    "many_dimensions": (tensor(shape=ints(*[1] * 40), strides=ints(*[1] * 40)), "40 sizes"),
    "unequal_ranks": (tensor(shape=ints(6)), "1 sizes and 2 strides"),
    "bool_size": (tensor(shape=tup(b"\x88", b"\x88")), "sizes of a tensor hold True"),
    "float_size": (tensor(shape=tup(b"G" + struct.pack(">d", 2.0), b"K\x03")), "hold 2.0"),
    "text_offset": (tensor(offset=text("0")), "starts at element '0'"),
    "size_is_text": (tensor(shape=text("23")), "sizes of a tensor are a str"),
    "metadata": (tensor(tail=text("conj")), "metadata of a tensor"),
    "metadata_key": (tensor(tail=b"}" + text("x") + b"\x88s"), "metadata of a tensor"),
    "conjugated_real": (tensor(tail=b"}" + text("conj") + b"\x88s"), "conjugated"),
    "grad_of_ints": (tensor(storage(kind="IntStorage")).replace(b"\x89}", b"\x88}"), "requires_grad"),
    "no_storage": (tensor(b"}"), "wrong arguments"),
    "storage_too_large": (tensor(storage(count=7)), "claims 28 bytes, the file holds 24"),
    "storage_huge": (tensor(storage(count=1 << 1000)), "the file holds 24"),
    "storage_negative": (tensor(storage(count=-1)), "-1 is no count"),
    "storage_missing": (tensor(storage(key="1")), "no record 'data/1'"),
    "storage_traversal": (tensor(storage(key="../data.pkl")), "'../data.pkl': it must be a plain name"),
    "storage_absolute": (tensor(storage(key="/etc/passwd")), "must be a plain name"),
    "storage_backslash": (tensor(storage(key="..\\x")), "must be a plain name"),
    "storage_empty_key": (tensor(storage(key="")), "must be a plain name"),
    "storage_class": (tensor(storage(kind="Size")), "type torch.Size"),
    "storage_text_class": (tensor(storage().replace(name("torch", "FloatStorage"), b"N")), "type None"),
    "storage_typed_class": (tensor(storage(kind="TypedStorage", module="torch.storage")), "TypedStorage"),
    "quantized": (tensor(storage(kind="QInt8Storage", count=24)), r"'w': its dtype is torch\.qint8: quantized"),
    "storage_too_small": (tensor(storage(count=5)), "claims 20 bytes, the file holds 24"),
    "bool_byte": (tensor(storage(kind="BoolStorage", count=24), integer(6)), "bool tensor holds the byte"),
}  # fmt: skip


@pytest.mark.parametrize("case", TENSORS)
def test_absurd_tensors_are_refused_before_anything_is_allocated(tmp_path, case):
    value, match = TENSORS[case]
    refused(write_zip(tmp_path / "z.pt", state(("w", value))), match)


def test_a_storage_declared_twice_differently_is_refused(tmp_path):
    for other in (
        storage(kind="IntStorage"),
        storage(kind="UntypedStorage", module="torch.storage", count=24),
    ):
        pickle = state(("a", tensor()), ("b", tensor(other, shape=ints(1), strides=ints(1))))
        refused(write_zip(tmp_path / "z.pt", pickle), "'0' is declared twice")


def test_strides_of_single_axes_may_be_anything(tmp_path):
    value = tensor(shape=ints(1, 6), strides=ints((1 << 63) - 1, 1))
    array = read_checkpoint(write_zip(tmp_path / "z.pt", state(("w", value)))).tensors["w"]
    np.testing.assert_array_equal(array, np.arange(6, dtype=np.float32)[None])


# --- amplification: small files that want much time or memory ----------------------------------------------


def doubling_tuple(times: int) -> bytes:
    """((x, x), (x, x)) and so on: linear to build, 2^times to walk or hash."""
    return b"K\x01" + b"q\x00h\x00\x86" * times


def quickly(path: Path, match: str | None) -> None:
    start = time.monotonic()
    if match is None:
        read_checkpoint(path)
    else:
        refused(path, match)
    assert time.monotonic() - start < 20


def test_shared_tuples_are_neither_hashed_nor_walked(tmp_path):
    as_key = b"\x80\x02}" + doubling_tuple(200) + b"K\x01s."
    quickly(write_zip(tmp_path / "key.pt", as_key), "dictionary key is a tuple")
    beside = b"\x80\x02}(" + text("state_dict") + b"}" + text("w") + tensor() + b"s" + text("config")
    beside += b"}" + text("x") + doubling_tuple(200) + b"s" + text("args") + doubling_tuple(200) + b"u."
    path = write_zip(tmp_path / "config.pt", beside)
    quickly(path, None)
    read = read_checkpoint(path)
    assert read.config is None and any("nested more than 32 deep" in note for note in read.notes)


def test_recursive_objects(tmp_path):
    loop = b"\x80\x02]q\x00h\x00a."
    refused(write_zip(tmp_path / "loop.pt", loop), "holds a list of 1, not a state_dict")
    inside = b"\x80\x02}q\x00(" + text("state_dict") + b"h\x00" + text("config") + b"h\x00u."
    refused(write_zip(tmp_path / "inside.pt", inside), "no tensors")
    deep = b"\x80\x02" + b"]" + b"\x85" * 200_000 + b"."
    quickly(write_zip(tmp_path / "deep.pt", deep), "holds a tuple of 1, not a state_dict")


def test_repeated_copies_are_bounded(tmp_path):
    entries = b"]q\x00(" + b"".join(text(f"{i:06d}") for i in range(50_000)) + b"e"
    again = name("__builtin__", "set") + b"q\x01" + b"(h\x00tq\x02" + b"R" + b"h\x01h\x02R" * 20_000
    quickly(write_zip(tmp_path / "set.pt", b"\x80\x02" + entries + again + b"."), "copies more than")
    letters = name("_codecs", "encode") + b"q\x01" + tup(text("x" * 1_000_000), text("latin1")) + b"q\x02R"
    quickly(
        write_zip(tmp_path / "bytes.pt", b"\x80\x02" + letters + b"h\x01h\x02R" * 20_000 + b"."),
        "copies more than",
    )


def test_colliding_keys_are_bounded(tmp_path):
    prime = (1 << 61) - 1  # hash(k * prime) == 0 for every k
    keys = b"".join(integer(k * prime) + b"N" for k in range(1, torch_names.MAX_OTHER_KEYS // 16))
    start = time.monotonic()
    refused(write_zip(tmp_path / "some.pt", b"\x80\x02}(" + keys + b"u."), "no tensors")
    assert time.monotonic() - start < 20
    many = b"".join(integer(k) + b"N" for k in range(torch_names.MAX_OTHER_KEYS + 1))
    refused(write_zip(tmp_path / "many.pt", b"\x80\x02}(" + many + b"u."), "dictionary keys are not text")


def test_opcodes_are_bounded(tmp_path):
    quickly(
        write_zip(tmp_path / "z.pt", b"\x80\x02" + b"]" * (unpickle.MAX_OPCODES + 10)),
        "more than 4000000 opcodes",
    )


def test_long_tuple_keys_and_shapes_cost_nothing(tmp_path):
    long = b"(" + b"K\x01" * 100_000 + b"tq\x00"
    key = b"\x80\x02}" + long + b"K\x01s."
    refused(write_zip(tmp_path / "key.pt", key), "dictionary key is a tuple of 100000")
    refused(write_zip(tmp_path / "shape.pt", state(("w", tensor(shape=long)))), "100000 sizes")
    size = b"\x80\x02" + name("torch", "Size") + b"(" + long + b"tR."
    refused(write_zip(tmp_path / "size.pt", size), "wrong arguments for torch.Size")


def test_every_call_is_bounded_by_name():
    assert {n for n in torch_calls.CALLS if n.startswith("builtins.")} == {
        "builtins.set", "builtins.complex", "builtins.bytearray",
    }  # fmt: skip


# --- damaged zip archives ----------------------------------------------------------------------------------


def test_deflated_records_are_read(tmp_path):
    """torch.load reads them too; someone may have unpacked and packed the archive again."""
    path = write_zip(tmp_path / "z.pt", compression=zipfile.ZIP_DEFLATED)
    np.testing.assert_array_equal(read_checkpoint(path).tensors["w"].ravel(), np.arange(6))


def test_a_zip_bomb_is_refused(tmp_path):
    size = 80 << 20
    pickle = state(("w", tensor(storage(count=size // 4), shape=ints(1), strides=ints(1))))
    path = write_zip(tmp_path / "z.pt", pickle, {"data/0": bytes(size)}, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 200_000
    refused(path, "unpack to 83886.* the limit for this file is 67108864")


def patched_directory(path: Path, record: str, offset: int, value: bytes) -> None:
    """Overwrites a field of a directory entry."""
    raw = bytearray(path.read_bytes())
    entry = raw.rfind(f"model/{record}".encode()) - 46
    assert raw[entry : entry + 4] == b"PK\x01\x02"
    raw[entry + offset : entry + offset + len(value)] = value
    path.write_bytes(raw)


def test_a_record_that_unpacks_to_other_than_it_says_is_refused(tmp_path):
    for size in (20, 28):
        pickle = state(("w", tensor(storage(count=size // 4), shape=ints(1), strides=ints(1))))
        path = write_zip(tmp_path / "z.pt", pickle, compression=zipfile.ZIP_DEFLATED)
        patched_directory(path, "data/0", 24, struct.pack("<L", size))
        refused(path, f"'model/data/0' unpacks to other than its {size} bytes")


DIRECTORY = {
    "encrypted": (8, b"\x01\x00", "encrypted"),
    "method": (10, b"\x0e\x00", "method 14"),
    "checksum": (16, b"\x01\x02\x03\x04", r"'model/data/0' has the checksum \w{8}, 04030201"),
    "packed": (20, b"\x17", "stored in 23 bytes and claims 24"),
    "size": (24, b"\x19", "stored in 24 bytes and claims 25"),
    "size_64_missing": (24, b"\xff\xff\xff\xff", "no 64-bit sizes"),
    "header_beyond": (42, b"\xff\xff\xff\x7f", "no header at byte|overlap"),
    "header_elsewhere": (42, b"\x01\x00\x00\x00", "overlap|no header"),
    "name_length": (28, b"\x00\x40", "cut off"),
}


@pytest.mark.parametrize("case", DIRECTORY)
def test_broken_directory_entries(tmp_path, case):
    offset, value, match = DIRECTORY[case]
    path = write_zip(tmp_path / "z.pt")
    patched_directory(path, "data/0", offset, value)
    refused(path, match)


def test_overlapping_records_are_refused(tmp_path):
    path = write_zip(tmp_path / "z.pt", records={"data/1": WEIGHT})
    raw = path.read_bytes()
    first = raw.find(b"model/data/0") - 30
    patched_directory(path, "data/1", 42, struct.pack("<L", first))
    refused(path, "overlap")


def test_duplicate_records_are_refused(tmp_path):
    path = tmp_path / "z.pt"
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("model/data.pkl", GOOD)
        archive.writestr("model/data.pkl", EVIL["global"][0])
    refused(path, "two records 'model/data.pkl'")


RECORDS = {
    "torchscript": ({"constants.pkl": b"x"}, "TorchScript"),
    "no_pickle": ({"data.pkl": None}, "without data.pkl"),
    "no_version": ({"version": None}, "no record 'version'"),
    "version_zero": ({"version": b"0"}, "format version is b'0'"),
    "version_new": ({"version": b"11\n"}, "versions 1 to 10"),
    "version_text": ({"version": b"three"}, "format version"),
    "alignment": ({".storage_alignment": b"x"}, "storage alignment is b'x'"),
    "version_long": ({"version": b"1" * 1000}, "holds one word"),
    "byte_order": ({"byteorder": b"middle"}, "byte order is b'middle'"),
    "no_storage": ({"data/0": None}, "no record 'data/0'"),
    "short_storage": ({"data/0": WEIGHT[:-1]}, "claims 24 bytes, the file holds 23"),
}


@pytest.mark.parametrize("case", RECORDS)
def test_wrong_records(tmp_path, case):
    records, match = RECORDS[case]
    refused(write_zip(tmp_path / "z.pt", records=records), match)


def test_missing_checksums_are_noted_and_wrong_ones_refused(tmp_path):
    path = write_zip(tmp_path / "z.pt", crc=False)
    assert read_checkpoint(path).notes == ["4 records have no checksum, so damage to them would go unnoticed"]
    path = write_zip(tmp_path / "y.pt")
    raw = bytearray(path.read_bytes())
    raw[raw.find(WEIGHT) + 3] ^= 1
    path.write_bytes(raw)
    refused(path, "'model/data/0' has the checksum")


# --- damaged legacy files ----------------------------------------------------------------------------------

LEGACY = {
    "plain_pickle": (b"\x80\x02}.", "is a pickle of a dict of 0, not a checkpoint"),
    "plain_number": (b"\x80\x02K\x07.", "is a pickle of 7"),
    "protocol_4": (b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00}.", "opcode FRAME .protocol 4. is refused"),
    "protocol_version": (MAGIC + b"\x80\x02M\xea\x03.", "protocol version is 1002"),
    "only_magic": (MAGIC, "without a STOP"),
}


@pytest.mark.parametrize("case", LEGACY)
def test_wrong_legacy_starts(tmp_path, case):
    raw, match = LEGACY[case]
    path = tmp_path / "l.pt"
    path.write_bytes(raw)
    refused(path, match)


def test_legacy_storages(tmp_path):
    path = tmp_path / "l.pt"
    refused(write_legacy(path, keys=b"\x80\x02}."), "list of storages is a dict")
    refused(write_legacy(path, keys=b"\x80\x02]."), "lacks '0'")
    refused(write_legacy(path, keys=b"\x80\x02](" + text("0") * 2 + b"e."), "'0' twice or unannounced")
    refused(write_legacy(path, keys=b"\x80\x02]" + text("1") + b"a."), "'1' twice or unannounced")
    refused(write_legacy(path, keys=b"\x80\x02]]a."), "a list of 0 twice or unannounced")
    refused(write_legacy(path, tail=struct.pack("<q", 5) + WEIGHT), "announced with 5 elements")
    refused(write_legacy(path, tail=struct.pack("<q", -6) + WEIGHT), "announced with -6 elements")
    refused(write_legacy(path, tail=struct.pack("<q", 6) + WEIGHT[:-1]), "truncated")
    refused(write_legacy(path, tail=b""), "truncated")
    huge = state(("w", tensor(storage(count=1 << 40, view=b"N"))))
    refused(write_legacy(path, huge), "claims 4398046511104 bytes, the file holds")


def test_legacy_storage_views(tmp_path):
    """Files of PyTorch before 0.4 may give a storage as part of another one."""
    path = tmp_path / "l.pt"
    view = tup(text("v"), integer(2), integer(3))
    value = tensor(storage(view=view), shape=ints(3), strides=ints(1))
    array = read_checkpoint(write_legacy(path, state(("w", value)))).tensors["w"]
    np.testing.assert_array_equal(array, [2, 3, 4])
    outside = tup(text("v"), integer(4), integer(3))
    refused(write_legacy(path, state(("w", tensor(storage(view=outside))))), "outside storage '0'")
    beyond = tensor(storage(view=view), shape=ints(4), strides=ints(1))
    refused(write_legacy(path, state(("w", beyond))), "needs 16 bytes of storage '0', which has 12")
    refused(write_legacy(path, state(("w", tensor(storage(view=b"K\x01"))))), "the view on storage '0'")
    untyped = storage(kind="UntypedStorage", module="torch.storage", count=24, view=b"N")
    refused(write_legacy(path, state(("w", tensor(untyped)))), "UntypedStorage, which is not read")


# --- no checkpoint at all ----------------------------------------------------------------------------------

NOT_FILES = {
    "git_lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
    "html": (b"\n<!DOCTYPE html><html>", "web page"),
    "tar": (b"sys_info".ljust(257, b"\0") + b"ustar\0", "tar archive"),
    "text": (b"hello", "no checkpoint: it starts with the bytes 68 65 6c 6c 6f"),
    "one_byte": (b"\x80", "1 bytes announced, 0 left"),
    "zip_start": (b"PK\x03\x04", "directory, which stands at the end, is missing"),
    "zip_empty": (b"PK\x03\x04" + b"PK\x05\x06" + bytes(18), "0 records found|truncated"),
}  # fmt: skip


@pytest.mark.parametrize("case", NOT_FILES)
def test_other_files(tmp_path, case):
    raw, match = NOT_FILES[case]
    path = tmp_path / "x.pt"
    path.write_bytes(raw)
    refused(path, match)


def test_paths_that_are_no_files(tmp_path):
    refused(tmp_path, "it is a directory")
    refused(tmp_path / "missing.pt", "cannot be read: No such file")
    (tmp_path / "empty.pt").touch()
    refused(tmp_path / "empty.pt", "it is empty")
    refused(Path("/dev/zero"), "not a regular file")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "not a regular file")
    with pytest.raises(FrontendError, match="null byte"):
        read_checkpoint("a\0b")
    refused(write_npz(tmp_path / "x.npz"), "an .npz file")


def write_npz(path: Path) -> Path:
    np.savez(path, images=np.zeros(3))
    return path


# --- truncation and flipped bytes --------------------------------------------------------------------------


def sample_files(folder: Path) -> dict[str, Path]:
    pickle = state(("a", tensor()), ("b", tensor(storage("1", 12, "HalfStorage"), shape=ints(3), strides=ints(4))))
    records = {"data/1": WEIGHT}
    legacy = pickle.replace(text("cpu") + b"K\x06", text("cpu") + b"K\x06N").replace(
        text("cpu") + b"K\x0c", text("cpu") + b"K\x0cN"
    )
    keys = b"\x80\x02](" + text("0") + text("1") + b"e."
    tail = struct.pack("<q", 6) + WEIGHT + struct.pack("<q", 12) + WEIGHT
    return {
        "zip": write_zip(folder / "zip.pt", pickle, records),
        "unchecked": write_zip(folder / "unchecked.pt", pickle, records, crc=False),
        "deflated": write_zip(folder / "deflated.pt", pickle, records, compression=zipfile.ZIP_DEFLATED),
        "legacy": write_legacy(folder / "legacy.pt", legacy, keys, tail),
        "safetensors": write_safetensors(folder / "x.safetensors"),
    }


def write_safetensors(path: Path) -> Path:
    from safetensors.numpy import save_file

    save_file({"a": np.arange(6, dtype=np.float32), "b": np.zeros((2, 3), np.float16)}, path)
    return path


KINDS = ("zip", "unchecked", "deflated", "legacy", "safetensors")


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> dict[str, bytes]:
    files = sample_files(tmp_path_factory.mktemp("samples"))
    for path in files.values():
        assert sorted(read_checkpoint(path).tensors) == ["a", "b"]
    return {kind: path.read_bytes() for kind, path in files.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_truncation_at_every_byte_is_one_error(tmp_path, samples, kind):
    path = tmp_path / f"cut.{'safetensors' if kind == 'safetensors' else 'pt'}"
    for length in range(len(samples[kind])):
        path.write_bytes(samples[kind][:length])
        refused(path, r"\w")


def read_or_refuse(path: Path) -> None:
    try:
        tensors = read_checkpoint(path).tensors
    except FrontendError:
        return
    for array in tensors.values():
        assert isinstance(array, np.ndarray)
        array.copy()  # every element lies inside the file


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bytes_give_arrays_or_one_error(tmp_path, samples, kind, data):
    raw = bytearray(samples[kind])
    flips = st.tuples(st.integers(0, len(raw) - 1), st.integers(0, 255))
    for at, value in data.draw(st.lists(flips, min_size=1, max_size=6)):
        raw[at] = value
    path = tmp_path / "flipped.pt"
    path.write_bytes(raw)
    read_or_refuse(path)


OPCODES = [bytes([code]) for code in unpickle._HANDLERS]
PIECES = [
    tensor(),
    storage(),
    text("w"),
    integer(3),
    name("collections", "OrderedDict"),
    b")R",
    b"h\x00",
    b"q\x00",
]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(st.sampled_from([*OPCODES, *PIECES]), max_size=25))
def test_random_opcodes_give_arrays_or_one_error(tmp_path, parts):
    path = write_zip(tmp_path / "random.pt", b"\x80\x02" + b"".join(parts) + b".")
    read_or_refuse(path)


def test_zlib_is_the_checksum_of_zip():
    """The assembler writes checksums by zipfile; this pins that they are what the reader compares."""
    assert zlib.crc32(b"123456789") == 0xCBF43926
