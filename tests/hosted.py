"""Graphs with a part on the host: compiled as nmc.compile does it, compared on every engine with the interpreter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

import nmc
from nmc.artefact import Compiled
from nmc.compiling import provenance
from nmc.host_parts import inputs_of, with_host
from nmc_compiler.fitting import fit
from nmc_compiler.frontends.checkpoint import Imported
from nmc_compiler.frontends.config import ModelConfig
from nmc_compiler.graph import Graph, GraphBuilder
from nmc_compiler.graph.interpret import Interpretation, interpret
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.host_partition import part
from nmc_compiler.passes.pipeline import compile_graph
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.target import load_target

ENGINES = ("events", "ticks", "layers")


def compiled_graph(graph: Graph, target: str = "loihi2", calib=None, **options) -> Compiled:
    """A float graph with host ops, mapped."""
    chip, report = load_target(target), ConversionReport()
    options = CompileOptions(allow=("host",), **options)
    parted = part(graph, chip, options.allow, report)
    inputs = inputs_of(parted, calib)
    fitted = fit(compile_graph(parted.chip, chip, options, report, None, inputs), chip, options, report)
    program, joint = with_host(parted, fitted.graph, fitted.program)
    graphs = {"float": graph, "int": joint}
    imported = Imported(graph, "graph", (), ModelConfig({}, "a test"), "")
    meta = provenance(program, imported, chip, options, graphs)
    return Compiled(replace(program, meta=meta), report.as_json(), None, fitted.mapping, graphs)


def agrees(compiled: Compiled, inputs: dict[str, np.ndarray], engines=ENGINES) -> Interpretation:
    """Every engine gives the interpreter's codes and outputs, bit for bit; the interpreter's run."""
    truth = interpret(compiled.int_graph, inputs, record="all")
    assert not any("register" in key for key in truth.overflows)
    for engine in engines:
        run = nmc.emulate(compiled, inputs, record="all", engine=engine)
        assert run.result.engine == engine
        for name, codes in truth.codes.items():
            p = next(p for p in run.program.populations if p.name == name)
            found = np.moveaxis(run._dense(name, p), 0, 1)
            assert np.array_equal(found, codes), (engine, name)
        for name, values in run.outputs.items():
            assert np.array_equal(np.moveaxis(values, 0, 1), truth.outputs[name]), (engine, name)
        hosted = {n.name for n in compiled.int_graph.outputs} - {o["name"] for o in run.program.meta["outputs"]}
        assert set(run.outputs) == hosted
    return truth


def weights(rng: np.random.Generator, out: int, into: int, size: float = 1.0) -> np.ndarray:
    return rng.normal(0, size / np.sqrt(into), (out, into, 1, 1))


def norm_lif(timesteps: int = 6, width: int = 8, input_time: bool = True) -> Graph:
    """LayerNorm on the host, a LIF and a linear layer on cores, a residual sum on the host."""
    rng = np.random.default_rng(0)
    b = GraphBuilder("normlif", timesteps=timesteps, input_time=input_time)
    x = b.add("input", name="x", shape=(width, 1, 1))
    gain, bias = b.tensor("gain", rng.normal(1.2, 0.1, width)), b.tensor("bias", rng.normal(0, 0.1, width))
    norm = b.add("layer_norm", x, name="norm", weight=gain, bias=bias, eps=1e-5)
    lif = b.add("neuron", norm, name="lif", beta=0.5, theta=1.0, reset="hard", compare="ge")
    fc = b.add("conv2d", lif, name="fc", weight=b.tensor("w", weights(rng, width, width)))
    b.add("output", b.add("binary", x, fc, function="add", name="sum"), name="y")
    return b.build()
