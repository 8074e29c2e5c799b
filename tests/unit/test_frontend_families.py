"""The three families: equal to their PyTorch modules on random weights, one clear message for every wrong tensor."""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.build import count_blocks
from nmc_compiler.graph import Attr, Graph
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.graph.text import to_text
from nmc_compiler.graph.verify import verify

FAMILIES = tuple(tiny_models.CONFIGS)


# ---- against the modules of tests/fixtures, in float64, with every code compared ----


def torch_model(name: str, arrays: dict[str, np.ndarray], config: dict[str, Any], blocks: tuple[int, int]):
    """The module of a family with these weights (dead tensors aside), in float64 and evaluation mode."""
    torch = pytest.importorskip("torch")
    sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
    import models

    common = {"in_channels": config["in_channels"], "num_classes": 3, "num_heads": config["num_heads"],
              "mlp_ratios": config["mlp_ratios"]}  # fmt: skip
    if name == "sdt_v3":
        dims = [len(arrays[f"downsample{s}.encode_conv.bias"]) for s in ("1_2", "2", "3", "4")]
        model = models.ExpandedSpikeTransformer(**common, embed_dim=dims, blocks=blocks)
    else:
        depths = count_blocks(arrays, "block")
        common |= {"embed_dims": arrays["head.weight"].shape[1], "depths": depths, "T": config["T"]}
        pooling = {"pooling_stat": config["pooling_stat"]} if name == "sdt_v1" else {}
        model = {"sdt_v1": models.SpikeDrivenTransformer, "spikformer": models.Spikformer}[name](**common, **pooling)
    missing, _ = model.load_state_dict({k: torch.from_numpy(v) for k, v in arrays.items()}, strict=False)
    assert all(k.endswith("num_batches_tracked") for k in missing)
    for module_name, module in model.named_modules():
        if f"{module_name}.w" in arrays:
            module.tau = 1.0 + float(np.exp(-float(arrays[f"{module_name}.w"])))
    return model.double().eval(), (models.MultiSpike if name == "sdt_v3" else models.Lif)


def authors_layout(graph: Graph, name: str, codes: np.ndarray) -> np.ndarray:
    """[T, B, C, H, W] codes as the authors' module gives them."""
    node = next(n for n in graph if n.name == name and "record_perm" in n.attrs)
    moved = codes.transpose(0, 1, *(2 + p for p in node.attr("record_perm")))
    shaped = moved.reshape(*codes.shape[:2], *node.attr("record_shape"))
    return shaped if graph.record_time else shaped[0]


CASES: list[tuple[str, dict, dict]] = [
    ("sdt_v1", {}, {}),
    ("sdt_v1", {"depth": 2, "channels": 3, "mlp_ratio": 4}, {"pooling_stat": "1111", "T": 5}),
    ("sdt_v1", {"mlp_ratio": 1}, {"pooling_stat": "0000", "img_size_h": 6, "img_size_w": 5}),
    ("sdt_v1", {"width": 24, "heads": 4}, {"pooling_stat": "1001", "num_heads": 4, "T": 1}),
    ("sdt_v1", {"plif": True}, {"spike_mode": "plif", "pooling_stat": "0011", "T": 4}),
    ("spikformer", {}, {}),
    ("spikformer", {"depth": 3, "channels": 2, "mlp_ratio": 3, "width": 24}, {"num_heads": 4, "T": 4}),
    ("spikformer", {"mlp_ratio": 1}, {"num_heads": 1, "T": 6, "img_size_h": 12, "img_size_w": 8}),
    ("sdt_v3", {}, {}),
    ("sdt_v3", {"dims": (4, 8, 12, 20), "blocks": (2, 3), "channels": 3, "mlp_ratio": 4}, {"num_heads": 4}),
    ("sdt_v3", {"dims": (6, 4, 6, 10), "mlp_ratio": 1}, {"num_heads": 1, "img_size_h": 17, "img_size_w": 16}),
]


@pytest.mark.parametrize(("name", "state", "config"), CASES, ids=[f"{c[0]}-{i}" for i, c in enumerate(CASES)])
@pytest.mark.parametrize("seed", [1, 2])
def test_equal_to_the_pytorch_module(name: str, state: dict, config: dict, seed: int) -> None:
    """Every code of every module equal, logits to rounding; the busiest and quietest layers are not constant."""
    torch = pytest.importorskip("torch")
    arrays = tiny_models.STATES[name](seed=seed, **state)
    settings = {**tiny_models.CONFIGS[name], **config}
    settings |= {"in_channels": state.get("channels", 1), "mlp_ratios": state.get("mlp_ratio", 2)}
    graph = tiny_models.graph(name, arrays, **settings)
    verify(graph)
    images = tiny_models.images(name, 4, seed, **settings)
    model, neuron = torch_model(name, arrays, settings, state.get("blocks", (1, 1)))
    import models

    with torch.inference_mode(), models.recording(model, neuron) as seen:
        logits = model(torch.from_numpy(images)).numpy()
    got = interpret(graph, images, record="all")
    np.testing.assert_allclose(got.logits, logits, rtol=0, atol=1e-9)
    assert list(got.codes) == list(seen)  # call order too
    for module, spikes in seen.items():
        want = (spikes * getattr(model.get_submodule(module), "norm", 1)).numpy()
        mine = authors_layout(graph, module, got.codes[module])
        assert mine.shape == want.shape
        assert np.array_equal(mine, want), module
    active = [float((c > 0).mean()) for c in got.codes.values()]
    assert sum(0.02 < a < 0.98 for a in active) > 0.8 * len(active)


def test_plif_takes_tau_from_the_checkpoint() -> None:
    arrays = tiny_models.sdt_v1(plif=True)
    graph = tiny_models.graph("sdt_v1", arrays)
    for node in (n for n in graph if n.op == "lif"):
        w = float(arrays[f"{node.name}.w"])
        assert node.attrs["tau"] == Attr(1.0 + np.exp(-w), "checkpoint")


# ---- every tensor is needed, and needed in its shape ----


def dead(name: str, key: str) -> bool:
    return "talking_heads.weight" in key if name == "sdt_v1" else ".norm1." in key or ".norm2." in key


def built(name: str, arrays: dict[str, np.ndarray]) -> Graph:
    return tiny_models.graph(name, arrays)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_missing_tensor_is_named(name: str) -> None:
    arrays = tiny_models.STATES[name]()
    for key in arrays:
        rest = {k: v for k, v in arrays.items() if k != key}
        if dead(name, key):
            assert to_text(built(name, rest)) == to_text(built(name, arrays))
            continue
        with pytest.raises(FrontendError, match=f"^checkpoint has no tensor '{re.escape(key)}', which "):
            built(name, rest)


def misshapen(array: np.ndarray) -> dict[str, np.ndarray]:
    """Wrong shapes of every kind (an axis of length 1 behind a Linear weight would not change its meaning)."""
    wrong = {
        "three axes more": array[..., None, None, None],
        "no axes": np.float32(1.0).reshape(()),
        "empty": array[:0],
        "one more in front": np.concatenate([array, array[:1]]),
        "complex": array.astype(np.complex64),
    }
    if array.ndim > 1:
        wrong |= {"an axis less": array.reshape(array.shape[0], -1)[:, 0], "flat": array.reshape(-1)}
    if array.ndim > 1 and array.shape[1:] not in ((1, 3, 3), (1, 7, 7)):  # the first conv may have any input
        wrong["one more input"] = np.concatenate([array, array[:, :1]], axis=1)
    if array.ndim > 2:
        wrong["wider kernel"] = np.concatenate([array, array[:, :, :1]], axis=2)
    return wrong


@pytest.mark.parametrize("name", FAMILIES)
def test_every_wrong_shape_is_one_clear_message(name: str) -> None:
    """FrontendError naming a tensor and two sizes; never a type error of the graph, never a traceback."""
    arrays = tiny_models.STATES[name]()
    for key, array in arrays.items():
        if dead(name, key):
            continue
        for what, wrong in misshapen(array).items():
            with pytest.raises(FrontendError) as error:
                built(name, {**arrays, key: wrong})
            text = str(error.value)
            assert re.match(r"tensor '[\w.]+' has |config says |num_heads = ", text), (key, what, text)


SHAPES = [
    ("sdt_v1", "head.weight", (16,), "2 axes"),
    ("sdt_v1", "head.bias", (0,), "3"),
    ("sdt_v1", "patch_embed.proj_bn1.running_var", (5,), "4"),
    ("sdt_v1", "patch_embed.proj_conv1.weight", (4, 2, 5, 5), "?x2x3x3"),
    ("sdt_v1", "patch_embed.proj_conv1.weight", (4, 2, 3), "a 2D kernel"),
    ("sdt_v1", "block.0.attn.q_conv.weight", (8, 16, 1, 1), "16x16x1x1"),
    ("sdt_v1", "block.0.attn.talking_heads.weight", (2, 2), "3 axes"),
    ("spikformer", "block.0.mlp.fc2_linear.weight", (8, 32), "16x32"),
    ("sdt_v3", "ConvBlock2_1.0.Conv.dwconv.0.weight", (12, 1, 7, 5), "12x1x7x7"),
    ("sdt_v3", "block3.0.conv.dwconv.0.weight", (24, 1, 4, 4), "24x1x5x5"),
    ("sdt_v3", "block3.0.attn.proj_conv.0.weight", (12, 12, 1, 1), "12x48x1x1"),
]


@pytest.mark.parametrize(
    ("name", "key", "shape", "expected"), SHAPES, ids=[m[1] + str(i) for i, m in enumerate(SHAPES)]
)
def test_messages_of_wrong_shapes(name: str, key: str, shape: tuple[int, ...], expected: str) -> None:
    with pytest.raises(FrontendError) as error:
        built(name, {**tiny_models.STATES[name](), key: np.zeros(shape, np.float32)})
    assert str(error.value) == f"tensor '{key}' has shape {shape}, expected {expected}"


def test_a_head_of_another_width_shows_where_the_model_disagrees() -> None:
    wider = {**tiny_models.sdt_v1(), "head.weight": np.zeros((3, 24), np.float32)}
    with pytest.raises(FrontendError) as error:
        built("sdt_v1", wider)
    assert str(error.value) == "tensor 'patch_embed.proj_conv3.weight' has shape (16, 8, 3, 3), expected 24x8x3x3"


@pytest.mark.parametrize("name", FAMILIES)
def test_an_unknown_tensor_is_named(name: str) -> None:
    arrays = {**tiny_models.STATES[name](), "block.0.attn.extra.weight": np.zeros(3)}
    with pytest.raises(
        FrontendError,
        match=f"^checkpoint has a tensor 'block.0.attn.extra.weight' that a {name} model does not know; remove it, or "
        "choose the right --family$",
    ):
        built(name, arrays)


def test_dead_tensors_are_noted_with_the_reason() -> None:
    family, config = tiny_models.family("sdt_v1"), tiny_models.CONFIGS["sdt_v1"]
    from nmc_compiler.frontends.config import parse_config

    _, notes = family.build(tiny_models.sdt_v1(plif=True), parse_config(config, "c"))
    assert notes == [
        "dead tensor 'block.0.attn.talking_heads.weight': defined by the authors' class, never used in forward",
        "dead tensor 'patch_embed.rpe_lif.w': rpe_lif is never used in forward",
        "dead tensor 'block.0.attn.attn_lif.w': attn_lif is never used in forward",
    ]


def test_a_plif_checkpoint_needs_every_w() -> None:
    arrays = tiny_models.sdt_v1(plif=True)
    for key in [k for k in arrays if k.endswith(".w")]:
        rest = {k: v for k, v in arrays.items() if k != key}
        if key in ("patch_embed.rpe_lif.w", "block.0.attn.attn_lif.w"):
            built("sdt_v1", rest)
            continue
        with pytest.raises(FrontendError):
            built("sdt_v1", rest)
    with pytest.raises(
        FrontendError, match=r"^tensor 'head_lif.w' has shape \(2,\), expected one number \(w of a PLIF\)$"
    ):
        built("sdt_v1", {**arrays, "head_lif.w": np.zeros(2)})
    with pytest.raises(FrontendError, match=r"^tensor 'head_lif.w' is -1000.0: its tau = 1 \+ exp\(-w\) is infinite$"):
        built("sdt_v1", {**arrays, "head_lif.w": np.array(-1000.0)})


def test_blocks_count_up_from_zero() -> None:
    arrays = {k.replace("block.1", "block.2"): v for k, v in tiny_models.sdt_v1(depth=2).items()}
    with pytest.raises(
        FrontendError, match=r"^checkpoint has 'block.N' for N = \[0, 2\]; blocks must count up from 0$"
    ):
        built("sdt_v1", arrays)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_order_of_keys_does_not_matter(name: str) -> None:
    arrays = tiny_models.STATES[name]()
    assert to_text(built(name, dict(reversed(arrays.items())))) == to_text(built(name, arrays))


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_recognises_its_own_keys_alone(name: str) -> None:
    tensors = tiny_models.STATES[name]()
    assert [f for f in FAMILIES if tiny_models.family(f).recognise(tensors)] == [name]


def test_images_too_small_for_the_stem_are_refused_in_time() -> None:
    """Sizes that a pool or conv can still halve are fine down to one pixel."""
    graph = tiny_models.graph("spikformer", img_size_h=1, img_size_w=1)
    assert interpret(graph, np.ones((2, 1, 1, 1))).logits.shape == (2, 3)
    graph = tiny_models.graph("sdt_v3", img_size_h=1, img_size_w=1)
    assert interpret(graph, np.ones((2, 1, 1, 1))).logits.shape == (2, 3)
