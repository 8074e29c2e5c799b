"""Random networks of convolutions on lines, planes and volumes, as the builder makes them."""

from __future__ import annotations

import numpy as np

from nmc_compiler.program.model import Program
from nmc_compiler.program.network import Network
from nmc_compiler.program.shapes import conv_out

Window = dict[str, tuple[int, ...]]


def random_window(rng, sizes: tuple[int, ...]) -> tuple[tuple[int, ...], Window, tuple[int, ...]]:
    """Kernel, options and output sizes along each axis; a single tap where nothing else fits."""
    kernel, stride, dilation = (tuple(rng.integers(1, n, len(sizes)).tolist()) for n in (4, 3, 3))
    pad = tuple(rng.integers(0, 3, len(sizes)).tolist())
    out = tuple(map(conv_out, sizes, kernel, stride, pad, dilation))
    if min(out) < 1:
        one = (1,) * len(sizes)
        return one, {"stride": one, "pad": (0,) * len(sizes), "dilation": one}, sizes
    return kernel, {"stride": stride, "pad": pad, "dilation": dilation}, out


def flat(sizes: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of a line, a plane or a volume."""
    return int(np.prod(sizes[:-1])), sizes[-1]


def add_layer(net: Network, rng, src: int, channels: int, sizes: tuple[int, ...]) -> tuple[int, int, tuple[int, ...]]:
    """A population behind a random convolution; its index, channels and sizes."""
    groups = int(rng.choice([g for g in range(1, channels + 1) if channels % g == 0]))
    outs = groups * int(rng.integers(1, 4))
    kernel, form, out = random_window(rng, sizes)
    weight = rng.integers(-128, 128, (*kernel, channels // groups, outs))
    dst = add_somas(net, rng, f"p{src}", (outs, *flat(out)))
    connect(net, f"c{src}", src, dst, weight, sizes, form, groups)
    return dst, outs, out


def add_somas(net: Network, rng, name: str, shape: tuple[int, int, int]) -> int:
    kind, top = rng.integers(4), int(rng.integers(1, 400))
    if kind == 0:
        return net.sigma_delta(name, shape, vth=top // 10, spike_exp=2)
    if kind == 1:
        return net.lif(name, shape, du=0, dv=0, vth=top, vth_low=-int(rng.integers(1, 400)))
    return net.lif(name, shape, dv=int(rng.choice([0, 409, 4096])), vth=top)


def connect(net: Network, name: str, src: int, dst: int, weight, sizes, form: Window, groups: int = 1) -> None:
    """A convolution along all axes; a line is a plane of one row."""
    if len(sizes) == 1:
        weight, form = weight[None], {k: (int(k != "pad"), *v) for k, v in form.items()}
    net.conv(name, src, dst, weight, groups=groups, slices=sizes[0] if len(sizes) == 3 else None, **form)


def random_volumes(seed: int, timesteps: int = 0, axes: int | None = None) -> Program:
    """One to three layers on a line, a plane or a volume, recurrent now and then."""
    rng = np.random.default_rng(seed)
    axes = int(rng.integers(1, 4)) if axes is None else axes
    sizes: tuple[int, ...] = tuple(rng.integers(1, {1: 12, 2: 7, 3: 5}[axes], axes).tolist())
    channels, bits = int(rng.integers(1, 4)), int(rng.choice([0, 0, 3, 8]))
    net = Network("volumes", timesteps)
    at = net.input("in", (channels, *flat(sizes)), payload_bits=bits, signed=bits == 8)
    for _ in range(int(rng.integers(1, 4))):
        at, channels, sizes = add_layer(net, rng, at, channels, sizes)
        if rng.random() < 0.3:
            weight = rng.integers(-5, 6, (*(3,) * axes, channels, channels))
            connect(net, f"r{at}", at, at, weight, sizes, {"pad": (1,) * axes})
    return net.program()
