"""Models as code: a torch module, or a function in a file that makes one, traced to a graph (docs/tracing.md)."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nmc_compiler.errors import FrontendError, NmcError, ToolNotFound, UsageError
from nmc_compiler.frontends.checkpoint import Imported
from nmc_compiler.frontends.config import ModelConfig, read_config
from nmc_compiler.frontends.nir import input_kind
from nmc_compiler.frontends.weights import read_checkpoint

ALLOW_HOST = "--allow host"  # in the text of an error that it would help
_CODE = re.compile(r"(.+\.py):([A-Za-z_][A-Za-z0-9_.]*)")


@dataclass(frozen=True)
class TraceOptions:
    """How a module is traced. ``shape``: of its input, batch (1) and time included. ``time_axis``: 0 or 1, None: found
    from the shape. ``timesteps``: of a sample, for a module that computes one when called; 0 is a stream.
    ``kind``: what the input carries: real values (None), "spikes", or codes ("u8"). ``host``: ops of real numbers
    become nodes of the host (docs/host.md).
    """

    shape: tuple[int, ...]
    timesteps: int | None = None
    time_axis: int | None = None
    kind: str | None = None
    host: bool = False


def is_code(model: Any) -> bool:
    """Whether a model is named as file.py:callable."""
    return isinstance(model, (str, os.PathLike)) and _CODE.fullmatch(os.fspath(model)) is not None


def is_module(model: Any) -> bool:
    """Whether a model is a torch module; PyTorch is not imported to find out."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module)


def trace(
    module: Any,
    example_input: Any,
    *,
    timesteps: int | None = None,
    time_axis: int | None = None,
    kind: str | None = None,
    host: bool = False,
) -> Imported:
    """The float graph of a torch module; ``.graph`` of the result is what ``nmc.compile`` starts from.

    example_input: a tensor or array, of which only the shape is used, or a shape: [B, ...] with B = 1, or with a time
    axis [T, B, ...] or [B, T, ...].  timesteps, time_axis, kind, host: see ``TraceOptions``.  Raises FrontendError for
    what cannot be lowered (the op, the module, the line of code) and UsageError for a shape that does not tell.
    """
    return _traced(module, TraceOptions(shape_of(example_input), timesteps, time_axis, kind, host))


def shape_of(example_input: Any) -> tuple[int, ...]:
    """The shape of a tensor or array, or a shape as it is."""
    found = getattr(example_input, "shape", example_input)
    try:
        return tuple(int(n) for n in found)
    except (TypeError, ValueError):
        raise UsageError(
            f"example_input is {type(example_input).__name__}; give a tensor, an array or a shape"
        ) from None


def _traced(module: Any, options: TraceOptions) -> Imported:
    _need_torch()
    from nmc_compiler.frontends.trace.module import example_of, trace_module

    signed = None if options.kind is None else input_kind(options.kind)
    if signed is not None and signed.signed:
        raise UsageError(f"a traced module's input cannot be {options.kind!r}; real, spikes and u1 to u24 are")
    bits = None if signed is None else signed.bits
    example = example_of(options.shape, options.timesteps, options.time_axis, bits)
    try:
        return trace_module(module, example, options.timesteps, host=options.host)
    except FrontendError as error:
        if options.host or ALLOW_HOST not in str(error):
            raise
        raise FrontendError(f"{error}{_all_of_host(module, example, options)}") from None


def _all_of_host(module: Any, example: Any, options: TraceOptions) -> str:
    """What else the host would have to do for a module, where that is all that stands in the way."""
    from nmc_compiler.frontends.trace.module import trace_module
    from nmc_compiler.passes.host_partition import host_ops

    try:
        return f"; in all that is {host_ops(trace_module(module, example, options.timesteps, host=True).graph)}"
    except NmcError as error:
        return f"; which is not all: {error}"


def _need_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        raise ToolNotFound("tracing runs a PyTorch module, and PyTorch is not installed: pip install 'nmc[torch]'")


def import_code(
    spec: str | os.PathLike[str],
    options: TraceOptions,
    weights: str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] | None = None,
    state: str | None = None,
) -> Imported:
    """Run file.py, call the callable (with the values of ``config``, if given), load ``weights`` into the module it
    returns, and trace that. The code is the user's own choice: it runs with all that they may do.
    """
    _need_torch()
    match = _CODE.fullmatch(os.fspath(spec))
    assert match is not None  # is_code() came before
    path, name = Path(match[1]), match[2]
    settings = ModelConfig({}, "no config") if config is None else read_config(Path(config))
    with _beside(path):
        module = _built(path, name, {k: a.value for k, a in settings.values.items()})
        notes, digest = [], None
        if weights is None:
            notes.append(f"weights as {name}() made them (no --weights)")
        else:
            loaded = read_checkpoint(weights, state)
            notes += [f"weights from {weights}", *loaded.notes, *_load(module, loaded.tensors, os.fspath(weights))]
            digest = loaded.sha256
        imported = _traced(module, options)
    found = (f"{path.name}:{name} was run", *notes, *imported.notes)
    return replace(imported, notes=found, config=settings, checkpoint_sha256=digest or imported.checkpoint_sha256)


@contextmanager
def _beside(path: Path) -> Iterator[None]:
    """While the file's code runs, it finds the files beside it, as it does when Python runs it."""
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def _built(path: Path, name: str, arguments: dict[str, Any]) -> Any:
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file; a model as code is named file.py:callable")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    code = importlib.util.module_from_spec(spec)
    before = sys.modules.get(path.stem)
    sys.modules[path.stem] = code
    try:
        with _told(path, "running it"):
            spec.loader.exec_module(code)
        target: Any = code
        for part in name.split("."):
            if not hasattr(target, part):
                known = ", ".join(
                    sorted(k for k, v in vars(code).items() if callable(v) and not k.startswith("_"))[:12]
                )
                raise UsageError(f"{path} has no '{name}'; callables in it: {known or 'none'}")
            target = getattr(target, part)
        with _told(path, f"{name}({', '.join(arguments)})"):
            return target(**arguments) if callable(target) and not is_module(target) else target
    finally:
        if before is not None:
            sys.modules[path.stem] = before


@contextmanager
def _told(path: Path, what: str) -> Iterator[None]:
    """Whatever the user's code raises, as one error with the line."""
    try:
        yield
    except NmcError:
        raise
    except (Exception, SystemExit) as error:
        from nmc_compiler.frontends.trace.lines import where

        line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else None
        place = f"{path.name}:{line}" if line else where(error)
        raise FrontendError(f"{path}: {what} failed at {place}: {type(error).__name__}: {error}") from error


def _load(module: Any, tensors: dict[str, Any], path: str) -> list[str]:
    """load_state_dict, with every key accounted for; counters of batches are of no use here."""
    import torch

    if not is_module(module):
        raise UsageError(f"the callable returned {type(module).__name__}, not a torch.nn.Module")
    own = module.state_dict()
    missing = [k for k in own if k not in tensors and not k.endswith(".num_batches_tracked")]
    strange = [k for k in tensors if k not in own and not k.endswith(".num_batches_tracked")]
    if missing or strange:
        kinds = (("missing", missing), ("unknown to the module", strange))
        told = [f"{len(k)} {what}: {', '.join(k[:4])}{', ...' if len(k) > 4 else ''}" for what, k in kinds if k]
        raise FrontendError(f"{path} does not fit the module: tensors {'; '.join(told)}")
    for key, value in own.items():
        if key in tensors and tuple(value.shape) != tuple(tensors[key].shape):
            raise FrontendError(
                f"{path}: tensor '{key}' has shape {tuple(tensors[key].shape)}, the module's has {tuple(value.shape)}"
            )
    given = {k: torch.from_numpy(v.copy()) for k, v in tensors.items() if k in own}
    module.load_state_dict(given, strict=False)
    wrong = [k for k in given if given[k].dtype != own[k].dtype]
    return [f"{len(wrong)} tensors converted to the module's dtypes; the first is '{wrong[0]}'"] if wrong else []
