"""Networks of NeuroCoreX: their files, and what a neuron then does."""

import json

import numpy as np
import pytest

from nmc.neurocorex import from_neurocorex
from nmc_compiler.errors import FrontendError, LoweringError
from nmc_compiler.neurocore.neurocorex import read_neurocorex
from nmc_emulator import Emulator


def files(tmp_path, ff, aa, **params):
    np.save(tmp_path / "ff.npy", np.asarray(ff))
    np.save(tmp_path / "aa.npy", np.asarray(aa))
    (tmp_path / "p.json").write_text(json.dumps(params))
    return tmp_path / "ff.npy", tmp_path / "aa.npy", tmp_path / "p.json"


def simulated(ff, aa, spikes, threshold, leak, refractory, gain):
    """NeuroCoreX's equation: V' = V + inputs, towards 0 by the leak, V >= Vthr; 16 bits behind the point, 24 in all."""
    threshold, leak, top = threshold << 6, leak << 6, 2**23 - 1
    v, rest = np.zeros(len(ff), int), np.zeros(len(ff), int)
    fired, out = np.zeros(len(ff), bool), []
    before = np.zeros(ff.shape[1], bool)
    for row in spikes:
        current = np.clip((ff @ before + aa @ fired) * gain << 16, -top, top)
        free = rest == 0
        u = np.clip(v + current, -top, top)
        u = np.where(u > 0, np.maximum(u - leak, 0), np.minimum(u + leak, 0))
        v = np.where(free, u, v)
        rest = np.where(free, 0, rest - 1)
        fired = free & (v >= threshold)
        v[fired], rest[fired] = 0, refractory
        before = row
        out.append(fired.copy())
    return np.array(out)


@pytest.mark.parametrize("gain", [1, 3])
def test_a_network_runs_in_its_own_numbers(tmp_path, gain):
    rng = np.random.default_rng(1)
    ff, aa = rng.integers(-20, 60, (10, 64)), rng.integers(-30, 30, (10, 10))
    np.fill_diagonal(aa, 0)
    given = files(tmp_path, ff.astype(np.int8), aa.astype(np.int8), threshold=100.5, leak=1.25, refractory=3, gain=gain)
    compiled = from_neurocorex(*given, "neurocore-1", out=tmp_path / "build")
    assert {"image.json", "image.safetensors", "program.json"} <= {p.name for p in (tmp_path / "build").iterdir()}
    spikes = rng.random((80, 64)) < 0.05
    run = Emulator(compiled.program, record="all").run_events({"in": spikes.reshape(80, 64, 1, 1).astype(np.int32)}, 80)
    found = run.events["neurons"]
    want = simulated(ff, aa, spikes, int(100.5 * 1024), int(1.25 * 1024), 3, gain)
    assert want.any() and np.array_equal(np.argwhere(want), np.stack([found.step, found.soma], axis=1))


def test_matrices_as_they_are_flashed(tmp_path):
    ff, aa = np.zeros((96, 96), np.int8), np.zeros((96, 96), np.int8)
    ff[6:16, 2:66], aa[6:16, 5:15] = 7, 3
    program = read_neurocorex(*files(tmp_path, ff, aa, threshold=5)).program
    assert [p.shape for p in program.populations] == [(94, 1, 1), (90, 1, 1)]
    [forward, within] = program.sparses
    assert np.unique(forward.target).tolist() == list(range(10)) and np.diff(forward.indptr)[:65].tolist() == [
        10
    ] * 64 + [0]
    assert len(within.target) == 90  # 10 by 10 without connections of a neuron to itself


def test_windowed_stdp(tmp_path):
    """Potentiation up to window_pre steps after an arrival, depression up to window_post steps after a spike."""
    ff, params = [[10, 100]], {"dw_pos": 3, "dw_neg": 2, "window_pre": 4, "window_post": 3, "ff": [[1, 0]]}
    given = files(tmp_path, ff, [[0]], threshold=90, stdp=params)
    compiled = from_neurocorex(*given, "neurocore-1")
    for gap, weight in ((-5, 10), (-4, 13), (0, 13), (1, 8), (3, 8), (4, 10)):
        spikes = np.zeros((30, 2, 1, 1), np.int32)
        spikes[10, 1] = 1  # makes the neuron fire in the step behind
        spikes[10 + gap, 0] = 1
        run = Emulator(compiled.program).run_events({"in": spikes}, 30)
        assert run.weights["ff.stdp"].tolist() == [weight], gap


def test_weights_stay_within_minus_one_and_127(tmp_path):
    params = {"dw_pos": 100, "dw_neg": 120, "window_pre": 1, "window_post": 10, "ff": True}
    compiled = from_neurocorex(*files(tmp_path, [[100, 100]], [[0]], threshold=90, stdp=params), "neurocore-1")
    spikes = np.zeros((6, 2, 1, 1), np.int32)
    spikes[0, 0] = spikes[3, 1] = 1
    run = Emulator(compiled.program).run_events({"in": spikes}, 6)
    assert run.weights["ff.stdp"].tolist() == [127, 99]  # 100 + 100; 100 - 120, then -1 + 100 as it fires again


@pytest.mark.parametrize(
    ("ff", "aa", "params", "text"),
    [
        ([[1, 2]], [[0]], {}, "p.json: expected an object with threshold and of gain"),
        ([[1, 200]], [[0]], {"threshold": 1}, "ff.npy: weights 1 to 200; expected whole numbers from -128 to 127"),
        ([[1.5]], [[0]], {"threshold": 1}, "ff.npy: weights 1.5 to 1.5; expected whole numbers from -128 to 127"),
        ([[1, 2]], [[0, 1]], {"threshold": 1}, "shape [1, 2]"),
        ([1, 2], [[0]], {"threshold": 1}, "ff.npy: int64 [2]; expected a matrix of numbers [targets, sources]"),
        ([[1]], [[0]], {"threshold": 200}, "p.json: threshold 200: expected a number from 0.0009765625 to 127.999"),
        ([[1]], [[0]], {"threshold": "a"}, "p.json: threshold a: expected a number"),
        ([[1]], [[0]], {"threshold": 1, "tau": 3}, "p.json: expected an object with threshold and of"),
        ([[1]], [[0]], {"threshold": 1, "stdp": {"dw_pos": 1}}, "p.json: stdp must hold dw_pos and dw_neg"),
        (
            [[1]], [[0]], {"threshold": 1, "stdp": {"dw_pos": 1, "dw_neg": 1, "ff": [[1, 1]]}},
            "p.json: stdp.ff is no matrix of 0 and 1 of shape [1, 1], true or false",
        ),
    ],
)  # fmt: skip
def test_files_that_do_not_fit(tmp_path, ff, aa, params, text):
    given = files(tmp_path, ff, aa, **({"leak": 1} | params))
    with pytest.raises(FrontendError) as error:
        read_neurocorex(*given)
    assert text in str(error.value)


def test_other_targets_and_files_that_are_none(tmp_path):
    given = files(tmp_path, [[1]], [[0]], threshold=1)
    with pytest.raises(LoweringError) as error:
        from_neurocorex(*given, "loihi2")
    assert str(error.value) == "target loihi2 has no linear leak and no learning; give --target neurocore"
    (tmp_path / "ff.npy").write_bytes(b"junk")
    with pytest.raises(FrontendError, match="ff.npy: not a whole .npy file; give a matrix written with numpy.save"):
        read_neurocorex(*given)
    with pytest.raises(FrontendError, match="No such file or directory"):
        read_neurocorex(tmp_path / "no.npy", *given[1:])
