"""Networks with learned delays (Hammouamri et al., "Learning Delays in Spiking Neural Networks using Dilated
Convolutions with Learnable Spacings", ICLR 2024): family ``snn_delays``.

A checkpoint holds a position P for each synapse; where the network is evaluated P is a whole number, so every synapse
has one delay, ``max_delay // 2 - P`` timesteps of 0 .. max_delay - 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.build import FamilyBuilder, axis, record
from nmc_compiler.frontends.config import ModelConfig
from nmc_compiler.graph import Attr, Graph

KNOWN = ("model.0.weight", "model.0.P", "model.0.SIG")
NORMALISED = np.float32(1.0) / (np.float32(1.0) + np.float32(1e-7))  # what the authors divide a kernel of one tap by
NEVER = 1e30  # a threshold beyond any potential: the authors' signals have ended
DEFAULTS = {"v_threshold": 1.0, "spiking_neuron_type": "lif", "loss": "sum", "stateful_synapse": False}
UNSEEN = ("n_inputs", "n_hidden_neurons", "n_outputs", "n_hidden_layers", "kernel_count", "bias", "DCLSversion",
          "model_type", "dropout_p", "use_batchnorm", "left_padding", "right_padding")  # fmt: skip


def recognise(tensors: dict[str, np.ndarray]) -> bool:
    """True where the keys are those of this family (and of no other)."""
    return all(k in tensors for k in KNOWN)


def configure(tensors: dict[str, np.ndarray], config: ModelConfig) -> ModelConfig:
    """Family constants where the config is silent; what shapes tell is checked."""
    config = config.with_defaults("family", **DEFAULTS)
    layers = _layers(tensors)
    for key, value in (
        ("n_inputs", axis(tensors, "model.0.weight", 1, 3)),
        ("n_outputs", axis(tensors, f"model.{layers[-1]}.weight", 0, 3)),
        ("n_hidden_layers", len(layers) - 1),
        ("kernel_count", axis(tensors, "model.0.weight", 2, 3)),
        ("bias", "model.0.bias" in tensors),
        ("use_batchnorm", "model.1.running_mean" in tensors),
    ):
        config = config.agree(key, value, "the tensors")
    for key in UNSEEN:
        config.has(key)
    if config.flag("stateful_synapse"):
        raise FrontendError("config sets stateful_synapse, whose filter decays only where no spike comes: not lowered")
    kind = config.value("spiking_neuron_type")
    if kind not in ("lif", "plif", "heaviside"):
        raise FrontendError(f"config says spiking_neuron_type = {kind!r}; known: lif, plif, heaviside")
    return config


def build(tensors: dict[str, np.ndarray], config: ModelConfig) -> tuple[Graph, list[str]]:
    """The float graph (models.md 4.11) and notes. With T timesteps of input it runs as long as the authors' signals."""
    config = configure(tensors, config)
    longest, layers = config.integer("max_delay"), _layers(tensors)
    if longest % 2 == 0:
        raise FrontendError(f"config says max_delay = {longest}; it is the length of a kernel, an odd number")
    lengths = _lengths(config, longest, len(layers))
    b = FamilyBuilder("snn_delays", tensors, config, lengths[-1] if lengths else 0, input_time=True)
    bits = config.integer("input_bits", 0) if config.has("input_bits") else 8
    shape = Attr((config.integer("n_inputs"), 1, 1), "checkpoint")
    x = b.graph.add("input", id="x", name="x", shape=shape, bits=Attr(bits, "config" if bits != 8 else "default"))
    for n, at in enumerate(layers):
        last = n == len(layers) - 1
        x = _delayed(b, x, f"model.{at}", longest)
        if f"model.{at + 1}.running_mean" in tensors:
            x = b.norm(x, f"model.{at + 1}")
            at += 1
        x = _neuron(b, x, f"model.{at + 1}", last, lengths[n] if lengths else None, lengths[-1] if lengths else 0)
    b.graph.add("output", x, name="out")
    graph, notes = b.finish({".SIG": "the width of kernels in training; in evaluation every kernel is one tap"})
    return graph, [*notes, *_said(config, lengths)]


def _layers(tensors: dict[str, np.ndarray]) -> list[int]:
    """Positions of the layers with delays in the sequence."""
    return sorted(int(k.split(".")[1]) for k in tensors if k.startswith("model.") and k.endswith(".P"))


def _lengths(config: ModelConfig, longest: int, layers: int) -> list[int]:
    """Timesteps that each layer's signal has: the authors pad each on the right by half a kernel."""
    if not config.has("T"):
        return []
    return [config.integer("T") + (longest // 2) * (n + 1) for n in range(layers)]


def _said(config: ModelConfig, lengths: list[int]) -> list[str]:
    loss = config.value("loss")
    softmax = " after a softmax, on the host" if loss == "sum" else ""
    notes = [f"class: largest of the {loss} over time of the output{softmax}"]
    if not lengths:
        notes.append(
            "no T in the config: a stream; the authors' signals end max_delay // 2 after their input, this not"
        )
    return notes


def _delayed(b: FamilyBuilder, x: str, p: str, longest: int) -> str:
    """One synapse for every weight, ``longest // 2 - P`` timesteps late."""
    sources = b.graph.nodes[x].type.shape[0]
    weight = b.take(f"{p}.weight", (None, sources, None))
    outputs, _, count = weight.shape
    place = b.take(f"{p}.P", (1, outputs, sources, count))[0]
    half = longest // 2
    extra = half - np.clip(np.rint(place), -half, half).astype(np.int64)
    order = np.transpose(np.arange(weight.size).reshape(weight.shape), (1, 0, 2)).reshape(-1)  # source by source
    target = np.broadcast_to(np.arange(outputs)[:, None, None], weight.shape)
    table = {
        "indptr": np.arange(sources + 1) * (outputs * count),
        "target": target.reshape(-1)[order],
        "weight": (weight * NORMALISED.astype(weight.dtype)).reshape(-1)[order],
        "extra": extra.reshape(-1)[order],
    }
    refs: dict[str, Any] = {k: Attr(b.graph.tensor(f"{p}.{k}", array), "checkpoint") for k, array in table.items()}
    y = b.graph.add("sparse", x, name=p, shape=Attr((outputs, 1, 1), "checkpoint"), graded=True, **refs)
    if f"{p}.bias" not in b.state:
        return y
    ones = b.graph.tensor(f"{p}.ones", np.ones(outputs))
    zero, unit = b.graph.tensor(f"{p}.zeros", np.zeros(outputs)), Attr(ones, "family")
    return b.graph.add(
        "batch_norm", y, name=f"{p}.bias", weight=unit, bias=b.bias_ref(p, outputs), mean=Attr(zero, "family"),
        var=unit, eps=Attr(0.0, "family"),
    )  # fmt: skip


def _neuron(b: FamilyBuilder, x: str, name: str, last: bool, length: int | None, total: int) -> str:
    """LIF N1a, silent once the authors' signal has ended; the last one does not fire but where spikes are counted."""
    counts = b.config.value("loss") == "spike_count"
    theta = b.config.number("v_threshold")
    if last:
        theta = b.config.number("output_v_threshold") if b.config.has("output_v_threshold") else Attr(2.0, "family")
    kind, beta = b.config.value("spiking_neuron_type"), _beta(b, name)
    if last and (kind == "heaviside" or not counts):
        return b.graph.add("integrator", x, name=name, beta=beta)
    ends = None
    if length is not None and length < total:
        table = np.where(np.arange(total) < length, float(theta.value), NEVER)  # type: ignore[arg-type]
        ends = Attr(b.graph.tensor(f"{name}.theta_t", table), "family")
    return b.graph.add(
        "neuron", x, name=name, beta=beta, theta=theta, reset=Attr("hard", "family"), compare=Attr("ge", "family"),
        theta_t=ends, **record(b.graph.nodes[x].type.shape, "C", 0),
    )  # fmt: skip


def _beta(b: FamilyBuilder, name: str) -> Attr:
    """1 - 1/tau: of the config, or learned (PLIF)."""
    kind = b.config.value("spiking_neuron_type")
    if kind == "heaviside":
        return Attr(0.0, "family")
    tau = b._learned_tau(f"{name}.w") if kind == "plif" else b.config.number("init_tau")
    value = float(tau.value)  # type: ignore[arg-type]
    if value < 1:
        raise FrontendError(f"'{name}' has tau = {value:g}; it is in timesteps, at least 1")
    return Attr(1.0 - 1.0 / value, tau.evidence)
