"""The trained network with one learned delay for every synapse: PyTorch, float graph, integers, emulator."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends import snn_delays
from nmc_compiler.frontends.checkpoint import Imported, import_checkpoint
from nmc_compiler.frontends.config import parse_config
from nmc_compiler.graph import Graph
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.lowering import lower
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.pipeline import compile_graph
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.target import load_target
from nmc_emulator import Emulator
from nmc_emulator.trace import codes_of

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "zoo" / "snn_delays"
RECORDED = 8


@functools.cache
def imported() -> Imported:
    return import_checkpoint(FOLDER / "model.pt")


@functools.cache
def integers() -> Graph:
    return compile_graph(imported().graph, load_target("loihi2"), CompileOptions(), ConversionReport())


def frames(count: int = 360) -> tuple[np.ndarray, np.ndarray]:
    """Counts [N, T, C, 1, 1], with the zeros in which the delays run out, and labels."""
    with np.load(FOLDER / "test.npz") as stored:
        x, labels = stored["counts"][:count], stored["labels"][:count]
    padded = np.zeros((len(x), imported().graph.timesteps, x.shape[2], 1, 1), np.int64)
    padded[:, : x.shape[1], :, 0, 0] = x
    return padded, labels


def arrays() -> dict[str, np.ndarray]:
    """A network of 3, 4, 4 and 2 neurons with delays of 0 to 4."""
    rng = np.random.default_rng(0)
    found: dict[str, np.ndarray] = {}
    for at, (cin, out) in zip((0, 4, 8), ((3, 4), (4, 4), (4, 2)), strict=True):
        found |= {
            f"model.{at}.weight": rng.normal(1.0, 0.5, (out, cin, 1)),
            f"model.{at}.SIG": np.zeros((1, out, cin, 1)),
        }
        found[f"model.{at}.P"] = rng.uniform(-3, 3, (1, out, cin, 1))
        if at < 8:
            stats = {"weight": 1.0, "bias": 0.2, "running_mean": 0.1, "running_var": 1.0}
            found |= {f"model.{at + 1}.{k}": np.full(out, v) for k, v in stats.items()}
    return found


SMALL = {"max_delay": 5, "init_tau": 2.0, "T": 6}


def naive(state: dict[str, np.ndarray], x: np.ndarray, config: dict) -> tuple[list[np.ndarray], np.ndarray]:
    """Spikes of each layer and the potentials, [T, N], tap by tap; every signal ends where the authors' does."""
    half, tau, spikes = config["max_delay"] // 2, config["init_tau"], []
    for at in (0, 4, 8):
        weight, place = state[f"model.{at}.weight"][:, :, 0], state[f"model.{at}.P"][0, :, :, 0]
        delay = half - np.clip(np.rint(place), -half, half).astype(int)
        steps = len(x) + half
        current = np.zeros((steps, len(weight)))
        for t in range(steps):
            for o, i in np.ndindex(*weight.shape):
                if 0 <= t - delay[o, i] < len(x):
                    current[t, o] += weight[o, i] / (1 + 1e-7) * x[t - delay[o, i], i]
        if at < 8:
            norm = {k: state[f"model.{at + 1}.{k}"] for k in ("weight", "bias", "running_mean", "running_var")}
            current = (current - norm["running_mean"]) / np.sqrt(norm["running_var"] + 1e-5) * norm["weight"]
            current = current + norm["bias"]
        v, out = np.zeros(len(weight)), []
        for row in current:
            v = v - v / tau + row
            fired = (v >= 1.0) & (at < 8)
            out.append(fired.astype(float) if at < 8 else v.copy())
            v = np.where(fired, 0.0, v)
        x = np.array(out)
        spikes += [x] if at < 8 else []
    return spikes, x


# ---- the rungs ----


def test_float_graph_equals_what_pytorch_recorded() -> None:
    graph = imported().graph
    got = interpret(graph, frames(RECORDED)[0], record="all")
    with np.load(FOLDER / "golden.npz") as golden:
        np.testing.assert_allclose(got.outputs["out"][..., 0, 0], golden["potentials"], atol=2e-5)
        for name in ("model.2", "model.6"):
            want = golden[f"spikes/{name}"]
            mine = got.codes[name][:, :, :, 0, 0]
            assert np.array_equal(mine[: len(want)], want), name
            assert not mine[len(want) :].any()  # the authors' signals have ended


def test_integers_within_a_point_and_equal_in_the_emulator() -> None:
    x, labels = frames()
    got = interpret(integers(), x, record="all")
    with np.load(FOLDER / "golden.npz") as golden:
        recorded = float(golden["accuracy"])
    accuracy = 100 * float((got.outputs["out"].mean(0)[..., 0, 0].argmax(1) == labels).mean())
    assert abs(accuracy - recorded) <= 1
    program = lower(integers(), load_target("loihi2"), CompileOptions())
    windows = x[:RECORDED].reshape(-1, *x.shape[2:])  # one sample behind the other
    ran = Emulator(program, record=["model.2", "model.6"]).run_events({"x": windows}, len(windows))
    for name in ("model.2", "model.6"):
        want = got.codes[name][:, :RECORDED].swapaxes(0, 1).reshape(len(windows), -1, 1, 1)
        np.testing.assert_array_equal(codes_of(ran.events[name], len(windows), want.shape[1:]), want, err_msg=name)
    assert got.codes["model.2"].any() and got.codes["model.6"].any()


# ---- the front end ----


def test_equal_to_the_equations_tap_by_tap() -> None:
    state, rng = arrays(), np.random.default_rng(1)
    graph, notes = snn_delays.build(state, parse_config(SMALL, "test"))
    counts = rng.poisson(0.6, (6, 3))
    x = np.zeros((1, graph.timesteps, 3, 1, 1), np.int64)
    x[0, :6, :, 0, 0] = counts
    got = interpret(graph, x, record="all")
    spikes, potentials = naive(state, counts, SMALL)
    np.testing.assert_allclose(got.outputs["out"][:, 0, :, 0, 0], potentials, atol=1e-6)
    for name, want in zip(("model.2", "model.6"), spikes, strict=True):
        assert np.array_equal(got.codes[name][: len(want), 0, :, 0, 0], want)
        assert 0 < want.mean() < 1
    assert notes[-1] == "class: largest of the sum over time of the output after a softmax, on the host"


def test_without_t_it_is_a_stream() -> None:
    config = {k: v for k, v in SMALL.items() if k != "T"}
    graph, notes = snn_delays.build(arrays(), parse_config(config, "test"))
    assert graph.timesteps == 0
    assert (
        notes[-1] == "no T in the config: a stream; the authors' signals end max_delay // 2 after their input, this not"
    )


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"max_delay": 6}, "config says max_delay = 6; it is the length of a kernel, an odd number"),
        ({"init_tau": 0.5}, "'model.2' has tau = 0.5; it is in timesteps, at least 1"),
        (
            {"stateful_synapse": True},
            "config sets stateful_synapse, whose filter decays only where no spike comes: not lowered",
        ),
        ({"spiking_neuron_type": "x"}, "config says spiking_neuron_type = 'x'; known: lif, plif, heaviside"),
        ({"n_inputs": 7}, "config says n_inputs = 7, but it is 3 by the tensors (test)"),
    ],
)
def test_refusals(changes: dict, text: str) -> None:
    with pytest.raises(FrontendError) as error:
        snn_delays.build(arrays(), parse_config(SMALL | changes, "test"))
    assert str(error.value) == text


def test_max_delay_is_asked_for() -> None:
    with pytest.raises(FrontendError, match="^the model needs 'max_delay', which a checkpoint cannot tell"):
        snn_delays.build(arrays(), parse_config({"init_tau": 2.0}, "test"))
