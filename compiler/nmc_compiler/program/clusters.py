"""Clusters: dendrites linked by transfers, which therefore share their cores.

A cluster is cut along its *base* dendrite; what a tile holds of the others
follows from the transfers: the windows of a max-pool, all positions of a sum.
"""

from __future__ import annotations

from collections import defaultdict

from nmc_compiler.errors import VerifyError
from nmc_compiler.program.model import Program


def dendrites_of_clusters(program: Program) -> dict[int, list[int]]:
    """Dendrite indices of every cluster, clusters in ascending order."""
    members: dict[int, list[int]] = defaultdict(list)
    for index, dendrite in enumerate(program.dendrites):
        members[dendrite.cluster].append(index)
    return dict(sorted(members.items()))


def after_sums(program: Program) -> set[int]:
    """Dendrites that a sum writes, and those that transfers lead to from there."""
    found = {t.dst for t in program.transfers if t.mode == "sum"}
    while more := {t.dst for t in program.transfers if t.src in found} - found:
        found |= more
    return found


def base_dendrites(program: Program) -> dict[int, int]:
    """Base dendrite of every cluster: the first that no max-pool reads and that is not behind a sum.

    All such dendrites of one cluster must have one shape, or VerifyError: a tile is one box of it.
    """
    aside = {t.src for t in program.transfers if t.mode == "maxpool"} | after_sums(program)
    return {
        cluster: _base(program, cluster, [d for d in members if d not in aside])
        for cluster, members in dendrites_of_clusters(program).items()
    }


def _base(program: Program, cluster: int, candidates: list[int]) -> int:
    if not candidates:
        raise VerifyError(
            f"cluster {cluster}: every dendrite is the source of a max-pool or behind a sum, "
            "so none can be cut into tiles; give the cluster the dendrite that they end in"
        )
    first = program.dendrites[candidates[0]]
    for other in (program.dendrites[d] for d in candidates[1:]):
        if other.shape != first.shape:
            raise VerifyError(
                f"cluster {cluster}: dendrites {first.name!r} {first.shape} and {other.name!r} {other.shape} "
                "differ in shape and no transfer relates them; put them into clusters of their own"
            )
    return candidates[0]
