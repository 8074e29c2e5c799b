"""Read cited YAML files (targets, price profiles); a bad one is refused by file, line and field.

The files are untrusted: size and depth are limited, only plain mappings,
lists and scalars are built, and a key given twice or an alias is an error.
"""

import os
import re
import reprlib
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from yaml.reader import ReaderError

from nmc_compiler.errors import UsageError, VerifyError
from nmc_compiler.target.spec import Target

MAX_BYTES = 2**20
MAX_DEPTH = 16  # the schemas need 4
MAX_PROBLEMS = 8  # shown of one file
TARGETS = Path(__file__).parent

_TAG = "tag:yaml.org,2002:"
_NUMBER = re.compile(r"([-+]?)(?=\.?\d)(\d*)(\.\d*)?[eE]([-+]?)(\d+)")
_PLAIN = {_TAG + kind for kind in ("map", "seq", "str", "int", "float", "bool", "null")}

M = TypeVar("M", bound=BaseModel)
Place = tuple[str | int, ...]


def list_targets() -> list[str]:
    """Names of the targets that come with nmc, sorted."""
    return list_names(TARGETS)


def load_target(name_or_path: str | os.PathLike[str]) -> Target:
    """The target of that name, or the one described by a YAML file.

    Raises UsageError for an unknown name or a file that cannot be read, and
    VerifyError (file, line, field) for a file that breaks the schema.

    >>> load_target("loihi2").mesh.cores
    128
    """
    return read_spec(find_spec(name_or_path, TARGETS, "target"), Target, "target")


def list_names(folder: Path) -> list[str]:
    """Stems of the YAML files of `folder`, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def find_spec(name_or_path: str | os.PathLike[str], folder: Path, what: str) -> Path:
    """File of a bundled name in `folder`, or the path itself when it is written as one."""
    text = os.fspath(name_or_path)
    known = list_names(folder)
    if text in known:
        return folder / f"{text}.yaml"
    path = Path(text)
    if path.suffix in (".yaml", ".yml") or "/" in text or isinstance(name_or_path, os.PathLike):
        return path
    raise UsageError(f"unknown {what} {text!r}; known: {', '.join(known)}; or give the path of a .yaml file")


def read_spec(path: Path, model: type[M], what: str) -> M:
    """Parse and validate one YAML file as `model`; `what` names its kind in errors."""
    data, lines = _parse(_read(path, what), path, what)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise VerifyError(_explain(error, path, what, lines)) from None


def _read(path: Path, what: str) -> str:
    if not path.is_file():
        raise UsageError(f"{what} file {path}: no such file; give a path to a .yaml file")
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{what} file {path}: cannot be read ({error.strerror})") from None
    if len(raw) > MAX_BYTES:
        raise VerifyError(
            f"{what} file {path}: larger than {MAX_BYTES} bytes; such a file has a few kB: is it the one?"
        )
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise VerifyError(f"{what} file {path}: not UTF-8 text (byte {error.start}); is it the right file?") from None


class _Refused(Exception):
    """A construct that these files may not use, with its line."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


class _Loader(yaml.SafeLoader):
    """Safe loader that bounds depth and refuses aliases (they let a small file grow without limit)."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        line = self.peek_event().start_mark.line + 1
        if self.check_event(yaml.AliasEvent):
            raise _Refused(line, "an alias (*name) is not allowed here; write the value out")
        if self.depth >= MAX_DEPTH:
            raise _Refused(line, f"nested deeper than {MAX_DEPTH} levels")
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def _parse(text: str, path: Path, what: str) -> tuple[Any, dict[Place, int]]:
    """Plain data of a YAML text, and the line of every field."""
    lines: dict[Place, int] = {}
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise _Refused(1, "not a mapping of fields; is it the right file?")
        return _build(loader, node, (), lines), lines
    except _Refused as error:
        raise VerifyError(f"{what} file {path}:{error.line}: {error}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise VerifyError(f"{what} file {path}:{line}: not valid YAML: {error.problem}") from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise VerifyError(f"{what} file {path}:{line}: not valid YAML: {error.reason}") from None


def _build(loader: _Loader, node: yaml.Node, place: Place, lines: dict[Place, int]) -> Any:
    line = lines.setdefault(place, node.start_mark.line + 1)
    if node.tag not in _PLAIN:
        kind = node.tag.removeprefix(_TAG)
        raise _Refused(line, f"{_dotted(place)}: YAML type {kind!r} is not allowed; use text or a number")
    if isinstance(node, yaml.MappingNode):
        return _build_mapping(loader, node, place, lines)
    if isinstance(node, yaml.SequenceNode):
        return [_build(loader, item, (*place, i), lines) for i, item in enumerate(node.value)]
    try:
        return loader.construct_object(node)
    except (ValueError, LookupError):  # what the constructors raise on a tag that the text does not fit
        raise _Refused(line, f"{_dotted(place)}: {reprlib.repr(node.value)} does not fit its YAML type") from None


def _build_mapping(loader: _Loader, node: yaml.MappingNode, place: Place, lines: dict[Place, int]) -> dict:
    data: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != _TAG + "str":
            raise _Refused(line, f"a key in {_dotted(place)} is not plain text")
        key = key_node.value
        where = (*place, key)
        if key in data:
            raise _Refused(line, f"{_dotted(where)}: given twice, first in line {lines[where]}; keep one")
        lines[where] = line
        data[key] = _build(loader, value_node, where, lines)
    return data


def _explain(error: ValidationError, path: Path, what: str, lines: dict[Place, int]) -> str:
    problems = error.errors(include_url=False)
    places = [(*p["loc"], *getattr(p.get("ctx", {}).get("error"), "place", ())) for p in problems]
    texts = [
        f"  {path}:{_line(place, lines)}: {_dotted(place)}: {_problem(p)}"
        for place, p in zip(places, problems, strict=True)
    ]
    if len(texts) > MAX_PROBLEMS:
        texts[MAX_PROBLEMS:] = [f"  and {len(texts) - MAX_PROBLEMS} more"]
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return "\n".join([f"{what} file {path}: {count}", *texts])


def _line(place: Place, lines: dict[Place, int]) -> int:
    """Line of a field, or of the nearest record that should have held it."""
    while place not in lines:
        place = place[:-1]
    return lines[place]


def _dotted(place: Place) -> str:
    return ".".join(str(part) for part in place) or "the file"


def _problem(problem: Any) -> str:
    kind, text = problem["type"], problem["msg"]
    if kind == "missing":
        return "missing; this field is required"
    if kind == "extra_forbidden":
        return "unknown field; check its spelling or remove it"
    if kind == "value_error":
        return text.removeprefix("Value error, ")
    said = f"{text[0].lower()}{text[1:]}, got {reprlib.repr(problem['input'])}"
    number = kind == "float_type" and _NUMBER.fullmatch(str(problem["input"]))
    return f"{said}: YAML takes that for text; write {_as_yaml(*number.groups(''))}" if number else said


def _as_yaml(sign: str, whole: str, point: str, plus: str, exponent: str) -> str:
    """A number as YAML 1.1 knows one: with a point, and a sign of its exponent."""
    return f"{sign}{whole or 0}{point if len(point) > 1 else '.0'}e{plus or '+'}{exponent}"
