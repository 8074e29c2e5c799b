"""Results recorded from Lava: what every soma sent, and digests of what it held.

    python tests/lava/golden.py LAVA_PYTHON 300     records the networks of seeds 0..299 again

The file holds ``seeds`` int32 [n]; ``described`` and ``held`` uint8 [n, 16], digests of the description and of
u and v; ``codes`` int16, what the somas of all networks sent, one network after the other.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from lava_nets import Description, describe, in_range, with_state

FILE = Path(__file__).parent / "goldens" / "networks.npz"
SCRIPT = Path(__file__).with_name("lava_side.py")
SECONDS_EACH = 30

Held = dict[tuple[int, str], np.ndarray]  # (population, "s", "u" or "v") -> int64 [somas, steps], as Lava counts


@dataclass(frozen=True)
class Golden:
    """What Lava computed for the network of a seed; digests are 16 bytes."""

    seed: int
    described: bytes
    codes: dict[int, np.ndarray]  # population -> int16 [somas, steps]
    held: bytes


def digest_of(d: Description) -> bytes:
    """Digest of a description."""
    return hashlib.sha256(json.dumps(d, sort_keys=True).encode()).digest()[:16]


def digest_held(d: Description, held: Held) -> bytes:
    """Digest of u and v of all populations that have them."""
    parts = [held[i, var].astype("<i8").tobytes() for i in with_state(d) for var in "uv"]
    return hashlib.sha256(b"".join(parts)).digest()[:16]


def _sizes(d: Description) -> dict[int, tuple[int, int]]:
    somas = {i: int(np.prod(p["shape"])) for i, p in enumerate(d["populations"]) if p["kind"] != "RingBuffer"}
    return {i: (n, d["steps"]) for i, n in somas.items()}


def goldens() -> Iterator[Golden]:
    """All recorded results."""
    with np.load(FILE) as file:
        seeds, described, held, codes = (file[k] for k in ("seeds", "described", "held", "codes"))
    at = 0
    for seed, first, last in zip(seeds.tolist(), described, held, strict=True):
        found = {}
        for i, shape in _sizes(describe(seed)).items():
            found[i] = codes[at : at + shape[0] * shape[1]].reshape(shape)
            at += found[i].size
        yield Golden(seed, first.tobytes(), found, last.tobytes())


def run_lava(python: str, descriptions: list[Description]) -> list[Held]:
    """Results of networks run by the Lava of another interpreter."""
    with tempfile.TemporaryDirectory() as folder:
        given, results = Path(folder) / "given.json", Path(folder) / "results.npz"
        given.write_text(json.dumps(descriptions))
        command = [python, str(SCRIPT), str(given), str(results)]
        environment = {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
        limit = 60 + SECONDS_EACH * len(descriptions)
        subprocess.run(command, check=True, env=environment, timeout=limit, capture_output=True, text=True)
        with np.load(results) as file:
            return [_results(d, n, file) for n, d in enumerate(descriptions)]


def _results(d: Description, n: int, file: np.lib.npyio.NpzFile) -> Held:
    found = {(i, "s"): file[f"{n}.{i}.s"] for i in _sizes(d)}
    return found | {(i, var): file[f"{n}.{i}.{var}"] for i in with_state(d) for var in "uv"}


def record(python: str, seeds: range) -> int:
    """Write the goldens of those seeds that Lava computes exactly; how many there are."""
    described = {seed: describe(seed) for seed in seeds}
    kept = {}
    for seed, held in zip(seeds, run_lava(python, list(described.values())), strict=True):
        codes = [v for (_, what), v in held.items() if what == "s"]
        if in_range(codes, [v for (_, what), v in held.items() if what == "u"]):
            kept[seed] = held
    write(described, kept)
    return len(kept)


def write(described: dict[int, Description], kept: dict[int, Held]) -> None:
    """Write results as the goldens."""
    codes = [held[i, "s"].astype(np.int16).reshape(-1) for seed, held in kept.items() for i in _sizes(described[seed])]
    FILE.parent.mkdir(exist_ok=True)
    np.savez_compressed(
        FILE,
        seeds=np.array(list(kept), np.int32),
        described=np.array([list(digest_of(described[s])) for s in kept], np.uint8),
        held=np.array([list(digest_held(described[s], h)) for s, h in kept.items()], np.uint8),
        codes=np.concatenate(codes),
    )


if __name__ == "__main__":
    print(record(sys.argv[1], range(int(sys.argv[2]))), "networks recorded")
