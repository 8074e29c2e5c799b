"""Profiles of other chips: all-in prices, published units, terms that a file leaves out, and what the command shows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import nmc
from nmc.cli import main
from nmc_compiler.errors import ArtefactError, UsageError, VerifyError
from nmc_compiler.mapping import split_evenly
from nmc_compiler.program.network import Network
from nmc_compiler.target import load_target
from nmc_emulator.cost import mapped_energy
from nmc_emulator.energies import choose_profiles, priced
from nmc_emulator.noc import simulate
from nmc_emulator.price_profile import (
    KINDS,
    MAPPED_TERMS,
    PARTS,
    PROFILES,
    PriceProfile,
    list_profiles,
    load_profile,
)
from nmc_emulator.report import Report, read_report
from nmc_emulator.trace import Trace
from tests.hosted import compiled_graph, norm_lif

DAVIES = "loihi1-davies2018"
FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "spikformer"
RESEARCH = Path(__file__).resolve().parents[3] / "shared" / "research" / "hardware.md"


def profile(folder: Path, text: str) -> PriceProfile:
    path = folder / "mine.yaml"
    path.write_text(text)
    return load_profile(path)


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(VerifyError) as caught:
        profile(folder, text)
    return str(caught.value).replace(str(folder / "mine.yaml"), "F")


HEAD = "schema: nmc.prices/1\nname: mine\ntitle: t\ndescription: d\nscope_label: mine\nkind: mapped\n"
SYNOP = """\
  synop:
    value: 2.0
    unit: pJ
    scope: all_in
    conditions: at full load
    covers: [neuron_update, spike_out, static]
    evidence: assumed
    source: mine
"""
REST = "[axon_out, axon_in, hop_ew, hop_ns, within_tile_spike, bias_event, barrier, dyn_write, dyn_read, pool_op, " \
    "pool_compare, gate_op, accumulator_add, relay_event, host_mac, host_message]"  # fmt: skip
UNPRICED = f"unpriced:\n  - terms: {REST}\n    source: mine\n    note: not known\n"
MINE = f"{HEAD}{UNPRICED}prices:\n{SYNOP}"
NUMBER = "prices.synop.value: input should be a valid number"
AT_SYNOP = MINE[: MINE.index("  synop:")].count("\n") + 1


# --- terms that a file leaves out -------------------------------------------------------------------------


def test_an_all_in_price_has_others_inside_and_adds_nothing_for_them(tmp_path) -> None:
    found = profile(tmp_path, MINE)
    assert set(found.prices) == set(MAPPED_TERMS)
    free = {"neuron_update", "neuron_active", "neuron_inactive", "spike_out", "static", "static_core"}
    assert found.inside == dict.fromkeys(free, "synop") and set(found.all_in) == {"synop"}
    result = found.energy({"synop_conv": 10, "synop_dense": 5, "neuron_active": 7, "spike_out": 9, "static": 1000})
    assert (result.total_pj, result.complete, result.missing) == (30.0, True, ())
    assert found.energy({"synop_conv": 1, "axon_out": 1}).missing == ("axon_out",)


def test_parts_cost_what_their_total_costs() -> None:
    found = load_profile("spinnaker2-hoppner2019")
    assert {found.price(f"synop{kind}") for kind in ("", "_conv", "_dense", "_sparse")} == {450.0}
    assert {found.price(term) for term in KINDS["soma"]} == {2190.0, None}
    assert found.prices["synop_conv"].part_of == "synop" and found.prices["synop"].part_of is None


def test_kinds_of_work_are_all_terms_once() -> None:
    terms = [term for among in KINDS.values() for term in among]
    assert sorted(terms) == sorted(MAPPED_TERMS)


COVERABLE = sorted(set(MAPPED_TERMS) - {"synop", *PARTS["synop"], *PARTS["neuron_update"], "static_core"})


@given(st.sets(st.sampled_from(COVERABLE)), st.dictionaries(st.sampled_from(sorted(MAPPED_TERMS)), st.integers(0, 99)))
def test_what_is_inside_of_a_price_is_never_added(covered: set[str], counts: dict[str, int]) -> None:
    counts = {term: n for term, n in counts.items() if term not in PARTS}
    told = {"unit": "pJ", "evidence": "assumed", "source": "a test"}
    all_in = told | {"value": 5.0, "scope": "all_in", "conditions": "any", "covers": sorted(covered)}
    rest = {term: told | {"value": 3.0, "scope": "op"} for term in COVERABLE if term not in covered}
    if not covered:
        all_in = told | {"value": 5.0, "scope": "op"}
    head = yaml.safe_load(HEAD)
    found = PriceProfile.model_validate(head | {"prices": {"synop": all_in, **rest}})
    free = {part for term in covered for part in (term, *PARTS.get(term, ()))} | {"static_core"}
    assert set(found.inside) == free
    price = {t: 0.0 if t in free else 5.0 if t in PARTS["synop"] else 3.0 for t in counts}
    result = found.energy(counts)
    assert result.complete and result.total_pj == sum(n * price[t] for t, n in counts.items())


@pytest.mark.parametrize(
    ("old", "new", "below", "text"),
    [
        ("static]", "axon_out]", 5, "prices.synop.covers: axon_out is inside of synop and has a price of its own"),
        ("static]", "axons]", 5, "prices.synop.covers: no such term of kind mapped: axons"),
        ("    covers: [neuron_update, spike_out, static]\n", "", 0, "prices.synop: a price of scope all_in names"),
        ("    conditions: at full load\n", "", 0, "prices.synop: a price of scope all_in tells in conditions the load"),
        ("scope: all_in", "scope: op", 0, "prices.synop: covers is for a price of scope all_in"),
        ("source: mine\n", "source: mine\n    inside: static\n", 0, "prices.synop: inside and part_of are not"),
        ("unit: pJ", "unit: mW", 2, "prices.synop.unit: a price of kind mapped is in pJ or nJ or uJ, not mW"),
        ("value: 2.0", "value: 2e-3", 1, f"{NUMBER}, got '2e-3': YAML takes that for text; write 2.0e-3"),
        ("value: 2.0", "value: -.5E3", 1, f"{NUMBER}, got '-.5E3': YAML takes that for text; write -0.5e+3"),
    ],
)  # fmt: skip
def test_bad_prices_are_told_by_line(tmp_path, old: str, new: str, below: int, text: str) -> None:
    assert old in SYNOP
    told = refusal(tmp_path, HEAD + UNPRICED + "prices:\n" + SYNOP.replace(old, new, 1))
    assert f"  F:{AT_SYNOP + below}: {text}" in told


def test_text_that_is_no_number_gets_no_advice(tmp_path) -> None:
    told = refusal(tmp_path, MINE.replace("value: 2.0", "value: .e3"))
    assert told.endswith(f"{NUMBER}, got '.e3'")


def test_other_bad_files(tmp_path) -> None:
    told = refusal(tmp_path, MINE.replace("axon_in, ", "axon_in, axon_in, "))
    assert "axon_in is in unpriced and given a second time; keep one" in told
    assert "unpriced: no such term of kind mapped: flux; known: synop" in refusal(
        tmp_path, MINE.replace("hop_ew", "flux")
    )
    assert "terms of kind mapped not given: hop_ew; an unknown price is null" in refusal(
        tmp_path, MINE.replace("hop_ew, ", "")
    )
    rates = MINE.replace("kind: mapped", "kind: latency").replace("unit: pJ", "unit: cycle")
    assert f"F:{AT_SYNOP + 2}: prices.synop.unit: a price in cycles needs the clock of the profile" in (
        refusal(tmp_path, rates.replace("within_tile_spike, ", "").replace(", host_mac, host_message", ""))
    )


# --- units ------------------------------------------------------------------------------------------------


def test_published_units_are_kept_and_converted() -> None:
    power = load_profile("spinnaker1-power")
    assert (power.price("static"), power.price("static_core"), power.price("axon_out")) == (350.0, 34.0, 1000.0)
    assert (power.prices["static"].value, power.prices["static"].unit) == (0.35, "W")
    assert power.conversion("static") == "0.35 W = 350 pJ per ns" and power.conversion("axon_out") == "1 nJ = 1000 pJ"
    rates = load_profile("neurocore-50mhz-rates")
    assert rates.price("axon_in") == 60.0 and rates.conversion("axon_in") == "3 cycle at 50 MHz = 60 ns"
    assert load_profile("loihi1-davies2018").conversion("hop_ew") == ""


def test_power_counts_the_ticks_of_a_machine_in_wall_clock_time() -> None:
    layers = [dict.fromkeys(MAPPED_TERMS, 0) | {"chip_crossing": 0, "axon_out": 3}]
    for name in ("synop", "neuron_update", "within_tile_spike", "barrier", "static", "static_core"):
        del layers[0][name]
    chip = {"barrier": 20, "host_message": 0, "static": 70, "static_core": 350}  # 10 ticks of 2 chips, 10 cores
    found = mapped_energy("spinnaker1-power", layers, chip)
    assert (found.counts["static"], found.counts["static_core"]) == (20_000_000, 100_000_000)
    assert found.total_pj == pytest.approx(20e6 * 350 + 100e6 * 34 + 3000)
    assert set(found.missing) == {"static", "static_core"}  # time is at least so much
    assert mapped_energy("loihi1-frady2020", layers, chip).total_pj == pytest.approx(70 * 104.4)


def test_memory_accesses_are_added_to_the_formula() -> None:
    bare, sram, dram = (load_profile(f"cmos45-horowitz{kind}") for kind in ("", "-sram", "-dram"))
    for dtype, bits in (("fp32", 32), ("fp16", 16), ("int32", 32), ("int8", 8)):
        for op, numbers in (("ac", 3), ("mac", 4)):
            term = f"{op}_{dtype}"
            memory = numbers * bits * 10 / 64
            assert sram.price(term) == pytest.approx(bare.price(term) + memory)
            assert dram.price(term) == pytest.approx(bare.price(term) + memory + bits * (1300 - 10) / 64)


def test_a_formula_in_another_type() -> None:
    found = load_profile("cmos45-horowitz:int8")
    assert (found.name, found.type) == ("cmos45-horowitz:int8", "int8")
    with pytest.raises(UsageError, match="price profile truenorth is of kind mapped; only a formula has a type"):
        load_profile("truenorth:int8")


# --- the published numbers --------------------------------------------------------------------------------


def test_prices_are_those_of_our_notes() -> None:
    """Section 9 of the notes on hardware; an STDP update is counted by nobody here, so it has no term."""
    if not RESEARCH.is_file():
        pytest.skip("the notes on hardware are not part of the repository")
    said = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", RESEARCH.read_text(), re.S)[0])
    price = {name: load_profile(name).price for name in list_profiles()}
    limits = {n: {k: v.value for k, v in load_profile(n).limits.items()} for n in list_profiles()}
    loihi1, davies = said["loihi1"], price["loihi1-davies2018"]
    names = {"spike_tile": "within_tile_spike"}
    energy = {names.get(k, k): v for k, v in loihi1["energy_pJ"].items() if k != "stdp_update"}
    assert {k: davies(k) for k in energy} == energy
    times = {k: v for k, v in loihi1["latency_ns"].items() if k not in ("stdp_update", "spike_tile")}
    rates = price["loihi1-davies2018-rates"]
    assert {k: rates(k) for k in times} == times | {"barrier": times["barrier"][0]}
    assert price["loihi1-frady2020"]("static") == loihi1["static_mW_per_chip"]

    loihi2 = load_profile("loihi2")
    assert said["loihi2"]["energy_pJ"] is None
    assert [t for t, p in loihi2.prices.items() if p.value is not None and p.inside is None] == ["static"]
    peak = load_profile("loihi2-hala-point").prices["synop"]
    assert (peak.value, peak.scope) == (said["loihi2"]["bound"]["hala_point_pJ_per_sop_all_in"], "all_in")
    for name in ("truenorth", "odin"):
        synop = load_profile(name).prices["synop"]
        assert (synop.value, synop.scope) == (said[name]["energy_pJ"]["synop"], said[name]["scope"])
        assert synop.conditions.startswith(said[name]["conditions"][:6])

    machine, power = said["spinnaker1"], load_profile("spinnaker1-power").prices
    assert power["static"].value == machine["idle_W_per_chip"]
    assert power["static_core"].value == machine["active_W_per_core"]
    assert power["axon_out"].value == machine["packet_nJ"]
    assert f"{machine['packet_payload_nJ']} nJ" in power["axon_out"].note
    held = limits["spinnaker1-power"]
    told = {
        "cores_per_chip": "cores",
        "dtcm_bytes": "dtcm_B",
        "sdram_bytes": "sdram_B",
        "router_entries": "router_entries",
    }
    assert held == {ours: machine[theirs] for ours, theirs in told.items()}
    assert price["spinnaker2-hoppner2019"]("synop") == said["spinnaker2"]["energy_pJ"]["synop"]
    assert price["spinnaker2-hoppner2019"]("neuron_active") == said["spinnaker2"]["energy_pJ"]["neuron"]
    assert limits["spinnaker2-hoppner2019"]["cores_per_chip"] == said["spinnaker2"]["cores"]
    assert limits["speck"]["kernel_memory"] == tuple(said["speck"]["kernel_Ki"])
    assert limits["speck"]["neuron_memory"] == tuple(said["speck"]["neuron_Ki"])
    xylo = said["xylo_a2"]
    assert limits["xylo-a2"] == {k: xylo[k] for k in limits["xylo-a2"]}
    assert price["xylo-a2"]("static") * 1e3 == xylo["idle_uW"]
    assert {k: price["cmos45-horowitz"](k) for k in said["cmos45"]} == said["cmos45"]


def test_nothing_is_taken_over_from_loihi1_for_loihi2_or_the_neurocore() -> None:
    assert load_profile("loihi2").energy({"synop_conv": 1, "spike_out": 1}).total_pj == 0.0
    assert all(p.value is None for t, p in load_profile("neurocore").prices.items() if p.inside is None)


# --- on a network -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ring() -> nmc.Run:
    """64 neurons that all fire in every tick, each with one synapse to a neuron of the other core."""
    net, n = Network("ring"), 64
    p = net.lif("pop", n, du=4095, dv=0, vth=1, bias=2 << 6)
    net.sparse("to", p, p, np.arange(n + 1), (np.arange(n) + n // 2) % n, np.ones(n, int))
    program = split_evenly(net.program(), 2, load_target("loihi2"))
    return nmc.emulate(program, steps=20, record="all")


def report_of(ring: nmc.Run, *names: str) -> Report:
    return Report(priced(ring.report.data, choose_profiles(names)))


def test_davies_and_the_fit_beside_each_other(ring) -> None:
    """The fit adds 180.3 pJ for every spike that leaves a core: little fan-out, more than twice the energy."""
    report = report_of(ring)
    davies, fit = report["energy"][:2]
    spikes = davies["counts"]["spike_out"]
    assert spikes == davies["counts"]["axon_out"] > 1000
    assert fit["terms_pj"]["spike_out"] + fit["terms_pj"]["axon_out"] == pytest.approx(spikes * 180.3)
    assert report["energy_range"]["ratio"] > 2
    assert report["energy_range"]["term"] == "axon_out"
    assert "which has no price in loihi1-davies2018 but in loihi1-sanafe-fit" in report.text()


def test_an_all_in_total_is_its_price_times_synops(ring) -> None:
    report = report_of(ring, "truenorth")
    found = report["energy"][0]
    assert found["total_pj"] == 26.0 * report["synops_effective"] and found["complete"]
    assert set(found["inside"]) >= {"neuron_active", "spike_out", "axon_out", "axon_in", "static", "static_core"}
    text = report.text()
    assert "synop is all-in, at 0.775 V, 72 mW" in text and "inside of it and not added: " in text
    assert "at least" not in next(line for line in text.splitlines() if line.startswith("  truenorth  "))
    both = priced(report.data, choose_profiles(["truenorth", "loihi1-sanafe-fit"]))
    assert both["energy_range"]["reason"] == (
        "truenorth has everything in its price of synop, loihi1-sanafe-fit prices operations apart"
    )


def test_power_of_cores_belongs_to_no_layer(ring) -> None:
    report = report_of(ring, "spinnaker1-power", "truenorth")
    power, layer = report["energy"][0], report["layers"][0]
    assert power["total_pj"] == pytest.approx(20e6 * 350 + 40e6 * 34 + 1000 * power["counts"]["axon_out"])
    assert layer["energy_pj"]["spinnaker1-power"] == 1000 * power["counts"]["axon_out"]
    assert "synop_sparse" in layer["missing"]["spinnaker1-power"] and not layer["missing"]["truenorth"]
    assert report["energy_range"]["reason"] == "they differ most in static, which truenorth has inside of synop"


def test_labels_tell_the_chip_that_a_mapping_is_for(ring) -> None:
    found = {}
    for target, rules in (("loihi2", "loihi2"), ("loihi1", "loihi1"), ("neurocore", "neurocore")):
        data = priced({**ring.report.data, "target": target, "rules": rules}, choose_profiles(["loihi1-sanafe-fit"]))
        found[target] = data["energy"][0]["label"]
    assert found == {
        "loihi2": "Loihi 1 prices on a Loihi 2 mapping",
        "loihi1": "Loihi 1 prices",
        "neurocore": "Loihi 1 prices on a mapping for neurocore",
    }


def test_prices_of_another_chip_say_whose_mapping_was_counted(ring) -> None:
    """Also generic-mesh, whose integers are those of loihi2, is another chip than that."""
    found = {}
    for target, rules in (("loihi2", "loihi2"), ("generic-mesh", "loihi2"), ("neurocore-1", "neurocore")):
        data = {**ring.report.data, "target": target, "rules": rules}
        for name in ("loihi2", "truenorth", "neurocore"):
            label = priced(data, choose_profiles([name]))["energy"][0]["label"]
            found[target, name] = label.removeprefix(load_profile(name).scope_label)
    ours = {("loihi2", "loihi2"), ("neurocore-1", "neurocore")}
    assert found == {key: "" if key in ours else f"; counts of a mapping for {key[0]}" for key in found}


def test_assumptions_name_the_prices_that_were_taken(ring) -> None:
    head = "spikes and counts are exact; energies are counts times"
    before = ring.report["assumptions"]
    other = report_of(ring, "truenorth", "neurocore")
    assert f"{head} the prices of truenorth (measured), neurocore (none is known)" in other["assumptions"]
    assert f"{head} published prices, most of them of another chip" in before and len(before) == len(
        other["assumptions"]
    )
    assert report_of(ring)["assumptions"] == before


def test_a_file_does_not_take_the_name_of_a_profile_of_nmc(tmp_path) -> None:
    text = (PROFILES / "odin.yaml").read_text(encoding="utf-8")
    (tmp_path / "same.yaml").write_text(text, encoding="utf-8")
    assert load_profile(tmp_path / "same.yaml") == load_profile("odin")
    (tmp_path / "other.yaml").write_text(text.replace("12.7", "1.27"), encoding="utf-8")
    with pytest.raises(UsageError, match="^odin is the name of a price profile of nmc with other contents; give yours"):
        load_profile(tmp_path / "other.yaml")


def test_no_price_is_so_large_that_a_sum_is_infinite(tmp_path) -> None:
    told = refusal(tmp_path, MINE.replace("value: 2.0", "value: 1.0e+300"))
    assert "input should be less than or equal to 1000000000000000" in told


def test_static_share_is_at_least(ring) -> None:
    report = report_of(ring, "loihi1-frady2020")
    found = report["energy"][0]
    assert found["static_pj"] == found["total_pj"] > 0 and found["static_share"] == 1.0
    assert (
        "static: at least " in report.text()
        and found["reasons"]["static"] == "the time of the run is a bound from below"
    )
    assert report_of(ring)["energy"][0]["static_pj"] is None


def test_a_timestep_of_a_small_network_takes_a_microsecond_or_more(ring) -> None:
    """Measured were 1.75 us; the barrier alone, which a profile without that floor leaves, is 200 ns."""
    program, trace = ring.program, Trace({0: ring.events["pop"]}, 1, 20)
    whole = simulate(program, trace, profile="loihi2-extrapolated-rates")
    assert (whole.per_tick >= 1000).all()
    rates = load_profile("loihi2-extrapolated-rates")
    none = rates.prices["timestep_floor"].model_copy(update={"value": 0.0})
    bare = rates.model_copy(update={"prices": {**rates.prices, "timestep_floor": none}})
    assert (simulate(program, trace, profile=bare).per_tick >= 200).all()
    assert simulate(program, trace, profile=bare).per_tick.min() < 1000


def test_profiles_that_cannot_be_chosen() -> None:
    with pytest.raises(
        UsageError, match="price profile loihi2-assumed-rates holds times, and energies are made of prices"
    ):
        choose_profiles(["loihi2-assumed-rates"])
    with pytest.raises(UsageError, match="price profile odin is given twice"):
        choose_profiles(["odin", "truenorth", "odin"])
    names = [p.name for p in choose_profiles(["cmos45-horowitz:int8", "odin"])]
    assert names == ["odin", "cmos45-horowitz:int8"]
    assert [p.name for p in choose_profiles()] == ["loihi1-davies2018", "loihi1-sanafe-fit", "cmos45-horowitz"]


def test_work_of_a_part_on_the_host_is_never_free(ring) -> None:
    work = {"macs": 7, "ops": 0, "exps": 5, "divisions": 0}
    host = {"host": {"work": work, "messages": {"read": 3, "sent": 4}}}
    found = priced({**ring.report.data, **host}, choose_profiles(["truenorth"]))["energy"][0]
    assert set(found["missing"]) == {"host_mac", "host_message", "host_op"} and not found["complete"]
    assert found["reasons"]["host_op"] == "no profile prices the host's exponentials, divisions and other ops"
    assert (found["counts"]["host_mac"], found["counts"]["host_message"], found["counts"]["host_op"]) == (7, 3, 5)


def test_a_run_with_prices_of_its_own_keeps_what_the_host_did() -> None:
    x = np.random.default_rng(0).normal(size=(2, 6, 8, 1, 1))
    given = {"prices": ["truenorth", "loihi2-assumed-rates"]}
    run = nmc.emulate(compiled_graph(norm_lif()), {"x": x}, **given)
    found, work = run.report["energy"][0], run.report["host"]["work"]
    assert found["profile"] == "truenorth" and {"host_mac", "host_message", "host_op"} <= set(found["missing"])
    assert found["counts"]["host_mac"] == work["macs"] > 0 and found["counts"]["host_op"] > 0


def test_a_report_without_its_counts_cannot_be_priced_again(ring) -> None:
    data = {**report_of(ring).data}
    for bent in (
        {k: v for k, v in data.items() if k != "chip_terms"},
        data | {"chip_terms": {"static": 1}},
        data | {"layers": [{k: v for k, v in data["layers"][0].items() if k != "terms"}]},
    ):
        with pytest.raises(UsageError, match="does not hold its counts by price term; run `nmc emulate` again"):
            priced(bent, choose_profiles())


# --- the command line -------------------------------------------------------------------------------------


def test_targets_lists_and_shows_profiles(capsys, tmp_path) -> None:
    assert main(["targets", "list", "--json"]) == 0
    told = {p["name"]: p for p in json.loads(capsys.readouterr().out)["prices"]}
    assert set(told) == set(list_profiles()) and told["odin"]["chip"] == "odin" and told["odin"]["kind"] == "mapped"
    assert main(["targets"]) == 0 and "truenorth" in capsys.readouterr().out
    assert main(["targets", "show", "loihi2"]) == 0
    text = capsys.readouterr().out
    assert (
        "core.neurons" in text and "232 mW = 232 pJ per ns" in text and "Reports of it use the prices loihi1-" in text
    )
    assert main(["targets", "show", "loihi2", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert {p["name"] for p in shown["prices"]} >= {"loihi2", "loihi2-hala-point", "loihi2-extrapolated-rates"}
    assert main(["targets", "show", "truenorth"]) == 0
    text = capsys.readouterr().out
    assert "all-in" in text and "Merolla" in text and "inside of the price of synop, nothing on top: " in text
    assert main(["targets", "show", "spinnaker1", "--json"]) == 0
    assert [p["name"] for p in json.loads(capsys.readouterr().out)["prices"]] == [
        "spinnaker1-hoppner2019",
        "spinnaker1-power",
    ]
    (tmp_path / "mine.yaml").write_text(MINE)
    assert main(["targets", "show", str(tmp_path / "mine.yaml")]) == 0
    assert "mine: t" in capsys.readouterr().out
    assert main(["targets", "show", "loihi9"]) == 2
    assert "unknown target or price profile 'loihi9'; known: generic-mesh, loihi1" in capsys.readouterr().err


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """An artefact with a run."""
    build = tmp_path_factory.mktemp("prices") / "build"
    with np.load(FIXTURE / "vectors.npz") as file:
        images = file["images"][:1]
    nmc.compile(FIXTURE / "model.pt", out=build)
    nmc.emulate(build, images, out=build / "run")
    return build


def test_a_profile_of_ones_own_in_all_reports(folder, tmp_path, capsys) -> None:
    (tmp_path / "mine.yaml").write_text(MINE)
    own = ["--prices", str(tmp_path / "mine.yaml")]
    assert main(["report", str(folder), *own]) == 0
    assert re.search(r"mine +at least \S+ [num]J +mine", capsys.readouterr().out)
    assert main(["report", str(folder), *own, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [e["profile"] for e in data["energy"]] == ["mine", "cmos45-horowitz"]
    assert data["energy"][0]["total_pj"] == 2.0 * (data["synops_ac"] + data["synops_mac"])
    assert data["prices"]["mine"]["prices"]["spike_out"]["inside"] == "synop"
    assert data["per_core"]["energy_pj"].keys() == {"mine"}
    assert {"axon_in", "dyn_read"} <= set(data["per_core"]["missing"]["mine"])
    assert main(["report", str(folder), *own, "--prices", "truenorth", "--html", str(tmp_path / "r.html")]) == 0
    html = (tmp_path / "r.html").read_text()
    assert "All-in: the price of" in html and "energy as far as it has prices, truenorth" in html
    assert main(["report", str(folder), *own, "--csv"]) == 0
    assert "energy_pj_at_least:mine" in capsys.readouterr().out.splitlines()[0]
    assert main(["report", str(folder), "--conversion", *own]) == 2


def test_a_damaged_profile_of_ones_own_is_told_by_line(folder, tmp_path, capsys) -> None:
    (tmp_path / "mine.yaml").write_text(MINE.replace("value: 2.0", "value: two"))
    assert main(["report", str(folder), "--prices", str(tmp_path / "mine.yaml")]) == 1
    told = capsys.readouterr().err
    assert f"mine.yaml:{AT_SYNOP + 1}: prices.synop.value: input should be a valid number, got 'two'" in told


def test_times_of_ones_own_give_seconds_and_static_energy(folder, tmp_path, capsys) -> None:
    with np.load(FIXTURE / "vectors.npz") as file:
        np.savez(tmp_path / "one.npz", images=file["images"][:1])
    run = ["emulate", str(folder), "--input", str(tmp_path / "one.npz"), "--json", "-o", str(tmp_path / "run")]
    found = {}
    for rates in ("loihi1-davies2018-rates", "neurocore-50mhz-rates"):
        assert main([*run, "--prices", rates, "--prices", "loihi1-frady2020"]) == 0
        found[rates] = json.loads(capsys.readouterr().out)
        assert found[rates]["seconds"]["profile"] == rates
        assert any(f"seconds rest on the times of {rates};" in line for line in found[rates]["assumptions"])
        powered = found[rates]["seconds"]["run"] * 1e9
        assert found[rates]["energy"][0]["total_pj"] == pytest.approx(powered * 104.4, rel=1e-3)
    assert [e["profile"] for e in data_of(tmp_path / "run")["energy"]] == ["loihi1-frady2020", "cmos45-horowitz"]
    seconds = [found[rates]["seconds"]["run"] for rates in found]
    assert seconds[0] < seconds[1]
    assert main([*run, "--prices", "loihi1-davies2018-rates", "--prices", "loihi2-assumed-rates"]) == 2
    assert "loihi1-davies2018-rates and loihi2-assumed-rates both hold times" in capsys.readouterr().err
    assert main([*run, "--prices", "loihi1-davies2018-rates", "--timing", "queue"]) == 2
    assert "price profile loihi1-davies2018-rates has no time for 'spike_out'" in capsys.readouterr().err
    assert main([*run, "--prices", "loihi2-assumed-rates", "--timing", "queue"]) == 0
    assert json.loads(capsys.readouterr().out)["timing"]["profile"] == "loihi2-assumed-rates"
    assert main(["report", str(tmp_path / "run"), "--prices", "loihi2-assumed-rates"]) == 2
    assert "times are taken where a run is made: nmc emulate --prices" in capsys.readouterr().err


def data_of(run: Path) -> dict:
    return json.loads((run / "report.json").read_text())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda t: t["energy_range"].pop("reason"), "energy_range/reason"),
        (lambda t: t["energy_range"].update(low="x"), "energy_range/low"),
        (lambda t: t["energy"][0].update(all_in=[]), "energy/0/all_in"),
        (lambda t: t["energy"][0]["counts"].update(synop_conv="1"), "energy/0/counts/synop_conv"),
        (lambda t: t["energy"][0]["inside"].update(x=1), "energy/0/inside/x"),
        (lambda t: t["prices"].pop(DAVIES), f"prices/{DAVIES}"),
        (lambda t: t["prices"][DAVIES].pop("title"), f"prices/{DAVIES}/title"),
        (lambda t: t["prices"][DAVIES]["prices"]["synop"].update(value="1"), f"prices/{DAVIES}/prices/synop/value"),
        (lambda t: t["layers"][0]["missing"].pop(DAVIES), f"layers/0/missing/{DAVIES}"),
        (lambda t: t["layers"][0]["terms_pj"][DAVIES].update(x="1"), f"layers/0/terms_pj/{DAVIES}/x"),
        (lambda t: t["per_core"].update(terms=None), "per_core/terms"),
    ],
)  # fmt: skip
def test_damaged_energies_of_a_file_are_told_by_place(ring, tmp_path, change, text: str) -> None:
    tree = json.loads(json.dumps(ring.report.data))
    change(tree)
    (tmp_path / "report.json").write_text(json.dumps(tree))
    with pytest.raises(ArtefactError, match=re.escape(f"report.json: {text} is missing or of a wrong type; run")):
        read_report(tmp_path / "report.json")
