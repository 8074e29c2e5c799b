"""The neurons of SpikingJelly (0.0.0.0.12 to 2.0) as neuron ops of the graph, by the names of their classes.

Written from the equations of the package. What no neuron of the graph computes is refused here, by what is missing.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.trace.numbers import Values, number, refuse, scalar
from nmc_compiler.frontends.trace.registry import Describe

MOST_LEVELS = 255
"""Highest code of a soma (docs/integers.md)."""


def _reset(module: Any) -> Values:
    if module.v_reset is None:
        return {"reset": "soft"}
    return {"reset": "hard", "v_reset": scalar(module.v_reset, "v_reset")}


def _call(module: Any) -> str:
    many = type(module).__name__.startswith("MultiStep") or getattr(module, "step_mode", "s") == "m"
    return "sequence" if many else "step"


def _jelly(module: Any) -> Values:
    """What all spiking nodes of SpikingJelly share; they fire at their threshold, too."""
    _check_step(module)
    theta = scalar(module.v_threshold, "v_threshold")
    return {"theta": theta, "compare": "ge", "call": _call(module)} | _reset(module)


def _levels(module: Any) -> int | None:
    """None where its surrogate function is a step at 0, D where it is round(clip(x, 0, D)), found by trying it."""
    import torch

    tried = [-1.0, 0.0, 0.375, 0.625, 1e4]
    with torch.no_grad():
        found = [float(x) for x in module.surrogate_function(torch.tensor(tried))]
    if found == [0.0, 1.0, 1.0, 1.0, 1.0]:
        return None
    most = found[-1]
    if found[:-1] == [0.0, 0.0, 0.0, 1.0] and most in range(1, MOST_LEVELS + 1):
        return int(most)
    raise FrontendError(
        f"its surrogate function gives {', '.join(f'{x:g}' for x in found)} for {', '.join(f'{x:g}' for x in tried)}; "
        f"a step at 0 is read, and round(clip(x, 0, D))"
    )


def _check_step(module: Any) -> None:
    if _levels(module) is not None:
        raise FrontendError("its surrogate function sends codes of several levels; it is read where that is a step")


def _coded(module: Any, levels: int, beta: float, gain: float, step: float) -> Values:
    """C = round(clip(H, 0, D)), V = H - C step: forks of 0.0.0.0.12 (SpikeYOLO for Gen1, SDT V3 for HARDVS)."""
    if module.v_reset is not None and not type(module).__name__.startswith("Q_"):
        raise FrontendError("it sends codes of several levels and resets to v_reset; with v_reset=None it is read")
    values = {"op": "ilif", "beta": beta, "theta": 1.0, "levels": levels, "rounding": "half_even"}
    return values | ({"gain": gain} if gain != 1.0 else {}) | ({"step": step} if step != 1.0 else {})


def _jelly_leaky(module: Any, tau: float) -> Values:
    """H = V + (X - (V - V_reset))/tau; without decay_input X is added whole."""
    decay, levels = bool(getattr(module, "decay_input", True)), _levels(module)
    if levels is not None:
        return _coded(module, levels, 1.0 - 1.0 / tau, 1.0 / tau if decay else 1.0, 1.0) | {"call": _call(module)}
    return _jelly(module) | {"op": "lif", "tau": tau, "decay_input": decay}


def jelly_lif(module: Any) -> Values:
    return _jelly_leaky(module, scalar(module.tau, "tau"))


def _jelly_plif(module: Any) -> Values:
    """1/tau = sigmoid(w), in double precision, as the checkpoint front ends read it."""
    return _jelly_leaky(module, 1.0 + math.exp(-scalar(module.w, "w")))


def _jelly_if(module: Any) -> Values:
    levels = _levels(module)
    if levels is not None:
        return _coded(module, levels, 1.0, 1.0, 1.0) | {"call": _call(module)}
    values = _jelly(module)
    start = {"start_v": values["v_reset"]} if values.get("v_reset") else {}
    return values | {"op": "neuron", "beta": 1.0} | start


def _q_if(module: Any) -> Values:
    """H = V + X; C = round(clip(H, 0, D)); V = H - C theta, whatever v_reset says."""
    levels = _levels(module)
    if levels is None:
        raise FrontendError("its surrogate function is a step; a Q_IFNode with round(clip(x, 0, D)) is read")
    return _coded(module, levels, 1.0, 1.0, scalar(module.v_threshold, "v_threshold")) | {"call": "step"}


def _jelly_ilif(module: Any) -> Values:
    """H = (1 - 1/tau) V + X; C = round(clip(H/theta, 0, D)); V = H - C theta."""
    levels = int(module.surrogate_function.max_spike_count)
    beta, theta = 1.0 - 1.0 / scalar(module.tau, "tau"), scalar(module.v_threshold, "v_threshold")
    return {
        "op": "ilif",
        "beta": beta,
        "theta": theta,
        "levels": levels,
        "rounding": "half_even",
        "call": _call(module),
    }


def _jelly_klif(module: Any) -> Values:
    """F = relu(k H): H as of LIF; the potential is F, or with scale_reset F/k."""
    k, tau = scalar(module.k, "k"), scalar(module.tau, "tau")
    if not k > 0:
        raise FrontendError(f"k is {k:g}; a KLIF with k > 0 is read")
    values = _jelly(module)
    factor = 1.0 if module.scale_reset else k
    values["theta"] = values["theta"] / k if module.scale_reset else values["theta"]
    rest = values.get("v_reset", 0.0)
    if rest:
        raise FrontendError(f"v_reset is {rest:g}; a KLIF that resets to 0 is read")
    gain = factor / tau if module.decay_input else factor
    return values | {"op": "neuron", "beta": factor * (1.0 - 1.0 / tau), "gain": gain, "v_min": 0.0}


def _jelly_psn(module: Any) -> Values:
    """S[t] = H(sum over j of W[t, j] X[j] + B[t])."""
    _check_step(module)
    weight = np.atleast_2d(number(module.masked_weight() if hasattr(module, "masked_weight") else module.weight))
    theta = -np.asarray(number(module.bias)).reshape(-1)
    return {"op": "psn", "weight": weight, "theta": theta, "compare": "ge", "call": "sequence"}


def _jelly_sliding(module: Any) -> Values:
    """S[t] = H(sum of W[k - 1 - i] X[t - i] + B)."""
    _check_step(module)
    taps = np.atleast_1d(np.asarray(number(module.weight)))[::-1].copy()
    return {"op": "psn", "taps": taps, "theta": -scalar(module.bias, "bias"), "compare": "ge", "call": _call(module)}


# ---- more states, more levels, norms ----


def _started(values: Values) -> Values:
    """Potentials begin at the value of a hard reset."""
    return values | ({"start_v": values["v_reset"]} if values.get("v_reset") else {})


def _leaky(module: Any) -> Values:
    """H = V + (X - (V - V_reset))/tau, without decay_input X whole, as the general neuron."""
    values, tau = _started(_jelly(module)), scalar(module.tau, "tau")
    leak = values.get("v_reset", 0.0) / tau
    gain = {"gain": 1.0 / tau} if module.decay_input else {}
    return values | {"op": "neuron", "beta": 1.0 - 1.0 / tau} | gain | ({"leak": leak} if leak else {})


def _cuba(module: Any) -> Values:
    """C = c_decay C + X; H = v_decay V + C."""
    decays = {"alpha": scalar(module.c_decay, "c_decay"), "beta": scalar(module.v_decay, "v_decay")}
    return _started(_jelly(module)) | {"op": "neuron"} | decays


def _half(module: Any) -> Values:
    return _jelly_if(module) | {"start_v": scalar(module.v_threshold, "v_threshold") / 2.0}


def _activation_aware(module: Any) -> Values:
    """S = H(V + offset >= threshold); a soft reset subtracts the threshold without the offset."""
    _check_step(module)
    theta, offset = number(module.v_threshold), number(module.v_offset)
    if np.ndim(theta) or np.ndim(offset):
        if module.channel_dim >= 0:
            raise FrontendError(
                f"channel_dim is {module.channel_dim}, counted from an axis that depends on its input; give it as a "
                f"negative number"
            )
        after = (-1, *[1] * (-module.channel_dim - 1))
        theta, offset = (x.reshape(after) if isinstance(x, np.ndarray) else x for x in (theta, offset))
    values = {"op": "neuron", "beta": 1.0, "theta": theta - offset, "compare": "ge", "call": _call(module)}
    values |= _reset(module)
    return _started(values) | ({"step": theta} if values["reset"] == "soft" else {})


def _ternary(describe: Describe) -> Describe:
    """-1 at -theta or below, too."""

    def both(module: Any) -> Values:
        values = dict(describe(module))
        return values | {"theta_low": -values["theta"], "compare_low": "le"}

    return both


def _st_bif(module: Any) -> Values:
    """Q = Q + X / s from 1/2; +1 at 1 or above, -1 below 0, while what was sent stays in neg_min .. pos_max; s each."""
    scale = scalar(module.q_threshold, "q_threshold")
    bounds = {"sum_low": module.neg_min, "sum_high": module.pos_max}
    return {
        "op": "neuron",
        "beta": 1.0,
        "gain": 1.0 / scale,
        "theta": 1.0,
        "theta_low": 0.0,
        "start_v": 0.5,
        "reset": "soft",
        "compare": "ge",
        "norm": 1.0 / scale,
        "call": _call(module),
        **{key: round(scalar(value, key)) for key, value in bounds.items()},
    }


def _dsr(module: Any, values: Values, height: float) -> Values:
    """Fires at alpha theta, subtracts theta and sends ``height`` thetas."""
    theta = max(scalar(module.v_threshold, "v_threshold"), module.v_threshold_lower_bound)
    fires = {"theta": module.alpha * theta, "levels": 1, "rounding": "down", "step": theta}
    fires |= {"norm": 1.0 / (height * theta)}
    return values | fires | {"op": "neuron", "reset": "soft", "compare": "ge", "call": "sequence"}


def _dsr_if(module: Any) -> Values:
    return _dsr(module, {"beta": 1.0}, 1.0)


def _dsr_lif(module: Any) -> Values:
    beta = math.exp(-module.delta_t / module.tau)
    return _dsr(module, {"beta": beta, "gain": 1.0 - beta}, 1.0 / module.delta_t)


def _mpbn(module: Any) -> Values:
    """A LIF whose charged potential goes through a batch norm and is kept so."""
    values, norm = _leaky(module), module.vbn
    plain = type(norm).__name__ == "Identity"
    if module.fold_bn or (plain and module.learnable_vth):
        raise FrontendError("its thresholds differ by channel, and nothing of it says which axis has the channels")
    step = {"step": scalar(module.v_threshold, "v_threshold")} if values["reset"] == "soft" else {}
    if plain:
        return values | step
    axes = (-1, 1, 1) if "2d" in type(norm).__name__ else (-1,)
    numbers = [np.reshape(number(x), axes) for x in (norm.weight, norm.bias, norm.running_mean, norm.running_var)]
    weight, bias, mean, var = numbers
    scale = weight / np.sqrt(var + norm.eps)
    if (scale < 0).any() or (scale * values["beta"] > 1).any():
        raise FrontendError(
            f"its batch norm multiplies what a potential keeps by {scale.min():.3g} to {scale.max():.3g}; between 0 "
            f"and {1 / values['beta']:.3g} is read"
        )
    if module.learnable_vth:
        values["theta"] = np.exp(np.reshape(number(module.a), axes))
    offset = bias - mean * scale + scale * values.get("leak", 0.0)
    charged = {"beta": scale * values["beta"], "gain": scale * values.get("gain", 1.0), "leak": offset}
    return values | step | charged


# ---- the table ----

_LEAKY: dict[str, Describe] = {"IFNode": _jelly_if, "LIFNode": jelly_lif, "ParametricLIFNode": _jelly_plif}
_ACTIVATION = "spikingjelly.activation_based.neuron"
_TEACHING = "is for teaching; use {} instead"
_STATES = "a soma multiplies its states by constants only"
_BASE = refuse("it is the base of other neurons and computes nothing by itself")
_POTENTIAL = refuse(
    "it gives potentials and no spikes; return those of a neuron without reset instead (Leaky of snnTorch, LI of Norse)"
)
_CONNECTED = refuse("it hears its own spikes through a convolution inside it (conn); make that a layer beside a neuron")
_NOISY = refuse("it adds noise that is drawn while it runs; nmc compiles what is the same at every run")
_TABLES = refuse(
    "it sends spikes of K different weights when it has heard all of K timesteps; a soma has one weight for its spikes"
)
_FILES: dict[str, Describe] = {  # 2.x has a file for each; before, all were in one
    "integrate_and_fire.IFNode": _jelly_if,
    "integrate_and_fire.HalfThresholdIFNode": _half,
    "integrate_and_fire.ActivationAwareIFNode": _activation_aware,
    "lif.LIFNode": jelly_lif,
    "plif.ParametricLIFNode": _jelly_plif,
    "ilif.ILIFNode": _jelly_ilif,
    "lif_variants.KLIFNode": _jelly_klif,
    "lif_variants.CUBALIFNode": _cuba,
    "psn.PSN": _jelly_psn,
    "psn.MaskedPSN": _jelly_psn,
    "psn.SlidingPSN": _jelly_sliding,
    "ternary.TernaryIFNode": _ternary(_jelly_if),
    "ternary.TernaryLIFNode": _ternary(_leaky),
    "spikezip.STBIFNode": _st_bif,
    "dsr.DSRIFNode": _dsr_if,
    "dsr.DSRLIFNode": _dsr_lif,
    "mpbn.MPBNLIFNode": _mpbn,
    "online_learning.OTTTLIFNode": jelly_lif,
    "online_learning.SLTTLIFNode": jelly_lif,
    "integrate_and_fire.SimpleIFNode": refuse("SimpleIFNode " + _TEACHING.format("IFNode")),
    "lif.SimpleLIFNode": refuse("SimpleLIFNode " + _TEACHING.format("LIFNode")),
    "lif_variants.LIAFNode": refuse("LIAFNode sends the real values of its activation, not spikes"),
    "lif_variants.GatedLIFNode": refuse(
        "its reset multiplies the potential by a learned 1 - gamma; a soma sets it to a value or subtracts one"
    ),
    "lif_variants.ComplementaryLIFNode": refuse(
        f"its second state decays by the sigmoid of the potential, and a spike subtracts a sigmoid of it; {_STATES}"
    ),
    "nonlinear_if.QIFNode": refuse(f"its potential is multiplied by itself; {_STATES}"),
    "nonlinear_if.EIFNode": refuse(f"it takes the exponential of its potential; {_STATES}"),
    "adapt.IzhikevichNode": refuse(f"its potential is multiplied by itself, and a second state by it; {_STATES}"),
    "resonate.RAFNode": refuse(
        "it turns two states into each other (resonate and fire); the current of a soma does not hear its potential"
    ),
    "flexsn.FlexSN": refuse(
        "it computes what the function says that it was given; say that with nmc.register_neuron (docs/tracing.md)"
    ),
    "few_spike.FewSpikeNode": _TABLES,
    "few_spike.HGNode": _TABLES,
    "few_spike.OutlierAwareThresholdNode": _TABLES,
    "integrate_and_fire.NonSpikingIFNode": _POTENTIAL,
    "lif.NonSpikingLIFNode": _POTENTIAL,
    "base_node.NonSpikingBaseNode": _BASE,
    "base_node.BaseNode": _BASE,
    "base_node.SimpleBaseNode": _BASE,
    "adapt.AdaptBaseNode": _BASE,
    "mpbn.MPBNBaseNode": _BASE,
    "inter_layer_connection.ILCBaseNode": _BASE,
    **{f"inter_layer_connection.{name}": _CONNECTED for name in ("ILCIFNode", "ILCLIFNode", "ILCCUBALIFNode")},
    **{
        f"noisy.{name}": _NOISY
        for name in ("NoisyBaseNode", "NoisyCUBALIFNode", "NoisyILCBaseNode", "NoisyILCCUBALIFNode",
                     "NoisyNonSpikingBaseNode", "NoisyNonSpikingIFNode")
    },
}  # fmt: skip

NEURONS: dict[str, Describe] = {
    "Qtrick_architecture.clock_driven.neuron.Q_IFNode": _q_if,  # SDT V3, HARDVS
    **{f"spikingjelly.clock_driven.neuron.{name}": f for name, f in _LEAKY.items()},
    **{f"spikingjelly.clock_driven.neuron.MultiStep{name}": f for name, f in _LEAKY.items()},
    **{f"{_ACTIVATION}.{name.split('.')[1]}": f for name, f in _FILES.items()},
    **{f"{_ACTIVATION}.{name}": f for name, f in _FILES.items()},
}
