"""Spike-Driven Transformer V2 / Meta-SpikeFormer (Yao et al., ICLR 2024): family ``sdt_v2``."""

from __future__ import annotations

import numpy as np

from nmc_compiler.frontends.config import ModelConfig
from nmc_compiler.frontends.metaformer import (
    STEM,
    Meta,
    attention_stages,
    configure_meta,
    conv_stages,
)
from nmc_compiler.graph import Attr, Graph

KNOWN = (
    STEM,
    "ConvBlock1_1.0.Conv.pwconv1.weight",
    "block3.0.attn.q_conv.0.body.0.weight",
    "head.weight",
)
QUANTISED = "downsample1_1.encode_conv.alpha"  # of the family qsd, which has the other keys too


def recognise(tensors: dict[str, np.ndarray]) -> bool:
    """True where the keys are those of this family (and of no other)."""
    return all(k in tensors for k in KNOWN) and QUANTISED not in tensors


class _Builder(Meta):
    def spike(self, x: str, name: str, layout: str = "CHW") -> str:
        return self.lif(x, name, layout=layout)

    def attention_spike(self, x: str, name: str) -> str:
        return self.lif(x, name, "attn_threshold", "CN")


def configure(tensors: dict[str, np.ndarray], config: ModelConfig) -> ModelConfig:
    """What shapes and keys tell, checked against the config; family constants where it is silent."""
    config = config.with_defaults("family", tau=2.0, v_threshold=1.0, attn_threshold=0.5, attn_scale=0.125)
    config = configure_meta(tensors, config, ("1_2", "2", "3", "4"))
    return config.agree("kd", "head_kd.weight" in tensors, "the presence of head_kd.weight")


def build(tensors: dict[str, np.ndarray], config: ModelConfig) -> tuple[Graph, list[str]]:
    """The float graph (models.md 4.5) and notes."""
    config = configure(tensors, config)
    b = _Builder("sdt_v2", tensors, config, config.integer("T"), input_time=config.flag("input_time"))
    scale = float(config.number("attn_scale").value)  # type: ignore[arg-type]
    x = attention_stages(b, conv_stages(b, b.image()), scale)
    s = b.lif(b.mean_positions(x), "lif", layout="C")
    heads = ["head", "head_kd"] if config.flag("kd") else ["head"]
    logits = [b.conv(s, key, bias=True) for key in heads]
    total = logits[0]
    if len(logits) > 1:  # the mean of both heads
        total = b.graph.add("scale", b.add(*logits), factor=Attr(1 / len(logits), "family"))
    b.graph.add("readout", total, name="head")
    return b.finish({})
