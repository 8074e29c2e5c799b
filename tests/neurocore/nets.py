"""Random networks that the neurocore can hold: plain spikes, LIF somas of every parameter, all kinds of rows."""

import numpy as np

from nmc_compiler.mapping import map_program
from nmc_compiler.program.model import Program
from nmc_compiler.program.network import Network
from nmc_compiler.target import Target, load_target

SHAPES = ((1, 1, 1), (7, 1, 1), (40, 1, 1), (2, 3, 4), (2, 6, 6), (4, 5, 1))


def small_target(neurons: int = 128, **limits: int) -> Target:
    """The target ``neurocore`` with smaller cores, so that small networks need several."""
    base = load_target("neurocore").model_dump(mode="json", by_alias=True)
    base["core"]["neurons"]["value"] = neurons
    for name, value in limits.items():
        base["core"][name]["value"] = value
    return Target.model_validate(base)


def random_network(seed: int, timesteps: int | None = None, top: int = 127, delays: int = 40) -> Network:
    """One or two inputs and one to four populations, recurrent or not."""
    rng = np.random.default_rng(seed)
    net = Network(f"net{seed}", int(rng.choice([0, 1, 4, 9])) if timesteps is None else timesteps)
    shapes, inputs = [], int(rng.integers(1, 3))
    for number in range(inputs + int(rng.integers(1, 5))):
        shapes.append(SHAPES[rng.integers(len(SHAPES))])
        if number < inputs:
            net.input(f"in{number}", shapes[-1])
        else:
            c, scale = shapes[-1][0], int(rng.choice([5, 200, 2000]))
            bias = rng.integers(-64 * scale // 8, 64 * scale // 4, c) if rng.random() < 0.5 else 0
            net.lif(
                f"p{number}", shapes[-1], du=int(rng.choice([0, 409, 2048, 4095])), dv=int(rng.integers(0, 4097)),
                vth=rng.integers(0, scale, c), bias=np.clip(bias, -4096, 4095),
            )  # fmt: skip
    for number in range(int(rng.integers(2, 3 * len(shapes)))):
        src, dst = int(rng.integers(len(shapes))), int(rng.integers(inputs, len(shapes)))
        add_projection(net, rng, f"c{number}", (src, shapes[src]), (dst, shapes[dst]), top, delays)
    return net


def add_projection(net, rng, name, source, target, top, delays) -> None:
    (src, a), (dst, b) = source, target
    if a[1:] == b[1:] and min(a[1:]) > 2 and rng.random() < 0.6:
        weight = rng.integers(-top, top + 1, (3, 3, a[0], b[0]))
        net.conv(name, src, dst, weight, pad=1)
        return
    n, m = int(np.prod(a)), int(np.prod(b))
    matrix = rng.integers(-top, top + 1, (m, n)) * (rng.random((m, n)) < rng.choice([0.1, 0.5, 1.0]))
    delay = (
        rng.choice(rng.integers(0, delays + 1, 3), (m, n)) if rng.random() < 0.3 else int(rng.choice([0, 0, 1, 20, 40]))
    )
    net.dense(name, src, dst, matrix, delay=delay, exponent=int(rng.choice([0, 0, 1, 3, 6])))


def random_program(seed: int, target: Target | None = None, **options) -> Program:
    return map_program(random_network(seed, **options).program(), target or small_target(), 1)[0]


def random_codes(program: Program, seed: int, steps: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        p.name: (rng.random((steps, *p.shape)) < rng.choice([0.05, 0.3, 1.0])).astype(np.int32)
        for p in program.populations
        if p.model == "input"
    }
