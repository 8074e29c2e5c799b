"""Names and shapes of tensors, added layer by layer; and the settings that they follow from."""

from __future__ import annotations

from typing import Any

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.config import ModelConfig

MAX_LAYERS = 1024


class Keys(dict[str, tuple[int, ...]]):
    """Shapes by tensor name, as a state_dict has them."""

    def conv(self, key: str, cin: int, out: int, side: int = 1, bias: bool = False, rank: int = 4) -> None:
        """A convolution or, with rank 2 or 3, a Linear or Conv1d. A depthwise one has ``cin`` 1."""
        self[f"{key}.weight"] = (out, cin, side, side)[:rank]
        if bias:
            self[f"{key}.bias"] = (out,)

    def norm(self, key: str, width: int) -> None:
        """A batch norm."""
        for part in ("weight", "bias", "running_mean", "running_var"):
            self[f"{key}.{part}"] = (width,)

    def unit(self, conv: str, norm: str, cin: int, out: int, side: int = 1, bias: bool = False, rank: int = 4) -> None:
        """A convolution and the batch norm behind it."""
        self.conv(conv, cin, out, side, bias, rank)
        self.norm(norm, out)


class Settings:
    """What a config says of the sizes of a model that has no checkpoint."""

    def __init__(self, config: ModelConfig, family: str) -> None:
        self.config, self.family = config, family

    def number(self, key: str, least: int = 1) -> int:
        """A whole number that has to be there."""
        self._need(key)
        found = self.config.integer(key, least)
        if key in ("depths",) and found > MAX_LAYERS:
            raise FrontendError(f"config '{key}' is {found}; at most {MAX_LAYERS} blocks are built")
        return found

    def numbers(self, key: str, count: int, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """A list of ``count`` whole numbers above 0."""
        if default is not None and not self.config.has(key):
            return default
        self._need(key)
        found = self.config.value(key)
        whole = isinstance(found, tuple) and all(type(n) is int and 0 < n < 1 << 24 for n in found)
        if not whole or len(found) != count:
            raise FrontendError(
                f"config '{key}' must be {count} whole numbers above 0, got {found!r:.80} ({self.config.source})"
            )
        return found

    def widened(self, width: int) -> int:
        """Width of the hidden layer of an MLP."""
        self._need("mlp_ratios")
        ratio = self.config.number("mlp_ratios").value
        return int(width * ratio)  # type: ignore[operator, arg-type]

    def form(self, *known: str) -> str:
        """Which of the authors' files the model is of."""
        found: Any = self.config.value("form") if self.config.has("form") else None
        if found not in known:
            said = "" if found is None else f", not {found!r:.40}"
            raise FrontendError(
                f"without weights the form of {self.family} must be in the config, 'form: {' | '.join(known)}'{said} "
                f"({self.config.source})"
            )
        return str(found)

    def flag(self, key: str) -> bool:
        return self.config.flag(key)

    def _need(self, key: str) -> None:
        if not self.config.has(key):
            raise FrontendError(
                f"without weights '{key}' must be in the config, which is all that tells the sizes of {self.family} "
                f"({self.config.source})"
            )
