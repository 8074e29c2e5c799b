"""Convolutions between active sites: time against pairs of sites, and against the volume around them.

    python benchmarks/active_sites.py [--plot docs/active_sites.svg] [--repeats 7]

Two submanifold convolutions of 16 channels on a wavy surface, once on more and more sites of one volume, once on the
same 4,096 sites in larger and larger volumes; emulated exactly, counters on, one thread, processor time: with the
rulebook of a fixed cloud, and with the tables of each sample (built anew for every sample, which is part of the time).
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np  # noqa: E402  (thread counts must be set first)

from nmc_compiler.graph import Graph, GraphBuilder  # noqa: E402
from nmc_compiler.lowering.lower import lower  # noqa: E402
from nmc_compiler.options import CompileOptions  # noqa: E402
from nmc_compiler.passes.fix_cloud import fix_cloud  # noqa: E402
from nmc_compiler.passes.pipeline import compile_graph  # noqa: E402
from nmc_compiler.passes.report import ConversionReport  # noqa: E402
from nmc_compiler.target import load_target  # noqa: E402
from nmc_emulator import Emulator  # noqa: E402

CHANNELS, SITES, HEIGHT = 16, 4096, 32
EXTENT = (512, 512, HEIGHT)
GROWTH, VOLUMES = (1024, 2048, 4096, 8192, 16384, 32768, 65536), (1, 2, 4, 16, 64, 256, 1024)


@dataclass(frozen=True)
class Point:
    """One network run: active sites, places of its volume, pairs of one convolution, and seconds of a sample."""

    sites: int
    places: int
    pairs: int
    fixed: float
    own: float


def surface(sites: int, seed: int = 3) -> np.ndarray:
    """About a square of ground with one height each, [sites, 3]."""
    side = int(np.ceil(np.sqrt(sites)))
    x, y = np.divmod(np.arange(sites), side)
    rough = np.random.default_rng(seed).integers(0, 2, sites)
    z = HEIGHT / 2 + 6 * np.sin(x / 9.0) + 5 * np.cos(y / 7.0) + rough
    return np.stack([x, y, z.astype(np.int64)], axis=1)


def network(sites: int, extent: tuple[int, int, int]) -> Graph:
    rng, b = np.random.default_rng(0), GraphBuilder("surface", 1, "float")
    x = b.add("input", id="x", shape=(4, sites, 1))
    places, values, ins = b.add("sites", x, name="places", extent=extent), b.add("features", x), 1
    for n in range(3):
        weight = rng.normal(size=(CHANNELS, ins, 27, 1)) / np.sqrt(3 * ins)
        values = b.add("sparse_conv3d", values, places, places, kernel=(3, 3, 3), pad=(1, 1, 1), name=f"conv{n}",
                       weight=b.tensor(f"w{n}", weight))  # fmt: skip
        values, ins = b.add("multilevel", values, name=f"s{n}", levels=4, norm=1, rounding="half_up"), CHANNELS
    head = b.add("sparse_conv3d", values, places, places, kernel=(1, 1, 1), name="head",
                 weight=b.tensor("head", rng.normal(size=(2, CHANNELS, 1, 1))))  # fmt: skip
    b.add("readout", b.add("mean_sites", head, places), name="readout")
    return b.build()


def seconds(graph: Graph, image: np.ndarray, repeats: int) -> tuple[float, int]:
    """Of processor time of the fastest of several runs, and the pairs of a convolution."""
    loihi2, options = load_target("loihi2"), CompileOptions(input_range=(-1.0, 1.0))
    program = lower(compile_graph(graph, loihi2, options, ConversionReport()), loihi2, options)
    emulator, found = Emulator(program), []
    for _ in range(repeats + 1):
        start = time.process_time()
        result = emulator.run(image)
        found.append(time.process_time() - start)
    dense = int(result.counters.tables["synops_mac_dense"][0].sum())  # of conv1: pairs, each 16 to 16 channels
    return min(found[1:]), dense // CHANNELS**2


def measure(sites: np.ndarray, extent: tuple[int, int, int], repeats: int) -> Point:
    features = np.random.default_rng(1).uniform(-1, 1, (1, 1, len(sites), 1))
    image = np.concatenate([sites.T[None, :, :, None], features], axis=1)
    graph = network(len(sites), extent)
    own, pairs = seconds(graph, image, repeats)
    fixed, same = seconds(fix_cloud(graph, sites), features, repeats)
    assert pairs == same
    return Point(len(sites), int(np.prod(extent)), pairs, fixed, own)


def show(title: str, points: list[Point]) -> None:
    print(f"\n{title}\n{'sites':>8} {'places':>16} {'pairs':>10} {'fixed, ms':>10} {'own, ms':>10} {'ns per pair':>12}")
    for p in points:
        each = 1e9 * p.fixed / (2 * p.pairs)
        print(f"{p.sites:8,} {p.places:16,} {p.pairs:10,} {1e3 * p.fixed:10.2f} {1e3 * p.own:10.2f} {each:12.1f}")


def plot(path: Path, growth: list[Point], volumes: list[Point]) -> None:
    from nmc_emulator.tracing.plots import load_matplotlib

    pyplot = load_matplotlib()
    pyplot.rcParams["svg.fonttype"] = "none"
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(7, 2.8), sharey=True)
    for axes, points, key, label in (
        (left, growth, "pairs", "active pairs of a convolution"),
        (right, volumes, "places", "places of the volume (4,096 sites)"),
    ):
        x = [getattr(p, key) for p in points]
        axes.loglog(x, [1e3 * p.fixed for p in points], "o-", color="#2a6f97", label="fixed cloud: rulebook", ms=3)
        axes.loglog(x, [1e3 * p.own for p in points], "s--", color="#bc4b51", label="sites of each sample", ms=3)
        axes.set_xlabel(label)
    left.set_ylabel("ms per sample")
    left.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--plot", type=Path, help="write the two curves here (.svg or .png)")
    args = parser.parse_args()
    growth = [measure(surface(n), EXTENT, args.repeats) for n in GROWTH]
    show(f"More sites of a volume of {EXTENT[0]} x {EXTENT[1]} x {EXTENT[2]}", growth)
    volumes = [measure(surface(SITES), (64 * n, 64 * n, HEIGHT), args.repeats) for n in VOLUMES]
    show("The same sites in larger volumes", volumes)
    if args.plot is not None:
        plot(args.plot, growth, volumes)


if __name__ == "__main__":
    main()
