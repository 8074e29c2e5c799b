"""A dense spiking network for digits on one neurocore: 64 inputs, 96 hidden neurons, 10 outputs.

    python examples/neurocore/dense/digits.py              # emulates the bundled weights, bit by bit as on the FPGA
    python examples/neurocore/dense/digits.py --train      # a minute; needs the torch extra; writes weights.npz anew
    python examples/neurocore/dense/digits.py -o build/    # writes the artefact with its image as well

Pixels become regular spike trains, x spikes per timestep; the output that fires most tells the digit. Weights are
trained in floating point with a surrogate gradient, then rounded to 8 bits: one scale a layer, in which the threshold
is rounded too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from nmc.netlists import compile_netlist
from nmc_compiler.program.model import Program
from nmc_compiler.program.network import Network
from nmc_emulator import Emulator

HERE = Path(__file__).resolve().parent
T, HIDDEN, DECAY = 16, 96, 1024  # a quarter of the potential leaks per timestep
TRAIN = 1437


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Spikes bool [1797, T, 64] and labels, in the order of examples/digits."""
    data = load_digits()
    order = np.random.RandomState(0).permutation(len(data.images))
    rate = data.images.reshape(-1, 64)[order] / 16
    level = np.arange(T + 1)[:, None, None] * rate / 2 + 0.5  # at most every second timestep
    return (np.floor(level[1:]) > np.floor(level[:-1])).transpose(1, 0, 2), data.target[order]


def train(spikes: np.ndarray, labels: np.ndarray, epochs: int, seed: int) -> dict[str, np.ndarray]:
    """Weights float32 of both layers; thresholds are 1."""
    import torch
    from torch.nn import functional as F

    class Spike(torch.autograd.Function):
        @staticmethod
        def forward(ctx, v):
            ctx.save_for_backward(v)
            return (v > 0).float()

        @staticmethod
        def backward(ctx, grad):
            (v,) = ctx.saved_tensors
            return grad / (1 + (2 * v) ** 2)

    def lif(currents):
        v, out = torch.zeros_like(currents[0]), []
        for current in currents:
            v = v * (1 - DECAY / 4096) + current
            out.append(Spike.apply(v - 1))
            v = v * (1 - out[-1].detach())
        return torch.stack(out)

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    x, y = torch.tensor(spikes, dtype=torch.float32).transpose(0, 1), torch.tensor(labels)
    weights = {"hidden": torch.randn(HIDDEN, 64) * 0.15, "out": torch.randn(10, HIDDEN) * 0.15}
    for weight in weights.values():
        weight.requires_grad_()
    optimizer = torch.optim.Adam(list(weights.values()), lr=5e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(y)).split(64):
            out = lif(lif(x[:, batch] @ weights["hidden"].T) @ weights["out"].T)
            loss = F.cross_entropy(out.sum(0), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return {name: weight.detach().numpy() for name, weight in weights.items()}


def program(weights: dict[str, np.ndarray]) -> Program:
    """The network in integers: v > threshold, scaled like the weights."""
    net = Network("dense-digits", T)
    previous, name = net.input("pixels", 64), "pixels"
    for layer, weight in weights.items():
        scale = 127 / np.abs(weight).max()
        here = net.lif(layer, len(weight), du=4095, dv=DECAY, vth=int(np.rint(scale)))
        net.dense(f"{name}-{layer}", previous, here, np.rint(weight * scale).astype(int))
        previous, name = here, layer
    return net.program()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--train", action="store_true", help="train anew, with PyTorch")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, help="folder for the artefact and test.npz")
    args = parser.parse_args()
    spikes, labels = digits()
    if args.train:
        np.savez(HERE / "weights.npz", **train(spikes[:TRAIN], labels[:TRAIN], args.epochs, args.seed))
    with np.load(HERE / "weights.npz") as stored:
        weights = {name: stored[name] for name in ("hidden", "out")}
    compiled = compile_netlist(program(weights), "neurocore-1", out=args.out)
    test = spikes[TRAIN:]
    inputs = test.reshape(len(test) * T, 64, 1, 1).astype(np.int32)
    emulator = Emulator(compiled.program, record="all", engine="neurocore")
    fired = emulator.run_events({"pixels": inputs}, len(inputs)).events["out"]
    counts = np.zeros((len(test), 10), np.int64)
    np.add.at(counts, (fired.step // T, fired.soma), 1)
    right = int((counts.argmax(1) == labels[TRAIN:]).sum())
    print(f"{right} of {len(test)} test digits right ({100 * right / len(test):.2f} %)")
    if args.out:
        np.savez_compressed(args.out / "test.npz", pixels=inputs.reshape(len(test), T, 64, 1, 1), labels=labels[TRAIN:])


if __name__ == "__main__":
    main()
