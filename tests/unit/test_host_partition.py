"""The cut between cores and host: what goes where, what crosses, what is refused, and that nothing changes by it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import nmc
from nmc_compiler.errors import ArtefactError, FrontendError, LoweringError, UsageError, VerifyError
from nmc_compiler.graph import GraphBuilder, Kind, Use, ValueType
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.graph.text import to_text
from nmc_compiler.graph.verify import findings
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.host_partition import part
from nmc_compiler.passes.pipeline import compile_graph
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.target import load_target
from tests.hosted import agrees, compiled_graph, norm_lif, weights

RNG = np.random.default_rng(1)
BEGUN = RNG.bit_generator.state
LOIHI2 = load_target("loihi2")


@pytest.fixture(autouse=True)
def the_same_numbers_for_every_test() -> None:
    RNG.bit_generator.state = BEGUN


def reals(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape)


def parted(graph, target="loihi2"):
    return part(graph, load_target(target), ("host",), ConversionReport())


# ---- where things go ----


def test_the_chip_gets_the_neuron_and_the_layer_that_reads_spikes() -> None:
    text = """graph normlif T=6 float input_time=true {
  %layer_norm1.send = input() shape=(8,1,1) bits=16 signed=true : graded[8,1,1]:s16 "norm.codes"
  %layer_norm1.sent = conv2d(%layer_norm1.send) weight=@norm.codes.unit groups=8 : current[8,1,1] "norm.codes.in"
  %neuron2 = neuron(%layer_norm1.sent) beta=0.5 theta=1.0 reset=hard compare=ge : spike[8,1,1] "lif"
  %conv2d3 = conv2d(%neuron2) weight=@w : current[8,1,1] "fc"
  %conv2d3.sum = integrator(%conv2d3) beta=0.0 : real[8,1,1] "fc.sum"
  %conv2d3.read.out = output(%conv2d3.sum) : real[8,1,1] "host.fc.sum"
}
"""
    assert to_text(parted(norm_lif()).chip) == text


def test_the_whole_computes_what_it_did_but_for_codes_of_a_256th_of_a_threshold() -> None:
    graph, x = norm_lif(), reals(20, 6, 8, 1, 1)
    before, after = (interpret(g, x, record="all") for g in (graph, parted(graph).whole))
    assert np.array_equal(before.codes["lif"], after.codes["lif"]) and before.codes["lif"].sum() > 100
    assert np.array_equal(before.outputs["y"], after.outputs["y"])


def test_inputs_of_the_host_live_behind_what_it_reads() -> None:
    b = GraphBuilder("two", timesteps=3, input_time=True)
    at = b.add("input", name="x", shape=(4, 1, 1))
    for i in range(2):
        code = b.add("codes", at, unit=0.25, bits=5, name=f"code{i}")
        at = b.add("conv2d", code, weight=b.tensor(f"w{i}", weights(RNG, 4, 4)), name=f"fc{i}")
        at = b.add("unary", at, function="silu")
    b.add("output", at, name="y")
    compiled = compiled_graph(b.build())
    levels = {p.name: p.level for p in compiled.program.populations}
    assert levels == {"code0": 0, "fc0.sum": 1, "code1": 2, "fc1.sum": 3}
    host = compiled.program.meta["host"]
    assert host["sends"][1] == {"population": "code1", "values": 4, "bits": 5, "level": 2}
    assert host["reads"][0] == {"population": "fc0.sum", "what": "potential", "values": 4, "bits": 24, "level": 1}
    assert [s["op"] for s in host["steps"]] == ["codes", "unary", "codes", "unary"]
    agrees(compiled, {"x": reals(3, 3, 4, 1, 1)})


def test_findings_say_what_is_the_hosts() -> None:
    places = {f.name or f.op: (f.place, f.reason) for f in findings(norm_lif())}
    assert places["norm"] == (
        "host",
        "real numbers, which no core computes: norm over the channels of each position",
    )
    assert places["sum"] == ("host", "real numbers, which no core computes: add")
    assert places["lif"][0] == "core"


def test_the_conversion_report_tells_node_by_node() -> None:
    report = ConversionReport()
    part(norm_lif(), LOIHI2, ("host",), report)
    crossings = [(e["layer"], e["crosses"], e["reader"]) for e in report.entries if "crosses" in e]
    assert crossings == [("norm.codes", "send", "lif"), ("fc.sum", "read", "sum")]
    assert report.entries[0]["how"] == "codes of 0.00390625, up to 127.996"
    assert [e["layer"] for e in report.entries if e.get("place") == "host"] == ["norm", "norm.codes", "sum"]


# ---- what is refused ----


def test_the_host_has_to_be_allowed() -> None:
    text = (
        "^'norm' and others of 'normlif' are of real numbers, which no core computes: layer_norm, add; --allow host "
        r"leaves them to the host, at every timestep, and states its share \(docs/host.md\)$"
    )
    with pytest.raises(LoweringError, match=text):
        part(norm_lif(), LOIHI2, (), ConversionReport())
    with pytest.raises(LoweringError, match=text):
        compile_graph(norm_lif(), LOIHI2, CompileOptions(allow=("host",)), ConversionReport())


def test_nothing_for_the_cores() -> None:
    b = GraphBuilder("all host", timesteps=2, input_time=True)
    x = b.add("input", name="x", shape=(2, 1, 1))
    b.add("output", b.add("unary", x, function="exp"), name="y")
    with pytest.raises(
        LoweringError, match="^'all host' is the host's altogether: no neuron or layer of it reads spikes$"
    ):
        parted(b.build())


def test_a_layer_of_the_chip_that_reads_real_values() -> None:
    b = GraphBuilder("net", timesteps=2, input_time=True)
    x = b.add("unary", b.add("input", name="x", shape=(2, 1, 1)), function="exp", name="e")
    fc = b.add("conv2d", x, name="fc", weight=b.tensor("w", weights(RNG, 2, 2)))
    b.add("output", b.add("neuron", fc, name="lif", beta=0.5, theta=1.0, reset="hard", compare="ge"), name="y")
    text = (
        r"^conv2d 'fc' reads real values of the host \('e'\), whose range nobody knows: code them \(`codes`\), or "
        r"leave it to the host as well \(`real_linear`\)$"
    )
    with pytest.raises(LoweringError, match=text):
        parted(b.build())


def test_a_target_of_plain_spikes() -> None:
    with pytest.raises(
        LoweringError, match="^'norm' of the host goes to neurons as codes, and loihi1 has plain spikes only$"
    ):
        parted(norm_lif(), "loihi1")


def test_a_loop_through_the_host() -> None:
    b = GraphBuilder("loop", timesteps=4, input_time=True)
    x = b.add("input", name="x", shape=(2, 1, 1))
    lif = b.declare("lif", ValueType(Kind.SPIKE, (2, 1, 1)))
    back = b.add("unary", Use(lif, 1), function="exp")
    total = b.add("binary", x, back, function="add")
    b.add("neuron", total, id="lif", name="lif", beta=0.5, theta=1.0, reset="hard", compare="ge")
    b.add("output", lif, name="y")
    text = (
        r"^the host sends 'binary2.codes' at level 0, but what it is made of is read at 0: a loop through the host, whi"
    )
    with pytest.raises(LoweringError, match=text):
        compiled_graph(b.build())


# ---- bit for bit ----


def test_every_engine_with_the_host_in_its_loop() -> None:
    truth = agrees(compiled_graph(norm_lif()), {"x": reals(5, 6, 8, 1, 1)})
    assert truth.codes["lif"].sum() > 10


def test_an_image_that_is_shown_at_every_timestep() -> None:
    agrees(compiled_graph(norm_lif(input_time=False)), {"x": reals(3, 8, 1, 1)})


def test_a_stream() -> None:
    compiled = compiled_graph(norm_lif(timesteps=0))
    agrees(compiled, {"x": reals(2, 9, 8, 1, 1)}, ("events", "ticks"))


def test_samples_that_overlap_on_the_chip() -> None:
    agrees(compiled_graph(norm_lif(), pipelined=True), {"x": reals(5, 6, 8, 1, 1)})


def test_populations_that_were_split_and_values_that_are_late() -> None:
    b = GraphBuilder("split", timesteps=5, input_time=True)
    x = b.add("input", name="x", shape=(6, 1, 1), bits=0)
    fc = b.add("conv2d", x, weight=b.tensor("w", weights(RNG, 6, 6, 3.0)), name="fc")
    beta = b.tensor("beta", np.array([0.5, 0.75, 0.5, 0.25, 0.75, 0.5]))
    lif = b.add("neuron", fc, name="lif", beta=beta, theta=1.0, reset="hard", compare="gt")
    mean = b.add("reduce", lif, function="mean")
    late = b.add(
        "binary", b.add("real_affine", lif, factor=2.0), Use(b.add("unary", mean, function="exp"), 2), function="mul"
    )
    b.add("output", late, name="late")
    b.add("output", lif, name="spikes")
    truth = agrees(compiled_graph(b.build()), {"x": RNG.integers(0, 2, (4, 5, 6, 1, 1))})
    assert truth.outputs["late"].any()


def test_codes_of_the_trained_network_are_read_as_its_values() -> None:
    b = GraphBuilder("levels", timesteps=3, input_time=True)
    x = b.add("input", name="x", shape=(4, 1, 1), bits=0)
    fc = b.add("conv2d", x, weight=b.tensor("w", weights(RNG, 4, 4, 4.0)), name="fc")
    code = b.add(
        "neuron",
        fc,
        name="code",
        beta=0.0,
        theta=1.0,
        reset="soft",
        compare="ge",
        levels=4,
        norm=4.0,
        rounding="half_even",
    )
    b.add("output", b.add("unary", code, function="exp", name="e"), name="y")
    compiled = compiled_graph(b.build())
    truth = agrees(compiled, {"x": RNG.integers(0, 2, (4, 3, 4, 1, 1))})
    assert set(np.unique(truth.outputs["y"])) <= set(np.exp(np.arange(5) / 4)) and truth.codes["code"].max() > 1


def test_attention_of_spikes_beside_a_norm_of_the_host() -> None:
    """What the event engine does not run: the layers engine, its inputs settled."""
    b = GraphBuilder("attention", timesteps=3, input_time=True)
    x = b.add("input", name="x", shape=(4, 3, 1))
    y = b.add("host_spikes", b.add("layer_norm", x, eps=1e-5, name="norm"), theta=0.0, name="above")
    heads = []
    for name in "qkv":
        conv = b.add("conv2d", y, weight=b.tensor(name, weights(RNG, 4, 4, 2.0)), name=f"{name}_conv")
        heads.append(b.add("neuron", conv, name=name, beta=0.5, theta=0.5, reset="hard", compare="gt"))
    z = b.add("attn", *heads, heads=2, scale=0.5)
    spikes = b.add("neuron", z, name="attended", beta=0.5, theta=0.5, reset="hard", compare="gt")
    b.add("output", b.add("binary", x, spikes, function="add"), name="y")
    compiled = compiled_graph(b.build())
    truth = agrees(compiled, {"x": reals(3, 3, 4, 3, 1)}, ("layers", "ticks"))
    assert truth.codes["attended"].any()
    assert nmc.emulate(compiled, reals(1, 3, 4, 3, 1)).result.engine == "layers" and nmc.verify(compiled).ok


def test_real_arithmetic_shows_what_the_integers_cost() -> None:
    compiled, x = compiled_graph(norm_lif()), reals(4, 6, 8, 1, 1)
    exact, real = (nmc.emulate(compiled, x, arithmetic=a).outputs["y"] for a in ("exact", "float"))
    assert exact.any() and np.abs(exact - real).max() < 0.05


def test_what_is_beyond_the_codes_is_kept_at_their_end_and_counted() -> None:
    assert agrees(compiled_graph(norm_lif()), {"x": reals(2, 6, 8, 1, 1)}).overflows == {}
    b = GraphBuilder("narrow", timesteps=2, input_time=True)
    at = b.add("codes", b.add("input", name="x", shape=(2, 1, 1)), unit=1.0, bits=2, name="c")
    b.add(
        "output",
        b.add("unary", b.add("conv2d", at, weight=b.tensor("w", weights(RNG, 2, 2))), function="relu"),
        name="y",
    )
    compiled = compiled_graph(b.build())
    x = np.full((1, 2, 2, 1, 1), 5.0)
    assert agrees(compiled, {"x": x}).overflows == {"c: code": 4}
    assert nmc.emulate(compiled, {"x": x}).report["host"]["saturated"] == {"c": 4}
    with pytest.raises(VerifyError, match="^'c' of the host: 2 values do not fit the bits of their codes"):
        nmc.emulate(compiled, {"x": x}, strict=True)


def test_a_readout_behind_the_host_tells_classes() -> None:
    b = GraphBuilder("classes", timesteps=4, input_time=True)
    x = b.add("input", name="x", shape=(6, 1, 1), bits=0)
    fc = b.add("conv2d", x, weight=b.tensor("w", weights(RNG, 6, 6, 3.0)), name="fc")
    lif = b.add("neuron", fc, name="lif", beta=0.5, theta=1.0, reset="hard", compare="gt")
    norm = b.add("rms_norm", b.add("real_affine", lif, offset=0.5), eps=1e-6, name="norm")
    spikes = b.add("host_spikes", norm, theta=1.0, name="again")
    b.add("output", norm, name="norm")
    b.add("readout", b.add("conv2d", spikes, weight=b.tensor("h", weights(RNG, 3, 6)), name="head"), name="head")
    compiled, x = compiled_graph(b.build()), RNG.integers(0, 2, (5, 4, 6, 1, 1))
    truth = agrees(compiled, {"x": x})
    run = nmc.emulate(compiled, x, labels=truth.logits.argmax(axis=1))
    assert run.accuracy == 1.0 and np.array_equal(run.logits, truth.logits)


@pytest.mark.parametrize("name", ["", "x"])
@pytest.mark.parametrize("bits", [None, 4])
def test_an_input_that_cores_and_host_read(name: str, bits: int | None) -> None:
    b = GraphBuilder("both", timesteps=3, input_time=bits is not None)
    x = b.add("input", name=name, shape=(4, 1, 1), bits=bits)
    fc = b.add("conv2d", x, weight=b.tensor("w", weights(RNG, 4, 4, 4.0)), name="fc")
    lif = b.add("neuron", fc, name="lif", beta=0.5, theta=0.5, reset="hard", compare="gt")
    spikes = b.add("host_spikes", b.add("layer_norm", x, eps=1e-5, name="norm"), theta=0.25, name="above")
    heads = [
        b.add("conv2d", s, weight=b.tensor(f"h{i}", weights(RNG, 3, 4)), name=f"h{i}")
        for i, s in enumerate((lif, spikes))
    ]
    b.add("readout", b.add("add", *heads), name="head")
    x = RNG.random((5, 4, 1, 1)) if bits is None else RNG.integers(0, 16, (5, 3, 4, 1, 1))
    compiled = compiled_graph(b.build())
    truth = agrees(compiled, {compiled.int_graph.sources[0].name or compiled.int_graph.sources[0].id: x})
    trained = interpret(compiled.float_graph, x).logits
    assert np.abs(truth.logits - trained).max() < 0.05 * np.abs(trained).max() and truth.codes["lif"].any()


# ---- the report ----


def test_the_share_of_the_host_is_stated_and_unpriced_work_named() -> None:
    x = reals(3, 6, 8, 1, 1)
    run = nmc.emulate(compiled_graph(norm_lif()), {"x": x}, record=["norm.codes"])
    share = run.report["host"]
    assert share["work"] == {"macs": 18 * 16, "ops": 18 * (16 + 16 + 8), "exps": 0, "divisions": 18 * (3 + 8)}
    assert share["messages"] == {"read": 18 * 8, "sent": len(run.events["norm.codes"])}
    assert share["values_per_timestep"] == {"read": 8, "sent": 8}
    assert share["macs_share"] == 288 / (288 + run.report["synops_effective"])
    assert run.report["assumptions"][0].startswith(
        "the host computes 3 ops of real numbers in every timestep: 288 MACs"
    )
    for energy in run.report["energy"]:
        if energy["kind"] == "mapped":
            assert not energy["complete"] and {"host_mac", "host_message", "host_op"} <= set(energy["missing"])
    assert run.report["host_macs"] == 288
    assert next(e for e in run.report["energy"] if e["kind"] == "formula")["complete"]


def test_a_network_without_a_part_on_the_host_says_nothing_of_it(tmp_path) -> None:
    compiled = nmc.compile("examples/digits/model.pt", allow=("host",), out=tmp_path / "build")
    assert "host" not in compiled.program.meta
    plain = nmc.compile("examples/digits/model.pt")
    assert plain.program.meta["graphs"] == compiled.program.meta["graphs"]


# ---- files and wrong input ----


def test_the_artefact_holds_both_parts(tmp_path) -> None:
    compiled, x = compiled_graph(norm_lif()), reals(2, 6, 8, 1, 1)
    compiled.save(tmp_path / "build")
    np.savez(tmp_path / "in.npz", images=x)
    run = nmc.emulate(tmp_path / "build", tmp_path / "in.npz", out=tmp_path / "run")
    with np.load(tmp_path / "run" / "outputs.npz") as file:
        assert np.array_equal(file["y"], run.outputs["y"])
    assert json.loads((tmp_path / "run" / "report.json").read_text())["host"]["timesteps"] == 12
    again = compiled_graph(norm_lif())
    assert again.digest == compiled.digest == nmc.load(tmp_path / "build").digest
    assert nmc.verify(tmp_path / "build").ok


def test_wrong_input() -> None:
    compiled = compiled_graph(norm_lif())
    x = reals(2, 6, 8, 1, 1)
    with pytest.raises(
        ArtefactError, match="is the cores' part of a network; the host's is in the folder that nmc compile"
    ):
        nmc.emulate(compiled.program, x)
    with pytest.raises(UsageError, match="has the inputs x; given: z"):
        nmc.emulate(compiled, {"z": x})
    with pytest.raises(FrontendError, match=r"input 'x' is float64 \[2, 5, 8, 1, 1\]; give numbers \[N, 6, 8, 1, 1\]"):
        nmc.emulate(compiled, x[:, :5])
    with pytest.raises(FrontendError, match="input 'x' has 1 values that are not finite"):
        nmc.emulate(compiled, np.where(np.arange(x.size).reshape(x.shape) == 3, np.nan, x))
    with pytest.raises(UsageError, match="a run with the host in its loop keeps no checkpoint"):
        nmc.emulate(compiled, x, checkpoint="/tmp/none")
    with pytest.raises(UsageError, match="--steps 3: a network with a part on the host runs as long as its input"):
        nmc.emulate(compiled, x, steps=3)


def test_a_program_that_tells_otherwise_of_its_host() -> None:
    compiled = compiled_graph(norm_lif())
    for host in ({"reads": [], "sends": [], "steps": []}, 3, {}):
        other = replace(compiled, program=replace(compiled.program, meta=compiled.program.meta | {"host": host}))
        with pytest.raises(ArtefactError, match="meta/host is not what its integer graph leaves to the host"):
            nmc.emulate(other, reals(1, 6, 8, 1, 1))


def test_products_have_bounds() -> None:
    b = GraphBuilder("large", timesteps=1)
    x, y = b.add("input", shape=(1 << 15, 1, 1)), b.add("input", shape=(1, 1 << 15, 1))
    with pytest.raises(VerifyError, match="at most 268435456 elements"):
        b.add("binary", x, y, function="add")


def test_what_would_take_the_cores_part_for_the_whole(tmp_path) -> None:
    compiled = compiled_graph(norm_lif())
    compiled.save(tmp_path / "build")
    text = "Program 'normlif' is the cores' part of a network, of which the host computes 3 ops in every timestep"
    for format in ("lava", "netx", "nir"):
        with pytest.raises(UsageError, match=f"^export: {text}"):
            nmc.export(tmp_path / "build", tmp_path / "out", format=format)
    with pytest.raises(UsageError, match=f"^re-costing: {text}"):
        nmc.recost(compiled, tmp_path / "events.npz")
    with pytest.raises(UsageError, match="the engine 'neurocore' has no host in its loop"):
        nmc.emulate(compiled, reals(1, 6, 8, 1, 1), engine="neurocore")
