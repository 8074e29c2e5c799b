"""Record a small E-3DSNN of random weights as its authors' own code runs it: state_dict, voxels, codes, logits.

    python tests/golden/record_e3dsnn.py CHECKOUT      # needs torch and spconv (pip install spconv)

CHECKOUT is a clone of github.com/bollossom/E-3DSNN; its file ``sparse_unet/E_3DSNN.py`` is executed as it is. What it
imports besides PyTorch and spconv is replaced by the few functions that it calls. Running statistics of the batch
norms are those of some training steps, so that all layers spike.
"""

from __future__ import annotations

import argparse
import sys
import types
from pathlib import Path

import numpy as np
import torch
import yaml

HERE = Path(__file__).resolve().parent / "e3dsnn"
FILE = "classify_seg/pointcept/models/sparse_unet/E_3DSNN.py"
CONFIG = {
    "in_channels": 6,
    "num_classes": 5,
    "embed_channels": 4,
    "enc_channels": [4, 4, 8, 16],
    "enc_depth": [1, 1, 2, 1],
}
EXTENT, SLOTS = 20, [260, 240, 130, 30, 12]


def scatter(x: torch.Tensor, index: torch.Tensor, reduce: str, dim: int) -> torch.Tensor:
    assert (reduce, dim) == ("mean", 0)
    count = torch.bincount(index)
    return torch.zeros(len(count), x.shape[1], dtype=x.dtype).index_add(0, index, x) / count[:, None]


def offset2batch(offset: torch.Tensor) -> torch.Tensor:
    counts = torch.diff(offset, prepend=torch.zeros(1, dtype=offset.dtype))
    return torch.repeat_interleave(torch.arange(len(counts)), counts)


def network(checkout: Path) -> torch.nn.Module:
    """The authors' class, from their file."""
    registry = types.SimpleNamespace(register_module=lambda *name: lambda cls: cls)
    truncated = torch.nn.init.trunc_normal_
    for name, contents in {
        "einops": {"rearrange": None}, "timm": {}, "timm.models": {},
        "timm.models.layers": {"trunc_normal_": truncated},
        "torch_geometric": {}, "torch_geometric.nn": {}, "torch_geometric.nn.pool": {"voxel_grid": None},
        "torch_geometric.utils": {"scatter": scatter}, "models": {}, "models.utils": {"offset2batch": offset2batch},
        "models.builder": {"MODELS": registry}, "models.sparse_unet": {},
    }.items():  # fmt: skip
        module = sys.modules[name] = types.ModuleType(name)
        vars(module).update(contents, __path__=[])
    module = types.ModuleType("models.sparse_unet.E_3DSNN")
    module.__package__ = "models.sparse_unet"
    exec(
        compile((checkout / FILE).read_text(), FILE, "exec"), vars(module)
    )  # the user's own choice, of a file they name
    return module.SNN_3dv(**CONFIG)


def cloud(rng: np.random.Generator, points: int) -> tuple[np.ndarray, np.ndarray]:
    voxels = np.unique(rng.integers(0, EXTENT, (points, 3)), axis=0)
    return voxels, rng.normal(size=(len(voxels), 6)).astype(np.float32)


def batch(clouds: list) -> dict[str, torch.Tensor]:
    return {
        "grid_coord": torch.tensor(np.concatenate([v for v, _ in clouds])),
        "feat": torch.tensor(np.concatenate([f for _, f in clouds])),
        "offset": torch.tensor(np.cumsum([len(v) for v, _ in clouds])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkout", type=Path)
    checkout = parser.parse_args().checkout
    torch.manual_seed(0)
    net, rng = network(checkout), np.random.default_rng(0)
    for module in net.modules():
        if type(module).__name__ in ("SubMConv3d", "SparseConv3d"):
            torch.nn.init.normal_(module.weight, std=0.4)
        if isinstance(module, torch.nn.BatchNorm1d):
            module.momentum = 0.2
    with torch.no_grad():
        for _ in range(30):
            net.train()(batch([cloud(rng, 200) for _ in range(4)]))
    net.eval()
    names = {m: n for n, m in net.named_modules() if type(m).__name__ == "Multispike"}
    clouds, arrays = [cloud(rng, n) for n in (120, 250)], {}
    for i, sample in enumerate(clouds):
        seen: dict[str, np.ndarray] = {}
        hooks = [m.register_forward_hook(lambda m, x, y, seen=seen: seen.update({names[m]: y.numpy()})) for m in names]
        for n, module in net.named_modules():
            if type(module).__name__ == "SparseConv3d":
                keep = lambda m, x, y, n=n, seen=seen: seen.update({f"voxels/{n}": y.indices[:, 1:].numpy()})  # noqa: E731
                hooks.append(module.register_forward_hook(keep))
        with torch.no_grad():
            arrays[f"{i}/logits"] = net(batch([sample])).numpy()[0]
        for hook in hooks:
            hook.remove()
        arrays |= {f"{i}/{k}": v.astype(np.uint8) for k, v in seen.items()}
        arrays |= {f"{i}/voxels": sample[0].astype(np.uint8), f"{i}/features": sample[1]}
    HERE.mkdir(exist_ok=True)
    np.savez_compressed(HERE / "recorded.npz", **arrays)
    torch.save(
        {"state_dict": {f"module.backbone.{k}": v for k, v in net.state_dict().items()}, "epoch": 1}, HERE / "model.pth"
    )
    config = {"family": "e3dsnn", **CONFIG, "slots": SLOTS, "extent": [EXTENT] * 3, "voxel_size": 1.0}
    (HERE / "model.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


if __name__ == "__main__":
    main()
