"""nmc verify."""

from __future__ import annotations

import argparse
import json
from typing import Any

from nmc.cli.output import print_json, tell
from nmc.ladder import ACCURACY_IMAGES, LAVA_IMAGES, Ladder, Rung, verify, verify_lava
from nmc_compiler.errors import UsageError

MISMATCH = 3


def run(args: argparse.Namespace) -> int:
    ladder = _lava(args) if args.other == "lava" else _golden(args)
    print_json(ladder.as_json()) if args.json else _print(ladder)
    return 0 if ladder.ok else MISMATCH


def _golden(args: argparse.Namespace) -> Ladder:
    if args.images or args.unroll:
        raise UsageError("--images and --unroll belong to --with lava; --limit says how many golden images to compare")
    limits = {"limit": args.limit or ACCURACY_IMAGES, "tick_images": args.tick_images}
    return verify(args.folder, args.golden, **limits, progress=_progress)


def _lava(args: argparse.Namespace) -> Ladder:
    images = args.images or LAVA_IMAGES
    return verify_lava(args.folder, args.golden, images=images, unroll=args.unroll, progress=_progress)


def _progress(rung: str) -> None:
    tell(f"comparing {rung}")


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
