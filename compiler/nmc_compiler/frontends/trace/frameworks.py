"""The neurons of SpikingJelly, snnTorch, Norse and sinabs as neuron ops of the graph, by the names of their classes.

Written from the published equations (docs/tracing.md lists the versions they were compared with). What no neuron of
the graph computes is refused here, with the setting that is to blame.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.trace import braincog, jelly
from nmc_compiler.frontends.trace.numbers import Values, number, refuse, scalar
from nmc_compiler.frontends.trace.registry import Describe

MOST_SPIKES = 255
"""Most spikes of a sinabs neuron in a timestep: what a cell can send at once (docs/integers.md)."""


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
    **jelly.NEURONS,
    **braincog.NEURONS,
    "snntorch._neurons.leaky.Leaky": _torch_leaky,
    "snntorch._neurons.lapicque.Lapicque": _torch_lapicque,
    "snntorch._neurons.synaptic.Synaptic": _torch_synaptic,
    "snntorch._neurons.alpha.Alpha": refuse(
        "Alpha has two currents and subtracts them; no neuron of the graph does that. Use Synaptic or Leaky"
    ),
    **{f"norse.torch.module.{name}": f for name, f in _NORSE.items()},
    **{f"sinabs.layers.{name}": f for name, f in _SINABS.items()},
}

PACKAGES = (
    "spikingjelly.clock_driven.neuron",
    "spikingjelly.activation_based.neuron",
    braincog.BASE,
    "snntorch._neurons",
    "norse.torch.module.snn",
    "sinabs.layers.stateful_layer",
)
"""Python modules whose classes are neurons: one that is not in the table above is refused by name."""
