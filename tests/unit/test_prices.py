"""Price profiles: the published numbers, honest totals, and how a bad file is refused."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmc_compiler.errors import UsageError, VerifyError
from nmc_emulator.price_profile import (
    FORMULA_TERMS,
    LATENCY_TERMS,
    MAPPED_TERMS,
    PARTS,
    PROFILES,
    list_profiles,
    load_profile,
)

MAPPED = ["loihi1-davies2018", "loihi1-sanafe-fit"]
ENERGY = ["cmos45-horowitz", *MAPPED]


def test_bundled_profiles():
    assert list_profiles() == [
        "cmos45-horowitz", "cmos45-horowitz-dram", "cmos45-horowitz-sram", "loihi1-davies2018",
        "loihi1-davies2018-rates", "loihi1-frady2020", "loihi1-sanafe-fit", "loihi1-sanafe-rates", "loihi2",
        "loihi2-assumed-rates", "loihi2-extrapolated-rates", "loihi2-hala-point", "neurocore",
        "neurocore-50mhz-rates", "odin", "odin-incremental", "speck", "spinnaker1-hoppner2019", "spinnaker1-power",
        "spinnaker2-hoppner2019", "truenorth", "xylo-a2",
    ]  # fmt: skip
    for name in list_profiles():
        assert load_profile(name).name == name
        assert load_profile(PROFILES / f"{name}.yaml") == load_profile(name)


def test_terms_are_the_contract():
    for name in MAPPED:
        profile = load_profile(name)
        assert profile.kind == "mapped" and profile.prices.keys() == MAPPED_TERMS.keys()
        assert profile.scope_label == "Loihi 1 prices on a Loihi 2 mapping"
    assert load_profile("cmos45-horowitz").prices.keys() == FORMULA_TERMS.keys()
    assert load_profile("loihi2-extrapolated-rates").prices.keys() == LATENCY_TERMS.keys()
    assert {  # the names that counters use
        "synop", "dyn_write", "dyn_read", "neuron_update", "spike_out", "axon_out", "axon_in", "hop_ew",
        "hop_ns", "within_tile_spike", "bias_event", "pool_op", "pool_compare", "gate_op", "accumulator_add",
        "relay_event", "host_mac", "host_message", "barrier", "static",
    } <= MAPPED_TERMS.keys()  # fmt: skip


# --- the numbers, each with its evidence; None is unpublished

# Davies et al., IEEE Micro 38(1), 2018, Table 2.
DAVIES = {
    "synop": (23.6, "simulated"),
    "synop_dense": (23.6, "derived"),
    "synop_sparse": (23.6, "derived"),
    "synop_conv": (23.6, "derived"),
    "neuron_active": (81.0, "simulated"),
    "neuron_inactive": (52.0, "simulated"),
    "hop_ew": (3.0, "simulated"),
    "hop_ns": (4.0, "simulated"),
    "within_tile_spike": (1.7, "simulated"),
    "bias_event": (23.6, "derived"),
    "pool_op": (23.6, "derived"),
    "gate_op": (23.6, "derived"),
    "accumulator_add": (23.6, "derived"),
    "relay_event": (23.6, "derived"),
}
# SANA-FE, arch/loihi.yaml.
SANAFE = {
    "synop_dense": (35.5, "fitted"),
    "synop_sparse": (33.6, "fitted"),
    "synop_conv": (24.0, "fitted"),
    "neuron_active": (51.2 + 21.6, "fitted"),
    "neuron_inactive": (51.2, "fitted"),
    "spike_out": (69.3, "fitted"),
    "axon_out": (111.0, "fitted"),
    "axon_in": (0.0, "fitted"),
    "hop_ew": (3.0, "fitted"),
    "hop_ns": (4.2, "fitted"),
    "within_tile_spike": (0.0, "fitted"),
    "barrier": (0.0, "fitted"),
    "bias_event": (35.5, "derived"),
    "pool_op": (24.0, "derived"),
    "gate_op": (33.6, "derived"),
    "accumulator_add": (35.5, "derived"),
    "relay_event": (33.6, "derived"),
}
# Horowitz, ISSCC 2014: an addition, and an addition with a multiplication.
HOROWITZ = {
    "ac_fp32": (0.9, "transcribed"),
    "mac_fp32": (0.9 + 3.7, "derived"),
    "ac_fp16": (0.4, "transcribed"),
    "mac_fp16": (0.4 + 1.1, "derived"),
    "ac_int32": (0.1, "transcribed"),
    "mac_int32": (0.1 + 3.1, "derived"),
    "ac_int8": (0.03, "transcribed"),
    "mac_int8": (0.03 + 0.2, "derived"),
}
# SANA-FE's times in ns over the vendor's ratios.
RATES = {
    "synop": (3.8 / 5, "extrapolated"),
    "synop_dense": (3.8 / 5, "extrapolated"),
    "synop_sparse": (4.7 / 5, "extrapolated"),
    "synop_conv": (3.1 / 5, "extrapolated"),
    "neuron_active": ((6.0 + 3.7) / 2, "extrapolated"),
    "neuron_inactive": (6.0 / 2, "extrapolated"),
    "spike_out": (30.0 / 10, "extrapolated"),
    "axon_out": (5.1, "extrapolated"),
    "axon_in": (16.0, "extrapolated"),
    "hop_ew": (4.1, "extrapolated"),
    "hop_ns": (6.5, "extrapolated"),
    "bias_event": (3.8 / 5, "extrapolated"),
    "pool_op": (3.1 / 5, "extrapolated"),
    "gate_op": (4.7 / 5, "extrapolated"),
    "accumulator_add": (4.7 / 5, "extrapolated"),
    "relay_event": (4.7 / 5, "extrapolated"),
    "barrier": (1800.0 / 9, "extrapolated"),
    "timestep_floor": (1750.0, "measured"),
}
TABLES = {
    "loihi1-davies2018": (DAVIES, "Davies et al., IEEE Micro 38(1), 2018, Table 2"),
    "loihi1-sanafe-fit": (SANAFE, "arch/loihi.yaml (Boyle et al., IEEE TCAD 44(8):3165, 2025)"),
    "cmos45-horowitz": (HOROWITZ, "ISSCC 2014"),
    "loihi2-extrapolated-rates": (RATES, "arch/loihi.yaml (Boyle et al., IEEE TCAD 44(8):3165, 2025)"),
}


@pytest.mark.parametrize("name", TABLES)
def test_published_numbers(name):
    profile = load_profile(name)
    table, source = TABLES[name]
    for term, price in profile.prices.items():
        if price.inside is not None:  # power of the cores: in that of the chip
            assert (term, price.inside) == ("static_core", "static")
            continue
        value, evidence = table.get(term, (None, "not-stated"))
        assert profile.price(term) == (None if value is None else pytest.approx(value, rel=1e-12)), term
        assert price.evidence == evidence, term
        assert price.scope == "op" and (source in price.source or evidence == "measured"), term
        if evidence in ("derived", "not-stated"):
            assert price.note, term


def test_the_profiles_own_caveats():
    davies, fit = map(load_profile, MAPPED)
    assert "not a silicon measurement" in davies.description
    assert "within about 12 %" in fit.description
    for profile in (davies, fit):
        assert "at least one event" in profile.prices["neuron_active"].note  # what active means
    assert "not been compared with silicon" in load_profile("loihi2-extrapolated-rates").description


# --- energy


def test_energy_of_a_small_run():
    counts = {
        "synop_conv": 1000,
        "neuron_active": 10,
        "neuron_inactive": 90,
        "spike_out": 4,
        "hop_ew": 7,
        "hop_ns": 0,
    }
    fit = load_profile("loihi1-sanafe-fit").energy(counts)
    assert fit.total_pj == pytest.approx(24000 + 728 + 4608 + 277.2 + 21)
    assert fit.complete and fit.missing == ()
    assert fit.terms["hop_ns"] == 0.0 and fit.terms["spike_out"] == pytest.approx(277.2)

    davies = load_profile("loihi1-davies2018").energy(counts)  # does not price the making of a spike
    assert not davies.complete and davies.missing == ("spike_out",)
    assert davies.total_pj == pytest.approx(23600 + 810 + 4680 + 21)
    assert "spike_out" not in davies.terms


def test_papers_formula():
    formula = load_profile("cmos45-horowitz")
    assert formula.kind == "formula"
    result = formula.energy({"mac_fp32": 10, "ac_fp32": 100})
    assert result.complete and result.total_pj == pytest.approx(46 + 90)


def test_nothing_counted_is_complete_and_zero():
    result = load_profile("loihi1-davies2018").energy({})
    assert (result.total_pj, result.complete, result.missing, dict(result.terms)) == (0.0, True, (), {})


@pytest.mark.parametrize("name", MAPPED)
def test_an_unpriced_term_matters_only_when_it_happened(name):
    profile = load_profile(name)
    unpriced = sorted(term for term in profile.prices if profile.price(term) is None)
    assert {"dyn_write", "dyn_read", "pool_compare", "host_mac", "host_message", "static"} <= set(unpriced)
    assert profile.energy(dict.fromkeys(unpriced, 0)).complete
    for term in unpriced:
        result = profile.energy({term: 1, "hop_ew": 1})
        assert (result.complete, result.missing, result.total_pj) == (False, (term,), 3.0)
    counts = {term: 1 for term in unpriced if term not in PARTS}
    assert profile.energy(counts).missing == tuple(sorted(counts))


COUNTS = st.dictionaries(
    st.sampled_from(sorted(MAPPED_TERMS.keys() - PARTS.keys())),
    st.integers(0, 10**12),
    max_size=len(MAPPED_TERMS),
)


@given(st.sampled_from(MAPPED), COUNTS, COUNTS, st.integers(0, 1000))
def test_energy_is_linear(name, a, b, factor):
    profile = load_profile(name)
    both = {term: a.get(term, 0) + factor * b.get(term, 0) for term in a.keys() | b.keys()}
    split = profile.energy(a).total_pj + factor * profile.energy(b).total_pj
    assert profile.energy(both).total_pj == pytest.approx(split, rel=1e-12, abs=1e-9)


@given(
    st.sampled_from(MAPPED),
    st.lists(st.sampled_from(sorted(MAPPED_TERMS.keys() - PARTS.keys())), max_size=60),
)
def test_energy_equals_an_event_by_event_recount(name, events):
    profile = load_profile(name)
    table = {**TABLES[name][0], "static_core": (0.0, "inside of static")}
    result = profile.energy({term: events.count(term) for term in MAPPED_TERMS})
    assert result.total_pj == pytest.approx(sum(table[e][0] for e in events if e in table), abs=1e-9)
    assert set(result.missing) == {e for e in events if e not in table}
    assert result.complete == all(e in table for e in events)
    assert math.fsum(result.terms.values()) == result.total_pj


def test_order_of_counts_does_not_change_the_bits():
    profile = load_profile("loihi1-sanafe-fit")
    counts = {term: 1 + 7 * i for i, term in enumerate(sorted(SANAFE))}
    backwards = dict(reversed(counts.items()))
    assert profile.energy(counts) == profile.energy(backwards)
    assert list(profile.energy(counts).terms) == list(profile.energy(backwards).terms)


# --- refused counts


def test_unknown_terms():
    profile = load_profile("cmos45-horowitz")
    known = "ac_fp16, ac_fp32, ac_int32, ac_int8, mac_fp16, mac_fp32, mac_int32, mac_int8"
    text = f"price profile cmos45-horowitz has no term spikes, synop; it has: {known}"
    with pytest.raises(UsageError) as caught:
        profile.energy({"synop": 1, "spikes": 0, "ac_fp32": 2})
    assert str(caught.value) == text
    with pytest.raises(UsageError, match="price profile cmos45-horowitz has no term synop; it has: ac_fp16"):
        profile.price("synop")


@pytest.mark.parametrize("count", [-1, math.nan, math.inf])
def test_impossible_counts(count):
    with pytest.raises(UsageError) as caught:
        load_profile("loihi1-davies2018").energy({"hop_ew": count})
    assert str(caught.value) == f"count of hop_ew is {count}; a count is finite and not negative"


@pytest.mark.parametrize("name", MAPPED)
def test_a_total_and_its_parts_are_not_both_charged(name):
    profile = load_profile(name)
    with pytest.raises(UsageError) as caught:
        profile.energy({"synop": 3, "synop_dense": 2, "synop_conv": 1, "synop_sparse": 0})
    assert str(caught.value) == ("synop is the sum that synop_dense, synop_conv are parts of; count one or the other")
    with pytest.raises(UsageError, match="neuron_update is the sum that neuron_active are parts of"):
        profile.energy({"neuron_update": 3, "neuron_active": 3})


def test_times_are_not_energies():
    rates = load_profile("loihi2-extrapolated-rates")
    assert {price.unit for price in rates.prices.values()} == {"ns"}
    with pytest.raises(UsageError) as caught:
        rates.energy({"synop": 1})
    assert str(caught.value) == (
        "price profile loihi2-extrapolated-rates holds times, not energies; use a mapped or formula profile"
    )


# --- refused files

CMOS = (PROFILES / "cmos45-horowitz.yaml").read_text()
AC_FP32 = CMOS.splitlines().index("  ac_fp32:") + 1  # line of the key; value, unit, scope, evidence, source
PRICES = CMOS.splitlines().index("prices:") + 1


def refusal(folder, text):
    path = folder / "mine.yaml"
    path.write_text(text)
    with pytest.raises(VerifyError) as caught:
        load_profile(path)
    return str(caught.value).replace(str(path), "F")


@pytest.mark.parametrize(
    ("old", "new", "below", "text"),
    [
        ("value: 0.9", "value: cheap", 1, "value: input should be a valid number, got 'cheap'"),
        ("value: 0.9", "value: -0.9", 1, "value: input should be greater than or equal to 0, got -0.9"),
        ("value: 0.9", "value: .inf", 1, "value: input should be a finite number, got inf"),
        ("value: 0.9", "value: .nan", 1, "value: input should be a finite number, got nan"),
        ("value: 0.9", f"value: {'9' * 400}", 1, "value: input should be a valid number, got 9999"),
        ("value: 0.9", "value: null", 0, "value null and evidence not-stated go together"),
        ("    value: 0.9\n", "", 0, "value: missing; this field is required"),
        ("    evidence: transcribed\n", "", 0, "evidence: missing; this field is required"),
        ("    scope: op\n", "", 0, "scope: missing; this field is required"),
        ("scope: op", "scope: all", 3, "scope: input should be 'op' or 'all_in', got 'all'"),
        (
            "unit: pJ",
            "unit: eV",
            2,
            "unit: input should be 'pJ', 'nJ', 'uJ', 'uW', 'mW', 'W', 'ns', 'us', 'ms' or 'cycle'",
        ),
        ("unit: pJ", "unit: ns", 2, "unit: a price of kind formula is in pJ or nJ or uJ, not ns"),
        ("unit: pJ", "units: pJ", 2, "units: unknown field; check its spelling or remove it"),
    ],
)
def test_bad_price(tmp_path, old, new, below, text):
    assert old in CMOS
    lines = refusal(tmp_path, CMOS.replace(old, new, 1)).splitlines()
    place = f"  F:{AC_FP32 + below}: prices.ac_fp32"
    assert any(line.startswith((f"{place}.{text}", f"{place}: {text}")) for line in lines), lines


def test_wrong_terms_for_the_kind(tmp_path):
    known = ", ".join(FORMULA_TERMS)
    assert refusal(tmp_path, CMOS.replace("  ac_fp32:", "  ac_fp33:")) == (
        f"price profile file F: 1 problem\n  F:{AC_FP32}: prices.ac_fp33: no such term of kind formula; known: {known}"
    )
    gone = CMOS[: CMOS.index("  mac_int8:")]
    assert f"F:{PRICES}: prices: terms of kind formula not given: mac_int8; an unknown price is null" in (
        refusal(tmp_path, gone)
    )


def test_bad_heading(tmp_path):
    text = refusal(tmp_path, CMOS.replace("kind: formula", "kind: guess").replace("prices/1", "prices/0"))
    assert text.startswith("price profile file F: 2 problems\n")
    assert "schema: input should be 'nmc.prices/1', got 'nmc.prices/0'" in text
    assert "kind: input should be 'mapped', 'formula' or 'latency', got 'guess'" in text


def test_a_price_given_twice(tmp_path):
    text = CMOS.replace("    value: 0.9\n", "    value: 0.9\n    value: 0.1\n")
    assert refusal(tmp_path, text) == (
        f"price profile file F:{AC_FP32 + 2}: prices.ac_fp32.value: given twice, first in line {AC_FP32 + 1}; keep one"
    )


def test_unknown_profile():
    with pytest.raises(UsageError) as caught:
        load_profile("loihi3")
    known = ", ".join(list_profiles())
    assert str(caught.value) == f"unknown price profile 'loihi3'; known: {known}; or give the path of a .yaml file"


# --- times that were derived from each other


RATIOS = {  # Intel's 2021 brief: Loihi 1 to Loihi 2
    "synop_dense": 5, "synop_sparse": 5, "synop_conv": 5, "neuron_active": 2, "neuron_inactive": 2, "spike_out": 10,
    "axon_out": 1, "axon_in": 1, "hop_ew": 1, "hop_ns": 1, "gate_op": 5, "accumulator_add": 5, "relay_event": 5,
    "pool_op": 5, "barrier": 9,
}  # fmt: skip


@pytest.mark.parametrize("term", RATIOS)
def test_loihi2_rates_are_the_fit_of_loihi1_by_the_ratios_of_the_brief(term):
    fit, rates = load_profile("loihi1-sanafe-rates"), load_profile("loihi2-extrapolated-rates")
    assert rates.price(term) == pytest.approx(fit.price(term) / RATIOS[term], rel=1e-12)
    assert fit.prices[term].evidence in ("fitted", "derived")


def test_assumed_rates_add_three_guesses_and_nothing_else():
    assumed, rates = load_profile("loihi2-assumed-rates"), load_profile("loihi2-extrapolated-rates")
    changed = {t for t in rates.prices if rates.prices[t] != assumed.prices[t]}
    assert changed == {"dyn_write", "dyn_read", "pool_compare"}
    assert all(rates.price(t) is None and assumed.prices[t].evidence == "assumed" for t in changed)
    assert {assumed.price(t) for t in changed} == {rates.price("synop_sparse")}
