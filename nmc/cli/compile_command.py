"""nmc compile."""

from __future__ import annotations

import argparse
from typing import Any

from nmc.artefact import Compiled
from nmc.cli.asked import layout_of, model_of
from nmc.cli.host_lines import host_lines
from nmc.cli.nodes import PASS, nodes_table
from nmc.cli.output import heading, print_json, tell
from nmc.compiling import compile
from nmc.neurocorex import from_neurocorex
from nmc_compiler.errors import UsageError
from nmc_compiler.graph import Graph
from nmc_compiler.graph.text import to_text
from nmc_compiler.passes.pipeline import PASSES
from nmc_emulator.tables import text_table

SCHEMA = "nmc.compile/1"


def run(args: argparse.Namespace) -> int:
    compiled = compile_neurocorex(args) if args.source else _compile(args)
    print_json(as_json(compiled)) if args.json else _print(compiled)
    return 0


def compile_neurocorex(args: argparse.Namespace) -> Compiled:
    if len(args.more) != 2:
        given = 1 + len(args.more)
        raise UsageError(f"--from neurocorex takes three files, FF.npy AA.npy PARAMS.json; {given} are given")
    aa, params = args.more
    return from_neurocorex(args.model, aa, params, args.target, out=args.out, seed=args.seed)


def _compile(args: argparse.Namespace) -> Compiled:
    if args.more:
        raise UsageError(f"{args.more[0]}: one model is compiled at a time; --from neurocorex takes three files")
    return compile(
        args.model,
        target=args.target,
        out=args.out,
        chips=args.chips,
        weight_bits=args.weight_bits,
        calib=args.calib,
        cloud=args.cloud,
        pipelined=args.pipelined,
        seed=args.seed,
        observer=_observer(args),
        **model_of(args),
        **layout_of(args),
    )


def _observer(args: argparse.Namespace) -> Any:
    known = {p.name for p in PASSES}  # type: ignore[attr-defined]
    if unknown := [name for name in args.print_after if name not in known | {"all"}]:
        raise UsageError(f"--print-after {unknown[0]}: no such pass; known: {', '.join(sorted(known))}, all")

    def observe(name: str, graph: Graph, seconds: float) -> None:
        if args.time_passes:
            tell(f"{name:<18} {seconds:8.3f} s  {len(graph.nodes)} nodes")
        if {name, "all"} & set(args.print_after):
            tell(f"# after {name}", to_text(graph))

    return observe


# --- JSON -------------------------------------------------------------------------------------------------


def as_json(compiled: Compiled) -> dict[str, Any]:
    """What was compiled, where it is, how full the cores are, and what each pass did."""
    program, report = compiled.program, compiled.mapping
    assert report is not None  # compile() always maps
    placement = report.placement
    return {
        "schema": SCHEMA,
        "name": program.name,
        "digest": compiled.digest,
        "folder": str(compiled.folder),
        "target": program.target["name"],
        "chips": report.chips,
        "cores": report.cores,
        "utilisation": [
            {name: {"used": used, "limit": limit} for name, (used, limit) in core.items()}
            for core in report.utilisation
        ],
        "placement": {
            "row_major": placement.row_major,
            "greedy": placement.greedy,
            "final": placement.final,
            "saving": placement.saving,
            "measured_rates": report.measured_rates,
        },
        "latency_ticks": (program.timesteps - 1) * program.ticks_per_step + program.depth + 1,
        "interval_ticks": program.interval,
        "features": program.meta["features"],
        "conversion": compiled.conversion,
        **_image_json(compiled),
    }


def _image_json(compiled: Compiled) -> dict[str, Any]:
    """What the image takes of every core, where the target has images."""
    if compiled.image is None:
        return {}
    usage = [{name: {"used": used, "limit": limit} for name, (used, limit) in c.items()} for c in compiled.image.usage]
    return {"image": usage}


# --- terminal ---------------------------------------------------------------------------------------------


def _print(compiled: Compiled) -> None:
    program, conversion = compiled.program, compiled.conversion
    print(f"{program.name}: {len(program.populations)} populations, T = {program.timesteps}")
    heading("Notes")
    for note in conversion["notes"]:
        print(f"  {note}")
    if nodes := nodes_table(conversion["entries"]):
        heading("Nodes of the file")
        print("\n".join(nodes))
    _print_folded(conversion["entries"])
    _print_layers(conversion["entries"])
    _print_overflow(conversion["entries"])
    if lines := host_lines(program):
        heading("On the host, in every timestep")
        print("\n".join(lines))
    _print_cores(compiled)
    _print_image(compiled)
    _print_features(compiled)
    heading(f"Written to {compiled.folder}, digest {compiled.digest}")


def _print_folded(entries: list[dict[str, Any]]) -> None:
    counted: dict[str, list[str]] = {}
    for entry in entries:
        if entry["pass"] not in ("quantize", PASS):
            counted.setdefault(entry["pass"], []).append(entry["layer"])
    if counted:
        heading("Folded and rewritten")
    for name, layers in counted.items():
        more = f", ... {layers[-1]}" if len(layers) > 2 else ""
        print(f"  {name:<16} {len(layers):>3} layers: {', '.join(layers[:2])}{more}")


def _print_layers(entries: list[dict[str, Any]]) -> None:
    rows = [_layer_row(entry) for entry in entries if entry["pass"] == "quantize"]
    if not rows:
        return
    heading("Quantisation, layer by layer")
    head = ("layer", "kind", "scale", "shift", "threshold", "groups", "rms error", "worst error")
    print("\n".join(text_table(head, rows)))


def _layer_row(entry: dict[str, Any]) -> tuple[str, ...]:
    """One line of the conversion report: numbers that a pass did not give are left out, not invented."""
    vth, shift = entry.get("vth"), entry.get("shift", entry.get("rshift"))
    groups = entry.get("channels_per_bin")
    return (
        entry["layer"],
        str(entry.get("kind", "")),
        _short(entry.get("scale")),
        "" if shift is None else str(-shift if "rshift" in entry and shift else shift),
        " ".join(map(str, vth)) if isinstance(vth, (list, tuple)) else _short(vth),
        "" if groups is None else str(len(groups)),
        "" if "rms_error_relative" not in entry else f"{100 * entry['rms_error_relative']:.2f}%",
        _short(entry.get("worst_error")),
    )


def _short(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _print_overflow(entries: list[dict[str, Any]]) -> None:
    flagged = [e["layer"] for e in entries if e.get("can_overflow")]
    inexact = [e["layer"] for e in entries if e.get("exact") is False]
    if flagged:
        print(f"  can overflow if every input is at its worst (counted at run time): {', '.join(flagged)}")
    if inexact:
        print(f"  counts that are not exact: {', '.join(inexact)}")


def _print_image(compiled: Compiled) -> None:
    if compiled.image is None:
        return
    heading("Image")
    names = list(compiled.image.usage[0])
    rows = [
        [str(core), *(f"{used}/{limit}" for used, limit in use.values())]
        for core, use in enumerate(compiled.image.usage)
    ]
    print("\n".join(text_table(("core", *names), rows)))


def _print_cores(compiled: Compiled) -> None:
    report = compiled.mapping
    assert report is not None
    heading("Cores")
    print(report.summary())
    names = list(report.utilisation[0])
    rows = [
        [str(core), *(f"{used}/{limit}" for used, limit in use.values())] for core, use in enumerate(report.utilisation)
    ]
    print("\n".join(text_table(["core", *names], rows)))


def _print_features(compiled: Compiled) -> None:
    features = compiled.program.meta["features"]
    assumed = [f for f in features if f["evidence"] == "assumed"]
    if assumed:
        heading(f"Rests on what {compiled.program.target['name']} is only assumed to do")
        for feature in assumed:
            print(f"  {feature['feature']} (first used by {feature['first_use']})")
