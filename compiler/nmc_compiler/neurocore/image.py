"""The image of a mesh of neurocores: what their memories hold before a run, and what the host must know.

On disk it is ``image.json`` beside ``image.safetensors``, which vouch for each other as the two files of a Program do.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nmc_compiler.errors import ArtefactError, NmcError, VerifyError
from nmc_compiler.neurocore.plastic import check_plastic
from nmc_compiler.neurocore.sizes import COUNTERS, Memory, Sizes, memories
from nmc_compiler.program.digest import sealed
from nmc_compiler.program.io import manifest_text, read_pair, write_files

SCHEMA = "nmc.image/1"
JSON_FILE = "image.json"
ARRAYS_FILE = "image.safetensors"
TABLES = ("neurons", "inputs", "currents", "weights")


def _empty() -> np.ndarray:
    return np.zeros((0, 4), np.int32)


def _no_weights() -> np.ndarray:
    return np.zeros((0, 5), np.int32)


@dataclass(frozen=True)
class Image:
    """Memories of every core, and tables for the host.

    ``memories``: uint64 [cores, items] by memory id; memories left out are all zero.
    Tables are int32, one row per item:

    neurons    [n, 4]  population, soma (C order), core, neuron
    inputs     [n, 4]  input population, soma, core, axon: an event of timestep t sets that axon's bit in the slot
                       of step t + level of the population + 1
    currents   [n, 4]  host current, position of its dendrite (C order), core, neuron: before step t + level of the
                       host current its value of timestep t is written into that accumulator; values of several host
                       currents for one neuron are added first
    weights    [n, 5]  projection (Sparse), synapse, core, word, low bit of its weight: where learning changes it

    ``facts`` are JSON values: ``name``, ``program`` (digest), ``timesteps``, ``steps`` of a sample (0: without end),
    ``populations`` and ``currents`` with ``name``, ``shape``, ``level``, ...
    """

    sizes: Sizes
    memories: Mapping[int, np.ndarray]
    neurons: np.ndarray = field(default_factory=_empty)
    inputs: np.ndarray = field(default_factory=_empty)
    currents: np.ndarray = field(default_factory=_empty)
    weights: np.ndarray = field(default_factory=_no_weights)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def memory(self, mem: int) -> np.ndarray:
        """uint64 [cores, items] of memory ``mem``."""
        found = self.memories.get(mem)
        return np.zeros((self.sizes.cores, memories(self.sizes)[mem].items), np.uint64) if found is None else found


def check_image(image: Image) -> None:
    """Raise VerifyError unless shapes, dtypes, widths and indices fit the sizes, and what learns is not shared."""
    table = memories(image.sizes)
    for mem, items in image.memories.items():
        if mem not in range(COUNTERS):
            raise VerifyError(f"image: memory {mem!r}; an image holds memories 0 to {COUNTERS - 1}")
        _check_memory(table[mem], items, image.sizes.cores)
    limits = {"neurons": image.sizes.neurons, "inputs": image.sizes.axons, "currents": image.sizes.neurons}
    limits["weights"] = image.sizes.words
    for name, limit in limits.items():
        rows, columns = getattr(image, name), 5 if name == "weights" else 4
        if rows.dtype != np.int32 or rows.ndim != 2 or rows.shape[1] != columns:
            raise VerifyError(f"image: {name} is {rows.dtype} {list(rows.shape)}, expected int32 [n, {columns}]")
        bad = (rows < 0).any(axis=1) | (rows[:, 2] >= image.sizes.cores) | (rows[:, 3] >= limit)
        if bad.any():
            row = int(bad.argmax())
            raise VerifyError(
                f"image: {name}[{row}] = {rows[row].tolist()}; core below {image.sizes.cores} and place below {limit}"
            )
    check_plastic(image.sizes, image.memory, image.inputs)


def _check_memory(memory: Memory, items: np.ndarray, cores: int) -> None:
    if items.dtype != np.uint64 or items.shape != (cores, memory.items):
        raise VerifyError(
            f"image: {memory.name} is {items.dtype} {list(items.shape)}, expected uint64 [{cores}, {memory.items}]"
        )
    if items.size and int(items.max()) >> memory.bits:
        core, place = np.unravel_index(int(items.argmax()), items.shape)
        raise VerifyError(
            f"image: {memory.name}, core {core}, item {place} = {int(items.max()):#x} has more than {memory.bits} bits"
        )


def save_image(image: Image, folder: str | os.PathLike[str]) -> str:
    """Write the two files into ``folder`` and return the digest.

    Raises VerifyError for an image that breaks its rules, ArtefactError where it cannot be written.
    """
    check_image(image)
    tree, blob = sealed(_tree(image), _arrays(image), SCHEMA, ARRAYS_FILE)
    write_files(Path(folder), {ARRAYS_FILE: blob, JSON_FILE: manifest_text(tree)})
    return tree["digest"]


def image_digest(image: Image) -> str:
    """Digest that `save_image` would write; equal digests mean equal images."""
    return sealed(_tree(image), _arrays(image), SCHEMA, ARRAYS_FILE)[0]["digest"]


def _tree(image: Image) -> dict[str, Any]:
    return {"sizes": image.sizes.as_dict(), "facts": dict(image.facts)}


def _arrays(image: Image) -> dict[str, np.ndarray]:
    table = memories(image.sizes)
    stored = {
        f"memory.{mem:02d}": items.astype(np.uint32 if table[mem].bits <= 32 else np.uint64)
        for mem, items in sorted(image.memories.items())
        if items.any()
    }
    return stored | {name: np.ascontiguousarray(getattr(image, name)) for name in TABLES}


def load_image(folder: str | os.PathLike[str]) -> Image:
    """Image of a folder written by `save_image`.

    Raises ArtefactError for missing, damaged, altered or foreign files.
    """
    folder = Path(folder)
    tree, arrays = read_pair(folder, JSON_FILE, ARRAYS_FILE, SCHEMA)
    try:
        image = _decode(tree, arrays)
        check_image(image)
    except NmcError as error:
        raise ArtefactError(f"{folder}: {error}") from None
    return image


def _decode(tree: dict[str, Any], arrays: dict[str, np.ndarray]) -> Image:
    sizes, facts = tree.get("sizes"), tree.get("facts")
    names = set(Sizes.__dataclass_fields__)
    if not isinstance(sizes, dict) or set(sizes) != names or not isinstance(facts, dict):
        raise ArtefactError(f"{JSON_FILE}: expected sizes ({', '.join(sorted(names))}) and facts")
    missing = [name for name in TABLES if name not in arrays]
    if missing:
        raise ArtefactError(f"{ARRAYS_FILE}: {missing[0]} is missing")
    tables = {name: arrays.pop(name) for name in TABLES}
    loaded = {}
    for name, items in arrays.items():
        number = name.removeprefix("memory.")
        if name != f"memory.{number}" or not number.isdecimal() or items.dtype not in (np.uint32, np.uint64):
            raise ArtefactError(f"{ARRAYS_FILE}: {ascii(name)[:60]}: no array of an image")
        loaded[int(number)] = items.astype(np.uint64)
    return Image(Sizes(**sizes), loaded, facts=facts, **tables)
