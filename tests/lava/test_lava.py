"""Random networks, bit for bit against lava-nc 0.10.0: recorded ones always, live ones where Lava is found.

Spikes of all populations, u and v of every LIF after each timestep.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
from engines import ENGINES
from golden import Golden, Held, digest_held, digest_of, goldens, run_lava
from lava_nets import LIKE, Description, canonical, codes_in, describe, in_range, order, to_program, with_state

from nmc_emulator.emulate import Emulator
from nmc_emulator.trace import codes_of
from nmc_hw.tools import find_tools

LIVE = range(100_000, 100_005)


def ours(d: Description, engine: str) -> Held:
    """What nmc computes, in Lava's order."""
    lif = with_state(d)
    emulator = Emulator(to_program(d), engine=engine, record="all")
    result = emulator.run_events(codes_in(d), d["steps"], probe={f"p{i}": None for i in lif})
    found: Held = {}
    for i, p in enumerate(d["populations"]):
        if p["kind"] == "RingBuffer":
            continue
        shape, back = canonical(p["shape"]), np.argsort(order(p["shape"]))
        sent = codes_of(result.events[f"p{i}"], d["steps"], shape).reshape(d["steps"], -1)
        values = {"s": sent} | (dict(zip("uv", result.potentials[f"p{i}"], strict=True)) if i in lif else {})
        found |= {(i, what): v.astype(np.int64).T[back] for what, v in values.items()}
    return found


@functools.cache
def recorded() -> list[Golden]:
    return list(goldens())


def test_enough_networks_of_every_kind_are_recorded():
    found = [describe(g.seed) for g in recorded()]
    populations = [p for d in found for p in d["populations"]]
    connections = [c for d in found for c in d["connections"]]
    assert len(found) >= 200
    for kind in ("LIF", "LIFReset", "TernaryLIF", "SigmaDelta"):
        assert sum(p["kind"] == kind for p in populations) >= 50, kind
    for kind in ("Dense", "Sparse", "Conv", "DelayDense", "DelaySparse"):
        assert sum(c["kind"] == kind for c in connections) >= 50, kind
    assert {c["num_weight_bits"] for c in connections} == set(range(1, 9))
    assert {c["weight_exp"] for c in connections} >= set(range(-6, 9))
    assert sum(any(c["dst"] <= c["src"] for c in d["connections"]) for d in found) >= 50  # recurrent
    assert sum(np.max(c.get("delays", 0)) == 63 for c in connections) >= 20
    assert sum(c["num_message_bits"] > 0 for c in connections) >= 100
    assert sum(any(np.any(codes) for codes in g.codes.values()) for g in recorded()) >= 150, "too many are silent"


def test_descriptions_are_those_that_were_recorded():
    """NumPy may change its random streams; then the goldens must be recorded again (``golden.py``)."""
    assert [g.seed for g in recorded() if digest_of(describe(g.seed)) != g.described] == []


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("like", sorted(set(LIKE)))
def test_recorded_networks(like, engine):
    for g in recorded():
        if LIKE[g.seed % len(LIKE)] == like:
            d = describe(g.seed)
            found = ours(d, engine)
            for i, codes in g.codes.items():
                assert np.array_equal(found[i, "s"], codes), f"seed {g.seed}, population {i}"
            assert digest_held(d, found) == g.held, f"seed {g.seed}: u or v"


@functools.cache
def live() -> list[tuple[Description, Held]]:
    """Networks that no golden has, run in Lava now."""
    lava = next(tool for tool in find_tools() if tool.name == "lava-nc")
    if lava.found is None:
        pytest.skip(f"no Python 3.10 with lava-nc: {lava.how_to_get}")
    descriptions = [describe(seed) for seed in LIVE]
    found = list(zip(descriptions, run_lava(str(lava.found), descriptions), strict=True))
    return [(d, h) for d, h in found if in_range([h[k] for k in h if k[1] == "s"], [h[k] for k in h if k[1] == "u"])]


@pytest.mark.parametrize("engine", ENGINES)
def test_live_networks(engine):
    assert len(live()) >= 3
    for d, held in live():
        found = ours(d, engine)
        assert found.keys() == held.keys()
        for key, values in held.items():
            assert np.array_equal(found[key], values), key
