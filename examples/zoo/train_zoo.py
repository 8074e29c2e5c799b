"""Train networks of the zoo on scikit-learn's digits and write the files bundled in their folders.

    python examples/zoo/train_zoo.py qkformer ...        # names of folders here; needs the torch and dev extras

A folder holds ``model.py`` with ``CONFIG`` (what becomes ``model.yaml``: ``family`` and the published constructor's
arguments), ``build()`` (the module, its names those of the published checkpoints) and, where they are not the values
below, ``NEURONS`` (the types whose outputs are codes over their ``norm``), ``EPOCHS``, ``RATE`` (the highest learning
rate) and ``ACTIVE`` (the mean output wanted of every population). It gets

- ``model.pt``, the plain ``state_dict``, and ``model.yaml``;
- ``golden.npz``: the first 8 test images, their labels and logits, every neuron's codes (as the module has them,
  time first), and ``accuracy``, that of the float network on the 360 test images in percent.

Images are the digits of ``examples/digits``, 16x16, each pixel repeated where the network's are larger; with
``input_time`` they move, one pixel a timestep, and channels hold what gets brighter and what gets darker.
Same seed, threads, torch and processor: same bytes.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "digits")]
SIDE, GOLDEN_IMAGES, BATCH = 16, 8, 64
DEFAULTS = {"EPOCHS": 30, "RATE": 4e-3, "ACTIVE": (0.08, 0.35)}


def load_net(name: str) -> ModuleType:
    """The ``model.py`` of one folder, under a module name of its own."""
    spec = importlib.util.spec_from_file_location(f"zoo_{name}", HERE / name / "model.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def enlarged(images: np.ndarray, config: dict) -> np.ndarray:
    """Images [N, 1, 16, 16] as a network takes them: [N, C, H, W], or [N, T, 2, H, W] with ``input_time``."""
    times = [config[key] // SIDE for key in ("img_size_h", "img_size_w")]
    big = images.repeat(times[0], axis=2).repeat(times[1], axis=3)
    return moving(big, config["T"]) if config.get("input_time") else big.repeat(config["in_channels"], axis=1)


def moving(images: np.ndarray, steps: int) -> np.ndarray:
    """[N, T, 2, H, W]: what one timestep is brighter and darker than the one before, as the image moves right."""
    frames = np.stack([np.roll(images[:, 0], t, axis=2) for t in range(steps + 1)], axis=1)
    change = np.diff(frames, axis=1)
    return np.stack([np.maximum(change, 0), np.maximum(-change, 0)], axis=2).astype(np.float32)


def test_set(config: dict) -> tuple[np.ndarray, np.ndarray]:
    """The 360 test images as a network takes them, and their labels."""
    with np.load(HERE.parent / "digits" / "test.npz") as stored:
        return enlarged(stored["images"], config), stored["labels"]


def outside_band(outputs, low: float, high: float):
    """Sum over populations of how far the mean output is outside ``low .. high``."""
    import torch
    from torch.nn import functional as F

    rates = torch.stack([out.mean() for out in outputs.values()])
    return (F.relu(low - rates) + F.relu(rates - high)).sum()


def train(model, net: ModuleType, seed: int) -> None:
    """AdamW on cross-entropy, with a price on populations that are nearly silent or nearly always on."""
    import torch
    from model import recording
    from torch.nn import functional as F
    from train import digits, shifted

    option = {key: getattr(net, key, value) for key, value in DEFAULTS.items()}
    (images, labels), _ = digits((SIDE, SIDE))
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.02)
    batches = len(images) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, option["RATE"], total_steps=option["EPOCHS"] * batches)
    model.train()
    for epoch in range(option["EPOCHS"]):
        hits = 0
        for batch in torch.randperm(len(images), generator=generator)[: batches * BATCH].split(BATCH):
            shown = enlarged(shifted(images[batch], generator, by=1).numpy(), net.CONFIG)
            with recording(model, neurons(net)) as outputs:
                logits = model(torch.from_numpy(shown))
            loss = F.cross_entropy(logits, labels[batch]) + 2 * outside_band(outputs, *option["ACTIVE"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            hits += int((logits.argmax(1) == labels[batch]).sum())
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}, {100 * hits / (batches * BATCH):.1f} %", flush=True)


def neurons(net: ModuleType):
    """Types of the network's neurons."""
    from model import Lif

    return getattr(net, "NEURONS", (Lif,))


def golden(model, net: ModuleType) -> dict[str, np.ndarray]:
    """What ``golden.npz`` holds."""
    import torch
    from train import golden_vectors

    images, labels = test_set(net.CONFIG)
    with torch.inference_mode():
        logits = np.concatenate([model.eval()(torch.from_numpy(part)).numpy() for part in np.split(images, 9)])
    first = torch.from_numpy(images[:GOLDEN_IMAGES]), torch.from_numpy(labels[:GOLDEN_IMAGES])
    accuracy = 100 * float((logits.argmax(1) == labels).mean())
    return {**golden_vectors(model, neurons(net), first), "accuracy": np.float64(accuracy)}


def make(name: str, folder: Path, seed: int, net: ModuleType | None = None) -> dict[str, np.ndarray]:
    """Train one network, write its files, and return what ``golden.npz`` holds."""
    import torch
    import yaml
    from train import write

    net = net or load_net(name)
    torch.manual_seed(seed)
    model = net.build()
    train(model, net, seed)
    vectors = golden(model, net)
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "model.pt", lambda f: torch.save(model.state_dict(), f))
    write(folder / "model.yaml", lambda f: f.write(yaml.safe_dump(net.CONFIG, sort_keys=False).encode()))
    write(folder / "golden.npz", lambda f: np.savez_compressed(f, **vectors))
    for key, codes in vectors.items():
        if key.startswith("spikes/"):
            print(f"{key:44s} {np.count_nonzero(codes) / codes.size:.3f} active")
    count = sum(p.numel() for p in model.parameters())
    print(f"{name}: {vectors['accuracy']:.2f} % of 360 test images, {count:,} parameters")
    return vectors


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="+", help="folders beside this script")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=HERE, help="where the folders are written")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name in args.names:
        make(name, args.output / name, args.seed)


if __name__ == "__main__":
    main()
