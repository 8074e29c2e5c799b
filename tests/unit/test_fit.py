"""nmc.fit: the cores of nmc.compile, from weights; bounds of them, from shapes; what stands in the way, and why."""

from __future__ import annotations

import math
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import nmc
from nmc_compiler.errors import FrontendError, UsageError
from nmc_compiler.frontends.checkpoint import FAMILIES
from nmc_compiler.frontends.config import parse_config, read_config
from nmc_compiler.frontends.skeleton import KEYS, shapes_of, tensors_of, with_sizes
from nmc_compiler.frontends.spikformer import NORMS
from nmc_compiler.frontends.weights import read_checkpoint
from nmc_compiler.mapping.resources import RESOURCES

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples" / "digits" / "model.pt"
MODELS = [
    DIGITS,
    *sorted((ROOT / "examples" / "zoo").glob("*/model.pt")),
    *sorted((ROOT / "tests" / "fixtures").glob("*/model.pt")),
]
QUICK = ("digits", "e3dsnn", "snn_delays", "spikformer_conv", "sdt_v3_large", "maxformer")
NAMES = [m.parent.name if m.parent.parent.name != "fixtures" else f"{m.parent.name}-fixture" for m in MODELS]
LARGE = {"model": "spikformer12_768", "img_size": 224}


def written(folder: Path, **config: Any) -> Path:
    path = folder / "config.yml"
    path.write_text(yaml.safe_dump(config))
    return path


# ---- equal to the compiler ----


@pytest.mark.parametrize("model", [m for m, n in zip(MODELS, NAMES, strict=True) if n in QUICK], ids=QUICK)
def test_cores_are_those_that_compiling_takes(model: Path) -> None:
    _check(model)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_cores_of_every_bundled_model(model: Path) -> None:
    _check(model)


def _check(model: Path) -> None:
    """With weights: cores, chips and all but axons equal. From shapes: between the two bounds."""
    compiled = nmc.compile(model, chips="auto")
    mapping = compiled.mapping
    assert mapping is not None
    found = nmc.fit(model)
    assert (found.cores, found.chips, found.weights) == (mapping.cores, mapping.chips, "trained")
    sizing = found.targets[0].sizing
    assert sizing is not None
    used = np.array([[core[name][0] for name in RESOURCES] for core in mapping.utilisation])
    exact = [RESOURCES.index(r) for r in ("neurons", "neuron_groups", "synapse_words")]
    assert np.array_equal(sizing.used[:, exact], used[:, exact])
    assert (sizing.used >= used).all() and (sizing.used <= sizing.limits).all()
    assert [layer.name for layer in sizing.layers] == [x.name.replace("'", "") for x in mapping.layers]
    shapes = nmc.fit(model, shapes=True)
    most = shapes.targets[0].at_most
    assert shapes.cores is not None and most is not None and shapes.cores <= mapping.cores <= most.cores


def test_what_is_mapped_is_read_from_the_artefact(tmp_path: Path) -> None:
    compiled = nmc.compile(DIGITS, out=tmp_path / "build")
    found = nmc.fit(tmp_path / "build")
    assert found.weights == "mapped" and found.fits
    numbers = found.as_json()["targets"][0]
    assert compiled.mapping is not None
    for name in RESOURCES:
        per_core = [core[name][0] for core in compiled.mapping.utilisation]
        assert (numbers["resources"][name]["used"], numbers["resources"][name]["fullest"]) == (
            sum(per_core),
            max(per_core),
        )
    assert sum(layer["tiles"] for layer in numbers["layers"]) == len(compiled.program.mapping.tiles)  # type: ignore[union-attr]


def test_too_few_chips(tmp_path: Path) -> None:
    """On chips of two cores the network takes three: the answer names them, and the compiler takes them."""
    small = ROOT / "tests" / "fixtures" / "sdt_v1" / "model.pt"
    target = yaml.safe_load((ROOT / "compiler/nmc_compiler/target/loihi2.yaml").read_text())
    target["mesh"]["routers"]["value"], target["mesh"]["cores_per_router"]["value"] = [2, 1], 1
    chip = tmp_path / "mine.yaml"
    chip.write_text(yaml.safe_dump(target))
    found = nmc.fit(small, targets=chip, chips=2)
    assert not found.fits and found.cores is None
    answer = found.as_json()["targets"][0]
    assert (answer["cores"], answer["chips"], answer["too_large"]) == (5, 3, None)
    assert answer["reason"] == (
        "the network needs 5 cores, which are 3 chips of loihi2, and 2 may be used. Give --chips 3 (or auto)"
    )
    assert nmc.fit(small, targets=chip, chips=3).chips == nmc.compile(small, target=chip, chips=3).mapping.chips == 3  # type: ignore[union-attr]


def test_ways_out_are_tried(tmp_path: Path) -> None:
    """Of a config alone smaller images and widths too; what the network does not allow is left out."""
    digits = yaml.safe_load(DIGITS.with_suffix(".yaml").read_text())
    chip = yaml.safe_load((ROOT / "compiler/nmc_compiler/target/loihi2.yaml").read_text())
    chip["mesh"]["routers"]["value"], chip["mesh"]["cores_per_router"]["value"] = [2, 2], 1
    target = tmp_path / "four.yaml"
    target.write_text(yaml.safe_dump(chip))
    config = written(tmp_path, **{**digits, "img_size_h": 64, "img_size_w": 64})
    found = nmc.fit(config=config, targets=target, chips=8, suggest=True)
    assert not found.fits
    ways = {way["change"]: way for way in found.as_json()["targets"][0]["ways_out"]}
    widths = [f"embed_dims {n}" for n in (48, 32, 16)]
    assert list(ways) == ["--residual stream", "--residual duplicate", "img_size 32x32", *widths]
    small = ways["img_size 32x32"]
    again = nmc.fit(config=written(tmp_path, **{**digits, "img_size_h": 32, "img_size_w": 32}), targets=target)
    assert small["fits"] is (again.chips is not None and again.chips <= 8)
    assert (small["cores"], small["chips"]) == (again.cores, again.chips)
    assert nmc.fit(config=config, targets=target, suggest=True).targets[0].ways == ()


# ---- tensors by the config alone ----

FORMS: dict[str, dict[str, Any]] = {
    "spikformer_conv": {"form": "imagenet"},
    "spikformer": {"form": "cifar"},
    "spikingformer": {"form": "cifar"},
    "spikingformer_dvs": {"form": "dvs"},
    "qkformer": {"form": "cifar"},
    "maxformer": {"form": "cifar"},
}


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_tensors_follow_from_the_config(model: Path) -> None:
    """Every tensor that the family uses, in its shape: those of the bundled checkpoints."""
    config = read_config(model.with_suffix(".yaml"))
    family = config.value("family")
    if family not in KEYS or model.parent.name == "ms_qkformer":
        return
    config = config.with_defaults("config", blocks=(1, 1), **FORMS.get(model.parent.name, {}))
    dead = (".num_batches_tracked", *getattr(FAMILIES[family], "DEAD", {}), *NORMS)
    tensors = {k: a.shape for k, a in read_checkpoint(model).tensors.items() if not k.endswith(dead)}
    assert shapes_of(family, config) == tensors


CIFAR = {"in_channels": 3, "num_classes": 10, "mlp_ratios": 4, "num_heads": 8, "T": 4, "img_size": 32}
IMAGENET = {**CIFAR, "num_classes": 1000, "img_size": 224}
SIZES = [
    ("sdt_v3_large", LARGE, 171_740_714),
    ("sdt_v2", {"model": "metaspikformer_8_384", "img_size": 224}, 31_333_864),
    ("sdt_v2", {"model": "metaspikformer_8_512", "img_size": 224}, 55_350_248),
    ("sdt_v3", {"model": "Efficient_Spiking_Transformer_t", "img_size": 224}, 2_702_048),
    ("sdt_v3", {"model": "Efficient_Spiking_Transformer_s", "img_size": 224}, 5_105_608),
    ("sdt_v3", {"model": "Efficient_Spiking_Transformer_m", "img_size": 224}, 10_023_112),
    ("sdt_v3", {"model": "Efficient_Spiking_Transformer_l", "img_size": 224}, 18_987_504),
    ("qkformer", {**CIFAR, "embed_dims": 384, "depths": 4, "form": "cifar"}, 6_706_234),
    ("qkformer", {"model": "QKFormer_10_384"}, 16_473_688),
    ("qkformer", {"model": "QKFormer_10_768"}, 64_962_760),
    ("qkformer", {**CIFAR, "mlp_ratios": 1, "in_channels": 2, "embed_dims": 256, "depths": 4, "form": "dvs",
                  "img_size": 128}, 1_504_138),
    ("maxformer", {**CIFAR, "embed_dims": 384, "depths": 4, "form": "cifar"}, 6_568_282),
]  # fmt: skip


@pytest.mark.parametrize(("family", "given", "parameters"), SIZES, ids=[f"{s[0]}-{s[2]}" for s in SIZES])
def test_published_sizes(family: str, given: dict[str, Any], parameters: int) -> None:
    config = with_sizes(parse_config(given, "test"))
    shapes = shapes_of(family, config)
    assert sum(math.prod(s) for k, s in shapes.items() if "running_" not in k) == parameters


@pytest.mark.parametrize("family", KEYS)
def test_the_front_end_takes_every_tensor(family: str) -> None:
    """It refuses what is missing, of another shape or not known; nothing is here."""
    sizes: dict[str, Any] = {"embed_dims": 32, "depths": 4, "form": "cifar", "pooling_stat": "0011"}
    if family.startswith(("sdt_v2", "sdt_v3", "qsd")):
        sizes = {"embed_dim": [8, 8, 16, 16][: 3 if family.endswith("large") else 4], "depths": 2}
    config = parse_config({**CIFAR, **sizes, "T": 1 if family.startswith(("sdt_v3", "qsd")) else 4}, "test")
    graph, _ = FAMILIES[family].build(tensors_of(family, config), config)
    assert len(graph.nodes) > 50


@pytest.mark.slow
def test_v3_large_is_sized_within_half_a_minute(tmp_path: Path) -> None:
    """`nmc fit` of the network of 173 million parameters, from its config: seconds, and little memory."""
    start = time.process_time()
    found = nmc.fit(config=written(tmp_path, **LARGE))
    assert time.process_time() - start < 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 3_000_000
    assert (found.parameters, found.weights, found.fits) == (171_740_714, "stand-ins", False)
    large = found.as_json()["targets"][0]["too_large"]
    assert large["layers"][0] == {
        "layer": "'ConvBlock2_1.0.neuron1' and 2 more on the same accumulators",
        "resource": "synapse_words",
        "needed": 15589,
        "there": 12000,
    }
    assert (large["neurons"], large["cores_for_neurons"]) == (33_344_488, 8141)


# ---- what cannot be answered ----

CASES = [
    (
        {"family": "sdt_v1", "T": 4},
        "without weights 'embed_dims' must be in the config, which is all that tells the sizes of sdt_v1",
    ),
    ({"family": "sdt_v1", "embed_dims": 20}, "config 'embed_dims' is 20; sdt_v1 halves it 3 times"),
    (
        {**CIFAR, "family": "qkformer", "embed_dims": 32, "depths": 4},
        "of qkformer must be in the config, 'form: cifar | imagenet | dvs'",
    ),
    (
        {**CIFAR, "family": "sdt_v2", "embed_dim": [8, 8]},
        "config 'embed_dim' must be 4 whole numbers above 0, got (8, 8)",
    ),
    ({"family": "sdtrack"}, "the tensors of sdtrack do not follow from a config alone; give a checkpoint"),
    (
        {**CIFAR, "family": "sdt_v1", "embed_dims": 32, "depths": 10**9},
        "config 'depths' is 1000000000; at most 1024 blocks are built",
    ),
]


@pytest.mark.parametrize(("config", "text"), CASES, ids=range(len(CASES)))
def test_a_config_that_does_not_tell_is_refused(tmp_path: Path, config: dict[str, Any], text: str) -> None:
    with pytest.raises(FrontendError) as error:
        nmc.fit(config=written(tmp_path, **config))
    assert text in str(error.value)


def test_no_model_at_all(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no model: give a checkpoint, or the config of one with --config"):
        nmc.fit()
    with pytest.raises(UsageError, match="names no family; known: sdt_v1, .* give one with --family"):
        nmc.fit(config=written(tmp_path, T=4))
    with pytest.raises(UsageError, match="unknown family 'sdt_v9'; known: sdt_v1"):
        nmc.fit(config=written(tmp_path, T=4), family="sdt_v9")
    with pytest.raises(UsageError, match="dt does not go with a config alone; leave it out"):
        nmc.fit(config=written(tmp_path, T=4), dt=1e-3)
    with pytest.raises(UsageError, match="x.nir: only the weights of a checkpoint .* can be left aside"):
        nmc.fit("x.nir", shapes=True)


def test_a_target_that_cannot_carry_it_out_is_an_answer() -> None:
    model = ROOT / "examples" / "zoo" / "sdt_v2" / "model.pt"
    found = nmc.fit(model, targets=["loihi2", "loihi1"])
    assert [t.fits for t in found.targets] == [True, False] and not found.fits
    assert "needs dynamic synapse, which target 'loihi1' has not" in found.targets[1].reason
