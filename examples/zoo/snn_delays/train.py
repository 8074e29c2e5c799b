"""Train the network with learned delays on digits read row by row, and write the files bundled beside this script.

    python examples/zoo/snn_delays/train.py        # a minute on one core; needs the torch and dev extras

A row of the 16x16 image is a timestep, its pixels are 16 channels of counts 0 to 7. Writes ``model.pt`` (plain
state_dict), ``model.yaml`` (its config), ``test.npz`` (counts and labels of the 360 test images) and ``golden.npz``
(potentials and spikes of the first eight, and the accuracy). Same seed, torch and processor: same bytes.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor

HERE = Path(__file__).resolve().parent
DIGITS = HERE.parents[1] / "digits"
sys.path.insert(0, str(DIGITS))

RECORDED, EPOCHS = 8, 60


def loaded(path: Path):
    """A module by its file: those of the digits have the same names."""
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


def counts(images: Tensor) -> Tensor:
    """[T, B, N] whole numbers 0 to 7."""
    return (images[:, 0] * 7).round().permute(1, 0, 2)


def train(model, data: tuple[Tensor, Tensor], seed: int) -> None:
    """AdamW; the bumps of the delays become narrow over the first half, positions learn a hundred times faster."""
    images, labels = data
    generator = torch.Generator().manual_seed(seed)
    places = [p for n, p in model.named_parameters() if n.endswith(".P")]
    rest = [p for n, p in model.named_parameters() if p.requires_grad and not n.endswith(".P")]
    groups = [{"params": rest, "lr": 3e-3}, {"params": places, "lr": 5e-2, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, weight_decay=1e-4)
    steps = len(images) // 64
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [6e-3, 1e-1], total_steps=EPOCHS * steps)
    for epoch in range(EPOCHS):
        model.train()
        for layer in (m for m in model.modules() if hasattr(m, "SIG")):
            layer.SIG.data.fill_(max(0.0, layer.taps / 2 * (1 - 2 * epoch / EPOCHS)))
        for batch in torch.randperm(len(images), generator=generator)[: steps * 64].split(64):
            logits = model(counts(images[batch])).mean(0)
            loss = torch.nn.functional.cross_entropy(4 * logits, labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1}: loss {loss.item():.3f}", flush=True)


def main() -> None:
    from model import recording

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=HERE, help="folder for the files")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(args.seed)
    net, digits = loaded(HERE / "model.py"), loaded(DIGITS / "train.py")
    train_set, (images, labels) = digits.digits((16, 16))
    model = net.build()
    train(model, train_set, args.seed)
    x = counts(images)
    with torch.inference_mode():
        accuracy = 100 * float((model.eval()(x).mean(0).argmax(1) == labels).double().mean())
        with recording(model, net.Leaky) as spikes:
            potentials = model(x[:, :RECORDED])
    golden = {f"spikes/{name}": s.numpy().astype(np.uint8) for name, s in spikes.items()}
    golden |= {"potentials": potentials.numpy(), "accuracy": np.float64(accuracy)}
    frames = x.permute(1, 0, 2).numpy().astype(np.uint8)
    args.output.mkdir(parents=True, exist_ok=True)
    digits.write(args.output / "model.pt", lambda f: torch.save(model.state_dict(), f))
    digits.write(args.output / "model.yaml", lambda f: f.write(yaml.safe_dump(net.CONFIG, sort_keys=False).encode()))
    digits.write(args.output / "test.npz", lambda f: np.savez_compressed(f, counts=frames, labels=labels.numpy()))
    digits.write(args.output / "golden.npz", lambda f: np.savez_compressed(f, **golden))
    for name, s in spikes.items():
        print(f"{name:12s} rate {s.mean().item():.3f}")
    print(f"{accuracy:.2f} % of {len(labels)} test images")


if __name__ == "__main__":
    main()
