"""sdt_v2, qsd and sdt_v3_large: published sizes to the digit, equal to our modules of the zoo, errors pinned.

The modules of ``examples/zoo`` have the keys, in order, and the outputs of the authors' own.
"""

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends import qsd, sdt_v2, sdt_v3_large
from nmc_compiler.frontends.checkpoint import FAMILIES
from nmc_compiler.frontends.config import parse_config
from nmc_compiler.graph import Graph
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.graph.verify import verify

torch = pytest.importorskip("torch")

MODULES = {"sdt_v2": sdt_v2, "qsd": qsd, "sdt_v3_large": sdt_v3_large}
PUBLISHED = {"in_channels": 3, "num_classes": 1000, "num_heads": 8, "mlp_ratios": 4, "T": 1}
IMAGENET = {"img_size_h": 224, "img_size_w": 224}
SIZES: list[tuple[str, dict[str, Any], int, int]] = [
    ("sdt_v2", {"embed_dim": [96, 192, 384, 480]}, 31_333_864, 825),
    ("sdt_v2", {"embed_dim": [128, 256, 512, 640]}, 55_350_248, 825),
    ("sdt_v2", {"embed_dim": [128, 256, 512, 640], "kd": True}, 55_991_248, 827),
    ("qsd", {"embed_dim": [48, 96, 192, 256]}, 8_432_142, 1669),
    ("qsd", {"embed_dim": [64, 128, 256, 360]}, 15_245_862, 1669),
    ("sdt_v3_large", {"embed_dim": [196, 384, 768], "depths": 12, "nb_classes": 1000, "kd": True}, 171_740_714, 1096),
]
TINY = {
    "sdt_v2": {"embed_dim": [8, 12, 16, 20], "T": 3, "kd": True},
    "qsd": {"embed_dim": [8, 12, 16, 20], "T": 2},
    "sdt_v3_large": {"embed_dim": [8, 12, 16], "T": 1, "kd": True, "nb_classes": 3, "depths": 2},
}
COMMON = {"in_channels": 2, "num_classes": 3, "num_heads": 4, "mlp_ratios": 2}
BLOCKS = {"sdt_v2": {"blocks": (2, 1)}, "qsd": {"blocks": (1, 1)}, "sdt_v3_large": {}}


def load_net(name: str):
    """The module of a folder of the zoo."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "zoo"))
    import train_zoo

    return train_zoo.load_net(name)


def built(name: str, arrays: dict[str, np.ndarray], **config: Any) -> tuple[Graph, list[str]]:
    settings = {**COMMON, **TINY[name], "img_size_h": 32, "img_size_w": 32, **config}
    return MODULES[name].build(arrays, parse_config(settings, "test"))


def trained(name: str, seed: int = 0):
    """A tiny network in float64, its norms random, its statistics those of random images."""
    torch.manual_seed(seed)
    net = load_net(name)
    model = net.network(**COMMON, **TINY[name], **BLOCKS[name]).double()
    for key, tensor in model.named_parameters():
        if "bn" in key or key.endswith((".1.weight", ".1.bias", ".2.weight", ".2.bias")) and tensor.ndim == 1:
            torch.nn.init.uniform_(tensor, 0.5, 1.2)
        if "layer_scale" in key:
            torch.nn.init.uniform_(tensor, 0.5, 1.5)
    images = torch.rand(4, 2, 32, 32, dtype=torch.float64)
    model.train()
    with torch.no_grad():
        for _ in range(10):
            model(images)
    return net, model.eval(), images


def arrays_of(model) -> dict[str, np.ndarray]:
    state = {k: v.numpy() for k, v in model.state_dict().items()}
    return {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}


@pytest.mark.parametrize(("name", "config", "parameters", "entries"), SIZES, ids=[f"{s[0]}-{s[2]}" for s in SIZES])
def test_published_sizes(name: str, config: dict[str, Any], parameters: int, entries: int) -> None:
    """The family takes every tensor of the published network, and those count what was published. No memory is used."""
    with torch.device("meta"):
        model = load_net(name).network(**PUBLISHED, **config)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(model.state_dict()) == entries
    arrays = {
        k: np.broadcast_to(np.float32(1), tuple(v.shape))
        for k, v in model.state_dict().items()
        if not k.endswith("num_batches_tracked")
    }
    if name == "qsd":  # its quantiser would make real arrays: sizes alone
        assert qsd.recognise(arrays)
        return
    graph, notes = MODULES[name].build(arrays, parse_config({**PUBLISHED, **config, **IMAGENET}, "published"))
    assert not notes
    assert len([n for n in graph if n.type.is_event and "record_shape" in n.attrs]) > 70 or name == "sdt_v3_large"


@pytest.mark.parametrize("name", MODULES)
def test_equal_to_the_pytorch_module(name: str) -> None:
    """Every code of every module, in the order of their calls; logits to rounding."""
    from model import recording
    from train_zoo import neurons

    net, model, images = trained(name)
    graph, _ = built(name, arrays_of(model))
    verify(graph)
    with torch.inference_mode(), recording(model, neurons(net)) as seen:
        logits = model(images).numpy()
    got = interpret(graph, images.numpy(), record="all")
    np.testing.assert_allclose(got.logits, logits, rtol=0, atol=1e-9)
    assert list(got.codes) == list(seen)
    nodes = {n.name: n for n in graph if "record_perm" in n.attrs}
    varied = 0
    for key, out in seen.items():
        node = nodes[key]
        moved = got.codes[key].transpose(0, 1, *(2 + p for p in node.attr("record_perm")))
        mine = moved.reshape(*moved.shape[:2], *node.attr("record_shape"))
        want = (out * getattr(model.get_submodule(key), "norm", 1)).numpy()
        assert mine.shape == want.shape
        assert np.array_equal(mine, want), key
        varied += len(np.unique(want)) > 1
    assert varied > 0.7 * len(seen)


@pytest.mark.parametrize("name", MODULES)
def test_recognised_by_its_keys_alone(name: str) -> None:
    arrays = arrays_of(trained(name)[1])
    assert [f for f, module in FAMILIES.items() if module.recognise(arrays)] == [name]


@pytest.mark.parametrize("name", MODULES)
def test_a_missing_and_an_unknown_tensor_are_named(name: str) -> None:
    arrays = arrays_of(trained(name)[1])
    for key in list(arrays)[:: max(1, len(arrays) // 40)]:
        if name == "qsd" and (".act." in key or key.endswith("init_state")):
            continue
        rest = {k: v for k, v in arrays.items() if k != key}
        if name == "qsd" and key.endswith(".alpha"):  # then it is no quantised layer, and its weight as it stands
            continue
        if key in ("head_kd.weight", "head_kd.bias"):
            continue
        with pytest.raises(FrontendError, match=f"checkpoint has no tensor '{key}'"):
            built(name, rest)
    with pytest.raises(FrontendError) as error:
        built(name, {**arrays, "block3.0.extra.weight": np.zeros(3)})
    assert str(error.value) == (
        f"checkpoint has a tensor 'block3.0.extra.weight' that a {name} model does not know; remove it, or choose the "
        "right --family"
    )


def test_heads_and_kd_must_agree() -> None:
    arrays = arrays_of(trained("sdt_v2")[1])
    with pytest.raises(FrontendError, match=r"^num_heads = 3 does not divide 16 channels \(test\)$"):
        built("sdt_v2", arrays, num_heads=3)
    with pytest.raises(
        FrontendError, match="^config says kd = False, but it is True by the presence of head_kd.weight"
    ):
        built("sdt_v2", arrays, kd=False)


def test_both_heads_count_half() -> None:
    _, model, images = trained("sdt_v2")
    arrays = arrays_of(model)
    both = interpret(built("sdt_v2", arrays)[0], images.numpy()).logits
    alone = []
    for kept in ("head", "head_kd"):
        one = {k: v for k, v in arrays.items() if not k.startswith("head")}
        one |= {f"head.{k}": arrays[f"{kept}.{k}"] for k in ("weight", "bias")}
        alone.append(interpret(built("sdt_v2", one, kd=False)[0], images.numpy()).logits)
    np.testing.assert_allclose(both, (alone[0] + alone[1]) / 2, atol=1e-12)


# ---- qsd ----


def test_lsq_weights_have_sixteen_values_and_round_half_to_even() -> None:
    weight = np.array([[-9.0, -8.5, -7.5, -0.5, 0.5, 1.5, 2.5, 6.5, 7.5, 9.0]], np.float32)
    got = qsd.lsq_weight(weight * np.float32(0.25), np.array([0.25], np.float32), 4) * 4
    assert got.tolist() == [[-8, -8, -8, 0, 0, 2, 2, 6, 7, 7]]
    assert got.dtype == np.float32
    turned = qsd.lsq_weight(np.array([[1.0, -2.0]]), np.array([-0.25]), 4)  # a step below 0 is a mirrored one
    assert turned.tolist() == [[1.0, -1.75]]


def test_step_sizes_are_those_of_a_forward_pass() -> None:
    """Its scaling of the gradient is no identity in float32; PyTorch's own digits, of which some are not alpha's."""
    torch.manual_seed(0)
    alpha = torch.rand(4096)
    for weights in (18, 144, 4608):
        scaled = alpha * (1.0 / math.sqrt(weights * 7))
        theirs = (alpha.detach() - scaled.detach() + scaled).numpy()
        mine = qsd.step_size(alpha.numpy(), weights, 4)
        assert mine.dtype == np.float32 and np.array_equal(mine, theirs)
        assert 0 < np.count_nonzero(mine != alpha.numpy()) < 400


def test_lsq_tensors_are_checked() -> None:
    arrays = arrays_of(trained("qsd")[1])
    key = "ConvBlock1_1.0.conv1.alpha"
    with pytest.raises(FrontendError, match=f"^tensor '{key}' has a step size of 0: its weights are no numbers$"):
        built("qsd", {**arrays, key: np.zeros_like(arrays[key])})
    with pytest.raises(
        FrontendError, match=rf"^tensor '{key}' has shape \(3,\) and dtype float64; a step size for each"
    ):
        built("qsd", {**arrays, key: np.ones(3)})
    with pytest.raises(FrontendError, match="^config says D = 8; the neurons of qsd have 4 levels$"):
        built("qsd", arrays, D=8)
    with pytest.raises(FrontendError, match="^config says nbits_w = 1; weights have 2 to 16 bits$"):
        built("qsd", arrays, nbits_w=1)


def test_what_the_forward_of_qsd_leaves_out_is_said() -> None:
    arrays = arrays_of(trained("qsd")[1])
    _, notes = built("qsd", arrays)
    count = sum(k.endswith(".alpha") and not k.endswith(".act.alpha") for k in arrays)
    assert notes[0] == f"{count} weights quantised to 4 bits by their step sizes (LSQ)"
    assert notes[1].startswith("dead tensor 'downsample1_1.encode_conv.init_state' and ")
    assert notes[2].endswith("the quantiser of activations, which the authors' forward leaves out")
    changed = {k: v + 1 if ".act." in k else v for k, v in arrays.items()}
    x = np.random.default_rng(0).random((1, 2, 32, 32))
    same = [interpret(built("qsd", a)[0], x).logits for a in (arrays, changed)]
    assert np.array_equal(*same)


# ---- sdt_v3_large ----


def test_the_large_model_of_512_channels_has_no_meaning() -> None:
    arrays = arrays_of(trained("sdt_v3_large")[1])
    with pytest.raises(FrontendError) as error:
        built("sdt_v3_large", {**arrays, "block3.0.rep_conv.conv1.0.weight": np.zeros((16, 16, 1))})
    assert str(error.value) == (
        "the checkpoint is one of spikformer12_512 (its blocks have a rep_conv), whose published forward stops with a "
        "NameError: nobody can say what its spikes are. spikformer12_768 compiles"
    )


def test_levels_of_the_large_model_are_half_up_and_the_last_is_not_divided() -> None:
    graph, _ = built("sdt_v3_large", arrays_of(trained("sdt_v3_large")[1]))
    neurons = {n.name: n for n in graph if n.op == "multilevel"}
    assert {n.attr("rounding") for n in neurons.values()} == {"half_up"}
    assert neurons["lif"].attr("norm") == 1
    assert {n.attr("norm") for k, n in neurons.items() if k != "lif"} == {4}


# ---- names that the authors' scripts give ----


@pytest.mark.parametrize(
    ("family", "model"),
    [
        ("sdt_v2", "metaspikformer_8_512"),
        ("qsd", "spikformer_8_15M_CAFormer"),
        ("sdt_v3_large", "spikformer12_768"),
    ],
)
def test_the_authors_container_and_arguments(tmp_path: Path, family: str, model: str) -> None:
    """model, optimizer, epoch and args beside it; the name of the factory stands for the family and its heads."""
    from argparse import Namespace

    from nmc_compiler.frontends.checkpoint import import_checkpoint

    net = load_net(family)
    wide = {"embed_dim": [16, 16, 16, 16][: len(TINY[family]["embed_dim"])], "num_heads": 8}
    network = net.network(**{**COMMON, **TINY[family], **wide}, **BLOCKS[family])
    if family == "qsd":
        for key, value in network.named_parameters():
            if key.endswith(".alpha"):
                value.data.fill_(0.1)
    args = Namespace(model=model, time_steps=TINY[family]["T"], input_size=32)
    stored = {"model": network.state_dict(), "optimizer": {}, "epoch": 3, "scaler": {}, "args": args}
    torch.save(stored, tmp_path / "checkpoint.pth")
    config = f"model: {model}\ntime_steps: {TINY[family]['T']}\ninput_size: 32\nnb_classes: 3\n"
    (tmp_path / "checkpoint.yaml").write_text(config)
    found = import_checkpoint(tmp_path / "checkpoint.pth")
    assert found.family == family
    assert "weights taken from 'model'" in found.notes
    heads = {n.attrs["heads"] for n in found.graph if n.op == "attn"}
    assert {(h.value, h.evidence) for h in heads} == {(8, "family")}
    assert found.graph.sources[0].type.shape == (2, 32, 32)
