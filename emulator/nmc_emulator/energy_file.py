"""Whether the energies of a report that was read from a file are all there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .energies import Data

Types = tuple[type, ...]
_NUMBER, _TEXT, _MAYBE = (int, float), (str,), (int, float, type(None))
_ENERGY: dict[str, Types] = {
    "title": _TEXT,
    "per_timestep_pj": _NUMBER,
    "counts": (dict,),
    "kinds_pj": (dict,),
    "static_pj": _MAYBE,
    "static_share": _MAYBE,
    "all_in": (dict,),
    "inside": (dict,),
}
_RANGE: dict[str, Types] = (
    dict.fromkeys(("low", "high", "term", "reason"), _TEXT)
    | dict.fromkeys(("low_pj", "high_pj", "term_low_pj", "term_high_pj"), _NUMBER)
    | {"ratio": _MAYBE, "complete": (bool,)}
)
_TABLE: dict[str, Types] = {"title": _TEXT, "description": _TEXT, "prices": (dict,)}
_PRICE: dict[str, Types] = (
    dict.fromkeys(("unit", "scope", "evidence", "source", "note", "conditions", "conversion"), _TEXT)
    | dict.fromkeys(("inside", "part_of"), (str, type(None)))
    | {"value": _MAYBE}
)


def damaged_energies(data: Data) -> str:
    """What of the energies of a report that was read from a file is missing or of a wrong type; "" if nothing is."""
    names = [e["profile"] for e in data["energy"]]
    for what, tree, wanted in _parts(data, names):
        if not isinstance(tree, dict):
            return what
        for key, types in wanted.items():
            if key not in tree or not isinstance(tree[key], types):
                return f"{what}/{key}"
    ends = {e["profile"] for e in data["energy"] if e["kind"] == "mapped"}
    return "" if {data["energy_range"]["low"], data["energy_range"]["high"]} <= ends else "energy_range/low"


def _parts(data: Data, names: Sequence[str]) -> Iterator[tuple[str, Any, Mapping[str, Types]]]:
    """Objects, where they are, and what they should hold."""
    yield "energy_range", data["energy_range"], _RANGE
    for i, entry in enumerate(data["energy"]):
        yield f"energy/{i}", entry, _ENERGY
        for key, of in (("counts", _NUMBER), ("kinds_pj", _NUMBER), ("all_in", _TEXT), ("inside", _TEXT)):
            yield f"energy/{i}/{key}", entry[key], dict.fromkeys(entry[key], of)
    yield "prices", data["prices"], dict.fromkeys(names, (dict,))
    for name in names:
        yield f"prices/{name}", data["prices"][name], _TABLE
        for term, price in data["prices"][name]["prices"].items():
            yield f"prices/{name}/prices/{term}", price, _PRICE
    for i, layer in enumerate(data["layers"]):
        for key, types in (("energy_pj", _NUMBER), ("terms_pj", (dict,)), ("missing", (list,))):
            yield f"layers/{i}/{key}", layer[key], dict.fromkeys(names, types)
        for name in names:
            yield (
                f"layers/{i}/terms_pj/{name}",
                layer["terms_pj"][name],
                dict.fromkeys(layer["terms_pj"][name], _NUMBER),
            )
    if data["per_core"] is not None:
        yield "per_core", data["per_core"], dict.fromkeys(("counts", "terms", "energy_pj", "missing"), (dict,))
