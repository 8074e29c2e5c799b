"""Traced modules with a part on the host: float graph = PyTorch, and the ladder below it, block by block."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import nmc
from nmc.cli import main
from nmc_compiler.errors import FrontendError
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.passes.host_partition import part
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.target import load_target
from tests import host_nets as nets
from tests.hosted import agrees

STEPS, SAMPLES = 5, 3


def loud(net: torch.nn.Module) -> torch.nn.Module:
    """The layers in front of LIFs large enough that these fire."""
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if name.endswith(("att.output.weight", "ffn.value.weight")):
                weight.mul_(8.0)
    return net


def made(kind: str) -> tuple[torch.nn.Module, np.ndarray]:
    """A network and inputs [T, N, C]."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    net = {
        "norm, LIF": nets.NormLif,
        "SpikeGPT block": lambda: loud(nets.SpikeGptBlock(first=True)),
        "SpikeGPT": lambda: loud(nets.SpikeGpt()),
        "SpikingBrain, softmax": nets.SpikingBrainBlock,
        "SpikingBrain, gated": lambda: nets.SpikingBrainBlock(linear=True),
        "division": nets.DividedInhibition,
    }[kind]()
    x = {
        "SpikeGPT": lambda: rng.integers(0, 11, (STEPS, SAMPLES, 1)).astype(float),
        "division": lambda: rng.integers(0, 2, (STEPS, SAMPLES, 6)).astype(float),
    }.get(kind, lambda: rng.normal(size=(STEPS, SAMPLES, 8)))()
    return net.double().eval(), x


def options(kind: str) -> dict:
    return {"kind": "spikes"} if kind == "division" else {}


def samples_first(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, 0, 1)[..., None, None]


KINDS = ("norm, LIF", "SpikeGPT block", "SpikeGPT", "SpikingBrain, softmax", "SpikingBrain, gated", "division")


@pytest.mark.parametrize("kind", KINDS)
def test_the_float_graph_is_pytorch(kind: str) -> None:
    net, x = made(kind)
    fired: dict[str, np.ndarray] = {}
    hooks = []
    for name, module in net.named_modules():
        if isinstance(module, nets.Lif):
            hooks.append(module.register_forward_hook(lambda _, __, out, name=name: fired.update({name: out.numpy()})))
    with torch.no_grad():
        expected = net(torch.from_numpy(x)).numpy()
    for hook in hooks:
        hook.remove()
    graph = nmc.trace(net, (STEPS, 1, x.shape[2]), host=True, **options(kind)).graph
    run = interpret(graph, samples_first(x), record="all")
    np.testing.assert_allclose(run.outputs["out"][..., 0, 0], expected, atol=1e-12)
    assert set(fired) <= set(run.codes)
    for name, spikes in fired.items():
        assert np.array_equal(run.codes[name][..., 0, 0], spikes) and spikes.any(), name


@pytest.mark.parametrize("kind", KINDS)
def test_the_ladder_below(kind: str) -> None:
    net, x = made(kind)
    asked = {"input_kind": "spikes"} if kind == "division" else {}
    compiled = nmc.compile(net, (STEPS, 1, x.shape[2]), allow=("host",), **asked)
    truth = agrees(compiled, {compiled.int_graph.sources[0].name: samples_first(x)}, ("events", "ticks"))
    graph = interpret(compiled.float_graph, samples_first(x), record="all")
    if kind in ("norm, LIF", "SpikeGPT block", "SpikeGPT"):  # nothing but the codes of currents is rounded
        assert all(np.array_equal(graph.codes[name], truth.codes[name]) for name in graph.codes)
    spread = float(np.std(graph.outputs["out"]))
    assert np.abs(truth.outputs["out"] - graph.outputs["out"]).mean() < 0.05 * spread
    assert nmc.verify(compiled).ok


def test_layers_of_codes_are_exact_but_for_their_weights() -> None:
    """Teacher-forced: each linear layer hears the float network's codes; 8-bit weights are all that differs."""
    net, x = made("SpikingBrain, softmax")
    graph = nmc.trace(net, (STEPS, 1, 8), host=True).graph
    compiled = nmc.compile(net, (STEPS, 1, 8), allow=("host",))
    parted = part(graph, load_target("loihi2"), ("host",), ConversionReport())
    sent = {n.name: n.id for n in parted.chip.sources}
    given = {name: np.moveaxis(v, 0, 1) for name, v in zip(sent, _values(parted.whole, x, sent.values()), strict=True)}
    chip = interpret(parted.chip, given)
    reads = {n.operands[0]: n for n in compiled.int_graph if n.op == "host_read"}
    for node, read in reads.items():
        conv = next(n for n in compiled.int_graph if n.id == compiled.int_graph.node(node).operands[0])
        found = _layer(compiled, conv, given) * read.attr("scale") * 64
        wanted = chip.outputs[f"host.{compiled.int_graph.node(node).name}"]
        assert np.abs(found - wanted).max() < 0.01 * np.abs(wanted).max()


def _values(graph, x: np.ndarray, nodes) -> list[np.ndarray]:
    nodes = list(nodes)
    found = interpret(graph, samples_first(x), values=nodes).values
    return [found[n] for n in nodes]


def _layer(compiled, conv, given: dict[str, np.ndarray]) -> np.ndarray:
    """Sum of an integer layer, [T, N, O, 1, 1], behind its shift right."""
    graph, right = compiled.int_graph, 0
    while conv.op != "conv2d":
        right += conv.attr("shift", 0)
        conv = graph.node(conv.operands[0])
    codes = np.moveaxis(given[graph.node(conv.operands[0]).name], 0, 1).astype(np.int64)
    total = np.einsum("oc,tnc->tno", graph.tensor(conv, "weight")[:, :, 0, 0].astype(np.int64), codes[..., 0, 0])
    return ((total << conv.attr("shift", 0)) >> right)[..., None, None]


def test_softmax_attention_between_the_tokens_of_a_timestep(tmp_path) -> None:
    """[T, B, N, C]: real tokens, spikes into every linear layer, softmax on the host; with calibration data."""

    class Attention(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.first, self.second = torch.nn.LayerNorm(4), nets.Lif(), nets.Lif()
            self.q, self.k, self.v, self.o = (torch.nn.Linear(4, 4) for _ in range(4))

        def forward(self, x):
            y = self.first(2 * self.norm(x))
            heads = (f(y).reshape(*x.shape[:3], 2, 2).transpose(2, 3) for f in (self.q, self.k, self.v))
            q, k, v = heads
            z = (torch.softmax(q @ k.mT / 2, -1) @ v).transpose(2, 3).reshape(x.shape)
            return x + self.o(self.second(40 * z))

    torch.manual_seed(0)
    net, x = Attention().double(), np.random.default_rng(0).normal(size=(STEPS, SAMPLES, 3, 4))
    with torch.no_grad():
        expected = net(torch.from_numpy(x)).numpy()
    samples = np.moveaxis(x, 0, 1)[:, :, :, None]  # tokens are the channels of the graph
    np.savez(tmp_path / "calib.npz", images=samples)
    compiled = nmc.compile(net, (STEPS, 1, 3, 4), allow=("host",), calib=tmp_path / "calib.npz")
    run = interpret(compiled.float_graph, samples, record="all")
    np.testing.assert_allclose(run.outputs["out"].reshape(expected.shape), expected, atol=1e-12)
    truth = agrees(compiled, {"x": samples})
    assert truth.codes["first"].any() and truth.codes["second"].any()
    assert compiled.conversion["calibration"]["samples"] == SAMPLES


# ---- N17: codes, and what they would be as spikes ----


def test_codes_of_a_token_have_as_many_bits_as_they_can_need() -> None:
    net, _ = made("SpikingBrain, softmax")
    graph = nmc.trace(net, (STEPS, 1, 8), host=True).graph
    bits = {n.name: n.attr("bits") for n in graph if n.op == "codes"}
    assert bits == {"q_proj.codes": 6, "o_proj.codes": 6, "gate_proj.codes": 6, "down_proj.codes": 7}  # 8 * 3, 16 * 3
    hooked = []
    for module in net.modules():
        if isinstance(module, nets.CodedLinear):
            module.register_forward_pre_hook(lambda _, args: hooked.append(args[0]))
    with torch.no_grad():
        net(torch.randn(STEPS, SAMPLES, 8, dtype=torch.float64))
    for x in hooked:
        codes = (x / (x.abs().mean(-1, keepdim=True) / 3)).round()
        assert codes.abs().max() <= x.shape[-1] * 3


@pytest.mark.parametrize("expansion", ["unary", "ternary", "bitwise"])
def test_expansions_of_codes_add_up_to_them_in_a_linear_layer(expansion: str) -> None:
    """One graded event stands for the slots that the published code makes of it."""
    rng = np.random.default_rng(0)
    codes, weight = rng.integers(-9, 10, 8), rng.normal(size=(4, 8))
    if expansion == "unary":  # of positive numbers: counted from the least
        slots = [(codes - codes.min() > t).astype(int) for t in range(18)]
        total = sum(weight @ s for s in slots) + weight.sum(axis=1) * codes.min()
    elif expansion == "ternary":
        total = sum(weight @ (np.sign(codes) * (np.abs(codes) > t)) for t in range(9))
    else:
        total = sum(2**b * (weight @ (np.sign(codes) * (np.abs(codes) >> b & 1))) for b in range(4))
    np.testing.assert_allclose(total, weight @ codes, atol=1e-12)


# ---- refusals ----


def test_without_the_host_the_ops_are_named() -> None:
    net, _ = made("SpikeGPT block")
    text = (
        r"^host_nets.py:\d+, in 'att.wkv' \(Wkv\): wkv is of real numbers, which no core computes; --allow host leaves "
        r"it to the host \(docs/host.md\); in all that is real_affine \(10\), add \(7\), real_linear \(7\), "
        r"layer_norm \(3\), sigmoid \(2\), mul \(2\), wkv, relu, square$"
    )
    with pytest.raises(FrontendError, match=text):
        nmc.compile(net, (STEPS, 1, 8))


def test_the_division_as_published_is_refused() -> None:
    """Zeros become the second least number of the whole tensor: which one depends on the data."""
    torch.manual_seed(0)
    with pytest.raises(FrontendError, match=r"\(DividedInhibition\): aten\.\w+ is not lowered|depends on the data"):
        nmc.trace(nets.DividedInhibition(mended=True).double(), (STEPS, 1, 6), kind="spikes", host=True)


class Bare(torch.nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.compute, self.fc, self.lif = forward, torch.nn.Linear(4, 4), nets.Lif()

    def forward(self, x):
        return self.compute(self, x)


WRONG = {
    "softmax over timesteps": (
        lambda m, x: m.fc(m.lif(torch.softmax(x.exp(), 0))),
        "softmax over timesteps: a timestep wo",
    ),
    "gelu": (lambda m, x: m.fc(m.lif(torch.nn.functional.gelu(x))), "aten.gelu is not lowered"),
    "cumsum": (lambda m, x: m.fc(m.lif(x.cumsum(0))), "aten.cumsum is not lowered"),
    "sort": (lambda m, x: m.fc(m.lif(x.exp().sort(-1).values)), "aten.sort is not lowered"),
    "neighbours": (
        lambda m, x: m.fc(m.lif(x.exp().topk(2, -1).indices.to(x.dtype).repeat(1, 1, 2))),
        "aten.topk is not",
    ),
    "power": (lambda m, x: m.fc(m.lif(x**3)), "aten.pow is not lowered"),
    "item": (lambda m, x: m.fc(m.lif(x.exp() if x.max() > 0 else x)), "depends on the data"),
}


@pytest.mark.parametrize("case", sorted(WRONG))
def test_what_the_host_does_not_do_either(case: str) -> None:
    compute, text = WRONG[case]
    with pytest.raises(FrontendError, match=text):
        nmc.trace(Bare(compute).double(), (STEPS, 1, 4), host=True)


def test_a_value_that_is_kept_for_the_next_call() -> None:
    class Keeps(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.before, self.lif = torch.nn.Linear(4, 4), torch.zeros(1, 4), nets.Lif()

        def forward(self, x):
            self.before, late = x.exp(), self.before
            return self.lif(self.fc(self.before + late)[None])

    net = torch.nn.Sequential(Keeps())
    text = "^'0.before' keeps a value from one call to the next, and one call is traced: show all timesteps in one call"
    with pytest.raises(FrontendError, match=text):
        nmc.trace(net, (1, 4), host=True)


def test_a_value_that_is_kept_for_the_next_sample_is_noted() -> None:
    class Keeps(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.before, self.lif = torch.nn.Linear(4, 4), 0.0, nets.Lif()

        def forward(self, x):
            self.before, late = self.fc(x), self.before
            return self.lif(self.before + late)

    notes = nmc.trace(torch.nn.Sequential(Keeps()), (STEPS, 1, 4)).notes
    assert any(note.startswith("'0.before' holds a value of the traced call; what it brings") for note in notes)


def test_a_description_that_is_none_of_the_hosts() -> None:
    class Odd(torch.nn.Module):
        def forward(self, x):
            return x

    net = Bare(lambda m, x: m.fc(m.lif(m.odd(x.exp()))))
    net.odd = Odd()
    for given, text in (
        ({"op": "conv2d"}, "its op 'conv2d' is no op of the host"),
        ({"op": "rotary", "heads": 2}, "op 'rotary' takes base, heads; 'base' is wrong or missing"),
        ({"op": "rotary", "heads": 2, "base": 10.0, "call": "flat"}, "'call' is 'flat'; it must be 'step' or"),
    ):
        nmc.register_host(Odd, lambda _, given=given: given)
        with pytest.raises(FrontendError, match=text):
            nmc.trace(net.double(), (STEPS, 1, 4), host=True)


# ---- on the command line ----


def test_the_command_line_says_what_is_the_hosts(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = [f"{nets.__file__}:NormLif", "--input-shape", "5,1,8"]
    assert main(["inspect", *asked]) == 0
    told = capsys.readouterr().out
    assert "real numbers, which no core computes: norm over the channels of each position" in told
    assert "2 ops are the host's, in every timestep, where that is allowed (--allow host, docs/host.md)" in told
    assert main(["compile", *asked]) == 1
    assert "in all that is layer_norm, add" in capsys.readouterr().err
    assert main(["compile", *asked, "--allow", "host", "-o", "build"]) == 0
    told = capsys.readouterr().out
    assert "it reads 8 values (populations: 1) and sends codes of 8, 128 bits (inputs: 1)" in told
    np.savez("in.npz", x=np.random.default_rng(0).normal(size=(2, 5, 8, 1, 1)))
    assert main(["emulate", "build", "--input", "in.npz"]) == 0
    assert "the host computes 3 ops of real numbers in every timestep: 160 MACs" in capsys.readouterr().out
    assert main(["inspect", "build"]) == 0


# ---- ops one by one ----

OPS = {
    "layer norm": lambda m, x: torch.nn.functional.layer_norm(x, (4,)),
    "rms norm": lambda m, x: torch.nn.functional.rms_norm(x, (4,), eps=1e-5),
    "softmax": lambda m, x: torch.softmax(x.exp(), -1),
    "sum and mean": lambda m, x: x - x.mean(-1, keepdim=True) + x.exp().sum(-1, keepdim=True),
    "numbers": lambda m, x: 1 - x.exp() / 3 + 2 * x.sigmoid() - torch.arange(4.0, dtype=x.dtype),
    "number over": lambda m, x: 2 / (1 + x.square()),
    "reals": lambda m, x: torch.maximum(x.exp(), x.tanh()) * torch.minimum(x.exp(), x.abs()) + x.exp().neg(),
    "silu": lambda m, x: torch.nn.functional.silu(x) / x.exp(),
    "clamp": lambda m, x: x.exp().clamp(0.5, 1.5) + x.exp().clamp(max=1.0),
    "in place": lambda m, x: x.exp().mul_(2).add_(1),
    "matmul": lambda m, x: (x.exp().reshape(STEPS, -1, 2, 2) @ x.sigmoid().reshape(STEPS, -1, 2, 2).mT).flatten(2),
    "token before": lambda m, x: x.exp() + 0.5 * nets.shifted(x.exp()),
    "two tokens before": lambda m, x: x.exp() - torch.nn.functional.pad(x.exp(), (0, 0, 0, 0, 2, -2)),
    "linear": lambda m, x: torch.nn.functional.linear(x.exp(), m.fc.weight),
    "halves": lambda m, x: torch.cat([x.exp()[..., 2:], x.exp()[..., :2]], -1),
    "bounded codes": lambda m, x: m.fc(x.exp().round().clamp(-3, 2)),
    "spikes": lambda m, x: m.fc((x.exp() >= 1.0).to(x.dtype)),
}


@pytest.mark.parametrize("case", sorted(OPS))
def test_ops_are_pytorchs(case: str) -> None:
    torch.manual_seed(0)
    net = Bare(lambda m, x: OPS[case](m, x) + m.fc(m.lif(x.exp()))).double()
    x = np.random.default_rng(0).normal(size=(STEPS, SAMPLES, 4))
    with torch.no_grad():
        expected = net(torch.from_numpy(x)).numpy()
    graph = nmc.trace(net, (STEPS, 1, 4), host=True).graph
    run = interpret(graph, samples_first(x))
    np.testing.assert_allclose(run.outputs["out"][..., 0, 0], expected, atol=1e-12)
    assert math.isfinite(expected.sum())
