"""The tensors of a family by its config alone: names and shapes, and arrays of them that take no memory.

``tensors_of`` gives what a family's ``build`` takes for a state_dict; ``import_shapes`` the float graph of it. All
weights of a layer are 1 / fan-in and norms do nothing: numbers that passes can work with and that mean nothing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nmc_compiler.errors import FrontendError, UsageError
from nmc_compiler.frontends import skeleton_meta as meta
from nmc_compiler.frontends import skeleton_vision as vision
from nmc_compiler.frontends.checkpoint import FAMILIES, FIXED, MODEL_NAMES, Imported
from nmc_compiler.frontends.config import ModelConfig, read_config
from nmc_compiler.frontends.keys import Keys, Settings
from nmc_compiler.graph import Attr
from nmc_compiler.graph.uniform import uniform

KEYS: dict[str, Callable[[Settings], Keys]] = {
    "sdt_v1": vision.sdt_v1,
    "spikformer": vision.spikformer,
    "spikingformer": vision.spikingformer,
    "qkformer": vision.qkformer,
    "maxformer": vision.maxformer,
    "sdt_v2": meta.sdt_v2,
    "qsd": meta.qsd,
    "sdt_v3": meta.sdt_v3,
    "sdt_v3_large": meta.sdt_v3_large,
}

MOST = 1 << 36  # numbers of one tensor
EMPTIED = (".weight", ".bias", ".running_mean", ".running_var", ".alpha", ".layer_scale1", ".layer_scale2")
_CLASSES = {"in_channels": 3, "num_classes": 1000, "mlp_ratios": 4}
# What the authors' constructors of a name fix; sizes of docs/families.md and tests/unit/test_families_*.py.
SIZES: dict[str, dict[str, Any]] = {
    "spikformer12_768": {**_CLASSES, "embed_dim": (196, 384, 768), "depths": 12, "kd": True},
    "Efficient_Spiking_Transformer_t": {**_CLASSES, "embed_dim": (24, 48, 96, 128)},
    "Efficient_Spiking_Transformer_s": {**_CLASSES, "embed_dim": (32, 64, 128, 192)},
    "Efficient_Spiking_Transformer_m": {**_CLASSES, "embed_dim": (48, 96, 192, 240)},
    "Efficient_Spiking_Transformer_l": {**_CLASSES, "embed_dim": (64, 128, 256, 360)},
    "metaspikformer_8_384": {**_CLASSES, "embed_dim": (96, 192, 384, 480)},
    "metaspikformer_8_512": {**_CLASSES, "embed_dim": (128, 256, 512, 640)},
    "spikformer_8_15M_CAFormer": {**_CLASSES, "embed_dim": (64, 128, 256, 360)},
    **{f"QKFormer_10_{n}": {**_CLASSES, "embed_dims": n, "depths": 10, "form": "imagenet"} for n in (384, 512, 768)},
}
FORMS = {
    "spikformer_cifar": "cifar",
    "spikformer_imagenet": "imagenet",
    "spikingformer_cifar": "cifar",
    "qkformer_cifar": "cifar",
}


def import_shapes(
    config: str | Path | ModelConfig, family: str | None = None, timesteps: int | None = None
) -> Imported:
    """The float graph of the network that a config (or the file of one) describes, every weight of it a stand-in.

    family: where the config does not say; timesteps: in place of the config's T. Raises FrontendError for what the
    config does not tell, UsageError for an unknown family.
    """
    given = config if isinstance(config, ModelConfig) else read_config(Path(config))
    said = given.value("family") if given.has("family") else None
    name = family or (said if said in FAMILIES else MODEL_NAMES.get(str(said)))
    if name is None or name not in FAMILIES:
        wrong = f"unknown family '{name or said}'" if name or said else f"{given.source} names no family"
        raise UsageError(f"{wrong}; known: {', '.join(FAMILIES)}; give one with --family")
    settings = with_sizes(given).with_defaults("family", **FIXED.get(str(said), {}))
    settings = ModelConfig({k: v for k, v in settings.values.items() if k != "family"}, given.source)
    if timesteps is not None:
        settings = replace(settings, values={**settings.values, "T": Attr(timesteps, "config")})
    tensors = tensors_of(name, settings)
    for key in ("form", "blocks"):
        settings.has(key)
    graph, notes = FAMILIES[name].build(tensors, settings)
    unused = [f"config keys not used by {name}: {', '.join(settings.unused())}"] if settings.unused() else []
    found = (f"family {name}", f"settings from {settings.source}, and no weights: shapes alone", *notes, *unused)
    return Imported(graph, name, found, settings, hashlib.sha256(b"").hexdigest())


def with_sizes(config: ModelConfig) -> ModelConfig:
    """The config with what the authors' name of the model (``model``) says of its sizes."""
    name = str(config.value("family")) if config.has("family") else ""
    known = SIZES.get(name, {}) | ({"form": FORMS[name]} if name in FORMS else {})
    return config.with_defaults("family", **known)


def shapes_of(family: str, config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that the family's forward uses, in no particular order."""
    if family not in KEYS:
        raise FrontendError(
            f"the tensors of {family} do not follow from a config alone; give a checkpoint (any weights will do). "
            f"They do of {', '.join(KEYS)}"
        )
    shapes = dict(KEYS[family](Settings(config, family)))
    for key, shape in shapes.items():
        if math.prod(shape) > MOST:
            raise FrontendError(
                f"{config.source}: '{key}' of {family} would have the shape {list(shape)}; at most {MOST:,} numbers "
                f"fit anything; is a size of the config wrong?"
            )
    return shapes


def tensors_of(family: str, config: ModelConfig) -> dict[str, np.ndarray]:
    """A state_dict of those tensors, each an array of one value."""
    return {key: _stand_in(key, shape) for key, shape in shapes_of(family, config).items()}


def _stand_in(key: str, shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) > 1:
        return uniform(np.float32(1 / math.prod(shape[1:])), shape)
    if key.endswith(".alpha"):  # a step size (qsd) that leaves every weight above 0
        return uniform(np.float32(2.0**-16), shape)
    return uniform(np.float32(0.0 if key.endswith(("bias", "running_mean")) else 1.0), shape)


def emptied(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Stand-ins for the weights and norms of a checkpoint; other numbers (time constants, delays) are few and stay."""
    return {k: _stand_in(k, a.shape) if k.endswith(EMPTIED) and a.size else a for k, a in tensors.items()}
