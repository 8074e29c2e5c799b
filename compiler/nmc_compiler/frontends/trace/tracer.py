"""Runs a module on addresses: names its modules, knows its parameters, puts one value where each neuron fires."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.trace import ops, tape
from nmc_compiler.frontends.trace.host import AT_HOST, module_call
from nmc_compiler.frontends.trace.lines import skipped
from nmc_compiler.frontends.trace.places import layout, sample_shape, whole
from nmc_compiler.frontends.trace.recurrence import candidates, recognise
from nmc_compiler.frontends.trace.registry import Neuron, class_name, describe, describe_host
from nmc_compiler.frontends.trace.symbol import Symbol, dispatch
from nmc_compiler.frontends.trace.tape import LOCAL, NOTHING, Const, StopTrace, Tape, Value, constant
from nmc_compiler.frontends.trace.timesteps import find_axes
from nmc_compiler.graph.types import Kind, Shape

SKIPPED = skipped()
STATELESS = ("multilevel",)  # neuron ops that keep nothing between timesteps
TABLES = ("theta_t", "gain_t", "bias_t")
GRADED = ("multilevel", "ilif")
SINGLE = (torch.float32, torch.float16, torch.bfloat16)  # of which float32 holds every number
FLOATS = (torch.float32, torch.float64)


def at_rest(neuron: Neuron, name: str) -> Neuron:
    """What an ``ilif`` sends from rest: no more than its current at that timestep counts."""
    theta, gain, rounding = (neuron.values.get(k, d) for k, d in (("theta", 1.0), ("gain", 1.0), ("rounding", "")))
    kept = {k: neuron.values[k] for k in ("levels", "norm", "rounding") if k in neuron.values}
    if not isinstance(theta, float) or not isinstance(gain, float) or rounding not in ("half_even", "half_up"):
        raise FrontendError(f"'{name}' is called with all timesteps at once, and takes one; call it step by step")
    return replace(neuron, op="multilevel", values=kept | ({"gain": gain / theta} if gain != theta else {}))


def how_to_register(kind: str) -> str:
    """What a user can do about a neuron class that was not recognised."""
    return (
        f"if {kind} is a spiking neuron, say what it computes before it is traced, such as nmc.register_neuron({kind}, "
        'lambda module: {"op": "lif", "tau": 2.0, "theta": 1.0, "decay_input": True, "compare": "ge", "reset": "hard", '
        '"call": "sequence"}) (docs/tracing.md)'
    )


class State:
    """What a neuron that returns its state hands out: good for nothing but to be handed back."""

    def __init__(self, name: str) -> None:
        self.name = name


class Tracer(TorchDispatchMode):
    """One trace of ``module``: the mode under which it runs."""

    def __init__(self, module: torch.nn.Module, host: bool = False) -> None:
        """``host``: ops of real numbers are the host's, and not refused."""
        super().__init__()
        self.module, self.done, self.host = module, False, host
        self.products: dict[int, Any] = {}  # products of codes and a number for each token, by where they are
        self.tape = Tape(where=self.here)
        self.names = {id(m): name for name, m in reversed(list(module.named_modules()))}
        self.stack: list[tuple[str, str]] = []
        self.calls: Counter[str] = Counter()
        self.rank = 0  # most axes of an operand of a neuron without state
        self.longest = 0  # timesteps in one call of a neuron
        self.parameters = {
            t.untyped_storage().data_ptr(): name
            for name, t in [*module.named_buffers(), *module.named_parameters()]
            if t.numel()
        }
        self.used: set[str] = set()
        self.ran = 0  # ops of PyTorch
        self.odd: dict[str, list[str]] = {}  # dtypes that are not of single or double precision: parameters
        self.rested: set[str] = set()  # neurons of one step that were called with all timesteps at once
        self.alone = False  # whether a module is looked at by itself (``recurrence``)
        self.recognised: dict[str, str] = {}  # what was found out -> the last module of which
        self.unknown: list[str] = []  # classes of loops that may be neurons, and are none that an op computes
        self.consts: dict[Any, tuple[torch.Tensor, Const]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        flat = tree_flatten((args, kwargs or {}))[0]
        self.ran += 1
        if self.ran > tape.MAX_OPS:
            raise StopTrace(f"{self.here()}: more than {tape.MAX_OPS} ops of PyTorch were run: a loop without end")
        traced = False
        for x in flat:
            if isinstance(x, Symbol):
                traced = True
            elif isinstance(x, torch.Tensor) and x.layout is torch.strided:
                self._use(x)
        return dispatch(self, func, args, kwargs or {}) if traced else func(*args, **(kwargs or {}))

    def _use(self, x: torch.Tensor) -> str:
        name = self.parameters.get(x.untyped_storage().data_ptr(), "")
        self.used.add(name)
        if name and x.dtype not in FLOATS and not name.endswith("num_batches_tracked"):
            self.odd.setdefault(str(x.dtype).removeprefix("torch."), []).append(name)
        return name

    # ---- between addresses and tensors ----

    def addr(self, x: Symbol) -> np.ndarray:
        return x.addr.numpy()

    def symbol(self, addr: np.ndarray, like: Symbol, dtype: torch.dtype | None = None) -> Symbol:
        return Symbol(torch.from_numpy(np.require(addr, requirements=["C", "W"])), self, dtype or like.dtype)

    def const(self, x: torch.Tensor | None, role: str = "") -> Const | None:
        """A tensor that a value is computed with; named after the parameter it is, else after its module."""
        if x is None:
            return None
        key = (x.untyped_storage().data_ptr(), x.storage_offset(), tuple(x.shape), x.stride(), x._version)
        if key not in self.consts:
            name = self._use(x)
            if name and x.numel() != self._parameter(name).numel():
                name = f"{self.tape.module}.{role}"  # a part of a parameter
            exact = torch.float32 if x.dtype in SINGLE else torch.float64
            array = x.detach().to(exact).cpu().numpy()
            self.consts[key] = (x, constant(array, name or f"{self.tape.module}.{role}"))
        return self.consts[key][1]

    def _parameter(self, name: str) -> torch.Tensor:
        owner, _, leaf = name.rpartition(".")
        return getattr(self.module.get_submodule(owner), leaf)

    def plain(self, x: torch.Tensor) -> torch.Tensor:
        """Addresses of ordinary numbers: none for zeros, a constant's for others."""
        array = x.detach().double().cpu().numpy()
        if not array.any():
            return torch.full(array.shape, NOTHING, dtype=torch.int64)
        made = self.tape.add("const", (), (array.size, 1, 1), Kind.CURRENT, by=constant(array.reshape(-1)))
        addr = np.where(array.reshape(-1) == 0, NOTHING, ops.at(made, np.arange(array.size)))
        return torch.from_numpy(addr.reshape(array.shape))

    def affine(self, op: str, x: Symbol, numbers: Any) -> Symbol:
        name = ""
        if isinstance(numbers, torch.Tensor):
            name = self._use(numbers)
            numbers = numbers.detach().double().cpu().numpy()
        array = np.asarray(numbers, np.float64)
        if op == "bias" and array.any() and (self.addr(x) == NOTHING).all():
            shape = np.broadcast_shapes(tuple(x.shape), array.shape)
            return Symbol(
                self.plain(torch.from_numpy(np.ascontiguousarray(np.broadcast_to(array, shape)))), self, x.dtype
            )
        return self.symbol(ops.affine(self.tape, op, self.addr(x), array, name), x)

    # ---- where we are ----

    def here(self) -> str:
        """The user's line that is being run, and the module it is in."""
        frame: Any = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename.startswith(SKIPPED):
            frame = frame.f_back
        line = "?" if frame is None else f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
        return f"{line}, in '{self.stack[-1][0]}'" if self.stack and self.stack[-1][0] else line

    def refusal(self, op: str) -> str:
        """An op that no graph op stands for."""
        kind = self.stack[-1][1] if self.stack else ""
        return (
            f"{self.here()} ({kind}): {op} is not lowered: it is no linear map, pool, mask or product of spikes; "
            f"{how_to_register(kind)}"
            + ("" if self.host or op not in AT_HOST else "; --allow host leaves it to the host (docs/host.md)")
        )

    # ---- running ----

    def run(self, example: Symbol) -> Any:
        """Call the module; its neurons are replaced, and put back behind it."""
        with self._patched(), self._named(), torch.no_grad(), self:
            result = self.module(example)
        self.done = True
        return result

    @contextmanager
    def _named(self) -> Iterator[None]:
        def enter(module: torch.nn.Module, _: Any) -> None:
            self.stack.append((self.names.get(id(module), ""), type(module).__name__))
            self.tape.module = self.stack[-1][0]

        def leave(module: torch.nn.Module, _: Any, __: Any) -> None:
            self.stack.pop()
            self.tape.module = self.stack[-1][0] if self.stack else ""

        hooks = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @contextmanager
    def _patched(self) -> Iterator[None]:
        patched, modes = [], [(m, m.training) for m in self.module.modules()]
        try:
            self.module.eval()
            for name, module in self.module.named_modules():
                if self._put_on_host(module, name):
                    patched.append(module)
                    continue
                neuron = describe(module, name)
                if neuron is not None:
                    patched.append(module)
                    module.forward = self._neuron(module, name, neuron)  # type: ignore[method-assign]
                    self._use_all(name)
            for name, module in candidates(self.module):
                patched.append(module)
                module.forward = self._loop(module, name)  # type: ignore[method-assign]
            yield
        finally:
            for module in patched:
                vars(module).pop("forward", None)
            for module, training in modes:
                module.training = training

    def _put_on_host(self, module: torch.nn.Module, name: str) -> bool:
        """A module that is one op of the host."""
        found = describe_host(module, name)
        if found is None:
            return False
        op, call, values = found
        self.used |= {k for k in self.parameters.values() if k.startswith(f"{name}." if name else "")}

        def forward(*operands: Any) -> Any:
            if not self.host:
                raise FrontendError(
                    f"{self.here()} ({type(module).__name__}): {op} is of real numbers, which no core computes; "
                    f"--allow host leaves it to the host (docs/host.md)"
                )
            return module_call(self, op, call, values, operands)

        module.forward = forward  # type: ignore[method-assign]
        return True

    # ---- neurons ----

    def _neuron(self, module: torch.nn.Module, name: str, neuron: Neuron) -> Callable[..., Any]:
        def forward(x: Any, *states: Any, **named: Any) -> Any:
            if not isinstance(x, torch.Tensor):
                raise FrontendError(f"{self.here()}: {class_name(type(module))} is called with {type(x).__name__}")
            x = x if isinstance(x, Symbol) else Symbol(self.plain(x), self, x.dtype)
            self._check_states(name, neuron, [*states, *named.values()])
            addr = self.addr(x)
            if neuron.op in STATELESS:
                return self.symbol(self._stateless(name, neuron, addr, x.ndim), x)
            if self._from_rest(name, neuron, addr):
                return self.symbol(self._stateless(name, at_rest(neuron, name), addr, x.ndim), x)
            axis = {"step": None, "batch, sequence": 1}.get(neuron.call, 0)
            steps = [addr] if axis is None else list(np.moveaxis(addr, axis, 0))
            self.longest = max(self.longest, len(steps))
            fired = [self._fire(name, neuron, step, axis is None) for step in steps]
            return self._given(name, neuron, x, axis, fired)

        return forward

    def _from_rest(self, name: str, neuron: Neuron, addr: np.ndarray) -> bool:
        """Whether a neuron of one step is called once with all timesteps, each of which it takes from rest."""
        if name in self.rested:
            raise FrontendError(
                f"{self.here()}: '{name}' is called again behind a call with all timesteps, and would go on from what "
                f"that left; reset it, or give each call a neuron of its own"
            )
        if neuron.op != "ilif" or neuron.call != "step" or self.calls[name]:
            return False
        if len(list(find_axes(self.tape, [addr]).split(addr))) < 2:
            return False
        self.rested.add(name)
        return True

    def _loop(self, module: torch.nn.Module, name: str) -> Callable[..., Any]:
        """What a module of a user's does, or the neuron that it is found to be when it is called."""
        own = module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            module.forward = own  # type: ignore[method-assign]
            (x, *rest) = args or (None,)
            alone = isinstance(x, Symbol) and x.refused is None and not rest and not kwargs
            neuron, spikes = recognise(self, module, x) if alone else (None, False)
            if neuron is None:
                if spikes:
                    self.unknown.append(type(module).__name__)
                return own(*args, **kwargs)
            module.forward = self._neuron(module, name, neuron)  # type: ignore[method-assign]
            self._use_all(name)
            told = ", ".join(f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in neuron.values.items())
            self.recognised[f"{class_name(type(module))} computes the neuron {neuron.op}: {told}"] = name
            return module.forward(x)

        return forward

    def _use_all(self, name: str) -> None:
        """The parameters of a neuron are used."""
        self.used |= {k for k in self.parameters.values() if k.startswith(f"{name}." if name else "")}

    def _check_states(self, name: str, neuron: Neuron, states: list[Any]) -> None:
        """A neuron's state can only be its own, as it left it, or zero at the start."""
        if neuron.gives.endswith("state") and self.calls[name] and neuron.call == "step" and not any(
            s is not None for s in states
        ):  # fmt: skip
            raise FrontendError(f"{self.here()}: called without its state, it starts anew; hand it what it returned")
        for state in states:
            if isinstance(state, Symbol):
                number = int(state.addr.reshape(-1)[0]) >> LOCAL
                value = self.tape.values[number] if number >= 0 else None
                own = value is None or (value.op == "state" and value.attr("name") == name)
            elif isinstance(state, torch.Tensor):
                own = not bool(state.any())
            else:
                own = state is None or not isinstance(state, State) or state.name == name
            if not own:
                raise FrontendError(f"{self.here()}: '{name}' is handed a state that is neither its own nor zero")

    def _fire(self, name: str, neuron: Neuron, step: np.ndarray, batched: bool) -> tuple[Value, np.ndarray]:
        if (step == NOTHING).all():
            raise FrontendError(f"{self.here()}: '{name}' reads nothing but zeros")
        value, local = whole(self.tape, step)
        time = self.calls[name]
        self.calls[name] += 1
        codes = neuron.op in GRADED or {"levels", "theta_low"} & set(neuron.values)
        kind = Kind.REAL if neuron.op == "integrator" else Kind.GRADED if codes else Kind.SPIKE
        made = self.tape.add(
            "stateful",
            (value.number,),
            value.shape,
            kind,
            time=time,
            name=name,
            neuron=neuron.op,
            attrs=self._attributes(name, neuron, local, value.shape),
            layout=layout(local, value.shape, sample_shape(step.shape)),
        )
        return made, local

    def _stateless(self, name: str, neuron: Neuron, addr: np.ndarray, rank: int) -> np.ndarray:
        self.rank = max(self.rank, rank)
        axes = find_axes(self.tape, [addr])
        results = []
        for step in axes.split(addr):
            value, local = whole(self.tape, step)
            attrs = self._attributes(name, neuron, local, value.shape)
            made = self.tape.add(
                "stateless",
                (value.number,),
                value.shape,
                Kind.GRADED,
                neuron=neuron.op,
                attrs=attrs,
                layout=layout(local, value.shape, sample_shape(step.shape)),
            )
            results.append(ops.at(made, local))
        return axes.join(results)

    def _attributes(self, name: str, neuron: Neuron, local: np.ndarray, shape: Shape) -> tuple[tuple[str, Any], ...]:
        found: list[tuple[str, Any]] = []
        for key, given in sorted(neuron.values.items()):
            if isinstance(given, np.ndarray) and (neuron.op == "psn" or key in TABLES):
                given = constant(given, f"{name}.{key}")  # a row for every timestep
            elif isinstance(given, np.ndarray):
                try:
                    full = np.broadcast_to(given, local.shape)
                except ValueError:
                    raise FrontendError(
                        f"'{name}': {key} of shape {given.shape} does not go with an operand of shape {local.shape}"
                    ) from None
                ordered = np.empty(local.size)
                ordered[local.reshape(-1)] = full.reshape(-1)
                packed = ops.compact(ordered.reshape(shape))
                given = packed if isinstance(packed, float) else constant(packed, f"{name}.{key}")
            found.append((key, given))
        return tuple(found)

    def _given(
        self, name: str, neuron: Neuron, x: Symbol, axis: int | None, fired: list[tuple[Value, np.ndarray]]
    ) -> Any:
        """What the module returns: its value, and the states it says it does."""

        def joined(values: list[np.ndarray]) -> Symbol:
            return self.symbol(values[0] if axis is None else np.stack(values, axis), x)

        own, *states = neuron.gives.split(", ")
        result = [joined([ops.at(value, local) for value, local in fired])]
        for what in states:
            if what == "state":
                result.append(State(name))  # type: ignore[arg-type]
                continue
            kept = [
                self.tape.add("state", (v.number,), v.shape, Kind.REAL, time=v.time, name=name, what=what)
                for v, _ in fired
            ]
            result.append(joined([ops.at(k, local) for k, (_, local) in zip(kept, fired, strict=True)]))
        return result[0] if len(result) == 1 else tuple(result)
