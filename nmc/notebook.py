"""A compiled network in a notebook: how it is mapped, and what compiling did; and the answer of ``nmc.fit``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nmc_compiler.html import Html, card, folded, items, table
from nmc_compiler.mapping.notebook import mapping_parts, resources

if TYPE_CHECKING:
    from nmc.artefact import Compiled
    from nmc.fitting import Fit


def compiled_html(compiled: Compiled) -> str:
    """HTML of an artefact, of bounded length."""
    program = compiled.program
    length = f"T = {program.timesteps}" if program.timesteps else "a stream"
    parts = [items([f"{len(program.populations):,} populations, {length}", _place(compiled)])]
    if compiled.mapping is not None:
        parts += mapping_parts(compiled.mapping)
    parts.append(folded("populations", _populations(program.populations)))
    if notes := compiled.conversion.get("notes", []):
        parts.append(folded("notes", items(notes)))
    if lacking := [f["feature"] for f in program.meta.get("features", []) if f.get("evidence") == "assumed"]:
        parts.append(folded("rests on what the target is only assumed to do", items(lacking)))
    return card(f"{program.name}, compiled", parts)


def _place(compiled: Compiled) -> str:
    mapping, where = compiled.program.mapping, "" if compiled.folder is None else f", in {compiled.folder}"
    if mapping is None:
        return f"mapped to no cores{where}"
    cores = f"{len(mapping.cores):,} cores of {compiled.program.target['name']} on {_chips(mapping.chips)}"
    return f"{cores}, digest {compiled.digest[:12]}{where}"


def _chips(n: int) -> str:
    return f"{n:,} chip{'s' * (n != 1)}"


def _populations(populations: tuple[Any, ...]) -> Html:
    rows = [(p.name, p.model, "x".join(map(str, p.shape)), str(p.level)) for p in populations]
    return table(("population", "model", "shape", "level"), rows, (3,))


def fit_html(found: Fit) -> str:
    """HTML of an answer, target by target."""
    parts = [items([f"{found.parameters:,} parameters, {found.weights}", *found.notes])]
    for answer in found.targets:
        sizing = answer.sizing
        said = "fits" if answer.fits else "does not fit"
        takes = "" if sizing is None else f": {sizing.cores:,} cores on {_chips(sizing.chips)}, {sizing.binds} bind"
        body = Html("") if sizing is None else resources(sizing.used, sizing.limits)
        why = items([answer.reason]) if answer.reason else Html("")
        parts.append(folded(f"{answer.target.name} {said}{takes}", Html(why + body), opened=True))
    return card(f"does {found.name} fit?", parts)
