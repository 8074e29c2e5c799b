"""Tensors of sdt_v2, qsd, sdt_v3 and sdt_v3_large, as their ``build`` takes them."""

from __future__ import annotations

from collections.abc import Callable

from nmc_compiler.frontends.keys import Keys, Settings

BLOCKS = (6, 2)  # of stages 3 and 4: constants of the authors' files, whatever ``depths`` says
PLAIN = ("pwconv1", "dwconv", "pwconv2")

Stage = Callable[[str, int], None]


def _down(k: Keys, p: str, cin: int, out: int, side: int = 3) -> None:
    k.unit(f"{p}.encode_conv", f"{p}.encode_bn", cin, out, side, bias=True)


def _stages(k: Keys, s: Settings, dims: tuple[int, ...], block: Stage) -> None:
    """Stages 1 and 2; the first is half as wide as the second."""
    narrow = dims[0] // 2
    _down(k, "downsample1_1", s.number("in_channels"), narrow, 7)
    block("ConvBlock1_1.0", narrow)
    _down(k, "downsample1_2", narrow, dims[0])
    block("ConvBlock1_2.0", dims[0])
    _down(k, "downsample2", dims[0], dims[1])
    block("ConvBlock2_1.0", dims[1])
    block("ConvBlock2_2.0", dims[1])
    _down(k, "downsample3", dims[1], dims[2])


def _mlp(k: Keys, s: Settings, p: str, width: int) -> None:
    hidden = s.widened(width)
    k.unit(f"{p}.fc1_conv", f"{p}.fc1_bn", width, hidden, bias=True, rank=3)
    k.unit(f"{p}.fc2_conv", f"{p}.fc2_bn", hidden, width, bias=True, rank=3)


def _head(k: Keys, s: Settings, width: int) -> Keys:
    for name in ("head", "head_kd") if s.flag("kd") else ("head",):
        k.conv(name, width, s.number("num_classes"), bias=True, rank=2)
    return k


def _meta(s: Settings, scales: bool) -> Keys:
    """sdt_v2, and qsd, whose branches have LayerScales."""
    k, dims = Keys(), s.numbers("embed_dim", 4)

    def block(p: str, width: int) -> None:
        k.unit(f"{p}.Conv.pwconv1", f"{p}.Conv.bn1", width, 2 * width)
        k.conv(f"{p}.Conv.dwconv", 1, 2 * width, 7)
        k.unit(f"{p}.Conv.pwconv2", f"{p}.Conv.bn2", 2 * width, width)
        k.unit(f"{p}.conv1", f"{p}.bn1", width, 4 * width, 3)
        k.unit(f"{p}.conv2", f"{p}.bn2", 4 * width, width, 3)

    _stages(k, s, dims, block)
    for stage, width, count in zip(("block3", "block4"), dims[2:], s.numbers("blocks", 2, BLOCKS), strict=True):
        if stage == "block4":
            _down(k, "downsample4", dims[2], dims[3])
        for i in range(count):
            for name in ("q_conv", "k_conv", "v_conv", "proj_conv"):
                _rep_conv(k, f"{stage}.{i}.attn.{name}", width)
            _mlp(k, s, f"{stage}.{i}.mlp", width)
            k |= {f"{stage}.{i}.layer_scale{n}": (width,) for n in (1, 2) if scales}
    return _head(k, s, dims[-1])


def _rep_conv(k: Keys, p: str, width: int) -> None:
    k.unit(f"{p}.0.body.0", f"{p}.0.body.1.bn", width, width)
    k.conv(f"{p}.0.body.2.0", 1, width, 3)
    k.unit(f"{p}.0.body.2.1", f"{p}.0.body.2.2", width, width)
    k.norm(f"{p}.1", width)


def sdt_v2(s: Settings) -> Keys:
    return _meta(s, scales=False)


def qsd(s: Settings) -> Keys:
    """With a step size for every output of every layer."""
    k = _meta(s, scales=True)
    layers = [key.removesuffix(".weight") for key, shape in k.items() if key.endswith(".weight") and len(shape) > 1]
    return Keys(k | {f"{layer}.alpha": k[f"{layer}.weight"][:1] for layer in layers})


def sdt_v3_large(s: Settings) -> Keys:
    k, dims = Keys(), s.numbers("embed_dim", 3)

    def block(p: str, width: int) -> None:
        hidden = s.widened(width)
        k.unit(f"{p}.conv1.0.0", f"{p}.conv1.0.1", width, hidden, 3, bias=True)
        k.unit(f"{p}.conv2.0.0", f"{p}.conv2.0.1", hidden, width, 3, bias=True)

    _stages(k, s, dims, block)
    width, inner = dims[2], dims[2] * 3 // 2
    for i in range(s.number("depths")):
        p = f"block3.{i}"
        for name in ("q_conv", "k_conv", "v_conv", "proj_conv"):
            q = f"{p}.attn.{name}"
            k.unit(f"{q}.0.conv1.0", f"{q}.0.conv1.1", width, inner, rank=3)
            k.unit(f"{q}.0.conv2.0", f"{q}.0.conv2.1", inner, width, rank=3)
            k.norm(f"{q}.1", width)
        _mlp(k, s, f"{p}.mlp", width)
        k |= {f"{p}.layer_scale{n}": (width,) for n in (1, 2)}
    return _head(k, s, width)


def sdt_v3(s: Settings) -> Keys:
    """The base, and where T is above 1 the form with timesteps, whose norms are modules beside the convolutions."""
    k, dims = Keys(), s.numbers("embed_dim", 4)
    timed = s.config.has("T") and s.config.integer("T") > 1

    def sep_conv(p: str, width: int, side: int) -> None:
        names = [(f"{p}.{n}", f"{p}.bn{i}") if timed else (f"{p}.{n}.0", f"{p}.{n}.1") for i, n in enumerate(PLAIN, 1)]
        k.unit(*names[0], width, 2 * width)
        k.unit(*names[1], 1, 2 * width, side)
        k.unit(*names[2], 2 * width, width)

    def block(p: str, width: int) -> None:
        sep_conv(f"{p}.Conv", width, 7)
        k.unit(f"{p}.conv1", f"{p}.bn1", width, s.widened(width), 3)
        k.unit(f"{p}.conv2", f"{p}.bn2", s.widened(width), width, 3)

    _stages(k, s, dims, block)
    for stage, width, count in zip(("block3", "block4"), dims[2:], s.numbers("blocks", 2, BLOCKS), strict=True):
        if stage == "block4":
            _down(k, "downsample4", dims[2], dims[3])
        for i in range(count):
            p = f"{stage}.{i}"
            if not timed:
                sep_conv(f"{p}.conv", width, 3)
            for name, cin, out in (("q", width, width), ("k", width, width), ("v", width, 4 * width),
                                   ("proj", 4 * width, width)):  # fmt: skip
                q = f"{p}.attn.{name}"
                conv, norm = (f"{q}_conv", f"{q}_BN") if timed else (f"{q}_conv.0", f"{q}_conv.1")
                k.unit(conv, norm, cin, out)
            _mlp(k, s, f"{p}.mlp", width)
    return _head(k, s, dims[-1])
