"""Layers as an HDF5 ``.net`` file, named and typed as lava-dl writes it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from nmc_compiler.errors import ToolNotFound
from nmc_compiler.netx import Cuba, Layer, Sdnn


def netx_bytes(layers: tuple[Layer, ...]) -> bytes:
    """The file; equal layers give equal bytes under one version of HDF5. ToolNotFound without h5py."""
    try:
        import h5py
    except ImportError:
        raise ToolNotFound("writing .net files needs h5py; get it with: pip install 'nmc[nir]'") from None
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver="earliest") as file:
        for layer in layers:
            _write(file.create_group(f"layer/{layer.index}"), layer)
    return buffer.getvalue()


def _write(group: Any, layer: Layer) -> None:
    group.create_dataset("type", (1,), "S10", [layer.kind.encode()])
    vector = layer.shape[1:] == (1, 1) and layer.kind not in ("conv", "pool")
    group["shape"] = np.array(layer.shape[:1] if vector else layer.shape)
    if layer.kind == "input" and layer.neuron is not None:
        for key, value in zip(("weight", "bias"), layer.transform, strict=True):
            group[key] = np.array([value], np.float32)
    if layer.weight is not None:
        _weights(group, layer, layer.weight)
    for key, array in (("weight_rec", layer.weight_rec), ("bias", layer.bias)):
        if array is not None:
            group[key] = array.astype(np.float32)
    if layer.delay is not None:
        group["delay"] = _delays(layer.delay).astype(np.float32)
    if layer.neuron is not None:
        for key, value in _neuron(layer.neuron).items():
            group[f"neuron/{key}"] = value


def _weights(group: Any, layer: Layer, weight: np.ndarray) -> None:
    if layer.kind == "pool":  # one kernel for all channels
        group["kernelSize"] = np.array(weight.shape[2:])
        weight = weight[:1]
    elif layer.kind == "conv":
        group["inChannels"], group["outChannels"] = weight.shape[1] * layer.groups, len(weight)
        group["kernelSize"], group["groups"] = np.array(weight.shape[2:]), layer.groups
    else:
        group["inFeatures"], group["outFeatures"] = weight.shape[1], len(weight)
    if weight.ndim == 4:
        for key, pair in (("stride", layer.stride), ("padding", layer.pad), ("dilation", layer.dilation)):
            group[key] = np.array(pair)
    group["weight"] = weight.astype(np.float32)


def _delays(delay: np.ndarray) -> np.ndarray:
    """As lava-dl has them: a list of the outputs; else of the inputs, where it cannot be taken for the other."""
    if (delay == delay[:, :1]).all():
        return delay[:, 0]
    if (delay == delay[:1]).all() and delay.shape[0] != delay.shape[1]:
        return delay[0]
    return delay


def _neuron(neuron: Cuba | Sdnn) -> dict[str, Any]:
    if isinstance(neuron, Sdnn):
        about: dict[str, Any] = {"type": "SDNN", "activation": "relu", "vThMant": neuron.vth}
        return about | ({"sigma_output": True} if neuron.sigma_output else {})
    return {
        "type": "CUBA",
        "iDecay": neuron.i_decay,
        "vDecay": neuron.v_decay,
        "vThMant": neuron.vth,
        "refDelay": 1,
        "gradedSpike": False,
    }
