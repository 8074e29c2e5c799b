"""Networks on active sites for tests, clouds for them, and a brute-force twin without slots and tables."""

from __future__ import annotations

import itertools

import numpy as np

from nmc_compiler.graph import Graph, GraphBuilder

Site = tuple[int, ...]
EXTENT = (7, 6, 5)


def cloud(seed: int, sites: int, extent: tuple[int, int, int] = EXTENT) -> np.ndarray:
    """Different sites [n, 3], in no order."""
    every = np.array(list(itertools.product(*map(range, extent))))
    return every[np.random.default_rng(seed).permutation(len(every))[:sites]]


def samples(seed: int, counts: tuple[int, ...], slots: int, features: int = 2) -> np.ndarray:
    """Samples [N, 3 + features, slots, 1] with so many sites each."""
    rng = np.random.default_rng(seed)
    out = np.zeros((len(counts), 3 + features, slots, 1))
    out[:, :3] = -1
    for n, (sample, count) in enumerate(zip(out, counts, strict=True)):
        sample[:3, :count, 0] = cloud(seed + 10 * n, count).T
        sample[3:, :count, 0] = rng.normal(size=(features, count))
    return out


class Net:
    """Adds layers of random weights to a graph; ``values`` are on ``sites``."""

    def __init__(self, seed: int, slots: int, timesteps: int = 1, lif: bool = False) -> None:
        self.rng, self.lif, self.timesteps = np.random.default_rng(seed), lif, timesteps
        self.b = GraphBuilder("net", timesteps, "float")
        x = self.b.add("input", id="x", shape=(5, slots, 1))
        self.sites = self.b.add("sites", x, id="s0", name="s0", extent=EXTENT)
        self.values = self.b.add("features", x)
        self.extents, self.layers = {self.sites: EXTENT}, 0

    def conv(self, outs: int, kernel, stride=(1, 1, 1), pad=(0, 0, 0), to: str | None = None, inverse=False) -> Net:
        n, ins = self.layers, self.b.nodes[self.values].type.shape[0]
        weight = self.rng.normal(size=(outs, ins, int(np.prod(kernel)), 1)) / np.sqrt(ins * 2)
        self.values = self.b.add(
            "sparse_conv3d", self.values, self.sites, to or self.sites, name=f"conv{n}", kernel=kernel, stride=stride,
            pad=pad, inverse=inverse, weight=self.b.tensor(f"w{n}", weight),
            bias=self.b.tensor(f"b{n}", self.rng.normal(size=outs) / 3),
        )  # fmt: skip
        self.sites, self.layers = to or self.sites, n + 1
        return self

    def subm(self, outs: int, size: int = 3) -> Net:
        return self.conv(outs, (size,) * 3, pad=(size // 2,) * 3)

    def down(self, outs: int, kernel=(2, 2, 2), stride=(2, 2, 2), pad=(0, 0, 0), slots: int = 40) -> Net:
        extent, form = self.extents[self.sites], {"kernel": kernel, "stride": stride, "pad": pad}
        made = self.b.add("down_sites", self.sites, id=f"s{self.layers + 1}", extent=extent, slots=slots, **form)
        sizes = zip(extent, kernel, stride, pad, strict=True)
        self.extents[made] = tuple((n + 2 * p - k) // s + 1 for n, k, s, p in sizes)
        return self.conv(outs, kernel, stride, pad, made)

    def spike(self) -> Net:
        name = f"n{self.layers}"
        if self.lif:
            form = {"tau": 2.0, "theta": 0.7, "v_reset": 0.0, "reset": "hard", "compare": "ge", "decay_input": True}
            self.values = self.b.add("lif", self.values, name=name, **form)
        else:
            self.values = self.b.add("multilevel", self.values, name=name, levels=4, norm=1, rounding="half_up")
        return self

    def read(self, classes: int = 3) -> Graph:
        self.conv(classes, (1, 1, 1))
        self.b.add("readout", self.b.add("mean_sites", self.values, self.sites), name="head")
        return self.b.build()


def classifier(seed: int, slots: int, **options) -> Graph:
    """Every kind of convolution once."""
    net = Net(seed, slots, **options).subm(4).spike().subm(4).spike()
    fine = net.sites
    net.down(5).spike().subm(5).spike()
    net.conv(4, (2, 2, 2), (2, 2, 2), to=fine, inverse=True).spike()
    net.down(5, (3, 3, 3), (2, 2, 2), (1, 1, 1), slots=60).spike().down(4, (1, 1, 3), (1, 1, 2)).spike()
    return net.read()


# ---- the twin: sites are coordinates, values are dictionaries ------------------------------------------------


def convolve(values: dict[Site, np.ndarray], weight, bias, kernel, stride, pad, out: set[Site], inverse) -> dict:
    """weight [O, I, taps]: sums over pairs of sites, found by looking at all of both."""
    found = {}
    for o in out:
        total = np.array(bias, float)
        for i, x in values.items():
            for k, tap in enumerate(itertools.product(*map(range, kernel))):
                fine, coarse = (o, i) if inverse else (i, o)
                if all(f == c * s - p + t for f, c, s, p, t in zip(fine, coarse, stride, pad, tap, strict=True)):
                    total = total + weight[:, :, k] @ x
        found[o] = total
    return found


def reached(sites, kernel, stride, pad, extent) -> set[Site]:
    """Sites of a generative convolution, by looking at every place of its output."""
    size = [(n + 2 * p - k) // s + 1 for n, k, s, p in zip(extent, kernel, stride, pad, strict=True)]
    found = set()
    for o in itertools.product(*map(range, size)):
        reads = itertools.product(
            *(range(a * s - p, a * s - p + k) for a, s, p, k in zip(o, stride, pad, kernel, strict=True))
        )
        if any(place in sites for place in reads):
            found.add(o)
    return found
