"""The reference interpreter: time, state, lagged edges, recording, overflow, and its errors."""

import numpy as np
import pytest
import tiny_models

from nmc_compiler.errors import VerifyError
from nmc_compiler.graph import Graph, GraphBuilder, Kind, Use, rebuild
from nmc_compiler.graph.graph import Node
from nmc_compiler.graph.interpret import OverflowInGraph, interpret
from nmc_compiler.graph.text import from_text
from nmc_compiler.graph.types import Attr, ValueType

LIF = {"tau": 2.0, "theta": 1.0, "reset": "hard", "compare": "ge", "decay_input": True}


def accumulator(timesteps: int = 4, **flags: bool) -> Graph:
    """x -> neuron that never fires nor leaks in, -> mean over time."""
    b = GraphBuilder("acc", timesteps, "float", **flags)
    x = b.add("input", id="x", shape=(2, 1, 1))
    s = b.add("lif", x, id="s", name="s", **LIF)
    b.add("readout", b.add("map", s, mode="reduce"), id="out", name="out")
    return b.build()


def test_state_lives_through_a_sample_and_no_longer() -> None:
    """x = 1.5: h = 0.75, 1.125 (spike, reset), 0.75, 1.125 (spike); a second run starts at rest again."""
    graph, x = accumulator(), np.array([[1.5, 0.0], [4.0, 1.99]]).reshape(2, 2, 1, 1)
    for _ in range(2):
        result = interpret(graph, x, record="all")
        assert result.codes["s"].shape == (4, 2, 2, 1, 1)
        assert np.array_equal(result.codes["s"][:, 0, :, 0, 0], [[0, 0], [1, 0], [0, 0], [1, 0]])
        assert np.array_equal(result.codes["s"][:, 1, :, 0, 0], [[1, 0], [1, 1], [1, 0], [1, 1]])
        assert np.array_equal(result.logits, [[0.5, 0.0], [1.0, 0.5]])


def test_samples_do_not_see_each_other() -> None:
    graph, images = tiny_models.graph("sdt_v1"), tiny_models.images("sdt_v1", 3)
    together = interpret(graph, images, record="all")
    for i in range(3):
        alone = interpret(graph, images[i : i + 1], record="all")
        np.testing.assert_allclose(alone.logits[0], together.logits[i], rtol=0, atol=1e-12)
        assert all(np.array_equal(alone.codes[k][:, 0], together.codes[k][:, i]) for k in alone.codes)


def test_input_with_a_time_axis() -> None:
    graph = accumulator(timesteps=3, input_time=True)
    x = np.array([2.0, 0.0, 1.5, 2.0, 2.0, 0.0]).reshape(1, 3, 2, 1, 1)
    codes = interpret(graph, x, record=["s"]).codes["s"][:, 0, :, 0, 0]
    assert np.array_equal(codes, [[1, 0], [0, 1], [1, 0]])
    with pytest.raises(VerifyError, match=r"^graph 'acc' wants images \[N, T=3, C, H, W\], got shape \(1, 2, 1, 1\)$"):
        interpret(graph, x[:, 0])
    with pytest.raises(VerifyError, match=r"got shape \(1, 2, 2, 1, 1\)$"):
        interpret(graph, x[:, :2])


def test_lagged_edges_read_the_past_and_zeros_before_it() -> None:
    """out(t) = x(t) + 10*x(t-1) + 100*x(t-3), averaged over T."""
    b = GraphBuilder("fir", 5, "float", input_time=True)
    x = b.add("input", id="x", shape=(1, 1, 1))
    one = b.add("scale", Use(x, 1), id="one", factor=10.0)
    three = b.add("scale", Use(x, 3), id="three", factor=100.0)
    b.add("readout", b.add("add", x, one, three, id="sum"), id="out")
    frames = np.array([1.0, 2.0, 3.0, 4.0, 5.0]).reshape(1, 5, 1, 1, 1)
    result = interpret(b.build(), frames, values=["sum"])
    assert result.values["sum"].ravel().tolist() == [1, 12, 23, 134, 245]
    assert result.logits.item() == (1 + 12 + 23 + 134 + 245) / 5


RECURRENT = """graph ring T=6 float input_time=true {
  %x = input() shape=(3,1,1) : real[3,1,1]
  %back = conv2d(%h[-2]) weight=@w : current[3,1,1]
  %in = conv2d(%x) weight=@one : current[3,1,1]
  %sum = add(%in, %back) : current[3,1,1]
  %h = lif(%sum) tau=1.0 theta=0.5 reset=hard compare=ge decay_input=true : spike[3,1,1] "h"
  %m = map(%h) mode=same : current[3,1,1]
  %out = readout(%m) : real[3,1,1] "out"
}
"""


def test_recurrence_with_lag_two() -> None:
    """One spike walks around a ring of three neurons, two timesteps a step."""
    around = np.roll(np.eye(3), 1, axis=0).reshape(3, 3, 1, 1)
    graph = from_text(RECURRENT, {"w": around, "one": np.eye(3).reshape(3, 3, 1, 1)})
    frames = np.zeros((1, 6, 3, 1, 1))
    frames[0, 0, 0] = 1.0
    codes = interpret(graph, frames, record="all").codes["h"][:, 0, :, 0, 0]
    assert codes.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0]]


def test_recording_by_name() -> None:
    graph, images = tiny_models.graph("sdt_v3"), tiny_models.images("sdt_v3", 2)
    everything = interpret(graph, images, record="all").codes
    assert len(everything) == 45
    assert {k: v.shape[:2] for k, v in everything.items()} == dict.fromkeys(everything, (1, 2))
    two = interpret(graph, images, record=["spike", "block3.0.attn.v_spike"]).codes
    assert list(two) == ["spike", "block3.0.attn.v_spike"]
    assert all(np.array_equal(two[k], everything[k]) for k in two)
    assert max(v.max() for v in everything.values()) == 4
    with pytest.raises(VerifyError, match="^graph 'sdt_v3' has no population 'head', 'spikes'$"):
        interpret(graph, images, record=["spike", "head", "spikes"])  # a read-out is no population


def test_readers_get_given_codes_and_what_a_population_emits_is_recorded() -> None:
    graph, images = tiny_models.graph("sdt_v3"), tiny_models.images("sdt_v3", 2)
    own = interpret(graph, images, record="all")
    same = interpret(graph, images, record="all", given=own.codes)
    assert all(np.array_equal(same.codes[k], own.codes[k]) for k in own.codes)
    assert np.array_equal(same.logits, own.logits)
    silent = {"spike": np.zeros_like(own.codes["spike"])}
    without = interpret(graph, images, record=["spike"], given=silent)
    assert np.array_equal(without.codes["spike"], own.codes["spike"])
    assert not np.array_equal(without.logits, own.logits)
    with pytest.raises(VerifyError, match="^codes given for 'spike' have shape"):
        interpret(graph, images, given={"spike": own.codes["spike"][:, :1]})


def test_codes_of_a_normed_neuron_are_whole() -> None:
    graph, images = tiny_models.graph("sdt_v3"), tiny_models.images("sdt_v3", 2)
    q = next(n for n in graph if n.name == "block3.0.attn.q_spike")
    result = interpret(graph, images, record=[q.name], values=[q.id])
    assert np.array_equal(result.values[q.id] * 4, result.codes[q.name])


def test_wrong_inputs() -> None:
    with pytest.raises(VerifyError, match=r"^input wants samples of shape \(2, 1, 1\), got \(1, 2, 1\)$"):
        interpret(accumulator(), np.zeros((3, 1, 2, 1)))
    graph = accumulator()
    headless = Graph("headless", 1, graph.nodes[:-1], {})
    with pytest.raises(VerifyError, match="^graph 'headless' has 0 read-outs; one is expected$"):
        interpret(headless, np.zeros((1, 2, 1, 1)))


def integer_graph(vth: int) -> Graph:
    """int: x -> graded code -> (<< 10) -> cuba_lif and an integer read-out."""
    b = GraphBuilder("int", 3, "int")
    x = b.add("input", id="x", shape=(1, 1, 1))
    e = b.add("encode", x, id="e", name="e", scale=255.0, lo=0, hi=255)
    c = b.add("map", e, id="c", mode="same", shift=10)
    s = b.add("cuba_lif", c, id="s", name="s", dv=0, vth=b.tensor("vth", np.array([vth])))
    b.add("int_readout", b.add("map", s, mode="same", shift=4), id="out", name="out", scale=0.25)
    return b.build()


def test_integer_graphs_run_in_whole_numbers() -> None:
    """255*2^10*2^6 = 16,711,680: the current alone leaves 24 bits; half of it does not."""
    half = np.full((2, 1, 1, 1), 127 / 255)
    result = interpret(integer_graph(vth=100_000), half, record="all", values=["e"], strict=True)
    assert result.values["e"].ravel().tolist() == [127] * 6
    assert result.codes["s"].ravel().tolist() == [1] * 6  # 127*1024 = 130,048 > 100,000
    assert result.raw_logits is not None
    assert result.raw_logits.ravel().tolist() == [3 * 16 * 64] * 2
    assert result.logits.ravel().tolist() == [3 * 16 * 64 / 4] * 2
    assert result.overflows == {}


def test_overflow_is_counted_or_raised() -> None:
    full = np.ones((2, 1, 1, 1))
    counted = interpret(integer_graph(vth=131_071), full)
    assert counted.overflows == {"s: current u": 6}
    with pytest.raises(OverflowInGraph, match=r"^s: current u left its 24-bit range at 2 neuron\(s\)$"):
        interpret(integer_graph(vth=131_071), full, strict=True)


def test_the_order_of_nodes_is_the_order_of_time_within_a_step() -> None:
    """A node may not read what is computed after it in the same timestep, only what was before."""
    graph = accumulator()
    early = Node("early", "scale", (Use("s2", 1),), {"factor": Attr(1.0)}, ValueType(Kind.CURRENT, (2, 1, 1)))
    late = Node("s2", "scale", (Use("x"),), {"factor": Attr(1.0)}, ValueType(Kind.REAL, (2, 1, 1)))
    x = np.array([3.0, 5.0]).reshape(1, 2, 1, 1)
    again = rebuild(graph, [early, *graph.nodes, late])
    values = interpret(again, x, values=["early"]).values["early"]
    assert values[:, 0, :, 0, 0].tolist() == [[0, 0], [3, 5], [3, 5], [3, 5]]
