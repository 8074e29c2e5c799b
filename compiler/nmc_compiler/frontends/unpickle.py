"""Reads one pickle without being able to run anything.

This is an interpreter of our own for the opcodes that `torch.save` writes (pickle protocols 2 and 3), not a
subclass of `pickle.Unpickler`: a name in the file is looked up in `TorchNames`, never imported, and the only
functions reached are the handlers of that table. The opcodes are those that `torch.load(weights_only=True)`
of PyTorch 2.13 knows, less EMPTY_SET, which no protocol below 4 writes; what it refuses is refused here.
Opcode meanings: CPython `Lib/pickletools.py`.
"""

import pickletools
import struct
from collections.abc import Callable
from mmap import mmap

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.torch_names import TorchNames

MAX_OPCODES = 4_000_000
"""Bound on time and memory. A checkpoint spends about 40 opcodes per tensor: room for 100 000 tensors."""

MAX_NAME_BYTES = 512
"""Longest module or attribute name of a GLOBAL."""

_STOP = ord(".")


class _Machine:
    """The stack, memo and read position of one pickle that starts at `pos` and must stop before `end`."""

    def __init__(self, data: bytes | mmap, pos: int, end: int, names: TorchNames) -> None:
        self.data, self.pos, self.end, self.names = data, pos, end, names
        self.start = pos
        self.stack: list[object] = []
        self.outer: list[list[object]] = []  # stacks set aside by MARK
        self.memo: dict[int, object] = {}

    def damaged(self, what: str) -> FrontendError:
        return FrontendError(
            f"the pickle is damaged at byte {self.pos - self.start} of it: {what}. "
            "Copy or download the file again, or save it again with torch.save"
        )

    def take(self, count: int) -> bytes:
        if count > self.end - self.pos:
            raise self.damaged(f"{count} bytes announced, {self.end - self.pos} left")
        taken = self.data[self.pos : self.pos + count]
        self.pos += count
        return taken

    def line(self) -> str:
        stop = self.data.find(b"\n", self.pos, min(self.end, self.pos + MAX_NAME_BYTES))
        if stop < 0:
            raise self.damaged(f"a name does not end within {MAX_NAME_BYTES} bytes")
        text = self.text(self.take(stop - self.pos), "strict")
        self.pos += 1
        return text

    def text(self, raw: bytes, errors: str) -> str:
        try:
            return raw.decode("utf-8", errors)
        except UnicodeDecodeError:
            raise self.damaged("a text is not UTF-8") from None

    def pop(self) -> object:
        if not self.stack:
            raise self.damaged("the stack is empty")
        return self.stack.pop()

    def top(self) -> object:
        if not self.stack:
            raise self.damaged("the stack is empty")
        return self.stack[-1]

    def pop_mark(self) -> list[object]:
        if not self.outer:
            raise self.damaged("a MARK is missing")
        items, self.stack = self.stack, self.outer.pop()
        return items

    def pop_args(self) -> tuple:
        args = self.pop()
        if type(args) is not tuple:
            raise self.damaged(f"arguments are a {type(args).__name__}, not a tuple")
        return args

    def run(self) -> object:
        handlers = _HANDLERS
        for _ in range(MAX_OPCODES):
            if self.pos >= self.end:
                raise self.damaged("it ends without a STOP")
            code = self.data[self.pos]
            self.pos += 1
            if code == _STOP:
                break
            handler = handlers.get(code)
            if handler is None:
                raise FrontendError(_refused_opcode(code))
            handler(self)
        else:
            raise FrontendError(f"the pickle has more than {MAX_OPCODES} opcodes: no checkpoint needs that many")
        if self.outer or len(self.stack) != 1:
            raise self.damaged(f"it stops with {len(self.stack)} objects and {len(self.outer)} open marks")
        return self.stack[0]


def _refused_opcode(code: int) -> str:
    known = {opcode.code: opcode for opcode in pickletools.opcodes}.get(chr(code))
    if known is None:
        return f"the pickle is damaged: byte 0x{code:02x} is no opcode. Copy or download the file again"
    return (
        f"pickle opcode {known.name} (protocol {known.proto}) is refused, as torch.load(weights_only=True) "
        "refuses it: save the weights again with torch.save(model.state_dict(), 'weights.pt'), in protocol 2"
    )


def _global(m: _Machine) -> None:
    module = m.line()
    m.stack.append(m.names.find(module, m.line()))


def _reduce(m: _Machine) -> None:
    args = m.pop_args()
    m.stack.append(m.names.call(m.pop(), args))


def _newobj(m: _Machine) -> None:
    args = m.pop_args()
    m.stack.append(m.names.new(m.pop(), args))


def _build(m: _Machine) -> None:
    state = m.pop()
    m.names.build(m.top(), state)


def _persistent(m: _Machine) -> None:
    m.stack.append(m.names.storage(m.pop()))


def _append(m: _Machine) -> None:
    item = m.pop()
    _target_list(m).append(item)


def _appends(m: _Machine) -> None:
    items = m.pop_mark()
    _target_list(m).extend(items)


def _target_list(m: _Machine) -> list:
    target = m.top()
    if type(target) is not list:
        raise m.damaged(f"items are appended to a {type(target).__name__}")
    return target


def _setitem(m: _Machine) -> None:
    value, key = m.pop(), m.pop()
    m.names.put(m.top(), key, value)


def _setitems(m: _Machine) -> None:
    items = m.pop_mark()
    if len(items) % 2:
        raise m.damaged("a key has no value")
    target = m.top()
    for at in range(0, len(items), 2):
        m.names.put(target, items[at], items[at + 1])


def _mark(m: _Machine) -> None:
    m.outer.append(m.stack)
    m.stack = []


def _tuple(m: _Machine) -> None:
    items = m.pop_mark()
    m.stack.append(tuple(items))


def _short_tuple(length: int) -> Callable[[_Machine], None]:
    def handler(m: _Machine) -> None:
        if len(m.stack) < length:
            raise m.damaged("the stack is empty")
        m.stack[-length:] = [tuple(m.stack[-length:])]

    return handler


def _constant(value: object) -> Callable[[_Machine], None]:
    return lambda m: m.stack.append(value)


def _number(layout: str) -> Callable[[_Machine], None]:
    reader = struct.Struct(layout)
    return lambda m: m.stack.append(reader.unpack(m.take(reader.size))[0])


def _binunicode(m: _Machine) -> None:
    length = int.from_bytes(m.take(4), "little")
    m.stack.append(m.text(m.take(length), "surrogatepass"))


def _short_binstring(m: _Machine) -> None:
    # Python 2 wrote its str this way; torch.load decodes them as UTF-8 by default.
    m.stack.append(m.text(m.take(m.take(1)[0]), "strict"))


def _long1(m: _Machine) -> None:
    m.stack.append(int.from_bytes(m.take(m.take(1)[0]), "little", signed=True))


def _get(width: int) -> Callable[[_Machine], None]:
    def handler(m: _Machine) -> None:
        index = int.from_bytes(m.take(width), "little")
        if index not in m.memo:
            raise m.damaged(f"memo entry {index} does not exist")
        m.stack.append(m.memo[index])

    return handler


def _put(width: int) -> Callable[[_Machine], None]:
    def handler(m: _Machine) -> None:
        m.memo[int.from_bytes(m.take(width), "little")] = m.top()

    return handler


def _protocol(m: _Machine) -> None:
    m.take(1)  # the opcodes decide what is read, as in torch.load


_HANDLERS: dict[int, Callable[[_Machine], None]] = {
    ord(code): handler
    for code, handler in {
        "\x80": _protocol,
        "c": _global,
        "R": _reduce,
        "\x81": _newobj,
        "b": _build,
        "Q": _persistent,
        "a": _append,
        "e": _appends,
        "s": _setitem,
        "u": _setitems,
        "(": _mark,
        "t": _tuple,
        "\x85": _short_tuple(1),
        "\x86": _short_tuple(2),
        "\x87": _short_tuple(3),
        "N": _constant(None),
        "\x88": _constant(True),
        "\x89": _constant(False),
        ")": _constant(()),
        "]": lambda m: m.stack.append([]),
        "}": lambda m: m.stack.append({}),
        "J": _number("<i"),
        "K": _number("<B"),
        "M": _number("<H"),
        "G": _number(">d"),
        "X": _binunicode,
        "U": _short_binstring,
        "\x8a": _long1,
        "h": _get(1),
        "j": _get(4),
        "q": _put(1),
        "r": _put(4),
    }.items()
}


def unpickle(data: bytes | mmap, pos: int, end: int, names: TorchNames) -> tuple[object, int]:
    """Reads the pickle that starts at byte `pos` of `data`; returns its object and the byte after it.

    Raises FrontendError for a refused name or opcode, damage, or a pickle that runs past `end`.
    """
    machine = _Machine(data, pos, end, names)
    return machine.run(), machine.pos
