"""What would make a network fit: options of the compiler and, without weights, smaller sizes; each is tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from nmc_compiler.errors import NmcError
from nmc_compiler.frontends.config import ModelConfig
from nmc_compiler.frontends.skeleton import with_sizes
from nmc_compiler.graph import Attr
from nmc_compiler.options import CompileOptions

SHARES = ((3, 4), (1, 2), (1, 4))
SIDES = ("img_size_h", "img_size_w")
WIDTHS = ("embed_dims", "embed_dim")
PATCH = 32  # pixels: image sizes are whole numbers of these, where they were


@dataclass(frozen=True)
class WayOut:
    """One change, and what the network then takes; ``fits``: the chips that were asked for."""

    change: str
    fits: bool
    cores: int | None
    chips: int | None

    def as_json(self) -> dict[str, Any]:
        return dict(self.__dict__)


Outcome = tuple[bool, int | None, int | None]  # fits, cores, chips
Trial = Callable[[CompileOptions, ModelConfig | None], Outcome]


def ways_out(options: CompileOptions, config: ModelConfig | None, trial: Trial) -> list[WayOut]:
    """Every change that is possible, with its outcome; ``trial`` tries one.

    config: that of a network without weights, else None. A change that the network does not allow is left out.
    """
    found = []
    for change, changed, smaller in _changes(options, config):
        try:
            found.append(WayOut(change, *trial(changed, smaller)))
        except NmcError:  # heads that no longer divide the channels, say
            continue
    return found


def _changes(
    options: CompileOptions, config: ModelConfig | None
) -> Iterator[tuple[str, CompileOptions, ModelConfig | None]]:
    for residual in ("stream", "duplicate"):
        if options.residual == "auto":
            yield f"--residual {residual}", replace(options, residual=residual), config  # type: ignore[arg-type]
    if options.channel_bins > 1 and config is None:
        yield "--channel-bins 1", replace(options, channel_bins=1), config
    if config is None:
        return
    known = with_sizes(config)
    for part, whole in SHARES:
        sides = {k: _share(known.values[k].value, part, whole, PATCH) for k in SIDES if k in known.values}
        if sides and all(n is not None and n > 0 for n in sides.values()):
            yield f"img_size {'x'.join(map(str, sides.values()))}", options, _with(known, sides)
    for part, whole in SHARES:
        widths = {k: _share(known.values[k].value, part, whole, 1) for k in WIDTHS if k in known.values}
        if widths and all(n is not None for n in widths.values()):
            key, value = next(iter(widths.items()))
            told = list(value) if isinstance(value, tuple) else value
            yield f"{key} {told}", options, _with(known, widths)


def _share(value: Any, part: int, whole: int, unit: int) -> Any:
    """That share of a number, or of each of several, in whole units; None where it is none."""
    if isinstance(value, tuple):
        found = tuple(_share(v, part, whole, unit) for v in value)
        return None if None in found else found
    if type(value) is not int or value * part % (whole * unit):
        return None
    return value * part // whole


def _with(config: ModelConfig, values: dict[str, Any]) -> ModelConfig:
    changed = {k: Attr(v, "config") for k, v in values.items()}
    return replace(config, values={**config.values, **changed})
