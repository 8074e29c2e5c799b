"""Neurons that learn orientations by STDP on the neurocore: bars in, weights out.

    python examples/neurocore/stdp/learn.py            # seconds; --plot weights.png draws the weights

64 inputs (8x8) show noisy bars of four orientations. Sixteen neurons inhibit each other, and who has answered rests
for a while, so that others have their turn; the pair rule of docs/neurocore.md strengthens what made it answer. Nobody
tells them the orientations; afterwards neurons have the weights of one each, and which neuron answers tells the
orientation of bars that were never shown.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from nmc_compiler.mapping import map_program
from nmc_compiler.program.model import CoreSoma, Program, Stdp, Traces
from nmc_compiler.program.network import Network
from nmc_compiler.target import load_target
from nmc_emulator import Emulator

SIDE, NEURONS, ORIENTATIONS = 8, 16, 4
SHOWN, PAUSE = 15, 10  # timesteps of one bar, and of the silence behind it
ON, OFF = 0.35, 0.02  # spikes per timestep of a pixel on the bar, and off it
RULE = Stdp(ap=12, am=3, sp=7, sm=7, wmin=0, wmax=127)
TRACES = Traces(k_pre=2, k_post=5, inc_pre=127, inc_post=127)  # post lasts: what comes after a spike is weakened


def network(weights: np.ndarray, rule: Stdp | None) -> Program:
    """64 inputs, 16 neurons with synapses from all inputs, plastic with a ``rule``, and inhibition between them."""
    net = Network("orientations", traces=TRACES)
    pixels = net.input("pixels", SIDE * SIDE)
    neurons = net.lif("neurons", NEURONS, du=4095, dv=800, vth=1400, core=CoreSoma(refractory=20))
    net.dense("learns", pixels, neurons, weights, rule=rule)
    net.dense("inhibits", neurons, neurons, 100 * (np.eye(NEURONS, dtype=int) - 1), exponent=5)
    return net.program()


def bar(orientation: int, offset: float) -> np.ndarray:
    """A bar two pixels wide through a point near the middle: bool [8, 8]."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    angle = np.pi * orientation / ORIENTATIONS
    return np.abs(x * np.sin(angle) - y * np.cos(angle) - offset) < 1


def bars(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Spikes int32 [timesteps, 64, 1, 1] of so many bars one after the other, and their orientations."""
    labels = rng.integers(0, ORIENTATIONS, count)
    spikes = np.zeros((count, SHOWN + PAUSE, SIDE * SIDE), np.int32)
    for spike, label in zip(spikes, labels, strict=True):
        rate = np.where(bar(label, rng.uniform(-0.5, 0.5)), ON, OFF).ravel()
        spike[:SHOWN] = rng.random((SHOWN, SIDE * SIDE)) < rate
    return spikes.reshape(-1, SIDE * SIDE, 1, 1), labels


def run(program: Program, spikes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How often each neuron fired at each bar, [bars, 16], and the weights afterwards, [16, 64]."""
    mapped, _ = map_program(program, load_target("neurocore-1"), 1)
    result = Emulator(mapped, record="all", engine="neurocore").run_events({"pixels": spikes}, len(spikes))
    fired = result.events["neurons"]
    counts = np.zeros((len(spikes) // (SHOWN + PAUSE), NEURONS), np.int64)
    np.add.at(counts, (fired.step // (SHOWN + PAUSE), fired.soma), 1)
    learned = result.weights.get("learns", np.zeros(SIDE * SIDE * NEURONS)).reshape(SIDE * SIDE, NEURONS)
    return counts, learned.T  # synapses lie source after source


def told_right(counts: np.ndarray, labels: np.ndarray) -> float:
    """Fraction of the second half of the bars that the neuron which fires most tells right; the first half names it."""
    half = len(labels) // 2
    names = np.zeros((NEURONS, ORIENTATIONS), np.int64)
    for count, label in zip(counts[:half], labels[:half], strict=True):
        names[:, label] += count
    said = names.argmax(axis=1)[counts[half:].argmax(axis=1)]
    return float((said == labels[half:]).mean())


def plot(path: Path, before: np.ndarray, after: np.ndarray) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, NEURONS, figsize=(NEURONS, 2.4))
    for row, weights in enumerate((before, after)):
        for place, weight in zip(axes[row], weights, strict=True):
            place.imshow(weight.reshape(SIDE, SIDE), vmin=0, vmax=127, cmap="gray")
            place.axis("off")
    axes[0][0].set_title("before", loc="left")
    axes[1][0].set_title("after", loc="left")
    figure.savefig(path, dpi=100, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bars", type=int, default=600, help="bars to learn from")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the weights before and after")
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    start = rng.integers(20, 60, (NEURONS, SIDE * SIDE))
    _, learned = run(network(start, RULE), bars(args.bars, rng)[0])
    test, labels = bars(400, rng)
    for name, weights in (("before", start), ("after", learned)):
        counts, _ = run(network(weights, None), test)
        print(f"{name:>6} learning: {100 * told_right(counts, labels):.0f} % of bars told right, "
              f"{np.unique(counts.argmax(axis=1)).size} neurons answer")  # fmt: skip
    if args.plot:
        plot(args.plot, start, learned)


if __name__ == "__main__":
    main()
