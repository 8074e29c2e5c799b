"""Weight preparation against what lava-nc 0.10.0 was recorded to do."""

from __future__ import annotations

import numpy as np
import pytest

from nmc_compiler.errors import UsageError
from nmc_compiler.program.loihi_weights import prepare_weights

GIVEN = [-300, -256, -255, -129, -100, -57, -3, -1, 0, 1, 2, 3, 57, 100, 129, 255, 300]
MIXED = {
    8: [-256, -256, -256, -130, -100, -58, -4, -2, 0, 0, 2, 2, 56, 100, 128, 254, 254],
    6: [-256, -256, -256, -136, -104, -64, -8, -8, 0, 0, 0, 0, 56, 96, 128, 248, 248],
    4: [-256, -256, -256, -160, -128, -64, -32, -32, 0, 0, 0, 0, 32, 96, 128, 224, 224],
    2: [-256, -256, -256, -256, -128, -128, -128, -128, 0, 0, 0, 0, 0, 0, 128, 128, 128],
    1: [-256] * 8 + [0] * 9,
}
EXCITATORY = {
    8: [255, 255, 255, 129, 100, 57, 3, 1, 0, 1, 2, 3, 57, 100, 129, 255, 255],
    6: [252, 252, 252, 128, 100, 56, 0, 0, 0, 0, 0, 0, 56, 100, 128, 252, 252],
    4: [240, 240, 240, 128, 96, 48, 0, 0, 0, 0, 0, 0, 48, 96, 128, 240, 240],
    2: [192, 192, 192, 128, 64, 0, 0, 0, 0, 0, 0, 0, 0, 64, 128, 192, 192],
    1: [128] * 4 + [0] * 10 + [128] * 3,
}


@pytest.mark.parametrize("bits", MIXED)
@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64])
def test_recorded_weights(bits, dtype):
    given = np.array(GIVEN, dtype)
    assert prepare_weights(given, bits).tolist() == MIXED[bits]
    assert prepare_weights(np.abs(given), bits).tolist() == EXCITATORY[bits]
    assert prepare_weights(-np.abs(given), bits).tolist() == [-w for w in EXCITATORY[bits]]


def test_given_mode():
    assert prepare_weights(np.array([-5, 7]), mode="excitatory").tolist() == [0, 7]
    assert prepare_weights(np.array([-5, 7]), mode="inhibitory").tolist() == [-5, 0]
    assert prepare_weights(np.array([5, 7]), mode="mixed").tolist() == [4, 6]


def test_shapes_and_extremes():
    assert prepare_weights(np.zeros((2, 0), np.int8)).shape == (2, 0)
    assert prepare_weights(np.array([[-(2**63), 2**63 - 1]])).tolist() == [[-256, 254]]
    assert prepare_weights(np.array([2**64 - 1], np.uint64)).tolist() == [255]
    assert prepare_weights(np.array([-128, 127], np.int8)).dtype == np.int32


@pytest.mark.parametrize(
    ("weights", "options", "text"),
    [
        (np.ones(2), {}, "weights are float64; Lava's fixed-point models take integers: round them first"),
        (np.ones(2, int), {"bits": 0}, "bits 0: expected 1 to 8, as Lava's num_weight_bits"),
        (np.ones(2, int), {"bits": 9}, "bits 9: expected 1 to 8"),
        (np.ones(2, int), {"mode": "EXC"}, "mode 'EXC': expected 'mixed', 'excitatory', 'inhibitory' or None"),
    ],
)
def test_refusals(weights, options, text):
    with pytest.raises(UsageError) as error:
        prepare_weights(weights, **options)
    assert text in str(error.value)
