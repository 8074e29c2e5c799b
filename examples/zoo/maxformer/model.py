"""MaxFormer (Fang et al., NeurIPS 2025, arXiv:2505.18608) and MS-QKFormer: membrane residuals, max-pooled currents.

``form`` is the authors' file: cifar, imagenet or event; ``qk`` makes the MS-QKFormer of the same files; ``pool`` is
the pool of the embeddings, max or avg.
"""

from __future__ import annotations

from model import Lif
from torch import Tensor, nn
from zoo_parts import MAX_POOL, Layers, MembraneMlp, SelfAttention, TokenAttention, each_step, shown

CONFIG = {
    "family": "maxformer", "img_size_h": 16, "img_size_w": 16, "in_channels": 1, "num_classes": 10,
    "embed_dims": 32, "mlp_ratios": 2, "depths": 4, "T": 4,
}  # fmt: skip
EPOCHS, RATE = 18, 6e-3
POOLS = {"max": MAX_POOL, "avg": nn.AvgPool2d(3, 2, 1, count_include_pad=False), "": nn.Identity()}


class Unit(Layers):
    """[LIF -] conv - BN - [pool]; ``spikes`` gives what the convolution reads."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, pool: str = "", lif: bool = True):
        super().__init__()
        self.layer("embed", inputs, outputs, kernel=kernel, stride=stride, lif=lif)
        self.pool = POOLS[pool]

    def read(self, s: Tensor) -> Tensor:
        return each_step(self.pool, self.current("embed", s))

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.embed_lif(x))


class First(Layers):
    """Embed_Orig: conv - BN of the image, and two units that read it."""

    def __init__(self, inputs: int, dim: int):
        super().__init__()
        self.layer("proj", inputs, dim // 2, kernel=3, lif=False)
        self.embed1, self.embed2 = Unit(dim // 2, dim), Unit(dim // 2, dim, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.current("proj", x)
        return self.embed1(x) + self.embed2(x)


class FirstImageNet(nn.Module):
    """Embed_Orig_ImageNet: four times smaller."""

    def __init__(self, inputs: int, dim: int):
        super().__init__()
        self.embed1 = Unit(inputs, dim // 2, stride=2, lif=False)
        self.embed2, self.embed3 = Unit(dim // 2, dim, stride=2), Unit(dim, dim)
        self.embed4 = Unit(dim // 2, dim, kernel=1, stride=2, lif=False)

    def forward(self, x: Tensor) -> Tensor:
        s = self.embed2.embed_lif(self.embed1.read(x))
        return self.embed3(self.embed2.read(s)) + self.embed4.read(s)


class FirstEvent(Layers):
    """Embed_Max_plus: three pooled units."""

    def __init__(self, inputs: int, dim: int):
        super().__init__()
        self.layer("proj", inputs, dim // 8, kernel=3, lif=False)
        self.max_embed1, self.max_embed2 = Unit(dim // 8, dim // 4, pool="max"), Unit(dim // 4, dim // 2, pool="max")
        self.max_embed3 = Unit(dim // 2, dim, pool="max")
        self.embed1 = Unit(dim // 4, dim, kernel=1, stride=4, lif=False)

    def forward(self, x: Tensor) -> Tensor:
        s = self.max_embed2.embed_lif(self.max_embed1(self.current("proj", x)))
        return self.max_embed3(self.max_embed2.read(s)) + self.embed1.read(s)


class Further(nn.Module):
    """Embed_Max, Embed_Avg: half the size, both branches pooled."""

    def __init__(self, dim: int, pool: str):
        super().__init__()
        self.names = [f"{pool}_embed1", f"{pool}_embed2"]
        self.add_module(self.names[0], Unit(dim // 2, dim, pool=pool))
        self.embed1 = Unit(dim, dim)
        self.add_module(self.names[1], Unit(dim // 2, dim, kernel=1, pool=pool, lif=False))

    def forward(self, x: Tensor) -> Tensor:
        first, short = (getattr(self, name) for name in self.names)
        s = first.embed_lif(x)
        return self.embed1(first.read(s)) + short.read(s)


class FurtherQk(nn.Module):
    """Embed_1Max of MS-QKFormer: the second unit pools, the short branch is strided."""

    def __init__(self, dim: int):
        super().__init__()
        self.embed1, self.max_embed1 = Unit(dim // 2, dim), Unit(dim, dim, pool="max")
        self.embed2 = Unit(dim // 2, dim, kernel=1, stride=2, lif=False)

    def forward(self, x: Tensor) -> Tensor:
        s = self.embed1.embed_lif(x)
        return self.max_embed1(self.embed1.read(s)) + self.embed2.read(s)


class Depthwise(nn.Module):
    """BN(depthwise conv(LIF x)); the 7x7 one is called conv5 by the authors."""

    def __init__(self, dim: int, kernel: int):
        super().__init__()
        self.name = "conv5" if kernel == 7 else "conv"
        self.add_module(self.name, nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim))
        self.add_module(f"{self.name}_bn", nn.BatchNorm2d(dim))
        self.add_module(f"{self.name}_neuron", Lif())

    def forward(self, x: Tensor) -> Tensor:
        s = getattr(self, f"{self.name}_neuron")(x)
        return each_step(getattr(self, f"{self.name}_bn"), each_step(getattr(self, self.name), s))


class Block(nn.Module):
    """Attention (ssa, qka), a depthwise mixer (dwc3, dwc5, dwc7) or none (identity), then the MLP."""

    def __init__(self, kind: str, dim: int, heads: int, ratio: float):
        super().__init__()
        if kind == "ssa":
            self.attn = SelfAttention(dim, heads, before="x_lif")
        elif kind == "qka":
            self.attn = TokenAttention(dim, heads, membrane=True)
        elif kind != "identity":
            self.mixer = Depthwise(dim, int(kind.removeprefix("dwc")))
        self.mlp = MembraneMlp(dim, ratio, "fc", inner=True)

    def forward(self, x: Tensor) -> Tensor:
        mixer = getattr(self, "attn", None) or getattr(self, "mixer", None)
        return self.mlp(x if mixer is None else x + mixer(x))


KINDS = {
    ("cifar", False): (("identity", 1), ("dwc3", 1), ("ssa", 2)),
    ("imagenet", False): (("dwc7", 1), ("dwc5", 2), ("ssa", 7)),
    ("event", False): (("dwc3", 1), ("ssa", 1)),
    ("cifar", True): (("qka", 1), ("qka", 1), ("ssa", 2)),
}
FIRST = {"cifar": First, "imagenet": FirstImageNet, "event": FirstEvent}


class MaxFormer(nn.Module):
    """Logits [B, classes] of images [B, C, H, W], or of frames [B, T, C, H, W]."""

    def __init__(self, *, in_channels: int, num_classes: int, embed_dims: int, mlp_ratios: float, T: int,
                 form: str = "cifar", qk: bool = False, pool: str = "max", **_: object):  # fmt: skip
        super().__init__()
        self.T = T
        stages = KINDS[form, qk]
        heads = {"cifar": 8, "imagenet": embed_dims // 64, "event": 16}[form]
        dims = [embed_dims >> n for n in reversed(range(len(stages)))]
        for n, (dim, (kind, count)) in enumerate(zip(dims, stages, strict=True), 1):
            further = FurtherQk(dim) if qk else Further(dim, pool)
            self.add_module(f"patch_embed{n}", FIRST[form](in_channels, dim) if n == 1 else further)
            self.add_module(f"stage{n}", nn.ModuleList(Block(kind, dim, heads, mlp_ratios) for _ in range(count)))
        self.stages = len(stages)
        self.head_lif, self.head = Lif(), nn.Linear(embed_dims, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = shown(images, self.T)
        for n in range(1, self.stages + 1):
            x = getattr(self, f"patch_embed{n}")(x)
            for block in getattr(self, f"stage{n}"):
                x = block(x)
        return self.head(self.head_lif(x.flatten(3).mean(3)).mean(0))


def build() -> nn.Module:
    return MaxFormer(**CONFIG)
