"""Model configuration: the values a checkpoint cannot hold, each with the place it came from."""

from __future__ import annotations

import json
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
    "layer": "depths",
    "dim": "embed_dims",
    "mlp_ratio": "mlp_ratios",
    "in_chans": "in_channels",
    "num_classes": "num_classes",
    "model": "family",
    "threshold": "v_threshold",
}
MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class ModelConfig:
    """Values by the authors' constructor names. ``evidence`` says config, family or checkpoint."""

    values: dict[str, Attr] = field(default_factory=dict)
    source: str = "no config"

    def get(self, key: str) -> Attr:
        """A value; missing ones are asked for by name."""
        if key not in self.values:
            raise FrontendError(
                f"the model needs '{key}', which a checkpoint cannot tell ({self.source}); "
                f"add '{key}: ...' to the config beside the checkpoint, or give one with --config"
            )
        return self.values[key]

    def value(self, key: str) -> Any:
        return self.get(key).value

    def has(self, key: str) -> bool:
        return key in self.values

    def with_defaults(self, evidence: str, **values: Any) -> ModelConfig:
        """Add values where the config is silent."""
        added = {k: Attr(v, evidence) for k, v in values.items() if k not in self.values}
        return ModelConfig({**self.values, **added}, self.source)

    def integer(self, key: str, least: int = 1) -> int:
        got = self.value(key)
        if not isinstance(got, int) or isinstance(got, bool) or got < least:
            raise FrontendError(
                f"config '{key}' must be a whole number >= {least}, got {got!r} ({self.source})"
            )
        return got

    def agree(self, key: str, inferred: Any, how: str) -> ModelConfig:
        """Cross-check a value that shapes tell; where the config is silent the inferred one is taken."""
        if key in self.values and self.value(key) != inferred:
            raise FrontendError(
                f"config says {key} = {self.value(key)!r}, but {how} says {inferred!r} ({self.source})"
            )
        return ModelConfig({**self.values, key: Attr(inferred, "checkpoint")}, self.source)


def read_config(path: Path) -> ModelConfig:
    """Read a YAML or JSON config; a file that holds it under a key ``config`` is accepted too."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FrontendError(f"config {path} is larger than {MAX_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
        data = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise FrontendError(f"cannot read config {path}: {error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise FrontendError(
            f"config {path} is not valid {path.suffix.lstrip('.') or 'YAML'}: {error}"
        ) from error
    return parse_config(data, f"config {path}")


def parse_config(data: Any, source: str) -> ModelConfig:
    """Check and normalise plain data to a ModelConfig."""
    if isinstance(data, dict) and isinstance(data.get("config"), dict):
        data = data["config"]
    if not isinstance(data, dict):
        raise FrontendError(f"{source} must be a mapping of names to values, got {type(data).__name__}")
    values: dict[str, Attr] = {}
    for key, value in data.items():
        name = ALIASES.get(str(key), str(key))
        if name in values and values[name].value != _plain(value):
            raise FrontendError(f"{source}: '{key}' and another name for '{name}' disagree")
        values[name] = Attr(_plain(value), "config")
    return ModelConfig(values, source)


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
