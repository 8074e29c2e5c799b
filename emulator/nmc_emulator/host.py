"""The host's side of a run: images in, currents and codes for the cores out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nmc_compiler.errors import UsageError, VerifyError
from nmc_compiler.program.model import HostCodes, HostCurrent, Population, Program, SiteWindow

from .kernels.host import host_conv
from .kernels.sites import host_sites
from .sites import SiteTables

PAYLOAD = 2**23  # currents travel as signed 24-bit payloads
INPUT_LIMIT = 2**31


def check_images(program: Program, images: np.ndarray) -> np.ndarray:
    """Images as float64 [N, T or 1, C, H, W]. UsageError on wrong shape, type or non-finite values."""
    encoded = {h.population for h in program.host_codes}
    given = [p.name for i, p in enumerate(program.populations) if p.model == "input" and i not in encoded]
    if given or program.timesteps == 0:
        what = f"events of its input '{given[0]}'" if given else "events, being a stream"
        raise UsageError(f"Program '{program.name}' takes {what}, not images; run it with run_events")
    images = np.asarray(images)
    want = (program.timesteps, *program.input_shape) if program.input_time else program.input_shape
    if images.shape[1:] != tuple(want):
        raise UsageError(
            f"images have shape {list(images.shape)}, but Program '{program.name}' takes"
            f" [N, {', '.join(map(str, want))}]"
        )
    if not (np.issubdtype(images.dtype, np.floating) or np.issubdtype(images.dtype, np.integer)):
        raise UsageError(f"images are of type {images.dtype}; give real numbers")
    return images if program.input_time else images[:, None]


def check_codes(program: Program, inputs: Mapping[int, np.ndarray], steps: int) -> dict[int, np.ndarray]:
    """Given codes of all input populations, by population index, as int64 [steps, C, H, W].

    UsageError if a population is missing or is no input, for a wrong shape or type, for a code that the
    population cannot send, and for a Program that takes images as well.
    """
    if program.host_currents:
        raise UsageError(f"Program '{program.name}' takes images (host current '{program.host_currents[0].name}')")
    if steps < 0 or (program.timesteps and steps % program.timesteps):
        raise UsageError(f"{steps} timesteps: windows of Program '{program.name}' have {program.timesteps} each")
    wanted = [i for i, p in enumerate(program.populations) if p.model == "input"]
    for i in sorted(set(inputs) ^ set(wanted)):
        name = program.populations[i].name
        raise UsageError(f"no events for input '{name}'" if i in wanted else f"population '{name}' is no input")
    encoded = {h.population: (h.lo, h.hi) for h in program.host_codes}
    found = {}
    for i in wanted:
        p = program.populations[i]
        found[i] = _given(p, encoded.get(i, payload_range(p)), np.asarray(inputs[i]), steps)
    return found


def _given(p: Population, ends: tuple[int, int], codes: np.ndarray, steps: int) -> np.ndarray:
    if codes.shape != (steps, *p.shape):
        raise UsageError(f"events of input '{p.name}' have shape {list(codes.shape)}, expected {[steps, *p.shape]}")
    if not np.issubdtype(codes.dtype, np.integer):
        raise UsageError(f"events of input '{p.name}' are of type {codes.dtype}; give integers")
    low, high = ends
    outside = (codes < low) | (codes > high)
    if outside.any():
        at = tuple(int(i) for i in np.argwhere(outside)[0])
        raise UsageError(
            f"events of input '{p.name}': code {codes[at]} at [timestep, channel, y, x] = {list(at)} is outside"
            f" {low}..{high}, which the input can send"
        )
    return codes.astype(np.int64)


def payload_range(p: Population) -> tuple[int, int]:
    """Least and largest code of an event: 0..1 for plain spikes, else what ``payload_bits`` can hold."""
    bits = max(p.payload_bits, 1)
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if p.signed else (0, 2**bits - 1)


def _finite(image: np.ndarray, index: int) -> np.ndarray:
    image = image.astype(np.float64)
    if not np.isfinite(image).all():
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(image))[0])
        raise UsageError(f"image {index} holds {image[at]} at [time, channel, y, x] = {list(at)}; clean the input")
    return image


@dataclass(frozen=True)
class _Current:
    """One host current with its weight in kernel layout."""

    spec: HostCurrent
    weight: np.ndarray  # int32 [O, I // groups, kh, kw]
    gain: int  # largest sum of |weight| of an output channel
    shape: tuple[int, int, int]  # of the result: O, H, W


class Host:
    """Computes what the host sends: fixed-point currents and graded input codes."""

    def __init__(self, program: Program) -> None:
        self.program, self.sites = program, SiteTables(program)
        self.currents = [self._current(h) for h in program.host_currents]

    def _current(self, spec: HostCurrent) -> _Current:
        gain = int(np.abs(spec.weight.astype(np.int64)).sum(axis=(1, 2, 3)).max(initial=0))
        weight = np.ascontiguousarray(spec.weight.astype(np.int32))
        return _Current(spec, weight, gain, self.program.dendrites[spec.dst].shape)

    def current(self, number: int, image: np.ndarray, index: int) -> tuple[np.ndarray, int]:
        """Result of host current ``number`` for image ``index``: int64 [T or 1, O, H, W], and its MACs.

        UsageError if the image is out of the fixed-point range, VerifyError if a result does not
        fit the 24-bit payload.
        """
        c = self.currents[number]
        image = _finite(image, index)
        if c.spec.sites is not None and not self.sites.fixed:
            self.sites.load(image, index)
            image = image[:, 3:]  # behind the coordinates
        scaled = np.rint(image * 2.0**c.spec.frac)
        largest = float(np.abs(scaled).max(initial=0.0))
        if largest >= INPUT_LIMIT:
            raise UsageError(
                f"image {index}: |x| * 2^{c.spec.frac} reaches {largest:.0f}, the host current '{c.spec.name}'"
                f" takes less than 2^31; scale the input"
            )
        if largest * c.gain + float(np.abs(c.spec.bias).max(initial=0)) + 2.0**c.spec.shift >= 2.0**62:
            raise VerifyError(f"host current '{c.spec.name}' could exceed 64 bits on image {index}; lower its frac")
        out, macs = np.empty((len(image), *c.shape), np.int64), 0
        s = c.spec
        if s.sites is not None:
            macs = self._between_sites(s.sites, s, scaled.astype(np.int32), c.weight, out)
        for x, y in zip(scaled.astype(np.int32), out, strict=True) if s.sites is None else ():
            macs += host_conv(x, c.weight, s.bias.astype(np.int64), s.shift, s.stride, s.pad, s.dilation, s.groups, y)
        if len(out) and (out.max() >= PAYLOAD or out.min() < -PAYLOAD):
            raise VerifyError(
                f"host current '{s.name}' reaches {out.min()}..{out.max()} on image {index},"
                " beyond its 24-bit payload; lower its scale"
            )
        return out, macs

    def site_macs(self, number: int, image: np.ndarray, index: int) -> int:
        """MACs of host current ``number`` for the sites of sample ``index``, with which ``image`` begins."""
        spec = self.currents[number].spec
        if spec.sites is None:
            return 0
        self.sites.load(image, index)
        return self.sites.rulebook(spec.sites)[1] * spec.weight.shape[0] * spec.weight.shape[1] * len(image)

    def _between_sites(
        self, window: SiteWindow, s: HostCurrent, images: np.ndarray, weight: np.ndarray, out: np.ndarray
    ) -> int:
        """The sample's sites are in ``sites``; writes ``out`` [T or 1, O, slots, 1] and gives the MACs."""
        (near, pairs), target = self.sites.rulebook(window), self.sites.tables[window.target]
        bias = s.bias.astype(np.int64)
        for x, y in zip(images, out, strict=True):
            host_sites(x[:, :, 0], near, int(target.count[0]), weight[..., 0], bias, s.shift, y[:, :, 0])
        return pairs * weight.shape[0] * weight.shape[1] * len(images)

    def codes(self, spec: HostCodes, image: np.ndarray, index: int) -> np.ndarray:
        """Codes of an input population for image ``index``: int64 [T or 1, C, H, W].

        UsageError if a code lies outside [lo, hi].
        """
        scaled = np.rint(_finite(image, index) * spec.scale)
        outside = (scaled < spec.lo) | (scaled > spec.hi)
        if outside.any():
            at = tuple(int(i) for i in np.argwhere(outside)[0])
            raise UsageError(
                f"image {index}: code {scaled[at]:.0f} at [time, channel, y, x] = {list(at)} is outside"
                f" {spec.lo}..{spec.hi} of input '{self.program.populations[spec.population].name}';"
                " scale the input to the encoding"
            )
        return scaled.astype(np.int64)
