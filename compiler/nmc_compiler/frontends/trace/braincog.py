"""The neurons of BrainCog, and those of STEP (BrainCog's spiking transformers), as neuron ops of the graph.

Written from the equations of the packages. A module takes ``[T * B, ...]`` (``layer_by_layer``) or one timestep.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.trace.jelly import jelly_lif
from nmc_compiler.frontends.trace.numbers import Values, number, refuse, scalar
from nmc_compiler.frontends.trace.registry import Describe

BASE = "braincog.base.node.node"
STEP = ("models.utils.node", "cls.models.utils.node", "utils.node")  # by where it is started


def _compare(act: Any) -> str:
    """Whether it fires at its threshold, found by trying its surrogate function."""
    import torch

    with torch.no_grad():
        found = [float(x) for x in act(torch.tensor([-1.0, 0.0, 0.5, 100.0]))]
    how = {1.0: "ge", 0.0: "gt"}.get(found[1]) if [found[0], *found[2:]] == [0.0, 1.0, 1.0] else None
    if how is None:
        told = ", ".join(f"{x:g}" for x in found)
        raise FrontendError(f"its surrogate function gives {told} for -1, 0, 0.5, 100; a step at 0 is read")
    return how


def _node(module: Any) -> Values:
    """H is charged from 0; S = H(H >= theta); V = 0 where it fired."""
    if not any(cls.__module__ == BASE for cls in type(module).__mro__):
        raise FrontendError(
            f"it is called as a neuron of STEP is, but is no BaseNode of BrainCog; say what it computes with "
            f"nmc.register_neuron({type(module).__name__}, lambda module: {{...}}) (docs/tracing.md)"
        )
    if module.groups != 1:
        raise FrontendError(f"n_groups is {module.groups}: its timesteps stand among the channels; 1 is read")
    theta = scalar(module.threshold, "threshold")
    theta = 1.0 / (1.0 + math.exp(-theta)) if getattr(module, "sigmoid_thres", False) else theta
    call = "flat sequence" if module.layer_by_layer else "step"
    return {"op": "neuron", "theta": theta, "compare": _compare(module.act_fun), "reset": "hard", "call": call}


def _if(module: Any) -> Values:
    return _node(module) | {"beta": 1.0, "gain": float(module.dt)}


def _lif(module: Any) -> Values:
    """H = V + (X - V)/tau."""
    return _node(module) | {"op": "lif", "tau": scalar(module.tau, "tau"), "decay_input": True}


def _plif(module: Any) -> Values:
    """H = V + (X - V) sigmoid(w) dt."""
    share = float(module.dt) / (1.0 + math.exp(-scalar(module.w, "w")))
    return _node(module) | {"beta": 1.0 - share, "gain": share}


def _klif(module: Any) -> Values:
    """H = relu(k (V + (X - V)/tau))."""
    k, tau = scalar(module.k, "k"), scalar(module.tau, "tau")
    if not 0 < k * (1.0 - 1.0 / tau) <= 1:
        raise FrontendError(
            f"k is {k:g}; between 0 and {tau / (tau - 1.0):g} it is read, where a potential does not grow"
        )
    return _node(module) | {"beta": k * (1.0 - 1.0 / tau), "gain": k / tau, "v_min": 0.0}


def _ilif(module: Any) -> Values:
    """C = round(clip(H / theta, 0, D)); V = H - C theta."""
    values, tau = _node(module), scalar(module.tau, "tau")
    kept = {k: values[k] for k in ("theta", "call")}
    return kept | {
        "op": "ilif",
        "beta": 1.0 - 1.0 / tau,
        "gain": 1.0 / tau,
        "levels": int(module.D),
        "rounding": "half_even",
    }


def _nilif(module: Any) -> Values:
    """S = round(clip(H / theta, 0, D) / D), which is 1 above D/2 thresholds; V = H - S theta."""
    values, tau = _node(module), scalar(module.tau, "tau")
    theta = values["theta"]
    rule = {"theta": theta * module.D / 2.0, "compare": "gt", "reset": "soft", "step": theta}
    return values | rule | {"beta": 1.0 - 1.0 / tau, "gain": 1.0 / tau}


def _psn(module: Any) -> Values:
    """S[t] = H(sum over j of W[t, j] X[j] + b[t])."""
    weight, theta = np.atleast_2d(number(module.fc.weight)), -np.atleast_1d(number(module.fc.bias))
    return {
        "op": "psn",
        "weight": weight,
        "theta": theta,
        "compare": _compare(module.act_func),
        "call": "flat sequence",
    }


def _spikingjelly(module: Any) -> Values:
    return jelly_lif(module) | {"call": "flat sequence"}


_STEP: dict[str, Describe] = {
    "IFNode": _if,
    "LIFNode": _lif,
    "PLIFNode": _plif,
    "KLIFNode": _klif,
    "ILIFNode": _ilif,
    "NILIFNode": _nilif,
    "PSNTorch": _psn,
    "LIFNode_Spikingjelly": _spikingjelly,
    "EIFNode": refuse("it takes the exponential of its potential; a soma multiplies its states by constants only"),
    "GLIFTorch": refuse(
        "its reset multiplies the potential by a learned 1 - gamma; a soma sets it to a value or subtracts one"
    ),
    "ComplementaryLIFNeuron": refuse(
        "its second state decays by the sigmoid of the potential, and a spike subtracts a sigmoid of it; a soma "
        "multiplies its states by constants only"
    ),
    "HDLIFNode": refuse("it weighs four neurons by a softmax of its input, position by position"),
}

NEURONS: dict[str, Describe] = {
    **{f"{BASE}.{name}": _STEP[name] for name in ("IFNode", "LIFNode", "PLIFNode")},
    **{f"{root}.{name}": f for root in STEP for name, f in _STEP.items()},
}
