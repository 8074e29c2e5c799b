"""Programs with convolutions between volumes: files, rules, what the builder says, memory on a core."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from nmc_compiler.errors import ArtefactError, UsageError, VerifyError
from nmc_compiler.mapping import split_evenly
from nmc_compiler.mapping.resources import core_usage
from nmc_compiler.program import load_program, program_digest, save_program, validate_program
from nmc_compiler.program.digest import digest_of
from nmc_compiler.program.model import Depth, Program
from nmc_compiler.program.network import Network
from nmc_compiler.target import load_target


def volume(**options) -> Program:
    """(2, 4 slices of 5 rows, 3) to (6, 2 slices of 3 rows, 3)."""
    net = Network("volume")
    net.input("a", (2, 20, 3))
    net.lif("b", (6, 6, 3), vth=1)
    form = {"stride": (2, 2, 1), "pad": (1, 1, 1), "dilation": (2, 1, 1), "slices": 4} | options
    weight = np.random.default_rng(0).integers(-128, 128, (2, 3, 3, 1, 6))
    net.conv("c", 0, 1, weight, groups=2, **form)
    return net.program()


def test_what_the_builder_stores():
    (conv,) = volume().convs
    assert conv.depth == Depth(4, 2, 2, 2, 1, 2)
    assert (conv.stride, conv.pad, conv.dilation, conv.out_hw, conv.groups) == ((2, 1), (1, 1), (1, 1), (6, 3), 2)
    weight = np.random.default_rng(0).integers(-128, 128, (2, 3, 3, 1, 6))
    assert conv.weight.dtype == np.int8 and np.array_equal(conv.weight.reshape(weight.shape), weight)


def test_wide_weights_are_two_convolutions_of_the_same_volume():
    net = Network("wide")
    net.input("a", (1, 4, 2))
    net.lif("b", (1, 4, 2), vth=1)
    net.conv("c", 0, 1, np.full((3, 1, 1, 1, 1), 1000), pad=(1, 0, 0), slices=2)
    low, high = net.program().convs
    assert low.depth == high.depth == Depth(2, 2, 3, 1, 1, 1)
    assert ((low.weight.astype(int) << low.shift) + (high.weight.astype(int) << high.shift) == 1000).all()


# --- files --------------------------------------------------------------------------------------------------


def test_round_trip(tmp_path):
    program = volume()
    digest = save_program(program, tmp_path)
    again = load_program(tmp_path)
    assert again.convs[0].depth == program.convs[0].depth and program_digest(again) == digest
    assert replace(again.convs[0], weight=0) == replace(program.convs[0], weight=0)


def test_a_plane_has_no_such_field(tmp_path):
    """Files and digests of Programs without volumes are what they were before there were any."""
    net = Network("plane")
    net.input("a", (1, 2, 2))
    net.lif("b", (1, 2, 2), vth=1)
    net.conv("c", 0, 1, np.ones((1, 1, 1, 1), int))
    digest = save_program(net.program(), tmp_path)
    (conv,) = json.loads((tmp_path / "program.json").read_text())["convs"]
    assert "depth" not in conv
    assert digest == "80e890419988456265ce100ad9906d5a444cb5d39fc501aa25009a8081b25fdc"


FILES = {
    "null": (None, "convs/0/depth: expected an object, or no such field, got None"),
    "a number": (3, "convs/0/depth: expected an object with the fields of Depth, got 3"),
    "a field less": ({"source": 4}, "convs/0/depth/target: missing; the file is incomplete"),
    "a field more": ({"source": 4, "slant": 1}, "'convs/0/depth/slant': unknown field"),
    "a float": (
        {"source": 4.0, "target": 2, "kernel": 2, "stride": 2, "pad": 1, "dilation": 2},
        "convs/0/depth/source: expected int, got 4.0",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_hostile_files(name, tmp_path):
    depth, text = FILES[name]
    save_program(volume(), tmp_path)
    tree = json.loads((tmp_path / "program.json").read_text())
    tree["convs"][0]["depth"] = depth
    tree["digest"] = digest_of(tree, (tmp_path / "arrays.safetensors").read_bytes())
    (tmp_path / "program.json").write_text(json.dumps(tree))
    with pytest.raises(ArtefactError) as caught:
        load_program(tmp_path)
    assert text in str(caught.value)


RULES = {
    "no slices": ({"source": 0}, "convs/0/depth/source: 0 is outside 1..1048576"),
    "negative pad": ({"pad": -1}, "convs/0/depth/pad: -1 is outside 0..1048576"),
    "stride 0": ({"stride": 0}, "convs/0/depth/stride: 0 is outside 1..1048576"),
    "huge": ({"dilation": 2**62}, "convs/0/depth/dilation: 4611686018427387904 is outside 1..1048576"),
    "slices": ({"source": 3}, "convs/0/depth/source: 2, expected 0: slices of equal height; 20 rows leave a rest"),
    "taps": ({"kernel": 4}, "depth/kernel: 2, expected 0: taps of equal height; 6 rows of weights leave a rest"),
    "target": ({"target": 3}, "convs/0/depth/target: 3, expected 2: output of kernel 2 on 4 slices"),
    "no output": ({"dilation": 9}, "convs/0/depth/target: 2, expected -1: output of kernel 2 on 4 slices"),
    "rows": ({"source": 2, "target": 1}, "convs/0/out_hw: (6, 3), expected (5, 3)"),
}


@pytest.mark.parametrize("name", RULES)
def test_rules(name):
    changes, text = RULES[name]
    program = volume()
    (conv,) = program.convs
    assert conv.depth is not None
    broken = replace(program, convs=(replace(conv, depth=replace(conv.depth, **changes)),))
    with pytest.raises(VerifyError) as caught:
        validate_program(broken)
    assert text in str(caught.value)


ERRORS = {
    "flat": ({"slices": None}, "stride (2, 2, 1): expected a number, or one for rows and one for columns"),
    "two axes": ({"stride": (1, 1)}, "stride (1, 1): expected a number, or one each for slices, rows and columns"),
    "slices": ({"slices": 3}, "3 slices of the 20 rows of the source: they must be of equal height"),
    "no slices": ({"slices": 0}, "slices 0: expected a whole number in 1..20"),
    "target": (
        {"stride": (1, 2, 1)},
        "kernel [2, 3, 3], stride [1, 2, 1], pad [1, 1, 1], dilation [2, 1, 1] on [4, 5, 3] positions give "
        "[4, 3, 3], but the target has [6, 3]",
    ),
    "nothing left": ({"dilation": (9, 9, 1)}, "positions give [-1, -5, 3], but the target has [6, 3]"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_the_builder_refuses(name):
    options, text = ERRORS[name]
    with pytest.raises(UsageError) as caught:
        volume(**options)
    assert "network 'volume', projection 'c'" in str(caught.value) and text in str(caught.value)


def test_weights_without_a_third_axis_are_refused():
    net = Network("flat")
    net.input("a", (1, 4, 2))
    net.lif("b", (1, 4, 2), vth=1)
    with pytest.raises(UsageError, match=r"expected \[slices, rows, columns, C_in / groups, C_out\]"):
        net.conv("c", 0, 1, np.ones((1, 1, 1, 1), int), slices=2)


# --- memory -------------------------------------------------------------------------------------------------


def test_weights_are_stored_once_per_core_for_all_slices():
    """2 * 3 * 3 taps of 1 input channel for each of 2 groups of 3 output channels; loihi2 pads a row to words."""
    target = load_target("loihi2")
    word, bits = target.core.synapse_word_bits.value, target.core.weight_bits.value
    row = -(-3 * bits // target.packing.conv_row_pad_bits.value) * target.packing.conv_row_pad_bits.value
    program = split_evenly(volume(), 1, target)
    usage = core_usage(program, program.mapping, target)
    assert usage["synapse_words"].tolist() == [-(-2 * 3 * 3 * 1 * 2 * row // word)]
    assert usage["axons_in"].tolist() == [-(-2 // target.core.axon_atoms.value) * 2 * 5 * 3]  # slices 1 and 3 alone
