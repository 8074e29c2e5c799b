"""nmc.compile: a model file in, mapped Program out. The stages live in nmc_compiler; here they meet."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nmc import _version
from nmc.artefact import Compiled, graph_digest
from nmc.calibration import SAMPLES, compared, read_calibration
from nmc.clouds import calibration_of, coder_of, holds_points, read_clouds
from nmc.host_parts import inputs_of, with_host
from nmc.importing import ModelOptions, import_model
from nmc.traced import trace
from nmc_compiler.errors import CapacityError, LoweringError, UsageError
from nmc_compiler.fitting import fit
from nmc_compiler.frontends.checkpoint import Imported
from nmc_compiler.frontends.trace.tape import STREAM
from nmc_compiler.graph import Graph, label
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.agreement import Inputs
from nmc_compiler.passes.fix_cloud import fix_cloud
from nmc_compiler.passes.host_partition import ALLOW, part
from nmc_compiler.passes.pipeline import compile_graph
from nmc_compiler.passes.report import ConversionReport, layers_of
from nmc_compiler.program.model import Program
from nmc_compiler.target import Target, load_target, with_weight_bits

ENDS = ("inputs", "outputs", "host")  # of general networks
Observer = Callable[[str, Graph | None, float], None]


def compile(  # the name users look for
    model: Any,
    example_input: Any = None,
    *,
    target: str | os.PathLike[str] = "loihi2",
    config: str | os.PathLike[str] | None = None,
    family: str | None = None,
    state: str | None = None,
    timesteps: int | None = None,
    dt: float | None = None,
    nir_rule: str | None = None,
    nir_reset: str | None = None,
    nir_input: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    input_shape: tuple[int, ...] | None = None,
    time_axis: int | None = None,
    input_kind: str | None = None,
    out: str | os.PathLike[str] | None = None,
    chips: int | Literal["auto"] | None = None,
    weight_bits: int | None = None,
    calib: str | os.PathLike[str] | None = None,
    cloud: str | os.PathLike[str] | None = None,
    input_encoding: Literal["host-current", "graded8"] = "host-current",
    input_range: tuple[float, float] = (0.0, 1.0),
    residual: Literal["auto", "stream", "duplicate"] = "auto",
    factors: Literal["auto", "fold", "relay"] = "auto",
    attn_order: Literal["auto", "kv", "qk"] = "auto",
    channel_bins: int = 4,
    pipelined: bool = False,
    stream_pieces: int = 0,
    allow: tuple[str, ...] = (),
    seed: int = 0,
    observer: Observer | None = None,
) -> Compiled:
    """Compile a model to a Program mapped onto the cores of ``target``.

    model: .pt, .pth or .safetensors (checkpoints), .nir or .net; or code (docs/tracing.md): a torch module with an
    ``example_input`` (tensor, array or shape), or "file.py:callable" with ``input_shape`` and maybe ``weights``;
    time_axis, input_kind: of its input.  target: a name of ``nmc targets`` or a YAML file.
    config: the constructor arguments of a checkpoint; else those in the checkpoint or beside it.
    timesteps: of one sample; 0 is a stream (.nir, .net, code); of checkpoints in place of the config's T.  dt: seconds
    per timestep, for .nir; nir_rule, nir_reset, nir_input: docs/nir.md.  allow: approximations of neurons that may be
    made (``CompileOptions``).  out: folder for the artefact; None keeps it in memory.  chips: how many may be used,
    "auto" for the fewest, None for the target's own default.  weight_bits: fewer than the target's.
    calib: .npz of images that are not test images; spike rates of the first 16 weigh the placement.
    input_range: values the real input may take (graded8).  residual, factors, attn_order, channel_bins, pipelined,
    stream_pieces: see ``CompileOptions``.
    cloud: a file of one cloud of points, for which a network on active sites is compiled (docs/sparse.md).
    seed: of the placement.  observer: called with pass name, graph and seconds after each pass.

    Equal arguments give equal bytes. Raises FrontendError, UsageError, LoweringError,
    CapacityError, VerifyError or ArtefactError, each saying what to do next.
    """
    chip = load_target(target)
    chip = chip if weight_bits is None else with_weight_bits(chip, weight_bits)
    options = CompileOptions(
        input_encoding=input_encoding,
        input_range=input_range,
        residual=residual,
        factors=factors,
        attn_order=attn_order,
        channel_bins=channel_bins,
        pipelined=pipelined,
        stream_pieces=stream_pieces,
        allow=tuple(allow),
        weight_bits=weight_bits,
    )
    asked = ModelOptions(config, family, timesteps, dt, nir_rule, nir_reset, nir_input)
    asked = replace(asked, weights=weights, input_shape=input_shape, time_axis=time_axis, input_kind=input_kind)
    asked = replace(asked, host=True if ALLOW in options.allow else None, state=state)
    imported = _import(model, example_input, asked)
    if cloud is not None:
        imported = _for_cloud(imported, cloud)
    places = [p for p in (model, config, weights) if isinstance(p, (str, os.PathLike))]
    notes = [_without_folders(note, *places) for note in imported.notes]
    report = ConversionReport(notes, list(imported.entries))
    inputs = None if calib is None else _calibration(calib, imported)
    wanted = chip.defaults.chips.value if chips is None else chips
    with _hint(imported):
        trained, parted = imported.graph, part(imported.graph, chip, options.allow, report)
        if parted is not None:
            trained, inputs = parted.chip, inputs_of(parted, inputs)
        rates = None if inputs is None else partial(spike_rates, inputs=inputs)
        quantised = compile_graph(trained, chip, options, report, observer, inputs)
        fitted = fit(quantised, chip, options, report, wanted, rates, seed)
    program, mapping = fitted.program, fitted.mapping
    graphs = {"float": imported.graph, "int": fitted.graph}
    if parted is not None:
        program, graphs["int"] = with_host(parted, fitted.graph, program)
    more = {"chips": wanted, "seed": seed, "calib": None if calib is None else file_digest(calib)}
    more |= {} if cloud is None else {"cloud": file_digest(cloud)}
    meta = provenance(program, imported, chip, options, graphs) | {"placement": more}
    conversion = report.as_json() | {"layers": layers_of(trained, fitted.graph)}
    if inputs is not None:
        conversion["calibration"] = compared(trained, fitted.graph, inputs, chip, options, report.exact)
    compiled = Compiled(replace(program, meta=meta), conversion, None, mapping, graphs)
    return compiled if out is None else compiled.save(out)


@contextlib.contextmanager
def _hint(imported: Imported) -> Iterator[None]:
    """What nobody said about time is said with a refusal that may rest on it."""
    try:
        yield
    except (LoweringError, CapacityError) as error:
        if STREAM not in imported.notes:
            raise
        raise type(error)(f"{error} (note: {STREAM}; -T 1 if a call is a whole sample)") from None


def _import(model: Any, example_input: Any, options: ModelOptions) -> Imported:
    """A file, or a module with its example input."""
    if isinstance(model, (str, os.PathLike)):
        if example_input is not None:
            hint = f"; name a target with target={example_input!r}" if isinstance(example_input, str) else ""
            raise UsageError(f"{os.fspath(model)}: an example input goes with a torch module, not with a file{hint}")
        return import_model(model, options)
    if example_input is None:
        raise UsageError("a torch module is compiled with an example of its input: nmc.compile(module, example_input)")
    given = replace(options, timesteps=None, time_axis=None, input_kind=None, host=None)
    if wrong := next((f.name for f in fields(given) if getattr(given, f.name) is not None), None):
        raise UsageError(f"{wrong} does not go with a torch module; leave it out")
    asked = {"timesteps": options.timesteps, "time_axis": options.time_axis, "kind": options.input_kind}
    asked["host"] = bool(options.host)
    return trace(model, example_input, **asked)  # type: ignore[arg-type]


def _calibration(path: str | os.PathLike[str], imported: Imported) -> Inputs:
    if not holds_points(path):
        return read_calibration(path, imported.graph)
    coder = coder_of({key: attr.value for key, attr in imported.config.values.items()})
    return calibration_of(imported.graph, coder, path, SAMPLES)


def _for_cloud(imported: Imported, cloud: str | os.PathLike[str]) -> Imported:
    """The network on the active voxels of one cloud."""
    clouds, _ = read_clouds(cloud)
    if len(clouds) != 1:
        raise UsageError(
            f"--cloud {cloud} holds {len(clouds)} clouds; a Program is compiled for one, or without it for any"
        )
    voxels, _ = coder_of({key: attr.value for key, attr in imported.config.values.items()}).code(clouds[0], str(cloud))
    note = f"compiled for one cloud: its {len(voxels)} active voxels and all their pairs are fixed (--cloud)"
    return replace(imported, graph=fix_cloud(imported.graph, voxels), notes=(*imported.notes, note))


def provenance(
    netlist: Program, imported: Imported, target: Target, options: CompileOptions, graphs: dict[str, Graph]
) -> dict[str, Any]:
    """What the digest of a Program has to cover besides the Program: inputs, options, version of nmc."""
    settings = {key: {"value": attr.value, "evidence": attr.evidence} for key, attr in imported.config.values.items()}
    return _lists(
        {
            "nmc": _version(),
            "family": imported.family,
            "checkpoint": imported.checkpoint_sha256,
            "config": settings,
            "options": options.as_json(),
            "lowered": netlist.meta.get("options", {}),
            "features": netlist.meta.get("features", []),
            "graphs": {kind: graph_digest(graph) for kind, graph in graphs.items()},
            "target": target.model_dump(mode="json", by_alias=True),
        }
        | {key: netlist.meta[key] for key in ENDS if key in netlist.meta}
    )


def spike_rates(graph: Graph, netlist: Program, inputs: Inputs) -> dict[str, np.ndarray]:
    """Events per timestep of every neuron, [C, H, W] by population, on calibration data.

    A relay hands on what its source emits, so it has its source's rates.
    """
    codes = interpret(graph, inputs, record="all").codes
    rates = {name: (code != 0).mean(axis=(0, 1)) for name, code in codes.items()}
    for item in netlist.maps:
        for population in netlist.populations:
            if population.dendrite == item.dst and population.name not in rates:
                source = netlist.populations[item.src].name
                rates |= {population.name: rates[source]} if source in rates else {}
    rates |= {label(n): np.zeros(n.type.shape) for n in graph if n.op == "int_integrator"}  # read, and silent
    return {p.name: rates[p.name] for p in netlist.populations if p.name in rates}


def file_digest(path: str | os.PathLike[str]) -> str:
    """sha256 (hex) of a file that has been read before."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _without_folders(note: str, *paths: str | os.PathLike[str] | None) -> str:
    """A note that does not depend on where the files lay: the artefact must not either."""
    for path in paths:
        if path is not None and (folder := str(Path(path).parent)) != ".":
            note = note.replace(f"{folder}/", "")
    return note


def _lists(value: Any) -> Any:
    """Tuples become lists, as JSON gives them back."""
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_lists(item) for item in value]
    return value
