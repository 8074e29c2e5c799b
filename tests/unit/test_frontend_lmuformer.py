"""Spiking LMUFormer: equal to its PyTorch module position by position, down to the emulator; sizes and refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from zoo import state_of, train_zoo

from nmc_compiler.errors import FrontendError, LoweringError
from nmc_compiler.fitting import fit
from nmc_compiler.frontends import lmuformer
from nmc_compiler.frontends.checkpoint import FAMILIES
from nmc_compiler.frontends.config import parse_config
from nmc_compiler.graph import Graph
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.pipeline import compile_graph
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.target import load_target
from nmc_emulator import run

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install '.[torch]'")

SMALL: dict[str, Any] = {"embed_dims": 8, "in_channels": 5, "num_classes": 3, "mlp_ratios": 2, "depths": 2,
                         "audio_length": 12}  # fmt: skip
LATE, OPTIONS = lmuformer.LOOK_AHEAD, CompileOptions(input_range=(-4.0, 4.0))
FORMS = pytest.mark.parametrize("membrane", [True, False], ids=["membranes", "spikes"])


def sequences(config: dict, count: int = 3, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(0.5, 1.0, (count, config["audio_length"], config["in_channels"]))
    return x.clip(*OPTIONS.input_range)


def padded(x: np.ndarray) -> np.ndarray:
    """Samples of the graph: zeros behind the last position."""
    return np.pad(x[..., None, None], ((0, 0), (0, LATE), *[(0, 0)] * 3))


def busy(membrane: bool, **changes: Any) -> Any:
    """A module in float64 whose batch norms hold the statistics of its own currents."""
    from torch import nn

    torch.manual_seed(0)
    config = {**SMALL, **changes}
    net = train_zoo.load_net("lmuformer").LmuFormer(**config, membrane=membrane).double()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.momentum = 1.0
            nn.init.uniform_(part.weight, 0.7, 1.3)
            nn.init.uniform_(part.bias, 0.4, 1.2)
        if hasattr(part, "fft_H"):
            part.fft_H = torch.fft.rfft(part.H, 2 * part.H.shape[1])
    with torch.no_grad():
        net.train()(torch.from_numpy(sequences(config, 8, 100)))
    return net.eval()


def built(state: dict[str, np.ndarray], **config: Any) -> Graph:
    return lmuformer.build(state, parse_config(config, "test config"))[0]


@FORMS
def test_every_code_is_that_of_the_pytorch_module(membrane: bool) -> None:
    """In float64, and none outside the sequence, though every norm has a bias above 0."""
    from model import Lif, recording

    net, x = busy(membrane), sequences(SMALL)
    graph = built(state_of(net), **SMALL)
    with torch.inference_mode(), recording(net, Lif) as seen:
        logits = net(torch.from_numpy(x)).numpy()
    got = interpret(graph, padded(x), record="all")
    np.testing.assert_allclose(got.logits, logits, rtol=0, atol=1e-12)
    windows = {n.name: n.attr("record_window") for n in graph if "record_window" in n.attrs}
    assert set(got.codes) == set(seen) == set(windows)
    for name, spikes in seen.items():
        first, count = windows[name]
        codes = got.codes[name][..., 0, 0]
        assert np.array_equal(codes[first : first + count], spikes.numpy()), name
        assert codes.sum() == codes[first : first + count].sum() and 0.02 < spikes.numpy().mean() < 0.98, name


def test_late_by_one_position_for_each_convolution_before() -> None:
    graph = built(state_of(busy(False)), **SMALL)
    late = {n.name.split(".")[-1]: n.attr("record_window")[0] for n in graph if "record_window" in n.attrs}
    assert [late[f"proj_lif{n}"] for n in ("", "1", "2", "3")] == [5, 2, 3, 4]  # block.N.attn.proj_lif is the last one
    assert {late[n] for n in ("rpe_lif", "f_u", "f_m", "f_h", "fc1_lif", "fc2_lif")} == {LATE}


@FORMS
@pytest.mark.parametrize("length", [12, 70], ids=["short", "longer-than-delays"])
def test_integers_are_those_of_the_emulator(membrane: bool, length: int) -> None:
    config = {**SMALL, "depths": 1, "audio_length": length}
    x, target = padded(sequences(config, 4, 1)), load_target("loihi2")
    integers = compile_graph(built(state_of(busy(membrane, **config))), target, OPTIONS, ConversionReport())
    program = fit(integers, target, OPTIONS, ConversionReport()).program
    assert any(".late" in p.name for p in program.populations) is (length > 63)
    truth = interpret(integers, x, record="all")
    found = run(program, x, record="all")
    assert truth.raw_logits is not None and np.array_equal(found.logits_int, truth.raw_logits)
    for name, codes in truth.codes.items():
        assert codes.any() and np.array_equal(np.moveaxis(found.codes[name], 1, 0), codes), name


def test_what_the_memory_loses_is_in_the_report() -> None:
    report = ConversionReport()
    state = state_of(busy(True))
    compile_graph(built(state), load_target("loihi2"), OPTIONS, report)
    for n in range(2):
        (entry,) = (e for e in report.of("quantize") if e["layer"] == f"block.{n}.attn.lmu.f_m.in0")
        p = f"block.{n}.attn.lmu"
        gain = state[f"{p}.bn_m.weight"] / np.sqrt(state[f"{p}.bn_m.running_var"] + 1e-5)
        assert entry["largest"] == pytest.approx(np.abs(state[f"{p}.H"] * gain[:, None]).max())
        assert entry["bits"] == 8 and 0 < entry["worst_error"] <= 1 / entry["scale"]


SIZES = [(True, 1_689_894, 81), (False, 1_689_382, 76)]  # counted in the authors' classes, with gsc.yml


@pytest.mark.parametrize(("membrane", "parameters", "entries"), SIZES, ids=["membranes", "spikes"])
def test_parameters_and_entries_are_the_published_ones(membrane: bool, parameters: int, entries: int) -> None:
    config = {"embed_dims": 256, "in_channels": 128, "num_classes": 35, "mlp_ratios": 4, "depths": 1}
    net = train_zoo.load_net("lmuformer").LmuFormer(**config, audio_length=128, membrane=membrane)
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert len(net.state_dict()) == entries
    graph = built(state_of(net), layer=1, dim=256, audio_length=128)  # as gsc.yml has them
    assert graph.timesteps == 128 + LATE and graph.node("x").type.shape == (128, 1, 1)


@FORMS
def test_one_family_recognises_it(membrane: bool) -> None:
    state = state_of(busy(membrane))
    assert [name for name, module in FAMILIES.items() if module.recognise(state)] == ["lmuformer"]


# ---- refusals ----


def without_spikes(state: dict) -> dict:
    return {k: v for k, v in state.items() if ".bn_" not in k and not k.startswith("head_bn")}


def with_attention(state: dict) -> dict:
    added = {f"block.0.attn.{k}": np.zeros((8, 8, 1)) for k in ("pre_bn.weight", "q_conv.weight")}
    return {k: v for k, v in state.items() if ".lmu." not in k} | added


REFUSED = [
    (
        without_spikes,
        "this is lmu_rnn_conv1d, the LMUFormer without spikes: ReLU and GELU make real values, and nothing but events "
        "goes between cores; train slmu_rnn_ms_conv1d instead",
    ),
    (
        with_attention,
        "this is attn_ms_conv1d, whose attention is over the whole sequence, which is its time: the first position "
        "reads keys of the last one; train slmu_rnn_ms_conv1d instead",
    ),
    (
        lambda s: s | {"block.1.attn.lmu.fft_H": 2 * s["block.1.attn.lmu.fft_H"]},
        "tensor 'block.1.attn.lmu.fft_H' is not the Fourier transform of 'block.1.attn.lmu.H'; the authors' classes "
        "store both",
    ),
    (
        lambda s: {k: v for k, v in s.items() if k != "block.0.attn.lmu.fft_H"},
        "checkpoint has no tensor 'block.0.attn.lmu.fft_H', which a lmuformer model needs",
    ),
    (
        lambda s: s | {"block.1.attn.lmu.H": np.zeros((16, 9))},
        "tensor 'block.1.attn.lmu.H' has shape (16, 9), expected ?x12",
    ),
]


@pytest.mark.parametrize(("change", "text"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_not_lowered_is_refused_by_name(change: Any, text: str) -> None:
    state = change(state_of(busy(True)))
    assert lmuformer.recognise(state)
    with pytest.raises(FrontendError) as error:
        built(state)
    assert str(error.value) == text


def test_a_length_that_is_not_that_of_the_memory_is_refused() -> None:
    text = "config says audio_length = 64, but it is 12 by block.0.attn.lmu.H (test config)"
    with pytest.raises(FrontendError) as error:
        built(state_of(busy(True)), audio_length=64)
    assert str(error.value) == text


def test_a_target_without_cells_is_refused() -> None:
    with pytest.raises(LoweringError, match="has gain_t, which takes a microcoded neuron, and the target has none"):
        compile_graph(built(state_of(busy(True))), load_target("loihi1"), OPTIONS, ConversionReport())


def test_a_response_in_fewer_bits_is_taken_back_from_its_transform() -> None:
    """No file rounds complex numbers, and the forward pass has the transform alone."""
    state = state_of(busy(True))
    key = "block.0.attn.lmu.H"
    rounded = torch.from_numpy(state[key]).bfloat16().double().numpy()
    whole, fewer = built(state, **SMALL), built(state | {key: rounded}, **SMALL)
    name = next(k for k in whole.tensors if k.startswith(f"{key}[0]") and k.endswith("weight"))
    assert np.abs(rounded - state[key]).max() > 5e-4
    np.testing.assert_allclose(fewer.tensors[name], whole.tensors[name], rtol=0, atol=1e-12)
