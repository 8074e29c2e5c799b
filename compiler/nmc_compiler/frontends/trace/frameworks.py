"""The neurons of SpikingJelly, snnTorch, Norse and sinabs as neuron ops of the graph, by the names of their classes.

Written from the published equations (docs/tracing.md lists the versions they were compared with). What no neuron of
the graph computes is refused here, with the setting that is to blame.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.trace.registry import Describe

Values = dict[str, Any]
MOST_SPIKES = 255
"""Most spikes of a sinabs neuron in a timestep: what a cell can send at once (docs/integers.md)."""


def number(value: Any) -> float | np.ndarray:
    """A Python number, or an array of one number per element, from a number or tensor."""
    if isinstance(value, (bool, int, float)):
        return float(value)
    array = np.asarray(value.detach().cpu().numpy() if hasattr(value, "detach") else value, np.float64)
    return float(array.reshape(())) if array.size == 1 else array


def scalar(value: Any, what: str) -> float:
    found = number(value)
    if not isinstance(found, float):
        raise FrontendError(f"{what} differs between elements ({found.shape}); one number is needed")
    return found


# ---- SpikingJelly ----


def _reset(module: Any) -> Values:
    if module.v_reset is None:
        return {"reset": "soft"}
    return {"reset": "hard", "v_reset": scalar(module.v_reset, "v_reset")}


def _jelly(module: Any) -> Values:
    """What all spiking nodes of SpikingJelly share; they fire at their threshold, too."""
    many = type(module).__name__.startswith("MultiStep") or getattr(module, "step_mode", "s") == "m"
    call = "sequence" if many else "step"
    theta = scalar(module.v_threshold, "v_threshold")
    return {"theta": theta, "compare": "ge", "call": call} | _reset(module)


def _jelly_leaky(module: Any, tau: float) -> Values:
    """H = V + (X - (V - V_reset))/tau; without decay_input X is added whole."""
    decay = bool(getattr(module, "decay_input", True))
    return _jelly(module) | {"op": "lif", "tau": tau, "decay_input": decay}


def _jelly_lif(module: Any) -> Values:
    return _jelly_leaky(module, scalar(module.tau, "tau"))


def _jelly_plif(module: Any) -> Values:
    """1/tau = sigmoid(w), in double precision, as the checkpoint front ends read it."""
    return _jelly_leaky(module, 1.0 + math.exp(-scalar(module.w, "w")))


def _jelly_if(module: Any) -> Values:
    values = _jelly(module)
    start = {"start_v": values["v_reset"]} if values.get("v_reset") else {}
    return values | {"op": "neuron", "beta": 1.0} | start


def _jelly_ilif(module: Any) -> Values:
    """H = (1 - 1/tau) V + X; C = round(clip(H/theta, 0, D)); V = H - C theta."""
    levels = int(module.surrogate_function.max_spike_count)
    call = "sequence" if module.step_mode == "m" else "step"
    beta, theta = 1.0 - 1.0 / scalar(module.tau, "tau"), scalar(module.v_threshold, "v_threshold")
    return {"op": "ilif", "beta": beta, "theta": theta, "levels": levels, "rounding": "half_even", "call": call}


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
    weight = number(module.masked_weight() if hasattr(module, "masked_weight") else module.weight)
    theta = -np.asarray(number(module.bias)).reshape(-1)
    return {"op": "psn", "weight": np.asarray(weight), "theta": theta, "compare": "ge", "call": "sequence"}


def _jelly_sliding(module: Any) -> Values:
    """S[t] = H(sum of W[k - 1 - i] X[t - i] + B)."""
    call = "sequence" if module.step_mode == "m" else "step"
    taps = np.atleast_1d(np.asarray(number(module.weight)))[::-1].copy()
    return {"op": "psn", "taps": taps, "theta": -scalar(module.bias, "bias"), "compare": "ge", "call": call}


def _refuse(why: str) -> Describe:
    def refused(module: Any) -> Values:
        raise FrontendError(why)

    return refused


# ---- snnTorch ----


def _torch_common(module: Any, late: str) -> Values:
    """Fires above the threshold; resets at the next step: before its update ("zero") or behind it (the others)."""
    if getattr(module, "inhibition", False):
        raise FrontendError("inhibition=True lets one neuron of a layer fire; set it to False")
    if getattr(module, "state_quant", False):
        raise FrontendError("state_quant rounds states while it runs; set it to False")
    if scalar(getattr(module, "graded_spikes_factor", 1.0), "graded_spikes_factor") != 1.0:
        raise FrontendError("graded_spikes_factor is not 1; fold it into the next layer's weights")
    reset = ("soft", "hard", "none")[int(module.reset_mechanism_val)]
    at = {"soft": "next_end", "hard": late, "none": "same"}[reset]
    if not getattr(module, "reset_delay", True) and reset != "none":
        if reset == "soft":
            raise FrontendError("reset_delay=False with reset_mechanism='subtract' may subtract a step late or twice")
        at = "same"
    hidden = bool(module.init_hidden) and not module.output
    values: Values = {"op": "neuron", "compare": "gt", "theta": number(module.threshold), "reset": reset}
    if reset == "none":
        values["op"] = "neuron"
    return values | ({} if at == "same" else {"reset_at": at}) | {"gives": "spikes" if hidden else "spikes, v"}


def _unit(value: Any) -> float | np.ndarray:
    """Decays are clamped to 0..1 in the forward pass."""
    found = np.clip(number(value), 0.0, 1.0)
    return float(found) if np.ndim(found) == 0 else found


def _torch_leaky(module: Any) -> Values:
    return _torch_common(module, "next_start") | {"beta": _unit(module.beta)}


def _torch_lapicque(module: Any) -> Values:
    """mem = (1 - dt/(R C)) mem + x dt/C."""
    r, c, dt = (scalar(getattr(module, key), key) for key in ("R", "C", "time_step"))
    return _torch_common(module, "next_end") | {"beta": 1.0 - dt / (r * c), "gain": dt / c}


def _torch_synaptic(module: Any) -> Values:
    """syn = alpha syn + x; mem = beta mem + syn."""
    values = _torch_common(module, "next_end") | {"alpha": _unit(module.alpha), "beta": _unit(module.beta)}
    return values | {"gives": values["gives"].replace("spikes, v", "spikes, u, v")}


# ---- Norse ----


def _norse_reset(p: Any) -> Values:
    """Fires above the threshold; reset_value, or reset_subtract where the parameters name it."""
    method = getattr(getattr(p, "reset_method", None), "__name__", "reset_value")
    if method not in ("reset_value", "reset_subtract"):
        raise FrontendError(f"its reset_method {method} is not one of Norse's own")
    hard = method == "reset_value"
    values: Values = {"theta": number(p.v_th), "compare": "gt", "reset": "hard" if hard else "soft"}
    return values | ({"v_reset": _some(p.v_reset)} if hard else {})


def _some(value: Any) -> float | np.ndarray | None:
    """A parameter whose 0 means nothing."""
    found = number(value)
    return found if np.any(found) else None


def _norse_membrane(module: Any) -> Values:
    """v = v + dt/tau (v_leak - v + i), from v_leak."""
    lost = module.dt * number(module.p.tau_mem_inv)
    leak = number(module.p.v_leak)
    rest = {"leak": lost * leak, "start_v": leak} if np.any(leak) else {}
    return {"beta": 1.0 - lost, **rest}


def _norse_box(module: Any) -> Values:
    lost = module.dt * number(module.p.tau_mem_inv)
    return {"op": "neuron", "gain": lost, "gives": "spikes, state"} | _norse_membrane(module) | _norse_reset(module.p)


def _norse_synapse(module: Any) -> Values:
    """i = i + x, which acts at once and decays behind it."""
    return {"alpha": 1.0 - module.dt * number(module.p.tau_syn_inv), "gain_v": module.dt * number(module.p.tau_mem_inv)}


def _norse_lif(module: Any) -> Values:
    values = _norse_synapse(module) | _norse_membrane(module) | _norse_reset(module.p)
    return {"op": "neuron", "gives": "spikes, state"} | values


def _norse_iaf(module: Any) -> Values:
    return {"op": "neuron", "beta": 1.0, "gives": "spikes, state"} | _norse_reset(module.p)


def _norse_li(module: Any) -> Values:
    return {"op": "integrator", "gives": "v, state"} | _norse_synapse(module) | _norse_membrane(module)


def _norse_li_box(module: Any) -> Values:
    lost = module.dt * number(module.p.tau_mem_inv)
    return {"op": "integrator", "gives": "v, state", "gain": lost} | _norse_membrane(module)


def _over_time(describe: Describe) -> Describe:
    """The same neuron in a module that takes a whole sequence."""
    return lambda module: describe(module) | {"call": "sequence"}  # type: ignore[operator]


# ---- sinabs ----


def _sinabs(module: Any) -> Values:
    """v = alpha v + x (or (1 - alpha) x with norm_input); fires at its threshold, then subtracts it or resets to 0."""
    if getattr(module, "tau_syn", None) is not None and np.any(number(module.tau_syn)):
        raise FrontendError("tau_syn adds a current with a decay; nmc reads sinabs neurons without one")
    if getattr(module, "rec_connect", None) is not None:
        raise FrontendError("recurrent sinabs layers are not read; write the recurrence as a layer of its own")
    tau = getattr(module, "tau_mem", None)
    leaky = type(module).__name__.startswith(("LIF", "ExpLeak", "ALIF"))
    beta = np.exp(-1.0 / np.asarray(number(tau))) if leaky else np.asarray(1.0)
    values: Values = {"beta": float(beta) if beta.ndim == 0 else beta, "call": _sinabs_call(module)}
    if leaky and getattr(module, "norm_input", False):
        values["gain"] = 1.0 - values["beta"]
    if type(module).__name__.startswith("ExpLeak"):
        return {"op": "integrator", **values}
    fires = _sinabs_fires(module)
    if module.min_v_mem is not None:
        if fires["op"] == "ilif":
            raise FrontendError(
                "min_v_mem with several spikes in a timestep; train with spike_fn=SingleSpike, or without"
            )
        values["v_min"] = scalar(module.min_v_mem, "min_v_mem")
    return values | fires


def _sinabs_fires(module: Any) -> Values:
    fire, reset = (getattr(f, "__name__", type(f).__name__) for f in (module.spike_fn, module.reset_fn))
    if fire == "MultiSpike" and reset == "MembraneSubtract":
        theta = scalar(module.spike_threshold, "spike_threshold")
        return {"op": "ilif", "theta": theta, "levels": MOST_SPIKES, "rounding": "down"}
    if fire != "SingleSpike":
        raise FrontendError(f"spike_fn {fire} is not read; SingleSpike is, and MultiSpike where it subtracts")
    if reset == "MembraneReset" and scalar(getattr(module.reset_fn, "reset_value", 0.0), "reset_value"):
        return {"op": "neuron", "theta": number(module.spike_threshold), "compare": "ge", "reset": "hard",
                "v_reset": scalar(module.reset_fn.reset_value, "reset_value")}  # fmt: skip
    how = {"MembraneSubtract": "soft", "MembraneReset": "hard"}.get(reset)
    if how is None or getattr(module.reset_fn, "subtract_value", None) is not None:
        raise FrontendError(f"reset_fn {reset} is not read; MembraneSubtract() and MembraneReset() are")
    return {"op": "neuron", "theta": number(module.spike_threshold), "compare": "ge", "reset": how}


def _sinabs_call(module: Any) -> str:
    return "flat sequence" if type(module).__name__.endswith("Squeeze") else "batch, sequence"


# ---- the tables ----

_JELLY: dict[str, Describe] = {
    "IFNode": _jelly_if,
    "LIFNode": _jelly_lif,
    "ParametricLIFNode": _jelly_plif,
}
_MULTI = {f"MultiStep{name}": describe for name, describe in _JELLY.items()}
_ACTIVATION = "spikingjelly.activation_based.neuron"
_FILES = {  # 2.x has a file for each; before, all were in one
    "integrate_and_fire.IFNode": _jelly_if,
    "lif.LIFNode": _jelly_lif,
    "plif.ParametricLIFNode": _jelly_plif,
    "ilif.ILIFNode": _jelly_ilif,
    "lif_variants.KLIFNode": _jelly_klif,
    "KLIFNode": _jelly_klif,
    "psn.PSN": _jelly_psn,
    "psn.MaskedPSN": _jelly_psn,
    "psn.SlidingPSN": _jelly_sliding,
    "integrate_and_fire.SimpleIFNode": _refuse("SimpleIFNode is for teaching; use IFNode"),
    "lif.SimpleLIFNode": _refuse("SimpleLIFNode is for teaching; use LIFNode"),
    "lif_variants.LIAFNode": _refuse("LIAFNode sends the real values of its activation, not spikes"),
}
_NORSE = {
    "lif_box.LIFBoxCell": _norse_box,
    "lif.LIFCell": _norse_lif,
    "lif.LIF": _over_time(_norse_lif),
    "iaf.IAFCell": _norse_iaf,
    "iaf.IAF": _over_time(_norse_iaf),
    "leaky_integrator.LICell": _norse_li,
    "leaky_integrator.LI": _over_time(_norse_li),
    "leaky_integrator_box.LIBoxCell": _norse_li_box,
}
_SINABS = {
    "iaf.IAF": _sinabs,
    "iaf.IAFSqueeze": _sinabs,
    "lif.LIF": _sinabs,
    "lif.LIFSqueeze": _sinabs,
    "exp_leak.ExpLeak": _sinabs,
    "exp_leak.ExpLeakSqueeze": _sinabs,
}

NEURONS: dict[str, Describe] = {
    **{f"spikingjelly.clock_driven.neuron.{name}": f for name, f in (_JELLY | _MULTI).items()},
    **{f"{_ACTIVATION}.{name}": f for name, f in _JELLY.items()},
    **{f"{_ACTIVATION}.{name}": f for name, f in _FILES.items()},
    "snntorch._neurons.leaky.Leaky": _torch_leaky,
    "snntorch._neurons.lapicque.Lapicque": _torch_lapicque,
    "snntorch._neurons.synaptic.Synaptic": _torch_synaptic,
    "snntorch._neurons.alpha.Alpha": _refuse(
        "Alpha has two currents and subtracts them; no neuron of the graph does that. Use Synaptic or Leaky"
    ),
    **{f"norse.torch.module.{name}": f for name, f in _NORSE.items()},
    **{f"sinabs.layers.{name}": f for name, f in _SINABS.items()},
}

PACKAGES = (
    "spikingjelly.clock_driven.neuron",
    "spikingjelly.activation_based.neuron",
    "snntorch._neurons",
    "norse.torch.module.snn",
    "sinabs.layers.stateful_layer",
)
"""Python modules whose classes are neurons: one that is not in the table above is refused by name."""
