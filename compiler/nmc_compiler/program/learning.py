"""Rules for what only the neurocore has: learning, and more of a soma (docs/neurocore.md)."""

from __future__ import annotations

import dataclasses

import numpy as np

from nmc_compiler.program.model import CoreSoma, Program, Sparse
from nmc_compiler.program.rules import check_range, fail

BYTE = (0, 255)
WEIGHT = (-128, 127)
RANGES = {
    "core": {"leak": (0, (1 << 20) - 1), "refractory": (0, 63), "gain": (1, 255)},
    "rule": {"ap": BYTE, "am": BYTE, "sp": (0, 15), "sm": (0, 15), "wmin": WEIGHT, "wmax": WEIGHT},
    "traces": {"k_pre": (1, 8), "k_post": (1, 8), "inc_pre": BYTE, "inc_post": BYTE},
}


def _check_ranges(record: object, kind: str, path: str) -> None:
    for name, ends in RANGES[kind].items():
        check_range(f"{path}/{name}", getattr(record, name), *ends)


def check_core(core: CoreSoma, path: str) -> None:
    """VerifyError for a number that a type of the neurocore does not hold."""
    _check_ranges(core, "core", path)


def check_rule(program: Program, item: Sparse, path: str) -> None:
    """VerifyError for a plastic projection that breaks a rule."""
    rule = item.rule
    assert rule is not None
    _check_ranges(rule, "rule", f"{path}/rule")
    if rule.wmin > rule.wmax:
        fail(f"{path}/rule", f"wmin {rule.wmin} is above wmax {rule.wmax}")
    if item.weight.dtype != np.int8:
        fail(f"{path}/weight", f"dtype {item.weight.dtype}, but plastic weights are int8")
    source = np.repeat(np.arange(len(item.indptr) - 1), np.diff(item.indptr))
    order = np.lexsort((item.target, source))
    twice = (np.diff(source[order]) == 0) & (np.diff(item.target[order]) == 0)
    if twice.any():
        at = order[int(twice.argmax())]
        fail(f"{path}/target", f"source {source[at]} has two plastic synapses onto {item.target[at]}")
    if program.populations[item.src].payload_bits:
        fail(
            f"{path}/src", f"{program.populations[item.src].name!r} sends codes, but plastic synapses take plain spikes"
        )


def check_traces(program: Program) -> None:
    """VerifyError where plastic projections and traces do not go together."""
    plastic = [i for i, item in enumerate(program.sparses) if item.rule is not None]
    if program.traces is None:
        if plastic:
            fail("traces", f"missing, but sparses/{plastic[0]} is plastic")
        return
    _check_ranges(program.traces, "traces", "traces")


def only_neurocore(program: Program) -> str | None:
    """The first part of a Program that only a neurocore, and the engine of its image, computes; None without any."""
    for item in program.sparses:
        if item.rule is not None:
            return f"plastic projection '{item.name}'"
    for p in program.populations:
        if p.core is not None:
            given = [f.name for f in dataclasses.fields(p.core) if getattr(p.core, f.name) != f.default]
            return f"population '{p.name}' ({', '.join(given) or 'neurocore'})"
    return None
