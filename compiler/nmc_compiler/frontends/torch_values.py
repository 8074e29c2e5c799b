"""Inert stand-ins for what a PyTorch file names, and how messages speak of them."""

from dataclasses import dataclass

from nmc_compiler.frontends.stored_tensor import Storage, StoredTensor

WAY_OUT = "save the weights alone, torch.save(model.state_dict(), 'weights.pt'), and use that file"


@dataclass(frozen=True, slots=True)
class Name:
    """An allowed name (`torch.float32`, `collections.OrderedDict`): text, not the thing it names."""

    text: str


@dataclass(slots=True, eq=False)
class Opaque:
    """Stands for an object that is known by name and of which nothing is kept; a tensor has an advice."""

    what: str
    advice: str = ""

    @property
    def is_tensor(self) -> bool:
        return bool(self.advice)


def describe(value: object) -> str:
    """What a value from a file is, in a few words and in bounded time; for messages."""
    if isinstance(value, Name):
        return value.text
    if isinstance(value, Opaque):
        return value.what
    if isinstance(value, StoredTensor):
        return "a tensor"
    if isinstance(value, Storage):
        return "a bare storage"
    if isinstance(value, dict | list | tuple | set):
        return f"a {type(value).__name__} of {len(value)}"
    if value is None or isinstance(value, bool):
        return str(value)
    kinds = {str: "a text", int: "a number", float: "a number", complex: "a complex number", bytes: "bytes"}
    return kinds.get(type(value), f"a {type(value).__name__}")


def short_text(value: object) -> str:
    """A name or number from a file as text of bounded length, or what else it is."""
    if type(value) is str:
        return repr(value[:80])
    return str(value)[:40] if type(value) is int else describe(value)
