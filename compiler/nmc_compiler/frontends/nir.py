"""NIR front end: a ``.nir`` file and a timestep in, a float SpikeGraph out (docs/nir.md)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nmc_compiler.errors import FrontendError, UsageError, VerifyError
from nmc_compiler.frontends.checkpoint import Imported
from nmc_compiler.frontends.config import ModelConfig
from nmc_compiler.frontends.hdf5 import Hdf5Group, read_hdf5
from nmc_compiler.frontends.nir_build import Builder, InputKind, steps_of
from nmc_compiler.frontends.nir_extended import extended, read_extended
from nmc_compiler.frontends.nir_file import read_graph
from nmc_compiler.frontends.nir_flat import FlatGraph, flatten
from nmc_compiler.frontends.nir_loops import arrange
from nmc_compiler.frontends.nir_shapes import infer
from nmc_compiler.graph import Attr, Graph, GraphBuilder
from nmc_compiler.graph.verify import verify
from nmc_compiler.nir.rules import DEFAULT, Rule, check_dt, rule_of

INPUT = re.compile(r"([us])([0-9]{1,2})")


@dataclass(frozen=True)
class NirOptions:
    """What a NIR file cannot say. ``dt`` in seconds is needed; ``timesteps`` 0 is a stream.

    ``rule`` and ``reset``: see `nir.rules`. ``inputs``: "spikes", "real", or "u8", "s4": codes of so many bits.
    """

    dt: float | None = None
    timesteps: int = 0
    rule: str = DEFAULT
    reset: str | None = None
    inputs: str = "spikes"


def import_nir(path: str | Path, options: NirOptions) -> Imported:
    """Read a NIR graph and build its float graph.

    FrontendError for a file that is damaged or says what nmc cannot do, UsageError for options.
    """
    check_dt(options.dt)
    tree = read_hdf5(path)
    graph, entries, notes = build(tree, options, _name(Path(path)))
    with Path(path).open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return Imported(graph, "nir", notes, _settings(options), digest, tuple(entries))


def build(tree: Hdf5Group, options: NirOptions, name: str) -> tuple[Graph, list[dict[str, Any]], tuple[str, ...]]:
    """Graph, entries of the conversion report, and notes, from the tree of a NIR file."""
    dt, rule, inputs = check_dt(options.dt), rule_of(options.rule, options.reset), input_kind(options.inputs)
    if "node" in tree and extended(tree.group("node")):
        return read_extended(tree.group("node"), dt, options.timesteps)
    flat = flatten(read_graph(tree))
    timing = arrange(flat, _delaying(flat, dt))
    shapes = infer(flat, timing)
    target = GraphBuilder(name, options.timesteps, input_time=True)
    plain = NirOptions()
    ruled = "default" if (options.rule, options.reset) == (plain.rule, plain.reset) else "config"
    told = "default" if options.inputs == plain.inputs else "config"
    builder = Builder(flat, timing, shapes, rule, dt, inputs, target, ruled, told)
    try:
        graph = builder.build()
        verify(graph)
    except VerifyError as error:
        raise FrontendError(f"{tree.file}: {error}") from None
    notes = (*_notes(rule, options, dt), *_written_for(tree, dt, rule), *flat.notes)
    return graph, builder.entries, notes


def input_kind(text: str) -> InputKind:
    """What the inputs carry, from its name. UsageError where it is none."""
    if text in ("spikes", "real"):
        return InputKind(0 if text == "spikes" else None)
    match = INPUT.fullmatch(text)
    low = 2 if match and match[1] == "s" else 1
    if match is None or not low <= int(match[2]) <= 24:
        raise UsageError(f"--nir-input {text}: expected spikes, real, u1 to u24 or s2 to s24 (bits of a code)")
    return InputKind(int(match[2]), match[1] == "s")


def _delaying(flat: FlatGraph, dt: float) -> set[str]:
    """Delays of at least a timestep for every element."""
    return {
        name
        for name, node in flat.nodes.items()
        if node.type == "Delay" and node.values["delay"].size and steps_of(node, dt)[0].min() >= 1
    }


def _name(path: Path) -> str:
    plain = "".join(c if c.isascii() and c.isprintable() and c not in "/\\\"'" else "_" for c in path.stem)
    return plain[:100] or "nir"


def _notes(rule: Rule, options: NirOptions, dt: float) -> list[str]:
    chosen = "" if rule.name != DEFAULT else " (the default; --nir-rule names others)"
    length = f"T = {options.timesteps}" if options.timesteps else "a stream"
    return [
        f"NIR graph at dt = {dt:g} s, {length}",
        f"rule {rule.name}: {rule.what}{chosen}",
        f"neurons fire {'at or above' if rule.compare == 'ge' else 'above'} the threshold; reset: {rule.reset}",
        f"inputs carry {options.inputs}",
    ]


def _written_for(tree: Hdf5Group, dt: float, rule: Rule) -> list[str]:
    """Where nmc wrote the file for another timestep or rule."""
    root = tree.group("node")
    about = root.members.get("metadata")
    try:
        if not isinstance(about, Hdf5Group):
            return []
        was = float(about.numbers("nmc_dt").item()), about.text("nmc_rule"), about.text("nmc_reset")
    except (FrontendError, ValueError):  # metadata of others
        return []
    if was == (dt, rule.name, rule.reset):
        return []
    return [f"nmc wrote this file at dt = {was[0]:g} s by the rule {was[1]}, reset {was[2]}, and not for this one"]


def _settings(options: NirOptions) -> ModelConfig:
    values = {"dt": options.dt, "timesteps": options.timesteps, "rule": options.rule, "inputs": options.inputs}
    values |= {} if options.reset is None else {"reset": options.reset}
    defaults = {"timesteps": 0, "rule": DEFAULT, "inputs": "spikes"}
    attrs = {k: Attr(v, "default" if defaults.get(k) == v else "config") for k, v in values.items()}  # type: ignore[arg-type]
    return ModelConfig(attrs, "the command line")
