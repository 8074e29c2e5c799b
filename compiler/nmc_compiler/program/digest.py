"""The digest of a Program: sha256 over its canonical JSON and the bytes of its arrays."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import safetensors.numpy

from nmc_compiler.program.codec import encode
from nmc_compiler.program.model import SCHEMA, Program

ARRAYS_FILE = "arrays.safetensors"


def canonical(tree: Any) -> bytes:
    """JSON with sorted keys, no spaces, ASCII only: equal values give equal bytes."""
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def digest_of(tree: dict[str, Any], arrays: bytes) -> str:
    """sha256 (hex) of a manifest without its key ``digest``, a zero byte, and the array file."""
    hasher = hashlib.sha256(canonical({key: value for key, value in tree.items() if key != "digest"}))
    hasher.update(b"\0")
    hasher.update(arrays)
    return hasher.hexdigest()


def manifest(program: Program) -> tuple[dict[str, Any], bytes]:
    """Content of program.json, digest included, and the bytes of arrays.safetensors."""
    tree, arrays = encode(program)
    return sealed(tree, arrays, SCHEMA, ARRAYS_FILE)


def sealed(
    tree: dict[str, Any], arrays: dict[str, np.ndarray], schema: str, arrays_file: str
) -> tuple[dict[str, Any], bytes]:
    """`tree` with schema, table of the arrays and digest, and the bytes of the file of its arrays."""
    blob = safetensors.numpy.save(arrays)
    tensors = {key: {"dtype": str(array.dtype), "shape": list(array.shape)} for key, array in arrays.items()}
    tree = tree | {"schema": schema, "arrays": {"file": arrays_file, "bytes": len(blob), "tensors": tensors}}
    return tree | {"digest": digest_of(tree, blob)}, blob


def program_digest(program: Program) -> str:
    """Digest that `save_program` would write; equal digests mean equal Programs."""
    return manifest(program)[0]["digest"]
