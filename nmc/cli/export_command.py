"""nmc export."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from nmc.cli.output import print_json
from nmc.exporting import export

SCHEMA = "nmc.export/1"


def run(args: argparse.Namespace) -> int:
    out = export(
        args.folder,
        args.out,
        format=args.format,
        dt=args.dt,
        nir_rule=args.nir_rule,
        nir_reset=args.nir_reset,
        nir_extension=args.nir_extension,
    )
    tell = {"lava": _lava, "netx": _netx, "nir": _nir}[args.format]
    about, lines = tell(out)
    if args.json:
        print_json({"schema": SCHEMA, "format": args.format, **about})
    else:
        print("\n".join(lines))
    return 0


def _lava(folder: Path) -> tuple[dict[str, Any], list[str]]:
    became = json.loads((folder / "program.json").read_text(encoding="utf-8"))
    counts = {key: int(became["processes"][key]) for key in ("stock", "generated")}
    lines = []
    for part, processes in sorted(became["parts"].items()):
        kinds = [f"{p['kind']} ({p['origin']})" for p in processes]
        lines.append(f"{part}: {', '.join(f'{kinds.count(k)} {k}' for k in dict.fromkeys(kinds))}")
    lines.append(f"\nWritten to {folder}: {counts['stock']} Processes of Lava's own, {counts['generated']} generated")
    return {"folder": str(folder), **counts}, lines


def _netx(file: Path) -> tuple[dict[str, Any], list[str]]:
    """What stands in the file, read back from it."""
    from nmc_compiler.frontends.hdf5 import read_hdf5
    from nmc_compiler.frontends.netx import read_layers

    layers = read_layers(read_hdf5(file)).layers
    somas = {layer.name: type(layer.neuron).__name__.upper() if layer.neuron else "" for layer in layers}
    lines = [f"{layer.name}: {layer.kind} {list(layer.shape)} {somas[layer.name]}".rstrip() for layer in layers]
    lines.append(f"\nWritten to {file}: {len(layers)} layers, equal integers")
    told = [{"name": x.name, "kind": x.kind, "shape": list(x.shape), "somas": somas[x.name]} for x in layers]
    return {"file": str(file), "layers": told}, lines


def _nir(file: Path) -> tuple[dict[str, Any], list[str]]:
    """What stands in the file, read back from it."""
    from nmc_compiler.frontends.hdf5 import read_hdf5

    root = read_hdf5(file).group("node")
    nodes = {name: root.group("nodes").group(name).text("type") for name in root.group("nodes").names}
    about = root.group("metadata")
    dt, rule, reset = float(about.numbers("nmc_dt")), about.text("nmc_rule"), about.text("nmc_reset")
    own = sum(kind.startswith("nmc:") for kind in nodes.values())
    counts = ", ".join(f"{list(nodes.values()).count(kind)} {kind}" for kind in dict.fromkeys(nodes.values()))
    lines = [f"{name}: {kind}" for name, kind in nodes.items()]
    lines.append(f"\nWritten to {file}: {counts}; as it was read, before quantisation and mapping")
    lines.append(f"at dt = {dt:g} s by the rule {rule}, reset {reset}: whoever reads it needs to know")
    lines += [f"{own} nodes are nmc's own: other readers refuse the file"] if own else []
    return {"file": str(file), "nodes": nodes, "dt": dt, "rule": rule, "reset": reset, "own": own}, lines
