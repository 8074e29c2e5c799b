"""What a .net says, from trees as files give them: every kind of layer, and one clear error for what does not fit."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.hdf5 import Hdf5Group
from nmc_compiler.frontends.netx import NetxFile, read_layers
from nmc_compiler.frontends.netx_graph import build
from nmc_compiler.netx import Cuba, Sdnn

CUBA = {"type": "CUBA", "iDecay": 410, "vDecay": 123, "vThMant": 64, "refDelay": 1, "gradedSpike": False}


def dense(outputs: int, inputs: int, **more) -> dict:
    weight = (np.arange(outputs * inputs, dtype="f4").reshape(outputs, inputs) % 7 - 3) * 2
    return {"type": ["dense"], "shape": [outputs], "weight": weight, "neuron": dict(CUBA), **more}


def conv(**more) -> dict:
    weight = np.arange(4 * 2 * 9, dtype="f4").reshape(4, 2, 3, 3) % 5
    form = {"stride": [2, 1], "padding": [1, 0], "dilation": [1, 1], "groups": 1}
    return {"type": ["conv"], "shape": [4, 3, 4], "weight": weight, "neuron": dict(CUBA), **form, **more}


def net(*layers: dict) -> dict:
    return {"layer": {str(i): layer for i, layer in enumerate(layers)}}


def read(*layers: dict) -> NetxFile:
    return read_layers(Hdf5Group.of("x.net", net(*layers)))


IMAGE = {"type": ["input"], "shape": [2, 5, 6]}


def test_layers_of_every_kind():
    pool = {"type": ["pool"], "shape": [4, 2, 2], "weight": np.full((1, 1, 2, 2, 1), 16.0), "neuron": dict(CUBA)}
    flatten, average = {"type": ["flatten"], "shape": [1, 1, 16]}, {"type": ["average"], "shape": [2]}
    found = read(IMAGE, conv(), pool | {"stride": [1, 2]}, flatten, dense(4, 16), average)
    kinds = [(layer.name, layer.kind, layer.shape) for layer in found.layers]
    assert kinds == [
        ("layer0", "input", (2, 5, 6)),
        ("layer1", "conv", (4, 3, 4)),
        ("layer2", "pool", (4, 2, 2)),
        ("layer3", "flatten", (16, 1, 1)),
        ("layer4", "dense", (4, 1, 1)),
        ("layer5", "average", (2, 1, 1)),
    ]
    first, pooled = found.layers[1], found.layers[2]
    assert (first.stride, first.pad, first.neuron) == ((2, 1), (1, 0), Cuba(410, 123, 64))
    assert pooled.groups == 4 and pooled.weight.shape == (4, 1, 2, 2) and (pooled.weight == 16).all()


def test_what_an_input_layer_is_fed_with():
    image = IMAGE | {"neuron": dict(CUBA), "weight": [40.0], "bias": np.float32(36)}
    assert read(image, conv()).layers[0].transform == (40, 36)
    assert read(IMAGE | {"neuron": dict(CUBA)}, conv()).layers[0].transform == (64, 0)


def test_sigma_delta_and_plain_layers():
    sdnn = {"type": "SDNN", "activation": "relu", "vThMant": 6}
    found = read(dense(3, 2, neuron=sdnn), dense(2, 3, neuron=sdnn | {"sigma_output": True}))
    assert [layer.neuron for layer in found.layers] == [Sdnn(6), Sdnn(0, True)]
    plain = dense(2, 3)
    del plain["neuron"]
    assert read(plain).layers[0].neuron is None


@pytest.mark.parametrize(
    "delay, wanted",
    [
        ([1.0, 2.0, 3.0], [[1, 1], [2, 2], [3, 3]]),
        ([1.0, 2.0], [[1, 2], [1, 2], [1, 2]]),
        (4.0, [[4, 4]] * 3),
        ([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], [[0, 1], [2, 3], [4, 5]]),
        ([0.0, 0.0, 0.0], None),
    ],
)
def test_delays_of_outputs_inputs_or_synapses(delay, wanted):
    found = read(dense(3, 2, delay=delay)).layers[0].delay
    assert (None if found is None else found.tolist()) == wanted


def test_biases_delays_and_recurrent_weights():
    layer = read(dense(3, 2, bias=[5.0], weight_rec=np.eye(3)) | {"type": ["dense_rec"]}).layers[0]
    assert layer.bias.tolist() == [5, 5, 5] and layer.weight_rec.tolist() == np.eye(3).tolist()
    assert layer.weight.dtype == np.int64


def test_keys_that_netx_does_not_use_are_noted():
    assert read(dense(3, 2, inFeatures=2, colour=[1])).notes == ("layer/0 has colour, which netx does not use",)
    found = read_layers(Hdf5Group.of("x.net", net(dense(3, 2)) | {"simulation": {"tSample": 16}}))
    assert found.sample == 16


def neuron(**more) -> dict:
    return dense(3, 2, neuron=CUBA | more)


@pytest.mark.parametrize(
    "layers, text",
    [
        ([{"shape": [3]}], "/layer/0/type is missing; the group has shape"),
        ([dense(3, 2) | {"type": ["convT"]}], "/layer/0/type is 'convT'; layers that can be imported: input, dense, "),
        ([dense(3, 2), IMAGE], "/layer/1/type is 'input'; only the first layer can be"),
        ([conv()], "/layer/0/type is 'conv', and no layer before it says the size of its input"),
        ([IMAGE], "has no layer with weights or neurons: input"),
        ([IMAGE | {"shape": [2, 1 << 19, 2]}], "neurons; at most 1048576 are read"),
        ([IMAGE | {"shape": [0, 5, 6]}], r"/layer/0/shape has values 0\.\.6; 1\.\.1048576 are taken"),
        ([dense(3, 2) | {"weight": np.ones((4, 2))}], r"/layer/0/weight has shape \[4, 2\]; \[3, inputs\] was exp"),
        ([dense(3, 2) | {"weight": np.full((3, 2), 1.5)}], "has 6 values that are not whole numbers, the first 1.5"),
        ([dense(3, 2) | {"weight": [[300, 0]] * 3}], r"has values 0\.\.300; -255\.\.255 are taken"),
        ([dense(3, 2) | {"weight": [[255, -1]] * 3}], r"has values -1\.\.255; -256\.\.254 are taken"),
        ([dense(3, 2) | {"weight": {"real": [1], "imag": [1]}}], "/layer/0/weight is complex"),
        ([dense(3, 2), dense(2, 4)], r"/layer/1/weight takes 4 inputs, but the layer before has \(3, 1, 1\); they do"),
        ([IMAGE, conv(), dense(2, 48)], r"has \(4, 3, 4\); put a flatten layer between"),
        ([IMAGE, conv(shape=[4, 9, 9])], r"/layer/1/shape is \(4, 9, 9\), but its weights, .* give \(4, 3, 4\)"),
        ([IMAGE, conv(groups=2)], r"has shape \[4, 2, 3, 3\] in 2 groups, but the layer before has 2 channels"),
        ([IMAGE, conv(stride=[0, 1])], r"/layer/1/stride has values 0\.\.1; 1\.\.1048576 are taken"),
        ([IMAGE, conv(delay=[1, 0, 0, 0])], "/layer/1/delay of a convolution is ignored by netx"),
        ([IMAGE, conv(bias=[1, 2])], "/layer/1/bias has 2 values; one, or one for each of 4 channels, is taken"),
        ([dense(3, 2, bias=[9999])], r"/layer/0/bias has values 9999\.\.9999; -4096\.\.4095 are taken"),
        ([dense(3, 2, delay=[63])], r"/layer/0/delay has values 63\.\.63; 0\.\.62 are taken \(netx cuts what is"),
        ([dense(3, 2, delay=[1] * 4)], r"/layer/0/delay has shape \[4\], which fits no side of \[3, 2\]"),
        ([neuron(type="RF_IZ")], "/layer/0/neuron/type is 'RF_IZ'; neurons that can be imported: CUBA, LOIHI, SDNN"),
        ([neuron(iDecay=[1, 2])], r"/layer/0/neuron/iDecay has shape \[2\]; one number was expected"),
        ([neuron(iDecay=0)], r"/layer/0/neuron/iDecay is 0, outside 1\.\.4096"),
        ([neuron(vThMant=1 << 20)], r"/layer/0/neuron/vThMant is 1048576, outside 0\.\.262143"),
        ([neuron(refDelay=2)], "/layer/0/neuron/refDelay is 2, but netx knows no refractory time; only 1 is taken"),
        ([neuron(gradedSpike=True)], "/layer/0/neuron/gradedSpike is 1, but Lava's LIF sends no payload; only 0"),
        ([neuron(weight_exp=3)], "/layer/0/neuron/weight_exp is 3, but netx does not use it; only 0 is taken"),
        ([neuron(type="SDNN", activation="tanh")], "is 'tanh'; netx computes relu whatever it says"),
        ([dense(3, 2), {"type": ["average"], "shape": [2]}], "of an average is 2, which does not divide the"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_its_place(layers, text):
    with pytest.raises(FrontendError, match=text) as caught:
        read(*layers)
    assert str(caught.value).startswith("x.net: ")


def test_files_that_are_no_networks():
    for tree, text in [
        ({}, "x.net: /layer is missing; the group has nothing"),
        ({"layer": {}}, "has 0 layers; 1 to 10000 are read"),
        ({"layer": {"1": dense(3, 2)}}, "x.net: /layer has 1 but no layer 0: they count from 0"),
        ({"layer": 3}, "x.net: /layer is a dataset; a group was expected"),
    ]:
        with pytest.raises(FrontendError, match=text):
            read_layers(Hdf5Group.of("x.net", tree))


WHOLE = net(
    IMAGE | {"neuron": dict(CUBA)},
    conv(bias=[1, 2, 3, 4]),
    {"type": ["flatten"], "shape": [48]},
    dense(3, 48, delay=[1, 2, 3]),
    dense(2, 3, neuron={"type": "SDNN", "activation": "relu", "vThMant": 3}),
)
ODD = [None, "dense", "", -1, 0, 1, 2.5, 1 << 40, [], [1, 2], [[]], np.zeros((2, 0)), np.ones((2, 2, 2, 2, 2)), {}, "é"]


def places(tree: dict, path=()) -> list[tuple]:
    found = []
    for key, value in tree.items():
        found.append((*path, key))
        found += places(value, (*path, key)) if isinstance(value, dict) else []
    return found


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(places(WHOLE)), st.sampled_from(range(len(ODD)))), min_size=1, max_size=3))
def test_odd_content_ends_in_one_clear_error(changes):
    tree = copy.deepcopy(WHOLE)
    for path, odd in changes:
        at = tree
        for key in path[:-1]:
            at = at.get(key, {}) if isinstance(at, dict) else {}
        if not isinstance(at, dict):
            continue
        if ODD[odd] is None:
            at.pop(path[-1], None)
        else:
            at[path[-1]] = copy.deepcopy(ODD[odd])  # a later change may go into it
    try:
        build(read_layers(Hdf5Group.of("x.net", tree)), "net", 5, "x.net")
    except FrontendError as error:
        assert str(error).startswith("x.net: ") and "\n" not in str(error)
