"""The event engine equals the tick engine on general networks: events, potentials and every counter."""

from __future__ import annotations

import numpy as np
import pytest
from general_nets import on_one_core, random_codes, random_general
from hypothesis import given, settings
from hypothesis import strategies as st

from nmc_compiler.program.model import Program
from nmc_emulator import Emulator
from nmc_emulator.suits import why_not_events

bounded = settings(max_examples=60, deadline=None, derandomize=True)
PROFILES = st.sampled_from(["loihi1", "loihi2", "neurocore"])


def same(program: Program, seed: int, steps: int, rate: float | None = None) -> None:
    names = [p.name for p in program.populations]
    inputs = {names[i]: codes for i, codes in random_codes(program, seed, steps, rate).items()}
    probe = {p.name: None for p in program.populations if p.model == "lif"}
    fast, slow = (Emulator(program, record="all", engine=e) for e in ("events", "ticks"))
    got, want = (e.run_events(inputs, steps, probe=probe) for e in (fast, slow))
    for name in names:
        for part in ("step", "soma", "code"):
            assert np.array_equal(getattr(got.events[name], part), getattr(want.events[name], part)), (name, part)
    for name, (u, v) in want.potentials.items():
        assert np.array_equal(got.potentials[name][0], u) and np.array_equal(got.potentials[name][1], v), name
    assert not got.counters.differences(want.counters)


@bounded
@given(st.integers(0, 10**6), st.integers(1, 16), PROFILES)
def test_streams(seed, steps, profile):
    program = random_general(seed, profile=profile)
    if why_not_events(program) is None:
        same(program, seed, steps)


@bounded
@given(st.integers(0, 10**6), st.integers(1, 6), PROFILES)
def test_windows(seed, steps, profile):
    program = random_general(seed, timesteps=steps, profile=profile)
    if why_not_events(program) is None:
        same(program, seed, steps)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_silence_and_everything_firing(rate):
    for seed in range(4):
        program = random_general(seed)
        if why_not_events(program) is None:
            same(program, seed, 5, rate)
            same(on_one_core(program), seed, 5, rate)
