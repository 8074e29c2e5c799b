"""What the host does for each of its ops in a timestep, counted from shapes."""

from __future__ import annotations

import math

from nmc_compiler.graph.types import Attr, ValueType

Work = dict[str, int]  # macs; ops (additions, products, comparisons); exps; divisions (and roots)
_HEAVY = {"exp": (1, 0, 0), "sigmoid": (1, 1, 1), "silu": (1, 1, 2), "tanh": (1, 1, 2)}  # exps, divisions, ops
_ROOTS = {"reciprocal": 1, "sqrt": 1, "rsqrt": 2}


def work_of(op: str, attrs: dict[str, Attr], operands: list[ValueType], made: ValueType) -> Work:
    """What the host does for one node in one timestep; of a window, as much as once it is full."""
    n, places = math.prod(made.shape), made.shape[1] * made.shape[2]
    return {k: v for k, v in _work(op, attrs, operands, made, n, places).items() if v}


def _work(op: str, attrs: dict[str, Attr], operands: list[ValueType], made: ValueType, n: int, places: int) -> Work:
    word = attrs["function"].value if "function" in attrs else ""
    if op in ("layer_norm", "rms_norm"):
        return {"macs": 2 * n, "ops": 2 * n if op == "layer_norm" else 0, "divisions": 3 * places}
    if op == "softmax_channels":
        return {"exps": n, "ops": 2 * n, "divisions": n}
    if op == "real_linear":
        return {"macs": n * operands[0].shape[0]}
    if op == "real_matmul":
        return {"macs": n * operands[0].shape[2]}
    if op == "real_affine":
        return {"macs": n}
    if op == "unary":
        exps, divisions, ops = _HEAVY.get(str(word), (0, _ROOTS.get(str(word), 0), 1))
        return {"exps": exps * n, "divisions": divisions * n, "ops": ops * n}
    if op == "binary":
        return {"divisions": n} if word == "div" else {"ops": n}
    if op == "reduce":
        return {"ops": math.prod(operands[0].shape), "divisions": n if word == "mean" else 0}
    if op == "gated_mean":
        return {"macs": 2 * n, "ops": n}
    if op == "wkv":
        return {"exps": 4 * n, "macs": 4 * n, "ops": 4 * n, "divisions": n}
    if op in ("gated_table", "window_attention"):
        return _attention(op, attrs, operands)
    return {"rotary": {"macs": 2 * n}, "codes": {"divisions": n, "ops": 2 * n}}.get(op, {"ops": n})


def _attention(op: str, attrs: dict[str, Attr], operands: list[ValueType]) -> Work:
    heads = int(attrs["heads"].value)  # type: ignore[arg-type]
    wide, deep = operands[0].shape[0], operands[2].shape[0]
    if op == "gated_table":
        return {"macs": 3 * wide * deep // heads}
    window = int(attrs["window"].value)  # type: ignore[arg-type]
    return {"macs": 2 * window * wide, "exps": window * heads, "divisions": window * heads, "ops": 2 * window * heads}
