"""Patch embeddings of MaxFormer and MS-QKFormer (models.md 4.10), told apart by their tensors.

All work on currents: LIF - conv - BN units, some with a pool behind the batch norm, and a second branch from the
same spikes whose current is added.
"""

from __future__ import annotations

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.build import FamilyBuilder


def embedding(b: FamilyBuilder, x: str, p: str) -> str:
    """The embedding ``p`` of a current (the first one: of the image)."""
    for tensors, make in KINDS:
        if all(f"{p}.{name}.weight" in b.state for name in tensors):
            return make(b, x, p)
    known = "; ".join(", ".join(tensors) for tensors, _ in KINDS)
    raise FrontendError(f"checkpoint has no embedding '{p}' that a maxformer model knows (by tensors: {known})")


def _spikes(b: FamilyBuilder, x: str, p: str) -> str:
    return b.lif(x, f"{p}.embed_lif")


def _current(b: FamilyBuilder, s: str, p: str, pad: int = 1, stride: int = 1, pool: str = "") -> str:
    """conv -> BN -> [pool] of one unit; its spikes are given."""
    y = b.conv_bn(s, f"{p}.embed_conv", f"{p}.embed_bn", pad=pad, stride=stride)
    return {"": lambda: y, "max": lambda: b.maxpool(y), "avg": lambda: b.avgpool(y)}[pool]()


def _add(b: FamilyBuilder, one: str, other: str, p: str) -> str:
    if b.shape(one) != b.shape(other):
        raise FrontendError(f"the branches of '{p}' give {b.shape(one)} and {b.shape(other)}; check the image size")
    return b.graph.add("add", one, other)


def _orig(b: FamilyBuilder, x: str, p: str) -> str:
    x = b.conv_bn(x, f"{p}.proj_conv", f"{p}.proj_bn", pad=1)
    y = _current(b, _spikes(b, x, f"{p}.embed1"), f"{p}.embed1")
    return _add(b, y, _current(b, _spikes(b, x, f"{p}.embed2"), f"{p}.embed2", pad=0), p)


def _orig_imagenet(b: FamilyBuilder, x: str, p: str) -> str:
    x = _current(b, x, f"{p}.embed1", stride=2)
    s = _spikes(b, x, f"{p}.embed2")
    y = _current(b, s, f"{p}.embed2", stride=2)
    y = _current(b, _spikes(b, y, f"{p}.embed3"), f"{p}.embed3")
    return _add(b, y, _current(b, s, f"{p}.embed4", pad=0, stride=2), p)


def _orig_later(b: FamilyBuilder, x: str, p: str) -> str:
    s = _spikes(b, x, f"{p}.embed1")
    y = _current(b, s, f"{p}.embed1")
    y = _current(b, _spikes(b, y, f"{p}.orig_embed1"), f"{p}.orig_embed1", stride=2)
    return _add(b, y, _current(b, s, f"{p}.embed2", pad=0, stride=2), p)


def _pooled(kind: str, b: FamilyBuilder, x: str, p: str) -> str:
    """Embed_Max, Embed_Avg: both branches are pooled."""
    first, second = f"{p}.{kind}_embed1", f"{p}.{kind}_embed2"
    s = _spikes(b, x, first)
    y = _current(b, s, first, pool=kind)
    y = _current(b, _spikes(b, y, f"{p}.embed1"), f"{p}.embed1")
    return _add(b, y, _current(b, s, second, pad=0, pool=kind), p)


def _one_max(b: FamilyBuilder, x: str, p: str) -> str:
    """Embed_1Max: one unit pools, the one that the spikes reach first or second by the widths of their weights."""
    widths = {name: b.take(f"{p}.{name}.embed_conv.weight", (None,) * 4).shape[1] for name in ("embed1", "max_embed1")}
    names = ("embed1", "max_embed1") if widths["embed1"] == b.shape(x)[0] else ("max_embed1", "embed1")
    pools = ["max" if name == "max_embed1" else "" for name in names]
    s = _spikes(b, x, f"{p}.{names[0]}")
    y = _current(b, s, f"{p}.{names[0]}", pool=pools[0])
    y = _current(b, _spikes(b, y, f"{p}.{names[1]}"), f"{p}.{names[1]}", pool=pools[1])
    return _add(b, y, _current(b, s, f"{p}.embed2", pad=0, stride=2), p)


def _max_plus(b: FamilyBuilder, x: str, p: str) -> str:
    """Embed_Max_plus, of the event form: three pooled units."""
    x = b.conv_bn(x, f"{p}.proj_conv", f"{p}.proj_bn", pad=1)
    s = {}
    for n in (1, 2, 3):
        s[n] = _spikes(b, x, f"{p}.max_embed{n}")
        x = _current(b, s[n], f"{p}.max_embed{n}", pool="max")
    return _add(b, x, _current(b, s[2], f"{p}.embed1", pad=0, stride=4), p)


def _qk_first(b: FamilyBuilder, x: str, p: str) -> str:
    """MS-QKFormer on ImageNet, the first one."""
    x = b.maxpool(b.conv_bn(x, f"{p}.proj_conv", f"{p}.proj_bn", pad=1))
    s = b.lif(x, f"{p}.proj_lif1")
    y = b.maxpool(b.conv_bn(s, f"{p}.proj_conv1", f"{p}.proj_bn1", pad=1))
    y = b.conv_bn(b.lif(y, f"{p}.proj_lif2"), f"{p}.proj_conv2", f"{p}.proj_bn2", pad=1)
    return _add(b, y, b.conv_bn(s, f"{p}.rpe_conv", f"{p}.rpe_bn", stride=2), p)


def _qk_next(b: FamilyBuilder, x: str, p: str) -> str:
    """MS-QKFormer on ImageNet, the further ones."""
    s = b.lif(x, f"{p}.init_lif")
    y = b.maxpool(b.conv_bn(s, f"{p}.proj3_conv", f"{p}.proj3_bn", pad=1))
    y = b.conv_bn(b.lif(y, f"{p}.proj3_lif"), f"{p}.proj4_conv", f"{p}.proj4_bn", pad=1)
    return _add(b, y, b.conv_bn(s, f"{p}.proj_res_conv", f"{p}.proj_res_bn", stride=2), p)


KINDS = (  # what only one kind has comes before what several have
    (("embed1.embed_conv", "embed4.embed_conv"), _orig_imagenet),
    (("embed1.embed_conv", "orig_embed1.embed_conv"), _orig_later),
    (("proj_conv", "max_embed3.embed_conv"), _max_plus),
    (("max_embed2.embed_conv", "embed1.embed_conv"), lambda b, x, p: _pooled("max", b, x, p)),
    (("avg_embed2.embed_conv", "embed1.embed_conv"), lambda b, x, p: _pooled("avg", b, x, p)),
    (("max_embed1.embed_conv", "embed2.embed_conv"), _one_max),
    (("proj_conv", "proj_conv1", "rpe_conv"), _qk_first),
    (("proj3_conv", "proj4_conv", "proj_res_conv"), _qk_next),
    (("proj_conv", "embed1.embed_conv", "embed2.embed_conv"), _orig),
)
