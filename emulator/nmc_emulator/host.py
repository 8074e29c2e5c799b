"""The host's side of a run: images in, currents and codes for the cores out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nmc_compiler.errors import UsageError, VerifyError
from nmc_compiler.program.model import HostCodes, HostCurrent, Program

from .kernels.host import host_conv

PAYLOAD = 2**23  # currents travel as signed 24-bit payloads
INPUT_LIMIT = 2**31


def check_images(program: Program, images: np.ndarray) -> np.ndarray:
    """Images as float64 [N, T or 1, C, H, W]. UsageError on wrong shape, type or non-finite values."""
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
        self.program = program
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
        for x, y in zip(scaled.astype(np.int32), out, strict=True):
            macs += host_conv(x, c.weight, s.bias.astype(np.int64), s.shift, s.stride, s.pad, s.dilation, s.groups, y)
        if len(out) and (out.max() >= PAYLOAD or out.min() < -PAYLOAD):
            raise VerifyError(
                f"host current '{s.name}' reaches {out.min()}..{out.max()} on image {index},"
                " beyond its 24-bit payload; lower its scale"
            )
        return out, macs

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
