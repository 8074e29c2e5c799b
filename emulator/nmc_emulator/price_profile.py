"""Price profiles: what one counted event costs, each price with evidence and source.

A price that nobody has published is null. Energy over such a term is never
silently zero: the result says `complete=False` and names the term.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from nmc_compiler.errors import UsageError
from nmc_compiler.target import Cited, Spec, find_spec, list_names, read_spec
from nmc_compiler.target.spec import Name, Text

PROFILES = Path(__file__).parent / "prices"

# What one count of a term is.
_CORE_TERMS = {
    "synop": "a static weight read and added to one neuron, format not told",
    "synop_dense": "the same in a dense projection",
    "synop_sparse": "the same in a sparse projection",
    "synop_conv": "the same in a convolution",
    "dyn_write": "one entry of a dynamic synapse table incremented",
    "dyn_read": "one entry of a dynamic synapse table read and added to one neuron",
    "neuron_active": "a neuron's tick with an input event, a nonzero bias or a spike",
    "neuron_inactive": "any other tick of a mapped neuron",
    "spike_out": "a spike made by a soma",
    "axon_out": "a packet sent by a core",
    "axon_in": "a packet received by a core",
    "hop_ew": "a packet over one mesh link along x",
    "hop_ns": "a packet over one mesh link along y",
    "bias_event": "a bias added to one neuron by a gated source",
    "pool_op": "an event received by a neuron of an OR pool",
    "pool_compare": "a comparison of a maximum over currents",
    "gate_op": "an event received by a neuron of an AND or OR gate",
    "accumulator_add": "a weight added to a shared residual accumulator",
    "relay_event": "an event received by a relay neuron",
    "barrier": "a barrier-synchronised tick of one chip",
}
MAPPED_TERMS = _CORE_TERMS | {
    "neuron_update": "a neuron's tick, activity not told",
    "within_tile_spike": "a packet between cores of one router",
    "host_mac": "a multiply-accumulate on the host",
    "host_message": "a message between host and chip",
    "static": "one nanosecond of one powered chip",
}
LATENCY_TERMS = _CORE_TERMS | {"timestep_floor": "a tick, however little happens in it"}
FORMULA_TERMS = {
    f"{op}_{dtype}": f"{text}, {dtype}"
    for dtype in ("fp32", "fp16", "int32", "int8")
    for op, text in (("ac", "an accumulate"), ("mac", "a multiply-accumulate"))
}
TERMS = {"mapped": MAPPED_TERMS, "formula": FORMULA_TERMS, "latency": LATENCY_TERMS}
UNITS = {"mapped": "pJ", "formula": "pJ", "latency": "ns"}

# A total and its parts must not both be charged.
PARTS = {
    "synop": ("synop_dense", "synop_sparse", "synop_conv"),
    "neuron_update": ("neuron_active", "neuron_inactive"),
}


class Price(Cited[Annotated[float, Field(ge=0)] | None]):
    """Cost of one event; `scope` tells an operation alone from a figure that has everything in it."""

    unit: Literal["pJ", "ns"]
    scope: Literal["op", "all_in"]


@dataclass(frozen=True)
class EnergyResult:
    """Energy of a set of counts in pJ; a lower bound ("at least") unless `complete`."""

    total_pj: float
    complete: bool
    missing: tuple[str, ...]  # terms that happened and have no price
    terms: Mapping[str, float]  # pJ of every priced term


class PriceProfile(Spec):
    """One set of prices, by term."""

    format: Literal["nmc.prices/1"] = Field(alias="schema")
    name: Name
    title: Text
    description: Text
    scope_label: Text  # printed beside every total
    kind: Literal["mapped", "formula", "latency"]
    prices: Mapping[str, Price]

    @field_validator("prices")
    @classmethod
    def _terms_of_the_kind(cls, prices: Mapping[str, Price], info: ValidationInfo) -> Mapping[str, Price]:
        kind = info.data.get("kind")
        if kind is None:  # reported by its own field
            return prices
        if unknown := sorted(prices.keys() - TERMS[kind]):
            raise ValueError(f"no such terms of kind {kind}: {', '.join(unknown)}; known: {', '.join(TERMS[kind])}")
        if absent := [term for term in TERMS[kind] if term not in prices]:
            raise ValueError(f"terms of kind {kind} not given: {', '.join(absent)}; an unknown price is null")
        if wrong := sorted(term for term, price in prices.items() if price.unit != UNITS[kind]):
            raise ValueError(f"a price of kind {kind} is in {UNITS[kind]}, not so: {', '.join(wrong)}")
        return prices

    def price(self, term: str) -> float | None:
        """Cost of one event (pJ, or ns of kind latency); None where nobody has published it."""
        self._check_known([term])
        return self.prices[term].value

    def energy(self, counts: Mapping[str, float]) -> EnergyResult:
        """Price `counts` (events by term). A term that happened without a price makes the result incomplete.

        Raises UsageError for an unknown term, a count that is negative or not
        finite, a total charged together with its parts, and a latency profile.
        """
        if self.kind == "latency":
            raise UsageError(f"price profile {self.name} holds times, not energies; use a mapped or formula profile")
        self._check_known(counts)
        _check_counts(counts)
        priced = {term: self.prices[term].value for term in sorted(counts)}
        terms = {term: float(counts[term]) * price for term, price in priced.items() if price is not None}
        missing = tuple(term for term, price in priced.items() if price is None and counts[term] > 0)
        return EnergyResult(math.fsum(terms.values()), not missing, missing, terms)

    def _check_known(self, terms: Mapping[str, float] | list[str]) -> None:
        if unknown := sorted(set(terms) - self.prices.keys()):
            raise UsageError(
                f"price profile {self.name} has no term {', '.join(unknown)}; it has: {', '.join(sorted(self.prices))}"
            )


def _check_counts(counts: Mapping[str, float]) -> None:
    for term, count in counts.items():
        if not 0 <= count < math.inf:
            raise UsageError(f"count of {term} is {count}; a count is finite and not negative")
    for total, parts in PARTS.items():
        charged = [part for part in parts if counts.get(part)]
        if counts.get(total) and charged:
            raise UsageError(f"{total} is the sum that {', '.join(charged)} are parts of; count one or the other")


def list_profiles() -> list[str]:
    """Names of the price profiles that come with nmc, sorted."""
    return list_names(PROFILES)


def load_profile(name_or_path: str | os.PathLike[str]) -> PriceProfile:
    """The profile of that name, or of a YAML file.

    Raises UsageError for an unknown name or an unreadable file, VerifyError
    (file, line, field) for one that breaks the schema.

    >>> load_profile("loihi1-davies2018").price("synop")
    23.6
    """
    return read_spec(find_spec(name_or_path, PROFILES, "price profile"), PriceProfile, "price profile")
