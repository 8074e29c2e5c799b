"""Both engines against the brute-force twin: codes, logits and every counter, on random Programs."""

from dataclasses import replace

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import map_program, random_images, random_program

from nmc_compiler.program.model import Conv, Dendrite, HostCodes, Population, Program
from nmc_emulator import Emulator, RunResult, run
from nmc_emulator.counters import BOUND, OVERFLOW, TABLES

OPTIONS = st.fixed_dictionaries(
    {
        "pipelined": st.booleans(),
        "input_time": st.booleans(),
        "graded": st.booleans(),
        "lags": st.booleans(),
        "ticks": st.sampled_from([1, 1, 2, 3]),
        "volumes": st.booleans(),
    }
)


def same_as_naive(program: Program, images: np.ndarray, result: RunResult, want: naive.Naive) -> None:
    """Fail with the name of whatever differs."""
    for i, p in enumerate(program.populations):
        if p.model != "readout":
            assert np.array_equal(result.codes[p.name], want.codes[i]), f"codes of {p.name} ({p.model})"
    assert result.logits_int.tolist() == want.logits
    for name in TABLES:
        table = np.zeros_like(result.counters.tables[name])
        for (unit, core), n in want.tables[name].items():
            table[unit, core] += n
        assert np.array_equal(result.counters.tables[name], table), name
    assert result.counters.bound == {name: want.bound[name] for name in BOUND}
    for name in OVERFLOW:
        counts = [want.overflow[name][i] for i in range(len(program.populations))]
        assert result.counters.overflow[name].tolist() == counts, name


@settings(max_examples=45, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), OPTIONS, st.integers(1, 3), st.sampled_from(["loihi1", "loihi2"]))
def test_engines_equal_the_brute_force_twin(seed, options, samples, profile):
    program = map_program(random_program(seed, **options), seed, cores=5, parts=3, chips=2)
    program = replace(program, target={**program.target, "profile": profile})
    images = random_images(program, seed, samples)
    want = naive.run(program, images)
    same_as_naive(program, images, run(program, images, record="all"), want)
    same_as_naive(program, images, run(program, images, record="all", engine="ticks"), want)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), OPTIONS)
def test_engines_agree_on_larger_programs(seed, options):
    program = map_program(random_program(seed, layers=9, **options), seed, cores=9, parts=5, chips=3)
    images = random_images(program, seed, 3)
    fast, slow = (run(program, images, record="all", engine=e) for e in ("layers", "ticks"))
    assert fast.counters.differences(slow.counters) == []
    assert np.array_equal(fast.logits_int, slow.logits_int)
    assert all(np.array_equal(fast.codes[n], slow.codes[n]) for n in slow.codes)


def test_trivial_mapping_and_no_mapping_count_the_same_work():
    program = random_program(5, layers=6)
    images = random_images(program, 5, 2)
    mapped, bare = run(map_program(program), images), run(program, images)
    assert mapped.mapped and not bare.mapped
    assert mapped.counters.differences(bare.counters) == []
    assert bare.counters.total("packets") == 0 < bare.counters.total("packets_local")


@pytest.mark.parametrize("lags", [False, True])
@pytest.mark.parametrize("pipelined", [False, True])
def test_results_do_not_depend_on_batch(lags, pipelined):
    program = map_program(random_program(17, layers=7, lags=lags, pipelined=pipelined), 17, cores=4, parts=3)
    images = random_images(program, 17, 5)
    one = run(program, images, record="all")
    for batch in (2, 3, 5, 64):
        other = run(program, images, record="all", batch=batch)
        assert other.counters == one.counters
        assert np.array_equal(other.logits, one.logits)
        assert all(np.array_equal(other.codes[n], one.codes[n]) for n in one.codes)


@pytest.mark.parametrize("engine", ["layers", "ticks"])
def test_an_emulator_runs_again_as_if_new(engine):
    program = map_program(random_program(23, layers=6, pipelined=True), 23, cores=4, parts=3)
    first, second = random_images(program, 1, 3), random_images(program, 2, 2)
    emulator = Emulator(program, engine=engine, batch=2, record="all")
    before = emulator.run(first)
    kept = {n: t.copy() for n, t in before.counters.tables.items()}
    again, other = emulator.run(second), emulator.run(first)
    assert other.counters == before.counters and again.counters == run(program, second).counters
    assert all(np.array_equal(before.counters.tables[n], kept[n]) for n in kept), "a later run changed a result"


@pytest.mark.parametrize("engine", ["layers", "ticks"])
def test_no_images_is_a_run_of_nothing(engine):
    program = map_program(random_program(3))
    result = run(program, random_images(program, 3, 0), engine=engine, record="all")
    assert result.samples == 0 and result.logits.shape == (0, 3)
    assert all(result.counters.total(n) == 0 for n in TABLES) and not any(result.counters.bound.values())


@pytest.mark.parametrize("engine", ["layers", "ticks"])
def test_all_silent_and_all_firing(engine):
    """With every soma active all the time, effective and dense SynOps are the same."""
    base = random_program(31, layers=7)
    assert not base.host_codes
    images = random_images(base, 31, 2)

    def forced(p: Population, theta: int) -> Population:
        plain = {"model": "lif", "role": "neuron", "thresholds": None, "payload_bits": 0, "signed": False, "dv": 4096}
        return p if p.model == "readout" else replace(p, vth=np.full(p.shape[0], theta, np.int32), **plain)

    names = ("synops_ac", "synops_mac", "dyn_writes", "dyn_reads")
    for theta, firing in ((-(2**17), True), (2**17 - 1, False)):
        program = map_program(replace(base, populations=tuple(forced(p, theta) for p in base.populations)), 1, 3, 3)
        counters = run(program, images, engine=engine).counters
        assert sum(counters.total(f"{n}_dense") for n in names) > 0
        for name in names:
            assert counters.total(name) == (counters.total(f"{name}_dense") if firing else 0)
        assert (counters.total("events") > 0) == firing


def chain(delay: int, timesteps: int = 2, pipelined: bool = True) -> Program:
    """input -> LIF -> readout with one long delay: events of several samples in flight at once."""
    weight = np.array([[[[3, -2], [1, 4]]]], np.int8)
    somas = (
        Population("in", (2, 1, 1), 0, "input", "input", -1, payload_bits=4),
        Population("lif", (2, 1, 1), delay, "lif", "neuron", 0, vth=np.array([2, 2], np.int32)),
        Population("out", (2, 1, 1), delay + 1, "readout", "readout", 1, readout_scale=0.5),
    )
    return Program(
        "chain", timesteps, 1, (2, 1, 1), False, somas, (Dendrite("d", (2, 1, 1), 0), Dendrite("o", (2, 1, 1), 1)),
        (Conv("a", 0, 0, delay, weight, 0), Conv("b", 1, 1, 1, weight, 1)), (), (), (), (), (HostCodes(0, 1.0, 0, 15),),
        None, {"mesh": {"routers": (2, 3)}}, timesteps if pipelined else timesteps + delay + 1,
    )  # fmt: skip


@pytest.mark.parametrize("delay", [1, 62])
@pytest.mark.parametrize("pipelined", [False, True])
def test_the_largest_delay_with_many_samples_in_flight(delay, pipelined):
    program = map_program(chain(delay, pipelined=pipelined), 2, cores=3)
    images = np.random.default_rng(0).integers(0, 3, (9, 2, 1, 1)).astype(float)
    fast, slow = run(program, images, record="all", batch=4), run(program, images, record="all", engine="ticks")
    assert fast.counters == slow.counters and np.array_equal(fast.logits, slow.logits)
    same_as_naive(program, images, slow, naive.run(program, images))


def test_logits_are_the_potential_times_the_scale():
    program = chain(1)
    result = run(program, np.array([[[[1.0]], [[0.0]]]]))
    # input (1, 0): a = (3, -2); neuron 0 fires in both timesteps; readout a = (3, -2) << 1 each time
    assert result.logits_int.tolist() == [[2 * 6 * 64, 2 * -4 * 64]]
    assert result.logits.tolist() == [[384.0, -256.0]]
