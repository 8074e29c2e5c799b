"""Any model file that nmc reads as a graph: which front end takes it, and which options go with it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from nmc.traced import TraceOptions, import_code, is_code
from nmc_compiler.errors import UsageError
from nmc_compiler.frontends.checkpoint import Imported, import_checkpoint
from nmc_compiler.frontends.netx_graph import import_netx
from nmc_compiler.frontends.nir import NirOptions, import_nir


@dataclass(frozen=True)
class ModelOptions:
    """What a model file cannot say; None: not given. ``config`` and ``family``: of checkpoints (.pt, .safetensors).

    ``timesteps``: of one sample; 0 is a stream, of .nir and .net files; of checkpoints in place of the config's T.
    ``dt``: seconds, ``nir_rule``, ``nir_reset``, ``nir_input``: of .nir files (docs/nir.md).
    ``weights``, ``input_shape`` (batch and time included), ``time_axis``, ``input_kind``: of code, file.py:callable,
    which takes ``config`` and ``timesteps`` too (docs/tracing.md).
    ``state``: which state_dict of a checkpoint, or of ``weights``, where the file holds several.
    ``host``: whether code may leave ops of real numbers to the host (docs/host.md).
    """

    config: str | os.PathLike[str] | None = None
    family: str | None = None
    timesteps: int | None = None
    dt: float | None = None
    nir_rule: str | None = None
    nir_reset: str | None = None
    nir_input: str | None = None
    weights: str | os.PathLike[str] | None = None
    input_shape: tuple[int, ...] | None = None
    time_axis: int | None = None
    input_kind: str | None = None
    host: bool | None = None
    state: str | None = None


_FLAGS = {
    "config": "--config",
    "family": "--family",
    "timesteps": "--timesteps",
    "dt": "--dt",
    "nir_rule": "--nir-rule",
    "nir_reset": "--nir-reset",
    "nir_input": "--nir-input",
    "weights": "--weights",
    "input_shape": "--input-shape",
    "time_axis": "--time-axis",
    "input_kind": "--input-kind",
    "state": "--state",
}
_OF_CODE = ("config", "timesteps", "weights", "input_shape", "time_axis", "input_kind", "state")
_OF_NIR = ("timesteps", "dt", "nir_rule", "nir_reset", "nir_input")


def import_model(path: str | os.PathLike[str], options: ModelOptions) -> Imported:
    """Read a model file, whose suffix says what it is, or trace the model that file.py:callable makes.

    FrontendError for a file that cannot be understood, UsageError for options that do not go with it.
    """
    model = Path(path)
    if is_code(path):
        return _import_code(model, options)
    if model.suffix == ".nir":
        _check(model, options, _OF_NIR)
        return import_nir(model, nir_options(options))
    if model.suffix == ".net":
        _check(model, options, ("timesteps",))
        return import_netx(model, options.timesteps or 0)
    _check(model, options, ("config", "family", "timesteps", "state"))
    config = None if options.config is None else Path(options.config)
    return import_checkpoint(model, config, options.family, options.timesteps, state=options.state)


def _import_code(model: Path, options: ModelOptions) -> Imported:
    _check(model, options, _OF_CODE)
    if options.input_shape is None:
        raise UsageError(f"{model}: give the shape of its input, batch included, with --input-shape, such as 1,3,32,32")
    asked = TraceOptions(options.input_shape, options.timesteps, options.time_axis, options.input_kind)
    asked = replace(asked, host=bool(options.host))
    return import_code(model, asked, options.weights, options.config, options.state)


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
            kinds = {".nir": "a NIR graph", ".net": "a lava-dl network"}
            kind = "a traced module" if is_code(model) else kinds.get(model.suffix, "a checkpoint")
            raise UsageError(f"{model}: {flag} does not go with {kind}; leave it out")
