"""A .net as an integer graph computes what Lava's Processes would: random networks against the twin, step by step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from netx_nets import random_input, random_layers, run_lava

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.netx import NetxFile
from nmc_compiler.frontends.netx_graph import build
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.netx import Cuba, Layer, Sdnn

SEEDS = st.integers(0, 2**32 - 1)


def is_image(layers) -> bool:
    return layers[0].kind == "input" and isinstance(layers[0].neuron, Cuba)


@settings(max_examples=150, deadline=None)
@given(SEEDS)
def test_a_stream_is_lava_step_by_step(seed):
    layers = random_layers(seed)
    if is_image(layers):
        with pytest.raises(FrontendError, match="say with --timesteps how long one is shown"):
            build(NetxFile(layers, ()), "net", 0, "x.net")
        return
    data = random_input(layers, seed, 14)
    wanted = run_lava(layers, data)
    found = interpret(build(NetxFile(layers, ()), "net", 0, "x.net"), data, record="all").codes
    assert set(found) == set(wanted)
    for name, codes in wanted.items():
        assert np.array_equal(found[name][:, 0], codes), name


@settings(max_examples=150, deadline=None)
@given(SEEDS)
def test_windows_are_resets_layer_after_layer(seed):
    layers = random_layers(seed)
    if any(isinstance(x.neuron, Sdnn) or x.delay is not None or x.kind == "dense_rec" for x in layers):
        return  # netx resets no sigma-delta soma, and lets what arrives late into the next sample
    T, samples = 7, 3
    images = [random_input(layers, seed + n, T) for n in range(samples)]
    rest = np.zeros((len(layers) + 2, *images[0].shape[1:]), np.int64)
    wanted = run_lava(layers, np.concatenate([*images, rest]), interval=T)
    graph = build(NetxFile(layers, ()), "net", T, "x.net")
    given_ = np.stack([image[0] if is_image(layers) else image for image in images])
    found = interpret(graph, given_, record="all").codes
    somas = [layer.name for layer in layers if layer.neuron is not None]
    late = 0 if is_image(layers) else 1
    for k, name in enumerate(somas):
        at = k + late
        sent = wanted[name][at : at + samples * T].reshape(samples, T, *wanted[name].shape[1:])
        assert np.array_equal(np.moveaxis(found[name], 0, 1), sent), name


def test_sigma_sends_its_whole_sum():
    layers = (
        Layer(0, "dense", (2, 1, 1), Sdnn(0), np.array([[3], [-5]])),
        Layer(1, "dense", (1, 1, 1), Sdnn(0, sigma_output=True), np.array([[2, 1]])),
    )
    data = np.array([1, 0, 2, -1, 0]).reshape(5, 1, 1, 1)
    first = run_lava(layers[:1], data)["layer0"]
    graph = build(NetxFile(layers, ()), "net", 0, "x.net")
    run = interpret(graph, data)
    sums = np.cumsum(first[:, :, 0, 0] @ np.array([2, 1]))
    assert run.outputs["output"].ravel().tolist() == [0, *sums[:-1].tolist()]


def test_a_layer_that_never_fires_gives_its_potential():
    weight = np.array([[2], [-3]])
    for neuron in (None, Cuba(4096, 0, (1 << 18) - 1)):
        graph = build(NetxFile((Layer(0, "dense", (2, 1, 1), neuron, weight),), ()), "net", 4, "x.net")
        run = interpret(graph, np.array([1, 1, 0, 1]).reshape(1, 4, 1, 1, 1))
        assert run.outputs["output"][:, 0, :, 0, 0].tolist() == [[128, -192], [256, -384], [256, -384], [384, -576]]


def test_a_silent_layer_in_between_is_refused():
    layers = (
        Layer(0, "dense", (1, 1, 1), Cuba(4096, 0, (1 << 18) - 1), np.array([[2]])),
        Layer(1, "dense", (1, 1, 1), Cuba(4096, 0, 3), np.array([[2]])),
    )
    with pytest.raises(FrontendError, match=r"x\.net: layer0 never fires \(vThMant 262143\), and is not the last"):
        build(NetxFile(layers, ()), "net", 4, "x.net")


def test_an_average_sums_neighbours():
    layers = (
        Layer(0, "dense", (4, 1, 1), Cuba(4096, 4096, 0), np.eye(4, dtype=int) * 2),
        Layer(1, "average", (2, 1, 1)),
    )
    x = np.array([[1, 1, 0, 1], [0, 0, 0, 1]]).reshape(1, 2, 4, 1, 1)
    run = interpret(build(NetxFile(layers, ()), "net", 2, "x.net"), x)
    assert run.outputs["output"][:, 0, :, 0, 0].tolist() == [[2, 1], [0, 1]]


# --- weight exponents and sign modes, which netx chooses by itself ---


def weights_of_netx(weight: np.ndarray) -> tuple[np.ndarray, int]:
    """What Lava's Dense multiplies by, and how far it shifts sums right (lava-dl netx, utils; lava-nc 0.10.0)."""
    signed = int(weight.min() < 0)
    scale = min(127 / weight.max(), -128 / weight.min()) if signed else 255 / weight.max()
    up = int(np.floor(np.log2(scale))) + signed
    zeros = next(n for n in range(8, -1, -1) if not (weight % 2**n).any()) - signed
    bits = 8 - up - zeros
    clipped = np.clip(weight << up, -256 * signed, 255)
    cut = 8 - bits + signed
    return (clipped >> cut) << cut, up


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_weight_exponents_and_sign_modes_change_no_sum(seed):
    """Weights of both signs in -256..254, or of 0..255: what netx makes of them gives the same sums."""
    rng = np.random.default_rng(seed)
    low, high = (-256, 255) if rng.random() < 0.6 else (0, 256)
    reach = int(rng.integers(1, 256))
    weight = np.clip(rng.integers(low, high, (6, 9)), -reach, reach) >> int(rng.integers(0, 3))
    weight[0, :2] = (-1, 1) if low else (0, 1)
    prepared, up = weights_of_netx(weight)
    spikes = (rng.random((9, 20)) < 0.5).astype(np.int64)
    assert np.array_equal((prepared @ spikes) >> up, weight @ spikes)
