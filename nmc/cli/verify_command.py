"""nmc verify."""

from __future__ import annotations

import argparse
import json
from typing import Any

from nmc.cli.output import print_json, tell
from nmc.ladder import ACCURACY_IMAGES, Ladder, Rung, verify

MISMATCH = 3


def run(args: argparse.Namespace) -> int:
    ladder = verify(
        args.folder,
        args.golden,
        limit=args.limit or ACCURACY_IMAGES,
        tick_images=args.tick_images,
        progress=lambda rung: tell(f"comparing {rung}"),
    )
    print_json(ladder.as_json()) if args.json else _print(ladder)
    return 0 if ladder.ok else MISMATCH


def _print(ladder: Ladder) -> None:
    for rung in ladder.rungs:
        print(f"{'equal   ' if rung.ok else 'MISMATCH'}  {rung.name}: {rung.claim}")
        print(f"          {rung.compared:,} compared, {rung.mismatches:,} mismatches; {_numbers(rung.numbers)}")
    for rung in ladder.rungs:
        if rung.first is not None:
            _print_first(rung, rung.first)
    print("every rung holds" if ladder.ok else "the ladder is broken; the lowest broken rung comes first")


def _numbers(numbers: dict[str, Any]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {_plain(value)}" for key, value in numbers.items())


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _print_first(rung: Rung, first: dict[str, Any]) -> None:
    print(f"\nfirst mismatch of '{rung.name}'")
    if "reason" in first:
        print(f"  {first['reason']}")
    if "neuron" in first:
        tick = "" if first["tick"] is None else f", tick {first['tick']} of the sample"
        print(f"  image {first['image']}, timestep {first['timestep']}{tick}")
        print(f"  layer {first['layer']}, neuron {first['neuron']} (number {first['index']})")
    if "expected" in first:
        print(f"  expected {first['expected']}, got {first['got']}")
    inputs = first.get("inputs", {})
    for side, what in inputs.items() if "currents" not in inputs else {"float": inputs}.items():
        _print_inputs(side, what)


def _print_inputs(side: str, inputs: dict[str, Any]) -> None:
    print(f"  what the neuron read, as the {side} has it")
    print(f"    currents, timestep by timestep: {', '.join(map(_plain, inputs['currents']))}")
    if inputs["parameters"]:
        print(f"    parameters: {json.dumps(inputs['parameters'])}")
    for term in inputs["made_of"]:
        print(f"    {', '.join(f'{key} {_plain(value)}' for key, value in term.items())}")
