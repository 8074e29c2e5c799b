"""Spike codes of images: definitions, seeds, what is refused, and a network run on them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nmc
from nmc.cli.parser import ENCODINGS as OFFERED
from nmc.encoders import ENCODINGS, Coding, SpikeCoded
from nmc_compiler.errors import FrontendError, UsageError
from nmc_compiler.program.network import Network


def test_command_line_offers_what_there_is():
    assert OFFERED == ENCODINGS


@given(st.floats(0, 1), st.integers(1, 40))
def test_rate_is_even(x, timesteps):
    spikes = nmc.encode(np.full((1, 1, 1, 1), x), "rate", timesteps).ravel()
    counts = np.cumsum(spikes)
    assert counts.tolist() == [int(np.floor((t + 1) * x)) for t in range(timesteps)]


@given(st.floats(0, 1), st.integers(1, 40))
def test_first_spike_comes_once(x, timesteps):
    (at,) = np.flatnonzero(nmc.encode(np.full((1, 1, 1, 1), x), "ttfs", timesteps))
    assert at == np.rint((timesteps - 1) * (1 - x))


@given(st.integers(1, 20).flatmap(lambda k: st.tuples(st.just(k), st.integers(0, 2**k - 1))))
def test_phases_weigh_what_the_pixel_is(case):
    timesteps, code = case
    spikes = nmc.encode(np.full((1, 1, 1, 1), code / 2**timesteps), "phase", timesteps).ravel()
    assert (spikes * 2.0 ** -np.arange(1, timesteps + 1)).sum() == code / 2**timesteps


def test_poisson_of_a_sample_depends_on_seed_and_number_alone():
    images = np.random.default_rng(0).random((5, 1, 8, 8))
    whole = nmc.encode(images, "poisson", 50, seed=3)
    assert np.array_equal(whole[2:4], nmc.encode(images[2:4], "poisson", 50, seed=3, first=2))
    assert not np.array_equal(whole, nmc.encode(images, "poisson", 50, seed=4))
    assert abs(whole.mean(axis=1) - images).max() < 0.35
    assert abs(whole.mean() - images.mean()) < 0.01


def test_codes_as_spikingjelly_has_them():
    torch = pytest.importorskip("torch", reason="PyTorch is missing: pip install -e '.[torch]'")
    encoding = pytest.importorskip("spikingjelly.activation_based.encoding", reason="pip install spikingjelly==2.0.0")
    x = np.random.default_rng(1).integers(0, 255, (3, 1, 4, 4)) / 256
    for kind, encoder in (("phase", encoding.WeightedPhaseEncoder(8)), ("ttfs", encoding.LatencyEncoder(8))):
        theirs = np.stack([encoder(torch.from_numpy(x)).numpy() for _ in range(8)])
        assert np.array_equal(np.moveaxis(nmc.encode(x, kind, 8), 1, 0), theirs), kind


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        (
            1.5,
            "rate",
            "images: 1 values are outside 0..1, which is what 'rate' encodes, the first (1.5) at [0, 0, 0, 1]",
        ),
        (np.nan, "ttfs", "the first (nan) at [0, 0, 0, 1]; scale the images"),
        (1.0, "phase", "outside 0..1 - 2^-4, which is what 'phase' encodes"),
    ],
)
def test_values_without_a_code_are_refused(value, kind, said):
    images = np.zeros((1, 1, 1, 2))
    images[0, 0, 0, 1] = value
    with pytest.raises(FrontendError) as caught:
        nmc.encode(images, kind, 4)
    assert said in str(caught.value)


def test_wrong_use():
    x = np.zeros((1, 1, 1, 1))
    with pytest.raises(UsageError, match="no spike code 'morse'; choose of poisson, rate, ttfs, phase"):
        nmc.encode(x, "morse", 4)
    with pytest.raises(UsageError, match="spike code over 0 timesteps; give 1 to 1048576"):
        nmc.encode(x, "rate", 0)
    with pytest.raises(UsageError, match="--seed -1"):
        nmc.encode(x, "poisson", 4, seed=-1)


def _network(timesteps):
    net = Network("spikes", timesteps)
    source = net.input("pixels", (1, 2, 2))
    return net, source, net.lif("out", (1, 2, 2), vth=0)


def test_a_network_hears_the_code():
    net, source, out = _network(4)
    net.conv("c", source, out, np.ones((1, 1, 1, 1), int))
    program = net.program()
    images = np.array([[[[0.0, 0.25], [0.5, 1.0]]], [[[1.0, 1.0], [0.0, 0.0]]]])
    run = nmc.emulate(program, images, encode="rate", record=["pixels", "out"])
    spikes = nmc.encode(images, "rate", 4)
    assert np.array_equal(run.spikes("pixels"), np.moveaxis(spikes, 1, 0))
    assert run.report["input"].endswith("; input: 2 images as spikes over 4 timesteps, code rate")
    with pytest.raises(FrontendError, match=r"--encode rate: input 'pixels' is shape \[2, 4, 1, 2, 2\]; give images"):
        nmc.emulate(program, spikes, encode="rate")


def test_a_stream_needs_steps():
    net, source, out = _network(0)
    net.conv("c", source, out, np.ones((1, 1, 1, 1), int))
    images = np.full((3, 1, 2, 2), 0.5)
    with pytest.raises(UsageError, match="--encode ttfs: say with --steps over how many timesteps an image is shown"):
        nmc.emulate(net.program(), images, encode="ttfs")
    run = nmc.emulate(net.program(), images, encode="ttfs", steps=5, record=["pixels"])
    assert run.events["pixels"].step.tolist() == [2] * 4 + [7] * 4 + [12] * 4


def test_images_are_encoded_as_they_are_needed():
    images = np.random.default_rng(2).random((4, 1, 3, 3))
    coded = SpikeCoded(images, 6, Coding("poisson", 9))
    assert coded.shape == (4, 6, 1, 3, 3) and coded.ndim == 5 and len(coded) == 4
    assert np.array_equal(coded[1:3], nmc.encode(images, "poisson", 6, seed=9)[1:3])
    assert coded.digest != SpikeCoded(images, 6, Coding("poisson", 8)).digest
    assert SpikeCoded(images, 6, Coding("rate", 9)).digest == SpikeCoded(images, 6, Coding("rate", 8)).digest
