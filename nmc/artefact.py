"""The artefact: a compiled Program with what is known about how it came about, in memory and on disk."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nmc.folders import replacing, write_bytes
from nmc_compiler.errors import ArtefactError, VerifyError
from nmc_compiler.graph import Graph
from nmc_compiler.graph.store import load_graph, save_graph
from nmc_compiler.graph.text import to_text
from nmc_compiler.json_file import read_json
from nmc_compiler.neurocore import save_image
from nmc_compiler.neurocore.build import Built, build_image
from nmc_compiler.neurocore.image import ARRAYS_FILE as IMAGE_ARRAYS
from nmc_compiler.neurocore.image import JSON_FILE as IMAGE_JSON
from nmc_compiler.neurocore.places import PROFILE
from nmc_compiler.program import load_program, program_digest, save_program
from nmc_compiler.program.model import Program
from nmc_compiler.target import Target

if TYPE_CHECKING:
    from nmc_compiler.mapping import MappingReport

CONVERSION = "conversion.json"
GRAPHS = {"float": "graph.float", "int": "graph.int"}
MAX_CONVERSION = 1 << 28


@dataclass(frozen=True)
class Compiled:
    """A compiled network. ``conversion`` is what the passes did to it, layer by layer.

    ``mapping`` is the report of partition and placement; None where the artefact was loaded.
    ``folder`` is where it is on disk, or None.
    """

    program: Program
    conversion: dict[str, Any]
    folder: Path | None = None
    mapping: MappingReport | None = None
    graphs: dict[str, Graph] = field(default_factory=dict, repr=False)

    @functools.cached_property
    def digest(self) -> str:
        """sha256 (hex) that names the Program: its inputs, options and the version of nmc are in it."""
        return program_digest(self.program)

    @functools.cached_property
    def float_graph(self) -> Graph:
        """The graph as trained."""
        return self._graph("float")

    @functools.cached_property
    def int_graph(self) -> Graph:
        """The graph as the chip computes it."""
        return self._graph("int")

    @functools.cached_property
    def image(self) -> Built | None:
        """The image of a Program mapped for a neurocore, and what it takes of each core; None for other targets.

        LoweringError or CapacityError, with core and numbers, where there is none.
        """
        return build_image(self.program) if self.program.target.get("profile") == PROFILE else None

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from nmc.notebook import compiled_html

        return compiled_html(self)

    def target(self) -> Target:
        """The target it was compiled for, as it was then. VerifyError where the Program does not hold it."""
        return stored_target(self.program)

    def save(self, folder: str | os.PathLike[str]) -> Compiled:
        """Write the artefact; what stood there before is replaced only once everything is written.

        Raises ArtefactError where it cannot be written.
        """
        with replacing(folder, last="program.json", stale=(IMAGE_JSON, IMAGE_ARRAYS)) as stage:
            save_program(self.program, stage)
            for kind, stem in GRAPHS.items() if "graphs" in self.program.meta else ():
                save_graph(self._graph(kind), stage, stem)
            write_bytes(stage / CONVERSION, json_text(self.conversion).encode())
            if self.image is not None:
                save_image(self.image.image, stage)
        return Compiled(self.program, self.conversion, Path(folder), self.mapping, self.graphs)

    def _graph(self, kind: str) -> Graph:
        if kind in self.graphs:
            return self.graphs[kind]
        if self.folder is None:
            raise ArtefactError(f"this Program has no {kind} graph; load the folder that nmc compile wrote")
        graph = load_graph(self.folder, GRAPHS[kind])
        found, known = graph_digest(graph), _recorded_digest(self.program, kind)
        if found != known:
            raise ArtefactError(
                f"{self.folder}: {GRAPHS[kind]} is not the graph that the Program was made from "
                f"(sha256 {found[:12]}, but program.json says {str(known)[:12]}); compile again"
            )
        return graph


def load(folder: str | os.PathLike[str]) -> Compiled:
    """Load an artefact that ``nmc compile`` wrote, or any Program. Everything is checked before it is used.

    Raises ArtefactError for files that are missing, damaged or altered, VerifyError for a Program
    that breaks its own rules. The graphs are read when they are asked for; a Program that was not made from any
    has no conversion report either.
    """
    folder = Path(folder)
    program = load_program(folder)
    if "graphs" not in program.meta and not (folder / CONVERSION).exists():
        return Compiled(program, {}, folder)
    return Compiled(program, _read_conversion(folder / CONVERSION), folder)


def _read_conversion(path: Path) -> dict[str, Any]:
    large = f"larger than {MAX_CONVERSION} bytes; compile again"
    absent, damaged = "give a folder that `nmc compile` wrote", "not valid JSON; compile again"
    tree = read_json(path, MAX_CONVERSION, ArtefactError, large, absent, damaged)
    if not isinstance(tree, dict) or tree.get("schema") != "nmc.conversion/1":
        raise ArtefactError(f"{path}: not a conversion report of this version of nmc; compile again")
    return tree


def stored_target(program: Program) -> Target:
    """The full description of the target, which a Program carries so that it can be checked anywhere."""
    from pydantic import ValidationError

    try:
        target = Target.model_validate(program.meta.get("target"))
    except ValidationError as error:
        raise VerifyError(
            f"Program '{program.name}': meta/target is no target description "
            f"({error.error_count()} problems); compile again"
        ) from None
    if target.digest != program.target.get("digest"):
        raise VerifyError(
            f"Program '{program.name}': meta/target is not the target it was compiled for "
            f"(digest {target.digest[:12]}); compile again"
        )
    return target


def graph_digest(graph: Graph) -> str:
    """sha256 (hex) over the text form of a graph and its arrays."""
    hasher = hashlib.sha256(to_text(graph).encode())
    for key in sorted(graph.tensors):
        array = np.ascontiguousarray(graph.tensors[key])
        hasher.update(f"\0{key}\0{array.dtype.str}{array.shape}\0".encode())
        hasher.update(array.data)
    return hasher.hexdigest()


def from_meta(program: Program, key: str) -> dict[str, Any]:
    """One object of a Program's provenance. ArtefactError where it is not there."""
    found = program.meta.get(key)
    if not isinstance(found, dict):
        raise ArtefactError(f"Program '{program.name}': meta/{key} is missing; compile again")
    return found


def _recorded_digest(program: Program, kind: str) -> Any:
    return from_meta(program, "graphs").get(kind)


def json_text(tree: Any) -> str:
    """JSON with sorted keys and numbers that any reader takes; NumPy scalars and arrays become plain."""
    return json.dumps(tree, sort_keys=True, indent=1, allow_nan=False, default=_plain) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")
