"""NIR on the command line: compile, emulate, inspect, export, and what it says to mistakes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nir_nets import DT, chain, conv, ends, graph, lif, node

import nmc
from nmc.cli import main
from nmc_compiler.errors import ArtefactError
from nmc_compiler.export.nir import nir_bytes
from nmc_compiler.graph.interpret import interpret
from nmc_emulator import Emulator

pytest.importorskip("h5py", reason="writes and reads NIR files: pip install 'nmc[nir]'")
ROOT = Path(__file__).resolve().parents[2]
STEPS = 16


def images() -> dict:
    rng = np.random.default_rng(0)
    first, last = ends((2, 8, 8), (6,))
    return chain(
        input=first,
        conv=conv(rng.normal(size=(4, 2, 3, 3)).astype(np.float32), stride=[2, 2], padding=[1, 1]),
        lif1=lif((4, 4, 4), tau=4e-3, theta=0.5),
        pool=node("AvgPool2d", kernel_size=[2, 2], stride=[2, 2], padding=[0, 0]),
        flat=node("Flatten", start_dim=0, end_dim=-1),
        fc=node("Affine", weight=rng.normal(size=(6, 16)).astype(np.float32), bias=np.full(6, 0.1, np.float32)),
        lif2=lif((6,), tau=6e-3, theta=0.2),
        output=last,
    )


def loops() -> dict:
    """Currents that decay, a loop, a graph within the graph, delays, and a readout that does not fire."""
    rng = np.random.default_rng(1)
    first, last = ends((12,), (12,))
    cuba = {"tau_mem": 5e-3, "tau_syn": 3e-3, "r": 1.0, "v_leak": 0.0, "v_threshold": 0.2, "v_reset": 0.0, "w_in": 1.0}
    cell = node("CubaLIF", **{k: np.full(12, v) for k, v in cuba.items()})

    def matrix(out: int, size: int, gain: float = 1.0) -> dict:
        return node("Linear", weight=(gain * rng.normal(size=(out, size))).astype(np.float32))

    nodes = {
        "input": ends((10,), ())[0],
        "fc": matrix(12, 10),
        "rec": chain(input=first, lif=cell, output=last),
        "back": matrix(12, 12, 0.3),
        "late": node("Delay", delay=np.arange(12) % 4 * DT),
        "fc2": matrix(5, 12),
        "li": node("LI", tau=np.full(5, 1e-2), r=np.ones(5), v_leak=np.zeros(5)),
        "output": ends((), (5,))[1],
    }
    way = ["input", "fc", "rec", "late", "fc2", "li", "output"]
    return graph(nodes, *zip(way, way[1:], strict=False), ("rec", "back"), ("back", "rec"))


NETS = {"images": images, "loops": loops}


@pytest.fixture(params=sorted(NETS))
def net(request, tmp_path) -> Path:
    path = tmp_path / f"{request.param}.nir"
    path.write_bytes(nir_bytes({"version": "1.0.8", "node": NETS[request.param]()}))
    return path


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    code = main([str(a) for a in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def spikes_for(compiled: nmc.Compiled, samples: int = 3) -> np.ndarray:
    shape = compiled.float_graph.sources[0].type.shape
    return (np.random.default_rng(5).random((samples, STEPS, *shape)) < 0.4).astype(np.int32)


def test_emulated_is_what_the_integer_graph_means(net):
    """Spikes of every population, bit for bit."""
    compiled = nmc.compile(net, dt=DT, timesteps=STEPS)
    x = spikes_for(compiled)
    meant = interpret(compiled.int_graph, x, record="all", states="all")
    emulator = Emulator(compiled.program, record="all")
    ran = emulator.run_events({"input": x.reshape(-1, *x.shape[2:])}, STEPS * len(x))
    for name, codes in meant.codes.items():
        want = np.argwhere(codes.transpose(1, 0, 2, 3, 4).reshape(len(x) * STEPS, -1))
        found = ran.events[name]
        assert [*zip(found.step.tolist(), found.soma.tolist(), strict=True)] == list(map(tuple, want.tolist())), name
    assert sum(codes.sum() for codes in meant.codes.values()) > 50


def test_real_inputs_are_encoded_on_the_way_in(net, tmp_path, capsys):
    """The host's codes are those of the integer graph; integers are codes already; what has no code is refused."""
    out = tmp_path / "build"
    asked = ("--dt", DT, "-T", STEPS, "--nir-input", "real", "--input-range", "-1", "1", "-o", out)
    assert run(capsys, "compile", net, *asked)[0] == 0
    compiled = nmc.load(out)
    [entry] = compiled.program.meta["inputs"]
    shape = compiled.float_graph.sources[0].type.shape
    x = np.random.default_rng(6).uniform(-1, 1, (3, STEPS, *shape))
    meant = interpret(compiled.int_graph, x, record="all").codes
    np.savez(tmp_path / "real.npz", input=x)
    np.savez(tmp_path / "codes.npz", input=np.rint(x * entry["scale"]).astype(np.int32))
    np.savez(tmp_path / "far.npz", input=x * 2)
    for name in ("real", "codes"):
        ran = ("emulate", out, "--input", tmp_path / f"{name}.npz", "--record", "all", "-o", tmp_path / name)
        code, printed, _ = run(capsys, *ran)
        assert code == 0 and (f"; input encoded as rint(x * {entry['scale']:.6g})" in printed) == (name == "real")
        with np.load(tmp_path / name / "spikes.npz") as spikes:
            for population, codes in meant.items():
                steps = codes.transpose(1, 0, 2, 3, 4).reshape(3 * STEPS, -1)
                found = np.zeros_like(steps, dtype=np.int64)
                value = spikes.get(f"{population}.code", 1)
                found[spikes[f"{population}.step"], spikes[f"{population}.soma"]] = value
                assert (found == steps).all(), population
    code, _, error = run(capsys, "emulate", out, "--input", tmp_path / "far.npz", "-o", tmp_path / "far")
    assert code == 1 and error.startswith("nmc: error: input 'input': ")
    assert error.endswith("scale the input, or compile with a wider --input-range\n")


@pytest.mark.parametrize(
    "entry",
    [
        5,
        {"population": "input", "scale": 10**400, "lo": 0, "hi": 1},
        {"population": "input", "scale": float("nan"), "lo": 0, "hi": 1},
        {"population": "input", "scale": 1.0, "lo": 0, "hi": 1 << 40},
        {"population": "input", "scale": 1.0, "lo": 2, "hi": 1},
    ],
)
def test_an_encoding_that_means_nothing_is_refused(entry):
    from nmc.encoding import encodings
    from nmc_compiler.program.network import Network

    network = Network("net")
    network.lif("cells", 1, vth=1)
    program = replace(network.program(), meta={"inputs": [entry]})
    with pytest.raises(ArtefactError, match="Program 'net': meta.inputs holds .*; compile the network again"):
        encodings(program)


def test_compile_emulate_report(net, tmp_path, capsys):
    out = tmp_path / "build"
    code, printed, _ = run(capsys, "compile", net, "--dt", DT, "-T", STEPS, "-o", out)
    assert code == 0 and "Nodes of the file" in printed and f"NIR graph at dt = {DT:g} s, T = {STEPS}" in printed
    np.savez(tmp_path / "x.npz", input=spikes_for(nmc.load(out)))
    code, printed, _ = run(capsys, "emulate", out, "--input", tmp_path / "x.npz")
    assert code == 0 and f"3 samples of {STEPS} timesteps" in printed
    assert run(capsys, "report", out)[0] == 0
    assert run(capsys, "verify", out, "--tick-images", 1)[0] == 0


def test_out_and_in_again_is_the_same_artefact(net, tmp_path, capsys):
    """compile, export, compile: the graphs are equal to the byte."""
    first, second = tmp_path / "first", tmp_path / "second"
    assert run(capsys, "compile", net, "--dt", DT, "-T", STEPS, "-o", first)[0] == 0
    (tmp_path / "again").mkdir()
    again = tmp_path / "again" / net.name
    code, printed, _ = run(capsys, "export", first, "--format", "nir", "-o", again)
    assert code == 0 and f"at dt = {DT:g} s by the rule euler, reset value: whoever reads it needs to know" in printed
    assert run(capsys, "compile", again, "--dt", DT, "-T", STEPS, "-o", second)[0] == 0
    for name in ("graph.float.txt", "graph.float.safetensors", "graph.int.txt", "graph.int.safetensors"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_inspect_rates_every_node(net, capsys):
    code, printed, _ = run(capsys, "inspect", net, "--dt", DT, "--json")
    found = json.loads(printed)
    assert code == 0
    coarse = {e["layer"] for e in found["conversion"] if e["rating"] == "approximate"}
    assert coarse == ({"lif1", "lif2"} if net.stem == "images" else {"rec.lif"})  # dt is more than 0.1 tau
    assert {e["layer"] for e in found["conversion"] if e["rating"] == "faithful"} >= {"input", "output"}
    printed = run(capsys, "inspect", net, "--dt", DT)[1]
    assert printed.count("  faithful") + printed.count("  approximate") == len(found["conversion"])
    fine = json.loads(run(capsys, "inspect", net, "--dt", DT / 10, "--json")[1])["conversion"]
    assert {e["rating"] for e in fine} == {"faithful"}


def test_a_transformer_goes_out_with_the_extension_and_comes_back(tmp_path, capsys):
    out = tmp_path / "sdt"
    fixture = ROOT / "tests" / "fixtures" / "sdt_v1"
    model = next(fixture.glob("*.pt"))
    assert run(capsys, "compile", model, "-o", out)[0] == 0
    code, _, error = run(capsys, "export", out, "--format", "nir", "--dt", 1e-3, "-o", tmp_path / "m.nir")
    assert code == 1 and "which NIR has no node for" in error and "--nir-extension" in error
    assert not (tmp_path / "m.nir").exists()
    arguments = ("export", out, "--format", "nir", "--dt", 1e-3, "--nir-extension", "-o", tmp_path / "m.nir")
    code, printed, _ = run(capsys, *arguments)
    assert code == 0 and "nodes are nmc's own: other readers refuse the file" in printed
    assert run(capsys, "compile", tmp_path / "m.nir", "--dt", 1e-3, "-o", tmp_path / "back")[0] == 0
    for name in ("graph.float.txt", "graph.float.safetensors", "graph.int.txt", "graph.int.safetensors"):
        assert (out / name).read_bytes() == (tmp_path / "back" / name).read_bytes(), name


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["compile", "NET"], 2, "NIR is in continuous time; give the timestep in seconds with --dt"),
        (["inspect", "NET"], 2, "give the timestep in seconds with --dt"),
        (["compile", "NET", "--dt", "1"], 1, "Euler's step would overshoot; give a shorter --dt"),
        (["compile", "NET", "--dt", "1e-3", "--config", "x.yaml"], 2, "--config does not go with a NIR graph"),
        (["compile", "MODEL", "--dt", "1e-3"], 2, "--dt does not go with a checkpoint; leave it out"),
        (["compile", "NET", "--dt", "1e-3", "--nir-rule", "rk4"], 2, "--nir-rule rk4: no such rule"),
        (["compile", "NET", "--dt", "1e-3", "--nir-rule", "snntorch", "--target", "loihi1"], 1, "soft-reset"),
        (["export", "b", "--format", "lava", "--dt", "1", "-o", "o"], 2, "do not go with --format lava"),
    ],
    ids=lambda v: " ".join(v[2:]) if isinstance(v, list) else "",
)  # fmt: skip
def test_mistakes(tmp_path, capsys, monkeypatch, arguments, code, text):
    monkeypatch.chdir(tmp_path)
    Path("net.nir").write_bytes(nir_bytes({"version": "1.0.8", "node": images()}))
    Path("m.pt").write_bytes(b"")
    found, _, error = run(capsys, *[{"NET": "net.nir", "MODEL": "m.pt"}.get(a, a) for a in arguments])
    assert found == code and text in error and "Traceback" not in error
