"""Tiny checkpoints of every family: arrays by the authors' keys, random but fixed, and their configs.

Large enough to have every kind of layer (two heads or more, a pool, a depthwise conv), small enough for
a test. ``python tests/tiny_models.py`` writes the text goldens in tests/golden again.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]

CONFIGS: dict[str, dict[str, Any]] = {
    "sdt_v1": {"img_size_h": 16, "img_size_w": 24, "T": 3, "num_heads": 2, "pooling_stat": "0111"},
    "spikformer": {"img_size_h": 16, "img_size_w": 24, "T": 3, "num_heads": 2},
    "sdt_v3": {"img_size_h": 32, "img_size_w": 48, "num_heads": 2},
}


def _conv(key: str, out: int, cin: int, kernel: tuple[int, ...], bias: bool) -> dict[str, tuple[int, ...]]:
    return {f"{key}.weight": (out, cin, *kernel), **({f"{key}.bias": (out,)} if bias else {})}


def _bn(key: str, channels: int) -> dict[str, tuple[int, ...]]:
    return {f"{key}.{k}": (channels,) for k in ("weight", "bias", "running_mean", "running_var")}


def _stem(channels: int, width: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    widths = [channels, width // 8, width // 4, width // 2, width]
    for i, stage in enumerate(("", "1", "2", "3")):
        shapes |= _conv(f"patch_embed.proj_conv{stage}", widths[i + 1], widths[i], (3, 3), False)
        shapes |= _bn(f"patch_embed.proj_bn{stage}", widths[i + 1])
    shapes |= _conv("patch_embed.rpe_conv", width, width, (3, 3), False)
    return shapes | _bn("patch_embed.rpe_bn", width)


def sdt_v1(
    seed: int = 0,
    channels: int = 1,
    width: int = 16,
    heads: int = 2,
    mlp_ratio: int = 2,
    depth: int = 1,
    classes: int = 3,
    plif: bool = False,
) -> Arrays:
    """State dict of an SDT V1; ``heads`` is only the shape of the dead talking_heads weight."""
    shapes = _stem(channels, width)
    hidden = width * mlp_ratio
    for i in range(depth):
        p = f"block.{i}.attn"
        for n in "qkv":
            shapes |= _conv(f"{p}.{n}_conv", width, width, (1, 1), False) | _bn(f"{p}.{n}_bn", width)
        shapes |= {f"{p}.talking_heads.weight": (heads, heads, 1)}
        shapes |= _conv(f"{p}.proj_conv", width, width, (1, 1), True) | _bn(f"{p}.proj_bn", width)
        for n, out, cin in (("fc1", hidden, width), ("fc2", width, hidden)):
            key = f"block.{i}.mlp.{n}"
            shapes |= _conv(f"{key}_conv", out, cin, (1, 1), True) | _bn(f"{key}_bn", out)
    shapes |= {"head.weight": (classes, width), "head.bias": (classes,)}
    arrays = _filled(shapes, seed)
    return arrays | (_learned_taus(depth, seed) if plif else {})


def _learned_taus(depth: int, seed: int) -> Arrays:
    names = ["head_lif", "patch_embed.rpe_lif", *(f"patch_embed.proj_lif{s}" for s in ("", "1", "2", "3"))]
    for i in range(depth):
        attn = ("shortcut", "q", "k", "v", "talking_heads", "attn")
        names += [f"block.{i}.attn.{n}_lif" for n in attn] + [f"block.{i}.mlp.fc{n}_lif" for n in (1, 2)]
    rng = np.random.default_rng(seed + 1)
    return {f"{n}.w": np.asarray(rng.uniform(-1.0, 1.0), np.float32) for n in names}


def spikformer(
    seed: int = 0,
    channels: int = 1,
    width: int = 16,
    mlp_ratio: int = 2,
    depth: int = 1,
    classes: int = 3,
) -> Arrays:
    """State dict of a Spikformer, with the LayerNorms that its forward pass never uses."""
    shapes = _stem(channels, width)
    hidden = width * mlp_ratio
    for i in range(depth):
        units = [(f"attn.{n}", width, width) for n in ("q", "k", "v", "proj")]
        units += [("mlp.fc1", hidden, width), ("mlp.fc2", width, hidden)]
        for n, out, cin in units:
            shapes |= _conv(f"block.{i}.{n}_linear", out, cin, (), True) | _bn(f"block.{i}.{n}_bn", out)
        for n in ("norm1", "norm2"):
            shapes |= {f"block.{i}.{n}.weight": (width,), f"block.{i}.{n}.bias": (width,)}
    shapes |= {"head.weight": (classes, width), "head.bias": (classes,)}
    return _filled(shapes, seed)


def sdt_v3(
    seed: int = 0,
    channels: int = 1,
    dims: tuple[int, int, int, int] = (4, 6, 12, 8),
    mlp_ratio: int = 2,
    blocks: tuple[int, int] = (1, 1),
    classes: int = 3,
) -> Arrays:
    """State dict of an SDT V3 base. With two heads d is 6 in stage 3 (no square) and 4 in stage 4."""
    a, b, c, d = dims
    shapes: dict[str, tuple[int, ...]] = {}
    for name, cin, out, k in (
        ("1_1", channels, a // 2, 7),
        ("1_2", a // 2, a, 3),
        ("2", a, b, 3),
        ("3", b, c, 3),
        ("4", c, d, 3),
    ):
        key = f"downsample{name}"
        shapes |= _conv(f"{key}.encode_conv", out, cin, (k, k), True) | _bn(f"{key}.encode_bn", out)
    for name, dim in (("1_1", a // 2), ("1_2", a), ("2_1", b), ("2_2", b)):
        p = f"ConvBlock{name}.0"
        shapes |= _sep_conv(f"{p}.Conv", dim, 7)
        for n, out, cin in (("1", dim * mlp_ratio, dim), ("2", dim, dim * mlp_ratio)):
            shapes |= _conv(f"{p}.conv{n}", out, cin, (3, 3), False) | _bn(f"{p}.bn{n}", out)
    for stage, dim, count in (("block3", c, blocks[0]), ("block4", d, blocks[1])):
        for i in range(count):
            shapes |= _v3_block(f"{stage}.{i}", dim, dim * mlp_ratio)
    shapes |= {"head.weight": (classes, d), "head.bias": (classes,)}
    return _filled(shapes, seed)


def _sep_conv(p: str, dim: int, kernel: int) -> dict[str, tuple[int, ...]]:
    mid = 2 * dim
    return {
        **_conv(f"{p}.pwconv1.0", mid, dim, (1, 1), False),
        **_bn(f"{p}.pwconv1.1", mid),
        **_conv(f"{p}.dwconv.0", mid, 1, (kernel, kernel), False),
        **_bn(f"{p}.dwconv.1", mid),
        **_conv(f"{p}.pwconv2.0", dim, mid, (1, 1), False),
        **_bn(f"{p}.pwconv2.1", dim),
    }


def _v3_block(p: str, dim: int, hidden: int) -> dict[str, tuple[int, ...]]:
    shapes = _sep_conv(f"{p}.conv", dim, 3)
    for n, out, cin in (("q", dim, dim), ("k", dim, dim), ("v", 4 * dim, dim), ("proj", dim, 4 * dim)):
        shapes |= _conv(f"{p}.attn.{n}_conv.0", out, cin, (1, 1), False) | _bn(f"{p}.attn.{n}_conv.1", out)
    for n, out, cin in (("fc1", hidden, dim), ("fc2", dim, hidden)):
        shapes |= _conv(f"{p}.mlp.{n}_conv", out, cin, (1,), True) | _bn(f"{p}.mlp.{n}_bn", out)
    return shapes


def _filled(shapes: dict[str, tuple[int, ...]], seed: int) -> Arrays:
    """Float32 arrays that keep every layer of these nets busy: neither silent nor always on."""
    rng = np.random.default_rng(seed)
    return {key: _array(key, shape, rng).astype(np.float32) for key, shape in shapes.items()}


def _array(key: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if key.endswith("running_var"):
        return rng.uniform(0.2, 0.6, shape)
    if key.endswith("running_mean"):
        return rng.normal(0.0, 0.1, shape)
    if len(shape) == 1 and key.endswith(".weight"):
        return rng.uniform(0.8, 1.6, shape)
    if len(shape) == 1:
        return rng.normal(0.5, 0.5, shape)
    return rng.normal(0.0, np.sqrt(2.0 / np.prod(shape[1:])), shape)


STATES = {"sdt_v1": sdt_v1, "spikformer": spikformer, "sdt_v3": sdt_v3}


def family(name: str) -> ModuleType:
    """The front-end module of a family."""
    from nmc_compiler.frontends import sdt_v1, sdt_v3, spikformer

    return {"sdt_v1": sdt_v1, "spikformer": spikformer, "sdt_v3": sdt_v3}[name]


def graph(name: str, arrays: Arrays | None = None, **config: Any):
    """The float graph of a tiny model; ``config`` overrides its settings (None removes one)."""
    from nmc_compiler.frontends.config import parse_config

    settings = {k: v for k, v in {**CONFIGS[name], **config}.items() if v is not None}
    arrays = STATES[name]() if arrays is None else arrays
    return family(name).build(arrays, parse_config(settings, "test config"))[0]


def images(name: str, count: int = 3, seed: int = 7, **config: Any) -> np.ndarray:
    """Images of random 4x4 patches (so that they differ after pooling too), of a tiny model's input size."""
    settings = {**CONFIGS[name], **config}
    h, w = settings["img_size_h"], settings["img_size_w"]
    shape = (count, config.get("in_channels", 1), -(-h // 4), -(-w // 4))
    patches = np.random.default_rng(seed).normal(0.5, 1.0, shape)
    return patches.repeat(4, axis=2).repeat(4, axis=3)[:, :, :h, :w]


def golden_text(name: str) -> Path:
    return Path(__file__).parent / "golden" / f"{name}.txt"


if __name__ == "__main__":
    from nmc_compiler.graph.text import to_text

    for each in CONFIGS:
        golden_text(each).write_text(to_text(graph(each)), encoding="utf-8")
        print(f"wrote {golden_text(each)}")
