"""Quantised Spike-Driven Transformer (Qiu et al., ICLR 2025): family ``qsd``. Weights of 4 bits (LSQ), codes 0..4."""

from __future__ import annotations

import math

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends import sdt_v2
from nmc_compiler.frontends.config import ModelConfig
from nmc_compiler.frontends.metaformer import Meta, attention_stages, configure_meta, conv_stages
from nmc_compiler.graph import Attr, Graph

KNOWN = (*sdt_v2.KNOWN, sdt_v2.QUANTISED)
LEVELS = 4
SCALE = 0.25  # of the attention product
ACTIVATION = (".act.alpha", ".act.zero_point", ".act.init_state", ".act.signed")
DEAD = {
    **dict.fromkeys(ACTIVATION, "the quantiser of activations, which the authors' forward leaves out"),
    ".init_state": "whether the step size was initialised, of use in training alone",
}


def recognise(tensors: dict[str, np.ndarray]) -> bool:
    """True where the keys are those of this family (and of no other)."""
    return all(k in tensors for k in KNOWN)


class _Builder(Meta):
    layer_scale = True

    def spike(self, x: str, name: str, layout: str = "CHW") -> str:
        return self.multilevel(x, name, Attr(LEVELS, "family"), layout, "half_up", float(LEVELS))

    def attention_spike(self, x: str, name: str) -> str:
        return self.multilevel(x, name, Attr(LEVELS // 2, "family"), "CN", "half_up", float(LEVELS))


def step_size(alpha: np.ndarray, weights: int, bits: int) -> np.ndarray:
    """alpha as a forward pass has it, which scales the gradient of a layer of so many weights: alpha - g alpha
    + g alpha.

    In float32 that is off alpha by a last digit here and there. g = 1 / sqrt(weights Qp) (Esser et al., section 2.2).
    """
    scaled = alpha * alpha.dtype.type(1.0 / math.sqrt(weights * ((1 << bits - 1) - 1)))
    return alpha - scaled + scaled


def lsq_weight(weight: np.ndarray, alpha: np.ndarray, bits: int) -> np.ndarray:
    """alpha * round(clamp(weight / alpha, -2^(bits-1), 2^(bits-1) - 1)), half to even; alpha [out] or [1].

    In the arithmetic of the checkpoint (float32), where a ratio may fall on either side of a half. Source: Esser et
    al., Learned Step Size Quantization, ICLR 2020, equation 1.
    """
    step = alpha.reshape(-1, *([1] * (weight.ndim - 1)))
    half = 1 << (bits - 1)
    return np.rint(np.clip(weight / step, -half, half - 1)) * step


def quantised(tensors: dict[str, np.ndarray], bits: int) -> tuple[dict[str, np.ndarray], int]:
    """The tensors with every stored master weight replaced by its quantised one, and how many there are."""
    steps = [k for k in tensors if k.endswith(".alpha") and not k.endswith(".act.alpha")]
    out = dict(tensors)
    for key in steps:
        name = key.removesuffix("alpha") + "weight"
        if name not in tensors:
            raise FrontendError(f"checkpoint has no tensor '{name}', whose step size '{key}' is")
        weight, alpha = tensors[name], tensors[key]
        real = alpha.dtype.kind in "fiu" and weight.dtype.kind in "fiu"
        if alpha.shape not in ((1,), weight.shape[:1]) or not real:
            raise FrontendError(
                f"tensor '{key}' has shape {alpha.shape} and dtype {alpha.dtype}; a step size for each of the "
                f"{weight.shape[:1]} output channels of '{name}' ({weight.dtype}), or one for all, is needed"
            )
        if not alpha.all():
            raise FrontendError(f"tensor '{key}' has a step size of 0: its weights are no numbers")
        out[name] = lsq_weight(weight, step_size(alpha, weight.size, bits), bits)
    return out, len(steps)


def configure(tensors: dict[str, np.ndarray], config: ModelConfig) -> ModelConfig:
    """What shapes tell, checked against the config; family constants where it is silent."""
    config = config.with_defaults("family", T=1, D=LEVELS, nbits_w=4)
    if config.integer("D") != LEVELS:
        raise FrontendError(f"config says D = {config.value('D')}; the neurons of qsd have {LEVELS} levels")
    if not 2 <= config.integer("nbits_w") <= 16:
        raise FrontendError(f"config says nbits_w = {config.value('nbits_w')}; weights have 2 to 16 bits")
    return configure_meta(tensors, config, ("1_2", "2", "3", "4"))


def build(tensors: dict[str, np.ndarray], config: ModelConfig) -> tuple[Graph, list[str]]:
    """The float graph (models.md 4.7) with quantised weights, and notes."""
    config = configure(tensors, config)
    bits = config.integer("nbits_w")
    effective, count = quantised(tensors, bits)
    b = _Builder("qsd", effective, config, config.integer("T"), input_time=config.flag("input_time"))
    x = attention_stages(b, conv_stages(b, b.image()), SCALE)
    s = b.spike(b.mean_positions(x), "lif", "C")
    b.graph.add("readout", b.conv(s, "head", bias=True), name="head")
    b.used |= {k for k in tensors if k.endswith(".alpha") and not k.endswith(".act.alpha")}
    graph, notes = b.finish(DEAD)
    return graph, [f"{count} weights quantised to {bits} bits by their step sizes (LSQ)", *_brief(notes)]


def _brief(notes: list[str]) -> list[str]:
    """One line for each reason: there are about a thousand such tensors."""
    found: dict[str, list[str]] = {}
    for note in notes:
        what, reason = note.split(": ", 1)
        found.setdefault(reason, []).append(what)
    more = {reason: f" and {len(names) - 1} more" if names[1:] else "" for reason, names in found.items()}
    return [f"{names[0]}{more[reason]}: {reason}" for reason, names in found.items()]
