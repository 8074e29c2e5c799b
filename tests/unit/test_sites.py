"""Programs on active sites: files, rules, refusals, memory on a core, and what runs where."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from site_nets import EXTENT, Net, classifier, cloud, samples

from nmc.ladder.explain import Reader, accumulate
from nmc_compiler.errors import ArtefactError, LoweringError, NmcError, UsageError, VerifyError
from nmc_compiler.export.lava.plan import make_plan
from nmc_compiler.graph import GraphBuilder
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.graph.text import from_text, to_text
from nmc_compiler.lowering.lower import lower
from nmc_compiler.mapping import find_problems, map_program
from nmc_compiler.mapping.resources import core_usage
from nmc_compiler.neurocore.build import build_image
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.fix_cloud import fix_cloud
from nmc_compiler.passes.pipeline import compile_graph
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.program import load_program, program_digest, save_program, validate_program
from nmc_compiler.program.codec import decode, encode
from nmc_compiler.program.model import Program
from nmc_compiler.program.network import Network
from nmc_compiler.target import load_target
from nmc_emulator import Emulator, run
from nmc_emulator.recount import Chunk, Recount, host_activity
from nmc_emulator.suits import why_not_events
from nmc_emulator.trace import Trace, events_of

LOIHI2 = load_target("loihi2")
IMAGES = samples(1, (14, 0, 20), 20)


def compiled(graph):
    return compile_graph(graph, LOIHI2, CompileOptions(input_range=(-4.0, 4.0)), ConversionReport())


def small(fixed: bool = False) -> Program:
    graph = Net(2, 20).subm(3).spike().down(4).spike().read()
    graph = fix_cloud(graph, IMAGES[0, :3, :14, 0].T.astype(int)) if fixed else graph
    return replace(lower(compiled(graph), LOIHI2, CompileOptions()), meta={})


# --- files and rules ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fixed", [False, True])
def test_round_trip(tmp_path, fixed):
    program = small(fixed)
    digest = save_program(program, tmp_path)
    again = load_program(tmp_path)
    assert program_digest(again) == digest and again.convs[0].sites == program.convs[0].sites
    images = IMAGES[:1, 3:, :14] if fixed else IMAGES
    assert np.array_equal(run(again, images).logits, run(program, images).logits)
    assert ("table" in json.loads((tmp_path / "program.json").read_text())["sites"][0]) == fixed


def test_programs_without_sites_have_no_such_fields(tmp_path):
    net = Network("plain")
    net.conv("c", net.input("a", (1, 4, 4)), net.lif("b", (1, 4, 4), vth=1), np.ones((3, 3, 1, 1), int), pad=1)
    save_program(net.program(), tmp_path)
    text = (tmp_path / "program.json").read_text()
    assert "sites" not in text and "offset" not in text


def test_the_text_of_a_graph():
    graph = classifier(0, 20)
    assert to_text(from_text(to_text(graph), graph.tensors)) == to_text(graph)


PROGRAMS = {fixed: small(fixed) for fixed in (False, True)}


def changed(program: Program, part: str, index: int, **fields) -> Program:
    items = list(getattr(program, part))
    items[index] = replace(items[index], **fields)
    return replace(program, **{part: tuple(items)})


@pytest.mark.parametrize(
    ("fixed", "part", "index", "fields", "message"),
    [
        (False, "sites", 1, {"slots": 0}, "sites/1/slots: 0 is outside 1..1048576"),
        (False, "sites", 0, {"slots": 21}, "sites/0/slots: (21, 1), expected (20, 1): positions of the input"),
        (False, "sites", 1, {"extent": (4, 3, 2)}, "sites/1/extent: (4, 3, 2), expected (3, 3, 2): what its window"),
        (False, "sites", 1, {"parent": 1}, "sites/1/parent: 1 is outside -1..0"),
        (False, "sites", 1, {"kernel": (2000, 1, 1)}, "sites/1/kernel: 2000 is outside 1..1024"),
        (False, "sites", 0, {"slots": 2**20}, "sites/0/slots: (1048576, 1), expected (20, 1): positions of the input"),
        (False, "sites", 1, {"kernel": (100, 100, 1)}, "sites/1/kernel: 10000 is outside 1..1024"),
        (True, "sites", 1, {"table": None}, "sites/1/table: missing, but other sites have one: all are fixed, or none"),
        (False, "populations", 0, {"sites": 2}, "populations/0/sites: sites 2, but there are 2"),
        (False, "populations", 0, {"sites": 1}, "populations/0/shape: (20, 1), expected (40, 1): slots of sites/1"),
        (False, "populations", 2, {"offset": None}, "populations/2/offset: missing, but a mean over sites needs it"),
        (False, "populations", 2, {"sites": None}, "populations/2/offset: given, but this is no mean over sites"),
        (False, "convs", 0, {"stride": (2, 2)}, "convs/0/sites: False, expected True: the window is that of the sites"),
    ],
)
def test_broken_rules(fixed, part, index, fields, message):
    with pytest.raises(VerifyError) as error:
        validate_program(changed(small(fixed), part, index, **fields))
    assert str(error.value).startswith(f"Program field {message}")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("source", 5, "convs/0/sites/source: sites 5, but there are 2"),
        ("kernel", (2, 2, 1), "convs/0/sites/kernel: (8, 1), expected (4, 1): taps in rows of weights"),
        ("target", 0, "convs/0/sites/target: (40, 1), expected (20, 1): slots of 's0'"),
    ],
)
def test_broken_windows(field, value, message):
    program = small()
    with pytest.raises(VerifyError) as error:
        validate_program(changed(program, "convs", 0, sites=replace(program.convs[0].sites, **{field: value})))
    assert str(error.value) == f"Program field {message}"


def test_tables_of_a_fixed_cloud_are_checked():
    program = small(True)
    for table, message in (
        (program.sites[0].table + 5, r"sites/0/table: sites from \[.*\] to \[.*\] leave \(7, 6, 5\)"),
        (np.repeat(program.sites[0].table[:7], 2, axis=0), "sites/0/table: a site has two slots"),
        (program.sites[0].table.astype(np.int64), "sites/0/table: dtype int64, expected int32"),
    ):
        with pytest.raises(VerifyError, match=message):
            validate_program(changed(program, "sites", 0, table=table))
    with pytest.raises(VerifyError, match=r"sites/1/table: not the \d+ sites that its window makes of 's0'"):
        validate_program(changed(program, "sites", 1, table=program.sites[1].table[::-1].copy()))


def test_a_field_of_another_type_is_refused(tmp_path):
    program = small()
    save_program(program, tmp_path)
    text = (tmp_path / "program.json").read_text()
    (tmp_path / "program.json").write_text(text.replace('"inverse": false', '"inverse": 0', 1))
    with pytest.raises(ArtefactError):
        load_program(tmp_path)


HOSTILE = st.one_of(
    st.integers(-3, 8), st.sampled_from([2**20, 2**40, 2**62, -(2**62)]), st.none(), st.text(max_size=2), st.booleans(),
    st.lists(st.integers(-1, 4), max_size=4),
)  # fmt: skip


def _paths(tree, path=()):
    """Where the JSON of a Program says something about sites."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        inner = (*path, key)
        yield from [inner] if "sites" in inner else []
        yield from _paths(value, inner)


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.booleans(), st.integers(0, 10**6), HOSTILE)
def test_hostile_numbers_are_refused_or_harmless(fixed, at, value):
    """What passes the rules runs, in both engines alike, whatever it means."""
    program = PROGRAMS[fixed]
    tree, arrays = encode(program)
    places = list(_paths(tree))
    path = places[at % len(places)]
    inner = tree
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    try:
        changed_program = decode(tree, arrays)
        validate_program(changed_program)
        images = IMAGES[:1, 3:, :14] if fixed else IMAGES[:1]
        results = [run(changed_program, images, engine=engine).logits for engine in ("layers", "ticks")]
    except NmcError:
        return
    assert np.array_equal(*results, equal_nan=True)


# --- samples ------------------------------------------------------------------------------------------------


def spoilt(change) -> np.ndarray:
    image = IMAGES[:1].copy()
    change(image[0, :3, :, 0])
    return image


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.__setitem__((0, 3), 0.5), "sample 0: sites of 's0' have coordinates that are no whole numbers"),
        (lambda s: s.__setitem__((slice(None), 3), -1), "sample 0: sites of 's0': empty slots (-1 in all three coordi"),
        (lambda s: s.__setitem__((1, 3), 6), "sample 0: sites of 's0' reach ["),
        (
            lambda s: s.__setitem__((slice(None), 3), s[:, 4]),
            "sample 0: sites of 's0': a site is there twice; give each",
        ),
    ],
)
@pytest.mark.parametrize("engine", ["layers", "ticks"])
def test_samples_that_are_refused(engine, change, message):
    with pytest.raises(UsageError) as error:
        run(small(), spoilt(change), engine=engine)
    assert str(error.value).startswith(message)


def test_the_interpreter_refuses_them_too():
    graph = Net(2, 20).subm(3).spike().read()
    with pytest.raises(VerifyError, match="a site is there twice; give each voxel once"):
        interpret(graph, spoilt(lambda s: s.__setitem__((slice(None), 3), s[:, 4])))
    with pytest.raises(VerifyError, match="whole numbers; give voxels, not points"):
        interpret(graph, spoilt(lambda s: s.__setitem__((0, 3), 0.5)))


def test_too_many_sites_for_the_slots_of_a_stage():
    graph = Net(2, 20).subm(3).spike().down(4, slots=2).spike().read()
    with pytest.raises(VerifyError, match=r"s2: \d+ sites, but 2 slots; compile with more slots"):
        interpret(graph, IMAGES[:1])
    program = lower(compiled(graph), LOIHI2, CompileOptions())
    with pytest.raises(UsageError, match="sample 0: more than the 2 slots of 's2' are needed; compile with more"):
        run(program, IMAGES[:1])


def test_a_sample_without_sites_has_the_bias_for_logits():
    result = run(small(), IMAGES)
    readout = small().populations[-1]
    assert np.array_equal(result.logits[1], readout.offset * readout.readout_scale)


# --- refusals -----------------------------------------------------------------------------------------------


def test_who_cannot_do_sites_says_so():
    program = small()
    with pytest.raises(
        LoweringError, match=r"has active sites \('s0'\), which no Process of Lava has; run it with nmc em"
    ):
        make_plan(program)
    with pytest.raises(
        LoweringError, match=r"\('s0'\), which the neurocore has no table for; map it for another target"
    ):
        build_image(program)
    with pytest.raises(UsageError, match="which the engine 'events' does not run; choose 'layers'"):
        Emulator(program, engine="events")
    bare = replace(program, populations=(), host_currents=(), transfers=(), convs=program.convs[:1])
    assert why_not_events(bare) == "convolutions between sites (first 'conv1', 1 in all)"
    codes = Emulator(program, record="all").run(IMAGES).codes
    events = {i: events_of(codes[p.name].reshape(3, -1), True) for i, p in enumerate(program.populations[:2])}
    with pytest.raises(
        UsageError, match=r"takes its sites from each sample, and a count of recorded events needs them"
    ):
        Recount(program).add(Chunk(0, Trace(events, 3, 3), host_activity(program, IMAGES[:, None])))


@pytest.mark.parametrize("target", ["loihi1", "neurocore"])
def test_targets_without_tables_of_sites(target):
    graph = Net(2, 20, timesteps=2, lif=True).subm(3).spike().read()
    with pytest.raises(LoweringError, match=rf"'s0' needs active sites, which target '{target}' has not"):
        chip = load_target(target)
        integers = compile_graph(graph, chip, CompileOptions(input_range=(-4.0, 4.0)), ConversionReport())
        lower(integers, chip, CompileOptions(residual="duplicate"))


def test_graphs_that_are_refused():
    net = Net(1, 20)
    net.subm(4).subm(4)
    with pytest.raises(LoweringError, match=r"'conv1' reads currents of 1 convolution\(s\) with 27 taps and no neuron"):
        compiled(net.spike().read())
    with pytest.raises(LoweringError, match="features of sites are not encoded as graded8; compile with --input-encod"):
        compile_graph(
            Net(1, 20).subm(3).spike().read(), LOIHI2, CompileOptions(input_encoding="graded8"), ConversionReport()
        )
    b = GraphBuilder("g", 1, "float")
    x = b.add("input", id="x", shape=(5, 8, 1))
    sites, values = b.add("sites", x, extent=EXTENT), b.add("features", x)
    with pytest.raises(
        VerifyError, match=r"weight must be \[out, 2, 27, 1\], the taps of kernel \(3, 3, 3\) in C order"
    ):
        b.add("sparse_conv3d", values, sites, sites, kernel=(3, 3, 3), weight=b.tensor("w", np.zeros((1, 2, 8, 1))))
    with pytest.raises(VerifyError, match=r"down_sites: kernel \(9, 1, 1\) does not fit the extent \(7, 6, 5\)"):
        b.add("down_sites", sites, kernel=(9, 1, 1), extent=EXTENT, slots=4)
    with pytest.raises(VerifyError, match=r"kernel \(1000000, 1, 1\) has 1000000 taps; at most 1024 can be handled"):
        b.add("down_sites", sites, kernel=(1000000, 1, 1), extent=EXTENT, slots=4)
    with pytest.raises(VerifyError, match="extent must be three numbers in 1..1048576"):
        b.add("sites", x, extent=(4, 4, 2**21))


def test_clouds_that_cannot_be_fixed():
    graph = Net(2, 20).subm(3).spike().read()
    with pytest.raises(VerifyError, match=r"fixed cloud: sites from .* leave the extent \(7, 6, 5\)"):
        fix_cloud(graph, np.array([[7, 0, 0]]))
    with pytest.raises(LoweringError, match="has 0 inputs with sites; a cloud is fixed for one"):
        fix_cloud(fix_cloud(graph, np.array([[1, 0, 0]])), np.array([[1, 0, 0]]))


def test_a_recount_is_the_run():
    """Counters from recorded events and the coordinates of each sample."""
    program = small()
    result = Emulator(program, record="all").run(IMAGES)
    events = {i: events_of(result.codes[p.name].reshape(3, -1), True) for i, p in enumerate(program.populations[:2])}
    recount, images = Recount(program), IMAGES[:, None]
    recount.add(Chunk(0, Trace(events, 3, 3), host_activity(program, images), places=images[:, :, :3]))
    counted = recount.finish()
    assert counted.bound == result.counters.bound
    assert all(np.array_equal(counted.tables[t], result.counters.tables[t]) for t in counted.tables)


# --- mapping ------------------------------------------------------------------------------------------------


def test_memory_on_a_core():
    """Weights once, whatever the pairs; then a rulebook of the pairs, or twice the slots of a hash table."""
    own, fixed = small(), small(True)
    for program in (own, fixed):
        mapped, _ = map_program(program, LOIHI2)
        assert not find_problems(mapped, LOIHI2).problems and len(mapped.mapping.cores) == 1
        words, word = (
            core_usage(mapped, mapped.mapping, LOIHI2)["synapse_words"][0],
            LOIHI2.core.synapse_word_bits.value,
        )
        conv = mapped.convs[0]
        row = (
            -(-conv.weight.shape[3] * 8 // LOIHI2.packing.conv_row_pad_bits.value)
            * LOIHI2.packing.conv_row_pad_bits.value
        )
        weights = 8 * 3 * row
        pairs = 14 * (3 + (fixed.sites[1].slots - 1).bit_length())  # each site is in one pair
        table = 2 * 40 * (2 + 2 + 1 + 6) if program is own else pairs  # x, y of 3 places, z of 2, and 40 slots
        others = words * word - weights - table
        assert 0 <= others < 40 * word, (words, weights, table)


def test_what_a_mismatch_would_be_explained_with():
    program = small()
    result = run(program, IMAGES, record="all")
    for n, image in enumerate(IMAGES[::2]):
        reader = Reader(program, {k: c[2 * n] for k, c in result.codes.items()}, image)
        head, last = program.populations[-1], np.array([2 * n])
        for c in range(3):
            assert accumulate(reader, head.dendrite, (c, 0, 0), 0, head.level) << 6 == result.logits_int[last][0, c]


def test_sites_in_any_order_give_the_same_logits():
    """Slots are names: a cloud in another order spikes the same, place by place."""
    program, order = small(), np.random.default_rng(0).permutation(14)
    image = IMAGES[:1].copy()
    image[:, :, :14] = image[:, :, order]
    a, b = run(program, IMAGES[:1], record="all"), run(program, image, record="all")
    name = program.populations[0].name
    assert np.array_equal(a.logits, b.logits)
    assert np.array_equal(a.codes[name][:, :, :, order], b.codes[name][:, :, :, :14])
    assert a.counters.total("synops_mac") == b.counters.total("synops_mac")


def test_clouds_are_different_sites():
    assert len({tuple(s) for s in cloud(3, 50).tolist()}) == 50
