"""Networks of ``examples/zoo`` in forms and sizes of the tests' choice, with weights that keep every layer busy."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
ZOO = ROOT / "examples" / "zoo"
sys.path[:0] = [str(ZOO), str(ROOT / "examples" / "digits")]
train_zoo = import_module("train_zoo")

SMALL = {"num_classes": 3, "T": 3, "embed_dims": 16, "num_heads": 2, "mlp_ratios": 2, "depths": 1, "in_channels": 1,
         "patch_size": 4}  # fmt: skip


def sized(height: int, width: int, **settings: Any) -> dict[str, Any]:
    return {**SMALL, "img_size_h": height, "img_size_w": width, **settings}


@dataclass(frozen=True)
class Form:
    """One published form of a family: the folder and class that build it, its config, and what else its class takes."""

    family: str
    folder: str
    cls: str
    config: dict[str, Any]
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def frames(self) -> bool:
        """Whether the images have a time axis."""
        return bool(self.config.get("input_time") or self.more.get("form") in ("dvs", "event"))


FORMS = {
    "spikingformer": Form("spikingformer", "spikingformer", "Spikingformer", sized(8, 12, depths=2)),
    "spikingformer-imagenet": Form(
        "spikingformer", "spikingformer", "Spikingformer", sized(16, 32, in_channels=3), {"cifar": False}
    ),
    "spikingformer-dvs": Form(
        "spikingformer",
        "spikingformer",
        "Spikingformer",
        sized(16, 32, in_channels=2, input_time=True),
        {"cifar": False, "tau": 1.5},
    ),
    "qkformer": Form("qkformer", "qkformer", "QKFormer", sized(8, 8, embed_dims=64, num_heads=8, depths=3)),
    "qkformer-imagenet": Form(
        "qkformer", "qkformer", "QKFormer", sized(32, 32, embed_dims=32, depths=4), {"form": "imagenet"}
    ),
    "qkformer-dvs": Form(
        "qkformer", "qkformer", "QKFormer", sized(32, 32, embed_dims=32, num_heads=16, in_channels=2), {"form": "dvs"}
    ),
    "maxformer": Form("maxformer", "maxformer", "MaxFormer", sized(8, 12, embed_dims=32, depths=4)),
    "maxformer-imagenet": Form(
        "maxformer", "maxformer", "MaxFormer", sized(32, 32, embed_dims=64), {"form": "imagenet"}
    ),
    "maxformer-event": Form(
        "maxformer", "maxformer", "MaxFormer", sized(32, 32, embed_dims=32, in_channels=2), {"form": "event"}
    ),
    "maxformer-average": Form("maxformer", "maxformer", "MaxFormer", sized(8, 12, embed_dims=32), {"pool": "avg"}),
    "ms_qkformer": Form("maxformer", "maxformer", "MaxFormer", sized(8, 12, embed_dims=64), {"qk": True}),
    "spikformer-imagenet": Form("spikformer", "spikformer_conv", "SpikformerConv", sized(16, 32, T=4)),
    "spikformer-dvs": Form(
        "spikformer", "spikformer_conv", "SpikformerConv", sized(16, 32, in_channels=2), {"form": "dvs"}
    ),
    "sdt_v1-dvs": Form(
        "sdt_v1",
        "sdt_v1_dvs",
        "EventTransformer",
        sized(8, 12, in_channels=2, depths=2, pooling_stat="0011", dvs_mode=True, TET=True, input_time=True),
    ),
}


def module(form: Form) -> Any:
    """The PyTorch module of a form, as its class initialises it."""
    return getattr(train_zoo.load_net(form.folder), form.cls)(**form.config, **form.more)


def images(form: Form, count: int = 3, seed: int = 0) -> np.ndarray:
    """Patches of 4x4 equal values, [N, C, H, W] or [N, T, C, H, W], float64."""
    config = form.config
    time = (config["T"],) if form.frames else ()
    height, width = config["img_size_h"], config["img_size_w"]
    shape = (count, *time, config["in_channels"], -(-height // 4), -(-width // 4))
    patches = np.random.default_rng(seed).normal(0.5, 1.0, shape)
    return patches.repeat(4, axis=-2).repeat(4, axis=-1)[..., :height, :width]


def busy(form: Form, seed: int = 0) -> Any:
    """A module in float64 whose batch norms hold the statistics of its own currents, so that no layer is silent."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    net = module(form).double()
    for part in net.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            part.momentum = 1.0
            nn.init.uniform_(part.weight, 0.7, 1.3)
            nn.init.uniform_(part.bias, 0.4, 1.2)
    with torch.no_grad():
        net.train()(torch.from_numpy(images(form, 8, seed + 100)))
    return net.eval()


def state_of(net: Any) -> dict[str, np.ndarray]:
    """Arrays by key, as the checkpoint reader hands them on."""
    found = {k: v.detach().numpy() for k, v in net.state_dict().items()}
    return {k: v for k, v in found.items() if not k.endswith("num_batches_tracked")}
