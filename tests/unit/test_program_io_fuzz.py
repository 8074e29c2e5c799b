"""Fuzzed artefacts: an NmcError, or a Program that keeps every rule; never anything else.

The attacker may compute a fitting digest, so the structural rules have to stand alone.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from mapping_nets import random_net
from networks import random_network
from volumes import random_volumes

from nmc_compiler.errors import NmcError
from nmc_compiler.mapping import find_problems, map_program
from nmc_compiler.program import load_program, program_digest, save_program, validate_program
from nmc_compiler.program.digest import digest_of
from nmc_compiler.target import load_target

TARGET = load_target("loihi2")
SEEDS = (1, 2, 8, 12, "network 3", "network 7", "volumes 5")
ODD = (
    None,
    True,
    -1,
    0,
    1,
    2,
    3,
    7,
    2**31,
    -(2**63),
    2**64,
    0.5,
    1e308,
    "",
    "kv",
    "\ud800",
    "maps/0",
    [],
    [1],
    {},
    {"a": 1},
)


@pytest.fixture(scope="module", params=SEEDS)
def artefact(request, tmp_path_factory) -> tuple[Path, dict, bytes, str]:
    """Folder, manifest, array bytes and digest of a small mapped Program."""
    folder = tmp_path_factory.mktemp("fuzz")
    kind, _, seed = str(request.param).rpartition(" ")
    makers = {"": random_net, "network": lambda n: random_network(n).program(), "volumes": random_volumes}
    netlist = makers[kind](int(seed))
    program = map_program(netlist, TARGET, "auto")[0]
    digest = save_program(program, folder)
    return (
        folder,
        json.loads((folder / "program.json").read_text()),
        (folder / "arrays.safetensors").read_bytes(),
        digest,
    )


def outcome(folder: Path, tree: dict, blob: bytes):
    """Program or NmcError of an artefact; anything else is the failure looked for."""
    (folder / "arrays.safetensors").write_bytes(blob)
    (folder / "program.json").write_text(json.dumps(tree))
    try:
        return load_program(folder)
    except NmcError as error:
        assert len(str(error)) < 1000 and str(error).isprintable()
        return error


def places(tree, path=()):
    """Every path into nested dicts and lists."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*path, key))


def mutate(tree: dict, rng: np.random.Generator) -> dict:
    tree = copy.deepcopy(tree)
    paths = [p for p in places(tree) if p[0] not in ("digest", "arrays")]
    *parents, last = paths[int(rng.integers(len(paths)))]
    node = tree
    for key in parents:
        node = node[key]
    value = node[last]
    action = int(rng.integers(6))
    if action == 0:
        del node[last]
    elif action == 1 and isinstance(value, int):
        node[last] = value + int(rng.choice([-1, 1]))
    elif action == 2 and isinstance(node, list):
        node.insert(int(rng.integers(len(node) + 1)), copy.deepcopy(value))
    elif action == 3 and isinstance(node, dict):
        node[f"{last}x"] = value
    elif action == 4 and isinstance(value, list):
        rng.shuffle(value)
    else:
        node[last] = copy.deepcopy(ODD[int(rng.integers(len(ODD)))])
    return tree


def usable(program) -> None:
    """What loads keeps all rules, can be named, and can be replayed by the checker."""
    validate_program(program)
    assert len(program_digest(program)) == 64
    if program.mapping is not None:
        find_problems(program, TARGET)


def test_edited_manifest_without_a_new_digest(artefact):
    folder, tree, blob, digest = artefact
    rng = np.random.default_rng(0)
    for _ in range(60):
        changed = mutate(tree, rng)
        result = outcome(folder, changed, blob)
        if not isinstance(result, NmcError):
            assert program_digest(result) == digest


def test_edited_manifest_with_a_new_digest(artefact):
    folder, tree, blob, _ = artefact
    rng = np.random.default_rng(1)
    loaded = 0
    for _ in range(400):
        changed = mutate(tree, rng)
        changed["digest"] = digest_of(changed, blob)
        result = outcome(folder, changed, blob)
        if not isinstance(result, NmcError):
            usable(result)
            loaded += 1
    assert 0 < loaded < 250  # most edits are noticed; some are harmless, as another name


def test_damaged_arrays_without_a_new_digest(artefact):
    folder, tree, blob, _ = artefact
    rng = np.random.default_rng(2)
    for _ in range(40):
        damaged = bytearray(blob)
        damaged[int(rng.integers(len(blob)))] ^= 1 << int(rng.integers(8))
        assert isinstance(outcome(folder, tree, bytes(damaged)), NmcError)
        assert isinstance(outcome(folder, tree, bytes(damaged[: int(rng.integers(len(blob)))])), NmcError)


def test_damaged_arrays_with_a_new_digest(artefact):
    """Bytes of headers, parameters and tables change; the manifest's size and digest follow."""
    folder, tree, blob, _ = artefact
    rng = np.random.default_rng(3)
    refused = 0
    for _ in range(400):
        damaged = bytearray(blob)
        for _ in range(int(rng.integers(1, 4))):
            damaged[int(rng.integers(len(blob)))] = int(rng.integers(256))
        if rng.random() < 0.1:
            damaged = damaged[: int(rng.integers(len(blob)))]
        changed = copy.deepcopy(tree)
        changed["arrays"]["bytes"] = len(damaged)
        changed["digest"] = digest_of(changed, bytes(damaged))
        result = outcome(folder, changed, bytes(damaged))
        refused += isinstance(result, NmcError)
        if not isinstance(result, NmcError):
            usable(result)
    assert refused > 40


def test_tables_of_another_program(artefact, tmp_path):
    """A whole foreign mapping under a fitting digest."""
    folder, tree, blob, _ = artefact
    other = map_program(random_net(5), TARGET, "auto")[0]
    save_program(other, tmp_path)
    foreign = json.loads((tmp_path / "program.json").read_text())
    foreign["populations"] = tree["populations"]
    data = (tmp_path / "arrays.safetensors").read_bytes()
    foreign["digest"] = digest_of(foreign, data)
    assert isinstance(outcome(folder, foreign, data), NmcError)
