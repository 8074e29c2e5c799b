"""Lowering of graphs written by hand: levels, delays, arrivals, shared streams, relays, refusals."""

from __future__ import annotations

import importlib
from dataclasses import replace

import numpy as np
import pytest
from graphs import Net, random_images

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Graph, GraphBuilder, Use
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.graph.verify import verify
from nmc_compiler.lowering import lower
from nmc_compiler.mapping import map_program
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.pipeline import compile_graph
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.program.model import Dendrite, Population, Program
from nmc_compiler.program.validate import validate_program
from nmc_compiler.target import Target, load_target
from nmc_emulator import run

LOIHI, MESH = load_target("loihi2"), load_target("generic-mesh")


def integer(graph: Graph, target: Target = LOIHI, **options) -> Graph:
    return compile_graph(graph, target, CompileOptions(**options), ConversionReport())


def program_of(graph: Graph, target: Target = LOIHI, **options) -> Program:
    """The Program of a float graph; stream residuals unless told."""
    chosen = CompileOptions(**{"residual": "stream", **options})
    program = lower(integer(graph, target, **options), target, chosen)
    validate_program(program)
    return program


def population(program: Program, name: str) -> Population:
    return next(p for p in program.populations if p.name == name)


def dendrite_of(program: Program, name: str) -> Dendrite:
    return program.dendrites[population(program, name).dendrite]


def levels(program: Program) -> dict[str, int]:
    return {p.name: p.level for p in program.populations}


def edges(program: Program) -> list[tuple[str, str, int]]:
    """(source population, dendrite, delay) of every conv and map."""
    items = (*program.convs, *program.maps)
    return [(program.populations[x.src].name, program.dendrites[x.dst].name, x.delay) for x in items]


def same_everywhere(graph: Graph, target: Target = LOIHI, seed: int = 0, **options) -> None:
    """Interpreter, layers and ticks agree on every population, pipelined and not."""
    made = integer(graph, target, **options)
    images = random_images(made, seed, 4)
    want = interpret(made, images, record="all")
    for pipelined in (False, True):
        chosen = CompileOptions(**{"residual": "stream", "pipelined": pipelined, **options})
        program, _ = map_program(lower(made, target, chosen), target, "auto")
        for engine in ("layers", "ticks"):
            got = run(program, images, record="all", engine=engine)
            np.testing.assert_array_equal(got.logits_int, want.raw_logits)
            for name, codes in want.codes.items():
                np.testing.assert_array_equal(got.codes[name], codes.swapaxes(0, 1), err_msg=f"{engine} {name}")


# --- residual streams ---------------------------------------------------------------------------------------


def residual(timesteps: int = 4) -> Graph:
    """Membrane residual: x0 -> s1 -> +c1 -> s2 -> +c2 -> s3 -> head."""
    net = Net(timesteps)
    x = net.conv(net.input(1, 4, 4), 3, 3, pad=1)
    for n in (1, 2):
        x = net.sum(x, net.conv(net.lif(x, f"s{n}", theta=0.4), 3))
    return net.readout(net.lif(x, "s3", theta=0.4))


def test_levels_of_a_residual_stream() -> None:
    assert levels(program_of(residual())) == {"s1": 0, "s2": 1, "s3": 2, "head": 3}


def test_a_stream_is_one_ring_of_accumulators_that_every_reader_finds_as_it_should() -> None:
    program = program_of(residual())
    stream = population(program, "s1").dendrite
    assert {p.dendrite for p in program.populations if p.name in ("s1", "s2", "s3")} == {stream}
    assert edges(program) == [("s1", "s1", 1), ("s2", "s1", 1), ("s3", "head", 1)]
    assert [(h.dst, h.level) for h in program.host_currents] == [(stream, 0)]
    assert program.dendrites[stream].ring == 3  # written from level 0, read until level 2


@pytest.mark.parametrize(("timesteps", "pipelined", "ring"), [(2, False, 2), (2, True, 3), (1, False, 1), (1, True, 3)])
def test_a_ring_holds_no_more_timesteps_than_are_alive(timesteps: int, pipelined: bool, ring: int) -> None:
    program = program_of(residual(timesteps), pipelined=pipelined)
    assert dendrite_of(program, "s1").ring == ring
    assert program.interval == timesteps + (0 if pipelined else 3)


def test_duplicated_fan_in_gives_every_reader_its_own_dendrite() -> None:
    program = program_of(residual(), residual="duplicate")
    assert [p.dendrite for p in program.populations] == [0, 1, 2, 3]
    assert sorted(edges(program)) == [("s1", "s2", 1), ("s1", "s3", 2), ("s2", "s3", 1), ("s3", "head", 1)]
    assert [(h.dst, h.level) for h in program.host_currents] == [(0, 0), (1, 1), (2, 2)]
    assert all(d.ring == 1 for d in program.dendrites)


@pytest.mark.parametrize("residual_option", ["stream", "duplicate"])
def test_a_residual_computes_the_same_either_way(residual_option: str) -> None:
    same_everywhere(residual(), residual=residual_option)


def test_a_reader_that_would_find_too_much_gets_its_own_dendrite() -> None:
    """c2 is there before the late reader of x0 + c1 looks."""
    net = Net(2)
    x0 = net.conv(net.input(1, 4, 4), 3, 3, pad=1)
    s1 = net.lif(x0, "s1", theta=0.4)
    x1 = net.sum(x0, net.conv(s1, 3))
    s2 = net.lif(x1, "s2", theta=0.4)
    x2 = net.sum(x1, net.conv(s2, 3))
    s3 = net.lif(x2, "s3", theta=0.4)
    late = net.lif(net.sum(x0, net.conv(s3, 3)), "late", theta=0.4)
    graph = net.readout(late)
    program = program_of(graph)
    assert levels(program)["late"] == 3
    assert [population(program, n).dendrite for n in ("s1", "s2", "s3", "late")] == [0, 0, 0, 1]
    assert sorted((h.dst, h.level) for h in program.host_currents) == [(0, 0), (1, 3)]
    same_everywhere(graph)


def test_a_current_that_is_added_twice_arrives_twice() -> None:
    net = Net(2)
    x0 = net.conv(net.input(1, 4, 4), 3, 3, pad=1)
    s1 = net.lif(x0, "s1", theta=0.4)
    y = net.conv(s1, 3)
    x1 = net.sum(x0, y, y)
    s2 = net.lif(x1, "s2", theta=0.4)
    s3 = net.lif(net.sum(x1, x1, x0, net.conv(s2, 3)), "s3", theta=1.0)
    graph = net.readout(s3)
    program = program_of(graph, residual="duplicate")
    into = [program.dendrites[c.dst].name for c in program.convs if program.populations[c.src].name == "s1"]
    assert (into.count("s2"), into.count("s3")) == (2, 4)
    assert [program.dendrites[h.dst].name for h in program.host_currents].count("s3") == 3
    same_everywhere(graph)
    same_everywhere(graph, residual="duplicate")


def test_spikes_that_are_added_twice_arrive_twice() -> None:
    net = Net(2)
    s = net.lif(net.conv(net.input(1, 4, 4), 3, 3, pad=1), "s1", theta=0.4)
    graph = net.readout(net.lif(net.conv(net.sum(s, s, s), 4), "last"))
    assert edges(program_of(graph))[:3] == [("s1", "last", 1)] * 3
    same_everywhere(graph)


# --- masks, attention ---------------------------------------------------------------------------------------


def three(net: Net, late: str = "") -> list[str]:
    """q, k, v at level 0; the one named ``late`` two levels later."""
    x = net.input(1, 3, 3)
    out = []
    for name in "qkv":
        s = net.lif(net.conv(x, 4, 3, pad=1), f"{name}0" if name == late else name, theta=0.3)
        if name == late:
            s = net.lif(net.conv(s, 4), f"{name}1", theta=0.3)
            s = net.lif(net.conv(s, 4), name, theta=0.3)
        out.append(s)
    return out


def test_q_waits_for_the_mask() -> None:
    """and at level 1, or at 2, the masked output at 3: q travels for three ticks, two more than the least."""
    net = Net(3)
    graph = net.readout(net.lif(net.conv(net.mask(*three(net), "mask"), 3), "last"))
    program = program_of(graph)
    assert levels(program) == {
        "q": 0, "k": 0, "v": 0, "mask.kv": 1, "mask.lif": 2, "mask.out": 3, "last": 4, "head": 5,
    }  # fmt: skip
    assert ("q", "mask.out", 3) in edges(program) and ("mask.lif", "mask.out", 1) in edges(program)
    assert [population(program, n).role for n in ("mask.kv", "mask.lif", "mask.out")] == ["and", "or", "and"]
    same_everywhere(graph)


@pytest.mark.parametrize(
    ("late", "order", "level", "delays"),
    [
        ("", "kv", 2, {"q": 2, "k": 1, "v": 1}),
        ("", "qk", 2, {"q": 1, "k": 1, "v": 2}),
        ("q", "kv", 3, {"q": 1, "k": 2, "v": 2}),  # k and v wait for q: written one tick before it reads
        ("k", "kv", 4, {"q": 4, "k": 1, "v": 3}),
        ("v", "qk", 3, {"q": 2, "k": 2, "v": 1}),
        ("v", "kv", 4, {"q": 4, "k": 3, "v": 1}),
        ("q", "qk", 4, {"q": 1, "k": 3, "v": 4}),
    ],
)
def test_tables_are_written_one_tick_before_they_are_read(late: str, order: str, level: int, delays: dict) -> None:
    net = Net(3)
    graph = net.readout(net.lif(net.attn(*three(net, late), heads=2), "out", theta=0.5))
    program = program_of(graph, attn_order=order)
    [dynamic] = program.dynamics
    assert dynamic.order == order and levels(program)["out"] == level
    assert {r: getattr(dynamic, f"delay_{r}") for r in "qkv"} == delays
    same_everywhere(graph, attn_order=order)


@pytest.mark.parametrize(("size", "order"), [(1, "qk"), (2, "kv"), (3, "kv")])
def test_the_smaller_table_is_chosen(size: int, order: str) -> None:
    """Two heads of d = d_v = 2: N^2 = 1 < 4 for one token, 16 for four."""
    net = Net(1)
    x = net.input(1, size, size)
    q, k, v = (net.lif(net.conv(x, 4), n) for n in "qkv")
    graph = net.readout(net.lif(net.attn(q, k, v, heads=2), "out"))
    assert program_of(graph).dynamics[0].order == order


# --- pools and sums of currents -----------------------------------------------------------------------------


def pooled_stream() -> tuple[Net, str, str]:
    """x0 with a reader s1, x1 = x0 + c1 with a reader s2."""
    net = Net(3)
    x0 = net.conv(net.input(1, 4, 4), 3, 3, pad=1)
    x1 = net.sum(x0, net.conv(net.lif(x0, "s1", theta=0.4), 3))
    net.lif(x1, "s2", theta=0.4)
    return net, x0, x1


def finish(net: Net, *neurons: str) -> Graph:
    """Every neuron has a part in the read-out."""
    by_name = {n.name: n.id for n in net.nodes.values()}
    parts = [net.conv(by_name[n], 2) for n in neurons]
    return net.readout(net.sum(*(p if net.shape(p)[1:] == (1, 1) else net.add("sum_positions", p) for p in parts)))


def test_a_pool_of_a_current_moves_within_one_cluster() -> None:
    net, _, x1 = pooled_stream()
    net.lif(net.pool(x1), "pooled", theta=0.4)
    graph = finish(net, "s2", "pooled")
    program = program_of(graph)
    [transfer] = program.transfers
    source, target = (program.dendrites[i] for i in (transfer.src, transfer.dst))
    assert (source.name, target.name, transfer.mode, transfer.kernel) == ("s1", "pooled", "maxpool", (3, 3))
    assert source.cluster == target.cluster != dendrite_of(program, "head").cluster
    assert transfer.level == 1 == levels(program)["pooled"]
    same_everywhere(graph)
    same_everywhere(graph, residual="duplicate")


def test_a_pool_that_a_later_sum_needs_is_taken_in_time() -> None:
    """The pool of x0 feeds a neuron of level 3, when c1 has long been added to the stream."""
    net, x0, _ = pooled_stream()
    deep = "s1"
    by_name = {n.name: n.id for n in net.nodes.values()}
    s = by_name[deep]
    for n in range(2):
        s = net.lif(net.conv(s, 3, 3, pad=1, stride=2 if n == 0 else 1), f"d{n}", theta=0.3)
    net.lif(net.sum(net.pool(x0), net.conv(s, 3)), "late", theta=0.4)
    graph = finish(net, "s2", "late")
    program = program_of(graph)
    assert levels(program)["late"] == 3
    same_everywhere(graph)


def test_a_pool_of_a_pool_is_taken_as_early_as_its_first_reader_needs_it() -> None:
    net = Net(2)
    x = net.conv(net.input(1, 6, 6), 3, 3, pad=1)
    once = net.pool(x, 3, 1, 1)
    s = net.lif(net.pool(once, 3, 1, 1), "early", theta=0.4)
    net.lif(net.sum(once, net.conv(net.lif(net.conv(s, 3), "mid", theta=0.3), 3)), "late", theta=0.4)
    graph = finish(net, "late")
    program = program_of(graph)
    assert levels(program) == {"early": 0, "mid": 1, "late": 2, "head": 3}
    assert {t.name: t.level for t in program.transfers} == {once: 0, "maxpool2d3": 0}
    same_everywhere(graph)


def test_one_current_pooled_in_two_ways_is_cut_into_tiles_all_the_same() -> None:
    """Linked dendrites share their cores, so two pools of unlike shape take their own fan-in."""
    net, _, x1 = pooled_stream()
    y = net.pool(x1, 3, 1, 1)
    net.lif(net.pool(x1, 3, 2, 1), "small", theta=0.4)
    net.lif(net.pool(y, 2, 2, 0), "other", theta=0.4)
    net.lif(net.pool(y, 2, 1, 0), "wide", theta=0.4)
    same_everywhere(finish(net, "s2", "small", "wide", "other"))


def test_a_sum_over_positions_is_taken_by_its_projections_where_nobody_else_reads_them() -> None:
    net = Net(2)
    s = net.lif(net.conv(net.input(1, 4, 4), 3, 3, pad=1), "s1", theta=0.4)
    both = net.sum(net.conv(s, 3), net.conv(s, 3, 3, pad=1))
    graph = net.readout(net.lif(net.mean(both), "mean", theta=0.2))
    program = program_of(graph)
    assert [(c.collapse, c.out_hw) for c in program.convs[:2]] == [(True, (4, 4))] * 2 and not program.transfers
    assert dendrite_of(program, "mean").shape == (3, 1, 1)
    same_everywhere(graph)


def test_a_sum_over_the_positions_of_a_stream_is_a_transfer() -> None:
    net, _, x1 = pooled_stream()
    net.lif(net.mean(x1), "mean", theta=0.2)
    graph = finish(net, "s2", "mean")
    [transfer] = program_of(graph).transfers
    assert transfer.mode == "sum"
    same_everywhere(graph)
    same_everywhere(graph, residual="duplicate")


# --- right shifts -------------------------------------------------------------------------------------------


def shifted_stream(timesteps: int = 3) -> Graph:
    """An integer graph: the last reader of a stream, alone at its own add, takes it shifted."""
    b, rng = GraphBuilder("shifted", timesteps, "int"), np.random.default_rng(0)
    x = b.add("encode", b.add("input", shape=(2, 4, 4)), scale=7.0, lo=0, hi=7)
    vth = b.tensor("vth", np.full(3, 9, np.int32))
    small = b.tensor("small", np.full(3, 2, np.int32))

    def conv(s: str, out: int = 3) -> str:
        weight = rng.integers(-9, 10, (out, b.nodes[s].type.shape[0], 3, 3)).astype(np.int8)
        return b.add("conv2d", s, weight=b.tensor(f"w{len(b.nodes)}", weight), pad=(1, 1), shift=0)

    x0 = conv(x)
    s1 = b.add("cuba_lif", x0, name="s1", dv=2048, vth=vth)
    x1 = b.add("add", x0, conv(s1))
    s2 = b.add("cuba_lif", x1, name="s2", dv=1500, vth=vth)
    private = b.add("add", x1, conv(s2))  # read by the shift alone; x0 and c1 are shared
    s3 = b.add("cuba_lif", b.add("rshift", private, shift=2), name="s3", dv=0, vth=small)
    total = b.add("rshift", b.add("sum_positions", private), shift=4)
    s4 = b.add("cuba_lif", total, name="s4", dv=4096, vth=small)
    heads = [b.add("sum_positions", conv(s3, 2)), conv(s4, 2)]
    b.add("int_readout", b.add("add", *heads), name="head", scale=1.0)
    return b.build()


@pytest.mark.parametrize("option", ["stream", "duplicate"])
def test_a_shift_of_a_sum_whose_parts_are_shared(option: str) -> None:
    graph = shifted_stream()
    verify(graph, event_driven=True)
    images = random_images(graph, 0, 8)
    want = interpret(graph, images, record="all")
    assert all(0.02 < codes.mean() < 0.98 for name, codes in want.codes.items() if name.startswith("s"))
    for pipelined in (False, True):
        program = lower(graph, LOIHI, CompileOptions(residual=option, pipelined=pipelined))
        program, _ = map_program(program, LOIHI)
        for engine in ("layers", "ticks"):
            got = run(program, images, record="all", engine=engine)
            np.testing.assert_array_equal(got.logits_int, want.raw_logits)
            assert all(np.array_equal(got.codes[n], c.swapaxes(0, 1)) for n, c in want.codes.items())


def test_a_shifted_stream_stays_one_dendrite() -> None:
    program = lower(shifted_stream(), LOIHI, CompileOptions(residual="stream"))
    assert population(program, "s1").dendrite == population(program, "s2").dendrite
    moves = {
        (program.dendrites[t.src].name, program.dendrites[t.dst].name, t.mode, t.rshift) for t in program.transfers
    }
    assert moves == {("s1", "s3", "maxpool", 2), ("s1", "s4", "sum", 4)}


# --- relays -------------------------------------------------------------------------------------------------


def long_way(neuron: str, length: int = 20, source: str = "events") -> Graph:
    """A chain of small layers around which one current of the first events (or the input) jumps."""
    net = Net(1)
    x = net.input(1, 2, 2)
    first = net.conv(x, 2)

    def fire(y: str, name: str) -> str:
        return net.lif(y, name, theta=0.1) if neuron == "lif" else net.levels(y, name, norm=1, gain=3.0)

    s = start = fire(first, "n0")
    for i in range(1, length + 1):
        s = fire(net.conv(s, 2, weight=0.6), f"n{i}")
    skip = net.conv(start if source == "events" else x, 2, weight=0.7)
    return net.readout(fire(net.sum(net.conv(s, 2), skip), "last"))


@pytest.mark.parametrize(("neuron", "model"), [("lif", "lif"), ("levels", "levels")])
def test_an_edge_longer_than_the_longest_delay_goes_through_relays(neuron: str, model: str) -> None:
    graph = long_way(neuron, 40)
    program = program_of(graph, MESH)
    relays = [p for p in program.populations if p.role == "relay"]
    assert [(p.name, p.level, p.model) for p in relays] == [
        ("n0.relay16", 16, model), ("n0.relay16.relay32", 32, model),
    ]  # fmt: skip
    assert [(a, d) for a, b, d in edges(program) if b == "last"] == [("n40", 1), ("n0.relay16.relay32", 9)]
    assert [p.role for p in program_of(graph, LOIHI).populations if p.role == "relay"] == []
    same_everywhere(graph, MESH)


def test_an_edge_of_just_the_longest_delay_needs_no_relay() -> None:
    assert [p.role for p in program_of(long_way("lif", 15), MESH).populations].count("relay") == 0
    assert [p.role for p in program_of(long_way("lif", 16), MESH).populations].count("relay") == 1


def test_one_relay_serves_every_edge_that_needs_it() -> None:
    net = Net(2)
    x = net.input(1, 2, 2)
    q, k, v = (net.lif(net.conv(x, 2), n, theta=0.2) for n in "qkv")
    for i in range(20):
        v = net.lif(net.conv(v, 2, weight=0.6), f"v{i}", theta=0.1)
    one = net.lif(net.attn(q, k, v), "one", theta=0.3)
    two = net.lif(net.attn(q, k, v, scale=0.25), "two", theta=0.3)
    graph = net.readout(net.sum(net.conv(one, 2), net.conv(two, 2)))
    relays = [p.name for p in program_of(graph, MESH).populations if p.role == "relay"]
    assert relays == ["q.relay16", "k.relay16"]
    same_everywhere(graph, MESH)


def test_the_codes_of_the_input_are_relayed() -> None:
    graph = long_way("lif", 20, source="input")
    program = program_of(graph, MESH, input_encoding="graded8")
    relay = population(program, "input.relay16")
    assert relay.payload_bits == 8 and relay.thresholds.shape == (1, 255)
    same_everywhere(graph, MESH, input_encoding="graded8")


def test_signed_codes_are_not_relayed() -> None:
    graph = long_way("lif", 20, source="input")
    with pytest.raises(LoweringError) as error:
        program_of(graph, MESH, input_encoding="graded8", input_range=(-1.0, 1.0))
    assert str(error.value) == "'input' sends signed codes over more than 16 ticks; not lowered"


# --- features and the automatic choice ----------------------------------------------------------------------


def features(program: Program) -> dict[str, str]:
    return {f["feature"]: f["first_use"] for f in program.meta["features"]}


def test_a_plain_network_needs_convolution_synapses_alone() -> None:
    net = Net(2)
    graph = net.readout(net.lif(net.conv(net.input(1, 3, 3), 2), "s1"))
    made = program_of(graph)
    assert features(made) == {"conv_synapses": "%conv2d3", "host_current": made.host_currents[0].name}


def test_every_feature_is_found_where_it_is_needed() -> None:
    net, x0, x1 = pooled_stream()
    by_name = {n.name: n.id for n in net.nodes.values()}
    codes = net.levels(net.conv(by_name["s2"], 3, bias=0.1), "codes")
    attention = net.levels(net.attn(codes, codes, codes, scale=1.0), "attention", norm=1)
    net.lif(net.pool(x1), "pooled")
    graph = finish(net, "pooled", "attention")
    assert attention
    program = program_of(graph, input_encoding="graded8")
    assert features(program) == {
        "bias_gating": "codes", "conv_synapses": "%conv2d6", "current_pool": "maxpool2d10",
        "dynamic_synapse": "attn8", "graded_input": "input", "graded_spikes": "codes", "multi_level_neuron": "codes",
        "stream_accumulator": "s1",
    }  # fmt: skip
    assert all(f["evidence"] and f["source"] for f in program.meta["features"])


def without(target: Target, feature: str) -> Target:
    missing = getattr(target.features, feature).model_copy(update={"supported": False, "source": "a test"})
    return target.model_copy(update={"features": target.features.model_copy(update={feature: missing})})


WAYS_OUT = {
    "dynamic_synapse": (
        "'attn8' needs dynamic synapse, which target 'loihi2' has not (a test); choose a target that has it"
    ),
    "current_pool": (
        "'maxpool2d10' needs current pool, which target 'loihi2' has not (a test); "
        "train with pooling on plain spikes, or choose a target that has it"
    ),
    "stream_accumulator": (
        "'s1' needs stream accumulator, which target 'loihi2' has not (a test); compile with --residual duplicate"
    ),
    "multi_level_neuron": (
        "'codes' needs multi level neuron, which target 'loihi2' has not (a test); choose a target that has it"
    ),
    "graded_input": (
        "'input' needs graded input, which target 'loihi2' has not (a test); compile with --input-encoding host-current"
    ),
    "conv_synapses": ("'%conv2d6' needs conv synapses, which target 'loihi2' has not (a test); choose another target"),
}


@pytest.mark.parametrize("feature", WAYS_OUT)
def test_a_feature_that_the_target_lacks_is_refused_with_a_way_out(feature: str) -> None:
    net, _, x1 = pooled_stream()
    by_name = {n.name: n.id for n in net.nodes.values()}
    codes = net.levels(net.conv(by_name["s2"], 3, bias=0.1), "codes")
    net.levels(net.attn(codes, codes, codes, scale=1.0), "attention", norm=1)
    net.lif(net.pool(x1), "pooled")
    with pytest.raises(LoweringError) as error:
        program_of(finish(net, "pooled", "attention"), without(LOIHI, feature), input_encoding="graded8")
    assert str(error.value) == WAYS_OUT[feature]


def test_auto_duplicates_where_that_avoids_what_is_only_assumed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = integer(residual())
    program = lower(made, LOIHI, CompileOptions())
    assert all(d.ring == 1 for d in program.dendrites) and "stream_accumulator" not in features(program)
    [note] = program.meta["notes"]
    assert note == (
        "residual streams are duplicated: so the network needs only what loihi2 is documented to do, at "
        "1.33 times the synaptic work of shared accumulators (--residual stream)"
    )
    monkeypatch.setattr(importlib.import_module("nmc_compiler.lowering.lower"), "DUPLICATION_PRICE", 1.2)
    assert "stream_accumulator" in features(lower(made, LOIHI, CompileOptions()))


def test_auto_shares_where_duplication_avoids_nothing() -> None:
    net = Net(2)
    attended = net.lif(net.attn(*three(net)), "attended", theta=0.3)
    x = net.conv(attended, 3)
    graph = net.readout(net.lif(net.sum(x, net.conv(net.lif(x, "s1"), 3)), "s2"))
    program = lower(integer(graph), LOIHI, CompileOptions())
    assert {"dynamic_synapse", "stream_accumulator"} <= set(features(program)) and "notes" not in program.meta


def test_auto_takes_the_way_that_the_target_can_go() -> None:
    made = integer(residual())
    lacking = without(LOIHI, "stream_accumulator")
    assert "stream_accumulator" not in features(lower(made, lacking, CompileOptions()))


# --- refusals -----------------------------------------------------------------------------------------------


def test_a_float_graph_is_refused() -> None:
    with pytest.raises(LoweringError) as error:
        lower(residual(), LOIHI, CompileOptions())
    assert str(error.value) == "graph 'net' is not an integer graph; run the passes first"


def lagged(graph: Graph, node_id: str) -> Graph:
    nodes = [replace(n, inputs=(Use(n.operands[0], 1), *n.inputs[1:])) if n.id == node_id else n for n in graph]
    return replace(graph, nodes=tuple(nodes))


def test_a_recurrent_edge_is_a_delay() -> None:
    for graph in (integer(lagged(residual(), "conv2d3")), lagged(integer(residual()), "conv2d3")):
        program = lower(graph, LOIHI, CompileOptions())
        late = [c for c in program.convs if c.lag]
        assert late and {c.name for c in late} == {"%conv2d3"}
        for conv in late:
            src = program.populations[conv.src]
            levels = [p.level for p in program.populations if p.dendrite == conv.dst]
            assert (conv.lag, src.level + conv.delay - conv.lag * program.ticks_per_step) == (1, min(levels))


def test_an_earlier_current_is_refused() -> None:
    graph = integer(residual())
    sums = next(n for n in graph if n.op == "add")
    with pytest.raises(LoweringError, match="reads values of an earlier timestep; only projections of events can$"):
        lower(lagged(graph, sums.id), LOIHI, CompileOptions())


def test_a_projection_of_a_current_is_refused() -> None:
    net = Net(1)
    graph = net.readout(net.lif(net.conv(net.conv(net.input(1, 3, 3), 2, weight=1), 2, weight=1), "s"))
    bare = replace(graph, numbers="int")
    with pytest.raises(LoweringError) as error:
        lower(bare, LOIHI, CompileOptions())
    assert str(error.value) == "conv2d '%conv2d1' feeds a projection but emits no events"


def test_an_op_that_no_dendrite_can_hold_is_refused() -> None:
    net = Net(1)
    s = net.lif(net.conv(net.input(1, 3, 3), 2), "s")
    graph = integer(net.readout(s))
    nodes = {n.id: n for n in graph}
    odd = replace(nodes["conv2d3"], op="scale")
    bare = replace(graph, nodes=tuple(odd if n.id == "conv2d3" else n for n in graph))
    with pytest.raises(LoweringError) as error:
        lower(bare, LOIHI, CompileOptions())
    assert str(error.value) == "scale '%conv2d3' cannot stand between projections and a neuron"
