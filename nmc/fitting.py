"""nmc.fit: how many cores and chips a network takes, and what decides it, without placing, routing or running it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nmc.artefact import load
from nmc.formula_report import graph_of
from nmc.importing import ModelOptions, import_model
from nmc.inspecting import parameters_of
from nmc.ways_out import Outcome, WayOut, ways_out
from nmc_compiler.errors import CapacityError, LoweringError, UsageError
from nmc_compiler.fitting import Shortage, nearest, size
from nmc_compiler.frontends.checkpoint import Imported, import_checkpoint
from nmc_compiler.frontends.config import ModelConfig, read_config
from nmc_compiler.frontends.skeleton import emptied, import_shapes
from nmc_compiler.graph import Graph
from nmc_compiler.mapping.map import Layout, lay_out
from nmc_compiler.mapping.resources import RESOURCES, core_usage, limits
from nmc_compiler.mapping.sizing import LayerSize, Sizing, sizing_of
from nmc_compiler.mapping.tables import tile_table
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.host_partition import ALLOW, part
from nmc_compiler.passes.pipeline import compile_graph
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.passes.spread_bins import spread_bins
from nmc_compiler.program.model import Program
from nmc_compiler.target import Target, load_target, with_weight_bits

SCHEMA = "nmc.fit/1"

MAYBE = (
    "trained thresholds may divide layers into neuron groups with which it does not fit; it does with --channel-bins 1"
)

Weights = Literal["trained", "stand-ins", "mapped"]
Chips = int | Literal["auto"]


@dataclass(frozen=True)
class TargetFit:
    """The answer for one target. ``reason``: why not, empty where it fits.

    ``sizing``: what it takes; where it does not fit, what it would take with more chips, None where it is a core that
    is too small: then ``short`` names layers. ``at_most``: with stand-ins for weights, the most that channel bins can
    make of it. ``ways``: changes that were tried where it does not fit.
    """

    target: Target
    allowed: Chips
    sizing: Sizing | None = None
    at_most: Sizing | None = None
    reason: str = ""
    short: Shortage | None = None
    ways: tuple[WayOut, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        return not self.reason

    def as_json(self) -> dict[str, Any]:
        """Plain JSON; documented in docs/fit.md."""
        found = {
            "target": self.target.name,
            "fits": self.fits,
            "reason": self.reason or None,
            "chips_allowed": self.allowed,
            "cores_per_chip": self.target.mesh.cores,
            "too_large": _too_large(self.short, self.target),
            "ways_out": [way.as_json() for way in self.ways],
            "notes": list(self.notes),
        }
        most = self.at_most
        bound = None if most is None else {"cores": most.cores, "chips": most.chips}
        return found | {"at_most": bound} | ({} if self.sizing is None else _numbers(self.sizing))


@dataclass(frozen=True)
class Fit:
    """Whether a network fits, target by target. ``weights``: whether its numbers were there, or only its shapes."""

    name: str
    timesteps: int
    parameters: int
    weights: Weights
    notes: tuple[str, ...]
    targets: tuple[TargetFit, ...]

    @property
    def fits(self) -> bool:
        """Whether it fits every target that was asked for."""
        return all(t.fits for t in self.targets)

    @property
    def cores(self) -> int | None:
        """Cores of the first target; None where it does not fit."""
        first = self.targets[0]
        return first.sizing.cores if first.fits and first.sizing is not None else None

    @property
    def chips(self) -> int | None:
        """Chips of the first target; None where it does not fit."""
        first = self.targets[0]
        return first.sizing.chips if first.fits and first.sizing is not None else None

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from nmc.notebook import fit_html

        return fit_html(self)

    def as_json(self) -> dict[str, Any]:
        told = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("targets", "notes")}
        return {
            "schema": SCHEMA,
            **told,
            "fits": self.fits,
            "notes": list(self.notes),
            "targets": [t.as_json() for t in self.targets],
        }


def fit(
    model: str | os.PathLike[str] | None = None,
    *,
    targets: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = "loihi2",
    chips: Chips = "auto",
    shapes: bool = False,
    suggest: bool = False,
    weight_bits: int | None = None,
    compile_options: CompileOptions | None = None,
    **model_options: Any,
) -> Fit:
    """Whether a network fits ``chips`` chips of each target, on how many cores, and what binds.

    model: a file as ``nmc.compile`` takes it, or a folder that it wrote (then: what is mapped). None: the network that
    ``config`` describes, without weights.  shapes: leave the numbers of a checkpoint aside: faster, and less sure by
    the neuron groups that trained thresholds take.  suggest: where it does not fit, try changes of options, and of a
    config alone smaller images and widths (``TargetFit.ways``).  weight_bits, compile_options: as for ``nmc.compile``.
    model_options: config, family, timesteps, ... (``nmc.importing.ModelOptions``).

    With weights the cores and chips are those that ``nmc.compile`` takes with equal options. A network that does not
    fit is an answer, not an error: ``Fit.fits``. Raises FrontendError and UsageError as ``nmc.compile`` does.
    """
    given = [targets] if isinstance(targets, (str, os.PathLike)) else list(targets)
    options = replace(compile_options or CompileOptions(), weight_bits=weight_bits)
    if model is not None and Path(model).is_dir():
        return _of_folder(Path(model))
    chosen = [load_target(t) for t in given]
    chosen = [t if weight_bits is None else with_weight_bits(t, weight_bits) for t in chosen]
    if not chosen:
        raise UsageError("no target is asked for; name one of `nmc targets`")
    asked = ModelOptions(**model_options)
    asked = replace(asked, host=True) if ALLOW in options.allow and model is not None else asked
    imported, weights = _import(model, asked, shapes)
    found = [_on(target, imported, weights, options, chips) for target in chosen]
    if suggest:
        config = read_config(Path(asked.config)) if model is None and asked.config is not None else None
        found = [a if a.fits else replace(a, ways=_ways(a, imported, asked, options, config)) for a in found]
    graph = imported.graph
    return Fit(graph.name, graph.timesteps, parameters_of(graph), weights, imported.notes, tuple(found))


def _ways(
    answer: TargetFit, imported: Imported, asked: ModelOptions, options: CompileOptions, config: ModelConfig | None
) -> tuple[WayOut, ...]:
    """What becomes of the question with other options or sizes."""

    def trial(changed: CompileOptions, smaller: ModelConfig | None) -> Outcome:
        network = imported if smaller is None else import_shapes(smaller, asked.family, asked.timesteps)
        found = _on(answer.target, network, "trained", changed, answer.allowed)  # one bound is enough here
        taken = (None, None) if found.sizing is None else (found.sizing.cores, found.sizing.chips)
        return found.fits, *taken

    return tuple(ways_out(options, config, trial))


def _import(
    model: str | os.PathLike[str] | None, options: ModelOptions, shapes: bool
) -> tuple[Imported, Literal["trained", "stand-ins"]]:
    if model is None:
        if options.config is None:
            raise UsageError("no model: give a checkpoint, or the config of one with --config")
        given = {f.name for f in fields(options) if getattr(options, f.name) is not None}
        if wrong := sorted(given - {"config", "family", "timesteps"}):
            raise UsageError(f"{wrong[0]} does not go with a config alone; leave it out")
        return import_shapes(Path(options.config), options.family, options.timesteps), "stand-ins"
    if not shapes:
        return import_model(model, options), "trained"
    if Path(model).suffix not in (".pt", ".pth", ".safetensors"):
        raise UsageError(
            f"{os.fspath(model)}: only the weights of a checkpoint (.pt, .pth, .safetensors) can be left aside"
        )
    config = None if options.config is None else Path(options.config)
    found = import_checkpoint(Path(model), config, options.family, options.timesteps, emptied, options.state)
    return found, "stand-ins"


# --- one target -------------------------------------------------------------------------------------------


def _on(target: Target, imported: Imported, weights: Weights, options: CompileOptions, chips: Chips) -> TargetFit:
    report = ConversionReport()
    answer = TargetFit(target, chips)
    try:
        parted = part(imported.graph, target, options.allow, report)
        graph = compile_graph(imported.graph if parted is None else parted.chip, target, options, report)
        layout = size(graph, target, options, report, chips)
    except LoweringError as error:
        return replace(answer, reason=str(error))
    except CapacityError as error:
        return _short(answer, graph, options, error)
    found = replace(answer, sizing=sizing_of(layout, target), notes=tuple(report.notes))
    if weights != "stand-ins":
        return found
    most = _most(graph, target, options)
    return replace(found, at_most=most, notes=found.notes if most else (*found.notes, MAYBE))


def _most(graph: Graph, target: Target, options: CompileOptions) -> Sizing | None:
    """With the most parameter sets that channel bins may make; None where that does not fit, whatever the chips."""
    bins = min(options.channel_bins, target.core.neuron_groups.value)
    try:
        return sizing_of(size(spread_bins(graph, bins), target, options, ConversionReport(), "auto"), target)
    except (CapacityError, LoweringError):
        return None


def _short(answer: TargetFit, graph: Graph, options: CompileOptions, error: CapacityError) -> TargetFit:
    """Where it does not fit: the chips that it would fit, or the layers that no core holds."""
    answer, found = replace(answer, reason=str(error)), nearest(graph, answer.target, options)
    if isinstance(found, Layout):
        short = (
            f"the network needs {found.cores} cores, which are {found.chips} chips of {answer.target.name}, and "
            f"{answer.allowed} may be used. Give --chips {found.chips} (or auto)"
        )
        return replace(answer, reason=short, sizing=sizing_of(found, answer.target))
    return replace(answer, short=found)


# --- what is mapped ---------------------------------------------------------------------------------------


def _of_folder(folder: Path) -> Fit:
    compiled = load(folder)
    program, target = compiled.program, compiled.target()
    if program.mapping is None:
        raise UsageError(f"{folder}: Program '{program.name}' is mapped to no cores; compile it for a target")
    answer = TargetFit(target, program.mapping.chips, sizing=_sizing_of_mapping(program, target))
    trained = graph_of(compiled)
    arrays = {item.weight_key or item.name: item.weight.size for item in program.convs}
    arrays |= {item.name: item.weight.size for item in program.sparses}
    parameters = sum(arrays.values()) if trained is None else parameters_of(trained)
    return Fit(program.name, program.timesteps, parameters, "mapped", (), (answer,))


def _sizing_of_mapping(program: Program, target: Target) -> Sizing:
    """Usage counted from the tables; layers too, where the layout is the compiler's own."""
    mapping = program.mapping
    assert mapping is not None
    usage = core_usage(program, mapping, target)
    used = np.stack([usage[name] for name in RESOURCES], axis=1)
    top = np.array([limits(target)[name] for name in RESOURCES])
    layers: tuple[LayerSize, ...] = ()
    try:
        layout = lay_out(program, target, mapping.chips)
        if np.array_equal(tile_table(layout.tiles, layout.on_core), mapping.tiles):
            layers = sizing_of(layout, target).layers
    except (CapacityError, LoweringError):
        pass
    return Sizing(len(mapping.cores), mapping.chips, layers, used, top)


# --- numbers ----------------------------------------------------------------------------------------------


def _too_large(short: Shortage | None, target: Target) -> dict[str, Any] | None:
    """Layers that no core holds, and how many cores the neurons alone would take."""
    if short is None:
        return None
    names = ("layer", "resource", "needed", "there")
    cores = -(-short.neurons // target.core.neurons.value)
    layers = [dict(zip(names, layer, strict=True)) for layer in short.layers]
    return {"layers": layers, "neurons": short.neurons, "cores_for_neurons": cores}


def _numbers(sizing: Sizing) -> dict[str, Any]:
    mean, fullest = sizing.used.mean(axis=0), sizing.used.max(axis=0)
    return {
        "cores": sizing.cores,
        "chips": sizing.chips,
        "binds": sizing.binds,
        "resources": {
            name: {
                "limit": int(sizing.limits[n]),
                "mean": float(mean[n]),
                "fullest": int(fullest[n]),
                "used": int(sizing.used[:, n].sum()),
                "cores_alone": int(sizing.alone[n]),
            }
            for n, name in enumerate(RESOURCES)
        },
        "layers": [_layer(layer, sizing.limits) for layer in sizing.layers],
    }


def _layer(layer: LayerSize, top: np.ndarray) -> dict[str, Any]:
    return {
        "layer": layer.name,
        "cut": list(layer.cut),
        "tiles": layer.tiles,
        "cores": layer.cores,
        "binds": RESOURCES[int(np.argmax(layer.fullest / top))],
        "fullest_tile": {name: int(layer.fullest[n]) for n, name in enumerate(RESOURCES)},
        "needs": {name: int(layer.need[n]) for n, name in enumerate(RESOURCES)},
    }
