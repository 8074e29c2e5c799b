"""Every published form of the families of the zoo: equal to its PyTorch module, its published size, clear refusals."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
import zoo
from safetensors.numpy import save_file
from zoo import FORMS, Form

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.checkpoint import FAMILIES, Imported, import_checkpoint
from nmc_compiler.frontends.config import parse_config
from nmc_compiler.graph import Graph
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.graph.text import to_text
from nmc_compiler.graph.verify import verify

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install '.[torch]'")
NAMES = tuple(FORMS)


def built(form: Form, state: dict[str, np.ndarray], **changes: Any) -> tuple[Graph, list[str]]:
    config = {k: v for k, v in {**form.config, **changes}.items() if v is not None}
    return FAMILIES[form.family].build(state, parse_config(config, "test config"))


@pytest.fixture(scope="module")
def states() -> dict[str, dict[str, np.ndarray]]:
    return {name: zoo.state_of(zoo.busy(form)) for name, form in FORMS.items()}


# ---- meaning ----


@pytest.mark.parametrize("name", NAMES)
def test_every_code_is_that_of_the_pytorch_module(name: str) -> None:
    """In float64: every code of every LIF by its module's name and layout, in call order but for parallel branches."""
    from model import Lif, recording

    form = FORMS[name]
    net = zoo.busy(form)
    graph, _ = built(form, zoo.state_of(net))
    verify(graph)
    images = zoo.images(form)
    with torch.inference_mode(), recording(net, Lif) as seen:
        logits = net(torch.from_numpy(images)).numpy()
    got = interpret(graph, images, record="all")
    np.testing.assert_allclose(got.logits, logits, rtol=0, atol=1e-9)
    assert set(got.codes) == set(seen)
    for module, spikes in seen.items():
        node = next(n for n in graph if n.name == module)
        moved = got.codes[module].transpose(0, 1, *(2 + axis for axis in node.attr("record_perm")))
        assert np.array_equal(moved.reshape(*moved.shape[:2], *node.attr("record_shape")), spikes.numpy()), module
    active = [float(c.mean()) for c in got.codes.values()]
    assert sum(0.01 < a < 0.99 for a in active) > 0.7 * len(active)


@pytest.mark.parametrize("name", NAMES)
def test_one_family_recognises_it(name: str, states: dict) -> None:
    assert [f for f, module in FAMILIES.items() if module.recognise(states[name])] == [FORMS[name].family]


# ---- published sizes: parameters and entries of the state_dict, counted without memory ----

CIFAR: dict[str, Any] = {"in_channels": 3, "num_classes": 10, "mlp_ratios": 4, "T": 4}
IMAGENET: dict[str, Any] = {**CIFAR, "num_classes": 1000}
EVENTS: dict[str, Any] = {**CIFAR, "in_channels": 2, "img_size_h": 128, "img_size_w": 128, "patch_size": 16}
SIZES = [
    ("spikingformer", {**CIFAR, "embed_dims": 256, "num_heads": 8, "depths": 4}, 4_156_202, 204),
    ("spikingformer", {**CIFAR, "embed_dims": 384, "num_heads": 12, "depths": 2}, 5_765_818, 118),
    ("spikingformer", {**CIFAR, "embed_dims": 384, "num_heads": 12, "depths": 4}, 9_326_266, 204),
    ("spikingformer-imagenet", {**IMAGENET, "embed_dims": 512, "num_heads": 8, "depths": 8}, 29_705_768, 376),
    ("spikingformer-imagenet", {**IMAGENET, "embed_dims": 768, "num_heads": 8, "depths": 8}, 66_363_208, 376),
    ("spikingformer-dvs", {**EVENTS, "embed_dims": 256, "num_heads": 16, "depths": 2}, 2_568_714, 118),
    ("qkformer", {**CIFAR, "embed_dims": 384, "num_heads": 8, "depths": 4}, 6_706_234, 200),
    ("qkformer", {**CIFAR, "num_classes": 100, "embed_dims": 384, "num_heads": 8, "depths": 4}, 6_740_884, 200),
    ("qkformer-imagenet", {**IMAGENET, "embed_dims": 384, "num_heads": 6, "depths": 10}, 16_473_688, 434),
    ("qkformer-imagenet", {**IMAGENET, "embed_dims": 512, "num_heads": 8, "depths": 10}, 29_079_336, 434),
    ("qkformer-imagenet", {**IMAGENET, "embed_dims": 768, "num_heads": 12, "depths": 10}, 64_962_760, 434),
    ("qkformer-dvs", {**EVENTS, "mlp_ratios": 1, "embed_dims": 256, "num_heads": 16, "depths": 4}, 1_504_138, 122),
    ("maxformer", {**CIFAR, "embed_dims": 384}, 6_568_282, 169),
    ("maxformer", {**CIFAR, "num_classes": 100, "embed_dims": 384}, 6_602_932, 169),
    ("maxformer-imagenet", {**IMAGENET, "embed_dims": 384}, 16_237_240, 398),
    ("maxformer-imagenet", {**IMAGENET, "embed_dims": 512}, 28_653_480, 398),
    ("maxformer-imagenet", {**IMAGENET, "embed_dims": 768}, 63_992_200, 398),
    ("maxformer-event", {**EVENTS, "mlp_ratios": 1, "embed_dims": 256}, 1_455_626, 110),
    ("ms_qkformer", {**CIFAR, "embed_dims": 384}, 6_706_234, 200),
    ("spikformer-imagenet", {**EVENTS, **IMAGENET, "embed_dims": 384, "num_heads": 8, "depths": 8}, 16_828_312, 376),
    ("spikformer-imagenet", {**EVENTS, **IMAGENET, "embed_dims": 512, "num_heads": 8, "depths": 6}, 23_385_640, 290),
    ("spikformer-imagenet", {**EVENTS, **IMAGENET, "embed_dims": 768, "num_heads": 8, "depths": 8}, 66_363_208, 376),
    ("spikformer-dvs", {**EVENTS, "embed_dims": 256, "num_heads": 16, "depths": 2}, 2_585_610, 121),
    ("sdt_v1-dvs", {**CIFAR, "embed_dims": 256, "num_heads": 8, "depths": 2, "pooling_stat": "0011"}, 2_567_082, 112),
    ("sdt_v1-dvs", {**CIFAR, "embed_dims": 512, "num_heads": 8, "depths": 2, "pooling_stat": "0011"}, 10_233_546, 112),
    (
        "sdt_v1-dvs",
        {**IMAGENET, "embed_dims": 512, "num_heads": 8, "depths": 8, "pooling_stat": "1111"},
        29_689_896,
        352,
    ),
    (
        "sdt_v1-dvs",
        {**IMAGENET, "embed_dims": 768, "num_heads": 8, "depths": 8, "pooling_stat": "1111"},
        66_339_144,
        352,
    ),
]


@pytest.mark.parametrize(("name", "config", "parameters", "entries"), SIZES, ids=[f"{s[0]}-{s[2]}" for s in SIZES])
def test_parameters_and_entries_are_the_published_ones(name: str, config: dict, parameters: int, entries: int) -> None:
    form = FORMS[name]
    with torch.device("meta"):
        net = zoo.module(Form(form.family, form.folder, form.cls, config, form.more))
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert len(net.state_dict()) == entries


# ---- every tensor is needed, and needed in its shape ----


def is_dead(key: str) -> bool:
    return key.startswith(("norm.", "pos_embed")) or "norm1" in key or "norm2" in key or "talking_heads.weight" in key


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_tensor_is_refused_or_was_dead(name: str, states: dict) -> None:
    state = states[name]
    logits = interpret(built(FORMS[name], state)[0], zoo.images(FORMS[name], 1)).logits
    for key in state:
        rest = {k: v for k, v in state.items() if k != key}
        if is_dead(key):
            assert np.array_equal(interpret(built(FORMS[name], rest)[0], zoo.images(FORMS[name], 1)).logits, logits)
            continue
        with pytest.raises(FrontendError, match="^(checkpoint has |tensor '|config says )"):
            built(FORMS[name], rest)


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_shape_is_one_clear_message(name: str, states: dict) -> None:
    state = states[name]
    for key, array in state.items():
        wrong = {"empty": array[:0], "no axes": np.float32(1).reshape(()), "longer": np.concatenate([array, array[:1]])}
        if array.ndim > 1:
            wrong["flat"] = array.reshape(-1)
        for what, other in wrong.items():
            if not is_dead(key):
                with pytest.raises(FrontendError) as error:
                    built(FORMS[name], {**state, key: other})
                assert len(str(error.value)) < 300, (key, what)


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_tensor_is_named(name: str, states: dict) -> None:
    with pytest.raises(FrontendError, match=r"^checkpoint has a tensor 'head\.extra' that a \w+ model does not know"):
        built(FORMS[name], {**states[name], "head.extra": np.zeros(3)})


@pytest.mark.parametrize("key", ["stage", "stage4.0.x", "stage\u00b2.0.x", "stage1.\u00b2.x", "stage1." + "9" * 5000])
def test_odd_names_of_stages_are_refused(key: str, states: dict) -> None:
    with pytest.raises(FrontendError, match="^checkpoint has "):
        built(FORMS["qkformer"], {**states["qkformer"], key: np.zeros(3)})


def test_an_image_that_no_memory_holds_is_refused_before_any_is_taken(states: dict) -> None:
    with pytest.raises(FrontendError, match=r"^an average pool gives 16x500000x500000 values, each with a factor "):
        built(FORMS["maxformer-average"], states["maxformer-average"], img_size_h=10**6, img_size_w=10**6)


# ---- what the config must say, and what it cannot change ----


def test_notes_and_refusals_of_qkformer(states: dict) -> None:
    form = FORMS["qkformer"]
    graph, notes = built(form, states["qkformer"], num_heads=4)  # the authors' CIFAR file has 8, whatever it is told
    assert [n.attr("heads") for n in graph if n.op == "attn"] == [8]
    assert notes == [
        "the authors' stage3.0.ssa.proj_lif runs over timesteps and images of a batch as one sequence (its input has "
        "lost the time axis): spikes recorded in batches of more than one image differ; this network is theirs at "
        "batch 1"
    ]
    with pytest.raises(FrontendError, match="^config says images of 8x12; the authors' qkformer exchanges rows and "):
        built(form, states["qkformer"], img_size_w=12)
    other = FORMS["qkformer-imagenet"]
    with pytest.raises(FrontendError, match=r"^the model needs 'num_heads', which a checkpoint cannot tell"):
        built(other, states["qkformer-imagenet"], num_heads=None)
    with pytest.raises(FrontendError, match=r"^num_heads = 3 does not divide the 8 channels of stage1\.0\.tssa$"):
        built(other, states["qkformer-imagenet"], num_heads=3)


def test_token_attention_counts_within_a_head(states: dict) -> None:
    graph, _ = built(FORMS["qkformer-imagenet"], states["qkformer-imagenet"])
    counts = [n for n in graph if n.op == "map"]
    assert [(n.attr("mode"), n.attr("channels")) for n in counts] == [("reduce_channels", 2)] * 3


def test_frames_or_images_of_two_channels(states: dict) -> None:
    """The ImageNet and the DVS file of Spikingformer have the same tensors, and other time constants."""
    form, state = FORMS["spikingformer-dvs"], states["spikingformer-dvs"]
    with pytest.raises(FrontendError, match="^the ImageNet and the DVS form of spikingformer have the same tensors; "):
        built(form, state, input_time=None)
    for frames, tau in ((True, 1.5), (False, 2.0)):
        graph, _ = built(form, state, input_time=frames)
        assert {n.attr("tau") for n in graph if n.op == "lif"} == {tau}
        assert graph.input_time == frames


def test_the_data_set_of_an_sdt_says_whether_it_erodes(states: dict) -> None:
    """The authors' yml files name the data set; their script sets dvs_mode by it."""
    form, state = FORMS["sdt_v1-dvs"], states["sdt_v1-dvs"]
    for dataset, pools, frames in (("cifar10-dvs", 2 + 8, True), ("gesture", 2, True), ("cifar10", 2, False)):
        graph, notes = built(form, state, dataset=dataset, dvs_mode=None, input_time=None)
        assert sum(n.op == "maxpool2d" for n in graph) == pools
        assert graph.input_time == frames
        assert "TET: logits are averaged over timesteps, as the authors' evaluation does" in notes
    graph, _ = built(form, state, dataset="cifar10-dvs", dvs_mode=False, input_time=None)
    assert sum(n.op == "maxpool2d" for n in graph) == 2


@pytest.mark.parametrize(("name", "scale"), [("spikformer-dvs", 0.25), ("spikformer-imagenet", 0.125)])
def test_the_attention_scale_is_that_of_the_file(name: str, scale: float, states: dict) -> None:
    graph, notes = built(FORMS[name], states[name])
    assert [n.attr("scale") for n in graph if n.op == "attn"] == [scale]
    assert graph.input_time == (name == "spikformer-dvs")
    dead = {"norm1", "norm2"} | ({"pos_embed", "norm"} if name == "spikformer-dvs" else set())
    assert {d for d in dead if any(f"{d}." in n or f"'{d}'" in n for n in notes)} == dead


@pytest.mark.parametrize(("name", "side"), [("maxformer", 32), ("ms_qkformer", 32), ("maxformer-event", 128)])
def test_maxformers_have_the_image_size_of_their_file(name: str, side: int, states: dict) -> None:
    """Their constructor takes none."""
    graph, notes = built(FORMS[name], states[name], img_size_h=None, img_size_w=None)
    assert graph.sources[0].type.shape[1:] == (side, side)
    said = f"images are taken to be {side}x{side}, as the authors' file has them; say img_size if not"
    assert said in notes and said not in built(FORMS[name], states[name])[1]
    with pytest.raises(FrontendError, match="^the model needs 'img_size_w', which a checkpoint cannot tell"):
        built(FORMS[name], states[name], img_size_w=None)


def test_average_pools_count_what_is_inside(states: dict) -> None:
    graph, _ = built(FORMS["maxformer-average"], states["maxformer-average"])
    scale = next(n for n in graph if n.op == "scale" and graph.node(n.operands[0]).op == "sumpool2d")
    factor = graph.tensor(scale, "factor")
    assert factor is not None
    inside = np.array([[sum(0 <= 2 * i + d < 8 for d in (-1, 0, 1)) * sum(0 <= 2 * j + d < 12 for d in (-1, 0, 1))
                        for j in range(6)] for i in range(4)])  # fmt: skip
    assert np.array_equal(factor, np.broadcast_to(1 / inside, factor.shape))
    assert math.isclose(float(factor.min()), 1 / 9)


# ---- names of the authors and of STEP ----


def imported(folder: Path, state: dict[str, np.ndarray], config: dict[str, Any]) -> Imported:
    save_file({k: np.ascontiguousarray(v, dtype=np.float32) for k, v in state.items()}, folder / "model.safetensors")
    (folder / "model.yaml").write_text(yaml.safe_dump(config))
    return import_checkpoint(folder / "model.safetensors")


def test_a_config_of_step_reads_like_one_of_the_authors(tmp_path: Path, states: dict) -> None:
    config = {"model": "qkformer_cifar", "step": 3, "embed_dim": 64, "num_heads": 8, "patch_size": 4, "mlp_ratio": 2,
              "attn_scale": 0.125, "depths": 3, "img_size": 8, "in_channels": 1, "num_classes": 3}  # fmt: skip
    found = imported(tmp_path, states["qkformer"], config)
    assert found.family == "qkformer" and not any("names the model" in note for note in found.notes)
    same = imported(tmp_path, states["qkformer"], {"family": "qkformer", **FORMS["qkformer"].config})
    assert to_text(found.graph).replace("=0.125~config", "=0.125~family") == to_text(same.graph)


def test_a_name_of_the_authors_brings_its_arguments(tmp_path: Path, states: dict) -> None:
    """QKFormer_10_384 means 6 heads and images of 224x224."""
    state = states["qkformer-imagenet"]
    with pytest.raises(FrontendError, match=r"^num_heads = 6 does not divide the 8 channels of stage1\.0\.tssa$"):
        imported(tmp_path, state, {"model": "QKFormer_10_384", "time_step": 1})
    found = imported(tmp_path, state, {"model": "QKFormer_10_384", "T": 1, "num_heads": 2, "img_size": 32})
    assert found.family == "qkformer" and found.graph.timesteps == 1
