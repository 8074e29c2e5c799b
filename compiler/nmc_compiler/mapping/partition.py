"""Partition: cut every cluster into the fewest tiles that each fit a core."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nmc_compiler.errors import CapacityError
from nmc_compiler.mapping.cluster import Cluster
from nmc_compiler.mapping.demand import (
    AXONS_IN,
    MEMORY,
    Cut,
    Cuts,
    Netlist,
    Term,
    exact_needs,
    factors_along,
    may_cut,
    terms_of,
)
from nmc_compiler.mapping.intervals import even_chunks, split_by
from nmc_compiler.mapping.resources import RESOURCES
from nmc_compiler.program.model import Dynamic

ROUNDS = 8  # axons depend on how the neighbours are cut, so cuts are revised until they agree
FREE_ROUNDS = 3  # in these a cluster may also choose a better cut; later only one that fits


def partition(net: Netlist, clusters: Sequence[Cluster], target_name: str) -> Cuts:
    """Cut of every cluster; each tile fits one core by itself. Raises CapacityError where none does."""
    cuts: Cuts = {}
    for number in range(ROUNDS):
        before = dict(cuts)
        for cluster in sorted(clusters, key=lambda c: (c.level, c.index)):
            if number < FREE_ROUNDS or not _fits(net, cluster, cuts[cluster.index], cuts):
                choose = _best_rows if net.has_rows(cluster) else _best_cut
                cuts[cluster.index] = choose(net, cluster, cuts, target_name)
        if number and all(_same(before[i], cuts[i]) for i in cuts):
            break
    for cluster in clusters:
        if not _fits(net, cluster, cuts[cluster.index], cuts):
            raise _too_large(net, cluster, _largest(net, cluster, cuts[cluster.index], cuts), target_name)
    return cuts


def shortages(net: Netlist, clusters: Sequence[Cluster], target_name: str) -> list[CapacityError]:
    """What stands in the way of each cluster by itself, with its neighbours uncut: one error for each whose smallest
    tile does not fit a core, in level order."""
    found = []
    for cluster in sorted(clusters, key=lambda c: (c.level, c.index)):
        finest = [even_chunks(cluster.shape[0], cluster.shape[0]), *(_choices(net, cluster, a)[-1] for a in (1, 2))]
        terms = terms_of(net, cluster, {}, rows=not net.has_rows(cluster))
        factors = [factors_along(net, cluster, a, finest[a], terms).max(axis=1)[None] for a in (0, 1, 2)]
        worst = _combine(factors, terms)
        if net.has_rows(cluster):
            worst[MEMORY] += net.row_needs(cluster, (finest[0], finest[1], finest[2])).max()
        if (worst.ravel() > net.limits).any():
            found.append(_too_large(net, cluster, worst, target_name))
    return found


def _fits(net: Netlist, cluster: Cluster, cut: Cut, cuts: Cuts) -> bool:
    return bool((_largest(net, cluster, cut, cuts).ravel() <= net.limits).all())


def _best_rows(net: Netlist, cluster: Cluster, cuts: Cuts, target_name: str) -> Cut:
    """The best cut by the bound on rows of synapses, or single channels; then the fewest chunks by exact count."""
    try:
        cut = _best_cut(net, cluster, cuts, target_name)
    except CapacityError:
        channels = even_chunks(cluster.shape[0], cluster.shape[0])
        rows, columns = (_choices(net, cluster, axis) for axis in (1, 2))
        finest = ((channels, rows[0], columns[0]), (channels, rows[-1], columns[-1]))
        cut = next((c for c in finest if _fits(net, cluster, c, cuts)), finest[-1])
        if not _fits(net, cluster, cut, cuts):
            raise _too_large(net, cluster, _largest(net, cluster, cut, cuts), target_name) from None
    return _fewer(net, cluster, cut, cuts)


def _largest(net: Netlist, cluster: Cluster, cut: Cut, cuts: Cuts) -> np.ndarray:
    """What the largest tile of a cut needs of each resource: int64 [resources, 1, 1, 1]."""
    return exact_needs(net, cluster, cut, cuts).max(axis=(1, 2, 3), keepdims=True)


def _fewer(net: Netlist, cluster: Cluster, cut: Cut, cuts: Cuts) -> Cut:
    """Fewer chunks of channels where they fit by exact count: the bound that chose `cut` pads every row."""
    size, low, high = cluster.shape[0], 1, len(cut[0])
    while low < high:
        middle = (low + high) // 2
        if _fits(net, cluster, (even_chunks(size, middle), cut[1], cut[2]), cuts):
            high = middle
        else:
            low = middle + 1
    return cut if high == len(cut[0]) else (even_chunks(size, high), cut[1], cut[2])


def _same(one: Cut, other: Cut) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def _best_cut(net: Netlist, cluster: Cluster, cuts: Cuts, target_name: str) -> Cut:
    """The cut with the fewest tiles, then the fewest axons into them, then the squarest, of those that fit."""
    terms = terms_of(net, cluster, cuts)
    choices = [_choices(net, cluster, axis) for axis in (0, 1, 2)]
    largest, total = [], []
    for axis in (0, 1, 2):
        factors = [factors_along(net, cluster, axis, chunks, terms) for chunks in choices[axis]]
        largest.append(np.array([f.max(axis=1) for f in factors]))
        total.append(np.array([f.sum(axis=1) for f in factors]))
    worst = _combine(largest, terms)
    fits = (worst <= net.limits[:, None, None, None]).all(axis=0)
    if not fits.any():
        raise _too_large(net, cluster, worst, target_name)
    counts = [np.array([len(chunks) for chunks in options], np.int64) for options in choices]
    tiles = np.einsum("c,y,x->cyx", *counts)
    axons = _combine(total, terms)[AXONS_IN]
    sides = counts[1][None, :, None] + counts[2][None, None, :] + 0 * tiles
    order = np.lexsort((sides.ravel(), axons.ravel(), tiles.ravel(), ~fits.ravel()))
    c, y, x = np.unravel_index(order[0], fits.shape)
    return choices[0][c], choices[1][y], choices[2][x]


def _combine(factors: list[np.ndarray], terms: list[Term]) -> np.ndarray:
    """Sum over terms of the products of factors [choices, terms] per axis: [resources, c, y, x]."""
    result = np.zeros((len(RESOURCES), *(len(f) for f in factors)), np.int64)
    for resource in range(len(RESOURCES)):
        mine = [number for number, term in enumerate(terms) if term.resource == resource]
        result[resource] = np.einsum("ct,yt,xt->cyx", *(f[:, mine] for f in factors))
    return result


def _choices(net: Netlist, cluster: Cluster, axis: int) -> list[np.ndarray]:
    """Ways to cut one axis: even chunks; for channels also whole heads, memory rows and axons."""
    size = cluster.shape[axis]
    whole = even_chunks(size, 1)
    if axis > 0 and cluster.whole_maps:
        return [whole]
    counts = sorted({-(-size // chunk) for chunk in range(1, size + 1)})
    options = [even_chunks(size, count) for count in counts]
    if axis == 0:
        for unit in _units(net, cluster):
            options += [split_by(size, chunk) for chunk in _multiples(size, unit)]
    options = [option for option in options if may_cut(net, cluster, axis, option)]
    return options or [whole]


def _units(net: Netlist, cluster: Cluster) -> list[int]:
    """Numbers of channels that are cheaper kept together: a head, a memory row, the atoms of an axon."""
    units = {net.sizes.conv_pad // net.sizes.conv_synapse, net.atoms}
    for reach in (r for dendrite in cluster.dendrites for r in net.into[dendrite]):
        if isinstance(reach.item, Dynamic):
            units.add(reach.dst_shape[0] // reach.item.heads)
    return sorted(unit for unit in units if 1 < unit < cluster.shape[0])


def _multiples(size: int, unit: int) -> list[int]:
    """Multiples of `unit` below `size`, one for each number of chunks that they give."""
    smallest = {-(-size // chunk): chunk for chunk in range((size - 1) // unit * unit, 0, -unit)}
    return sorted(smallest.values(), reverse=True)


# --- what to say when nothing fits --------------------------------------------------------------------------


def _shortage(net: Netlist, worst: np.ndarray) -> tuple[int, int]:
    """The resource that stands in the way, and what the best cut needs of it.

    A resource that no cut satisfies is the reason by itself. If each alone could be satisfied, it is
    the scarcest one of the cut that comes nearest.
    """
    needs = worst.reshape(len(RESOURCES), -1)
    excess = needs / net.limits[:, None]
    least = excess.min(axis=1)
    if least.max() > 1:
        number = int(np.argmax(least))
        return number, int(needs[number].min())
    nearest = int(np.argmin(excess.max(axis=0)))
    number = int(np.argmax(excess[:, nearest]))
    return number, int(needs[number, nearest])


def _too_large(net: Netlist, cluster: Cluster, worst: np.ndarray, target_name: str) -> CapacityError:
    number, used = _shortage(net, worst)
    limit, resource = int(net.limits[number]), RESOURCES[number]
    if number == MEMORY:
        used, limit = -(-used // net.sizes.word), limit // net.sizes.word
    name = layer_name(net, cluster)
    error = CapacityError(
        f"layer {name}: its smallest tile needs {used} {resource} of one core, but a "
        f"core of {target_name} has {limit} ({used}/{limit}). {_advice(net, cluster, number, used)}"
    )
    error.shortage = name, resource, used, limit
    return error


def layer_name(net: Netlist, cluster: Cluster) -> str:
    """Name of a cluster for people: its populations, else its base dendrite."""
    names = [net.program.populations[p].name for p in cluster.populations]
    if not names:
        return repr(net.program.dendrites[cluster.base].name)
    more = f" and {len(names) - 1} more on the same accumulators" if len(names) > 1 else ""
    return repr(names[0]) + more


def _advice(net: Netlist, cluster: Cluster, number: int, used: int) -> str:
    """The nearest way out for each resource."""
    resource = RESOURCES[number]
    larger = f"use a target with at least {used} {resource} per core"
    ring = max(net.program.dendrites[d].ring for d in cluster.dendrites)
    if resource == "neuron_groups" and len(cluster.populations) > 1:
        return f"Compile with --residual duplicate, so that each population has accumulators of its own, or {larger}"
    if resource == "neuron_groups":
        return f"Compile with --channel-bins 1, so that the channels of a layer share one threshold, or {larger}"
    if number == MEMORY and ring > 1:
        return f"Compile with --residual duplicate instead of one stream ({ring} timesteps alive at once), or {larger}"
    if cluster.whole_maps:
        return f"Attention and sums keep all positions of a channel on one core: use fewer tokens, or {larger}"
    return larger[0].upper() + larger[1:]
