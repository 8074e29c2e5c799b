"""lava-dl networks as integer SpikeGraphs: what netx would build, in Lava's time.

With windows (``timesteps``) and CUBA layers only, edges act within the step: layer n lives timestep t n steps later, as
netx has it with ``reset_interval``, where every layer resets one step after the one before. Otherwise every
connection takes one timestep (a lag of 1), and layers begin together, as in Lava.
"""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.checkpoint import Imported
from nmc_compiler.frontends.config import ModelConfig
from nmc_compiler.frontends.hdf5 import read_hdf5
from nmc_compiler.frontends.netx import NetxFile, read_layers
from nmc_compiler.graph import Graph, GraphBuilder, Kind, Use, ValueType
from nmc_compiler.graph.types import Attr
from nmc_compiler.graph.verify import verify
from nmc_compiler.netx import BIAS_EXP, FULL_DECAY, MAX_BIAS, NEVER, SDNN_EXP, SDNN_STATE_EXP, Cuba, Layer, Sdnn

INPUT, OUTPUT = "input", "output"
SDNN_INPUT_BITS = 16  # netx: message bits of sigma-delta somas
GRADED_INPUT_BITS = 24
FROM_FILE = "checkpoint"
INPUT_LAYER = "input_layer"  # weight, bias and iDecay of an input layer, kept for writing the file again


def import_netx(path: str | os.PathLike[str], timesteps: int = 0) -> Imported:
    """A ``.net`` as an integer graph. ``timesteps``: of one sample; 0: a stream.

    FrontendError for a file that is damaged, says what cannot be meant, or needs ``timesteps`` and has none.
    """
    found = read_layers(read_hdf5(path))
    graph = build(found, Path(path).stem, timesteps, str(path))
    kinds = ", ".join(f"{layer.name} {layer.kind} {list(layer.shape)}" for layer in found.layers)
    notes = [f"lava-dl network, integers as they are in the file: {kinds}", *_time_notes(found, timesteps)]
    with Path(path).open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    first = found.layers[0]
    kept = {INPUT_LAYER: Attr(entry_of(first), FROM_FILE)} if first.kind == "input" and first.neuron else {}
    config = ModelConfig(kept, "the .net file")
    return Imported(graph, "netx", (*notes, *found.notes), config, digest)


def entry_of(layer: Layer) -> tuple[int, int, int]:
    """What the graph does not hold of an input layer: weight, bias and iDecay."""
    i_decay = layer.neuron.i_decay if layer.kind == "input" and isinstance(layer.neuron, Cuba) else FULL_DECAY
    return (*layer.transform, i_decay)


def _time_notes(found: NetxFile, timesteps: int) -> list[str]:
    first, notes = found.layers[0], []
    if found.sample and not timesteps:
        notes.append(f"simulation/tSample says {found.sample} timesteps to a sample; --timesteps makes windows of them")
    if layered(found, timesteps):
        notes.append(f"windows of {timesteps} timesteps, as netx with reset_interval={timesteps}: layer after layer")
    else:
        notes.append("a connection takes one timestep, as in Lava")
    if first.kind == "input" and isinstance(first.neuron, Cuba):
        weight, bias = first.transform
        notes.append(
            f"{first.name} takes bias mantissas, whole numbers in {-MAX_BIAS}..{MAX_BIAS - 1}: {weight} * x + {bias} of"
            " what the network was trained on, rounded as in training"
        )
    if first.kind == "input" and isinstance(first.neuron, Sdnn):
        notes.append(
            f"{first.name} takes {first.transform[0]} * x of what the network was trained on, as whole numbers"
        )
    late = [layer.name for layer in found.layers if layer.delay is not None or layer.kind == "dense_rec"]
    if layered(found, timesteps) and late:
        told = "what delays and recurrent synapses carry beyond the end of a window is dropped"
        notes.append(f"{told}; netx lets it into the next sample ({', '.join(late)})")
    return notes


def layered(found: NetxFile, timesteps: int) -> bool:
    """Whether edges act within the step; netx resets no sigma-delta soma."""
    return timesteps > 0 and not any(isinstance(layer.neuron, Sdnn) for layer in found.layers)


def build(found: NetxFile, name: str, timesteps: int, where: str) -> Graph:
    """The integer graph of the layers; ``where`` is the file, for errors."""
    return _Builder(found, name, timesteps, where).graph()


class _Builder:
    """Adds layer after layer; ``at`` is the node that sends the events of the last, of shape ``shape``."""

    def __init__(self, found: NetxFile, name: str, timesteps: int, where: str) -> None:
        self.found, self.where, self.timesteps = found, where, timesteps
        self.layered = layered(found, timesteps)
        first = found.layers[0]
        self.image = first.kind == "input" and isinstance(first.neuron, Cuba)
        self.builder = GraphBuilder(name, timesteps, "int", input_time=not self.image)
        self.at, self.counts = "", False

    def graph(self) -> Graph:
        first, *_ = self.found.layers
        self._source(first)
        for layer in self.found.layers:
            if layer.kind == "input":
                self._input_neurons(layer)
            elif layer.kind == "average":
                self._average(layer)
            elif layer.kind != "flatten":  # the next layer reads the same elements in C order
                self._connected(layer)
        self.builder.add("output", self.at, id=OUTPUT, name=OUTPUT)
        graph = self.builder.build()
        verify(graph)
        return graph

    # --- where events come from ---

    def _source(self, first: Layer) -> None:
        if first.kind == "input":
            shape = first.shape
        else:
            assert first.weight is not None  # only dense layers come first without an input layer
            shape = (first.weight.shape[1], 1, 1)
        if self.image:
            self._image(shape)
            return
        bits = 0
        if isinstance(first.neuron, Sdnn):
            bits = SDNN_INPUT_BITS if first.kind == "input" else GRADED_INPUT_BITS
        signed = True if bits else None
        self.at = self.builder.add("input", id=INPUT, name=INPUT, shape=shape, bits=bits, signed=signed)

    def _image(self, shape: tuple[int, int, int]) -> None:
        """Bias mantissas of the input layer's somas, one image for a whole window."""
        if not self.timesteps:
            raise FrontendError(
                f"{self.where}: its input layer takes an image as bias; say with --timesteps how long one is shown"
            )
        image = self.builder.add("input", id="image", name=INPUT, shape=shape)
        self.at = self.builder.add("encode", image, id=INPUT, scale=1.0, lo=-MAX_BIAS, hi=MAX_BIAS - 1)

    def _input_neurons(self, layer: Layer) -> None:
        if layer.neuron is None:
            return
        if isinstance(layer.neuron, Cuba):  # a bias goes to the potential whatever iDecay: as u that keeps nothing
            current = self._one_to_one(layer, self.at, "in", 1, 0)
            self.at = self._cuba(layer, Cuba(FULL_DECAY, layer.neuron.v_decay, layer.neuron.vth), current)
            return
        # Lava's Delta compares its input with that of the step before: a sigma of the difference
        now = self._one_to_one(layer, self.at, "in", 1, SDNN_EXP)
        before = self._one_to_one(layer, Use(self.at, 1), "before", -1, SDNN_EXP)
        self.at = self._sigma_delta(layer, self.builder.add("add", now, before), relu=False)

    def _one_to_one(self, layer: Layer, source: str | Use, key: str, weight: int, shift: int) -> str:
        channels = layer.shape[0]
        weights = self._tensor(layer, key, np.full((channels, 1, 1, 1), weight, np.int16))
        name = f"{layer.name}.{key}"
        return self.builder.add("conv2d", source, name=name, weight=weights, groups=channels, shift=shift)

    # --- layers with synapses ---

    def _connected(self, layer: Layer) -> None:
        if not self.at:
            raise FrontendError(f"{self.where}: {layer.name} gets nothing: the layer before it never fires")
        synapse = self._synapses(layer, "weight", layer.weight, self._edge(self.at))
        neuron = layer.neuron
        if layer.weight_rec is not None:
            synapse = self._with_recurrent(layer, synapse)
        if isinstance(neuron, Sdnn) and neuron.sigma_output:
            self.at = self._sigma(layer, synapse)
        elif isinstance(neuron, Sdnn):
            self.at = self._sigma_delta(layer, synapse, relu=True)
        elif neuron is None or (neuron.vth >= NEVER and layer is self._last()):
            self.at = self._potential(layer, neuron, synapse)
        elif neuron.vth > NEVER:
            raise FrontendError(f"{self.where}: {layer.name} never fires (vThMant {neuron.vth}), and is not the last")
        else:
            self.at = self._cuba(layer, neuron, synapse)

    def _last(self) -> Layer:
        return [layer for layer in self.found.layers if layer.kind != "flatten"][-1]

    def _edge(self, source: str) -> Use:
        return Use(source, 0 if self.layered else 1)

    def _synapses(self, layer: Layer, key: str, weight: np.ndarray | None, source: Use) -> str:
        assert weight is not None
        if layer.delay is not None:
            return self._delayed(layer, key, weight, layer.delay, source)
        if weight.ndim == 2:  # a kernel as large as its input
            kernel = weight.reshape(len(weight), *self.builder.nodes[source.node].type.shape)
            tensor = self._tensor(layer, key, kernel.astype(np.int16))
            return self.builder.add("conv2d", source, name=f"{layer.name}.{key}", weight=tensor)
        return self.builder.add(
            "conv2d",
            source,
            name=f"{layer.name}.{key}",
            weight=self._tensor(layer, key, weight.astype(np.int16)),
            stride=layer.stride,
            pad=layer.pad,
            dilation=layer.dilation,
            groups=layer.groups,
        )

    def _delayed(self, layer: Layer, key: str, weight: np.ndarray, delay: np.ndarray, source: Use) -> str:
        """Synapses one by one, sorted by source and target; those of weight 0 are left out."""
        rows, targets = np.nonzero(weight.T)
        indptr = np.searchsorted(rows, np.arange(weight.shape[1] + 1))
        arrays: dict[str, np.ndarray] = {
            "indptr": indptr.astype(np.int64),
            "target": targets.astype(np.int32),
            "weight": weight[targets, rows].astype(np.int16),
            "extra": delay[targets, rows].astype(np.int8),
        }
        attrs = {name: self._tensor(layer, f"{key}.{name}", array) for name, array in arrays.items()}
        return self.builder.add("sparse", source, id=None, name=f"{layer.name}.{key}", shape=layer.shape, **attrs)

    def _with_recurrent(self, layer: Layer, synapse: str) -> str:
        event = ValueType(Kind.SPIKE, layer.shape)
        if isinstance(layer.neuron, Sdnn):
            event = ValueType(Kind.GRADED, layer.shape, GRADED_INPUT_BITS, True)
        own = Use(self.builder.declare(layer.name, event), 1)
        self_weight = layer.weight_rec
        assert self_weight is not None
        if layer.delay is not None:
            back = self._delayed(layer, "weight_rec", self_weight, layer.delay, own)
        else:
            tensor = self._tensor(layer, "weight_rec", self_weight[:, :, None, None].astype(np.int16))
            back = self.builder.add("conv2d", own, name=f"{layer.name}.weight_rec", weight=tensor)
        return self.builder.add("add", synapse, back)

    def _average(self, layer: Layer) -> None:
        """Sums of neighbours: what the host would divide by their number."""
        sources = math.prod(self.builder.nodes[self.at].type.shape)
        size = sources // layer.shape[0]
        weight = np.kron(np.eye(layer.shape[0], dtype=np.int16), np.ones((1, size), np.int16))
        self.at = self._passed_on(layer, self._synapses(layer, "weight", weight, self._edge(self.at)))

    # --- somas ---

    def _cuba(self, layer: Layer, neuron: Cuba, current: str) -> str:
        return self.builder.add(
            "cuba_lif",
            current,
            id=layer.name,
            name=layer.name,
            du=Attr(neuron.i_decay - 1, FROM_FILE),
            dv=Attr(neuron.v_decay, FROM_FILE),
            vth=self._channels(layer, "vth", neuron.vth),
            bias=self._bias(layer, BIAS_EXP),
        )

    def _potential(self, layer: Layer, neuron: Cuba | None, current: str) -> str:
        """A last layer that never fires, read by its potential. Without a neuron it sums up (netx: in u)."""
        du, dv = (4095, 0) if neuron is None else (neuron.i_decay - 1, neuron.v_decay)
        bias = self._bias(layer, BIAS_EXP)
        return self.builder.add("int_integrator", current, id=layer.name, name=layer.name, du=du, dv=dv, bias=bias)

    def _sigma_delta(self, layer: Layer, current: str, relu: bool) -> str:
        assert isinstance(layer.neuron, Sdnn)
        return self.builder.add(
            "sigma_delta",
            current,
            id=layer.name,
            name=layer.name,
            vth=self._channels(layer, "vth", layer.neuron.vth << SDNN_EXP),
            bias=self._bias(layer, SDNN_EXP),
            relu=relu,
            out_shift=SDNN_STATE_EXP,
        )

    def _sigma(self, layer: Layer, current: str) -> str:
        """Lava's Sigma sends its sum at every step: what it hears, and what it sent the step before."""
        own = Use(self.builder.declare(layer.name, ValueType(Kind.GRADED, layer.shape, GRADED_INPUT_BITS, True)), 1)
        return self._passed_on(layer, self.builder.add("add", current, self._one_to_one(layer, own, "own", 1, 0)))

    def _passed_on(self, layer: Layer, current: str) -> str:
        """A sigma-delta soma without threshold sends its current: what its sum changed by."""
        vth = self._channels(layer, "vth", 0)
        return self.builder.add(
            "sigma_delta", current, id=layer.name, name=layer.name, vth=vth, relu=False, out_shift=0
        )

    def _bias(self, layer: Layer, exponent: int) -> Attr | None:
        if layer.bias is None or not layer.bias.any():
            return None
        return self._tensor(layer, "bias", (layer.bias << exponent).astype(np.int32))

    def _channels(self, layer: Layer, key: str, value: int) -> Attr:
        return self._tensor(layer, key, np.full(layer.shape[0], value, np.int32))

    def _tensor(self, layer: Layer, key: str, array: np.ndarray) -> Attr:
        return Attr(self.builder.tensor(f"{layer.name}.{key}", array), FROM_FILE)
