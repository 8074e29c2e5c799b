"""Which modules are spiking neurons, and what they compute: one table, which users extend with ``register_neuron``.

Classes are known by name (module path and class), so that no framework has to be importable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nmc_compiler.errors import FrontendError, UsageError
from nmc_compiler.graph.registry import op_spec

Describe = Callable[[Any], Mapping[str, Any]]

CALLS = ("step", "sequence", "batch, sequence", "flat sequence")
"""Axes in front of a module's operand: [B], [T, B], [B, T] or [T * B]."""

GIVES = ("spikes", "spikes, v", "spikes, u, v", "spikes, state", "v, state")
"""What a module returns: its value (spikes, or the potential of an integrator), then states it is handed again."""

_RESERVED = ("op", "call", "gives")


@dataclass(frozen=True)
class Neuron:
    """What a neuron module computes: a neuron op of the graph with its attributes.

    ``values``: numbers, strings, flags, or arrays of one number per channel or element; ``call`` and ``gives``: how the
    module is called and what it returns, one of CALLS and one of GIVES.
    """

    op: str
    values: Mapping[str, Any]
    call: str = "step"
    gives: str = "spikes"


HOST_CALLS = ("step", "sequence", "batch, sequence")
_KNOWN: dict[str, Describe] = {}
_ON_HOST: dict[str, Describe] = {}
_PLAIN = ("__init__", "extra_repr", "__repr__")  # what a subclass may override and still be the same neuron


def register_neuron(cls: type | str, describe: Describe) -> None:
    """Say what neuron a class of modules is, from here on; the last word counts.

    cls: the class, or its module path and name ("my_code.neurons.MyLif").  describe: called with the module, gives the
    attributes of a neuron op (`lif` where no "op" is named; docs/tracing.md), and maybe "call" (one of CALLS) and
    "gives" (one of GIVES). A subclass that overrides no more than its constructor is the same neuron.
    """
    if not callable(describe):
        raise UsageError(f"register_neuron({cls!r}): the second argument must be a function of the module")
    _KNOWN[cls if isinstance(cls, str) else class_name(cls)] = describe


def register_host(cls: type | str, describe: Describe) -> None:
    """Say what op of the host a class of modules is, from here on (docs/host.md); the last word counts.

    cls: the class, or its module path and name.  describe: called with the module, gives "op", a host op of the graph,
    its attributes, and maybe "call", one of HOST_CALLS: the axes in front of the operands' channels.
    """
    if not callable(describe):
        raise UsageError(f"register_host({cls!r}): the second argument must be a function of the module")
    _ON_HOST[cls if isinstance(cls, str) else class_name(cls)] = describe


def describe_host(module: Any, name: str) -> tuple[str, str, dict[str, Any]] | None:
    """Op, call and attributes of a module that is one op of the host; None for any other."""
    found = next((_ON_HOST[class_name(c)] for c in type(module).__mro__ if class_name(c) in _ON_HOST), None)
    if found is None:
        return None
    where = f"'{name}' ({class_name(type(module))})"
    given = dict(found(module))
    op, call = given.pop("op", ""), given.pop("call", "step")
    if call not in HOST_CALLS:
        raise FrontendError(f"{where}: 'call' is {call!r}; it must be {' or '.join(map(repr, HOST_CALLS))}")
    spec = op_spec(op)
    if not spec.host:
        raise FrontendError(f"{where}: its op '{op}' is no op of the host")
    odd = [*(k for k in given if k not in spec.attrs), *(k for k in spec.required if k not in given)]
    if odd:
        raise FrontendError(f"{where}: op '{op}' takes {', '.join(sorted(spec.attrs))}; '{odd[0]}' is wrong or missing")
    return op, call, given


def class_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def find(module: Any) -> Describe | None:
    """The description of a module's class, or of the nearest base class whose computation it inherits unchanged."""
    _load()
    for cls in type(module).__mro__:
        found = _KNOWN.get(class_name(cls))
        if found is not None:
            return found
        if any(callable(value) and name not in _PLAIN for name, value in vars(cls).items()):
            return None
    return None


def describe(module: Any, name: str) -> Neuron | None:
    """What neuron a module is; None where it is none. FrontendError for neurons that nothing is known of."""
    found = find(module)
    where = f"'{name}' ({class_name(type(module))})"
    if found is None:
        if _is_neuron(module):
            raise FrontendError(
                f"{where} is a neuron that nmc does not know; say what it computes with "
                f"nmc.register_neuron({type(module).__name__}, lambda module: {{...}}) (docs/tracing.md)"
            )
        return None
    try:
        given = dict(found(module))
    except FrontendError as error:
        raise FrontendError(f"{where}: {error}") from None
    except Exception as error:
        raise FrontendError(f"{where}: its description failed: {type(error).__name__}: {error}") from error
    return _checked(given, where)


def _is_neuron(module: Any) -> bool:
    from nmc_compiler.frontends.trace.frameworks import PACKAGES

    paths = [cls.__module__ for cls in type(module).__mro__]
    return any(path == known or path.startswith(known + ".") for path in paths for known in PACKAGES)


def _checked(given: dict[str, Any], where: str) -> Neuron:
    op, call, gives = given.get("op", "lif"), given.get("call", "step"), given.get("gives", "spikes")
    values = {k: v for k, v in given.items() if k not in _RESERVED and v is not None}
    for what, value, allowed in (("call", call, CALLS), ("gives", gives, GIVES)):
        if value not in allowed:
            raise FrontendError(f"{where}: {what!r} is {value!r}; it must be {' or '.join(map(repr, allowed))}")
    spec = op_spec(op)
    if not spec.neuron:
        raise FrontendError(f"{where}: its op '{op}' is no neuron of the graph")
    unknown = next((k for k in values if k not in spec.attrs), None)
    if unknown is not None:
        raise FrontendError(f"{where}: op '{op}' has no '{unknown}' (it has: {', '.join(sorted(spec.attrs))})")
    missing = next((k for k in spec.required if k not in values), None)
    if missing is not None:
        raise FrontendError(f"{where}: op '{op}' needs '{missing}'")
    return Neuron(op, values, call, gives)


def _load() -> None:
    """The neurons of the frameworks, put in when something is first looked up; what a user said stays."""
    from nmc_compiler.frontends.trace import frameworks

    for name, function in frameworks.NEURONS.items():
        _KNOWN.setdefault(name, function)
