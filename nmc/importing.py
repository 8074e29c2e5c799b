"""Any model file that nmc reads as a graph: which front end takes it, and which options go with it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from nmc_compiler.errors import UsageError
from nmc_compiler.frontends.checkpoint import Imported, import_checkpoint
from nmc_compiler.frontends.netx_graph import import_netx
from nmc_compiler.frontends.nir import NirOptions, import_nir


@dataclass(frozen=True)
class ModelOptions:
    """What a model file cannot say; None: not given. ``config`` and ``family``: of checkpoints (.pt, .safetensors).

    ``timesteps``: of one sample, of .nir and .net files; 0 is a stream.  ``dt``: seconds, ``nir_rule``, ``nir_reset``,
    ``nir_input``: of .nir files (docs/nir.md).
    """

    config: str | os.PathLike[str] | None = None
    family: str | None = None
    timesteps: int | None = None
    dt: float | None = None
    nir_rule: str | None = None
    nir_reset: str | None = None
    nir_input: str | None = None


_FLAGS = {
    "config": "--config",
    "family": "--family",
    "timesteps": "--timesteps",
    "dt": "--dt",
    "nir_rule": "--nir-rule",
    "nir_reset": "--nir-reset",
    "nir_input": "--nir-input",
}
_OF_NIR = ("timesteps", "dt", "nir_rule", "nir_reset", "nir_input")


def import_model(path: str | os.PathLike[str], options: ModelOptions) -> Imported:
    """Read a model file; its suffix says what it is.

    FrontendError for a file that cannot be understood, UsageError for options that do not go with it.
    """
    model = Path(path)
    if model.suffix == ".nir":
        _check(model, options, _OF_NIR)
        return import_nir(model, nir_options(options))
    if model.suffix == ".net":
        _check(model, options, ("timesteps",))
        return import_netx(model, options.timesteps or 0)
    _check(model, options, ("config", "family"))
    return import_checkpoint(model, None if options.config is None else Path(options.config), options.family)


def nir_options(options: ModelOptions) -> NirOptions:
    """Of the options, those of NIR, with their defaults."""
    given = {
        "dt": options.dt,
        "timesteps": options.timesteps,
        "rule": options.nir_rule,
        "reset": options.nir_reset,
        "inputs": options.nir_input,
    }
    return NirOptions(**{key: value for key, value in given.items() if value is not None})  # type: ignore[arg-type]


def _check(model: Path, options: ModelOptions, known: tuple[str, ...]) -> None:
    for key, flag in _FLAGS.items():
        if getattr(options, key) is not None and key not in known:
            kind = {".nir": "a NIR graph", ".net": "a lava-dl network"}.get(model.suffix, "a checkpoint")
            raise UsageError(f"{model}: {flag} does not go with {kind}; leave it out")
