"""What can be varied, and the points that a sweep is made of."""

from __future__ import annotations

import inspect
import itertools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from nmc.compiling import compile
from nmc_compiler.errors import UsageError
from nmc_compiler.options import CompileOptions
from nmc_compiler.target import list_targets

MOST_POINTS = 100_000
FILES = ("target", "config", "calib", "weights", "cloud")  # options whose value may be a file
DEFAULTS = {name: p.default for name, p in inspect.signature(compile).parameters.items() if p.default is not p.empty}
Value = str | int | float | bool | tuple[Any, ...]


def _whole(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.removeprefix("-").isdecimal() or int(text) < least:
            raise ValueError(f"a whole number of at least {least}")
        return int(text)

    return read


def _one_of(name: str) -> Callable[[str], str]:
    known = get_args(get_type_hints(CompileOptions)[name])

    def read(text: str) -> str:
        if text not in known:
            raise ValueError(f"one of {', '.join(known)}")
        return text

    return read


def _chips(text: str) -> int | str:
    try:
        return "auto" if text == "auto" else _whole(1)(text)
    except ValueError:
        raise ValueError("a whole number of at least 1, or auto") from None


def _yes_or_no(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError("yes or no")
    return text == "yes"


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError("a number above 0")
    return value


def _names(text: str) -> tuple[str, ...]:
    return () if text == "none" else tuple(text.split("+"))


def _text(text: str) -> str:
    if not text:
        raise ValueError("a name")
    return text


# Options of `nmc compile` that can be varied: how the text of a value is read.
KEYS: dict[str, Callable[[str], Value]] = {
    "target": _text,
    "weight_bits": _whole(2),
    "timesteps": _whole(1),
    "attn_order": _one_of("attn_order"),
    "residual": _one_of("residual"),
    "factors": _one_of("factors"),
    "input_encoding": _one_of("input_encoding"),
    "pipelined": _yes_or_no,
    "channel_bins": _whole(1),
    "stream_pieces": _whole(0),
    "chips": _chips,
    "seed": _whole(0),
    "allow": _names,
    "config": _text,
    "dt": _number,
    "nir_rule": _text,
    "nir_reset": _text,
    "nir_input": _text,
}


def parse_vary(texts: Sequence[str]) -> dict[str, list[Value]]:
    """The values to be tried by option, of texts such as "weight_bits=4,6,8". UsageError for what is not understood."""
    found: dict[str, list[Value]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        key = "timesteps" if name == "T" else name.replace("-", "_")
        if not equals or key not in KEYS:
            what = f"'{name}' is nothing to vary" if equals else "say KEY=VALUE,VALUE"
            raise UsageError(f"--vary {text}: {what}; keys: {', '.join(KEYS)}")
        if key in found:
            raise UsageError(f"--vary {text}: {key} is varied twice; give all its values at once")
        found[key] = [_read(text, key, value) for value in values.split(",")]
        twice = next((v for i, v in enumerate(found[key]) if v in found[key][:i]), None)
        if twice is not None:
            raise UsageError(f"--vary {text}: the value {shown(twice)} is given twice")
    return found


def _read(text: str, key: str, value: str) -> Value:
    try:
        return KEYS[key](value)
    except ValueError as error:
        raise UsageError(f"--vary {text}: {value!r} is no {key}; give {error}") from None


def shown(value: Any) -> str:
    """A value as --vary takes it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (tuple, list)):
        return "+".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Point:
    """One way to compile the model: the options that are not the default of ``nmc.compile``.

    ``options``: as records have them, files by their names.  ``paths``: of the options that are files.
    """

    options: dict[str, Any]
    paths: dict[str, Path]


def points_of(vary: Mapping[str, Sequence[Value]], fixed: Mapping[str, Any]) -> list[Point]:
    """All combinations of the values of ``vary``, each with the ``fixed`` options. UsageError where they clash."""
    for key in vary:
        if fixed.get(key) is not None:
            raise UsageError(f"{key} is given as an option and varied; give it once")
    count = math.prod(len(values) for values in vary.values())
    if count > MOST_POINTS:
        raise UsageError(f"{count:,} points are asked for; a sweep has at most {MOST_POINTS:,}: vary less at once")
    found = []
    for values in itertools.product(*vary.values()):
        given = {**fixed, **dict(zip(vary, values, strict=True))}
        found.append(_point({k: v for k, v in given.items() if v is not None and v != DEFAULTS[k]}))
    return found


def _point(given: dict[str, Any]) -> Point:
    paths = {k: _file(k, given[k]) for k in FILES if k in given and not (k == "target" and given[k] in list_targets())}
    plain = {k: os.path.basename(v) if k in paths else v for k, v in given.items()}
    return Point({k: list(v) if isinstance(v, tuple) else v for k, v in sorted(plain.items())}, paths)


def _file(key: str, value: Any) -> Path:
    path = Path(value).absolute()
    if not path.is_file():
        known = f"; targets: {', '.join(list_targets())}" if key == "target" else ""
        raise UsageError(f"{key} {value}: there is no such file{known}")
    return path
