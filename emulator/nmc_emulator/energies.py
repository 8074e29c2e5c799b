"""The energies of a report: its counts under price profiles, the range of these, and the same under others later on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from nmc_compiler.errors import UsageError

from .core_cost import core_energy
from .cost import (
    CHIP_TERMS,
    FORMULA_PROFILE,
    HOST_OP,
    LAYER_TERMS,
    MAPPED_PROFILES,
    PAPER_TERMS,
    Energy,
    formula_energy,
    mapped_energy,
)
from .price_profile import KINDS, POWER_TERMS, PriceProfile, load_profile

Data = Mapping[str, Any]
ELSEWHERE = " on a Loihi 2 mapping"  # how labels of prices of Loihi 1 end
ENERGIES_REST = "spikes and counts are exact; energies are counts times"
PRICED = {  # what is known of each chip, by integer profile, in the profiles that nmc takes itself
    "loihi1": "simulated or fitted, not measured",
    "loihi2": "most of them of another chip",
    "neurocore": "all of them of other chips",
}


def units_of(data: Data) -> int:
    """What averages of a report are taken over: samples, or timesteps of a stream."""
    return int(data["timesteps"] if data.get("stream") else data["samples"])


def split_rates(
    names: Iterable[str | os.PathLike[str]],
) -> tuple[list[str | os.PathLike[str]], PriceProfile | None]:
    """The names of profiles of energies, and the profile of times. UsageError for two of times."""
    energies, rates = [], []
    for name in names:
        profile = load_profile(name)
        if profile.kind == "latency":
            rates.append(profile)
        else:
            energies.append(name)
    if len(rates) > 1:
        raise UsageError(f"{rates[0].name} and {rates[1].name} both hold times; give one of them")
    return energies, rates[0] if rates else None


def choose_profiles(names: Iterable[str | os.PathLike[str]] = ()) -> list[PriceProfile]:
    """The profiles of these names or files; those of a kind that none is given of are the ones nmc takes itself.

    UsageError for an unknown name, a profile of times, or one name twice; VerifyError for a damaged file.
    """
    given = [load_profile(name) for name in names]
    for profile in given:
        if profile.kind == "latency":
            raise UsageError(
                f"price profile {profile.name} holds times, and energies are made of prices; "
                "times are taken where a run is made: nmc emulate --prices"
            )
    twice = next((p.name for i, p in enumerate(given) if p.name in [q.name for q in given[:i]]), None)
    if twice is not None:
        raise UsageError(f"price profile {twice} is given twice; give it once, or another name to one of the files")
    kinds = {profile.kind for profile in given}
    mapped = [] if "mapped" in kinds else [load_profile(name) for name in MAPPED_PROFILES]
    formula = [] if "formula" in kinds else [load_profile(FORMULA_PROFILE)]
    return [*mapped, *sorted(given, key=lambda p: p.kind == "formula"), *formula]


def priced(data: Data, profiles: Sequence[PriceProfile]) -> dict[str, Any]:
    """A report with its energies under ``profiles``, from the counts in it, and the assumption that names these.

    Profiles of kind formula are left out where nobody knows the network as trained (``formula`` of the report says so).
    UsageError for a report without its counts by price term.
    """
    layers, known = data["layers"], has_formula(data)
    profiles = [profile for profile in profiles if known or profile.kind != "formula"]
    good = "rules" in data and set(data.get("chip_terms", ())) == set(CHIP_TERMS) and data["chip_terms"]["static"] > 0
    good &= all(set(layer.get("terms", ())) == set(LAYER_TERMS) for layer in layers)
    good &= all(set(layer["formula"]) == set(PAPER_TERMS) for layer in layers if known)
    if not good:
        raise UsageError("this report does not hold its counts by price term; run `nmc emulate` again")
    found = [_energy(profile, data) for profile in profiles]
    entries = [_entry(energy, data) for energy in found]
    mapped = [profile for profile in profiles if profile.kind == "mapped"]
    rest = rest_of_energies(data["rules"], mapped)
    changed = {
        "assumptions": [rest if line.startswith(ENERGIES_REST) else line for line in data["assumptions"]],
        "energy": entries,
        "energy_range": energy_range(entries, units_of(data)),
        "prices": {profile.name: price_table(profile) for profile in profiles},
        "layers": [layer | _layer_energies(layer, i, found) for i, layer in enumerate(layers)],
    }
    if data["per_core"] is not None:
        counts = {term: np.array(row) for term, row in data["per_core"]["terms"].items()}
        energies = {profile.name: core_energy(profile, counts).tolist() for profile in mapped}
        happened = {term: int(row.sum()) for term, row in counts.items()}
        missing = {e.profile.name: e.layer_missing(happened) for e in found if e.profile.kind == "mapped"}
        changed["per_core"] = {**data["per_core"], "energy_pj": energies, "missing": missing}
    return {**data, **changed}


def rest_of_energies(rules: str | None, mapped: Sequence[PriceProfile]) -> str:
    """What energies under mapped profiles rest on, for the assumptions of a report."""
    if [profile.name for profile in mapped] == list(MAPPED_PROFILES):
        return f"{ENERGIES_REST} published prices, {PRICED[rules or 'loihi2']}"
    told = []
    for profile in mapped:
        known = [p for p in profile.prices.values() if p.value is not None and p.inside is None and p.part_of is None]
        told.append(f"{profile.name} ({' and '.join(sorted({p.evidence for p in known})) or 'none is known'})")
    return f"{ENERGIES_REST} the prices of {', '.join(told)}"


def _layer_energies(layer: Data, i: int, found: Sequence[Energy]) -> dict[str, dict[str, Any]]:
    """Energies of layer i by profile, as a whole and by term, and what is missing in them."""
    return {
        "energy_pj": {e.profile.name: e.layers_pj[i] for e in found},
        "terms_pj": {e.profile.name: _nonzero(e.layer_terms_pj[i]) for e in found},
        "missing": {e.profile.name: e.layer_missing(_of_layer(layer, e)) for e in found},
    }


def with_formula(data: Data, profiles: Sequence[PriceProfile] = ()) -> dict[str, Any]:
    """A report whose layers hold counts of the papers' formula with their energies besides those that it has.

    profiles: of which those of kind formula are taken; none: the ones nmc takes itself.
    """
    wanted = [profile for profile in profiles or choose_profiles() if profile.kind == "formula"]
    found = [_energy(profile, data) for profile in wanted]
    layers = []
    for i, layer in enumerate(data["layers"]):
        more = _layer_energies(layer, i, found)
        layers.append({**layer, **{key: {**layer[key], **value} for key, value in more.items()}})
    prices = {**data["prices"], **{profile.name: price_table(profile) for profile in wanted}}
    energy = [*data["energy"], *(_entry(e, data) for e in found)]
    return {**data, "energy": energy, "layers": layers, "prices": prices}


def has_formula(data: Data) -> bool:
    """Whether the layers of a report hold counts of the papers' formula."""
    return any(layer.get("formula") for layer in data["layers"])


def _of_layer(layer: Data, energy: Energy) -> Mapping[str, float]:
    """Counts of a layer, in the terms of a profile."""
    if energy.profile.kind == "mapped":
        return layer["terms"]  # type: ignore[no-any-return]
    return {term.replace("fp32", energy.profile.type): n for term, n in layer["formula"].items()}


def _energy(profile: PriceProfile, data: Data) -> Energy:
    if profile.kind == "formula":
        unknown = data["formula"]["variants"][data["formula"]["variant"]]["missing"]
        return formula_energy(profile, [layer["formula"] for layer in data["layers"]], unknown)
    chip = {**data["chip_terms"]}
    for term, count in _host_terms(data).items():
        chip[term] = chip.get(term, 0) + count
    return mapped_energy(profile, [layer["terms"] for layer in data["layers"]], chip)


def _host_terms(data: Data) -> dict[str, int]:
    """Work of a part of the network on the host; what it sends is counted as the chip's input messages already."""
    host = data.get("host")
    if host is None:
        return {}
    work = host["work"]
    rest = sum(n for kind, n in work.items() if kind != "macs")
    return {"host_mac": work["macs"], "host_message": host["messages"]["read"], HOST_OP: rest}


def by_kind(terms: Mapping[str, float]) -> dict[str, float]:
    """Energies by price term, added up by kind of work."""
    return {kind: sum(terms.get(term, 0.0) for term in among) for kind, among in KINDS.items()}


def _nonzero(terms: Mapping[str, float]) -> dict[str, float]:
    return {term: value for term, value in terms.items() if value}


def _entry(energy: Energy, data: Data) -> dict[str, Any]:
    profile, terms = energy.profile, energy.terms_pj
    steps = data["timesteps"] if data.get("stream") else data["samples"] * data["timesteps"]
    static, inside = _static(energy), {t: by for t, by in profile.inside.items() if energy.counts.get(t)}
    return {
        "profile": profile.name,
        "title": profile.title,
        "label": _label(profile, data),
        "kind": profile.kind,
        "counts_what": _counted(data) if profile.kind == "formula" else "",
        "total_pj": energy.total_pj,
        "per_sample_pj": energy.total_pj / data["samples"],
        "per_timestep_pj": energy.total_pj / max(steps, 1),
        "complete": energy.complete,
        "missing": list(energy.missing),
        "reasons": dict(energy.reasons),
        "counts": dict(energy.counts),
        "terms_pj": dict(terms),
        "kinds_pj": by_kind(terms) if profile.kind == "mapped" else {},
        "static_pj": static,
        "static_share": static / energy.total_pj if static is not None and energy.total_pj else None,
        "all_in": {term: price.conditions for term, price in profile.all_in.items()},
        "inside": inside,
    }


def _label(profile: PriceProfile, data: Data) -> str:
    """What the prices are, and that they are of another chip than the mapping where they are."""
    own, other = profile.scope_label.removesuffix(ELSEWHERE), data["target"]
    if own == profile.scope_label:
        its = profile.chip is None or str(other).startswith(profile.chip)
        return own if its or profile.kind != "mapped" or other is None else f"{own}; counts of a mapping for {other}"
    if other in ("loihi2", None):
        return profile.scope_label
    return own if profile.chip == data["rules"] else f"{own} on a mapping for {other}"


def _counted(data: Data) -> str:
    """What the formula counts."""
    told = data["formula"]
    return f"variant '{told['variant']}': {told['variants'][told['variant']]['what']}"


def _static(energy: Energy) -> float | None:
    """Energy of powered time; None where it has no price, or is inside of another one."""
    prices = energy.profile.prices
    if "static" not in prices or prices["static"].value is None or energy.profile.inside.get("static"):
        return None
    return sum(energy.terms_pj.get(term, 0.0) for term in POWER_TERMS)


# --- profiles beside each other ---------------------------------------------------------------------------


def energy_range(entries: Sequence[Data], units: int) -> dict[str, Any]:
    """The lowest and highest of the mapped profiles, per sample or timestep, and why they differ.

    term: the one in which the two differ most.
    """
    mapped = sorted((e for e in entries if e["kind"] == "mapped"), key=lambda e: (e["total_pj"], e["profile"]))
    low, high = mapped[0], mapped[-1]
    terms = sorted({*low["terms_pj"], *high["terms_pj"]})
    apart = {t: high["terms_pj"].get(t, 0.0) - low["terms_pj"].get(t, 0.0) for t in terms}
    term = max(terms, key=lambda t: (abs(apart[t]), t), default="") if low is not high else ""
    return {
        "low": low["profile"],
        "high": high["profile"],
        "low_pj": low["total_pj"] / units,
        "high_pj": high["total_pj"] / units,
        "ratio": high["total_pj"] / low["total_pj"] if low["total_pj"] else None,
        "complete": low["complete"] and high["complete"],
        "term": term,
        "term_low_pj": low["terms_pj"].get(term, 0.0) / units,
        "term_high_pj": high["terms_pj"].get(term, 0.0) / units,
        "reason": _why(low, high, term),
    }


def _why(low: Data, high: Data, term: str) -> str:
    """One line on why two profiles differ."""
    if low is high:
        return "one profile"
    if bool(low["all_in"]) != bool(high["all_in"]):
        whole, parts = (low, high) if low["all_in"] else (high, low)
        what = ", ".join(whole["all_in"])
        return f"{whole['profile']} has everything in its price of {what}, {parts['profile']} prices operations apart"
    if not term or low["total_pj"] == high["total_pj"]:
        return "they agree"
    for one in (low, high):
        if term in one["inside"]:
            return f"they differ most in {term}, which {one['profile']} has inside of {one['inside'][term]}"
    for one, other in ((low, high), (high, low)):
        if term in one["missing"] and term not in one["terms_pj"]:
            return f"they differ most in {term}, which has no price in {one['profile']} but in {other['profile']}"
    return f"they differ most in {term}"


def price_table(profile: PriceProfile) -> dict[str, Any]:
    """What a report says of a profile: every price with value, unit, scope, evidence, source and note."""
    prices = {
        term: {
            "value": price.value,
            "unit": price.unit,
            "scope": price.scope,
            "evidence": price.evidence,
            "source": price.source,
            "note": price.note or "",
            "conditions": price.conditions or "",
            "conversion": profile.conversion(term),
            "inside": price.inside,
            "part_of": price.part_of,
        }
        for term, price in sorted(profile.prices.items())
    }
    return {"title": profile.title, "description": profile.description, "prices": prices}
