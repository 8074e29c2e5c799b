"""Values on the active sites of a volume, and convolutions between sites (docs/sparse.md).

A value on sites has the shape (C, S, 1): slot s of S belongs to one site, or to none. Which site that is says a value
of the kind ``sites``, [3, S, 1] whole numbers: the coordinates of slot s, or -1 in all three where the slot is empty.
What slots without a site hold means nothing, and nothing reads it; a neuron there is silent (``interpret``).
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from nmc_compiler.errors import VerifyError
from nmc_compiler.graph.graph import Node
from nmc_compiler.graph.ops_linear import MAX_SHIFT, exact_int
from nmc_compiler.graph.registry import MAX_ELEMENTS, TENSOR, Call, OpSpec, op_spec, register
from nmc_compiler.graph.types import Attr, Kind, ValueType

TRIPLE = (tuple,)
MAX_EXTENT = 1 << 20  # places along one axis: three coordinates make a key of 60 bits
MAX_TAPS = 1 << 10
EMPTY = -1  # coordinates of a slot without a site
Triple = tuple[int, int, int]
Site = tuple[int, ...]


def triple(attrs: dict[str, Attr], key: str, default: Triple, least: int, where: str) -> Triple:
    """Three whole numbers, one along each axis."""
    value = attrs[key].value if key in attrs else default
    if not isinstance(value, tuple) or len(value) != 3 or min(value) < least or max(value) > MAX_EXTENT:
        raise VerifyError(f"{where}: {key} must be three numbers in {least}..{MAX_EXTENT}, got {value!r}")
    return value  # type: ignore[return-value]


def _check_slots(slots: int, where: str) -> None:
    if not 1 <= slots <= MAX_ELEMENTS // 3:
        raise VerifyError(f"{where}: {slots} slots; there must be 1 to {MAX_ELEMENTS // 3}")


# ---- which sites there are ----


def _sites_infer(types, attrs, tensors, where):
    (x,) = types
    triple(attrs, "extent", (1, 1, 1), 1, where)
    if x.kind is not Kind.REAL or x.shape[0] < 4 or x.shape[2] != 1:
        raise VerifyError(f"{where}: takes real values (3 + F, S, 1), coordinates and features of S slots, got {x}")
    return ValueType(Kind.SITES, (3, *x.shape[1:]))


def check_sites(table: np.ndarray, extent: Triple, where: str) -> None:
    """VerifyError unless the sites [3, S] are whole, inside the extent, different, and before all empty slots."""
    whole = np.rint(table)
    if not (np.isfinite(table).all() and (whole == table).all()):
        raise VerifyError(f"{where}: coordinates of sites are whole numbers; give voxels, not points")
    used = int((whole[0] != EMPTY).sum())
    if (whole[:, used:] != EMPTY).any():
        raise VerifyError(f"{where}: empty slots ({EMPTY} in all coordinates) come behind all sites")
    taken = whole[:, :used]
    if used and (taken.min() < 0 or (taken.max(axis=1) >= np.array(extent)).any()):
        raise VerifyError(f"{where}: sites from {taken.min(axis=1)} to {taken.max(axis=1)} leave the extent {extent}")
    if len({*map(tuple, taken.T.tolist())}) != used:
        raise VerifyError(f"{where}: a site is there twice; give each voxel once")


def _sites_eval(c: Call) -> np.ndarray:
    for sample in c.inputs[0][:, :3, :, 0]:
        check_sites(sample, c.attr("extent"), c.where)
    return np.rint(c.inputs[0][:, :3]).astype(np.int64)


register(
    OpSpec(
        "sites",
        1,
        _sites_infer,
        _sites_eval,
        {"extent": TRIPLE},
        ("extent",),
        doc="the sites of each sample: the first three channels of its input are their coordinates",
    )
)


def _features_infer(types, attrs, tensors, where):
    (x,) = types
    if x.kind is not Kind.REAL or x.shape[0] < 4 or x.shape[2] != 1:
        raise VerifyError(f"{where}: takes real values (3 + F, S, 1), coordinates and features of S slots, got {x}")
    return ValueType(Kind.REAL, (x.shape[0] - 3, *x.shape[1:]))


register(OpSpec("features", 1, _features_infer, lambda c: c.inputs[0][:, 3:], doc="an input without its coordinates"))


def _cloud_infer(types, attrs, tensors, where):
    table, extent = tensors[attrs["table"].value.key], triple(attrs, "extent", (1, 1, 1), 1, where)
    if table.ndim != 2 or table.shape[1] != 3 or table.dtype.kind not in "iu":
        raise VerifyError(f"{where}: table must be whole numbers [S, 3], got {table.dtype} {list(table.shape)}")
    _check_slots(len(table), where)
    check_sites(table.T, extent, where)
    return ValueType(Kind.SITES, (3, len(table), 1))


def _cloud_eval(c: Call) -> np.ndarray:
    table = c.tensor("table")
    assert table is not None
    return np.broadcast_to(table.T.astype(np.int64)[None, :, :, None], (c.batch, 3, len(table), 1))


register(
    OpSpec(
        "cloud",
        0,
        _cloud_infer,
        _cloud_eval,
        {"table": TENSOR, "extent": TRIPLE},
        ("table", "extent"),
        doc="the sites of a fixed cloud, the same for all samples",
    )
)

WINDOW = {"kernel": TRIPLE, "stride": TRIPLE, "pad": TRIPLE}


def down_extent(extent: Triple, kernel: Triple, stride: Triple, pad: Triple) -> Triple:
    """Extent of what a strided convolution makes of a volume, as for a dense one."""
    sizes = zip(extent, kernel, stride, pad, strict=True)
    return tuple((n + 2 * p - k) // s + 1 for n, k, s, p in sizes)  # type: ignore[return-value]


def _window(attrs: dict[str, Attr], where: str) -> tuple[Triple, Triple, Triple]:
    kernel, stride = (triple(attrs, key, (1, 1, 1), 1, where) for key in ("kernel", "stride"))
    if math.prod(kernel) > MAX_TAPS:
        raise VerifyError(f"{where}: kernel {kernel} has {math.prod(kernel)} taps; at most {MAX_TAPS} can be handled")
    return kernel, stride, triple(attrs, "pad", (0, 0, 0), 0, where)


def _down_infer(types, attrs, tensors, where):
    (x,) = types
    if x.kind is not Kind.SITES:
        raise VerifyError(f"{where}: takes sites, got {x}")
    extent, window = triple(attrs, "extent", (1, 1, 1), 1, where), _window(attrs, where)
    if min(down_extent(extent, *window)) < 1:
        raise VerifyError(f"{where}: kernel {window[0]} does not fit the extent {extent}")
    _check_slots(attrs["slots"].value, where)
    return ValueType(Kind.SITES, (3, attrs["slots"].value, 1))


def _down_eval(c: Call) -> np.ndarray:
    """Made slot by slot and tap by tap, once for a sample."""
    if "sites" in c.state:
        return c.state["sites"]
    window = _window(c.attrs, c.where)
    extent, slots = down_extent(c.attr("extent"), *window), c.attr("slots")
    out = np.full((len(c.inputs[0]), 3, slots, 1), EMPTY, np.int64)
    for sample, found in zip(c.inputs[0][..., 0], out[..., 0], strict=True):
        reached = made_sites(sites_of(sample), *window, extent)
        if len(reached) > slots:
            raise VerifyError(f"{c.where}: {len(reached)} sites, but {slots} slots; compile with more slots")
        found[:, : len(reached)] = np.array(reached, np.int64).reshape(-1, 3).T
    c.state["sites"] = out
    return out


def made_window(node: Node) -> tuple[Triple, Triple, Triple, Triple]:
    """Kernel, stride, pad and extent of what a node ``down_sites`` makes."""
    window = _window(node.attrs, node.id)
    return *window, down_extent(node.attr("extent"), *window)


def made_sites(sites: list[Site], kernel: Triple, stride: Triple, pad: Triple, extent: Triple) -> list[Site]:
    """Sites within ``extent`` that a strided convolution makes of others, in the order in which they are reached."""
    reached: dict[Site, None] = {}
    for site in sites:
        for out in _outputs(site, kernel, stride, pad, extent):
            if out is not None:
                reached[out] = None
    return list(reached)


register(
    OpSpec(
        "down_sites",
        1,
        _down_infer,
        _down_eval,
        {**WINDOW, "extent": TRIPLE, "slots": (int,)},
        ("kernel", "extent", "slots"),
        doc="the sites that a strided (generative) convolution makes; extent is that of its operand",
    )
)


def sites_of(table: np.ndarray) -> list[Site]:
    """Sites of one sample, in order of their slots; table [3, S]."""
    return [tuple(site) for site in table.T.tolist() if site[0] != EMPTY]


def _outputs(site: Site, kernel: Triple, stride: Triple, pad: Triple, extent: Triple | None = None):
    """Output site that each tap carries a site to, None where there is none: out * stride - pad + tap = site."""
    for tap in itertools.product(*map(range, kernel)):
        scaled = [n + p - k for n, p, k in zip(site, pad, tap, strict=True)]
        if any(n % s for n, s in zip(scaled, stride, strict=True)):
            yield None
            continue
        out = tuple(n // s for n, s in zip(scaled, stride, strict=True))
        inside = min(out) >= 0 and (extent is None or all(n < e for n, e in zip(out, extent, strict=True)))
        yield out if inside else None


# ---- convolutions between sites ----


def pairs(source: np.ndarray, target: np.ndarray, kernel: Triple, stride: Triple, pad: Triple, inverse: bool) -> list:
    """(source slot, tap, target slot) of every synapse of a convolution between the sites of one sample.

    source, target [3, S]. A pair of sites meets in a tap where fine = coarse * stride - pad + tap; the source is the
    fine one, with ``inverse`` the target. So a submanifold convolution has equal sites, stride 1 and pad kernel // 2.
    """
    fine, coarse = (target, source) if inverse else (source, target)
    slot = {site: s for s, site in enumerate(sites_of(coarse))}
    found = []
    for s, site in enumerate(sites_of(fine)):
        for tap, out in enumerate(_outputs(site, kernel, stride, pad)):
            if out in slot:
                found.append((slot[out], tap, s) if inverse else (s, tap, slot[out]))
    return found


def _conv_infer(types, attrs, tensors, where):
    x, source, target = types
    weight, (kernel, _, _) = tensors[attrs["weight"].value.key], _window(attrs, where)
    if source.kind is not Kind.SITES or target.kind is not Kind.SITES:
        raise VerifyError(f"{where}: the second and third operand are sites, got {source} and {target}")
    if x.kind is Kind.SITES or x.shape[1:] != source.shape[1:]:
        raise VerifyError(f"{where}: values {x} are not on the sites {source}")
    if weight.ndim != 4 or weight.shape[1:] != (x.shape[0], math.prod(kernel), 1):
        raise VerifyError(
            f"{where}: weight must be [out, {x.shape[0]}, {math.prod(kernel)}, 1], the taps of kernel {kernel} in C "
            f"order, got {list(weight.shape)}"
        )
    bias = attrs.get("bias")
    if bias is not None and tensors[bias.value.key].shape != weight.shape[:1]:
        raise VerifyError(f"{where}: bias must have shape {weight.shape[:1]}, got {tensors[bias.value.key].shape}")
    for key in ("shift", "frac"):
        if key in attrs and not 0 <= attrs[key].value <= MAX_SHIFT:
            raise VerifyError(f"{where}: {key} must lie in 0..{MAX_SHIFT}, got {attrs[key].value}")
    return ValueType(Kind.CURRENT, (weight.shape[0], *target.shape[1:]))


def _rulebook(c: Call) -> list[np.ndarray]:
    """Pairs of each sample, [pairs, 3]; sites do not change within a sample."""
    if "pairs" not in c.state:
        window = _window(c.attrs, c.where)
        tables = zip(c.inputs[1][..., 0], c.inputs[2][..., 0], strict=True)
        books = [pairs(a, b, *window, c.attr("inverse", False)) for a, b in tables]
        c.state["pairs"] = [np.array(book, np.int64).reshape(-1, 3) for book in books]
    return c.state["pairs"]


def _sum_pairs(c: Call, x: np.ndarray) -> np.ndarray:
    """Sums over pairs of weights times x [B, C, S, 1]; float64 [B, O, S', 1]."""
    weight = c.tensor("weight")
    assert weight is not None
    w = weight[..., 0].astype(np.float64)
    out = np.zeros((len(x), len(w), *c.inputs[2].shape[2:]))
    for sample, y, book in zip(x[..., 0].astype(np.float64), out[..., 0], _rulebook(c), strict=True):
        for tap in range(w.shape[2]):
            source, _, target = book[book[:, 1] == tap].T
            y[:, target] += w[:, :, tap] @ sample[:, source]  # in one tap every target has one source
    return out


def active(table: np.ndarray) -> np.ndarray:
    """Bool [B, 1, S, 1]: slots that have a site; table [B, 3, S, 1]."""
    return table[:, :1] != EMPTY


def _conv_eval(c: Call) -> np.ndarray:
    y = _sum_pairs(c, c.inputs[0])
    if c.integer:
        return exact_int(y) << c.attr("shift", 0)
    bias = c.tensor("bias")
    return y if bias is None else y + active(c.inputs[2]) * bias.astype(np.float64)[None, :, None, None]


CONV_ATTRS = {"weight": TENSOR, "bias": TENSOR, **WINDOW, "inverse": (bool,), "shift": (int,)}
register(
    OpSpec(
        "sparse_conv3d",
        3,
        _conv_infer,
        _conv_eval,
        CONV_ATTRS,
        ("weight", "kernel"),
        doc="convolution of values on the sites of the second operand to those of the third",
    )
)


def _host_eval(c: Call) -> np.ndarray:
    """Fixed point: x_int = rint(x*2^frac), y = (conv + bias + half) >> shift; 0 where there is no site."""
    bias, shift = c.tensor("bias"), c.attr("shift")
    assert bias is not None
    acc = exact_int(_sum_pairs(c, np.rint(c.inputs[0] * 2.0 ** c.attr("frac"))))
    half = 1 << (shift - 1) if shift else 0
    return np.where(active(c.inputs[2]), (acc + bias.astype(np.int64)[None, :, None, None] + half) >> shift, 0)


register(
    OpSpec(
        "host_sparse_conv3d",
        3,
        _conv_infer,
        _host_eval,
        {**CONV_ATTRS, "frac": (int,)},
        ("weight", "bias", "kernel", "frac", "shift"),
        doc="first convolution on the host in fixed point: (sum(w*rint(x*2^frac)) + bias + half) >> shift",
    )
)


# ---- the head ----


def _head_infer(types, attrs, tensors, where):
    x, sites = types
    if sites.kind is not Kind.SITES or x.kind is Kind.SITES or x.is_event or x.shape[1:] != sites.shape[1:]:
        raise VerifyError(f"{where}: takes a current (C, S, 1) and its sites, got {x} and {sites}")
    return ValueType(x.kind, (x.shape[0], 1, 1))


def _sum_eval(c: Call) -> np.ndarray:
    return np.where(active(c.inputs[1]), c.inputs[0], 0).sum(axis=2, keepdims=True)


def _mean_eval(c: Call) -> np.ndarray:
    return _sum_eval(c) / site_count(c.inputs[1])[:, None, None, None]


def site_count(table: np.ndarray) -> np.ndarray:
    """Sites of each sample [B], at least 1: the mean over none is 0; table [B, 3, S, 1]."""
    return np.maximum(active(table)[:, 0, :, 0].sum(axis=1), 1)


register(OpSpec("mean_sites", 2, _head_infer, _mean_eval, doc="mean over sites (scatter mean), float graphs"))
register(OpSpec("sum_sites", 2, _head_infer, _sum_eval, doc="sum over sites; the read-out divides by their number"))


# ---- where values are ----

PLACE_BY_PLACE = ("add", "scale", "batch_norm", "rshift", "mul")


def home(by_id: dict[str, Node], node: Node) -> str | None:
    """Id of the sites that a value is on, None where it is on a plain grid.

    A convolution between sites says so; what is computed place by place stays where it is.
    """
    while node.operands and (node.op in PLACE_BY_PLACE or op_spec(node.op).neuron):
        node = by_id[node.operands[0]]
    return node.operands[2] if node.op in ("sparse_conv3d", "host_sparse_conv3d") else None
