"""Price profiles: what one counted event costs, each price with evidence and source.

A price that nobody has published is null. Energy over such a term is never
silently zero: the result says `complete=False` and names the term. A price of
scope all_in names the terms whose energy is inside of it, and these cost
nothing on top.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, ValidationInfo, field_validator, model_validator

from nmc_compiler.errors import UsageError
from nmc_compiler.target import Cited, PlacedError, Spec, find_spec, list_names, read_spec
from nmc_compiler.target.spec import NOT_STATED, Name, Text

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
    "static_core": "one nanosecond of one core in use, where that is told apart from the chip",
}
LATENCY_TERMS = _CORE_TERMS | {"timestep_floor": "a tick, however little happens in it"}
Type = Literal["fp32", "fp16", "int32", "int8"]
FORMULA_TERMS = {
    f"{op}_{dtype}": f"{text}, {dtype}"
    for dtype in get_args(Type)
    for op, text in (("ac", "an accumulate"), ("mac", "a multiply-accumulate"))
}
TERMS = {"mapped": MAPPED_TERMS, "formula": FORMULA_TERMS, "latency": LATENCY_TERMS}
POWER_TERMS = ("static", "static_core")

# Published units, in pJ per event, pJ per nanosecond, ns per event.
ENERGY = {"pJ": 1.0, "nJ": 1e3, "uJ": 1e6}
POWER = {"uW": 1e-3, "mW": 1.0, "W": 1e3, "pJ": 1.0}
TIME = {"ns": 1.0, "us": 1e3, "ms": 1e6}
MAX_PRICE = 1e15  # in any unit: so that no sum of counts times prices leaves the range of a float
CYCLE = "cycle"

# A total and its parts must not both be charged. A part that a profile does not give costs what the total does.
PARTS = {
    "synop": ("synop_dense", "synop_sparse", "synop_conv"),
    "neuron_update": ("neuron_active", "neuron_inactive"),
}

# Kinds of work, after the split of SANA-FE.
KINDS = {
    "synapse": (
        *("synop", *PARTS["synop"], "dyn_write", "dyn_read"),
        *("bias_event", "gate_op", "pool_op", "relay_event"),
    ),
    "dendrite": ("accumulator_add", "pool_compare"),
    "soma": ("neuron_update", *PARTS["neuron_update"], "spike_out"),
    "network": ("axon_out", "axon_in", "within_tile_spike", "hop_ew", "hop_ns"),
    "chip": ("barrier", *POWER_TERMS),
    "host": ("host_mac", "host_message"),
}


class Price(Cited[Annotated[float, Field(ge=0, le=MAX_PRICE)] | None]):
    """Cost of one event; `scope` tells an operation alone from a figure that has everything in it.

    conditions: voltage, load and so on that the figure is of.  covers: of scope all_in, the terms inside of it.
    """

    unit: Literal["pJ", "nJ", "uJ", "uW", "mW", "W", "ns", "us", "ms", "cycle"]
    scope: Literal["op", "all_in"]
    conditions: Text | None = None
    covers: Annotated[tuple[str, ...], Field(strict=False)] = ()
    inside: str | None = None  # filled in: the term whose price has this one inside
    part_of: str | None = None  # filled in: the total whose price this part has

    @model_validator(mode="after")
    def _all_in_says_of_what(self) -> Self:
        if self.scope == "all_in" and not self.covers:
            raise ValueError("a price of scope all_in names in covers the terms whose energy is inside of it")
        if self.scope == "all_in" and self.conditions is None:
            raise ValueError("a price of scope all_in tells in conditions the load that it was published for")
        if self.scope == "op" and self.covers:
            raise ValueError("covers is for a price of scope all_in")
        if self.inside is not None or self.part_of is not None:
            raise ValueError("inside and part_of are not for a file to say; see covers, and leave the parts out")
        return self


class Unpriced(Spec):
    """Terms without a published price, and why."""

    terms: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    source: Text
    note: Text


class Clock(Cited[Annotated[float, Field(gt=0)]]):
    """Of prices in cycles."""

    unit: Literal["MHz"]


class Tick(Cited[Annotated[float, Field(gt=0)]]):
    """How long a tick of the machine lasts, where it is wall-clock time."""

    unit: Literal["ns", "us", "ms"]


class Limit(Cited[int | float | str | Annotated[tuple[int, ...], Field(strict=False)] | None]):
    """What a chip without a target of nmc holds."""


@dataclass(frozen=True)
class EnergyResult:
    """Energy of a set of counts in pJ; a lower bound ("at least") unless `complete`."""

    total_pj: float
    complete: bool
    missing: tuple[str, ...]  # terms that happened and have no price
    terms: Mapping[str, float]  # pJ of every priced term


class PriceProfile(Spec):
    """One set of prices, by term.

    prices: all terms of the kind. Those that the file leaves out because they are inside of others
    (``inside``), because they are parts of a total, or listed as unpriced, are filled in.
    """

    format: Literal["nmc.prices/1"] = Field(alias="schema")
    name: Name
    title: Text
    description: Text
    scope_label: Text  # printed beside every total
    kind: Literal["mapped", "formula", "latency"]
    chip: Name | None = None  # whose prices they are
    type: Type = "fp32"  # of kind formula: of the operations that are counted
    clock: Clock | None = None
    tick: Tick | None = None
    limits: Mapping[str, Limit] = Field(default_factory=dict)
    unpriced: Annotated[tuple[Unpriced, ...], Field(strict=False)] = ()
    prices: Mapping[str, Price]

    @field_validator("prices")
    @classmethod
    def _terms_of_the_kind(cls, given: Mapping[str, Price], info: ValidationInfo) -> Mapping[str, Price]:
        kind = info.data.get("kind")
        if kind is None or "unpriced" not in info.data or "clock" not in info.data:  # reported by its own field
            return given
        for term, price in given.items():
            if term not in TERMS[kind]:
                raise PlacedError((term,), f"no such term of kind {kind}; known: {', '.join(TERMS[kind])}")
            _check_unit(term, price, kind, info.data["clock"])
        prices = dict(given) | _nulls(given, info.data["unpriced"], kind)
        prices |= _covered(prices, kind)
        for whole, parts in PARTS.items():
            if whole in prices and not any(part in prices for part in parts):
                prices |= {part: _part(prices[whole], whole) for part in parts}
        if kind == "mapped" and "static" in prices and "static_core" not in prices:
            prices["static_core"] = _inside(prices["static"], "static", "pJ")
        if absent := [term for term in TERMS[kind] if term not in prices]:
            raise ValueError(f"terms of kind {kind} not given: {', '.join(absent)}; an unknown price is null")
        return {term: prices[term] for term in TERMS[kind]}

    @property
    def inside(self) -> dict[str, str]:
        """Terms that cost nothing of their own, and the term whose price has them inside."""
        return {term: price.inside for term, price in self.prices.items() if price.inside is not None}

    @property
    def all_in(self) -> dict[str, Price]:
        """The prices that have others inside."""
        return {term: price for term, price in self.prices.items() if price.covers}

    def price(self, term: str) -> float | None:
        """Cost of one event (pJ, or ns of kind latency); None where nobody has published it."""
        self._check_known([term])
        price = self.prices[term]
        return None if price.value is None else price.value * self.factor(term)

    def factor(self, term: str) -> float:
        """Of the published unit of a term: pJ per event, pJ per nanosecond of static terms, ns of kind latency."""
        unit = self.prices[term].unit
        if unit == CYCLE:
            assert self.clock is not None
            return 1e3 / self.clock.value
        return (POWER if term in POWER_TERMS else TIME if self.kind == "latency" else ENERGY)[unit]

    def conversion(self, term: str) -> str:
        """How the published unit was converted, in words; "" where it was not."""
        price, own = self.prices[term], "ns" if self.kind == "latency" else "pJ"
        if price.value is None or price.unit == own or price.inside is not None:
            return ""
        at = f" at {self.clock.value:g} MHz" if price.unit == CYCLE and self.clock is not None else ""
        per = " per ns" if term in POWER_TERMS else ""
        return f"{price.value:g} {price.unit}{at} = {self.price(term):g} {own}{per}"

    def energy(self, counts: Mapping[str, float]) -> EnergyResult:
        """Price `counts` (events by term). A term that happened without a price makes the result incomplete.

        Raises UsageError for an unknown term, a count that is negative or not
        finite, a total charged together with its parts, and a latency profile.
        """
        if self.kind == "latency":
            raise UsageError(f"price profile {self.name} holds times, not energies; use a mapped or formula profile")
        self._check_known(counts)
        _check_counts(counts)
        priced = {term: self.price(term) for term in sorted(counts)}
        terms = {term: float(counts[term]) * price for term, price in priced.items() if price is not None}
        missing = tuple(term for term, price in priced.items() if price is None and counts[term] > 0)
        return EnergyResult(math.fsum(terms.values()), not missing, missing, terms)

    def _check_known(self, terms: Mapping[str, float] | list[str]) -> None:
        if unknown := sorted(set(terms) - self.prices.keys()):
            raise UsageError(
                f"price profile {self.name} has no term {', '.join(unknown)}; it has: {', '.join(sorted(self.prices))}"
            )


# --- filling in the terms that a file leaves out ----------------------------------------------------------


def _check_unit(term: str, price: Price, kind: str, clock: Clock | None) -> None:
    units = list(POWER if term in POWER_TERMS else TIME if kind == "latency" else ENERGY)
    if price.unit == CYCLE and kind == "latency":
        if clock is None:
            raise PlacedError((term, "unit"), "a price in cycles needs the clock of the profile")
    elif price.unit not in units:
        what = f"of {term}" if term in POWER_TERMS else f"of kind {kind}"
        raise PlacedError((term, "unit"), f"a price {what} is in {' or '.join(units)}, not {price.unit}")


def _with_parts(terms: tuple[str, ...]) -> list[str]:
    found = [part for term in terms for part in (term, *PARTS.get(term, ()))]
    return [*found, "static_core"] if "static" in found else found


def _nulls(given: Mapping[str, Price], unpriced: tuple[Unpriced, ...], kind: str) -> dict[str, Price]:
    """The terms of ``unpriced``, as prices that are null."""
    found: dict[str, Price] = {}
    for entry in unpriced:
        for term in entry.terms:
            if term not in TERMS[kind]:
                raise ValueError(f"unpriced: no such term of kind {kind}: {term}; known: {', '.join(TERMS[kind])}")
            if term in given or term in found:
                raise ValueError(f"{term} is in unpriced and given a second time; keep one")
            unit: Any = "ns" if kind == "latency" else "pJ"
            found[term] = Price(
                value=None, unit=unit, scope="op", evidence="not-stated", source=entry.source, note=entry.note
            )
    return found


def _covered(prices: Mapping[str, Price], kind: str) -> dict[str, Price]:
    """The terms inside of all-in prices, at no price of their own."""
    found: dict[str, Price] = {}
    for by, price in prices.items():
        for term in price.covers:
            if term not in TERMS[kind]:
                raise PlacedError((by, "covers"), f"no such term of kind {kind}: {term}")
        for term in _with_parts(price.covers):
            if term in prices or term in found:
                raise PlacedError((by, "covers"), f"{term} is inside of {by} and has a price of its own; keep one")
            found[term] = _inside(price, by, "ns" if kind == "latency" else "pJ")
    return found


def _inside(price: Price, by: str, unit: str) -> Price:
    evidence = "derived" if price.evidence == NOT_STATED else price.evidence
    free: dict[str, Any] = {"value": 0.0, "unit": unit, "evidence": evidence, "note": f"Inside of the price of {by}."}
    return price.model_copy(update=free | {"covers": (), "inside": by})


def _part(price: Price, whole: str) -> Price:
    return price.model_copy(update={"covers": (), "part_of": whole})


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

    ``NAME:int8`` is one of kind formula with its operations in that type, and in the name.

    Raises UsageError for an unknown name or an unreadable file, VerifyError
    (file, line, field) for one that breaks the schema.

    >>> load_profile("loihi1-davies2018").price("synop")
    23.6
    """
    text, _, dtype = os.fspath(name_or_path).rpartition(":")
    if dtype not in get_args(Type):
        return _own_name(read_spec(find_spec(name_or_path, PROFILES, "price profile"), PriceProfile, "price profile"))
    profile = load_profile(text)
    if profile.kind != "formula":
        raise UsageError(f"price profile {profile.name} is of kind {profile.kind}; only a formula has a type ({dtype})")
    return profile.model_copy(update={"name": f"{profile.name}:{dtype}", "type": dtype})


def _own_name(profile: PriceProfile) -> PriceProfile:
    """The profile. UsageError where a file has the name of a profile of nmc, and says something else."""
    known = PROFILES / f"{profile.name}.yaml"
    if known.is_file() and profile != read_spec(known, PriceProfile, "price profile"):
        raise UsageError(
            f"{profile.name} is the name of a price profile of nmc with other contents; give yours another"
        )
    return profile
