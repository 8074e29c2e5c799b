"""Schema of a target: what one chip can hold and do, every number with evidence and source.

A number is a `Cited` object, read as `target.core.neurons.value`. What nobody
has published stays null with a note that says so; it is never guessed.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Annotated, Any, Generic, Literal, NamedTuple, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from nmc_compiler.errors import UsageError

Evidence = Literal[
    "measured",  # on silicon, published
    "simulated",  # before silicon, published
    "fitted",  # coefficient fitted to silicon measurements, published
    "vendor",  # a brief, a press release
    "code",  # read in source code or in logs of tools
    "derived",  # arithmetic on numbers of the kinds above
    "transcribed",  # quoted by a secondary text only
    "extrapolated",  # carried over from another chip
    "assumed",  # by nmc, so that there is something to compile for
]
NOT_STATED = "not-stated"  # the evidence of a null value: nobody has published it

MAX_CORES = 2**20  # more cores than this is a mistake in a file or an option, not a machine

T = TypeVar("T")
Text = Annotated[str, Field(min_length=1, max_length=2000)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Bits = Annotated[int, Field(ge=1, le=64)]


class PlacedError(ValueError):
    """What a validator of a record raises about a part of it: ``place`` leads from the record to the part."""

    def __init__(self, place: tuple[str | int, ...], text: str) -> None:
        super().__init__(text)
        self.place = place


def _ordered(span: tuple[int, int]) -> tuple[int, int]:
    if span[0] > span[1]:
        raise ValueError(f"minimum {span[0]} is above maximum {span[1]}; write [min, max]")
    return span


# strict=False: YAML has lists and no tuples; the members stay strict.
Pair = Annotated[tuple[Count, Count], Field(strict=False)]
Span = Annotated[tuple[int, int], Field(strict=False), AfterValidator(_ordered)]


class Spec(BaseModel):
    """Base of every record in a cited YAML file: frozen, strict types, no unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Cited(Spec, Generic[T]):
    """A value, how good it is (`evidence`) and where it stands (`source`).

    An unknown value is null, with evidence `not-stated` and a note that says why.
    """

    value: T
    unit: Text | None = None
    evidence: Literal[Evidence, "not-stated"]
    source: Text
    note: Text | None = None

    @model_validator(mode="after")
    def _null_says_why(self) -> Self:
        if (self.value is None) != (self.evidence == NOT_STATED):
            raise ValueError(f"value null and evidence {NOT_STATED} go together: give both or neither")
        if self.value is None and self.note is None:
            raise ValueError("value is null: add a note that says why it is not known")
        return self


class Feature(Spec):
    """Something a chip can do or not; `evidence` says whether that is documented or assumed."""

    supported: bool
    evidence: Evidence
    source: Text
    note: Text | None = None


UNTOLD = Feature(supported=False, evidence="assumed", source="the description of the target does not speak of it")


class Mesh(Spec):
    """Routers of one chip as [x, y], the cores behind each, and how chips join."""

    routers: Cited[Pair]
    cores_per_router: Cited[Count]
    routing: Cited[Literal["xy"]]  # dimension order: first along x, then along y
    chip_axis: Cited[Literal["x"]]  # n chips make one mesh of n*x by y routers
    chips_max: Cited[Count | None]
    multicast: Cited[Literal["unicast", "tree"]] | None = None  # an event to several cores; null: unicast

    @model_validator(mode="after")
    def _is_a_machine(self) -> Self:
        if self.cores > MAX_CORES:
            raise ValueError(f"{self.cores} cores on a chip; nmc maps to at most {MAX_CORES}")
        return self

    @property
    def cores(self) -> int:
        """Cores of one chip."""
        x, y = self.routers.value
        return x * y * self.cores_per_router.value

    def extent(self, chips: int) -> tuple[int, int]:
        """Routers [x, y] of the mesh that `chips` chips make; UsageError if there are no such chips."""
        top = self.chips_max.value
        if chips < 1 or (top is not None and chips > top):
            limit = "1 or more" if top is None else f"1 to {top}"
            raise UsageError(f"{chips} chips asked for, but the target has {limit}; choose a number within that")
        if chips * self.cores > MAX_CORES:
            raise UsageError(
                f"{chips} chips of {self.cores} cores are {chips * self.cores} cores; "
                f"nmc maps to at most {MAX_CORES}: ask for at most {MAX_CORES // self.cores} chips"
            )
        x, y = self.routers.value
        return x * chips, y


class CoreLimits(Spec):
    """What one core holds, and the widths of its numbers."""

    neurons: Cited[Count]
    neuron_groups: Cited[Count]  # sets of neurons that share threshold, decays and weight exponent
    synapse_words: Cited[Count]
    synapse_word_bits: Cited[Bits]
    axons_in: Cited[Count]
    axons_out: Cited[Count]
    axon_atoms: Cited[Count]  # source neurons (channels at one position) that one axon entry can name
    delay_max: Cited[Annotated[int, Field(ge=0, le=2**20)]]  # ticks beyond the minimum of one
    payload_bits: Cited[Annotated[int, Field(ge=0, le=64)]]  # 0: plain spikes only
    state_bits: Cited[Bits]
    weight_bits: Cited[Bits]
    weight_exp: Cited[Span]
    bias_mant_bits: Cited[Bits]
    bias_exp: Cited[Span]
    vth_bits: Cited[Bits]
    threshold_grain_bits: Cited[Annotated[int, Field(ge=0, le=32)]]  # threshold = vth << this


class Packing(Spec):
    """Numbers behind the sizes of synapse memories; the formulas stand in `nmc_compiler.mapping`."""

    conv_row_pad_bits: Cited[Bits]  # a conv row (all c_out of one kernel position and c_in) fills whole units
    conv_synapse_bits: Cited[Bits] | None = None  # one synapse of a conv row, where it takes more than its weight
    dense_synapse_bits: Cited[Bits]  # one synapse of a dense or sparse row, index included
    dense_axon_pad_bits: Cited[Bits]  # the row of one input axon fills whole units
    table_entry_bits: Cited[Bits]  # one entry of a dynamic synapse table
    table_banks: Cited[Count]  # banks of such a table: one is written while another is read
    accumulator_bits: Cited[Bits]  # one shared residual accumulator
    rows: Cited[Literal["neurocore"]] | None = None  # row formats of docs/neurocore.md; null: as the numbers say


class Features(Spec):
    """What the cores can execute beyond static synapses and LIF."""

    graded_spikes: Feature
    conv_synapses: Feature
    active_sites: Feature = UNTOLD  # convolutions that look their targets up in a table of sites
    dynamic_synapse: Feature  # weights that events write and other events read (k^T v)
    current_pool: Feature  # maximum over several accumulators before one soma
    stream_accumulator: Feature  # a residual current that several somas read
    multi_level_neuron: Feature  # a soma that emits one of several levels at once
    microcoded_neuron: Feature = UNTOLD  # a soma with soft or late resets, thresholds or gains that move
    bias_gating: Feature  # a bias that acts only within a sample's window
    graded_input: Feature  # the host sends events with payload
    host_current: Feature  # the host adds a signed number to an accumulator at every timestep


class Defaults(Spec):
    """What an option means when it is not given."""

    chips: Cited[Count]


class Target(Spec):
    """One chip as mapping and passes see it."""

    format: Literal["nmc.target/1"] = Field(alias="schema")
    name: Name
    title: Text
    description: Text
    profile: Literal["loihi1", "loihi2", "neurocore"]  # the integer rules
    mesh: Mesh
    core: CoreLimits
    packing: Packing
    features: Features
    defaults: Defaults

    @model_validator(mode="after")
    def _default_chips_exist(self) -> Self:
        top = self.mesh.chips_max.value
        if top is not None and self.defaults.chips.value > top:
            raise ValueError(f"defaults.chips is {self.defaults.chips.value}, above mesh.chips_max {top}")
        return self

    @property
    def digest(self) -> str:
        """sha256 (hex) of the content as canonical JSON: layout and comments of the file do not matter."""
        content = self.model_dump(mode="json", by_alias=True)
        if self.mesh.multicast is None:  # a description without it keeps its digest
            del content["mesh"]["multicast"]
        if self.packing.rows is None:
            del content["packing"]["rows"]
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()


class Row(NamedTuple):
    """One line of `nmc targets show`."""

    field: str
    value: Any
    unit: str | None
    evidence: str
    source: str


def describe(target: Target) -> list[Row]:
    """Every cited number and feature of `target`, in the order of the schema."""
    return list(_rows(target, ""))


def _rows(spec: BaseModel, prefix: str) -> Iterator[Row]:
    for name in type(spec).model_fields:
        part = getattr(spec, name)
        if isinstance(part, Cited):
            yield Row(prefix + name, part.value, part.unit, part.evidence, part.source)
        elif isinstance(part, Feature):
            yield Row(prefix + name, part.supported, None, part.evidence, part.source)
        elif isinstance(part, BaseModel):
            yield from _rows(part, f"{prefix}{name}.")
