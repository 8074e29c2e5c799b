"""Networks of ORNL's NeuroCoreX: two weight matrices and its parameters, as a Program for the neurocore.

What is the same, and what is not, stands in docs/neurocorex.md. Facts are from its repository (ORNL/NeuroCoreX) and
arXiv:2506.14138.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.json_file import read_json
from nmc_compiler.program.model import CoreSoma, Program, Stdp, Traces
from nmc_compiler.program.network import Network

MAX_BYTES = 2**24
FLASHED = (96, 96)  # its matrices as its notebook sends them, padded all round
FRACTION = 10  # its numbers have 7 bits before the point and 10 behind
UNIT = 6  # membrane units (bits) of one of its least bits
KEYS = {"threshold", "leak", "refractory", "gain", "timesteps", "stdp"}
STDP_KEYS = {"dw_pos", "dw_neg", "window_pre", "window_post", "ff", "aa", "wmin", "wmax"}


@dataclass(frozen=True)
class Imported:
    """The network, and sentences on what of the files it does not keep."""

    program: Program
    notes: tuple[str, ...]


def read_neurocorex(ff: str | os.PathLike[str], aa: str | os.PathLike[str], params: str | os.PathLike[str]) -> Imported:
    """Program of the files of a NeuroCoreX network.

    ff: .npy, weights of 8 bits [neurons, inputs], or [96, 96] as they are flashed.  aa: .npy [neurons, neurons],
    [target, source], or [96, 96].  params: JSON, docs/neurocorex.md.  FrontendError for what does not fit.
    """
    numbers = _json(Path(params))
    forward, within = _matrix(Path(ff), (6, 2)), _matrix(Path(aa), (6, 5))
    if _flashed(forward) or _flashed(within):
        n = min(len(forward), len(within))
        forward, within = forward[:n], within[:n, :n]
    n = len(forward)
    if within.shape != (n, n):
        raise FrontendError(
            f"{aa}: shape {list(within.shape)}, expected [{n}, {n}], as {ff} has {n} rows, one per neuron"
        )
    return _network(str(params), forward, within, numbers)


def _flashed(weights: np.ndarray) -> bool:
    return len(weights) == FLASHED[0] - 6


def _array(path: Path) -> np.ndarray:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FrontendError(f"{path}: {path.stat().st_size} bytes; weight matrices have at most {MAX_BYTES}")
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "not a whole .npy file"
        raise FrontendError(f"{path}: {why}; give a matrix written with numpy.save") from None
    if not isinstance(found, np.ndarray) or found.ndim != 2 or found.dtype.kind not in "iuf" or not found.size:
        what = f"{found.dtype} {list(found.shape)}" if isinstance(found, np.ndarray) else "several arrays"
        raise FrontendError(f"{path}: {what}; expected a matrix of numbers [targets, sources]")
    return found


def _matrix(path: Path, corner: tuple[int, int]) -> np.ndarray:
    """Weights int64 [targets, sources]; the padding of a flashed matrix is cut off."""
    found = _array(path)
    whole = np.rint(found)
    if not np.isfinite(found).all() or (whole != found).any() or whole.min() < -128 or whole.max() > 127:
        raise FrontendError(f"{path}: weights {found.min()} to {found.max()}; expected whole numbers from -128 to 127")
    if found.shape == FLASHED:
        whole = whole[corner[0] :, corner[1] : 95 if corner[1] == 5 else 96]
    return whole.astype(np.int64)


def _json(path: Path) -> dict[str, Any]:
    large = f"{{size}} bytes; parameters have at most {MAX_BYTES}"
    absent, damaged = "give a JSON file, docs/neurocorex.md", "not valid JSON, docs/neurocorex.md"
    tree = read_json(path, MAX_BYTES, FrontendError, large, absent, damaged)
    if not isinstance(tree, dict) or "threshold" not in tree or tree.keys() - KEYS:
        raise FrontendError(f"{path}: expected an object with threshold and of {', '.join(sorted(KEYS))}")
    return tree


def _network(where: str, forward: np.ndarray, within: np.ndarray, given: Mapping[str, Any]) -> Imported:
    n, notes = len(forward), []
    threshold = _numbers(where, "threshold", given["threshold"], n, 1 / 1024, 127.999)
    leak = _numbers(where, "leak", given.get("leak", 0), 1, 0, 15.999)
    refractory = _numbers(where, "refractory", given.get("refractory", 0), n, 0, 63)
    gain = int(_numbers(where, "gain", given.get("gain", 1), 1, 1, 255)[0])
    if (refractory != refractory[0]).any():
        raise FrontendError(
            f"{where}: refractory {sorted(set(refractory.tolist()))[:5]}; give one number for all neurons"
        )
    if np.diag(within).any():
        within = within - np.diag(np.diag(within))
        notes.append("connections of a neuron to itself are left out, as NeuroCoreX leaves them out")
    fixed = np.rint(threshold * 2**FRACTION).astype(np.int64)
    if (fixed != threshold * 2**FRACTION).any():
        notes.append("thresholds are rounded to 10 bits behind the point, as NeuroCoreX's are")
    stdp, traces = _stdp(where, given.get("stdp"))
    timesteps = int(_numbers(where, "timesteps", given.get("timesteps", 0), 1, 0, 2**20)[0])
    net = Network("neurocorex", timesteps, traces if stdp else None)
    source = net.input("in", forward.shape[1])
    core = CoreSoma(leak=int(round(leak[0] * 2**FRACTION)) << UNIT, refractory=int(refractory[0]), gain=gain)
    target = net.lif("neurons", n, du=4095, dv=0, vth=fixed - 1, core=core)
    for name, src, weights in (("ff", source, forward), ("aa", target, within)):
        _project(net, where, name, src, target, weights, stdp)
    return Imported(net.program(), tuple(notes))


def _project(
    net: Network, where: str, name: str, src: int, dst: int, weights: np.ndarray, stdp: dict[str, Any] | None
) -> None:
    """Static synapses, and those with their STDP bit set as a projection of their own."""
    learns = np.zeros(weights.shape, bool) if stdp is None else _enabled(where, name, stdp.get(name, False), weights)
    if name == "aa":
        np.fill_diagonal(learns, False)
    if (weights != 0)[~learns].any():
        net.dense(name, src, dst, np.where(learns, 0, weights), exponent=FRACTION)
    if stdp is not None and learns.any():
        row = np.repeat(np.arange(weights.shape[1]), learns.sum(axis=0))
        target = np.concatenate([np.flatnonzero(column) for column in learns.T])
        indptr = np.concatenate([[0], np.cumsum(learns.sum(axis=0))])
        rule = stdp["rule"]
        net.sparse(f"{name}.stdp", src, dst, indptr, target, weights[target, row], exponent=FRACTION, rule=rule)


def _enabled(where: str, name: str, given: Any, weights: np.ndarray) -> np.ndarray:
    if isinstance(given, bool):
        return np.full(weights.shape, given)
    try:
        found = np.array(given)
    except ValueError:
        found = np.zeros(0)
    if found.shape != weights.shape or not np.isin(found, (0, 1)).all():
        raise FrontendError(
            f"{where}: stdp.{name} is no matrix of 0 and 1 of shape {list(weights.shape)}, true or false"
        )
    return found.astype(bool)


def _stdp(where: str, given: Any) -> tuple[dict[str, Any] | None, Traces]:
    """Windowed STDP: a count-down of one per step in place of an age per synapse."""
    if given is None:
        return None, Traces()
    if not isinstance(given, dict) or given.keys() - STDP_KEYS or not {"dw_pos", "dw_neg"} <= given.keys():
        raise FrontendError(f"{where}: stdp must hold dw_pos and dw_neg, and of {', '.join(sorted(STDP_KEYS))}")
    one = {
        key: int(_numbers(where, f"stdp.{key}", given.get(key, default), 1, low, high)[0])
        for key, default, low, high in (
            ("dw_pos", 0, 0, 127),
            ("dw_neg", 0, 0, 127),
            ("window_pre", 20, 1, 127),
            ("window_post", 20, 1, 127),
            ("wmin", -1, -128, 127),
            ("wmax", 127, -128, 127),
        )
    }
    rule = Stdp(ap=one["dw_pos"], am=one["dw_neg"], rect=True, wmin=one["wmin"], wmax=one["wmax"])
    traces = Traces(k_pre=8, k_post=8, inc_pre=one["window_pre"] + 1, inc_post=one["window_post"])
    return {**given, "rule": rule}, traces


def _numbers(where: str, key: str, given: Any, n: int, low: float, high: float) -> np.ndarray:
    """One number for all, or ``n`` of them, float64 [n]."""
    values = given if isinstance(given, list) else [given]
    plain = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    if not plain or len(values) not in (1, n) or not all(low <= v <= high for v in values):
        many = f" or a list of {n}" if n > 1 else ""
        raise FrontendError(f"{where}: {key} {str(given)[:60]}: expected a number from {low} to {high}{many}")
    return np.broadcast_to(np.array(values, np.float64), (n,)).copy()
