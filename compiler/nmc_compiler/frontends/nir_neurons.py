"""Parameters of NIR's neurons as those of the discrete `neuron` and `integrator` (docs/nir.md)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.nir_shapes import Shape, canonical
from nmc_compiler.nir.rules import RESETS, Rule, input_factor, losses, single
from nmc_compiler.nir.schema import FIRING, NirNode

LONG = 0.1  # dt / tau from which Euler's step is noticeably not the exponential's (5 % in a decay)


class Discrete:
    """Attributes of one neuron, and what there is to say about how they came about.

    ``values``: numbers or arrays [C, H, W]; ``choices``: strings such as reset. ``changes`` are ways in which the
    neuron is not what the file says, ``facts`` are for the report.
    """

    def __init__(self, node: NirNode, shape: Shape, rule: Rule, dt: float) -> None:
        self.node, self.shape, self.rule, self.dt = node, shape, rule, dt
        self.values: dict[str, Any] = {}
        self.choices: dict[str, str] = {}
        self.changes: list[str] = []
        self.facts: dict[str, Any] = {}
        if node.type == "Threshold":
            self.values["beta"] = np.zeros(1)
        elif node.type in ("I", "IF"):
            self.values["beta"] = np.ones(1)
            self.values["gain"] = single(self.given("r") * (dt if rule.integrate == "dt" else 1.0))
        else:
            self._leaky()
        if node.type in (*FIRING, "Threshold"):
            self._fires()
        for key, value in self.values.items():
            if not np.isfinite(value).all():
                raise FrontendError(
                    f"{node.where}: at dt = {dt:g} its {key} becomes larger than single precision holds; "
                    "check the units of its parameters (seconds, as --dt)"
                )

    def given(self, key: str) -> np.ndarray:
        """A parameter, one number or one per element; float64."""
        return elements(self.node, key, self.shape)

    def _leaky(self) -> None:
        cuba = self.node.type.startswith("Cuba")
        tau = self.given("tau_mem" if cuba else "tau")
        lost = self._losses("tau_mem" if cuba else "tau", tau)
        into = self.rule.gain if self.node.type != "LI" else self.rule.leaky_gain
        gain = single(self.given("r") * input_factor(into, lost, tau, self.dt))
        self.values["beta"] = 1.0 - lost
        self.values["gain_v" if cuba else "gain"] = gain
        if cuba:
            tau_syn = self.given("tau_syn")
            lost_syn = self._losses("tau_syn", tau_syn)
            w_in = self.given("w_in") if "w_in" in self.node.values else np.ones(1)
            self.values["alpha"] = 1.0 - lost_syn
            self.values["gain"] = single(w_in * input_factor(self.rule.synapse, lost_syn, tau_syn, self.dt))
        leak = single(self.given("v_leak") * lost)
        if leak.any():
            self.values["leak"] = leak
            with np.errstate(divide="ignore", invalid="ignore"):
                self.values["start_v"] = np.where(lost > 0, single(leak / lost), 0.0)
            self.facts["start"] = "at v_leak, where a neuron without input rests"

    def _losses(self, key: str, tau: np.ndarray) -> np.ndarray:
        lost = losses(self.rule, tau, self.dt)
        if lost.max() > 1:
            raise FrontendError(
                f"{self.node.where}: dt = {self.dt:g} s is longer than its {key}, {tau.min():g} s at the least, "
                "and Euler's step would overshoot; give a shorter --dt (Norse's exporter multiplies its time "
                "constants by dt: give dt squared), or --nir-rule exponential"
            )
        steps = float((self.dt / tau).max())
        self.facts[f"dt/{key}"] = steps
        if self.rule.name == "euler" and steps > LONG:  # the rules of frameworks are what was trained
            self.changes.append(f"dt is {steps:.2g} of {key}: Euler's step and NIR's equation differ noticeably")
        return lost

    def _fires(self) -> None:
        node, rule = self.node, self.rule
        self.values["theta"] = self.given("threshold" if node.type == "Threshold" else "v_threshold")
        self.choices["compare"] = rule.compare
        if node.type == "Threshold":
            self.choices["reset"] = "none"
            return
        how, when = RESETS[rule.reset]
        self.choices["reset"] = how
        if when != "same":
            self.choices["reset_at"] = when
        v_reset = self.given("v_reset") if "v_reset" in node.values else np.zeros(1)
        self.facts["reset"] = rule.reset
        if "v_reset" not in node.values:
            self.facts["v_reset"] = "not in the file: 0, as NIR says"
        if how == "hard" and v_reset.any():
            self.values["v_reset"] = v_reset
        elif v_reset.any():
            self.changes.append("the threshold is subtracted; v_reset of the file, which is not 0, is not used")
        if rule.several:
            self.changes.append(f"{rule.name} may count several spikes in a timestep; here it is one at the most")


def elements(node: NirNode, key: str, shape: Shape) -> np.ndarray:
    """A field as float64: one number, [1], or one per element, [C, H, W]."""
    value = node.values[key].astype(np.float64)
    if value.size == 1:
        return value.reshape(1)
    full = value.reshape(shape) if value.size == math.prod(shape) else np.broadcast_to(value, shape)
    return full.reshape(canonical(shape))


def compact(value: np.ndarray) -> float | np.ndarray:
    """One number where all are equal, [C] where channels are, else [C, H, W]."""
    if value.size == 1 or (value == value.flat[0]).all():
        return float(value.flat[0])
    if (value == value[:, :1, :1]).all():
        return np.ascontiguousarray(value[:, 0, 0])
    return np.ascontiguousarray(value)
