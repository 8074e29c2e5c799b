"""Train the LMUFormer on digits read row by row, and write the files bundled beside this script.

    python examples/zoo/lmuformer/train.py        # minutes on one core; needs the torch and dev extras

A row of the 16x16 image is a position of the sequence, its pixels are 16 channels. Writes ``model.pt`` (plain
state_dict), ``model.yaml`` (its config), ``test.npz`` (the 360 test images as samples of the network, 16 rows and the
five timesteps of zeros in which convolutions look ahead, and labels) and ``golden.npz`` (the first eight of them, their
logits and spikes as the module has them, and the accuracy). Same seed, torch and processor: same bytes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "digits")]
RECORDED, BATCH = 8, 64


def train(model, net, data: tuple[Tensor, Tensor], seed: int) -> None:
    """AdamW on cross-entropy, with a price on populations that are nearly silent or nearly always on."""
    from train import shifted  # type: ignore[attr-defined]
    from train_zoo import outside_band

    images, labels = data
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.02)
    batches = len(images) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, net.RATE, total_steps=net.EPOCHS * batches)
    model.train()
    for epoch in range(net.EPOCHS):
        for batch in torch.randperm(len(images), generator=generator)[: batches * BATCH].split(BATCH):
            with net.recording(model, net.Lif) as outputs:
                logits = model(shifted(images[batch], generator, by=1)[:, 0])
            loss = F.cross_entropy(logits, labels[batch]) + 2 * outside_band(outputs, 0.05, 0.4)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}", flush=True)


def main() -> None:
    from train_zoo import load_net

    net = load_net("lmuformer")
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=HERE, help="folder for the files")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(args.seed)
    from train import digits, write  # type: ignore[attr-defined]

    train_set, (images, labels) = digits((16, 16))
    model = net.build()
    train(model, net, train_set, args.seed)
    with torch.inference_mode():
        logits = model.eval()(images[:, 0])
        with net.recording(model, net.Lif) as spikes:
            model(images[:RECORDED, 0])
    accuracy = 100 * float((logits.argmax(1) == labels).double().mean())
    samples = np.pad(images.numpy()[:, 0, :, :, None, None], ((0, 0), (0, net.LOOK_AHEAD), *[(0, 0)] * 3))
    golden = {f"spikes/{name}": s.numpy().astype(np.uint8) for name, s in spikes.items()}
    golden |= {"images": samples[:RECORDED], "labels": labels[:RECORDED].numpy(), "logits": logits[:RECORDED].numpy()}
    golden["accuracy"] = np.float64(accuracy)
    args.output.mkdir(parents=True, exist_ok=True)
    write(args.output / "model.pt", lambda f: torch.save(model.state_dict(), f))
    write(args.output / "model.yaml", lambda f: f.write(yaml.safe_dump(net.CONFIG, sort_keys=False).encode()))
    write(args.output / "test.npz", lambda f: np.savez_compressed(f, images=samples, labels=labels.numpy()))
    write(args.output / "golden.npz", lambda f: np.savez_compressed(f, **golden))
    for name, s in spikes.items():
        print(f"{name:28s} rate {s.mean().item():.3f}")
    print(f"{accuracy:.2f} % of {len(labels)} test images, {sum(p.numel() for p in model.parameters()):,} parameters")


if __name__ == "__main__":
    main()
