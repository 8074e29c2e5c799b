"""Every name that a PyTorch checkpoint may use.

The list is that of `torch.load(weights_only=True)` of PyTorch 2.13 (`torch/_weights_only_unpickler.py`) less
the tensor classes of PyTorch before 0.4, plus `argparse.Namespace`, which training scripts store beside the
weights. No name is imported and no class of PyTorch is made: tensors become `StoredTensor`, what is of no use
here becomes `Opaque`, which keeps nothing but its name.
"""

from collections import OrderedDict
from collections.abc import Callable

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.stored_tensor import ITEM_BYTES, Storage
from nmc_compiler.frontends.torch_calls import CALLS, count
from nmc_compiler.frontends.torch_values import WAY_OUT, Name, Opaque, describe, short_text

MAX_OTHER_KEYS = 65_536
"""Dictionary keys that are not text. Their hashes are not seeded, so a file can make them collide."""

MAX_COPIED_BYTES = 256 << 20
"""What calls may copy in one file, about: a call can name one argument again and again for three bytes."""

MAX_KEY_PARTS = 16
"""Longest tuple that is a dictionary key."""

_STORAGE_DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
}
_QUANTIZED_STORAGES = {
    "QInt8Storage": "qint8",
    "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32",
    "QUInt4x2Storage": "quint4x2",
    "QUInt2x4Storage": "quint2x4",
}
_UNTYPED = "torch.storage.UntypedStorage"

STORAGES: dict[str, str] = {
    **{f"torch.{name}": dtype for name, dtype in (_STORAGE_DTYPES | _QUANTIZED_STORAGES).items()},
    **{f"torch.cuda.{name}": dtype for name, dtype in _STORAGE_DTYPES.items()},
    _UNTYPED: "uint8",
}

_SCALARS = (str, int, float, bool, complex, bytes, type(None))


_NAMESPACE = "argparse.Namespace"

_QSCHEMES = (
    "per_tensor_affine",
    "per_tensor_symmetric",
    "per_channel_affine",
    "per_channel_symmetric",
    "per_channel_affine_float_qparams",
)

_ALLOWED = frozenset(
    [
        *CALLS,
        *STORAGES,
        *(f"torch.{dtype}" for dtype in ITEM_BYTES),
        *(f"torch.{scheme}" for scheme in _QSCHEMES),
        "torch.Tensor",
        "torch.nn.parameter.Parameter",
        _NAMESPACE,
    ]
)


class TorchNames:
    """The names of one file. `available(key)` gives the bytes the file holds for a storage, or raises."""

    def __init__(self, available: Callable[[str], int], legacy: bool) -> None:
        self.available, self.legacy = available, legacy
        self.storages: dict[str, Storage] = {}  # whole records by key
        self.other_keys = 0
        self.copied = 0

    def find(self, module: str, attribute: str) -> Name:
        """Meaning of GLOBAL: the name itself if it is on the list, else FrontendError."""
        # Python 2 called builtins __builtin__, and protocol 2 still does.
        text = f"{'builtins' if module == '__builtin__' else module}.{attribute}"
        if text not in _ALLOWED:
            raise FrontendError(
                f"the file refers to {text!r}, which is none of the names that a state_dict needs: "
                f"refused, nothing was run. {WAY_OUT[0].upper()}{WAY_OUT[1:]}"
            )
        return Name(text)

    def call(self, function: object, args: tuple) -> object:
        """Meaning of REDUCE."""
        handler = CALLS.get(function.text) if isinstance(function, Name) else None
        if handler is None:
            raise FrontendError(f"the pickle calls {describe(function)}, which is no function. {WAY_OUT}")
        return handler(self, args)

    def new(self, cls: object, args: tuple) -> object:
        """Meaning of NEWOBJ: only argparse.Namespace() is written that way."""
        if cls != Name(_NAMESPACE) or args:
            raise FrontendError(f"the pickle makes an object of {describe(cls)}, which is refused. {WAY_OUT}")
        return Opaque(_NAMESPACE)

    def build(self, target: object, state: object) -> None:
        """Meaning of BUILD: attributes of an OrderedDict (its `_metadata`) or Namespace; none is kept."""
        attributes = type(target) is OrderedDict or (isinstance(target, Opaque) and target.what == _NAMESPACE)
        if not attributes or type(state) not in (dict, OrderedDict):
            raise FrontendError(
                f"the pickle sets the state of {describe(target)} from {describe(state)}, which is refused. {WAY_OUT}"
            )

    def put(self, target: object, key: object, value: object) -> None:
        """Meaning of SETITEM: only dictionaries take items, only scalars and tuples of them are keys."""
        if not isinstance(target, dict):
            raise FrontendError(f"the pickle is damaged: it sets an item of {describe(target)}")
        self.check_key(key)
        target[key] = value

    def spend(self, nbytes: int) -> None:
        """Accounts for a copy that a call makes."""
        self.copied += nbytes
        if self.copied > MAX_COPIED_BYTES:
            raise FrontendError(f"the pickle copies more than {MAX_COPIED_BYTES} bytes: no checkpoint needs that")

    def check_key(self, key: object) -> None:
        if type(key) is str:
            return
        self.other_keys += 1
        if self.other_keys > MAX_OTHER_KEYS:
            raise FrontendError(f"more than {MAX_OTHER_KEYS} dictionary keys are not text: no checkpoint needs that")
        # A tuple's hash visits its parts every time, so nested tuples could take for ever.
        parts = key if type(key) is tuple else (key,)
        if len(parts) > MAX_KEY_PARTS or not all(type(part) in (*_SCALARS, Name) for part in parts):
            raise FrontendError(f"a dictionary key is {describe(key)}: only text, numbers and tuples of them are read")

    def storage(self, pid: object) -> Storage:
        """Meaning of BINPERSID: ("storage", type, key, device, elements[, view of it])."""
        fields = 6 if self.legacy else 5
        if type(pid) is not tuple or len(pid) != fields or pid[0] != "storage":
            raise FrontendError(f"the pickle refers to something that is no storage: {describe(pid)}")
        dtype, key, elements = self._storage_dtype(pid[1]), pid[2], pid[4]
        if type(key) is not str or not key or any(sign in key for sign in "/\\\0"):
            raise FrontendError(f"a storage has the key {short_text(key)}: it must be a plain name")
        nbytes = count(elements, f"storage {key!r} elements") * ITEM_BYTES[dtype]
        self._check_size(key, nbytes)
        whole = self._register(Storage(key, dtype, nbytes))
        return _storage_view(whole, pid[5]) if self.legacy and pid[5] is not None else whole

    def _storage_dtype(self, storage_type: object) -> str:
        text = storage_type.text if isinstance(storage_type, Name) else ""
        if text not in STORAGES or (self.legacy and text == _UNTYPED):
            raise FrontendError(f"a storage has the type {describe(storage_type)}, which is not read. {WAY_OUT}")
        return STORAGES[text]

    def _check_size(self, key: str, nbytes: int) -> None:
        available = self.available(key)
        # A zip record holds one storage, neither more nor less; legacy storages are counted after the pickle.
        if nbytes > available or (nbytes < available and not self.legacy):
            raise FrontendError(
                f"storage {key!r} claims {short_text(nbytes)} bytes, the file holds {available}: "
                "it is truncated or damaged"
            )

    def _register(self, storage: Storage) -> Storage:
        known = self.storages.setdefault(storage.key, storage)
        same = (known.dtype, known.nbytes) == (storage.dtype, storage.nbytes)
        # Empty storages may differ: PyTorch gives views of another dtype the same key.
        if not same and known.nbytes + storage.nbytes > 0:
            raise FrontendError(
                f"storage {storage.key!r} is declared twice, as {known.nbytes} bytes of {known.dtype} "
                f"and as {storage.nbytes} bytes of {storage.dtype}"
            )
        return storage


def _storage_view(whole: Storage, view: object) -> Storage:
    """A view on part of a storage, as files of PyTorch before 0.4 have it: (key, offset, elements)."""
    if type(view) is not tuple or len(view) != 3:
        raise FrontendError(f"the view on storage {whole.key!r} is {describe(view)}")
    item = ITEM_BYTES[whole.dtype]
    start, nbytes = (count(n, f"view on storage {whole.key!r}") * item for n in view[1:])
    if start + nbytes > whole.nbytes:
        raise FrontendError(f"a view reaches outside storage {whole.key!r} of {whole.nbytes} bytes")
    return Storage(whole.key, whole.dtype, nbytes, start)
