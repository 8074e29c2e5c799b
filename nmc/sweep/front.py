"""Figures of points by name, and the points that no other beats in all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nmc.sweep.records import Record
from nmc_compiler.errors import UsageError

# Objective -> (figure of a record, whether more is better).
FIGURES = {
    "accuracy": ("accuracy", True),
    "cores": ("cores", False),
    "chips": ("chips", False),
    "synapse_words": ("synapse_words", False),
    "weight_error": ("weight_error", False),
    "synops": ("synops_effective", False),
    "spikes": ("spikes", False),
    "updates": ("neuron_updates", False),
    "packets": ("packets", False),
    "hops": ("hops", False),
    "latency": ("latency_ticks", False),
    "interval": ("interval_ticks", False),
    "seconds": ("seconds", False),
}
ENERGY = "energy"  # or energy:PROFILE


@dataclass(frozen=True)
class Objective:
    """What a sweep is to find the least, or the most, of."""

    name: str
    more: bool
    figure: str = ""
    profile: str = ""

    def value(self, record: Record) -> float | None:
        """Of a point; None where it has none."""
        if record.status != "done":
            return None
        if self.profile:
            found = (record.energy or {}).get(self.profile)
            return None if found is None else found.pj
        return (record.figures or {}).get(self.figure)

    def at_least(self, record: Record) -> bool:
        """Whether terms are missing from the value."""
        found = (record.energy or {}).get(self.profile)
        return found is not None and found.at_least


def check_objectives(names: Sequence[str]) -> None:
    """UsageError for a name that is none."""
    for i, name in enumerate(names):
        if name not in FIGURES and name.partition(":")[0] != ENERGY:
            raise UsageError(f"--objective {name}: no such figure; known: {', '.join(FIGURES)}, energy, energy:PROFILE")
        if name in names[:i]:
            raise UsageError(f"--objective {name}: is given twice")


def objectives_of(names: Sequence[str], records: Sequence[Record]) -> list[Objective]:
    """The objectives by name; without names those that suit what is known of the points.

    "energy" is under the first price profile, in order of names, of those of mapped networks that cover all finished
    points.
    UsageError for a figure that no point has.
    """
    done = [r for r in records if r.status == "done"]
    known = [{name for name, e in r.energy.items() if e.kind == "mapped"} for r in done if r.energy]
    shared = sorted(set.intersection(*known)) if known and len(known) == len(done) else []
    return [_objective(name, done, shared) for name in names or _defaults(done)]


def _defaults(done: list[Record]) -> tuple[str, ...]:
    if done and all((r.figures or {}).get("accuracy") is not None for r in done):
        return ("energy", "accuracy")
    return ("energy", "latency") if done and all(r.energy for r in done) else ("cores", "synapse_words")


def _objective(name: str, done: list[Record], shared: list[str]) -> Objective:
    kind, _, profile = name.partition(":")
    if kind != ENERGY:
        figure, more = FIGURES[name]
        found = Objective(name, more, figure)
    else:
        profile = profile or next(iter(shared), "")
        found = Objective(f"{ENERGY}:{profile}", False, profile=profile)
        if done and not profile:
            raise UsageError(
                "--objective energy: no price profile covers all points; run them with --input, or name one"
            )
    if done and all(found.value(r) is None for r in done):
        profiles = sorted({p for r in done for p in r.energy or {}})
        hint = "it takes --input with labels"
        if kind == ENERGY:
            hint = f"profiles: {', '.join(profiles) or 'none, as nothing was run (--input)'}"
        raise UsageError(f"--objective {name}: no point has this figure; {hint}")
    return found


def front(records: Sequence[Record], objectives: Sequence[Objective]) -> set[str]:
    """Keys of the Pareto front: of the points that have every objective, those that no other is as good as in all of
    them and better in one. Points that are equal in all stand on it together."""
    values: dict[str, list[float]] = {}
    for r in records:
        found = [-v if o.more else v for o in objectives if (v := o.value(r)) is not None]
        if len(found) == len(objectives):
            values[r.key] = found
    return {
        key
        for key, mine in values.items()
        if not any(all(a <= b for a, b in zip(v, mine, strict=True)) and v != mine for v in values.values())
    }
