"""Counts times prices, by hand: who owns a count, which term it is, and what a total leaves out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from nmc_compiler.program.model import (
    Conv,
    Dendrite,
    Dynamic,
    HostCurrent,
    Map,
    Mapping,
    Population,
    Program,
    Transfer,
)
from nmc_emulator.cost import (
    BOUNDS,
    CROSSING,
    MAPPED_PROFILES,
    chip_terms,
    layer_counts,
    layer_terms,
    least_time,
    mapped_energy,
    owner,
    owners,
    run_ticks,
)
from nmc_emulator.counters import Counters
from nmc_emulator.price_profile import MAPPED_TERMS, PROFILES, load_profile

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
NOT_USED = {"synop", "neuron_update", "within_tile_spike"}  # sums of others, or not told apart


def lif(name: str, shape: tuple[int, int, int], level: int, dendrite: int, role="neuron", **more) -> Population:
    return Population(name, shape, level, "lif", role, dendrite, vth=np.ones(shape[0], np.int32), **more)


def program(**changes) -> Program:
    """Host -> a (2x2x2) -> or-gate b (2x1x1) -> read-out c (3x1x1); T = 2, one chip of two cores."""
    populations = (
        lif("a", (2, 2, 2), 0, 0),
        lif("b", (2, 1, 1), 1, 1, "or"),
        Population("c", (3, 1, 1), 2, "readout", "readout", 2, dv=0),
    )
    weight = np.ones((1, 1, 2, 3), np.int8)
    host = np.ones((2, 1, 1, 1), np.int32)
    whole = Program(
        name="tiny",
        timesteps=2,
        ticks_per_step=1,
        input_shape=(1, 2, 2),
        input_time=False,
        populations=populations,
        dendrites=(Dendrite("a", (2, 2, 2), 0), Dendrite("b", (2, 1, 1), 1), Dendrite("c", (3, 1, 1), 2)),
        convs=(Conv("bc", 1, 2, 1, weight, 0),),
        maps=(Map("ab", 0, 1, 1, 1, "reduce"),),
        dynamics=(),
        transfers=(),
        host_currents=(HostCurrent("xa", 0, 0, host, np.zeros(2, np.int64), 8, 0, (1, 2, 2), (1, 1), (0, 0)),),
        host_codes=(),
        mapping=None,
        target={},
        interval=4,
    )
    return replace(whole, **changes)


def counters(p: Program, **tables: dict[int, int]) -> Counters:
    """Zeros but for ``tables``: counter -> {unit: count}, all on the first core."""
    found = Counters.zeros(p, 2)
    for name, units in tables.items():
        for unit, count in units.items():
            found.tables[name][unit, 0] = count
    return found


TABLES = {
    "events": {0: 5, 1: 3},
    "payload_sum": {0: 5, 1: 3},
    "packets": {0: 4, 1: 2},
    "packets_local": {0: 1},
    "packets_in": {0: 4, 1: 2},
    "hops_ew": {0: 7},
    "hops_ns": {0: 2, 1: 1},
    "neuron_updates": {0: 16, 1: 4, 2: 6},
    "bias_events": {0: 8},
    "synops_ac": {0: 9},
    "synops_ac_dense": {0: 12},
    "map_ops": {0: 5},
    "current_messages": {0: 6},
    "host_macs": {0: 8},
}


UPDATES = {"neuron_updates": {0: 16, 1: 4, 2: 6}}  # every soma in both timesteps


# --- owners -----------------------------------------------------------------------------------------------


def test_work_belongs_to_the_first_population_that_reads_it() -> None:
    """A stream read at levels 1 and 3, and behind a pool at level 2 by a population of level 4."""
    shapes = (1, 2, 2), (1, 1, 1)
    p = program(
        populations=(
            lif("s", shapes[0], 0, 0),
            lif("late", shapes[0], 3, 1),
            lif("early", shapes[0], 1, 1),
            lif("pooled", shapes[1], 4, 2),
        ),
        dendrites=(Dendrite("s", shapes[0], 0), Dendrite("x", shapes[0], 1, 3), Dendrite("y", shapes[1], 1)),
        convs=(),
        maps=(),
        transfers=(Transfer("pool", 1, 2, 4, "maxpool", (2, 2), (2, 2)),),
        host_currents=(),
    )
    assert [owner(p, 1, level) for level in (0, 1, 2, 3, 4)] == [2, 2, 1, 1, 3]
    assert owners(p)["transfer"] == [3]


def test_layers_own_their_traffic_and_the_work_of_what_they_read() -> None:
    p = program()
    a, b, c = layer_counts(p, counters(p, **TABLES))
    assert (a["events"], a["packets"], a["hops_ew"], a["host_macs"], a["map_ops"]) == (5, 4, 7, 8, 0)
    assert (b["map_ops"], b["synops_ac"], b["packets"]) == (5, 0, 2)
    assert (c["synops_ac"], c["synops_ac_dense"], c["events"]) == (9, 12, 0)


# --- terms ------------------------------------------------------------------------------------------------


def test_every_priced_term_is_counted_or_named_as_not_used() -> None:
    p = program()
    terms = layer_terms(p, counters(p), 1)[0].keys() | chip_terms(p, counters(p), 1, 0.0).keys()
    assert terms == set(MAPPED_TERMS) - NOT_USED | {CROSSING}


def test_terms_of_each_layer_by_hand() -> None:
    p = program()
    a, b, c = layer_terms(p, counters(p, **TABLES), samples=1)
    assert run_ticks(p, 1) == 4 and run_ticks(p, 3) == 12
    # eight somas for four ticks, of which eight have a bias and five fired: at least eight active
    assert (a["neuron_active"], a["neuron_inactive"]) == (8, 24)
    assert (a["spike_out"], a["axon_out"], a["axon_in"], a["hop_ew"], a["hop_ns"]) == (5, 4, 4 + 6, 7, 2)
    assert (a["bias_event"], a["host_mac"], a["host_message"]) == (8, 8, 6)
    assert (b["gate_op"], b["accumulator_add"], b["neuron_active"], b["neuron_inactive"]) == (5, 0, 3, 5)
    assert (c["synop_dense"], c["synop_conv"], c["spike_out"], c["neuron_inactive"]) == (9, 0, 0, 12)


ROLES = {"or": "gate_op", "and": "gate_op", "pool": "pool_op", "relay": "relay_event", "neuron": "accumulator_add"}


@pytest.mark.parametrize(("role", "term"), ROLES.items())
def test_map_operations_are_priced_by_role(role: str, term: str) -> None:
    p = program()
    p = replace(p, populations=(p.populations[0], replace(p.populations[1], role=role), p.populations[2]))
    terms = layer_terms(p, counters(p, map_ops={0: 5}), 1)[1]
    assert terms[term] == 5 and sum(terms[t] for t in ("gate_op", "pool_op", "relay_event", "accumulator_add")) == 5


def test_a_projection_between_more_than_single_positions_is_conv_addressed() -> None:
    p = program()
    conv = replace(p.convs[0], src=0, collapse=True, out_hw=(2, 2))
    terms = layer_terms(replace(p, convs=(conv,)), counters(p, synops_ac={0: 9}), 1)[2]
    assert (terms["synop_dense"], terms["synop_conv"]) == (0, 9)


def test_graded_synops_are_synops_of_the_same_format() -> None:
    p = program()
    assert layer_terms(p, counters(p, synops_mac={0: 9}), 1)[2]["synop_dense"] == 9


def test_the_chip_pays_for_ticks_outputs_and_time() -> None:
    p = program()
    assert chip_terms(p, counters(p), 3, 1234.4) == {
        "barrier": 12, "host_message": 9, "static": 1234, "static_core": 2468,
    }  # fmt: skip
    cores = np.array([[0, 0, 0, 0], [1, 8, 0, 0]], np.int32)
    none = np.zeros((0, 8), np.int32)
    two = replace(p, mapping=Mapping(none, none, np.zeros((0, 11), np.int32), cores, chips=2))
    assert chip_terms(two, counters(p), 3, 10.0)["barrier"] == 24


# --- energy -----------------------------------------------------------------------------------------------


def energy(name: str, p: Program, c: Counters, samples: int = 1):
    return mapped_energy(name, layer_terms(p, c, samples), chip_terms(p, c, samples, 100.0))


def test_energy_under_davies_by_hand() -> None:
    p = program()
    found = energy("loihi1-davies2018", p, counters(p, **TABLES))
    active, inactive = 8 + 3, 24 + 5 + 12
    expected = 23.6 * (9 + 5 + 8) + 81 * active + 52 * inactive + 3 * 7 + 4 * (2 + 1)
    assert found.total_pj == pytest.approx(expected, rel=1e-12)
    assert sum(found.layers_pj) == pytest.approx(expected, rel=1e-12)  # barriers and host have no price
    assert not found.complete
    assert set(found.missing) == {
        "axon_in", "axon_out", "barrier", "host_mac", "host_message", "neuron_active", "spike_out", "static",
        "within_tile_spike",
    }  # fmt: skip
    assert set(found.reasons) == set(found.missing)


def test_energy_under_the_fit_by_hand() -> None:
    p = program()
    found = energy("loihi1-sanafe-fit", p, counters(p, **TABLES))
    expected = 35.5 * 9 + 33.6 * 5 + 35.5 * 8 + 72.8 * 11 + 51.2 * 41 + 69.3 * 8 + 111 * 6 + 3 * 7 + 4.2 * 3
    assert found.total_pj == pytest.approx(expected, rel=1e-12)
    # packets within a tile cost nothing under this fit, so it does not matter how many they are
    assert set(found.missing) == {"host_mac", "host_message", "neuron_active", "static"}


def test_the_labels_say_whose_prices_they_are() -> None:
    for name in MAPPED_PROFILES:
        assert load_profile(name).scope_label == "Loihi 1 prices on a Loihi 2 mapping"


@pytest.mark.parametrize("name", MAPPED_PROFILES)
def test_counting_too_few_active_neurons_is_a_bound_from_below(name: str) -> None:
    """It holds because an active neuron costs at least what an inactive one does."""
    profile = load_profile(name)
    assert profile.price("neuron_active") >= profile.price("neuron_inactive") > 0


def test_terms_that_did_not_happen_are_not_missing() -> None:
    p = program()
    found = energy("loihi1-davies2018", p, counters(p, **TABLES))
    assert not {"dyn_write", "dyn_read", "pool_compare", CROSSING} & set(found.missing)


@pytest.mark.parametrize(
    ("table", "term"), [("pool_compares", "pool_compare"), ("dyn_writes", "dyn_write"), ("dyn_reads", "dyn_read")]
)
def test_a_term_without_a_price_is_never_zero_silently(table: str, term: str) -> None:
    p = program(
        transfers=(Transfer("t", 0, 1, 1, "sum"),),
        dynamics=(Dynamic("d", 0, 0, 0, 1, 1, 1, 1, 1, 0, 100),),
    )
    for name in MAPPED_PROFILES:
        found = energy(name, p, counters(p, **{table: {0: 1}}))
        assert term in found.missing and not found.complete
        assert found.reasons[term].startswith("no published price: ")


def test_packets_between_chips_have_no_price() -> None:
    p = program()
    found = energy("loihi1-sanafe-fit", p, counters(p, chip_crossings={0: 2}))
    assert CROSSING in found.missing and found.reasons[CROSSING] == "no profile prices a packet between chips"


def test_a_total_is_complete_where_everything_has_price_and_exact_count(tmp_path: Path) -> None:
    """A profile of our own that prices all terms but time; all neurons biased in every tick, no packet."""
    data = yaml.safe_load((PROFILES / "loihi1-davies2018.yaml").read_text())
    for term, price in data["prices"].items():
        price |= {"value": float(term != "static"), "evidence": "assumed"}
    (tmp_path / "all.yaml").write_text(yaml.safe_dump(data | {"name": "all"}))
    p = program()
    c = counters(p, bias_events={0: 32, 1: 8, 2: 12}, synops_ac={0: 4}, **UPDATES)
    found = energy(str(tmp_path / "all.yaml"), p, c)
    assert found.complete and found.missing == ()
    assert found.total_pj == 52 + 52 + 4 + 4 + 3  # active, bias, synops, barriers, host reads
    assert found.total_pj - sum(found.layers_pj) == 4 + 3
    data["prices"]["static"]["value"] = 2.0
    (tmp_path / "time.yaml").write_text(yaml.safe_dump(data | {"name": "time"}))
    timed = energy(str(tmp_path / "time.yaml"), p, c)
    assert timed.total_pj == found.total_pj + 200 and timed.missing == ("static",)
    assert timed.reasons["static"] == "the time of the run is a bound from below"


def test_a_bound_is_named_only_where_it_can_be_off() -> None:
    p = program()
    found = energy("loihi1-sanafe-fit", p, counters(p, bias_events={0: 32, 1: 8, 2: 12}, **UPDATES))
    assert set(BOUNDS) & set(found.missing) == {"static"} and found.reasons["static"].startswith("no published price")


# --- time -------------------------------------------------------------------------------------------------


def test_time_is_the_largest_of_its_bounds() -> None:
    p, c = program(), Counters.zeros(program(), 2)
    c.bound.update(synops=100_000, neuron_updates=10, link_packets=10, memory_reads=10)
    time = least_time(p, c, 2)
    assert time.bounds_ns == pytest.approx(
        {"ticks": 8 * 1750.0, "synops": 100_000 * 0.62, "neuron_updates": 30.0, "link_packets": 41.0}
    )
    assert (time.ns, time.missing) == (pytest.approx(62_000.0), ())
    assert "extrapolated" in time.profile.scope_label


def test_what_nobody_has_timed_bounds_nothing_and_is_named() -> None:
    p = program(dynamics=(Dynamic("d", 0, 0, 0, 1, 1, 1, 1, 1, 0, 100),))
    c = Counters.zeros(p, 2)
    c.bound.update(synops=10**9)
    time = least_time(p, c, 1)
    assert time.missing == ("synops",) and time.ns == 4 * 1750.0
