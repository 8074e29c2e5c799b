"""What each primitive of NIR becomes, and what the report says about it."""

from __future__ import annotations

import numpy as np
import pytest
from nir_nets import DT, chain, conv, ends, entries, graph, lif, node, read

from nmc_compiler.graph.interpret import interpret
from nmc_compiler.graph.text import to_text
from nmc_compiler.nir.schema import NODES


def text(root, **options) -> list[str]:
    """Lines of the graph between input and output."""
    lines = [line.strip() for line in to_text(read(root, **options)).splitlines()]
    return [line.replace("~checkpoint", "").replace("~default", "") for line in lines[2:-2]]


def alone(item, shape, out=None) -> dict:
    first, last = ends(shape, out or shape)
    return chain(i=first, n=item, o=last)


@pytest.mark.parametrize(
    ("item", "line"),
    [
        (lif(tau=4e-3), "neuron(%i) beta=0.75 gain=0.25 theta=0.3 compare=gt reset=hard"),
        (
            lif(tau=4e-3, v_reset=-0.5, theta=1.0),
            "neuron(%i) beta=0.75 gain=0.25 theta=1.0 v_reset=-0.5 compare=gt reset=hard",
        ),
        (
            lif(tau=4e-3, v_leak=0.5, theta=1.0),
            "neuron(%i) beta=0.75 gain=0.25 leak=0.125 start_v=0.5 theta=1.0 compare=gt reset=hard",
        ),
        (node("IF", r=500.0, v_threshold=2.0), "neuron(%i) beta=1.0 gain=0.5 theta=2.0 compare=gt reset=hard"),
        (node("I", r=500.0), "integrator(%i) beta=1.0 gain=0.5"),
        (node("LI", tau=2e-3, r=3.0, v_leak=0.0), "integrator(%i) beta=0.5 gain=1.5"),
        (
            node("CubaLIF", tau_mem=2e-3, tau_syn=4e-3, r=4.0, v_leak=0.0, v_threshold=1.0, w_in=2.0),
            "neuron(%i) beta=0.5 gain_v=2.0 alpha=0.75 gain=0.5 theta=1.0 compare=gt reset=hard",
        ),
        (
            node("CubaLI", tau_mem=2e-3, tau_syn=4e-3, r=4.0, v_leak=0.0),
            "integrator(%i) beta=0.5 gain_v=2.0 alpha=0.75 gain=0.25",
        ),
        (node("Threshold", threshold=0.5), "neuron(%i) beta=0.0 theta=0.5 compare=gt reset=none"),
        (node("Scale", scale=3.0), "scale(%i) factor=3.0"),
        (node("Delay", delay=3e-3), "delay(%i) steps=3"),
    ],
    ids=lambda v: v["type"] if isinstance(v, dict) else "",
)  # fmt: skip
def test_elementwise(item, line):
    """Single numbers hold for every element, and stay single numbers."""
    [found] = text(alone(item, (3,)))
    assert found.startswith(f"%n = {line} :") and found.endswith('[3,1,1] "n"')


def test_every_primitive_is_read():
    """The names of NIR 1.0.8."""
    ir = pytest.importorskip("nir.ir", reason="has the list of primitives: pip install 'nmc[nir]'")
    assert set(NODES) | {"NIRGraph"} == set(ir.__all__) - {"NIRNode", "dict2NIRNode", "str2NIRNode", "Identity"}


def test_layers_between_neurons():
    rng = np.random.default_rng(0)
    first, last = ends((2, 6, 6), (3,))
    root = chain(
        i=first,
        c=conv(rng.normal(size=(4, 2, 3, 3)), stride=[2, 2], padding=[1, 1], bias=np.ones(4)),
        s=node("SumPool2d", kernel_size=[2, 2], stride=[1, 1], padding=[0, 0]),
        a=node("AvgPool2d", kernel_size=2, stride=2, padding=0),
        f=node("Flatten", start_dim=0, end_dim=-1),
        w=node("Affine", weight=rng.normal(size=(3, 4)), bias=np.arange(3.0)),
        o=last,
    )
    assert text(root) == [
        "%c = conv2d(%i) weight=@.weight bias=@.bias stride=(2,2) pad=(1,1) : current[4,3,3] \"c\"",
        "%s = sumpool2d(%c) kernel=(2,2) stride=(1,1) : current[4,2,2] \"s\"",
        '%"a:sum" = sumpool2d(%s) kernel=(2,2) stride=(2,2) : current[4,1,1]',
        "%a = scale(%\"a:sum\") factor=0.25 : current[4,1,1] \"a\"",
        "%f = reshape(%a) shape=(4,1,1) : current[4,1,1] \"f\"",
        "%w = conv2d(%f) weight=@.weight bias=@.bias : current[3,1,1] \"w\"",
    ]  # fmt: skip


def test_one_dimension_is_a_row():
    root = alone(conv(np.ones((2, 3, 3)), padding=[1], stride=[2]), (3, 8), (2, 4))
    assert text(root) == ['%n = conv2d(%i) weight=@.weight stride=(1,2) pad=(0,1) : current[2,1,4] "n"']


@pytest.mark.parametrize("kernel", [(1, 2), (3, 2), (4, 5), (2, 2)])
def test_padding_same_is_that_of_pytorch(kernel):
    """An even kernel has one zero more behind."""
    torch = pytest.importorskip("torch", reason="second opinion: pip install 'nmc[torch]'")
    rng = np.random.default_rng(1)
    weight, x = rng.normal(size=(2, 3, *kernel)), rng.integers(0, 2, (1, 1, 3, 5, 6)).astype(float)
    found = interpret(read(alone(conv(weight, padding="same"), (3, 5, 6), (2, 5, 6))), x).outputs["o"][0]
    want = torch.nn.functional.conv2d(torch.tensor(x[0]), torch.tensor(weight), padding="same").numpy()
    assert np.allclose(found, want)


def test_a_bias_of_zeros_is_none():
    item = node("Affine", weight=np.ones((2, 2)), bias=np.zeros(2))
    assert "bias" not in text(alone(item, (2,)))[0]


# -- shapes ------------------------------------------------------------------------------------


def test_parameters_per_channel_and_per_element():
    item = lif((2, 1, 1)) | {"tau": np.arange(2, 14).reshape(2, 2, 3) * 1e-3, "r": np.full((2, 1, 1), 1.0)}
    found = read(alone(item | {"v_threshold": np.array([0.5, 0.7]).reshape(2, 1, 1)}, (2, 2, 3)))
    assert found.tensors["n.theta"].tolist() == [0.5, 0.7] and found.tensors["n.beta"].shape == (2, 2, 3)


def test_a_convolution_may_go_straight_into_a_matrix():
    """Frameworks flatten in between without saying so; the report does."""
    root = chain(i=ends((2, 2, 2), ())[0], w=node("Linear", weight=np.ones((3, 8))), n=lif(), o=ends((), (3,))[1])
    found, report, _ = entries(root)
    assert found.node("i:w").attr("shape") == (8, 1, 1)
    assert report["w"]["notes"] == ["[2, 2, 2] of 'i' is read as [8], first axis slowest"]


@pytest.mark.parametrize("said", [(1, 4), (1, 1, 4), (7, 4), (1, 7, 1, 4)])
def test_axes_that_exporters_leave_in_are_taken_off_and_reported(said):
    root = chain(i=ends(said, ())[0], w=node("Linear", weight=np.ones((3, 4))), o=ends((), (1, 3))[1])
    found, report, _ = entries(root)
    assert found.node("i").type.shape == (4, 1, 1)
    assert report["i"]["notes"] == [f"shape {list(said)} in the file, read as [4], which its reader wants"]
    assert report["o"]["notes"] == ["shape [1, 3] in the file, [3] is what arrives"]


def test_ends_are_added_as_nir_does():
    found, _, notes = entries(chain(w=node("Linear", weight=np.ones((3, 4))), n=lif((3,))))
    assert [n.name for n in found] == ["input_w", "w", "n", "output_n"]
    assert "node 'n' (LIF) has no Output; 'output_n' was added, as nir does" in notes


# -- loops and graphs within graphs ------------------------------------------------------------


def test_a_loop_is_broken_behind_its_neuron():
    first, last = ends((2,), (2,))
    matrix = node("Linear", weight=np.eye(2))
    root = graph({"i": first, "n": lif((2,)), "w": matrix, "o": last}, ("i", "n"), ("n", "w"), ("w", "n"), ("n", "o"))
    found, report, _ = entries(root)
    assert [(n.id, u.node) for n in found for u in n.inputs if u.lag] == [("w", "n")]
    assert report["w"]["late"] == "reads n one timestep late: a loop"


def test_a_delay_of_a_timestep_breaks_a_loop_and_counts():
    """Three timesteps round: the edge into the Delay takes one, the Delay two."""
    first, last = ends((2,), (2,))
    nodes = {"i": first, "n": lif((2,)), "d": node("Delay", delay=np.full(2, 3 * DT)), "o": last}
    found = read(graph(nodes, ("i", "n"), ("n", "d"), ("d", "n"), ("n", "o")))
    assert [(n.id, u.node) for n in found for u in n.inputs if u.lag] == [("d", "n")]
    assert found.node("d").attr("steps") == 2


def test_two_neurons_in_a_ring():
    """What goes on acts at once, what comes back a timestep later."""
    first, last = ends((2,), (2,))
    nodes = {"i": first, "b": lif((2,)), "a": lif((2,)), "o": last}
    found = read(graph(nodes, ("i", "b"), ("b", "a"), ("a", "b"), ("a", "o")))
    assert [(n.id, u.node) for n in found for u in n.inputs if u.lag] == [("a:b:in", "a")]


def test_nested_names_are_joined():
    inner = chain(input=ends((2,), ())[0], lif=lif((2,)), output=ends((), (2,))[1])
    outer = chain(input=ends((2,), ())[0], deep=inner, output=ends((), (2,))[1])
    found = read(chain(i=ends((2,), ())[0], sub=outer, o=ends((), (2,))[1]))
    assert [n.name for n in found] == ["i", "sub.deep.lif", "o"]


# -- the report --------------------------------------------------------------------------------


def test_what_is_not_as_in_the_file_is_called_approximate():
    root = chain(i=ends((2,), ())[0], d=node("Delay", delay=[1.2e-3, 0.0]), n=lif(v_reset=0.1), o=ends((), (2,))[1])
    _, report, _ = entries(root, reset="subtract")
    assert {name: e["rating"] for name, e in report.items()} == {
        "i": "faithful", "d": "approximate", "n": "approximate", "o": "faithful",
    }  # fmt: skip
    assert report["d"]["notes"] == ["delays rounded to whole timesteps: up to 0.0002 s off"]
    assert report["n"]["notes"] == [
        "dt is 0.2 of tau: Euler's step and NIR's equation differ noticeably",
        "the threshold is subtracted; v_reset of the file, which is not 0, is not used",
    ]


def test_the_report_says_reset_and_missing_values():
    _, report, notes = entries(alone({k: v for k, v in lif((2,)).items() if k != "v_reset"}, (2,)))
    assert report["n"]["reset"] == "value" and report["n"]["v_reset"] == "not in the file: 0, as NIR says"
    assert notes == (
        "NIR graph at dt = 0.001 s, a stream",
        "rule euler: NIR as written, forward Euler; also Lava in floating point (the default; --nir-rule names others)",
        "neurons fire above the threshold; reset: value",
        "inputs carry spikes",
    )


@pytest.mark.parametrize(("said", "type_"), [("spikes", "spike"), ("real", "real"), ("u8", "graded"), ("s4", "graded")])
def test_what_the_inputs_carry(said, type_):
    found = read(alone(lif((2,)), (2,)), inputs=said)
    assert found.sources[0].type.kind == type_


def test_evidence_tells_what_the_user_chose():
    plain, chosen = read(alone(lif((2,)), (2,))), read(alone(lif((2,)), (2,)), rule="norse", inputs="u4")
    assert (plain.node("n").attrs["reset"].evidence, plain.node("i").attrs["bits"].evidence) == ("default", "default")
    assert (chosen.node("n").attrs["reset"].evidence, chosen.node("i").attrs["bits"].evidence) == ("config", "config")
