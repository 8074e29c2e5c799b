"""nmc fit."""

from __future__ import annotations

import argparse
from typing import Any

from nmc.cli.asked import layout_of, model_of
from nmc.cli.output import heading, print_json
from nmc.fitting import Fit, TargetFit, fit
from nmc.ways_out import WayOut
from nmc_compiler.options import CompileOptions
from nmc_emulator.tables import text_table

DOES_NOT_FIT = 3
SHOWN = {"trained": "", "stand-ins": ", from shapes alone", "mapped": ", as it is mapped"}


def run(args: argparse.Namespace) -> int:
    found = fit(
        args.model,
        targets=args.target or ["loihi2"],
        chips=args.chips,
        shapes=args.shapes,
        suggest=args.suggest,
        weight_bits=args.weight_bits,
        compile_options=CompileOptions(**layout_of(args)),
        **model_of(args),
    )
    print_json(found.as_json()) if args.json else _print(found)
    return 0 if found.fits else DOES_NOT_FIT


def _print(found: Fit) -> None:
    print(f"{found.name}: {found.parameters:,} parameters, T = {found.timesteps}{SHOWN[found.weights]}")
    for note in found.notes:
        print(f"  {note}")
    for answer in found.targets:
        _print_target(answer, answer.as_json())


def _print_target(answer: TargetFit, numbers: dict[str, Any]) -> None:
    heading(_verdict(answer))
    for line in _because(answer, numbers):
        print(f"  {line}")
    if answer.sizing is None:
        return
    heading("What a core has, and what is taken of it")
    head = ("resource", "has", "mean", "fullest", "cores, if this were all")
    rows = [
        (name, f"{r['limit']:,}", f"{r['mean'] / r['limit']:.1%}", f"{r['fullest']:,}", f"{r['cores_alone']:,}")
        for name, r in numbers["resources"].items()
    ]
    print("\n".join(text_table(head, rows)))
    if numbers["layers"]:
        heading("Layers: tiles along channels, rows and columns, and the fullest tile")
        columns = ("layer", "tiles", "cut", "cores", "neurons", "synapse words", "axons in", "axons out", "fullest of")
        print("\n".join(text_table(columns, [_layer_row(layer) for layer in numbers["layers"]])))


def _verdict(answer: TargetFit) -> str:
    name, sizing, per_chip = answer.target.name, answer.sizing, answer.target.mesh.cores
    if sizing is None:
        return f"{name}: does not fit"
    takes = f"{_count(sizing.cores, 'core')} on {_count(sizing.chips, 'chip')} of {per_chip}"
    if not answer.fits:
        return f"{name}: does not fit on {_count(int(answer.allowed), 'chip')}; it takes {takes}"
    return f"{name}: fits, {takes}"


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"


def _because(answer: TargetFit, numbers: dict[str, Any]) -> list[str]:
    lines = list(answer.notes)
    if answer.sizing is not None:
        alone = numbers["resources"][answer.sizing.binds]["cores_alone"]
        lines.insert(0, f"{answer.sizing.binds} bind: they alone take {_count(alone, 'core')}")
    large = numbers["too_large"]
    if large is None:
        lines += [answer.reason] if answer.reason else []
    else:
        lines.append("layers of which a core does not hold even the smallest tile:")
        lines += [
            f"  {x['layer']}: {x['needed']:,} {x['resource']}, a core has {x['there']:,}" for x in large["layers"]
        ]
        lines.append(f"its {large['neurons']:,} neurons alone would fill {_count(large['cores_for_neurons'], 'core')}")
    lines += [f"tried: {way.change}: {_outcome(way)}" for way in answer.ways]
    most = answer.at_most
    if most is not None and answer.sizing is not None and most.cores != answer.sizing.cores:
        lines.append(
            f"up to {_count(most.cores, 'core')} on {_count(most.chips, 'chip')} where trained thresholds divide every "
            "layer into neuron groups (--channel-bins)"
        )
    return lines


def _outcome(way: WayOut) -> str:
    if way.cores is None or way.chips is None:
        return "does not fit"
    return f"{'fits' if way.fits else 'does not fit'}, {_count(way.cores, 'core')} on {_count(way.chips, 'chip')}"


def _layer_row(layer: dict[str, Any]) -> tuple[str, ...]:
    tile = layer["fullest_tile"]
    numbers = (f"{tile[k]:,}" for k in ("neurons", "synapse_words", "axons_in", "axons_out"))
    cut = "x".join(map(str, layer["cut"]))
    return (layer["layer"], f"{layer['tiles']:,}", cut, f"{layer['cores']:,}", *numbers, layer["binds"])
