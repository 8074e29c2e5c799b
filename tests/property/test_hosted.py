"""Random networks that go back and forth between cores and host: interpreter = every engine, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Graph, GraphBuilder, Use
from tests.hosted import agrees, compiled_graph, weights

STEPS = 4
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)  # what fails is small already


class Maker:
    """A network built from drawn choices; every value is a vector."""

    def __init__(self, draw) -> None:
        self.draw, self.rng = draw, np.random.default_rng(draw(st.integers(0, 999)))
        self.b = GraphBuilder("random", timesteps=STEPS, input_time=True)
        self.count = 0

    def tensor(self, array: np.ndarray):
        self.count += 1
        return self.b.tensor(f"t{self.count}", array)

    def size(self, node: str) -> int:
        return self.b.nodes[node].type.shape[0]

    def graph(self) -> Graph:
        real = self.b.add("input", name="x", shape=(self.draw(st.integers(2, 5)), 1, 1))
        last = ""
        for _ in range(self.draw(st.integers(1, 3))):
            last = self.cores(self.events(real))
            real = self.host(last, real)
        self.b.add("output", real, name="y")
        self.b.add("output", last, name="z") if self.draw(st.booleans()) else None
        return self.b.build()

    def events(self, real: str) -> str:
        """Real values as events, or as the current of neurons."""
        kind = self.draw(st.sampled_from(("codes", "spikes", "neuron")))
        if kind == "codes":
            bits = self.draw(st.integers(3, 9))
            return self.b.add("codes", real, unit=0.25, bits=bits, name=f"codes{len(self.b.nodes)}")
        if kind == "spikes":
            return self.b.add("host_spikes", real, theta=0.25, name=f"host{len(self.b.nodes)}")
        return self.neuron(real)

    def neuron(self, current: str) -> str:
        beta = self.draw(st.sampled_from((0.0, 0.5, 1.0)))
        if self.draw(st.booleans()) and self.size(current) > 1:
            beta = self.tensor(np.resize([0.5, 0.75], self.size(current)))  # split into populations
        reset = self.draw(st.sampled_from(("hard", "soft")))
        name = f"lif{len(self.b.nodes)}"
        return self.b.add("neuron", current, name=name, beta=beta, theta=0.75, reset=reset, compare="gt")

    def cores(self, events: str) -> str:
        out = self.draw(st.integers(1, 5))
        weight = self.tensor(weights(self.rng, out, self.size(events), 1.5))
        lag = self.draw(st.integers(0, 1))
        current = self.b.add("conv2d", Use(events, lag), weight=weight, name=f"fc{len(self.b.nodes)}")
        if self.draw(st.booleans()):
            return self.neuron(current)
        return self.b.add("integrator", current, beta=0.5, name=f"sum{len(self.b.nodes)}")

    def host(self, source: str, other: str) -> str:
        lag = self.draw(st.integers(0, 2))
        kind = self.draw(st.sampled_from(("norm", "late", "unary", "linear", "residual")))
        if kind == "norm":
            return self.b.add("layer_norm", Use(source, lag), eps=0.1)
        if kind == "late":
            inner = self.b.add("unary", source, function="tanh")
            return self.b.add("real_affine", Use(inner, lag), factor=2.0, offset=0.125)
        if kind == "unary":
            return self.b.add(
                "unary", Use(source, lag), function=self.draw(st.sampled_from(("sigmoid", "silu", "relu")))
            )
        if kind == "linear" or self.size(source) != self.size(other):
            weight = self.rng.normal(size=(self.draw(st.integers(1, 5)), self.size(source)))
            return self.b.add("real_linear", Use(source, lag), weight=self.tensor(weight))
        return self.b.add("binary", other, Use(source, lag), function=self.draw(st.sampled_from(("add", "mul", "max"))))


@st.composite
def networks(draw) -> Graph:
    return Maker(draw).graph()


@pytest.mark.slow
@settings(max_examples=60, deadline=None, phases=PHASES, suppress_health_check=list(HealthCheck))
@given(networks(), st.integers(0, 99), st.booleans())
def test_many_networks_on_every_engine(graph: Graph, seed: int, pipelined: bool) -> None:
    _holds(graph, seed, pipelined, ("events", "ticks", "layers"))


@settings(max_examples=12, deadline=None, phases=PHASES, suppress_health_check=list(HealthCheck))
@given(networks(), st.integers(0, 99), st.booleans())
def test_a_network_tick_by_tick_and_settled(graph: Graph, seed: int, pipelined: bool) -> None:
    _holds(graph, seed, pipelined, ("events", "ticks"))


def _holds(graph: Graph, seed: int, pipelined: bool, engines: tuple[str, ...]) -> None:
    x = np.random.default_rng(seed).normal(size=(3, STEPS, *graph.sources[0].type.shape)).clip(-3.9, 3.9)
    try:
        compiled = compiled_graph(graph, pipelined=pipelined, calib=x, input_range=(-4.0, 4.0))
    except LoweringError as error:  # weights that some neuron cannot hear; a population that is split and given out
        assert "fills the register" in str(error) or "must read a neuron" in str(error), error
        return
    agrees(compiled, {"x": x}, engines)
