"""nmc inspect."""

from __future__ import annotations

import argparse
from typing import Any

from nmc.cli.asked import model_of
from nmc.cli.nodes import nodes_table
from nmc.cli.output import heading, print_json
from nmc.inspecting import Inspection, Layer, inspect
from nmc_compiler.graph import known_ops
from nmc_emulator.tables import text_table


def run(args: argparse.Namespace) -> int:
    found = inspect(args.model, **model_of(args))
    print_json(found.as_json()) if args.json else _print(found)
    return 0


def _print(found: Inspection) -> None:
    print(f"{found.name}: T = {found.timesteps}, {found.parameters:,} parameters, {found.numbers} numbers")
    heading("Notes")
    for note in found.notes:
        print(f"  {note}")
    heading("Settings, and where each came from")
    print("\n".join(text_table(("name", "value", "evidence"), _settings(found.settings))))
    if nodes := nodes_table(found.conversion):
        heading("Nodes of the file")
        print("\n".join(nodes))
    heading("Layers: on cores, on the host, folded away, or refused")
    head = ("layer", "op", "gives", "parameters", "event-driven", "where", "why")
    print("\n".join(text_table(head, [_row(layer) for layer in found.layers])))
    heading("Numbers of the layers, and where each came from")
    rows = [(layer.layer, _values(layer)) for layer in found.layers if layer.values or layer.arrays]
    print("\n".join(text_table(("layer", "numbers"), rows)))
    heading(_verdict(found))


def _settings(settings: dict[str, dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(key, str(item["value"]), item["evidence"]) for key, item in sorted(settings.items())]


def _row(layer: Layer) -> tuple[str, ...]:
    parameters = f"{layer.parameters:,}" if layer.parameters else ""
    event = "yes" if layer.event_driven else "no"
    return (layer.layer, layer.op, layer.gives, parameters, event, layer.place, layer.reason)


def _values(layer: Layer) -> str:
    numbers = [f"{key}={item['value']} ({item['evidence']})" for key, item in layer.values.items()]
    arrays = [f"{key}{item['shape']} ({item['evidence']})" for key, item in layer.arrays.items()]
    return " ".join([*numbers, *arrays])


def _verdict(found: Inspection) -> str:
    ops = {spec.name for spec in known_ops() if spec.host}
    hosted = sum(layer.op in ops for layer in found.layers)
    if not found.refused and hosted:
        return f"{hosted} ops are the host's, in every timestep, where that is allowed (--allow host, docs/host.md)"
    if not found.refused:
        return "Everything is event-driven, or on the host before the first event."
    names = ", ".join(layer.layer for layer in found.refused[:4])
    return f"{len(found.refused)} layers are not event-driven and would be refused: {names}"
