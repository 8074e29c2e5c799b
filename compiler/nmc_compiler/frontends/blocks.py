"""Parts that several families have: attention of two kinds, MLPs on membranes and on spikes."""

from __future__ import annotations

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.build import FamilyBuilder
from nmc_compiler.graph import Attr


def spikes(b: FamilyBuilder, x: str, p: str, layout: str = "CHW", kind: str = "conv", **conv: object) -> str:
    """conv (``p_conv`` or ``p_linear``) -> ``p_bn`` -> ``p_lif``."""
    return b.lif(b.conv_bn(x, f"{p}_{kind}", f"{p}_bn", **conv), f"{p}_lif", layout=layout)


def check_heads(heads: Attr, width: int, where: str) -> None:
    """Refuse heads that do not divide the channels of an attention."""
    count = int(heads.value)  # type: ignore[arg-type]
    if count < 1 or width % count:
        raise FrontendError(f"num_heads = {count} does not divide the {width} channels of {where}")


def self_attention(b: FamilyBuilder, x: str, p: str, heads: Attr, layout: str, kind: str = "conv") -> str:
    """SSA (models.md A7) on spikes ``x``: LIF_1/2(s (q k^T) v), before its projection.

    Recorded as ``layout``; q, k and v without bias where they are convolutions.
    """
    width, bias = b.shape(x)[0], kind == "linear"
    check_heads(heads, width, p)
    q, k, v = (spikes(b, x, f"{p}.{n}", layout, kind, out=width, bias=bias) for n in "qkv")
    current = b.graph.add("attn", q, k, v, heads=heads, scale=b.config.number("attn_scale"))
    return b.lif(current, f"{p}.attn_lif", "attn_threshold", layout)


def token_attention(b: FamilyBuilder, x: str, p: str, heads: Attr) -> str:
    """Token-QKA (models.md A5) on spikes ``x``: k where LIF_1/2 of the sum of q over the channels of its head fires."""
    width = b.shape(x)[0]
    check_heads(heads, width, p)
    q, k = (spikes(b, x, f"{p}.{n}", "CN", out=width) for n in "qk")
    counts = b.graph.add("map", q, mode="reduce_channels", channels=heads)
    mask = b.lif(counts, f"{p}.attn_lif", "attn_threshold", "head tokens")
    return b.graph.add("mul", k, mask, name=f"{p}.qk")


def projected(b: FamilyBuilder, x: str, p: str) -> str:
    """The current of an attention: 1x1 convolution with bias ``p.proj_conv``, ``p.proj_bn``."""
    return b.conv_bn(x, f"{p}.proj_conv", f"{p}.proj_bn", bias=True, out=b.shape(x)[0])


def membrane_mlp(b: FamilyBuilder, x: str, p: str, name: str, inner: bool, layout: str = "CHW") -> str:
    """x + BN(conv(LIF(BN(conv(LIF x))))), the layers called ``p.<name>1`` and ``p.<name>2``.

    ``inner``: where the hidden layer is as wide as x, what the first half gives is added to x as well.
    """
    width = b.shape(x)[0]
    first, second = (f"{p}.{name}{n}" for n in "12")
    h = b.conv_bn(b.lif(x, f"{first}_lif", layout=layout), f"{first}_conv", f"{first}_bn", bias=True)
    if inner and b.shape(h) == b.shape(x):
        h = x = b.graph.add("add", x, h)
    h = b.conv_bn(b.lif(h, f"{second}_lif", layout=layout), f"{second}_conv", f"{second}_bn", bias=True, out=width)
    return b.graph.add("add", x, h)


def spike_mlp(b: FamilyBuilder, x: str, p: str, name: str, layout: str = "CHW", kind: str = "conv") -> str:
    """x + LIF(BN(conv(LIF(BN(conv x))))) on spikes, the layers called ``p.<name>1`` and ``p.<name>2``."""
    h = spikes(b, x, f"{p}.{name}1", layout, kind, bias=True)
    return b.graph.add("add", x, spikes(b, h, f"{p}.{name}2", layout, kind, bias=True, out=b.shape(x)[0]))
