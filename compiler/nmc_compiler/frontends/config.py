"""Model configuration: the values a checkpoint cannot hold, each with the place it came from."""

from __future__ import annotations

import json
import math
import reprlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from nmc_compiler.errors import FrontendError
from nmc_compiler.graph import Attr

# Names used by the authors' yml files and argparse, and the constructor names they stand for.
ALIASES = {
    "time_steps": "T",
    "time_step": "T",
    "step": "T",
    "layer": "depths",
    "dim": "embed_dims",
    "mlp_ratio": "mlp_ratios",
    "in_chans": "in_channels",
    "model": "family",
    "threshold": "v_threshold",
    "grid_size": "voxel_size",  # Pointcept
    "point_cloud_range": "point_range",  # OpenPCDet
}
MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class ModelConfig:
    """Values by the authors' constructor names. ``evidence`` says config, family or checkpoint.

    ``asked`` collects the keys that a front end looked up; what was never asked for had no effect.
    """

    values: dict[str, Attr] = field(default_factory=dict)
    source: str = "no config"
    asked: set[str] = field(default_factory=set, compare=False, repr=False)

    def get(self, key: str) -> Attr:
        """A value; missing ones are asked for by name."""
        self.asked.add(key)
        if key not in self.values:
            raise FrontendError(
                f"the model needs '{key}', which a checkpoint cannot tell ({self.source}); "
                f"add '{key}: ...' to the config beside the checkpoint, or give one with --config"
            )
        return self.values[key]

    def value(self, key: str) -> Any:
        return self.get(key).value

    def has(self, key: str) -> bool:
        self.asked.add(key)
        return key in self.values

    def unused(self) -> list[str]:
        """Keys of the config that no one asked for."""
        return [k for k, a in self.values.items() if a.evidence == "config" and k not in self.asked]

    def with_defaults(self, evidence: str, **values: Any) -> ModelConfig:
        """Add values where the config is silent."""
        added = {k: Attr(v, evidence) for k, v in values.items() if k not in self.values}
        return ModelConfig({**self.values, **added}, self.source, self.asked)

    def integer(self, key: str, least: int = 1) -> int:
        got = self.value(key)
        if not isinstance(got, int) or isinstance(got, bool) or got < least:
            raise FrontendError(
                f"config '{key}' must be a whole number >= {least}, got {reprlib.repr(got)} ({self.source})"
            )
        return got

    def number(self, key: str) -> Attr:
        """A finite positive number, with its evidence."""
        got = self.value(key)
        if not isinstance(got, (int, float)) or isinstance(got, bool) or not 0 < got < math.inf:
            raise FrontendError(f"config '{key}' must be a number > 0, got {reprlib.repr(got)} ({self.source})")
        return self.get(key)

    def flag(self, key: str) -> bool:
        """A true/false setting; absent means false."""
        got = self.value(key) if self.has(key) else False
        if not isinstance(got, bool):
            raise FrontendError(f"config '{key}' must be true or false, got {reprlib.repr(got)} ({self.source})")
        return got

    def agree(self, key: str, inferred: Any, how: str) -> ModelConfig:
        """Cross-check a value that shapes tell; where the config is silent the inferred one is taken."""
        if key in self.values and self.value(key) != inferred:
            raise FrontendError(
                f"config says {key} = {reprlib.repr(self.value(key))}, but it is {inferred!r} by {how} ({self.source})"
            )
        self.asked.add(key)
        return ModelConfig({**self.values, key: Attr(inferred, "checkpoint")}, self.source, self.asked)


def read_config(path: Path) -> ModelConfig:
    """Read a YAML or JSON config; a file that holds it under a key ``config`` is accepted too."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FrontendError(f"config {path} is larger than {MAX_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
        data = _read_json(text) if path.suffix == ".json" else _read_yaml(text)
    except (OSError, UnicodeDecodeError) as error:
        raise FrontendError(f"cannot read config {path}: {error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise FrontendError(f"config {path} is not valid {path.suffix.lstrip('.') or 'YAML'}: {error}") from error
    return parse_config(data, f"config {path}")


def _read_json(text: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        _refuse_twice([key for key, _ in pairs])
        return dict(pairs)

    return json.loads(text, object_pairs_hook=unique)


def _read_yaml(text: str) -> Any:
    loader = _UniqueKeys(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


class _UniqueKeys(yaml.SafeLoader):
    """``yaml.safe_load`` that refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        _refuse_twice([key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)])
        return super().construct_mapping(node, deep)


def _refuse_twice(keys: list[str]) -> None:
    """JSON and YAML readers keep the last of two equal keys; here that is an error."""
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise ValueError(f"key {reprlib.repr(key)} is given twice")
        seen.add(key)


def parse_config(data: Any, source: str) -> ModelConfig:
    """Check and normalise plain data to a ModelConfig."""
    if isinstance(data, dict) and isinstance(data.get("config"), dict):
        data = data["config"]
    if not isinstance(data, dict):
        raise FrontendError(f"{source} must be a mapping of names to values, got {type(data).__name__}")
    values: dict[str, Attr] = {}
    for key, given in data.items():
        for name, value in _named(str(key), _plain(given)):
            if name in values and values[name].value != value:
                raise FrontendError(f"{source}: '{key}' and another name for '{name}' disagree")
            values[name] = Attr(value, "config")
    return ModelConfig(values, source)


def _named(key: str, value: Any) -> list[tuple[str, Any]]:
    """A setting by its constructor name; ``img_size`` (one number or height, width) is two settings.

    ``input_size``, as timm and some argparse name it, may have the channels in front.
    """
    if key in ("img_size", "input_size"):
        sides = value[-2:] if isinstance(value, tuple) and len(value) in (2, 3) else (value, value)
        h, w = sides
        return [("img_size_h", h), ("img_size_w", w)]
    if key == "embed_dim" and isinstance(value, int):  # a list of widths is the name of another constructor
        return [("embed_dims", value)]
    return [(ALIASES.get(key, key), value)]


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def find_config(checkpoint: Path) -> Path | None:
    """The config beside a checkpoint: same stem, or the one YAML/JSON file named config or golden."""
    for stem in (checkpoint.stem, "config", "golden"):
        for suffix in (".yaml", ".yml", ".json"):
            candidate = checkpoint.with_name(stem + suffix)
            if candidate.is_file():
                return candidate
    return None
