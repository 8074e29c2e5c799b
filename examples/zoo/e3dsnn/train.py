"""Train the E-3DSNN example on clouds of eight shapes and write the files bundled beside this script.

    python examples/zoo/e3dsnn/train.py        # minutes on one core; needs the torch extra

Writes ``model.pt`` (plain state_dict), ``model.yaml``, ``test.npz`` (clouds of points and labels) and ``golden.npz``.
Same seed, threads, torch and processor: same bytes.
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
from model import Classifier, Multispike, Sparse
from shapes import SHAPES, clouds
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from nmc_emulator.voxels import Voxels

HERE = Path(__file__).resolve().parent
TRAIN, TEST, GOLDEN, RECORDED = 960, 120, 16, 4
# Argument names of the published constructor; then how clouds become voxels, and the most voxels of every stage.
MODEL = {"in_channels": 6, "num_classes": len(SHAPES), "embed_channels": 8, "enc_channels": [8, 12, 16],
         "enc_depth": [1, 1, 1]}  # fmt: skip
CODING = {"voxel_size": 0.125, "point_range": [-1, -1, -1, 1, 1, 1], "extent": [16, 16, 16],
          "voxel_features": [0, 1, 2, 3, 4, 5], "voxel_reduce": "first"}  # fmt: skip
SLOTS = [160, 120, 56, 8]

Split = tuple[list[np.ndarray], Tensor]  # samples [9, slots, 1] of one cloud each, labels


def coder() -> Voxels:
    return Voxels((CODING["voxel_size"],) * 3, tuple(CODING["extent"]), tuple(CODING["point_range"]),
                  tuple(CODING["voxel_features"]), CODING["voxel_reduce"])  # fmt: skip


def coded(points: np.ndarray, labels: np.ndarray) -> Split:
    return [coder().sample(p, SLOTS[0]) for p in points], torch.tensor(labels)


def batch_of(samples: list[np.ndarray], dtype: torch.dtype = torch.float32) -> Sparse:
    """Samples as one sparse tensor."""
    features, voxels = [], []
    for number, sample in enumerate(samples):
        used = sample[0, :, 0] >= 0
        features.append(sample[3:, used, 0].T)
        places = sample[:3, used, 0].T
        voxels.append(np.concatenate([np.full((len(places), 1), number), places], axis=1))
    whole = np.concatenate(voxels).astype(np.int64)
    return Sparse(torch.tensor(np.concatenate(features), dtype=dtype), torch.tensor(whole), tuple(CODING["extent"]))


def train(model: nn.Module, data: Split, epochs: int, seed: int) -> None:
    samples, labels = data
    generator = torch.Generator().manual_seed(seed)
    steps = epochs * (len(samples) // 32)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    model.train()
    bar = tqdm(total=steps, desc="training", unit="batch")
    for _ in range(epochs):
        for batch in torch.randperm(len(samples), generator=generator)[: steps // epochs * 32].split(32):
            logits = model(batch_of([samples[i] for i in batch.tolist()]))
            loss = F.cross_entropy(logits, labels[batch], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
            bar.update()
    bar.close()


@torch.inference_mode()
def accuracy(model: nn.Module, data: Split) -> float:
    return (model.eval()(batch_of(data[0])).argmax(1) == data[1]).double().mean().item()


@torch.inference_mode()
def recorded(model: nn.Module, samples: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Codes of every spiking module, uint8 [samples, slots, channels]; slots without a voxel are 0."""
    found: dict[str, list[np.ndarray]] = {}
    names = {module: name for name, module in model.named_modules() if isinstance(module, Multispike)}
    hooks = [m.register_forward_hook(lambda m, x, y: found.setdefault(names[m], []).append(y.numpy())) for m in names]
    for sample in samples:
        model.eval()(batch_of([sample]))
    for hook in hooks:
        hook.remove()
    out = {}
    for name, codes in found.items():
        stage = int(name.split(".")[1]) + (".down." not in name) if name.startswith("enc") else 0
        whole = np.zeros((len(samples), SLOTS[stage], codes[0].shape[1]), np.uint8)
        for row, code in zip(whole, codes, strict=True):
            row[: len(code)] = code
        out[f"spikes/{name}"] = whole
    return out


def write(path: Path, save: Callable[[io.BytesIO], object]) -> None:
    """Write beside and rename, so that a file is whole or not there."""
    buffer = io.BytesIO()
    save(buffer)
    beside = path.with_suffix(".partial")
    beside.write_bytes(buffer.getvalue())
    os.replace(beside, path)


def write_all(folder: Path, model: nn.Module, points: np.ndarray, labels: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    offsets = np.arange(len(points) + 1) * points.shape[1]
    arrays = {"points": points.reshape(-1, points.shape[2]), "offsets": offsets, "labels": labels}
    write(folder / "test.npz", lambda f: np.savez_compressed(f, **arrays))
    samples, first = coded(points[:GOLDEN], labels[:GOLDEN])
    with torch.inference_mode():
        logits = model.eval()(batch_of(samples)).numpy()
    golden = {"images": np.stack(samples).astype(np.float32), "labels": first.numpy(), "logits": logits}
    golden |= recorded(model, samples[:RECORDED])
    write(folder / "golden.npz", lambda f: np.savez_compressed(f, **golden))
    write(folder / "model.pt", lambda f: torch.save(model.state_dict(), f))
    config = {"family": "e3dsnn", **MODEL, **CODING, "slots": SLOTS}
    write(folder / "model.yaml", lambda f: f.write(yaml.safe_dump(config, sort_keys=False).encode()))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, default=HERE, help="folder for the four files")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(args.seed)
    train_set = coded(*clouds(TRAIN, 1))
    points, labels = clouds(TEST, 2)
    test_set = coded(points, labels)
    model = Classifier(**MODEL)
    train(model, train_set, args.epochs, args.seed)
    write_all(args.output, model, points, labels)
    print(f"accuracy on {len(labels)} test clouds: {100 * accuracy(model, test_set):.2f} %")


if __name__ == "__main__":
    main()
