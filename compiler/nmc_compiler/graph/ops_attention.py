"""Attention products without softmax: per head a table that k and v write and q reads, at once or from step to step."""

from __future__ import annotations

import numpy as np

from nmc_compiler.errors import VerifyError
from nmc_compiler.graph.ops_linear import check_shifts, exact_int
from nmc_compiler.graph.registry import NUMBER, TENSOR, Call, OpSpec, register
from nmc_compiler.graph.types import Kind, ValueType

KEEP_ONE = 4096  # of a table's 12-bit decay: what is kept of it without one
MAX_FRACTION = 15  # bits below a count


def _infer(types, attrs, tensors, where):
    q, k, v = types
    heads = attrs["heads"].value
    if not all(t.is_event and not t.signed for t in types):
        raise VerifyError(f"{where}: q, k and v must be unsigned events, got {q}, {k}, {v}")
    if q.shape != k.shape or q.shape[1:] != v.shape[1:]:
        raise VerifyError(f"{where}: q {q}, k {k} and v {v} do not agree in shape")
    if heads < 1 or q.shape[0] % heads or v.shape[0] % heads:
        raise VerifyError(f"{where}: {heads} heads do not divide q's {q.shape[0]} and v's {v.shape[0]} channels")
    if "order" in attrs and attrs["order"].value not in ("kv", "qk"):
        raise VerifyError(f"{where}: order must be 'kv' or 'qk'")
    check_shifts(attrs, where)
    _check_state(attrs, tensors, heads, where)
    return ValueType(Kind.CURRENT, v.shape)


def _check_state(attrs, tensors, heads: int, where: str) -> None:
    lifetime = attrs["lifetime"].value if "lifetime" in attrs else "step"
    if lifetime not in ("step", "sample"):
        raise VerifyError(f"{where}: lifetime must be 'step' or 'sample', not '{lifetime}'")
    if lifetime == "step":
        given = next((k for k in ("decay", "keep", "block", "frac") if k in attrs), None)
        if given is not None:
            raise VerifyError(f"{where}: '{given}' is of tables that live longer than a step (lifetime=sample)")
        return
    if "order" in attrs and attrs["order"].value == "qk":
        raise VerifyError(f"{where}: a table that lives for the sample is k^T v (order kv); q k^T is of one step")
    if "block" in attrs and attrs["block"].value < 1:
        raise VerifyError(f"{where}: block must be >= 1 timesteps, got {attrs['block'].value}")
    if not 0 <= (attrs["frac"].value if "frac" in attrs else 0) <= MAX_FRACTION:
        raise VerifyError(f"{where}: frac must lie in 0..{MAX_FRACTION}, got {attrs['frac'].value}")
    for key, top in (("decay", 1.0), ("keep", KEEP_ONE)):
        if key not in attrs:
            continue
        value = attrs[key].value
        array = np.asarray(value if isinstance(value, (int, float)) else tensors[value.key])
        if array.shape not in ((), (heads,)) or not 0 <= array.min() <= array.max() <= top:
            raise VerifyError(f"{where}: {key} must be a number or one per head ({heads}), each in 0..{top:g}")


def _column(c: Call, key: str, default: float) -> np.ndarray:
    """One number per head as it multiplies tables [B, heads, dv, d]."""
    value = c.attr(key, default)
    array = np.asarray(value if isinstance(value, (int, float)) else c.tensors[value.key])
    return np.broadcast_to(array, (c.attr("heads"),))[None, :, None, None]


def _table(c: Call, written: np.ndarray) -> np.ndarray:
    """The table of this timestep: S = decay * S + written, from 0 where a block begins."""
    if c.attr("lifetime", "step") == "step":
        return written
    begins = c.timestep % c.attr("block", 0) == 0 if "block" in c.attrs else c.timestep == 0
    before = np.zeros_like(written) if begins else c.state["table"]
    if not c.integer:
        c.state["table"] = _column(c, "decay", 1.0) * before + written
        return c.state["table"]
    c.state["table"] = (_column(c, "keep", KEEP_ONE).astype(np.int64) * before >> 12) + (written << c.attr("frac", 0))
    return c.state["table"]


def _eval(c: Call) -> np.ndarray:
    """out[j, n] = sum_i q[i, n] * S[j, i] per head, S = sum_m k[i, m] * v[j, m] and, with lifetime=sample, what is left
    of the S before; then times scale (float), or at most ``saturate`` and shifted left (int)."""
    q, k, v = (x.astype(np.float64) for x in c.inputs)
    batch, heads = q.shape[0], c.attr("heads")
    q, k, v = (x.reshape(batch, heads, x.shape[1] // heads, -1) for x in (q, k, v))
    written = np.matmul(v, k.swapaxes(2, 3))
    table = _table(c, exact_int(written) if c.integer else written)
    out = np.matmul(table.astype(np.float64), q).reshape(c.inputs[2].shape)
    if not c.integer:
        return out * c.attr("scale", 1.0)
    return np.minimum(exact_int(out), c.attr("saturate")) << c.attr("shift", 0)


register(
    OpSpec(
        "attn",
        3,
        _infer,
        _eval,
        {
            "heads": (int,),
            "scale": NUMBER,
            "order": (str,),
            "shift": (int,),
            "saturate": (int,),
            "lifetime": (str,),
            "decay": (*NUMBER, *TENSOR),
            "block": (int,),
            "keep": TENSOR,
            "frac": (int,),
        },
        ("heads",),
        doc="(q k^T) v = q (k^T v) per head, no softmax; with lifetime=sample k^T v adds up over timesteps and decays",
    )
)
