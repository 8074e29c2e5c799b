"""Populations as Lava Processes: stock ones where they compute the same, else those of folder/processes.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from nmc_compiler.program.model import CELL_ONE, Cell, Conv, Map, Population, Program, Sparse

MAX_BINS = 4  # neuron groups of different thresholds; beyond, one Process with a threshold per soma
READOUT_VTH = 131071  # largest threshold of 17 bits
GENERATED = {
    "lif": "GatedLIF", "levels": "Levels", "cell": "Cell",
    "relay": "Relay", "sigma_delta": "GatedSigmaDelta", "readout": "Readout"
}  # fmt: skip

Form = tuple[str, dict[str, Any], dict[str, np.ndarray]]  # kind, numbers, arrays by channel or by soma


def window_of(program: Program, level: int) -> dict[str, int]:
    """What a gated Process has to know of time."""
    ticks = {"interval": program.interval, "period": program.ticks_per_step}
    return {"level": level, "timesteps": program.timesteps} | ticks


def static(program: Program) -> list[Conv | Map | Sparse]:
    """All projections whose synapses are fixed."""
    return [*program.convs, *program.maps, *program.sparses]


def must_be_gated(program: Program) -> bool:
    """Whether an event from outside a window could reach a timestep inside one."""
    late = any(i.lag for i in static(program)) or any(s.extra is not None and s.extra.any() for s in program.sparses)
    return program.timesteps > 0 and late


def bins(program: Program, p: Population) -> list[np.ndarray]:
    """Channels in groups of equal thresholds; one group unless the model is a lif."""
    every = np.arange(p.shape[0])
    if p.model != "lif" or p.vth is None:
        return [every]
    low = np.zeros_like(p.vth) if p.vth_low is None else p.vth_low
    keys = np.stack([np.broadcast_to(v, every.shape) for v in (p.vth, low)], axis=1)
    return [every[(keys == key).all(axis=1)] for key in np.unique(keys, axis=0)]


def stock(program: Program, p: Population, channels: np.ndarray, gain: float) -> Form | None:
    """The stock Process of some channels of a population, or None. ``gain``: bound of |a| of a readout's dendrite."""
    if program.ticks_per_step != 1 or must_be_gated(program):
        return None
    if p.model == "lif":
        return _lif(program, p, channels)
    if p.model == "sigma_delta":
        return _sigma_delta(program, p)
    if p.model == "readout":
        return _readout(program, p, gain)
    return None


def generated(program: Program, p: Population) -> Form:
    """The generated Process of a whole population."""
    numbers: dict[str, Any] = {"window": window_of(program, p.level)}
    arrays = {"bias": _per_channel(p, p.bias)} if p.model != "relay" else {}
    if p.model == "lif":
        interval, offset = p.restart or (0, 0)
        values = {"du": p.du, "dv": p.dv, "restart_interval": interval, "restart_offset": offset}
        arrays |= {"vth": _per_channel(p, p.vth)}
        arrays |= {} if p.vth_low is None else {"vth_low": _per_channel(p, p.vth_low)}
        for key, start in (("start_u", p.start_u), ("start_v", p.start_v)):
            arrays |= {} if start is None else {key: start.transpose(2, 1, 0)}
        return GENERATED[p.model], numbers | {"numbers": values}, arrays
    if p.cell is not None:
        return GENERATED[p.model], *_cell(p, p.cell, numbers)
    if p.model == "levels":
        assert p.thresholds is not None  # validated
        return GENERATED[p.model], numbers, arrays | {"thresholds": p.thresholds}
    if p.model == "sigma_delta":
        values = {"relu": p.relu, "cumulative": p.cumulative, "out_shift": p.out_shift}
        return GENERATED[p.model], numbers | {"numbers": values}, arrays | {"vth": _per_channel(p, p.vth)}
    return GENERATED[p.model], numbers, arrays


def _cell(p: Population, cell: Cell, numbers: dict[str, Any]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    reset = ("none" if cell.step is None else "soft") if cell.soft else "hard"
    values = {"du": p.du, "dv": p.dv, "db": cell.db, "late": cell.late, "reset": reset, "sums": list(cell.sums or ())}
    tables = {"gain": (cell.gain, CELL_ONE), "rise": (cell.rise, 0)}
    arrays = {k: np.full((1, 1), other, np.int64) if given is None else given for k, (given, other) in tables.items()}
    arrays["bias"] = _per_channel(p, p.bias)[None] if cell.bias is None else cell.bias
    arrays |= {k: _per_channel(p, getattr(cell, k)) for k in ("step", "jump")}
    arrays |= {k: getattr(cell, k) for k in ("low", "floor") if getattr(cell, k) is not None}
    starts = {"start_u": p.start_u, "start_v": p.start_v}
    arrays |= {k: start.transpose(2, 1, 0) for k, start in starts.items() if start is not None}
    assert p.thresholds is not None  # validated
    return numbers | {"numbers": values}, arrays | {"thresholds": p.thresholds}


def _per_channel(p: Population, values: np.ndarray | None) -> np.ndarray:
    return np.zeros(p.shape[0], np.int64) if values is None else np.broadcast_to(values, p.shape[:1]).astype(np.int64)


def mantissas(bias: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """(bias_mant, bias_exp) of 13 and 3 bits, the smallest exponent at which ``mant << exp == bias``, or None."""
    mantissa, exponent = np.zeros_like(bias), np.zeros_like(bias)
    left = np.ones(bias.shape, bool)
    for e in range(8):
        fits = left & (bias >> e << e == bias) & (bias >> e >= -4096) & (bias >> e <= 4095)
        mantissa[fits], exponent[fits] = bias[fits] >> e, e
        left &= ~fits
    return None if left.any() else (mantissa, exponent)


def _lif(program: Program, p: Population, channels: np.ndarray) -> Form | None:
    bias = _per_channel(p, p.bias)[channels]
    split = mantissas(bias)
    if split is None:
        return None
    found = _windowed(program, p) if program.timesteps else _stream(p, bool(bias.any()))
    if found is None:
        return None
    kind, numbers = found
    vth = int(_per_channel(p, p.vth)[channels][0])
    numbers |= {"du": p.du, "dv": p.dv}
    numbers |= {"vth": vth} if p.vth_low is None else {"vth_hi": vth, "vth_lo": int(p.vth_low[channels][0])}
    arrays = {"bias_mant": split[0], "bias_exp": split[1]}
    for key, start in (("u", p.start_u), ("v", p.start_v)):
        arrays |= {} if start is None else {key: start[channels].transpose(2, 1, 0)}
    return kind, numbers, arrays


def _windowed(program: Program, p: Population) -> tuple[str, dict[str, Any]] | None:
    """Somas run on between windows, but what they hold is wiped when one starts."""
    if p.restart or p.start_u is not None or p.start_v is not None:
        return None
    if p.du == 4095 and p.dv == 4096:
        return ("LIF" if p.vth_low is None else "TernaryLIF"), {}
    if p.vth_low is not None:
        return None
    return "LIFReset", reset(program.interval, p.level + 1)


def _stream(p: Population, biased: bool) -> tuple[str, dict[str, Any]] | None:
    """Somas of a later level would live ``level`` ticks too early: only those at rest may."""
    if p.level and (biased or p.start_u is not None or p.start_v is not None):
        return None
    if p.vth_low is not None:
        return None if p.restart else ("TernaryLIF", {})
    if p.restart:
        return "LIFReset", reset(p.restart[0], p.restart[1] + p.level)
    return "LIF", {}


def reset(interval: int, offset: int) -> dict[str, Any]:
    """Lava resets where time_step % interval = offset; time_step counts from 1."""
    return {"reset_interval": interval, "reset_offset": offset % interval}


def _readout(program: Program, p: Population, gain: float) -> Form | None:
    """A LIF that cannot fire: its potential stays below the largest threshold."""
    bias = _per_channel(p, p.bias)
    split = mantissas(bias)
    worst = program.timesteps * (64 * gain + float(np.abs(bias).max(initial=0)))
    if split is None or not program.timesteps or worst >= READOUT_VTH * 64 or 64 * gain >= 2**23:
        return None
    numbers = {"du": 4095, "dv": 0, "vth": READOUT_VTH} | reset(program.interval, p.level + 1)
    return "LIFReset", numbers, {"bias_mant": split[0], "bias_exp": split[1]}


def _sigma_delta(program: Program, p: Population) -> Form | None:
    vth, bias = _per_channel(p, p.vth), _per_channel(p, p.bias)
    grain = (1 << p.out_shift) - 1
    odd = bool((vth & grain).any() or (bias & grain).any())
    if program.timesteps or odd or len(set(vth.tolist())) > 1 or (p.level and bool(bias.any())):
        return None
    numbers = {"vth": int(vth[0]) >> p.out_shift, "relu": p.relu, "cum_error": p.cumulative}
    numbers |= {"spike_exp": 0, "state_exp": p.out_shift}
    return "SigmaDelta", numbers, {"bias": bias >> p.out_shift}
