"""Tensors of sdt_v1, spikformer, spikingformer, qkformer and maxformer, as their ``build`` takes them."""

from __future__ import annotations

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.keys import Keys, Settings


def _widths(s: Settings, steps: int) -> list[int]:
    """Widths that double up to ``embed_dims``."""
    width = s.number("embed_dims")
    if width % (1 << steps - 1):
        raise FrontendError(f"config 'embed_dims' is {width}; {s.family} halves it {steps - 1} times")
    return [width >> n for n in reversed(range(steps))]


def _head(k: Keys, s: Settings, width: int) -> Keys:
    k.conv("head", width, s.number("num_classes"), bias=True, rank=2)
    return k


def _stem(k: Keys, s: Settings, names: list[tuple[str, str]], widths: list[int]) -> None:
    """3x3 convolutions one behind the other."""
    for (conv, norm), cin, out in zip(names, [s.number("in_channels"), *widths], widths, strict=False):
        k.unit(f"patch_embed.{conv}", f"patch_embed.{norm}", cin, out, 3)


def _attention(k: Keys, p: str, width: int, parts: str = "qkv", rank: int = 3, kind: str = "conv") -> None:
    """Projections of an attention; the one behind it has a bias, Linear ones all have."""
    for name in parts:
        k.unit(f"{p}.{name}_{kind}", f"{p}.{name}_bn", width, width, rank=rank, bias=kind == "linear")
    k.unit(f"{p}.proj_{kind}", f"{p}.proj_bn", width, width, rank=rank, bias=True)


def _mlp(k: Keys, s: Settings, p: str, width: int, name: str = "fc", rank: int = 4, kind: str = "conv") -> None:
    hidden = s.widened(width)
    k.unit(f"{p}.{name}1_{kind}", f"{p}.{name}1_bn", width, hidden, bias=True, rank=rank)
    k.unit(f"{p}.{name}2_{kind}", f"{p}.{name}2_bn", hidden, width, bias=True, rank=rank)


def _patch_splitting(k: Keys, s: Settings) -> int:
    widths = _widths(s, 4)
    names = [(f"proj_conv{n}", f"proj_bn{n}") for n in ("", 1, 2, 3)]
    _stem(k, s, [*names, ("rpe_conv", "rpe_bn")], [*widths, widths[-1]])
    return widths[-1]


def sdt_v1(s: Settings) -> Keys:
    k = Keys()
    width = _patch_splitting(k, s)
    for i in range(s.number("depths")):
        _attention(k, f"block.{i}.attn", width, rank=4)
        _mlp(k, s, f"block.{i}.mlp", width)
    if s.config.has("spike_mode") and s.config.value("spike_mode") == "plif":
        raise FrontendError("the time constants of PLIFs are in the checkpoint alone; give one, or spike_mode: lif")
    return _head(k, s, width)


def spikformer(s: Settings) -> Keys:
    k, form = Keys(), s.form("cifar", "imagenet", "dvs")
    width = _patch_splitting(k, s)
    kind = "linear" if form == "cifar" else "conv"
    rank = {"cifar": 2, "imagenet": 4, "dvs": 3}[form]
    for i in range(s.number("depths")):
        _attention(k, f"block.{i}.attn", width, rank=min(rank, 3), kind=kind)
        _mlp(k, s, f"block.{i}.mlp", width, rank=rank, kind=kind)
    return _head(k, s, width)


def spikingformer(s: Settings) -> Keys:
    k, form = Keys(), s.form("cifar", "imagenet", "dvs")
    widths = _widths(s, 4)
    names = [f"block{n}" for n in range(5)] if form == "cifar" else ["proj", *(f"proj{n}" for n in range(1, 5))]
    _stem(k, s, [(f"{n}_conv", f"{n}_bn") for n in names], [*widths, widths[-1]])
    for i in range(s.number("depths")):
        _attention(k, f"block.{i}.attn", widths[-1])
        _mlp(k, s, f"block.{i}.mlp", widths[-1], "mlp")
    return _head(k, s, widths[-1])


def _unit(k: Keys, p: str, cin: int, out: int, side: int = 3) -> None:
    k.unit(f"{p}_conv", f"{p}_bn", cin, out, side)


def qkformer(s: Settings) -> Keys:
    k, form = Keys(), s.form("cifar", "imagenet", "dvs")
    depths = s.number("depths", 3 if form == "cifar" else 4 if form == "imagenet" else 1)
    blocks = {"cifar": [1, 1, depths - 2], "imagenet": [1, 2, depths - 3], "dvs": [1, 1]}[form]
    widths = _widths(s, len(blocks))
    _first(k, form, s.number("in_channels"), widths[0])
    for n, (count, width) in enumerate(zip(blocks, widths, strict=True), 1):
        if n > 1:
            p, before = f"patch_embed{n}.proj", widths[n - 2]
            _unit(k, p if form == "dvs" else f"{p}3", before, width)
            _unit(k, f"{p}4", width, width)
            _unit(k, f"{p}_res", before, width, 1)
        last = n == len(blocks)
        name = {True: "attn" if form == "dvs" else "ssa", False: "tssa"}[last]
        for i in range(count):
            _attention(k, f"stage{n}.{i}.{name}", width, "qkv" if last else "qk")
            _mlp(k, s, f"stage{n}.{i}.mlp", width, "mlp")
    return _head(k, s, widths[-1])


def _first(k: Keys, form: str, cin: int, width: int) -> None:
    """The first embedding: a chain that doubles its width, and a 1x1 convolution around its last units."""
    p = "patch_embed1.proj"
    half = width // 2
    if form == "cifar":
        chain, short = [half, width], half
    elif form == "imagenet":
        chain, short = [half, width, width], half
    else:
        chain, short = [width // 8, width // 4, half, width], width // 4
    for n, (a, b) in enumerate(zip([cin, *chain], chain, strict=False)):
        _unit(k, f"{p}{n or ''}", a, b)
    _unit(k, f"{p}_res", short, width, 1)


def maxformer(s: Settings) -> Keys:
    """MaxFormer for CIFAR; its other files and MS-QKFormer are any mix of parts, which only tensors tell."""
    k = Keys()
    s.form("cifar")
    blocks, widths = [1, 1, s.number("depths", 3) - 2], _widths(s, 3)
    for n, (count, width) in enumerate(zip(blocks, widths, strict=True), 1):
        p, before = f"patch_embed{n}", widths[n - 2] if n > 1 else width // 2
        if n == 1:
            k.unit(f"{p}.proj_conv", f"{p}.proj_bn", s.number("in_channels"), before, 3)
            parts = [("embed1", before, 3), ("embed2", before, 1)]
        else:
            parts = [("max_embed1", before, 3), ("embed1", width, 3), ("max_embed2", before, 1)]
        for name, cin, side in parts:
            k.unit(f"{p}.{name}.embed_conv", f"{p}.{name}.embed_bn", cin, width, side)
        for i in range(count):
            b = f"stage{n}.{i}"
            if n == 2:
                k.unit(f"{b}.mixer.conv", f"{b}.mixer.conv_bn", 1, width, 3, bias=True)
            if n == 3:
                _attention(k, f"{b}.attn", width)
            _mlp(k, s, f"{b}.mlp", width)
    return _head(k, s, widths[-1])
