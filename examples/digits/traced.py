"""The bundled network for tracing: what its neuron computes, and a function that makes it.

cd examples/digits
nmc compile traced.py:build --weights model.pt --config model.yaml --input-shape 1,1,16,16 -o build/
"""

from __future__ import annotations

from typing import Any

from model import Lif, SpikeDrivenTransformer

import nmc

nmc.register_neuron(
    Lif,
    lambda lif: {
        "op": "lif",  # h = v + (x - v)/tau; fires at h >= theta
        "tau": lif.tau,
        "theta": lif.theta,
        "decay_input": True,
        "compare": "ge",
        "reset": "hard",
        "call": "sequence",  # the first axis of its operand is time
    },
)

KEYS = ("in_channels", "num_classes", "embed_dims", "num_heads", "mlp_ratios", "depths", "T", "pooling_stat")


def build(**config: Any) -> SpikeDrivenTransformer:
    """The module; ``config``: the constructor arguments, and what a front end for checkpoints wants besides."""
    return SpikeDrivenTransformer(**{key: config[key] for key in KEYS})
