"""Trace a module to a float SpikeGraph: what the user gives, what comes out, what is noted on the way."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from nmc_compiler.errors import FrontendError, NmcError, UsageError
from nmc_compiler.frontends.checkpoint import Imported
from nmc_compiler.frontends.config import ModelConfig
from nmc_compiler.frontends.trace.ahead import causal
from nmc_compiler.frontends.trace.emit import Emitter
from nmc_compiler.frontends.trace.fold import Folder, Ref, deep
from nmc_compiler.frontends.trace.host import check_kept, kept_values
from nmc_compiler.frontends.trace.lines import where
from nmc_compiler.frontends.trace.places import rearranged
from nmc_compiler.frontends.trace.symbol import Symbol
from nmc_compiler.frontends.trace.tape import STREAM, addresses
from nmc_compiler.frontends.trace.tidy import tidy
from nmc_compiler.frontends.trace.timesteps import find_axes
from nmc_compiler.frontends.trace.tracer import Tracer, how_to_register
from nmc_compiler.graph import GraphBuilder
from nmc_compiler.graph.registry import MAX_ELEMENTS
from nmc_compiler.graph.types import Kind, Shape
from nmc_compiler.graph.verify import verify

MAX_TIMESTEPS = 4096
MOST_NAMED = 16  # parameters that are never used
RECORDED = ("lif", "neuron", "multilevel", "ilif")


@dataclass(frozen=True)
class Example:
    """The shape of an example input, and which of its axes is time: [T, B, ...], [B, T, ...], or none: [B, ...].

    ``bits``: None for real values, 0 for spikes, else the payload of events.
    """

    shape: tuple[int, ...]
    time_axis: int | None
    bits: int | None = None

    @property
    def frames(self) -> int:
        return 1 if self.time_axis is None else self.shape[self.time_axis]

    @property
    def sample(self) -> Shape:
        """(C, H, W) of one timestep of one sample."""
        front = 1 if self.time_axis is None else 2
        rest = self.shape[front:]
        c, *places = rest or (1,)
        return {0: (c, 1, 1), 1: (c, 1, *places), 2: (c, *places)}[len(places)]  # type: ignore[return-value]


def example_of(
    shape: tuple[int, ...], timesteps: int | None, time_axis: int | None, bits: int | None = None
) -> Example:
    """UsageError where a shape does not say what is time and what is batch."""
    shape = tuple(int(n) for n in shape)
    if not shape or min(shape) < 1:
        raise UsageError(
            f"the input shape is {shape}; give the sizes of all axes, batch and time too, such as 1,3,32,32"
        )
    if int(np.prod([float(n) for n in shape])) > MAX_ELEMENTS:
        raise UsageError(f"the input shape {shape} has more than {MAX_ELEMENTS} elements")
    if time_axis is None:
        if shape[0] > 1:
            time_axis = 0
        elif len(shape) == 5:
            time_axis = 0 if shape[1] == 1 else 1
    if time_axis not in (None, 0, 1):
        raise UsageError(f"time axis {time_axis}; it is 0, [T, B, ...], or 1, [B, T, ...]")
    batch = None if time_axis is not None and len(shape) < 2 else shape[0 if time_axis != 0 else 1]
    if batch != 1:
        what = f"axis 0, {shape[0]} long, is taken as time" if time_axis == 0 else f"axis {time_axis} is time"
        raise UsageError(
            f"the input shape {shape} must have a batch of 1 ({what}): [T, 1, ...], [1, T, ...] or [1, ...]"
        )
    rank = len(shape) - (1 if time_axis is None else 2)
    if rank > 3:
        raise UsageError(f"samples of {rank} axes ({shape}); up to three, (C, H, W), are traced")
    if time_axis is not None and shape[time_axis] > MAX_TIMESTEPS:
        raise UsageError(f"{shape[time_axis]} timesteps, more than {MAX_TIMESTEPS}; trace fewer, and emulate a stream")
    if time_axis is not None and timesteps and shape[time_axis] not in (1, timesteps):
        raise UsageError(f"the input shape {shape} has {shape[time_axis]} timesteps, but {timesteps} are asked for")
    return Example(shape, time_axis, bits)


def trace_module(
    module: torch.nn.Module, example: Example, timesteps: int | None = None, name: str = "", host: bool = False
) -> Imported:
    """The float graph of a module, which is run once in evaluation mode, on no data.

    timesteps: of one sample, for a module that computes one timestep when it is called; 0 is a stream. Others are
    checked against it. host: ops of real numbers become nodes of the host (docs/host.md). Raises FrontendError for what
    cannot be lowered, with the op, the module and the line.
    """
    if not isinstance(module, torch.nn.Module):
        raise UsageError(
            f"{type(module).__name__} is no torch.nn.Module; give a module, or a function that returns one"
        )
    name = name or type(module).__name__
    with _theirs(name):
        _check_real(module)
        trace = _Trace(module, Tracer(module, host), example, timesteps, name)
        identity = digest(module)
    with trace.told():
        graph = trace.run()
    settings = ModelConfig({}, "a traced module")
    notes = (f"traced from {type(module).__module__}.{type(module).__name__}", *trace.notes)
    return Imported(graph, "traced", notes, settings, identity)


@contextlib.contextmanager
def _theirs(name: str) -> Iterator[None]:
    """Whatever a user's module raises, as one error with the line."""
    try:
        yield
    except NmcError:
        raise
    except RecursionError:
        raise FrontendError(f"{name}: its modules call each other without end, or hold each other") from None
    except MemoryError:
        raise FrontendError(f"{name}: more memory is needed than there is; trace with a smaller input") from None
    except (Exception, SystemExit) as error:
        raise FrontendError(f"{where(error)}: {type(error).__name__}: {error}") from error


def _check_real(module: torch.nn.Module) -> None:
    """Parameters are real numbers that are there; those that the network reads are finite, which emission checks."""
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.device.type == "meta":
            raise FrontendError(f"'{name}' is on the meta device: it has a shape, but no numbers; load a checkpoint")
        if tensor.device.type != "cpu":
            raise FrontendError(f"'{name}' is on {tensor.device}; move the module to the CPU with module.cpu()")
        if tensor.is_complex() or tensor.is_quantized:
            raise FrontendError(f"'{name}' has dtype {tensor.dtype}; real weights are traced")
        if tensor.numel() > MAX_ELEMENTS:
            raise FrontendError(f"'{name}' of shape {tuple(tensor.shape)} has more than {MAX_ELEMENTS} numbers")


def digest(module: torch.nn.Module) -> str:
    """sha256 (hex) of the state_dict of a module."""
    found = hashlib.sha256()
    for key, value in module.state_dict().items():
        if isinstance(value, torch.Tensor):
            found.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
            found.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


@dataclass
class _Trace:
    module: torch.nn.Module
    tracer: Tracer
    example: Example
    timesteps: int | None
    name: str
    notes: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Where a module may be a neuron, and was not recognised, an error says how to tell what it computes."""
        try:
            yield
        except FrontendError as error:
            if not self.tracer.unknown or "register_neuron" in str(error):
                raise
            raise type(error)(f"{error}; {how_to_register(self.tracer.unknown[-1])}") from error

    def run(self) -> Any:
        self.tape = self.tracer.tape
        outputs = self._outputs(self._called())
        steps = self._steps()
        kept = kept_values(self.module)
        if self.tracer.host and steps == 1 and self.timesteps != 1:
            check_kept(kept)
        with deep(len(self.tape.values)):
            self.folder = Folder(self.tape, steps)
            ends = self._ends(outputs, steps)
        self._note_parameters()
        self.notes += [*self.tracer.recognised, *self._dtypes()]
        self.notes += [
            f"'{name}' holds a value of the traced call; what it brings to a later call is not in the network, where "
            f"every sample begins as the traced call did"
            for name in kept
        ]
        graph = self._emit(ends, steps)
        verify(graph)
        self.notes += [
            f"'{n.name}' is recorded as (C, H, W) = {n.type.shape}: its module has them in another order"
            for n in graph
            if n.op in RECORDED and "record_shape" not in n.attrs
        ]
        return graph

    # ---- running ----

    def _input(self) -> Symbol:
        front = 0 if self.example.time_axis is None else self.example.time_axis
        frames = []
        for t in range(self.example.frames):
            time = None if self.example.time_axis is None else t
            bits = self.example.bits
            kind = Kind.REAL if bits is None else Kind.GRADED if bits else Kind.SPIKE
            made = self.tape.add("input", (), self.example.sample, kind, time=time, bits=bits)
            frames.append(addresses(made).reshape([n for i, n in enumerate(self.example.shape) if i != front]))
        whole = frames[0].reshape(self.example.shape) if self.example.time_axis is None else np.stack(frames, front)
        return Symbol(torch.from_numpy(whole), self.tracer, self._dtype())

    def _dtype(self) -> torch.dtype:
        found = [p.dtype for p in self.module.parameters() if p.is_floating_point()]
        return found[0] if found else torch.float32

    def _called(self) -> Any:
        with _theirs(self.name):
            return self.tracer.run(self._input())

    def _outputs(self, result: Any) -> list[tuple[str, Symbol]]:
        """Traced tensors of what the module returned, by name; other things are left out."""
        found = list(_leaves(result, "out"))
        if not found:
            raise FrontendError(f"{self.name} returns no traced tensor, but {type(result).__name__}")
        return found

    def _steps(self) -> int:
        """Timesteps that the trace went through."""
        looped = min(self.tracer.calls.values(), default=1) if self.tracer.longest <= 1 else self.tracer.longest
        ran = max(looped, self.example.frames)
        if self.timesteps not in (None, 0, ran) and ran != 1:
            raise FrontendError(
                f"{self.name} runs {ran} timesteps when it is called, but {self.timesteps} are asked for"
            )
        again = next((v for v in self.tape.values if v.op == "stateful" and v.time == ran), None)
        if again is not None:
            raise FrontendError(
                f"{again.line}: '{again.attr('name')}' is called more than once in each of {ran} timesteps: its calls "
                f"share a state; give each call a neuron of its own"
            )
        return ran

    # ---- ends ----

    def _ends(self, outputs: list[tuple[str, Symbol]], steps: int) -> list[tuple[str, Ref]]:
        ends = [(name, self._end(name, x.addr.numpy(), steps)) for name, x in outputs]
        means = [end for end in ends if end[1].over is not None]
        if means or self._one_shot(steps):
            chosen = means[0] if means else ends[0]
            if len(ends) > 1:
                self.notes.append(f"of what it returns, '{chosen[0]}' is read out; left out: " + ", ".join(
                    name for name, _ in ends if name != chosen[0]))  # fmt: skip
            return [chosen]
        return ends

    def _one_shot(self, steps: int) -> bool:
        """A network of one timestep in all: what it gives at that step are its logits."""
        return steps == 1 and (self.timesteps == 1 or self._stateless())

    def _stateless(self) -> bool:
        """No neuron keeps anything, and the input stays: every timestep is the same."""
        return not self.tracer.calls and self.example.frames == 1

    def _end(self, name: str, addr: np.ndarray, steps: int) -> Ref:
        axes = find_axes(self.tape, [addr])
        parts = axes.split(addr)
        values = [rearranged(self.tape, part, self._end_shape(part)) for part in parts]
        refs = list(dict.fromkeys(self.folder.ref(v.number, v.time) for v in values))
        times = [v.time for v in values]
        if len(refs) != 1 or refs[0].lag:
            raise FrontendError(f"'{name}' of {self.name}: its timesteps {times} do not compute the same")
        if refs[0].over is None and times[-1] is None and not self._stateless():
            raise FrontendError(f"'{name}' of {self.name} does not depend on any neuron: nothing of it changes in time")
        if refs[0].over is None and steps > 1 and times == [steps - 1]:
            self.notes.append(f"'{name}' is what the last of {steps} timesteps gives; here every timestep gives it")
        elif refs[0].over is None and times != list(range(steps)) and not self._stateless():
            raise FrontendError(f"'{name}' of {self.name} gives the timesteps {times} of {steps}; give all, or a mean")
        return refs[0]

    def _end_shape(self, part: np.ndarray) -> Shape:
        sizes = [n for n in part.shape if n != 1]
        if len(sizes) <= 1:
            return (part.size, 1, 1)
        return (sizes[0], 1, sizes[1]) if len(sizes) == 2 else (sizes[0], int(np.prod(sizes[1:-1])), sizes[-1])

    # ---- the graph ----

    def _emit(self, ends: list[tuple[str, Ref]], steps: int) -> Any:
        readout = ends[0][1].over is not None or self._one_shot(steps)
        timesteps = steps if steps > 1 else self.timesteps or (1 if self._one_shot(steps) else self.timesteps)
        if timesteps is None:
            timesteps = 0
            self.notes.append(STREAM)
        folded = [ref for _, ref in ends]
        nodes, refs = tidy(self.folder.nodes, folded)
        named = [(self._name(nodes, name, ref, readout), ref) for (name, _), ref in zip(ends, refs, strict=True)]
        one_by_one = not readout and steps == 1  # each call of the module is a timestep, with a frame of its own
        flags = {"input_time": self.example.time_axis is not None or one_by_one}
        if timesteps == 1 and readout and self._stateless() and self.tracer.rank < 5:
            flags["record_time"] = False
        builder = GraphBuilder(self.name, timesteps, "float", **flags)
        emitter = Emitter(nodes, set(self.tracer.parameters.values()), builder, readout)
        graph, notes = causal(emitter.run(named, steps > 1))
        self.notes += notes
        return graph

    def _name(self, nodes: list[Any], name: str, ref: Ref, readout: bool) -> str:
        """A readout is called after the layer that makes the logits."""
        index = ref.node
        while readout and nodes[index].op not in ("conv2d", "stateful", "stateless") and nodes[index].operands:
            index = nodes[index].operands[0].node
        return (nodes[index].module or name) if readout and nodes[index].op == "conv2d" else name

    def _dtypes(self) -> list[str]:
        """Parameters that are taken as numbers of another precision than the module computes with."""
        return [
            f"{len(set(names))} tensors of dtype {dtype} are taken as the numbers they hold, such as '{names[0]}'; "
            f"sums are of double precision"
            for dtype, names in self.tracer.odd.items()
        ]

    def _note_parameters(self) -> None:
        unused = [
            name
            for name, _ in self.module.named_parameters()
            if name not in self.tracer.used and name in set(self.tracer.parameters.values())
        ]
        self.notes += [f"parameter '{name}' is never used" for name in unused[:MOST_NAMED]]
        if more := unused[MOST_NAMED:]:
            self.notes.append(f"{len(more)} more parameters are never used, from '{more[0]}' to '{more[-1]}'")


def _leaves(result: Any, name: str) -> Iterator[tuple[str, Symbol]]:
    if isinstance(result, Symbol):
        yield name, result
    elif isinstance(result, dict):
        for key, value in result.items():
            yield from _leaves(value, f"{name}.{key}" if name != "out" else str(key))
    elif isinstance(result, (list, tuple)):
        traced = [x for x in result if isinstance(x, (Symbol, dict, list, tuple))]
        for i, value in enumerate(traced):
            yield from _leaves(value, name if len(traced) == 1 or not i else f"{name}{i}")
