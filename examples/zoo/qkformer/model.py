"""QKFormer (Zhou et al., NeurIPS 2024, arXiv:2403.16552): token-QK attention, SSA in the last stage, spike residuals.

``form`` is the authors' file: cifar, imagenet or dvs. Their SSA gives its last LIF no time axis, so that it runs on
from image to image of a batch; here every image is by itself, as theirs is in batches of one.
"""

from __future__ import annotations

from torch import Tensor, nn
from zoo_parts import MAX_POOL, Layers, SelfAttention, SpikeMlp, TokenAttention, shown

CONFIG = {
    "family": "qkformer", "img_size_h": 16, "img_size_w": 16, "patch_size": 4, "in_channels": 1,
    "num_classes": 10, "embed_dims": 32, "num_heads": 8, "mlp_ratios": 2, "depths": 4, "T": 4,
}  # fmt: skip


class Embedding(Layers):
    """conv - BN - [pool of the current] - LIF units in a row, and one 1x1 unit around the last of them."""

    def __init__(self, units: list[tuple[str, int, int, bool]], after: int, stride: int):
        """``units``: name, inputs, outputs, pooled; the 1x1 unit reads what comes after so many of them."""
        super().__init__()
        self.units, self.after = units, after
        for name, inputs, outputs, _ in units:
            self.layer(name, inputs, outputs, kernel=3)
        self.layer("proj_res", units[after][1], units[-1][2], stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        at = []
        for name, _, _, pooled in self.units:
            at.append(x)
            x = self.spikes(name, x, MAX_POOL if pooled else None)
        return x + self.spikes("proj_res", at[self.after])


def first(inputs: int, dim: int, form: str) -> Embedding:
    names = ("proj", "proj1", "proj2", "proj3")
    widths = [dim // 8, dim // 4, dim // 2, dim] if form == "dvs" else [dim // 2, dim, dim][: 3 - (form == "cifar")]
    pools = {"cifar": (False, False), "imagenet": (True, True, False), "dvs": (False, True, True, True)}[form]
    units = list(zip(names, [inputs, *widths], widths, pools, strict=False))
    return Embedding(units, *{"cifar": (1, 1), "imagenet": (1, 2), "dvs": (2, 4)}[form])


def further(dim: int, form: str) -> Embedding:
    name = "proj" if form == "dvs" else "proj3"
    pooled = form == "imagenet"
    return Embedding([(name, dim // 2, dim, pooled), ("proj4", dim, dim, not pooled)], 0, 2)


class Block(nn.Module):
    def __init__(self, attention: str, dim: int, heads: int, ratio: float, mlp: str):
        super().__init__()
        self.kind = attention
        token = attention == "tssa"
        self.add_module(attention, TokenAttention(dim, heads, False) if token else SelfAttention(dim, heads))
        self.mlp = SpikeMlp(dim, ratio, mlp)

    def forward(self, x: Tensor) -> Tensor:
        x = x + getattr(self, self.kind)(x)
        return x + self.mlp(x)


class QKFormer(nn.Module):
    """Logits [B, classes] of images [B, C, H, W], or of frames [B, T, C, H, W]."""

    def __init__(self, *, in_channels: int, num_classes: int, embed_dims: int, num_heads: int, mlp_ratios: float,
                 depths: int, T: int, form: str = "cifar", **_: object):  # fmt: skip
        super().__init__()
        self.T = T
        heads = {"cifar": 8, "dvs": 16}.get(form, num_heads)
        mlp, last = ("fc", "attn") if form == "imagenet" else ("mlp", "ssa")
        counts = {"cifar": [1, 1, depths - 2], "imagenet": [1, 2, depths - 3], "dvs": [1, 1]}[form]
        dims = [embed_dims >> n for n in reversed(range(len(counts)))]
        for n, (dim, count) in enumerate(zip(dims, counts, strict=True), 1):
            kind = last if n == len(counts) else "tssa"
            embed = first(in_channels, dim, form) if n == 1 else further(dim, form)
            blocks = (Block(kind, dim, heads, mlp_ratios, mlp) for _ in range(count))
            self.add_module(f"patch_embed{n}", embed)
            self.add_module(f"stage{n}", nn.ModuleList(blocks))
        self.stages = len(counts)
        self.head = nn.Linear(embed_dims, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = shown(images, self.T)
        for n in range(1, self.stages + 1):
            x = getattr(self, f"patch_embed{n}")(x)
            for block in getattr(self, f"stage{n}"):
                x = block(x)
        return self.head(x.flatten(3).mean(3).mean(0))


def build() -> nn.Module:
    return QKFormer(**CONFIG)
