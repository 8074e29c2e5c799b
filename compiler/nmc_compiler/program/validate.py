"""Every rule that a Program must keep before anything runs it.

A Program may come from a damaged or hostile file. What passes here has no index,
shape, level or delay that could lead a kernel astray, whoever computed the digest.
Whether the mapping delivers every synapse is the business of `nmc_compiler.mapping.check`.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from nmc_compiler.program.learning import check_core, check_traces
from nmc_compiler.program.model import HostCodes, HostCurrent, Population, Program
from nmc_compiler.program.rules import (
    NUMBER_LIMIT,
    check_array,
    check_index,
    check_pair,
    check_range,
    check_same,
    check_shape,
    check_text,
    check_values,
    fail,
)
from nmc_compiler.program.shapes import conv_out
from nmc_compiler.program.sites import check_sites, check_window, fixed
from nmc_compiler.program.timing import check_timing
from nmc_compiler.program.validate_cell import check_cell
from nmc_compiler.program.validate_edges import check_edges
from nmc_compiler.program.validate_mapping import check_tables

MAX_ACCUMULATORS = 2**28  # all dendrites and rings together; about 1 GiB of state
MAX_STEPS = 2**40  # ticks between samples
STATE = 2**23  # membrane units of 24 bits: -2^23 < v < 2^23
VTH = 2**17  # threshold mantissa, 64 membrane units each
PROFILES = ("loihi1", "loihi2", "neurocore")  # integer rules; without a target they are those of loihi2


def validate_program(program: Program) -> None:
    """Raise VerifyError, with field path and numbers, for the first broken rule."""
    _check_head(program)
    for index, population in enumerate(program.populations):
        _check_population(program, population, f"populations/{index}")
    for index, dendrite in enumerate(program.dendrites):
        path = f"dendrites/{index}"
        check_text(f"{path}/name", dendrite.name)
        check_shape(f"{path}/shape", dendrite.shape)
        check_range(f"{path}/ring", dendrite.ring, 1, NUMBER_LIMIT)
        check_range(f"{path}/cluster", dendrite.cluster, 0, len(program.dendrites) - 1)
    _check_size(program)
    _check_names(program)
    check_sites(program)
    check_edges(program)
    check_traces(program)
    _check_host(program)
    check_timing(program)
    if program.mapping is not None:
        check_tables(program, program.mapping)


def _check_head(program: Program) -> None:
    if not 1 <= len(program.name) <= 200 or not program.name.isprintable():
        fail("name", f"{ascii(program.name)[:60]} is not a printable name of 1 to 200 characters")
    profile = program.target.get("profile", "loihi2")
    if profile not in PROFILES:
        fail("target/profile", f"{ascii(profile)[:60]} is none of the integer rules {', '.join(PROFILES)}")
    check_range("timesteps", program.timesteps, 0, NUMBER_LIMIT)
    check_range("ticks_per_step", program.ticks_per_step, 1, NUMBER_LIMIT)
    check_shape("input_shape", program.input_shape)
    if not program.populations:
        fail("populations", "there are none, so the network computes nothing")
    readouts = [i for i, p in enumerate(program.populations) if p.model == "readout"]
    if len(readouts) > 1:
        fail(f"populations/{readouts[1]}/model", "a second readout, but the host reads one population")
    if program.timesteps == 0:
        _check_stream(program)
        return
    if takes_images(program) and not any(p.model == "readout" for p in program.populations):
        fail("populations", "none has the model 'readout', so the network has no result for an image")
    shortest = program.timesteps * program.ticks_per_step
    check_range("interval", program.interval, shortest, MAX_STEPS)


def takes_images(program: Program) -> bool:
    """Whether the host makes events or currents of images; otherwise events are the input, if there is any."""
    return bool(program.host_currents or program.host_codes)


def _check_stream(program: Program) -> None:
    """One window without end: nothing may wait for its last timestep, and no image lasts that long."""
    if takes_images(program):
        fail("timesteps", "0, a stream, but the host encodes images; give the timesteps of one image")
    check_same("interval", program.interval, 0, "a stream (timesteps 0) has no second window")
    for index, p in enumerate(program.populations):
        if p.model == "readout":
            fail(f"populations/{index}/model", f"{p.name!r} is read after the last timestep, but a stream has none")


def _check_names(program: Program) -> None:
    for kind in ("populations", "dendrites"):
        first: dict[str, int] = {}
        for index, item in enumerate(getattr(program, kind)):
            if first.setdefault(item.name, index) != index:
                fail(f"{kind}/{index}/name", f"{item.name!r} is also the name of {kind}/{first[item.name]}")


def _check_size(program: Program) -> None:
    total = sum(math.prod(d.shape) * d.ring for d in program.dendrites)
    total += sum(math.prod(p.shape) for p in program.populations)
    if total > MAX_ACCUMULATORS:
        fail("dendrites", f"{total} accumulators and somas in all, at most {MAX_ACCUMULATORS} can be handled")


# --- populations ------------------------------------------------------------------------------------------


def _check_population(program: Program, p: Population, path: str) -> None:
    check_text(f"{path}/name", p.name)
    check_shape(f"{path}/shape", p.shape)
    check_range(f"{path}/level", p.level, 0, NUMBER_LIMIT)
    check_range(f"{path}/dv", p.dv, 0, 4096)
    for special in ("input", "readout"):
        if (p.model == special) != (p.role == special):
            fail(f"{path}/role", f"model {p.model!r} and role {p.role!r}: {special!r} goes with itself only")
    _check_reading(program, p, path)
    _check_parameters(p, path, program.modular, program.timesteps)
    _check_payload(p, path)
    if not math.isfinite(p.readout_scale):
        fail(f"{path}/readout_scale", f"{p.readout_scale} is not finite")
    _check_record(p, path)


def _check_reading(program: Program, p: Population, path: str) -> None:
    if p.model == "input":
        check_same(f"{path}/dendrite", p.dendrite, -1, "an input population reads no dendrite")
        return
    check_index(f"{path}/dendrite", p.dendrite, len(program.dendrites), "dendrite")
    dendrite = program.dendrites[p.dendrite]
    check_same(f"{path}/shape", p.shape, dendrite.shape, f"the shape of the dendrite read, {dendrite.name!r}")


_OWNERS = {
    "vth": ("lif", "sigma_delta"),
    "thresholds": ("levels", "cell"),
    "bias": ("lif", "levels", "cell", "readout", "sigma_delta"),
    "du": ("lif", "cell"),
    "vth_low": ("lif",),
    "restart": ("lif",),
    "start_u": ("lif", "cell"),
    "start_v": ("lif", "cell"),
    "core": ("lif",),
    "cell": ("cell",),
    "relu": ("sigma_delta",),
    "cumulative": ("sigma_delta",),
    "out_shift": ("sigma_delta",),
}
_NEEDED = ("vth", "thresholds", "cell")
_DEFAULTS = {f.name: f.default for f in dataclasses.fields(Population)}


def _check_parameters(p: Population, path: str, modular: bool, timesteps: int) -> None:
    for name, owners in _OWNERS.items():
        value = getattr(p, name)
        given = value is not None if _DEFAULTS[name] is None else value != _DEFAULTS[name]
        if given and p.model not in owners:
            fail(f"{path}/{name}", f"given, but model {p.model!r} has none")
        if value is None and p.model in owners and name in _NEEDED:
            fail(f"{path}/{name}", f"missing, but model {p.model!r} needs it")
    integer = p.model == "sigma_delta"  # its state has 32 bits, unscaled
    if p.bias is not None:
        check_array(f"{path}/bias", p.bias, np.int32, (p.shape[0],))
        check_values(f"{path}/bias", p.bias, *((-(2**31), 2**31 - 1) if integer else (-STATE + 1, STATE - 1)))
    if p.vth is not None:
        check_array(f"{path}/vth", p.vth, np.int32, (p.shape[0],))
        check_values(f"{path}/vth", p.vth, *((0, 2**31 - 1) if integer else (-VTH, VTH - 1)))
    check_range(f"{path}/out_shift", p.out_shift, 0, 31)
    _check_lif(p, path, modular)
    if p.core is not None:
        check_core(p.core, f"{path}/core")
    if p.thresholds is not None:
        rows = 1 if p.thresholds.shape[:1] == (1,) else p.shape[0]
        check_array(f"{path}/thresholds", p.thresholds, np.int32, (rows, None))
        if (np.diff(p.thresholds.astype(np.int64), axis=1) < 0).any():
            fail(f"{path}/thresholds", "a row is not ascending")
    if p.cell is not None:
        check_cell(p, p.cell, timesteps, f"{path}/cell")


def _check_lif(p: Population, path: str, modular: bool) -> None:
    check_range(f"{path}/du", p.du, 0, 4095)
    if p.restart is not None:
        check_range(f"{path}/restart", p.restart[0], 1, NUMBER_LIMIT)
        check_range(f"{path}/restart", p.restart[1], 0, NUMBER_LIMIT)
    u_range = (-STATE, STATE - 1) if modular else (-STATE + 1, STATE)
    for name, (low, top) in (("start_u", u_range), ("start_v", (-STATE + 1, STATE - 1))):
        start = getattr(p, name)
        if start is not None:
            check_array(f"{path}/{name}", start, np.int32, p.shape)
            check_values(f"{path}/{name}", start, low, top)
    if p.vth_low is not None and p.vth is not None:
        check_array(f"{path}/vth_low", p.vth_low, np.int32, (p.shape[0],))
        check_values(f"{path}/vth_low", p.vth_low, -VTH, VTH - 1)
        if (p.vth_low >= p.vth).any():
            c = int(np.argmax(p.vth_low >= p.vth))
            fail(f"{path}/vth_low", f"{p.vth_low[c]} of channel {c} is not below its vth {p.vth[c]}")


def _check_payload(p: Population, path: str) -> None:
    check_range(f"{path}/payload_bits", p.payload_bits, 0, 24)
    ternary = p.vth_low is not None or (p.cell is not None and p.cell.low is not None)
    sends_signed = p.model in ("relay", "sigma_delta") or ternary
    if p.signed and not sends_signed and p.model != "input":
        fail(f"{path}/signed", f"true, but codes of model {p.model!r} are not negative")
    if sends_signed and (not p.signed or p.payload_bits < (1 if ternary else 2)):
        what = f"a ternary {p.model}" if ternary else f"a {p.model}"
        fail(f"{path}/payload_bits", f"{p.payload_bits}, signed {p.signed}: {what} sends signed codes")
    if p.model == "readout" or (p.model == "lif" and not ternary):
        check_same(f"{path}/payload_bits", p.payload_bits, 0, f"model {p.model!r} sends no code")
    if p.thresholds is not None:
        largest = max(1, 2 ** (p.payload_bits - p.signed) - 1)
        if p.thresholds.shape[1] > largest:
            fail(
                f"{path}/payload_bits",
                f"the payload holds {largest}, but codes reach {p.thresholds.shape[1]}",
            )


def _check_record(p: Population, path: str) -> None:
    if p.record is None:
        return
    if sorted(p.record.perm) != [0, 1, 2]:
        fail(f"{path}/record/perm", f"{list(p.record.perm)} is not a permutation of 0, 1, 2")
    check_shape(f"{path}/record/shape", p.record.shape)
    size = math.prod(p.shape)
    check_same(f"{path}/record/shape", math.prod(p.record.shape), size, "the number of neurons")


# --- host -------------------------------------------------------------------------------------------------


def _check_host(program: Program) -> None:
    for index, current in enumerate(program.host_currents):
        _check_current(program, current, f"host_currents/{index}")
    for index, codes in enumerate(program.host_codes):
        _check_codes(program, codes, f"host_codes/{index}")
    encoded = [codes.population for codes in program.host_codes]
    for index, population in enumerate(program.populations):
        if population.model == "input" and takes_images(program) and encoded.count(index) != 1:
            fail("host_codes", f"{encoded.count(index)} entries for input {population.name!r}, expected 1")


def _check_current(program: Program, h: HostCurrent, path: str) -> None:
    check_index(f"{path}/dst", h.dst, len(program.dendrites), "dendrite")
    check_range(f"{path}/frac", h.frac, 0, 30)
    check_range(f"{path}/shift", h.shift, 0, 62)
    check_pair(f"{path}/stride", h.stride, 1)
    check_pair(f"{path}/pad", h.pad, 0)
    check_pair(f"{path}/dilation", h.dilation, 1)
    check_same(f"{path}/in_shape", h.in_shape, program.input_shape, "the shape of the input")
    check_range(f"{path}/groups", h.groups, 1, h.in_shape[0])
    check_array(f"{path}/weight", h.weight, np.int32, (None, None, None, None))
    out, per_group, kh, kw = h.weight.shape
    features = h.in_shape[0] - (3 if h.sites is not None and not fixed(program) else 0)  # without coordinates
    check_same(f"{path}/weight", per_group * h.groups, features, "the channels of the input")
    check_same(f"{path}/groups", out % h.groups, 0, f"{out} output channels leave a rest")
    check_array(f"{path}/bias", h.bias, np.int64, (out,))
    check_values(f"{path}/bias", h.bias, -(2**61), 2**61)
    grid = list(program.dendrites[h.dst].shape[1:]) if h.sites is not None else [
        conv_out(h.in_shape[1 + a], (kh, kw)[a], h.stride[a], h.pad[a], h.dilation[a]) for a in (0, 1)
    ]  # fmt: skip
    check_same(f"{path}/dst", program.dendrites[h.dst].shape, (out, *grid), "the output of its convolution")
    if h.sites is not None:
        check_same(f"{path}/groups", h.groups, 1, "between sites there are no groups")
        check_window(program, h.sites, (kh, kw), (h.in_shape[1:], tuple(grid)), f"{path}/sites")
    weights = int(np.abs(h.weight.astype(np.int64)).sum(axis=(1, 2, 3)).max())
    if weights >= 2**30:
        fail(
            f"{path}/weight",
            f"absolute weights of one output sum to {weights}, but from 2^30 on 64 bits may overflow",
        )


def _check_codes(program: Program, h: HostCodes, path: str) -> None:
    check_index(f"{path}/population", h.population, len(program.populations), "population")
    population = program.populations[h.population]
    check_same(f"{path}/population", population.model, "input", f"{population.name!r} must be an input")
    shape_path = f"populations/{h.population}/shape"
    check_same(shape_path, population.shape, program.input_shape, "the shape of the input")
    if not math.isfinite(h.scale) or h.scale == 0:
        fail(f"{path}/scale", f"{h.scale} is not a finite scale")
    bits = max(population.payload_bits, 1)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if population.signed else (0, 2**bits - 1)
    if not low <= h.lo <= h.hi <= high:
        fail(f"{path}/lo", f"{h.lo}..{h.hi} does not lie in {low}..{high}, which the payload can hold")
