"""Random recurrent networks from the builder, as users of other tools would write them."""

from __future__ import annotations

import numpy as np

from nmc_compiler.program.network import Network

SHAPES = (1, 2, 7, 20, 33, (3, 2, 2), (2, 1, 5), (1, 4, 3), (2, 5, 4))


def random_network(seed: int, timesteps: int | None = None, delays: int = 6, convs: bool = True) -> Network:
    """One or two inputs, up to four populations, cycles, delays, all kinds of exponents and codes."""
    rng = np.random.default_rng(seed)
    net = Network(f"net{seed}", int(rng.integers(0, 9)) if timesteps is None else timesteps)
    sizes: list[int] = []
    names = [f"p{i}" for i in range(int(rng.integers(2, 6)))]
    for number, name in enumerate(names):
        shape = SHAPES[rng.integers(len(SHAPES))]
        add_population(net, rng, name, shape, "input" if number == 0 else None)
        sizes.append(int(np.prod(shape)))
    targets = [i for i in range(len(names)) if net.program().populations[i].dendrite >= 0]
    for number in range(int(rng.integers(1, 2 * len(names)))):
        dst = targets[rng.integers(len(targets))]
        src = int(rng.integers(len(names)))
        add_projection(net, rng, f"c{number}", (src, sizes[src]), (dst, sizes[dst]), delays)
    shapes = [p.shape for p in net.program().populations]
    for dst in targets if convs else []:
        src = int(rng.integers(len(names)))
        if shapes[src][1:] == shapes[dst][1:]:
            kernel = int(rng.choice([1, 3]))
            weight = rng.integers(-300, 300, (kernel, kernel, shapes[src][0], shapes[dst][0]))
            net.conv(f"v{dst}", src, dst, weight, pad=kernel // 2)
    return net


def add_population(net: Network, rng: np.random.Generator, name: str, shape, model: str | None) -> None:
    model = model or ("lif", "lif", "ternary", "sigma_delta", "input")[rng.integers(5 if name != "p1" else 4)]
    vth = int(rng.integers(1, 500))
    if model == "input":
        signed = bool(rng.integers(2))
        net.input(name, shape, payload_bits=8 if signed else int(rng.integers(0, 9)), signed=signed)
    elif model == "sigma_delta":
        net.sigma_delta(name, shape, vth=vth, bias=-3, relu=bool(rng.integers(2)), spike_exp=2, state_exp=1)
    else:
        channels = shape if isinstance(shape, int) else shape[0]
        bias = rng.integers(-100, 100, channels)
        low = {"vth_low": -vth} if model == "ternary" else {}
        restart = (int(rng.integers(1, 5)), 0) if rng.random() < 0.3 else None
        net.lif(name, shape, du=int(rng.integers(4096)), dv=200, vth=vth, bias=bias, restart=restart, **low)


def add_projection(net: Network, rng: np.random.Generator, name: str, src, dst, delays: int) -> None:
    (source, n), (target, m) = src, dst
    top = (1, 100, 255, 3000)[rng.integers(4)]
    matrix = rng.integers(-top, top + 1, (m, n)) * (rng.random((m, n)) < rng.choice([0.1, 0.5, 1.0]))
    delay = rng.integers(0, delays + 1, (m, n)) if rng.random() < 0.5 else int(rng.integers(0, 3))
    options = {"exponent": int(rng.integers(-3, 4)), "graded": bool(rng.integers(2))}
    net.dense(name, source, target, matrix, delay=delay, **options)
