"""nmc targets."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nmc.cli.output import print_json
from nmc_compiler.errors import UsageError
from nmc_compiler.target import Cited, Target, list_targets, load_target
from nmc_compiler.target.spec import describe
from nmc_emulator.cost import FORMULA_PROFILE, MAPPED_PROFILES, RATE_PROFILE
from nmc_emulator.energies import price_table
from nmc_emulator.price_profile import Price, PriceProfile, list_profiles, load_profile
from nmc_emulator.tables import text_table

SCHEMA = "nmc.targets/1"
SUFFIXES = (".yaml", ".yml")


def run(args: argparse.Namespace) -> int:
    if args.action == "show":
        return _show(args)
    if args.name is not None:
        raise UsageError(f"nmc targets list takes no name; for {args.name!r} use: nmc targets show {args.name}")
    targets = [load_target(name) for name in list_targets()]
    profiles = [load_profile(name) for name in list_profiles()]
    if args.json:
        told = [{"name": p.name, "title": p.title, "kind": p.kind, "chip": p.chip} for p in profiles]
        print_json({"schema": SCHEMA, "targets": [{"name": t.name, "title": t.title} for t in targets], "prices": told})
        return 0
    rows = [(t.name, t.title, str(t.mesh.cores), str(t.core.neurons.value)) for t in targets]
    print("\n".join(text_table(("name", "chip", "cores", "neurons per core"), rows, indent="")))
    rows = [(p.name, p.title, p.kind, p.chip or "") for p in profiles]
    print("\n".join(["", *text_table(("prices", "what they are", "kind", "chip"), rows, indent="")]))
    return 0


def _show(args: argparse.Namespace) -> int:
    if args.name is None:
        raise UsageError(f"nmc targets show NAME: which? known: {', '.join(_known())}")
    target, profiles = _find(args.name)
    if args.json:
        told = [_profile_json(profile) for profile in profiles]
        about = {"schema": SCHEMA} if target is None else target.model_dump(mode="json", by_alias=True)
        print_json({**about, "prices": told})
        return 0
    parts = [] if target is None else [_target_text(target)]
    print("\n\n".join([*parts, *map(_profile_text, profiles)]))
    return 0


def _known() -> list[str]:
    chips = {load_profile(name).chip or name for name in list_profiles()}
    return [*list_targets(), *sorted({*list_profiles(), *chips} - set(list_targets()))]


def _find(name: str) -> tuple[Target | None, list[PriceProfile]]:
    """The target of a name with the profiles of its chip; or the profile, or those of a chip, of that name."""
    if Path(name).suffix in SUFFIXES or "/" in name:
        return (None, [load_profile(name)]) if _holds_prices(Path(name)) else (load_target(name), [])
    profiles = [load_profile(known) for known in list_profiles()]
    if name in list_targets():
        target = load_target(name)
        chips = {name, "neurocore"} if target.profile == "neurocore" else {name}
        return target, [p for p in profiles if p.chip in chips]
    found = [p for p in profiles if name == p.chip] or [p for p in profiles if name == p.name]
    if not found:
        raise UsageError(
            f"unknown target or price profile {name!r}; known: {', '.join(_known())}; or give the path of a .yaml file"
        )
    return None, found


def _holds_prices(path: Path) -> bool:
    """Whether a file says of itself that it is a price profile. What is wrong with it is for its reader to say."""
    try:
        with path.open("rb") as file:
            return b"nmc.prices/" in file.read(4096)
    except OSError:
        return False


# --- what is printed --------------------------------------------------------------------------------------


def _target_text(target: Target) -> str:
    rows = [(row.field, _value(row.value), row.unit or "", row.evidence, row.source) for row in describe(target)]
    table = text_table(("what", "value", "unit", "evidence", "source"), rows, indent="")
    used = ", ".join((*MAPPED_PROFILES, FORMULA_PROFILE))
    times = RATE_PROFILE[target.profile]
    last = f"Reports of it use the prices {used}, and the times {times}, unless --prices names others."
    return "\n".join([f"{target.name}: {target.title}", target.description.strip(), "", *table, "", last])


def _profile_text(profile: PriceProfile) -> str:
    head = ("what", "price", "unit", "converted", "scope", "evidence", "source")
    rows: list[tuple[str, ...]] = [
        (term, f"{p.value:g}", p.unit, profile.conversion(term), p.scope.replace("_", "-"), p.evidence, p.source)
        for term, p in profile.prices.items()
        if p.value is not None and _told(p)
    ]
    lines = [f"{profile.name}: {profile.title}", profile.description.strip(), f"Label: {profile.scope_label}", ""]
    lines += text_table(head, rows, indent="") if rows else ["No price is known."]
    for term, price in profile.prices.items():
        if price.conditions and _told(price):
            lines.append(f"{term}: published for {price.conditions}")
    for by in profile.all_in:
        inside = (term for term, where in profile.inside.items() if where == by)
        lines.append(f"inside of the price of {by}, nothing on top: {', '.join(inside)}")
    unknown = {t: p.note for t, p in profile.prices.items() if p.value is None and _told(p)}
    for note in dict.fromkeys(unknown.values()):
        lines.append(f"no published price: {', '.join(t for t, why in unknown.items() if why == note)}. {note}")
    limits = [(name, _cited(limit)) for name, limit in _facts(profile)]
    if limits:
        rows = [(name, *cells) for name, cells in limits]
        lines += ["", *text_table(("limit", "value", "unit", "evidence", "source"), rows, indent="")]
    return "\n".join(lines)


def _told(price: Price) -> bool:
    """Whether a price is of the file itself, not filled in."""
    return price.inside is None and price.part_of is None


def _facts(profile: PriceProfile) -> Iterable[tuple[str, Cited[Any]]]:
    more = {"clock": profile.clock, "tick": profile.tick}
    return [*((name, fact) for name, fact in more.items() if fact is not None), *profile.limits.items()]


def _cited(fact: Cited[Any]) -> tuple[str, str, str, str]:
    return _value(fact.value), fact.unit or "", fact.evidence, fact.source


def _profile_json(profile: PriceProfile) -> dict[str, Any]:
    about = {"name": profile.name, "kind": profile.kind, "chip": profile.chip, "scope_label": profile.scope_label}
    facts = {name: fact.model_dump(mode="json") for name, fact in _facts(profile)}
    return {**about, **price_table(profile), "facts": facts}


def _value(value: object) -> str:
    if value is None:
        return "not stated"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
