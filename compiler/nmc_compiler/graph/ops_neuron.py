"""Inputs, neurons and read-outs: where time and state live."""

from __future__ import annotations

import math

import numpy as np

from nmc_compiler.errors import VerifyError
from nmc_compiler.graph.firing import BY_TIMESTEP, MOVING, by_timestep, check_firing, check_tables, fire
from nmc_compiler.graph.registry import NUMBER, TENSOR, Call, OpSpec, register
from nmc_compiler.graph.types import Kind, ValueType

PAIR = (tuple,)
RECORD = {"record_perm": PAIR, "record_shape": PAIR, "record_window": PAIR}  # window: first timestep, how many
PROFILE = {"profile": (str,)}  # integer rules of a chip; loihi2 where not given
PART = {"part_of": (str,), "elements": TENSOR}  # of a neuron that was split: its name, and which of its elements
PROFILES = ("loihi1", "loihi2", "neurocore")

STATE_MAX = 1 << 23  # membrane potential and current: 24-bit registers (Lava 0.10, lava_fixed_point 2.2)
WEIGHT_SHIFT = 6  # a_in << 6 and vth << 6


def _input_infer(types, attrs, tensors, where):
    shape = attrs["shape"].value
    if len(shape) != 3 or min(shape) < 1:
        raise VerifyError(f"{where}: shape must be (C, H, W), each >= 1, got {shape}")
    if "bits" not in attrs:
        if "signed" in attrs:
            raise VerifyError(f"{where}: signed goes with bits, the payload of the input's events")
        return ValueType(Kind.REAL, shape)
    bits, signed = attrs["bits"].value, "signed" in attrs and attrs["signed"].value
    if not (2 if signed else 0) <= bits <= 24:
        raise VerifyError(f"{where}: bits must lie in {2 if signed else 0}..24, got {bits}")
    return ValueType(Kind.GRADED, shape, bits, signed) if bits else ValueType(Kind.SPIKE, shape)


def check_record(attrs, shape: tuple[int, int, int], where: str) -> None:
    perm = attrs["record_perm"].value if "record_perm" in attrs else (0, 1, 2)
    if sorted(perm) != [0, 1, 2]:
        raise VerifyError(f"{where}: record_perm must reorder (0, 1, 2), got {perm}")
    layout = attrs["record_shape"].value if "record_shape" in attrs else shape
    if any(n < 0 for n in layout) or math.prod(layout) != math.prod(shape):
        raise VerifyError(f"{where}: record_shape {layout} does not hold {math.prod(shape)} codes of {shape}")
    window = attrs["record_window"].value if "record_window" in attrs else (0, 1)
    if len(window) != 2 or window[0] < 0 or window[1] < 1:
        raise VerifyError(f"{where}: record_window must be (first timestep, how many), got {window}")


def _no_eval(c: Call) -> np.ndarray:
    raise VerifyError(f"{c.where}: the interpreter feeds inputs itself")


register(
    OpSpec(
        "input",
        0,
        _input_infer,
        _no_eval,
        {"shape": PAIR, "bits": (int,), "signed": (bool,), "after": PAIR},  # after: what the host reads first
        ("shape",),
        doc="one sample, (C, H, W): real values, or with bits events: spikes (0) or codes of so many bits",
    )
)


def _encode_infer(types, attrs, tensors, where):
    lo, hi = attrs["lo"].value, attrs["hi"].value
    if types[0].is_event or lo > hi:
        raise VerifyError(f"{where}: encode wants real values and lo <= hi, got {types[0]} and {lo}..{hi}")
    check_record(attrs, types[0].shape, where)
    bits = max(abs(lo), hi).bit_length() + (1 if lo < 0 else 0)
    return ValueType(Kind.GRADED, types[0].shape, bits, lo < 0)


def _encode_eval(c: Call) -> np.ndarray:
    code = np.rint(c.inputs[0] * c.attr("scale")).astype(np.int64)
    lo, hi = c.attr("lo"), c.attr("hi")
    if code.size and (code.min() < lo or code.max() > hi):
        raise VerifyError(
            f"{c.where}: input values encode to {code.min()}..{code.max()}, outside {lo}..{hi}; "
            f"give the input range in the config (input_range)"
        )
    return code


register(
    OpSpec(
        "encode",
        1,
        _encode_infer,
        _encode_eval,
        {"scale": NUMBER, "lo": (int,), "hi": (int,), **RECORD},
        ("scale", "lo", "hi"),
        doc="real input to graded events: rint(x*scale), refused outside lo..hi",
    )
)


def _current_in(types, where: str) -> ValueType:
    if types[0].is_event:
        raise VerifyError(f"{where}: a neuron takes a current, not {types[0]}")
    return types[0]


def check_vector(attrs, tensors, key: str, channels: int, where: str) -> None:
    ref = attrs.get(key)
    if ref is not None and not isinstance(ref.value, (int, float)) and tensors[ref.value.key].shape != (channels,):
        raise VerifyError(f"{where}: {key} must have shape ({channels},), got {tensors[ref.value.key].shape}")


def _lif_infer(types, attrs, tensors, where):
    x = _current_in(types, where)
    check_vector(attrs, tensors, "bias", x.shape[0], where)
    if attrs["reset"].value not in ("hard", "soft", "none"):
        raise VerifyError(f"{where}: reset must be hard, soft or none")
    if attrs["compare"].value not in ("ge", "gt"):
        raise VerifyError(f"{where}: compare must be ge or gt")
    check_record(attrs, x.shape, where)
    if not attrs["tau"].value >= 1:
        raise VerifyError(f"{where}: tau must be >= 1 timestep, got {attrs['tau'].value}")
    check_firing(attrs, tensors, x.shape, where)
    return ValueType(Kind.SPIKE, x.shape)


def biased(c: Call) -> np.ndarray:
    bias = c.tensor("bias")
    x = c.inputs[0] if bias is None else c.inputs[0] + bias.astype(np.float64)[None, :, None, None]
    return by_timestep(c, x) * c.attr("gain", 1.0)


def _lif_eval(c: Call) -> np.ndarray:
    """N1: h = v + (x - (v - v_reset))/tau; without decay_input h = v - (v - v_reset)/tau + x."""
    x, tau, v_reset, decay_input = biased(c), c.attr("tau"), c.attr("v_reset", 0.0), c.attr("decay_input")

    def charge(v: np.ndarray) -> np.ndarray:
        return v + (x - (v - v_reset)) / tau if decay_input else v - (v - v_reset) / tau + x

    v = c.state.get("v", np.full(x.shape, float(v_reset)))
    return fire(c, v, charge, v_reset, c.attr("reset"))


register(
    OpSpec(
        "lif",
        1,
        _lif_infer,
        _lif_eval,
        {
            "tau": NUMBER,
            "theta": NUMBER,
            "v_reset": NUMBER,
            "reset": (str,),
            "compare": (str,),
            "decay_input": (bool,),
            "gain": NUMBER,
            "bias": TENSOR,
            "role": (str,),
            **MOVING,
            **RECORD,
            **PART,
        },
        ("tau", "theta", "reset", "compare", "decay_input"),
        neuron=True,
        doc="leaky integrate and fire (models.md N1, N1a); input (gain_t[t] (x + bias) + bias_t[t])*gain",
    )
)


def _ml_infer(types, attrs, tensors, where):
    x = _current_in(types, where)
    check_vector(attrs, tensors, "bias", x.shape[0], where)
    if attrs["rounding"].value not in ("half_even", "half_up"):
        raise VerifyError(f"{where}: rounding must be half_even or half_up")
    if attrs["levels"].value < 1 or ("norm" in attrs and not attrs["norm"].value > 0):
        raise VerifyError(f"{where}: levels must be >= 1 and norm > 0")
    check_record(attrs, x.shape, where)
    check_tables(attrs, tensors, x.shape[0], where)
    return ValueType(Kind.GRADED, x.shape, attrs["levels"].value.bit_length())


def _ml_eval(c: Call) -> np.ndarray:
    """N4/N5: round(clamp(x, 0, D))/norm; half_even as torch.round, half_up as floor(x + 1/2)."""
    x = np.clip(biased(c), 0, c.attr("levels"))
    code = np.rint(x) if c.attr("rounding") == "half_even" else np.floor(x + 0.5)
    return code / c.attr("norm", 1)


register(
    OpSpec(
        "multilevel",
        1,
        _ml_infer,
        _ml_eval,
        {
            "levels": (int,),
            "norm": NUMBER,
            "rounding": (str,),
            "gain": NUMBER,
            "bias": TENSOR,
            **BY_TIMESTEP,
            **RECORD,
            **PART,
        },
        ("levels", "rounding"),
        neuron=True,
        doc="stateless multi-level spike (models.md N4, N5); value = code/norm",
    )
)


def _readout_infer(types, attrs, tensors, where):
    x = _current_in(types, where)
    check_vector(attrs, tensors, "bias", x.shape[0], where)
    if x.shape[1:] != (1, 1):
        raise VerifyError(f"{where}: a readout takes a vector (C, 1, 1), got {x}")
    return ValueType(Kind.REAL, x.shape)


def _readout_eval(c: Call) -> np.ndarray:
    """Mean over T of the input current; the interpreter keeps the value of the last timestep."""
    total = c.state.get("sum", 0.0) + biased(c)
    c.state["sum"] = total
    return total / c.timesteps


register(
    OpSpec(
        "readout",
        1,
        _readout_infer,
        _readout_eval,
        {"bias": TENSOR, "gain": NUMBER},
        (),
        neuron=True,
        doc="logits: mean over timesteps of a current",
    )
)


# ---- integer neurons: the chip's own rules (docs/integers.md) ----


def _check_profile(attrs, where: str) -> None:
    profile = attrs["profile"].value if "profile" in attrs else "loihi2"
    if profile not in PROFILES:
        raise VerifyError(f"{where}: profile must be one of {', '.join(PROFILES)}, got {profile!r}")


def wrap24(c: Call, u: np.ndarray) -> np.ndarray:
    if c.attr("profile") == "loihi1":
        wrapped = (u + STATE_MAX) % (2 * STATE_MAX) - STATE_MAX
        c.overflow(c.where, "current u", wrapped != u)
        return wrapped
    if c.attr("profile") == "neurocore":
        clipped = np.clip(u, -STATE_MAX + 1, STATE_MAX - 1)
        c.overflow(c.where, "current u", clipped != u)
        return clipped
    over, under = u > STATE_MAX, u <= -STATE_MAX
    c.overflow(c.where, "current u", over | under)
    return np.where(over, u - 2 * STATE_MAX, np.where(under, u + 2 * STATE_MAX, u))


def clip24(c: Call, v: np.ndarray) -> np.ndarray:
    clipped = np.clip(v, -STATE_MAX + 1, STATE_MAX - 1)
    c.overflow(c.where, "membrane potential v", clipped != v)
    return clipped


def decayed(x: np.ndarray, d: int) -> np.ndarray:
    return np.sign(x) * ((np.abs(x) * (4096 - d)) >> 12)


def column(vector: np.ndarray | None) -> np.ndarray | int:
    return 0 if vector is None else vector.astype(np.int64)[None, :, None, None]


def check_cuba(types, attrs, tensors, where: str) -> None:
    """Parameters of a soma with current and potential; its input is a current."""
    x = _current_in(types, where)
    for key in ("vth", "vth_low", "bias"):
        check_vector(attrs, tensors, key, x.shape[0], where)
    for key, top in (("du", 4095), ("dv", 4096)):
        if key in attrs and not 0 <= attrs[key].value <= top:
            raise VerifyError(f"{where}: {key} must lie in 0..{top}, got {attrs[key].value}")
    for key in ("start_u", "start_v"):
        if key in attrs and tensors[attrs[key].value.key].shape != tuple(x.shape):
            raise VerifyError(f"{where}: {key} must have shape {x.shape}, got {tensors[attrs[key].value.key].shape}")
    _check_profile(attrs, where)


def _cuba_infer(types, attrs, tensors, where):
    check_cuba(types, attrs, tensors, where)
    shape = types[0].shape
    restart = attrs["restart"].value if "restart" in attrs else (1, 0)
    if len(restart) != 2 or restart[0] < 1 or restart[1] < 0:
        raise VerifyError(f"{where}: restart must be (interval >= 1, offset >= 0) in timesteps, got {restart}")
    check_record(attrs, shape, where)
    if "vth_low" not in attrs:
        return ValueType(Kind.SPIKE, shape)
    low, high = (tensors[attrs[key].value.key] for key in ("vth_low", "vth"))
    if (low >= high).any():
        raise VerifyError(f"{where}: vth_low must be below vth in every channel")
    return ValueType(Kind.GRADED, shape, 2, True)


def cuba_update(c: Call) -> np.ndarray:
    """Current and potential of this timestep, before any reset; the current is kept, the potential returned."""
    zero = np.zeros_like(c.inputs[0])
    start_u, start_v = (zero if (x := c.tensor(f"start_{k}")) is None else zero + x for k in "uv")
    u, v = c.state.get("u", start_u), c.state.get("v", start_v)
    if "restart" in c.attrs:
        interval, offset = c.attr("restart")
        u, v = (zero, zero) if (c.timestep + 1) % interval == offset % interval else (u, v)
    c.state["u"] = wrap24(c, decayed(u, c.attr("du", 4095) + 1) + (c.inputs[0] << WEIGHT_SHIFT))
    return clip24(c, decayed(v, c.attr("dv")) + c.state["u"] + column(c.tensor("bias")))


def _cuba_eval(c: Call) -> np.ndarray:
    v = cuba_update(c)
    code = (v > (column(c.tensor("vth")) << WEIGHT_SHIFT)).astype(np.int64)
    if "vth_low" in c.attrs:
        code -= v < (column(c.tensor("vth_low")) << WEIGHT_SHIFT)
    c.state["v"] = np.where(code != 0, 0, v)
    return code


register(
    OpSpec(
        "cuba_lif",
        1,
        _cuba_infer,
        _cuba_eval,
        {
            "du": (int,),
            "dv": (int,),
            "vth": TENSOR,
            "vth_low": TENSOR,
            "bias": TENSOR,
            "restart": PAIR,
            "start_u": TENSOR,
            "start_v": TENSOR,
            "role": (str,),
            "scale": NUMBER,
            **RECORD,
            **PROFILE,
            **PART,
        },
        ("dv", "vth"),
        neuron=True,
        doc="Lava's bit-accurate LIF, du=4095 where not given (no current memory); v times scale is in thresholds",
    )
)


def _levels_infer(types, attrs, tensors, where):
    x = _current_in(types, where)
    thresholds = tensors[attrs["thresholds"].value.key]
    check_vector(attrs, tensors, "bias", x.shape[0], where)
    check_record(attrs, x.shape, where)
    _check_profile(attrs, where)
    if thresholds.ndim != 2 or thresholds.shape[0] not in (1, x.shape[0]) or not thresholds.shape[1]:
        raise VerifyError(f"{where}: thresholds must be [1 or {x.shape[0]}, D], got {thresholds.shape}")
    return ValueType(Kind.GRADED, x.shape, int(thresholds.shape[1]).bit_length())


def _levels_eval(c: Call) -> np.ndarray:
    u = wrap24(c, c.inputs[0] << WEIGHT_SHIFT)
    v = clip24(c, u + column(c.tensor("bias")))
    thresholds = c.tensor("thresholds")
    assert thresholds is not None
    return (v[..., None] >= thresholds.astype(np.int64)[None, :, None, None, :]).sum(axis=-1)


register(
    OpSpec(
        "levels",
        1,
        _levels_infer,
        _levels_eval,
        {"thresholds": TENSOR, "bias": TENSOR, **RECORD, **PROFILE, **PART},
        ("thresholds",),
        neuron=True,
        doc="stateless integer level table: code = #{n : v >= thresholds[c, n]}",
    )
)


def _relay_infer(types, attrs, tensors, where):
    shape = _current_in(types, where).shape
    check_record(attrs, shape, where)
    return ValueType(Kind.GRADED, shape, 24, True)


def _relay_eval(c: Call) -> np.ndarray:
    c.overflow(c.where, "relay payload", np.abs(c.inputs[0]) >= STATE_MAX)
    return c.inputs[0]


register(OpSpec("relay", 1, _relay_infer, _relay_eval, {**RECORD}, (), neuron=True, doc="current as graded events"))


def _int_readout_infer(types, attrs, tensors, where):
    _check_profile(attrs, where)
    return _readout_infer(types, attrs, tensors, where)


def _int_readout_eval(c: Call) -> np.ndarray:
    u = wrap24(c, c.inputs[0] << WEIGHT_SHIFT)
    v = clip24(c, c.state.get("v", np.zeros_like(u)) + u + column(c.tensor("bias")))
    c.state["v"] = v
    return v


register(
    OpSpec(
        "int_readout",
        1,
        _int_readout_infer,
        _int_readout_eval,
        {"bias": TENSOR, "scale": NUMBER, "offset": TENSOR, **PROFILE},
        ("scale",),
        neuron=True,
        doc="non-leaky integrator read after the last timestep; logit = v*scale, of sites (v/number + offset)*scale",
    )
)
