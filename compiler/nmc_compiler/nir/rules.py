"""Rules that make NIR's differential equations discrete, and the way back.

NIR says what a neuron does in continuous time; a simulator takes steps of dt, and each does so in its own way. A
`Rule` is one such way, as a simulator's code has it. With q = 1 - beta, what a step loses:

    euler   q = dt / tau              v' = v + q*(v_leak - v) + gain*x,    gain = r*q
    exact   q = 1 - exp(-dt / tau)    the same; exact where x is constant within a step

Every number is rounded to single precision, the one frameworks train in: then going to NIR and back, which divides
and multiplies in double precision, gives the same number again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nmc_compiler.errors import UsageError

MAX_DT = 1e6  # seconds
RESETS = {  # --nir-reset: how, and when
    "value": ("hard", "same"),
    "subtract": ("soft", "same"),
    "value-late": ("hard", "next_start"),
    "subtract-late": ("soft", "next_end"),
}


@dataclass(frozen=True)
class Rule:
    """How one simulator takes a step.

    ``loss``: "euler" or "exact". ``gain``: how the input enters a potential with a leak: "loss" (r*q), "jump" (r) or
    "decayed" (r*(dt/tau)*exp(dt/tau), the inverse of an exporter that writes r = (tau/dt)*exp(-dt/tau)).
    ``leaky_gain``: the same for LI, "loss" or "euler" (r*dt/tau). ``synapse``: how w_in enters a current: "loss"
    (w_in*q), "jump" (w_in) or "kept" (w_in*alpha). ``integrate``: an I or IF takes r*dt ("dt") or r ("jump").
    """

    name: str
    what: str
    loss: str = "euler"
    gain: str = "loss"
    leaky_gain: str = "loss"
    synapse: str = "loss"
    integrate: str = "dt"
    compare: str = "gt"
    reset: str = "value"
    several: bool = False  # the simulator sends a count where the potential passes several thresholds at once


RULES = {
    rule.name: rule
    for rule in (
        Rule("euler", "NIR as written, forward Euler; also Lava in floating point"),
        Rule("exponential", "NIR as written, exact for an input that is constant within a step", loss="exact"),
        Rule("norse", "Norse 1.1: Euler; synaptic currents jump by w_in, IF by its input",
             synapse="jump", integrate="jump"),
        Rule("snntorch", "snnTorch 1.0, reset_delay=True: Euler; threshold subtracted one step late",
             reset="subtract-late"),
        Rule("spikingjelly", "SpikingJelly 2.0: Euler; fires at the threshold, too", compare="ge"),
        Rule("sinabs", "sinabs 3.1: exact decay; threshold subtracted",
             loss="exact", compare="ge", reset="subtract", several=True),
        Rule("sinabs-unnormed", "sinabs 3.1, norm_input=False: the input is added whole",
             loss="exact", gain="jump", leaky_gain="jump", compare="ge", reset="subtract", several=True),
        Rule("rockpool", "Rockpool 3.1: exact decay, inputs added before it; threshold subtracted",
             loss="exact", gain="decayed", leaky_gain="euler", synapse="kept", compare="ge", reset="subtract",
             several=True),
    )
}  # fmt: skip
DEFAULT = "euler"


def rule_of(name: str, reset: str | None = None) -> Rule:
    """A rule by name, with another reset where one is given. UsageError for names that do not exist."""
    if name not in RULES:
        raise UsageError(f"--nir-rule {name}: no such rule; choose {', '.join(RULES)}")
    if reset is not None and reset not in RESETS:
        raise UsageError(f"--nir-reset {reset}: no such reset; choose {', '.join(RESETS)}")
    return RULES[name] if reset is None else replace(RULES[name], reset=reset)


def check_dt(dt: Any, flag: str = "--dt") -> float:
    """The timestep in seconds. UsageError where it is missing or no positive number."""
    if dt is None:
        raise UsageError(
            f"NIR is in continuous time; give the timestep in seconds with {flag}, as its exporter had it: "
            "1e-4 for snnTorch and SpikingJelly, 1 for sinabs"
        )
    value = float(dt)
    if not 0 < value <= MAX_DT:
        raise UsageError(f"{flag} {dt}: expected seconds, more than 0 and at most {MAX_DT:g}")
    return value


def single(x: Any) -> np.ndarray:
    """Rounded to single precision, as float64; infinite where it does not fit."""
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(x, np.float64).astype(np.float32).astype(np.float64)


def losses(rule: Rule, tau: np.ndarray, dt: float) -> np.ndarray:
    """q, what a state with time constant ``tau`` loses in a step; above 1 where Euler overshoots."""
    steps = dt / tau.astype(np.float64)
    return single(steps if rule.loss == "euler" else -np.expm1(-steps))


def time_constants(rule: Rule, lost: np.ndarray, dt: float) -> np.ndarray:
    """The inverse of `losses`: zero or infinite where there is no such time constant."""
    with np.errstate(divide="ignore"):
        return dt / lost if rule.loss == "euler" else -dt / np.log1p(-lost)


def input_factor(kind: str, lost: np.ndarray, tau: np.ndarray, dt: float) -> np.ndarray:
    """What r, or w_in, is multiplied by to give what an input of 1 adds in a step."""
    steps = dt / tau.astype(np.float64)
    return {
        "loss": lost,
        "jump": np.ones_like(lost),
        "euler": single(steps),
        "decayed": single(steps * np.exp(np.minimum(steps, 700.0))),
        "kept": 1.0 - lost,
    }[kind]
