"""Random images, states and events for machines of any make: every field over its whole range, corners often."""

import numpy as np

from nmc_compiler.neurocore import Image, Sizes, memories
from nmc_compiler.neurocore.items import DESCRIPTORS, GEOMETRY, NEURON, RULE, SPARSE_WORD, TRACES, TYPE, pack

SMALL = Sizes(neurons=64, axons=64, words=256, types=4, geoms=2)
CORNERS = 0.25  # share of values that are the smallest or largest of their field


def values(rng, field, shape, low=None, high=None):
    least, most = field.range
    low, high = least if low is None else low, most if high is None else high
    drawn = rng.integers(low, high + 1, shape)
    return np.where(rng.random(shape) < CORNERS, rng.choice([low, high], shape), drawn)


def fields(rng, layout, shape, **limits):
    """One item of a layout per place; a limit is (low, high) of a field."""
    return pack(layout, **{n: values(rng, f, shape, *limits.get(n, (None, None))) for n, f in layout.items()})


def random_descriptors(rng, sizes, shape, plastic_targets=True):
    fmt = rng.choice(8, shape, p=[0.05, 0.2, 0.2, 0.15, 0.15, 0.1, 0.1, 0.05])
    out = np.zeros(shape, np.uint64)
    for kind in range(8):
        layout = DESCRIPTORS[kind % 7]
        limits = {"fmt": (kind, kind), "len": (1, min(sizes.neurons, 40))}
        made = fields(rng, layout, shape, **{k: v for k, v in limits.items() if k in layout})
        if kind in (1, 2):  # rows with a rule start at a multiple of four
            plastic = (made >> np.uint64(7)) & np.uint64(7) != 0
            made = np.where(plastic, made & ~np.uint64(3 << 20), made)
        out = np.where(fmt == kind, made, out)
    more = rng.random(shape) < 0.4
    return out & ~np.uint64(8) | (more.astype(np.uint64) << np.uint64(3))


def random_words(rng, sizes, cores):
    """Words whose targets in runs of 64 words are all different, so that no SPARSE row of up to 40 names one twice."""
    count = sizes.words
    start = rng.integers(0, sizes.neurons, (cores, 1))
    step = 2 * rng.integers(0, sizes.neurons // 2, (cores, 1)) + 1
    target = (start + step * np.arange(count)) % sizes.neurons
    weight = values(rng, SPARSE_WORD["weight"], (cores, count))
    return pack(SPARSE_WORD, weight=weight, target=target)


def grouped(rng, layouts, groups, cores, step, **limits):
    out = np.zeros((cores, groups, step), np.uint64)
    for j, layout in enumerate(layouts):
        out[:, :, j] = fields(rng, layout, (cores, groups), **{k: v for k, v in limits.items() if k in layout})
    return out.reshape(cores, -1)


def random_image(seed: int, sizes: Sizes = SMALL, state: bool = True) -> Image:
    """Every memory drawn; with ``state`` the registers, potentials, traces and pending bits too."""
    rng = np.random.default_rng(seed)
    cores, table = sizes.cores, memories(sizes)
    calm = rng.random() < 0.5  # thresholds and decays of a net that neither dies nor bursts
    thresholds = {"vth": (-4000, 60000), "ishift": (0, 8), "leak": (0, 2000)} if calm else {}
    neurons = {"bias": (-2000, 4000)} if calm else {}
    mem = {
        0: random_words(rng, sizes, cores),
        1: random_descriptors(rng, sizes, (cores, sizes.axons)),
        2: fields(rng, NEURON, (cores, sizes.neurons), **neurons),
        3: rng.integers(0, 1 << 16, (cores, sizes.neurons)).astype(np.uint64),
        4: grouped(rng, TYPE, sizes.types, cores, 4, du=(0, 4096), dv=(0, 4096), level=(0, 6), **thresholds),
        5: grouped(rng, GEOMETRY, sizes.geoms, cores, 4, kh=(1, 5), kw=(1, 5), cout=(1, 9), dy=(1, 3), dx=(1, 3),
                   sy=(0, 2), sx=(0, 2), ho=(1, 63), wo=(1, 63), oy=(-20, 10), ox=(-20, 10)),
        6: grouped(rng, RULE, 8, cores, 2),
    }  # fmt: skip
    registers = np.zeros((cores, 16), np.uint64)
    registers[:, 0] = rng.choice([0, 0, 3, 12])
    registers[:, 1] = rng.integers(0, 2, cores)
    registers[:, 2] = fields(rng, TRACES, cores, k_pre=(1, 8), k_post=(1, 8))
    mem[14] = registers
    if state:
        for number in (7, 8, 9, 10, 11, 13):
            mem[number] = rng.integers(0, 1 << table[number].bits, (cores, table[number].items)).astype(np.uint64)
            if number in (7, 8, 9):  # u, v and sums at the ends of their range
                ends = rng.choice(np.array([2**23 - 1, 2**23, 2**23 + 1], np.uint64), mem[number].shape)
                mem[number] = np.where(rng.random(ends.shape) < CORNERS, ends, mem[number])
        sparse = rng.random((cores, table[12].items)) < 0.3
        mem[12] = rng.integers(0, 1 << 32, (cores, table[12].items)).astype(np.uint64) * sparse
    return Image(sizes, mem)


def random_events(seed: int, sizes: Sizes, steps: int, per_step: int = 3) -> list[list[tuple[int, int]]]:
    """(core, axon) events of each step."""
    rng = np.random.default_rng(seed)
    return [
        [(int(rng.integers(sizes.cores)), int(rng.integers(sizes.axons))) for _ in range(rng.integers(per_step + 1))]
        for _ in range(steps)
    ]
