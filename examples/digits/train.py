"""Train the digits example and write the files bundled beside this script.

    python examples/digits/train.py            # a few minutes on two cores; needs the torch and dev extras

Writes ``model.pt`` (plain state_dict), ``model.yaml`` (its config), ``test.npz``, ``calib.npz`` and
``golden.npz``; README.md says what is in them. Same seed, threads, torch and processor: same bytes.
"""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import yaml
from model import Lif, SpikeDrivenTransformer, recording
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
TRAIN_IMAGES, CALIB_IMAGES, GOLDEN_IMAGES, RECORDED_IMAGES = 1437, 64, 16, 8

# Argument names of the published constructor. Stages 1 and 2 pool, on spikes; nothing pools currents.
CONFIG = {
    "family": "sdt_v1", "img_size_h": 16, "img_size_w": 16, "patch_size": 4, "in_channels": 1,
    "num_classes": 10, "embed_dims": 64, "num_heads": 8, "mlp_ratios": 2, "depths": 2, "T": 4,
    "pooling_stat": "0110", "spike_mode": "lif",
}  # fmt: skip
MODEL_ARGS = (
    "in_channels",
    "num_classes",
    "embed_dims",
    "num_heads",
    "mlp_ratios",
    "depths",
    "T",
    "pooling_stat",
)

Split = tuple[Tensor, Tensor]  # images [N, 1, H, W] float32 in 0..1, labels [N] int64


def digits(size: tuple[int, int] = (16, 16)) -> tuple[Split, Split]:
    """UCI optical digits, 8x8 grey, upsampled bilinearly to ``size`` (H, W), as (train, test)."""
    data = load_digits()
    images = torch.tensor(data.images / 16, dtype=torch.float32)[:, None]
    images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
    labels = torch.tensor(data.target, dtype=torch.int64)
    order = np.random.RandomState(0).permutation(len(images))
    train, test = order[:TRAIN_IMAGES], order[TRAIN_IMAGES:]
    return (images[train], labels[train]), (images[test], labels[test])


def shifted(images: Tensor, generator: torch.Generator, by: int) -> Tensor:
    """Each image moved by up to ``by`` pixels in both directions, zeros moving in."""
    height, width = images.shape[-2:]
    padded = F.pad(images, (by, by, by, by))
    offsets = torch.randint(0, 2 * by + 1, (len(images), 2), generator=generator).tolist()
    moved = [img[:, y : y + height, x : x + width] for img, (y, x) in zip(padded, offsets, strict=True)]
    return torch.stack(moved)


def wake_attention(model: SpikeDrivenTransformer) -> None:
    """Start the q, k and v currents at a mean of 1, their threshold.

    From a mean of 0 the mask, which needs k and v to spike in one token, stays nearly silent throughout.
    """
    for name, module in model.named_modules():
        if name.endswith((".q_bn", ".k_bn", ".v_bn")):
            nn.init.ones_(module.bias)


def train(model: nn.Module, data: Split, epochs: int, seed: int, shift: int = 2) -> None:
    """AdamW with a one-cycle learning rate on cross-entropy."""
    images, labels = data
    generator = torch.Generator().manual_seed(seed)
    steps = epochs * (len(images) // 64)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    model.train()
    bar = tqdm(total=steps, desc="training", unit="batch")
    for _ in range(epochs):
        for batch in torch.randperm(len(images), generator=generator)[: steps // epochs * 64].split(64):
            logits = model(shifted(images[batch], generator, shift))
            loss = F.cross_entropy(logits, labels[batch], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
            bar.update()
    bar.close()


@torch.inference_mode()
def accuracy(model: SpikeDrivenTransformer, data: Split) -> float:
    return (model.eval()(data[0]).argmax(1) == data[1]).double().mean().item()


@torch.inference_mode()
def golden_vectors(model: nn.Module, neuron: type[nn.Module], data: Split) -> dict[str, np.ndarray]:
    """Images, labels, logits (mean over T), and every code of the first eight images, time first.

    A code is the neuron's output times its ``norm`` (1 for binary spikes).
    """
    model.eval()
    images, labels = data
    logits = model(images)
    with recording(model, neuron) as outputs:
        model(images[:RECORDED_IMAGES])
    norms = {name: getattr(model.get_submodule(name), "norm", 1) for name in outputs}
    codes = {f"spikes/{name}": (out * norms[name]).numpy().astype(np.uint8) for name, out in outputs.items()}
    return {"images": images.numpy(), "labels": labels.numpy(), "logits": logits.numpy(), **codes}


def write(path: Path, save: Callable[[io.BytesIO], object]) -> None:
    """Write beside and rename, so that a file is whole or not there."""
    buffer = io.BytesIO()
    save(buffer)
    beside = path.with_suffix(".partial")
    beside.write_bytes(buffer.getvalue())
    os.replace(beside, path)


def write_all(folder: Path, model: nn.Module, config: dict, train_set: Split, test_set: Split) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    named = {"test": test_set, "calib": tuple(x[:CALIB_IMAGES] for x in train_set)}
    for name, (images, labels) in named.items():
        arrays = {"images": images.numpy(), "labels": labels.numpy()}
        write(folder / f"{name}.npz", lambda f, arrays=arrays: np.savez_compressed(f, **arrays))
    golden = golden_vectors(model, Lif, tuple(x[:GOLDEN_IMAGES] for x in test_set))
    write(folder / "golden.npz", lambda f: np.savez_compressed(f, **golden))
    write(folder / "model.pt", lambda f: torch.save(model.state_dict(), f))
    write(folder / "model.yaml", lambda f: f.write(yaml.safe_dump(config, sort_keys=False).encode()))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path, default=HERE, help="folder for the five files")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(args.seed)
    train_set, test_set = digits()
    model = SpikeDrivenTransformer(**{name: CONFIG[name] for name in MODEL_ARGS})
    wake_attention(model)
    train(model, train_set, args.epochs, args.seed)
    write_all(args.output, model, CONFIG, train_set, test_set)
    with recording(model, Lif) as spikes, torch.inference_mode():
        model(test_set[0])
    for name, codes in spikes.items():
        print(f"{name:32s} rate {codes.mean().item():.3f}")
    print(f"accuracy on {len(test_set[1])} test images: {100 * accuracy(model, test_set):.2f} %")


if __name__ == "__main__":
    main()
