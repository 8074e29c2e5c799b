"""What the functions that a PyTorch checkpoint may call make of their arguments.

Each handler takes the names of the file (for keys, and to account for copies) and the argument tuple, which
may hold anything, and checks it. Argument orders: `torch/_utils.py` and `torch/_tensor.py` of PyTorch 2.13.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.stored_tensor import (
    ITEM_BYTES,
    MAX_DIMENSIONS,
    Lazy,
    Storage,
    StoredTensor,
    stored_tensor,
)
from nmc_compiler.frontends.torch_values import Name, Opaque, describe, short_text

if TYPE_CHECKING:
    from nmc_compiler.frontends.torch_names import TorchNames

_ENTRY_BYTES = 64  # an entry of a dict or set, about

_NOT_DENSE = {
    "torch._utils._rebuild_qtensor": ("a quantized tensor", "save tensor.dequantize(), or the float model"),
    "torch._utils._rebuild_sparse_tensor": ("a sparse tensor", "save tensor.to_dense()"),
    "torch._utils._rebuild_nested_tensor": ("a nested tensor", "save its parts one by one"),
    "torch._utils._rebuild_meta_tensor_no_storage": (
        "a tensor on the device 'meta'",
        "it has no values to read",
    ),
    "torch._utils._rebuild_wrapper_subclass": ("a tensor subclass", "save it as a plain tensor"),
    "torch._utils._rebuild_device_tensor_from_numpy": ("a tensor of another device", "save tensor.cpu()"),
}
_INERT_CALLS = ("torch.device", "torch.serialization._get_layout")


def count(value: object, what: str) -> int:
    if type(value) is not int or value < 0:
        raise FrontendError(f"{what}: {short_text(value)} is no count")
    return value


def _bad_args(what: str) -> FrontendError:
    return FrontendError(f"the pickle is damaged: wrong arguments for {what}")


def _ordered_dict(names: TorchNames, args: tuple) -> OrderedDict:
    """OrderedDict(), or OrderedDict([[key, value], ...]) as Python 2 wrote it."""
    made: OrderedDict = OrderedDict()
    if len(args) > 1 or (args and type(args[0]) is not list):
        raise _bad_args("collections.OrderedDict")
    names.spend(_ENTRY_BYTES * len(args[0]) if args else 0)
    for pair in args[0] if args else ():
        if type(pair) not in (list, tuple) or len(pair) != 2:
            raise _bad_args("collections.OrderedDict")
        names.put(made, *pair)
    return made


def _counter(names: TorchNames, args: tuple) -> dict:
    if args and (len(args) > 1 or type(args[0]) is not dict):
        raise _bad_args("collections.Counter")
    names.spend(_ENTRY_BYTES * len(args[0]) if args else 0)
    return dict(args[0]) if args else {}


def _set(names: TorchNames, args: tuple) -> set:
    if len(args) != 1 or type(args[0]) is not list:
        raise _bad_args("set")
    names.spend(_ENTRY_BYTES * len(args[0]))
    for item in args[0]:
        names.check_key(item)
    return set(args[0])


def _size(names: TorchNames, args: tuple) -> tuple[int, ...]:
    if len(args) != 1 or type(args[0]) not in (tuple, list) or len(args[0]) > MAX_DIMENSIONS:
        raise _bad_args("torch.Size")
    return tuple(count(size, "torch.Size") for size in args[0])


def _bytes(names: TorchNames, args: tuple) -> bytes:
    """Protocol 2 has no opcode for bytes: they are written as text, one Latin-1 letter per byte."""
    if len(args) != 2 or type(args[0]) is not str or args[1] not in ("latin1", "latin-1"):
        raise _bad_args("_codecs.encode or bytearray")
    names.spend(len(args[0]))
    try:
        return args[0].encode("latin-1")
    except UnicodeEncodeError:
        raise _bad_args("_codecs.encode or bytearray") from None


def _bytearray(names: TorchNames, args: tuple) -> bytes:
    if len(args) == 1 and type(args[0]) is bytes:
        return args[0]
    return _bytes(names, args) if args else b""


def _complex(names: TorchNames, args: tuple) -> complex:
    if len(args) != 2 or not all(type(part) in (int, float) for part in args):
        raise _bad_args("complex")
    try:
        return complex(*args)
    except OverflowError:
        raise _bad_args("complex") from None


def _tensor_v2(names: TorchNames, args: tuple) -> StoredTensor:
    """(storage, offset, size, stride, requires_grad, hooks[, metadata])."""
    if len(args) not in (6, 7) or not isinstance(args[0], Storage):
        raise _bad_args("torch._utils._rebuild_tensor_v2")
    _check_grad(args[4], args[0].dtype)
    metadata = args[6] if len(args) == 7 else None
    return stored_tensor(args[0], args[0].dtype, args[1], args[2], args[3], _flags(metadata, args[0].dtype))


def _tensor_v1(names: TorchNames, args: tuple) -> StoredTensor:
    if len(args) != 4:
        raise _bad_args("torch._utils._rebuild_tensor")
    return _tensor_v2(names, (*args, False, None))


def _tensor_v3(names: TorchNames, args: tuple) -> StoredTensor:
    """As v2, with the dtype as seventh argument: for dtypes that have no storage class of their own."""
    if len(args) not in (7, 8) or not isinstance(args[0], Storage):
        raise _bad_args("torch._utils._rebuild_tensor_v3")
    dtype = _dtype(args[6])
    _check_grad(args[4], dtype)
    return stored_tensor(args[0], dtype, args[1], args[2], args[3], _flags(args[7] if len(args) == 8 else None, dtype))


def _check_grad(flag: object, dtype: str) -> None:
    """Gradients mean nothing here, but PyTorch refuses a file that wants them for integers."""
    if type(flag) is not bool or (flag and not dtype.startswith(("float", "bfloat", "complex"))):
        raise FrontendError(f"the pickle is damaged: requires_grad of a tensor of {dtype} is {describe(flag)}")


def _dtype(value: object) -> str:
    name = value.text.removeprefix("torch.") if isinstance(value, Name) else ""
    if name not in ITEM_BYTES:
        raise FrontendError(f"the dtype of a tensor is {describe(value)}")
    return name


def _flags(metadata: object, dtype: str) -> Lazy:
    """Lazy views, which PyTorch stores as flags beside the unchanged numbers."""
    if metadata is None:
        return Lazy()
    if type(metadata) is not dict or len(metadata) > 2 or not set(metadata) <= {"conj", "neg"}:
        raise FrontendError(f"the metadata of a tensor is {describe(metadata)} other than 'conj' and 'neg'")
    conjugated, negated = metadata.get("conj", False) is True, metadata.get("neg", False) is True
    if (conjugated and not dtype.startswith("complex")) or (negated and dtype == "bool"):
        raise FrontendError(f"a tensor of {dtype} is marked as conjugated or negated")
    return Lazy(conjugated, negated)


def _tensor_like(value: object) -> object:
    if isinstance(value, StoredTensor) or (isinstance(value, Opaque) and value.is_tensor):
        return value
    raise FrontendError(f"the pickle is damaged: {describe(value)} where a tensor is due")


def _parameter(names: TorchNames, args: tuple) -> object:
    """(tensor, requires_grad, hooks[, state]): the tensor."""
    if len(args) not in (3, 4):
        raise _bad_args("torch._utils._rebuild_parameter")
    return _tensor_like(args[0])


def _with_attributes(names: TorchNames, args: tuple) -> object:
    """(rebuild function, class, its arguments, attributes): the tensor; attributes are not weights."""
    plain = (Name("torch.Tensor"), Name("torch.nn.parameter.Parameter"))
    if len(args) != 4 or args[1] not in plain or type(args[2]) is not tuple or args[0] == Name(_FROM_TYPE):
        raise _bad_args(_FROM_TYPE)
    return _tensor_like(names.call(args[0], args[2]))


def _moved(names: TorchNames, args: tuple) -> object:
    """(cpu tensor, dtype, device, requires_grad): for devices that PyTorch saves by way of the CPU."""
    if len(args) != 4:
        raise _bad_args("torch._utils._rebuild_device_tensor_from_cpu_tensor")
    tensor = _tensor_like(args[0])
    if isinstance(tensor, StoredTensor) and tensor.dtype != _dtype(args[1]):
        return Opaque(f"a tensor kept as {tensor.dtype} that is to become {_dtype(args[1])}", "save tensor.cpu()")
    return tensor


def _opaque(what: str, advice: str = "") -> Callable[[TorchNames, tuple], Opaque]:
    return lambda names, args: Opaque(what, advice)


_FROM_TYPE = "torch._tensor._rebuild_from_type_v2"

CALLS: dict[str, Callable[[TorchNames, tuple], object]] = {
    "collections.OrderedDict": _ordered_dict,
    "collections.Counter": _counter,
    "builtins.set": _set,
    "builtins.complex": _complex,
    "builtins.bytearray": _bytearray,
    "_codecs.encode": _bytes,
    "torch.Size": _size,
    "torch._utils._rebuild_tensor": _tensor_v1,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _moved,
    _FROM_TYPE: _with_attributes,
    **{name: _opaque(what, advice) for name, (what, advice) in _NOT_DENSE.items()},
    **{name: _opaque(name) for name in _INERT_CALLS},
}
