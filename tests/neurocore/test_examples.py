"""The examples for the neurocore do what their README says."""

import sys
from pathlib import Path

import numpy as np

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "neurocore"


def test_neurons_learn_orientations(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES / "stdp"))
    import learn

    rng = np.random.default_rng(0)
    start = rng.integers(20, 60, (learn.NEURONS, learn.SIDE**2))
    counts, learned = learn.run(learn.network(start, learn.RULE), learn.bars(400, rng)[0])
    assert counts.sum() > 0 and learned.min() >= 0
    test, labels = learn.bars(200, rng)
    before, after = (learn.told_right(learn.run(learn.network(w, None), test)[0], labels) for w in (start, learned))
    assert before < 0.7 and after > 0.9


def test_the_dense_network_tells_digits(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(EXAMPLES / "dense"))
    import digits

    monkeypatch.setattr(sys, "argv", ["digits.py"])
    digits.main()
    assert capsys.readouterr().out == "352 of 360 test digits right (97.78 %)\n"
