"""Neurons on counts, in integers, against their float definitions: facts E1, E2, E3, E5 and E6 of models.md.

The integer rules are written out once more here (docs/integers.md), in Python integers; the float neurons
are the equations N1, N1a, N4 and N5 in float64.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nmc_compiler.errors import LoweringError
from nmc_compiler.graph import Attr, Kind, Node, ValueType
from nmc_compiler.passes.counts import CountBound, CountNeuron, levels_on_counts, lif_on_counts, or_on_counts

SETTINGS = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
MOST = 2**17 - 1  # of the current register, and of vth
ONE_TABLE = CountBound(1, 0)
DYADIC_STEPS = (1 / 8, 1 / 4, 1 / 2, 1.0, 1 / 64, 3 / 8)
OTHER_STEPS = (0.1, 1 / 3, 1 / 7, 2 / math.sqrt(12), 1 / 196)


def neuron(op: str = "lif", **attrs) -> Node:
    given = {"tau": 2.0, "theta": 0.5, "reset": "hard", "compare": "ge", "decay_input": True} if op == "lif" else {}
    values = {k: Attr(v) for k, v in {**given, **attrs}.items()}
    return Node("n", op, (), values, ValueType(Kind.SPIKE, (1, 1, 1)), "n")


def float_lif(node: Node, counts: np.ndarray, step: float) -> np.ndarray:
    """Spikes [T, n] of N1 or N1a on x = count * step."""
    tau, theta, gain = (node.attr(k, 1.0) for k in ("tau", "theta", "gain"))
    v, out = np.zeros(counts.shape[1]), []
    for x in counts * step * gain:
        h = v + (x - v) / tau if node.attr("decay_input") else v - v / tau + x
        s = h >= theta if node.attr("compare") == "ge" else h > theta
        v = np.where(s, 0.0, h)
        out.append(s)
    return np.array(out)


def chip_lif(plan: CountNeuron, counts: np.ndarray) -> np.ndarray:
    """Spikes [T, n] of Lava's LIF on a = min(count, saturate) << shift; nothing may leave its register."""
    v, out = [0] * counts.shape[1], []
    for row in counts.tolist():
        fired = []
        for i, count in enumerate(row):
            u = (min(count, plan.saturate) << plan.shift) << 6
            h = (v[i] * (4096 - plan.dv) >> 12) + u
            assert 0 <= u < 2**23 and h < 2**23
            fired.append(h > plan.vth << 6)
            v[i] = 0 if fired[-1] else h
        out.append(fired)
    return np.array(out)


def random_counts(seed: int, timesteps: int, k: float, n: int = 60) -> np.ndarray:
    """Counts around the threshold k, zeros among them, and some far above."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, max(2, int(1.2 * k) + 2), (timesteps, n))
    return np.where(rng.random(counts.shape) < 0.05, 10**6, counts)


# --- E1 -----------------------------------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.integers(1, 8))
@SETTINGS
def test_e1_a_mask_lif_is_an_or_gate(seed: int, timesteps: int) -> None:
    counts = random_counts(seed, timesteps, 2)
    plan = or_on_counts(neuron(), CountBound(0, 1000), MOST)
    want = counts >= 1
    np.testing.assert_array_equal(chip_lif(plan, np.minimum(counts, 1000)), want)
    np.testing.assert_array_equal(float_lif(neuron(), counts, 1.0), want)


# --- E2 and E3 ----------------------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 10**6),
    timesteps=st.integers(1, 8),
    step=st.sampled_from(DYADIC_STEPS),
    theta=st.sampled_from((0.5, 1.0, 0.75, 2.0)),
    tau=st.sampled_from((1.0, 2.0, 4 / 3)),
    gain=st.sampled_from((1.0, 0.5)),
    compare=st.sampled_from(("ge", "gt")),
    decay_input=st.booleans(),
)
@SETTINGS
def test_e2_lif_on_scaled_counts_is_exact(seed, timesteps, step, theta, tau, gain, compare, decay_input) -> None:
    node = neuron(tau=tau, theta=theta, gain=gain, compare=compare, decay_input=decay_input)
    plan = lif_on_counts(node, step, timesteps, ONE_TABLE, MOST)
    k = theta / (gain * step / (tau if decay_input else 1.0))
    bits = {1.0: 0, 2.0: 1, 4 / 3: 2}[tau] * (timesteps - 1)
    assert plan.exact or (math.floor(k) + 1) * (2 - 1 / tau) * 2**bits > MOST
    same = chip_lif(plan, counts := random_counts(seed, timesteps, k)) == float_lif(node, counts, step)
    assert same.all() or not plan.exact


@given(
    seed=st.integers(0, 10**6),
    timesteps=st.integers(1, 8),
    step=st.sampled_from(DYADIC_STEPS + OTHER_STEPS),
    theta=st.sampled_from((0.5, 1.0, 0.3)),
    tau=st.sampled_from((1.0, 2.0, 4 / 3, 8 / 7, 3.0, 1.7, 50.0)),
    compare=st.sampled_from(("ge", "gt")),
)
@SETTINGS
def test_what_is_called_exact_is_exact(seed, timesteps, step, theta, tau, compare) -> None:
    node = neuron(tau=tau, theta=theta, compare=compare)
    plan = lif_on_counts(node, step, timesteps, ONE_TABLE, MOST)
    counts = random_counts(seed, timesteps, theta * tau / step)
    same = chip_lif(plan, counts) == float_lif(node, counts, step)
    assert same.all() or not plan.exact
    assert plan.exact == (plan.remark == "")


@pytest.mark.parametrize(
    ("node", "step", "timesteps", "exact"),
    [
        (neuron(), 1 / 8, 8, True),
        (neuron(tau=4 / 3), 1 / 4, 8, True),
        (neuron(tau=8 / 7), 1.0, 4, True),  # keeps 1/8
        (neuron(tau=3.0), 1 / 8, 4, False),  # 4096/3 is not whole
        (neuron(tau=1.6), 1.0, 4, False),  # keeps 3/8: no power of two
        (neuron(tau=1.6), 1.0, 1, False),
        (neuron(), 0.1, 4, False),  # 10 counts are 1.0 only after rounding
        (neuron(), 1 / 7.3, 4, True),  # no count is near the threshold
        (neuron(), 1 / 8192, 4, True),
        (neuron(), 1 / 8192, 8, False),  # 7 fraction bits do not fit beside a threshold of 8192
    ],
    ids=lambda v: f"tau{v.attr('tau'):.3g}" if isinstance(v, Node) else f"{v:.3g}",
)
def test_exactness_is_claimed_where_it_can_be(node: Node, step: float, timesteps: int, exact: bool) -> None:
    assert lif_on_counts(node, step, timesteps, ONE_TABLE, MOST).exact is exact


def test_an_inexact_neuron_says_how_near_the_threshold_it_may_differ() -> None:
    plan = lif_on_counts(neuron(tau=3.0), 1 / 8, 4, ONE_TABLE, MOST)
    assert plan.remark == "potentials within 2^-6 of the threshold 12 may differ (wanted 6 fraction bits)"
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 14, (4, 5000))
    w, chip, real = np.zeros(5000), chip_lif(plan, counts), float_lif(neuron(tau=3.0), counts, 1 / 8)
    agreed = np.ones(5000, bool)
    for t in range(4):
        w = w * 2 / 3 + counts[t]
        assert not (agreed & (chip[t] != real[t]) & (abs(w - 12) > 2**-6)).any()
        agreed &= chip[t] == real[t]
        w = np.where(real[t], 0, w)
    assert agreed.mean() > 0.99


@given(st.integers(0, 10**6), st.integers(1, 12))
@SETTINGS
def test_e3_halving_with_t_fraction_bits_is_exact(seed: int, timesteps: int) -> None:
    """v = (v + x)/2 on integers is one shift per step when x carries T fraction bits."""
    rng = np.random.default_rng(seed)
    real, chip = 0.0, 0
    for x in rng.integers(-1000, 1000, timesteps).tolist():
        real = (real + x) / 2
        chip = (chip + (x << timesteps)) >> 1
        assert chip == real * 2**timesteps


def test_saturation_is_above_every_threshold_even_where_bits_are_scarce() -> None:
    """Wide thresholds leave few shift bits; one count above the threshold must still fire."""
    for k in (1000.5, 2047.7, 4095.9, 16383.5, 40000.3):
        node = neuron(theta=k, tau=2.0, decay_input=False)
        plan = lif_on_counts(node, 1.0, 4, ONE_TABLE, MOST)
        counts = np.array([[math.floor(k), math.ceil(k), 10**7]])
        assert chip_lif(plan, counts).tolist() == [[False, True, True]]


def test_maps_and_tables_share_the_register() -> None:
    """Counts of maps do not saturate: the more there are, the fewer fraction bits are left."""
    shifts = [lif_on_counts(neuron(), 1 / 8, 8, CountBound(0, n), MOST).shift for n in (10, 4000, 30000)]
    assert shifts == [7, 5, 2]
    node = neuron(tau=3.0)
    counts = np.full((8, 1), 30000)
    assert chip_lif(lif_on_counts(node, 1 / 8, 8, CountBound(0, 30000), MOST), counts).all()


REFUSED = {
    "neuron 'n' reads counts up to 196608, which shifted by 0 exceed the 131071 of this target's current register": (
        lambda: lif_on_counts(neuron(theta=65536.0), 1.0, 1, ONE_TABLE, MOST)
    ),
    "neuron 'n' reads counts up to 65536, which shifted by 1 exceed the 131071 of this target's current register": (
        lambda: or_on_counts(neuron(), CountBound(0, 65536), MOST)
    ),
    "neuron 'n' reads counts up to 262145, which shifted by 0 exceed the 131071 of this target's current register": (
        lambda: levels_on_counts(multilevel(), 3.5 / 262144.5, ONE_TABLE, MOST)
    ),
    "neuron 'n' reads counts and resets to -0.5; only 0 is lowered": (
        lambda: lif_on_counts(neuron(v_reset=-0.5), 1.0, 1, ONE_TABLE, MOST)
    ),
}


@pytest.mark.parametrize("text", REFUSED)
def test_counts_that_do_not_fit_are_refused(text: str) -> None:
    with pytest.raises(LoweringError) as error:
        REFUSED[text]()
    assert str(error.value) == text


# --- E5 and E6 ----------------------------------------------------------------------------------------------

TABLES = {
    12: (56, 167, 278, 388),
    16: (65, 192, 321, 448),
    24: (79, 236, 392, 549),
    30: (88, 263, 439, 614),
    32: (91, 272, 453, 634),
    45: (108, 322, 537, 752),
}


def multilevel(**attrs) -> Node:
    return neuron("multilevel", **{"levels": 4, "norm": 4, "rounding": "half_even", **attrs})


def chip_levels(plan: CountNeuron, counts: np.ndarray) -> np.ndarray:
    v = np.minimum(counts, plan.saturate) << (plan.shift + 6)
    return (v[..., None] >= np.array(plan.thresholds)).sum(axis=-1)


def rounded(x: np.ndarray, rounding: str) -> np.ndarray:
    return np.rint(x) if rounding == "half_even" else np.floor(x + 0.5)


@pytest.mark.parametrize("d", TABLES)
def test_e6_the_published_tables(d: int) -> None:
    """Codes 0..4 are quarters, so a count is 2/sqrt(d)/64; the tables hold in float32 and float64."""
    step = 2 / math.sqrt(d) / 64
    plan = levels_on_counts(multilevel(), step, ONE_TABLE, MOST)
    assert tuple(t >> 6 for t in plan.thresholds) == TABLES[d] and plan.exact
    counts = np.arange(2 * TABLES[d][-1])
    for dtype in (np.float32, np.float64):
        x = counts.astype(dtype) / dtype(64) * dtype(2 / math.sqrt(d))
        np.testing.assert_array_equal(chip_levels(plan, counts), np.rint(np.clip(x, 0, 4)))


@given(
    step=st.sampled_from(DYADIC_STEPS + OTHER_STEPS) | st.floats(1e-4, 2.0),
    gain=st.sampled_from((1.0, 0.5, 1.5)),
    levels=st.integers(1, 16),
    rounding=st.sampled_from(("half_even", "half_up")),
)
@SETTINGS
def test_e6_level_tables_round_every_count_as_the_float_neuron(step, gain, levels, rounding) -> None:
    plan = levels_on_counts(multilevel(levels=levels, gain=gain, rounding=rounding), step, CountBound(1, 0), 2**24)
    counts = np.arange(int((levels + 1) / (step * gain)) + 3)
    want = rounded(np.clip(counts * (step * gain), 0, levels), rounding)
    np.testing.assert_array_equal(chip_levels(plan, counts), want)


def test_e5_half_even_and_half_up_part_at_the_odd_ties() -> None:
    even, up = (levels_on_counts(multilevel(rounding=r), 1 / 2, ONE_TABLE, MOST) for r in ("half_even", "half_up"))
    counts = np.arange(10)
    assert chip_levels(even, counts).tolist() == [0, 0, 1, 2, 2, 2, 3, 4, 4, 4]
    assert chip_levels(up, counts).tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4, 4]


def test_a_tie_that_float_rounding_decides_is_not_called_exact() -> None:
    plan = levels_on_counts(multilevel(), 0.1, ONE_TABLE, MOST)
    assert not plan.exact
    assert plan.remark == "the count at which level 1 starts depends on how 0.1 is rounded"
    assert levels_on_counts(multilevel(), 1 / 128, ONE_TABLE, MOST).exact
