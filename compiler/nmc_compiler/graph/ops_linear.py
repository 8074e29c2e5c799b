"""Linear ops: convolution, sums, pools over currents, constant-weight maps, attention products."""

from __future__ import annotations

import numpy as np

from nmc_compiler.errors import VerifyError
from nmc_compiler.graph.registry import NUMBER, TENSOR, Call, OpSpec, check_shape, register
from nmc_compiler.graph.types import Attr, Kind, ValueType

PAIR = (tuple,)


MAX_SHIFT = 31  # shifts of integer graphs: results stay far inside int64


def _pair(attrs: dict[str, Attr], key: str, default: tuple[int, int], where: str) -> tuple[int, int]:
    value = attrs[key].value if key in attrs else default
    if not isinstance(value, tuple) or len(value) != 2:
        raise VerifyError(f"{where}: {key} must be two numbers (y, x), got {value!r}")
    return value


def check_shifts(attrs: dict[str, Attr], where: str) -> None:
    for key in ("shift", "frac"):
        if key in attrs and not 0 <= attrs[key].value <= MAX_SHIFT:  # type: ignore[operator]
            raise VerifyError(f"{where}: {key} must lie in 0..{MAX_SHIFT}, got {attrs[key].value}")


def window_out(size: int, kernel: int, stride: int, pad: int, dilation: int = 1) -> int:
    """Output length of a convolution or pool along one axis."""
    return (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1


def _conv_geometry(attrs: dict[str, Attr], kernel: tuple[int, int], shape: tuple[int, ...], where: str):
    sy, sx = _pair(attrs, "stride", (1, 1), where)
    py, px = _pair(attrs, "pad", (0, 0), where)
    dy, dx = _pair(attrs, "dilation", (1, 1), where)
    if min(sy, sx, dy, dx, *kernel) < 1 or min(py, px) < 0:
        raise VerifyError(f"{where}: kernel, stride and dilation must be >= 1 and pad >= 0")
    h = window_out(shape[1], kernel[0], sy, py, dy)
    w = window_out(shape[2], kernel[1], sx, px, dx)
    if h < 1 or w < 1:
        raise VerifyError(f"{where}: a {kernel[0]}x{kernel[1]} window does not fit input {shape[1]}x{shape[2]}")
    return h, w


def conv_array(
    x: np.ndarray,
    weight: np.ndarray,
    stride: tuple[int, int],
    pad: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> np.ndarray:
    """Cross-correlation with zero padding; x [B,C,H,W], weight [O,I,kh,kw] -> [B,O,H',W'] (float64)."""
    kh, kw = weight.shape[2:]
    xp = np.pad(x, ((0, 0), (0, 0), (pad[0], pad[0]), (pad[1], pad[1])))
    span = (dilation[0] * (kh - 1) + 1, dilation[1] * (kw - 1) + 1)
    win = np.lib.stride_tricks.sliding_window_view(xp, span, axis=(2, 3))
    win = win[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]
    cin, cout = weight.shape[1], weight.shape[0] // groups
    outs = []
    for g in range(groups):
        part = win[:, g * cin : (g + 1) * cin]
        w = weight[g * cout : (g + 1) * cout]
        outs.append(np.moveaxis(np.tensordot(part, w, axes=([1, 4, 5], [1, 2, 3])), 3, 1))
    return np.concatenate(outs, axis=1)


def _depthwise(x, weight, stride, pad, dilation):
    kh, kw = weight.shape[2:]
    xp = np.pad(x, ((0, 0), (0, 0), (pad[0], pad[0]), (pad[1], pad[1])))
    span = (dilation[0] * (kh - 1) + 1, dilation[1] * (kw - 1) + 1)
    win = np.lib.stride_tricks.sliding_window_view(xp, span, axis=(2, 3))
    win = win[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]
    return np.einsum("bcyxij,cij->bcyx", win, weight[:, 0])


def _conv_infer(types, attrs, tensors, where):
    (x,) = types
    weight = tensors[attrs["weight"].value.key]
    groups = attrs["groups"].value if "groups" in attrs else 1
    if weight.ndim != 4:
        raise VerifyError(f"{where}: weight must be [out, in/groups, kh, kw], got shape {weight.shape}")
    check_shifts(attrs, where)
    out, cin, kh, kw = weight.shape
    if groups < 1 or out < 1 or out % groups or cin * groups != x.shape[0]:
        raise VerifyError(
            f"{where}: weight {weight.shape} with groups={groups} wants {cin * groups} input channels, "
            f"the input {x} has {x.shape[0]}"
        )
    bias = attrs.get("bias")
    if bias is not None and tensors[bias.value.key].shape != (out,):
        raise VerifyError(f"{where}: bias must have shape ({out},), got {tensors[bias.value.key].shape}")
    h, w = _conv_geometry(attrs, (kh, kw), x.shape, where)
    return ValueType(Kind.CURRENT, (out, h, w))


def exact_int(y: np.ndarray) -> np.ndarray:
    """float64 sums of integers back to int64; they are exact below 2^53."""
    if y.size and np.abs(y).max() >= 2.0**53:
        raise VerifyError("an integer sum left the range in which float64 is exact (2^53)")
    return np.rint(y).astype(np.int64)


def _conv_eval(c: Call) -> np.ndarray:
    weight = c.tensor("weight")
    assert weight is not None
    geo = (c.attr("stride", (1, 1)), c.attr("pad", (0, 0)), c.attr("dilation", (1, 1)))
    groups = c.attr("groups", 1)
    x, w = c.inputs[0].astype(np.float64), weight.astype(np.float64)
    y = _depthwise(x, w, *geo) if groups == w.shape[0] == x.shape[1] else conv_array(x, w, *geo, groups)
    if c.integer:
        return exact_int(y) << c.attr("shift", 0)
    bias = c.tensor("bias")
    return y if bias is None else y + bias.astype(np.float64)[None, :, None, None]


CONV_ATTRS = {
    "weight": TENSOR,
    "bias": TENSOR,
    "stride": PAIR,
    "pad": PAIR,
    "dilation": PAIR,
    "groups": (int,),
}
register(
    OpSpec(
        "conv2d",
        1,
        _conv_infer,
        _conv_eval,
        {**CONV_ATTRS, "shift": (int,)},
        ("weight",),
        doc="cross-correlation as in PyTorch; integer graphs: sum(w*code) << shift",
    )
)


def _host_eval(c: Call) -> np.ndarray:
    """Fixed point: x_int = rint(x*2^frac), y = (conv + bias + half) >> shift."""
    weight, bias = c.tensor("weight"), c.tensor("bias")
    assert weight is not None and bias is not None
    x_int = np.rint(c.inputs[0] * 2.0 ** c.attr("frac"))
    geo = (c.attr("stride", (1, 1)), c.attr("pad", (0, 0)), c.attr("dilation", (1, 1)))
    acc = exact_int(conv_array(x_int, weight.astype(np.float64), *geo, c.attr("groups", 1)))
    shift = c.attr("shift")
    half = 1 << (shift - 1) if shift else 0
    return (acc + bias.astype(np.int64)[None, :, None, None] + half) >> shift


register(
    OpSpec(
        "host_conv2d",
        1,
        _conv_infer,
        _host_eval,
        {**CONV_ATTRS, "frac": (int,), "shift": (int,)},
        ("weight", "bias", "frac", "shift"),
        doc="first layer on the host in fixed point: (sum(w*rint(x*2^frac)) + bias + half) >> shift",
    )
)


def _bn_infer(types, attrs, tensors, where):
    (x,) = types
    for key in ("mean", "var", "weight", "bias"):
        ref = attrs.get(key)
        if ref is not None and tensors[ref.value.key].shape != (x.shape[0],):
            raise VerifyError(f"{where}: {key} must have shape ({x.shape[0]},), got {tensors[ref.value.key].shape}")
    lowest, eps = float(tensors[attrs["var"].value.key].min()), attrs["eps"].value
    if not lowest + eps > 0:
        raise VerifyError(f"{where}: variances must be above -eps = {-eps:g}, got {lowest:g}: the norm has no scale")
    return x


def bn_affine(tensor, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Scale and offset of an evaluated batch norm: y = scale*x + offset; ``tensor(key)`` gives its arrays."""
    mean, var = tensor("mean").astype(np.float64), tensor("var").astype(np.float64)
    gamma, beta = tensor("weight"), tensor("bias")
    scale = (1.0 if gamma is None else gamma.astype(np.float64)) / np.sqrt(var + eps)
    return scale, (0.0 if beta is None else beta.astype(np.float64)) - mean * scale


def _bn_eval(c: Call) -> np.ndarray:
    scale, offset = bn_affine(c.tensor, c.attr("eps"))
    return c.inputs[0] * scale[None, :, None, None] + offset[None, :, None, None]


BN_ATTRS = {"mean": TENSOR, "var": TENSOR, "weight": TENSOR, "bias": TENSOR, "eps": NUMBER}
register(OpSpec("batch_norm", 1, _bn_infer, _bn_eval, BN_ATTRS, ("mean", "var", "eps"), doc="evaluated batch norm"))


def _pad_infer(types, attrs, tensors, where):
    (x,) = types
    (py, px), value = _pair(attrs, "pad", (0, 0), where), tensors[attrs["value"].value.key]
    if x.is_event or min(py, px) < 0 or value.shape != (x.shape[0],):
        raise VerifyError(f"{where}: pad2d takes a current, pads >= 0 and one value per channel, got {x}")
    return ValueType(x.kind, (x.shape[0], x.shape[1] + 2 * py, x.shape[2] + 2 * px))


def _pad_eval(c: Call) -> np.ndarray:
    (py, px), x = c.attr("pad"), c.inputs[0]
    value = c.tensor("value")
    assert value is not None
    shape = (*x.shape[:2], x.shape[2] + 2 * py, x.shape[3] + 2 * px)
    out = np.broadcast_to(value.astype(np.float64)[None, :, None, None], shape).copy()
    out[:, :, py : py + x.shape[2], px : px + x.shape[3]] = x
    return out


register(
    OpSpec(
        "pad2d",
        1,
        _pad_infer,
        _pad_eval,
        {"pad": PAIR, "value": TENSOR},
        ("pad", "value"),
        doc="pad a current with one value per channel (the ring of a RepConv's BNAndPad)",
    )
)


def _add_infer(types, attrs, tensors, where):
    shapes = {t.shape for t in types}
    if len(shapes) != 1:
        raise VerifyError(f"{where}: operands differ in shape: {', '.join(map(str, types))}")
    if all(t.is_event for t in types):
        if any(t.signed for t in types):
            raise VerifyError(f"{where}: signed graded spikes cannot be added as codes")
        top = sum((1 << t.bits) - 1 if t.kind is Kind.GRADED else 1 for t in types)
        return ValueType(Kind.GRADED, types[0].shape, top.bit_length())
    if any(t.is_event for t in types):
        raise VerifyError(f"{where}: cannot add events and currents; put a projection between")
    return ValueType(Kind.CURRENT, types[0].shape)


register(
    OpSpec(
        "add",
        None,
        _add_infer,
        lambda c: sum(c.inputs[1:], start=c.inputs[0]),
        doc="sum of currents, or of codes",
    )
)


def _scale_infer(types, attrs, tensors, where):
    (x,) = types
    ref = attrs["factor"].value
    if isinstance(ref, (int, float)):
        return x if not x.is_event else ValueType(Kind.CURRENT, x.shape)
    if tensors[ref.key].shape not in ((x.shape[0],), tuple(x.shape)):
        raise VerifyError(f"{where}: factor must be a number or have shape ({x.shape[0]},) or {x.shape}")
    return x if not x.is_event else ValueType(Kind.CURRENT, x.shape)


def _scale_eval(c: Call) -> np.ndarray:
    factor = c.attr("factor")
    if isinstance(factor, (int, float)):
        return c.inputs[0] * factor
    array = c.tensors[factor.key].astype(np.float64)
    return c.inputs[0] * (array[:, None, None] if array.ndim == 1 else array)


SCALE_DOC = "times a number, or one per channel or element; of events it makes a current"
register(OpSpec("scale", 1, _scale_infer, _scale_eval, {"factor": (*NUMBER, *TENSOR)}, ("factor",), doc=SCALE_DOC))


def _sum_infer(types, attrs, tensors, where):
    (x,) = types
    if x.signed:
        raise VerifyError(f"{where}: signed graded spikes cannot be added as codes")
    if x.is_event:
        top = ((1 << x.bits) - 1 if x.kind is Kind.GRADED else 1) * x.shape[1] * x.shape[2]
        return ValueType(Kind.GRADED, (x.shape[0], 1, 1), top.bit_length())
    return ValueType(x.kind, (x.shape[0], 1, 1))


register(
    OpSpec(
        "sum_positions",
        1,
        _sum_infer,
        lambda c: c.inputs[0].sum(axis=(2, 3), keepdims=True),
        doc="sum over all positions (tokens) of a channel",
    )
)

POOL_ATTRS = {"kernel": PAIR, "stride": PAIR, "pad": PAIR}


def pool_shape(x: ValueType, attrs: dict[str, Attr], where: str) -> tuple[int, int, int]:
    """Shape of a pool's output."""
    kernel, pad = _pair(attrs, "kernel", (1, 1), where), _pair(attrs, "pad", (0, 0), where)
    if any(2 * p > k for p, k in zip(pad, kernel, strict=True)):
        raise VerifyError(f"{where}: pad {pad} is more than half of the window {kernel}")
    h, w = _conv_geometry(attrs, kernel, x.shape, where)
    return x.shape[0], h, w


def _pool_infer(types, attrs, tensors, where):
    (x,) = types
    if x.signed:
        raise VerifyError(f"{where}: cannot pool signed graded spikes")
    return ValueType(x.kind, pool_shape(x, attrs, where), x.bits)


def _maxpool_eval(c: Call) -> np.ndarray:
    x = c.inputs[0]
    (kh, kw), (sy, sx), (py, px) = c.attr("kernel"), c.attr("stride", (1, 1)), c.attr("pad", (0, 0))
    lowest = np.iinfo(np.int64).min if x.dtype.kind == "i" else -np.inf
    xp = np.pad(x, ((0, 0), (0, 0), (py, py), (px, px)), constant_values=lowest)
    win = np.lib.stride_tricks.sliding_window_view(xp, (kh, kw), axis=(2, 3))
    return win[:, :, ::sy, ::sx].max(axis=(4, 5))


register(OpSpec("maxpool2d", 1, _pool_infer, _maxpool_eval, POOL_ATTRS, ("kernel",), doc="max over windows"))


def _rshift_infer(types, attrs, tensors, where):
    if types[0].is_event:
        raise VerifyError(f"{where}: rshift takes a current, not {types[0]}")
    check_shifts(attrs, where)
    return types[0]


register(
    OpSpec(
        "rshift",
        1,
        _rshift_infer,
        lambda c: c.inputs[0] >> c.attr("shift"),
        {"shift": (int,)},
        ("shift",),
        doc="negative weight exponent, applied after summation: floor(x / 2^shift) (integer graphs)",
    )
)

MAP_MODES = ("same", "reduce", "broadcast", "window", "reduce_channels", "broadcast_channels")


def _map_infer(types, attrs, tensors, where):
    (x,) = types
    mode = attrs["mode"].value
    if mode not in MAP_MODES:
        raise VerifyError(f"{where}: mode must be one of {', '.join(MAP_MODES)}, not '{mode}'")
    if not x.is_event:
        raise VerifyError(f"{where}: a map takes events, not {x}")
    check_shifts(attrs, where)
    if mode == "reduce":
        return ValueType(Kind.CURRENT, (x.shape[0], 1, 1))
    if mode == "broadcast":
        if x.shape[1:] != (1, 1) or "size" not in attrs:
            raise VerifyError(f"{where}: broadcast wants a (C, 1, 1) input and a size, got {x}")
        size = _pair(attrs, "size", (1, 1), where)
        if min(size) < 1:
            raise VerifyError(f"{where}: size must be >= 1, got {size}")
        return ValueType(Kind.CURRENT, (x.shape[0], *size))
    if mode == "window":
        if "kernel" not in attrs:
            raise VerifyError(f"{where}: a window map wants a kernel")
        size = _conv_geometry(attrs, _pair(attrs, "kernel", (1, 1), where), x.shape, where)
        return ValueType(Kind.CURRENT, (x.shape[0], *size))
    if mode != "same":
        return ValueType(Kind.CURRENT, (_channels(x, mode, attrs, where), *x.shape[1:]))
    return ValueType(Kind.CURRENT, x.shape)


def _channels(x: ValueType, mode: str, attrs: dict[str, Attr], where: str) -> int:
    """Channels behind a map that sums or copies blocks of them."""
    if "channels" not in attrs:
        raise VerifyError(f"{where}: {mode} wants a number of channels")
    channels = int(attrs["channels"].value)  # type: ignore[arg-type]
    many, few = (x.shape[0], channels) if mode == "reduce_channels" else (channels, x.shape[0])
    if channels < 1 or many % few:
        raise VerifyError(f"{where}: {few} channels do not divide {many}: {mode} has blocks of equal size")
    check_shape((channels, *x.shape[1:]), where)
    return channels


def _map_eval(c: Call) -> np.ndarray:
    x, mode = c.inputs[0], c.attr("mode")
    if c.integer:
        x = x << c.attr("shift", 0)
    if mode == "reduce":
        return x.sum(axis=(2, 3), keepdims=True)
    if mode == "broadcast":
        return np.broadcast_to(x, (*x.shape[:2], *c.attr("size")))
    if mode == "window":
        (kh, kw), (sy, sx), (py, px) = c.attr("kernel"), c.attr("stride", (1, 1)), c.attr("pad", (0, 0))
        xp = np.pad(x, ((0, 0), (0, 0), (py, py), (px, px)))
        return np.lib.stride_tricks.sliding_window_view(xp, (kh, kw), axis=(2, 3))[:, :, ::sy, ::sx].sum(axis=(4, 5))
    if mode == "reduce_channels":
        return x.reshape(len(x), c.attr("channels"), -1, *x.shape[2:]).sum(axis=2)
    if mode == "broadcast_channels":
        return x.repeat(c.attr("channels") // x.shape[1], axis=1)
    return x


register(
    OpSpec(
        "map",
        1,
        _map_infer,
        _map_eval,
        {"mode": (str,), "shift": (int,), "size": PAIR, "channels": (int,), **POOL_ATTRS},
        ("mode",),
        doc="constant-weight projection, by channel or by block of channels: code << shift (integer graphs)",
    )
)


def _mul_infer(types, attrs, tensors, where):
    a, b = types
    if a.kind is not Kind.SPIKE or b.kind is not Kind.SPIKE:
        raise VerifyError(f"{where}: mul takes plain spikes (a mask), got {a} and {b}")
    by_channel = b.shape == (a.shape[0], 1, 1)
    by_block = b.shape[1:] == a.shape[1:] and a.shape[0] % b.shape[0] == 0
    if not (by_channel or by_block):
        c, h, w = a.shape
        raise VerifyError(
            f"{where}: shapes {a} and {b} do not match (the mask may be ({c},1,1), or (G,{h},{w}) where G divides {c})"
        )
    return a


def _mul_eval(c: Call) -> np.ndarray:
    a, b = c.inputs
    return a * (b if b.shape[1] == a.shape[1] else b.repeat(a.shape[1] // b.shape[1], axis=1))


MUL_DOC = "mask of spikes, elementwise, for whole channels, or for whole blocks of channels (a head)"
register(OpSpec("mul", 2, _mul_infer, _mul_eval, doc=MUL_DOC))
