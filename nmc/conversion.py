"""The conversion report for people: per layer what was rounded, by how much, and what it did to spikes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from nmc_compiler.errors import UsageError
from nmc_emulator.tables import markdown_table, text_table

SCHEMA = "nmc.conversion-report/1"
HEAD = ("layer", "range", "scale", "weight error", "decay", "threshold", "bias", "rating")
EFFECT = ("spikes float", "int", "differ", "by itself", "potential error", "out of range")
RATINGS = ("faithful", "approximate", "refused")
MATTERS = 1.5  # times as many spikes differ with one weight bit less where weights are the cause


@dataclass(frozen=True)
class ConversionTable:
    """One row per population, in the order of the network; ``worst`` says which layer is worst and why."""

    rows: list[dict[str, Any]]
    worst: str
    notes: list[str]
    samples: int | None

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA, "samples": self.samples, "worst": self.worst, "notes": self.notes, "layers": self.rows
        }  # fmt: skip

    def text(self) -> str:
        """For the terminal."""
        return self._told(text_table)

    def markdown(self) -> str:
        """As Markdown."""
        return self._told(markdown_table)

    def _told(self, table: Any) -> str:
        head = (*HEAD, *(EFFECT if self.samples else ()))
        lines = [self.worst, "", *table(head, [_cells(row, bool(self.samples)) for row in self.rows]), "", *self.notes]
        return "\n".join(lines).rstrip() + "\n"


def conversion_table(conversion: dict[str, Any]) -> ConversionTable:
    """The table of a conversion report (``Compiled.conversion``).

    UsageError for the report of an artefact that was not made from a model.
    """
    if "layers" not in conversion:
        raise UsageError("this Program has no conversion report of this version of nmc; compile its model (again)")
    found = conversion.get("calibration")
    effects = {e["layer"]: e for e in found["populations"]} if found else {}
    entries = [e for e in conversion["entries"] if e["pass"] == "quantize"]
    rows = [_row(layer, entries, effects) for layer in conversion["layers"]]
    changed = [e for e in conversion["entries"] if e["pass"] != "quantize" and "rating" in e]
    for row in rows:
        _rate(row, [e for e in changed if e["layer"] in (row["layer"], row["layer"].rpartition(".")[0])])
    found = found if entries else {"populations": []}
    samples = found["samples"] if found and effects else None
    told = [f"{e['layer']}: {reason} ({e['pass']})" for e in changed for reason in e.get("reasons", ())]
    return ConversionTable(rows, _worst(rows, found), [*told, *_notes(samples, entries)], samples)


# --- rows ---


def _row(layer: dict[str, Any], entries: list[dict[str, Any]], effects: dict[str, Any]) -> dict[str, Any]:
    name = layer["layer"]
    own = next((e for e in entries if e["layer"] == name and e["kind"] not in ("weights", "host")), {})
    weights = [e for e in entries if e["layer"] in layer["reads"] and e["kind"] == "weights"]
    part_of = name.rpartition(".")[0]
    reasons = own["reasons"] if "rating" in own else [*_reasons(own, weights, layer), *own.get("reasons", ())]
    row = {
        "layer": name,
        "kind": layer["kind"],
        "reads": layer["reads"],
        "range": _range(weights),
        "scale": own.get("scale", own.get("step")),
        "weight_worst_error": _largest(e["worst_error"] / e["largest"] for e in weights if e.get("largest")),
        "weight_mean_error": _largest(e["mean_error"] / e["largest"] for e in weights if e.get("largest")),
        "decay": layer.get("decay", {}),
        "theta": layer.get("theta"),
        "vth": own.get("vth"),
        "threshold_error": own.get("vth_error_relative"),
        "bias_error": _bias_error(own),
        "rating": own.get("rating", "approximate" if reasons else "faithful"),
        "reasons": reasons,
        "effect": effects.get(name, effects.get(part_of)),
    }
    return row


def _rate(row: dict[str, Any], entries: list[dict[str, Any]]) -> None:
    """Add what other passes made of a layer: it is as faithful as the least faithful of them."""
    ratings = [row["rating"], *(e["rating"] for e in entries)]
    row["rating"] = max(ratings, key=RATINGS.index)
    row["reasons"] = [*row["reasons"], *(reason for e in entries for reason in e.get("reasons", ()))]


def _range(weights: list[dict[str, Any]]) -> list[float] | None:
    if not weights:
        return None
    return [min(e["least"] for e in weights), max(e["greatest"] for e in weights)]


def _largest(values: Iterable[float]) -> float | None:
    return max(values, default=None)


def _bias_error(own: dict[str, Any]) -> float | None:
    """In thresholds, the lowest of the channels."""
    vth = own.get("vth")
    low = min((abs(v) for v in vth if v), default=None) if isinstance(vth, list) else vth
    return own["bias_worst_error_units"] / low if "bias_worst_error_units" in own and low else None


def _reasons(own: dict[str, Any], weights: list[dict[str, Any]], layer: dict[str, Any]) -> list[str]:
    """Why a layer of a transformer is approximate; general networks have theirs in the report."""
    if own.get("exact") or own.get("kind") == "counts":
        return [] if own.get("exact") else [own.get("remark") or "counts are rounded"]
    found = [f"weights are rounded by up to {e['worst_error']:.2g}" for e in weights if e["worst_error"]][:1]
    found += ["decays are rounded"] if layer.get("decay") else []
    found += ["the threshold is rounded"] if (own.get("vth_error_relative") or 0) > 1e-9 else []
    found += ["biases are rounded"] if own.get("bias_worst_error_units") else []
    return found + ([">= becomes >"] if str(own.get("compare", "")).startswith("ge") else [])


# --- the worst layer ---


def _worst(rows: list[dict[str, Any]], found: dict[str, Any] | None) -> str:
    if found is None:
        return "What quantisation does to spikes is not known: compile with --calib FILE.npz (inputs, no test data)"
    effects = [row["effect"] for row in rows if row["effect"]]
    if not effects:
        return "Nothing was quantised: the integers are the file's"
    samples = f"{found['samples']} calibration sample{'s' if found['samples'] != 1 else ''}"
    out = next((row for row in rows if row["effect"] and row["effect"]["overflows"]), None)
    if out is not None:
        register, times = next(iter(out["effect"]["overflows"].items()))
        return (
            f"Worst: {out['layer']}. On {samples} its {register} left 24 bits {times:,} times, and wraps or saturates."
            " Give calibration data that reach as far as real inputs do, or train it with smaller weights"
        )
    told = found["worst"]
    if told is None:
        differ = max(effects, key=lambda e: e["different"])
        if not differ["different"]:
            return f"No spike differs on {samples}"
        return (
            f"No layer differs by itself on {samples}; up to {differ['different']:,} spikes of {differ['layer']} differ"
        )
    effect = next(e for e in effects if e["layer"] == told["layer"])
    places = effect["neurons"] * effect["steps"] * effect["samples"]
    return (
        f"Worst: {told['layer']}. On {samples} {effect['own']:,} of its {effect['spikes_float']:,} spikes differ by"
        f" itself ({100 * effect['own'] / places:.2g} % of its neurons and timesteps), {effect['different']:,} with"
        f" what comes before. {_hint(rows, told, effect)}"
    )


def _hint(rows: list[dict[str, Any]], told: dict[str, Any], effect: dict[str, Any]) -> str:
    """What the experiment says: whether one weight bit less makes it worse; else which rounding is the largest."""
    row = next(r for r in rows if r["effect"] is effect)
    bits, fewer = told["weight_bits"], told.get("own_with_fewer_bits")
    if fewer is not None and fewer >= MATTERS * effect["own"]:
        return (
            f"It is its weights: with {told['fewer_bits']} bits instead of {bits}, {fewer:,} would differ. Train with"
            f" weights rounded to {bits} bits, or so that the largest is nearer to the others"
        )
    causes = {
        "its threshold is rounded": row["threshold_error"] or 0.0,
        "its biases are rounded": row["bias_error"] or 0.0,
        "its decays are rounded": _largest(abs(a - b) for a, b in row["decay"].values()) or 0.0,
    }
    cause, size = max(causes.items(), key=lambda item: item[1])
    seen = (
        f"with {told['fewer_bits']} bits {fewer:,} would differ"
        if fewer is not None
        else "no coarser ones can be tried"
    )
    if size > (row["weight_mean_error"] or 0.0):
        return f"It is not its weights alone ({seen}): {cause} by {100 * size:.2g} % of a threshold or step"
    return (
        f"No single number is to blame ({seen}): its potentials come near its threshold, and rounding decides; the"
        f" mean error is {100 * (effect['own_mean'] or 0):.2g} % of a threshold"
    )


def _notes(samples: int | None, entries: list[dict[str, Any]]) -> list[str]:
    if not entries:
        return []
    notes = [
        "weight error: worst and mean, relative to the largest. decay: what is kept of a step. bias: in thresholds."
    ]
    if samples:
        notes += [
            "differ: neurons and timesteps at which only one network fires. by itself: where the layer hears the float"
            " network's spikes.",
            "potential error: mean, in thresholds, where the layer hears the float network's spikes and neither fires.",
        ]
    return notes


# --- cells ---


def _cells(row: dict[str, Any], with_effect: bool) -> tuple[str, ...]:
    low, high = row["range"] or (None, None)
    both = (row["weight_worst_error"], row["weight_mean_error"])
    decays = [f"{key} {a:.6g} -> {b:.6g}" for key, (a, b) in row["decay"].items()]
    cells = (
        row["layer"],
        "" if low is None else f"{low:.3g} .. {high:.3g}",
        _number(row["scale"]),
        "" if both[0] is None else f"{100 * both[0]:.2g} % {100 * (both[1] or 0):.2g} %",
        ", ".join(decays),
        _threshold(row),
        "" if row["bias_error"] is None else f"{row['bias_error']:.2g}",
        row["rating"],
    )
    return (*cells, *(_effect_cells(row["effect"]) if with_effect else ()))


def _effect_cells(effect: dict[str, Any] | None) -> tuple[str, ...]:
    if effect is None:
        return ("",) * len(EFFECT)
    return (
        f"{effect['spikes_float']:,}",
        f"{effect['spikes_int']:,}",
        f"{effect['different']:,}",
        f"{effect['own']:,}",
        "" if effect["own_mean"] is None else f"{effect['own_mean']:.2g}",
        f"{sum(effect['overflows'].values()):,}",
    )


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.5g}"


def _threshold(row: dict[str, Any]) -> str:
    """As trained, as integers, and how far these are off where they are."""
    theta, vth, error = row["theta"], row["vth"], row["threshold_error"]
    if theta is None or vth is None:
        return ""
    whole = vth if isinstance(vth, list) else [vth]
    several = f"{whole[0]} .. {whole[-1]}" if len(whole) > 1 else str(whole[0])
    return f"{theta:.4g} -> {several}" + (f", {100 * error:.2g} %" if error else "")
