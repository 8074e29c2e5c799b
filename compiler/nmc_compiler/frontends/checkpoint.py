"""Checkpoint front end: a state_dict and a config in, a float SpikeGraph out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from nmc_compiler.errors import FrontendError, UsageError
from nmc_compiler.frontends import (
    e3dsnn,
    lmuformer,
    maxformer,
    qkformer,
    qsd,
    sdt_v1,
    sdt_v2,
    sdt_v3,
    sdt_v3_large,
    sdtrack,
    snn_delays,
    spikeyolo,
    spikformer,
    spikingformer,
)
from nmc_compiler.frontends.config import ModelConfig, find_config, parse_config, read_config
from nmc_compiler.frontends.weights import Checkpoint, check_finite, read_checkpoint
from nmc_compiler.graph import Attr, Graph

FAMILIES: dict[str, ModuleType] = {
    "sdt_v1": sdt_v1,
    "spikformer": spikformer,
    "spikingformer": spikingformer,
    "qkformer": qkformer,
    "maxformer": maxformer,
    "sdt_v2": sdt_v2,
    "sdt_v3": sdt_v3,
    "sdt_v3_large": sdt_v3_large,
    "qsd": qsd,
    "sdtrack": sdtrack,
    "spikeyolo": spikeyolo,
    "snn_delays": snn_delays,
    "e3dsnn": e3dsnn,
    "lmuformer": lmuformer,
}

# Names of models in the authors' files and in STEP (BrainCog), and the families that they are of.
MODEL_NAMES = {
    "sdt": "sdt_v1",
    "sdt_cifar": "sdt_v1",
    "sdt_imagenet": "sdt_v1",
    "std_imagenet": "sdt_v1",
    "spikformer_cifar": "spikformer",
    "spikformer_imagenet": "spikformer",
    "Spikingformer": "spikingformer",
    "spikingformer_cifar": "spikingformer",
    "QKFormer": "qkformer",
    "qkformer_cifar": "qkformer",
    "qkformer_imagenet": "qkformer",
    **{f"QKFormer_10_{width}": "qkformer" for width in (384, 512, 768)},
    "max_former": "maxformer",
    "ms_qkformer": "maxformer",
    **{f"{name}_10_{width}": "maxformer" for name in ("maxformer", "ms_qkformer") for width in (384, 512, 768)},
    **{f"metaspikformer_8_{width}": "sdt_v2" for width in (384, 512, 768)},
    **{f"Efficient_Spiking_Transformer_{size}": "sdt_v3" for size in "tsml"},
    **{f"spikformer12_{width}": "sdt_v3_large" for width in (512, 768)},
    **{f"spikformer_{name}_CAFormer": "qsd" for name in ("8_256", "8_15M", "8_384", "8_512", "12_512", "8_768")},
    **{f"{name}_conv1d": "lmuformer" for name in ("lmu_rnn", "slmu_rnn", "slmu_rnn_ms", "attn_ms")},
    **{f"SDTrack_{name}": "sdtrack" for name in ("tiny", "base", "tiny_T2D2", "tiny_T4D1")},
}
# Names of STEP's other models, and what is in them that no family has.
STRANGE = {
    **dict.fromkeys(("spikf_semm_cifar", "spikf_semm_imagenet"), "a router picks experts (SEMM) for each token"),
    "sglformer_cifar": "SGLFormer attends within windows, and its head convolves over tokens and timesteps at once",
    "swformer_cifar": "SWformer mixes tokens by Haar wavelets and learned blocks between them",
    "spikingresformer_cifar": "DSSA multiplies currents by spikes, scaled by firing rates of training, and fires on "
    "tokens times tokens",
    "spt": "SPT picks neighbours of points (FPS, kNN) and weighs them by a softmax",
    **dict.fromkeys(("tim", "spikformer_es"), "TIM mixes queries of a timestep with those before by a convolution"),
}
NODES = ("LIFNode", "PLIFNode")  # of STEP's node_type: what its families are built with
# Constructor arguments that a name of the authors' fixes.
FIXED = {
    f"QKFormer_10_{width}": {"num_heads": width // 64, "img_size_h": 224, "img_size_w": 224}
    for width in (384, 512, 768)
} | {
    name: {"num_heads": 8}
    for name, family in MODEL_NAMES.items()
    if family.startswith(("sdt_v2", "sdt_v3", "sdtr", "qsd"))
}


@dataclass(frozen=True)
class Imported:
    """A float graph with what the front end found out on the way; ``entries`` go to the conversion report."""

    graph: Graph
    family: str
    notes: tuple[str, ...]
    config: ModelConfig
    checkpoint_sha256: str
    entries: tuple[dict[str, Any], ...] = ()


def import_checkpoint(
    path: str | Path,
    config: str | Path | None = None,
    family: str | None = None,
    timesteps: int | None = None,
    stand_in: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] | None = None,
    state: str | None = None,
) -> Imported:
    """Read a checkpoint (.pt, .pth, .safetensors) and build its float graph.

    The config is the given file, else one stored in the checkpoint, else the one found beside it. timesteps: in place
    of the config's T. stand_in: gives the tensors that are taken in place of the checkpoint's. state: the key of the
    state_dict, in a file that holds several.
    """
    checkpoint = read_checkpoint(path, state)
    given = _config_for(checkpoint, Path(path), config)
    _check_step(given, family)
    name = _family(checkpoint, given, family)
    unread = tuple(getattr(FAMILIES[name], "DEAD", {}))  # some are memory that nobody ever wrote
    check_finite({k: v for k, v in checkpoint.tensors.items() if not k.endswith(unread)})
    settings = ModelConfig({k: v for k, v in given.values.items() if k != "family"}, given.source)
    if given.has("family"):
        settings = settings.with_defaults("family", **FIXED.get(str(given.value("family")), {}))
    if timesteps is not None:
        settings = replace(settings, values={**settings.values, "T": Attr(timesteps, "config")})
    tensors = {k: v for k, v in checkpoint.tensors.items() if not k.endswith(".num_batches_tracked")}
    graph, dead = FAMILIES[name].build(tensors if stand_in is None else stand_in(tensors), settings)
    notes = (*checkpoint.notes, *dead, *_config_notes(given, settings, name))
    trained = given.values.get("T")
    if timesteps is not None and trained is not None and trained.value != timesteps:
        notes = (*notes, f"T = {timesteps} as asked for, where the config has {trained.value}")
    found = (f"family {name}", f"settings from {settings.source}", *notes)
    return Imported(graph, name, found, settings, checkpoint.sha256)


def _check_step(given: ModelConfig, family: str | None) -> None:
    """FrontendError for models and neurons of STEP that no family has."""
    said = str(given.value("family")) if given.has("family") else ""
    if family is None and said in STRANGE:
        raise FrontendError(
            f"the model '{said}' is of no family that is read: {STRANGE[said]}; its module can be traced as far as "
            f"every op of it is lowered (file.py:callable, docs/tracing.md)"
        )
    if given.has("node_type") and given.value("node_type") not in NODES:
        raise FrontendError(
            f"config says node_type = {given.value('node_type')!r}; checkpoints are read as networks of "
            f"{' or '.join(NODES)}; trace the module (file.py:callable, docs/tracing.md)"
        )


def _config_notes(given: ModelConfig, settings: ModelConfig, family: str) -> list[str]:
    """What the config says to no effect; call after the build, which marks what it used."""
    notes = []
    if given.has("family") and family not in (given.value("family"), MODEL_NAMES.get(str(given.value("family")))):
        notes.append(f"config names the model {given.value('family')!r}; it was built as {family}")
    if settings.unused():
        notes.append(f"config keys not used by {family}: {', '.join(settings.unused())}")
    return notes


def _config_for(checkpoint: Checkpoint, path: Path, given: str | Path | None) -> ModelConfig:
    if given is not None:
        return read_config(Path(given))
    if checkpoint.config is not None:
        return parse_config(checkpoint.config, f"the config stored in {path.name}")
    beside = find_config(path)
    if beside is not None:
        return read_config(beside)
    return ModelConfig({}, f"no config found beside {path}")


def _family(checkpoint: Checkpoint, settings: ModelConfig, given: str | None) -> str:
    keys = checkpoint.tensors
    matching = [name for name, module in FAMILIES.items() if module.recognise(keys)]
    named = given
    if named is None and settings.has("family"):
        said = settings.value("family")
        named = said if said in FAMILIES else MODEL_NAMES.get(said) if isinstance(said, str) else None
    if named is not None:
        if named not in FAMILIES:
            raise UsageError(f"unknown family '{named}'; known: {', '.join(FAMILIES)}")
        if named not in matching:
            missing = next((f"it has no tensor '{k}'" for k in FAMILIES[named].KNOWN if k not in keys), "other tensors")
            raise FrontendError(f"{checkpoint.path} is not a {named} checkpoint: {missing}")
        return named
    if len(matching) != 1:
        sample = ", ".join(list(checkpoint.tensors)[:4])
        raise FrontendError(
            f"{checkpoint.path}: family not recognised from its keys ({sample}, ...); known families: "
            f"{', '.join(FAMILIES)}; name one with --family"
        )
    return matching[0]
