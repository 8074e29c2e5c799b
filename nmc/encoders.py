"""Spike codes of images: how bright a pixel is, told by when it spikes. The definitions are the field's own."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from nmc_compiler.errors import FrontendError, UsageError

ENCODINGS = ("poisson", "rate", "ttfs", "phase")
MAX_STEPS = 1 << 20
MAX_SEED = (1 << 64) - 1


def encode(images: np.ndarray, kind: str, timesteps: int, seed: int = 0, first: int = 0) -> np.ndarray:
    """Spikes, uint8 [N, T, ...], of ``images`` [N, ...] with values x in 0..1; spikes start at timestep t = 0.

    ``poisson``  a spike where r < x, r uniform in [0, 1), drawn afresh per pixel and timestep: by Philox keyed with
                 ``seed`` and the sample's number (``first`` is that of the first image), in C order over [T, ...].
    ``rate``     evenly spaced: a spike where floor((t + 1) x) > floor(t x), floor(T x) in all.
    ``ttfs``     time to first spike: one spike, at t = rint((T - 1) (1 - x)); a black pixel spikes last
                 (SpikingJelly's LatencyEncoder, linear).
    ``phase``    x as a binary fraction, most significant bit first: bit t weighs 2^-(t+1) (Kim et al. 2018;
                 SpikingJelly's WeightedPhaseEncoder with K = T); x must be at most 1 - 2^-T.

    UsageError for another kind, FrontendError for values that the code has no word for.
    """
    if kind not in ENCODINGS:
        raise UsageError(f"no spike code '{kind}'; choose of {', '.join(ENCODINGS)}")
    if not 1 <= timesteps <= MAX_STEPS:
        raise UsageError(f"spike code over {timesteps} timesteps; give 1 to {MAX_STEPS}")
    if not 0 <= seed <= MAX_SEED:
        raise UsageError(f"--seed {seed}: a whole number from 0 to 2^64 - 1 is needed")
    x = _brightness(images, kind, timesteps, first)
    steps = np.arange(timesteps, dtype=np.float64).reshape(-1, *([1] * (x.ndim - 1)))
    if kind == "poisson":
        return np.stack([_drawn(x[n], timesteps, (seed, first + n)) for n in range(len(x))])
    y = x[:, None]
    if kind == "rate":
        spikes = np.floor((steps + 1) * y) > np.floor(steps * y)
    elif kind == "ttfs":
        spikes = steps == np.rint((timesteps - 1) * (1.0 - y))
    else:
        spikes = np.floor(y * 2.0 ** (steps + 1)) % 2 == 1
    return spikes.astype(np.uint8)


def _drawn(x: np.ndarray, timesteps: int, key: tuple[int, int]) -> np.ndarray:
    random = np.random.Generator(np.random.Philox(key=np.array(key, np.uint64)))
    return (random.random((timesteps, *x.shape)) < x).astype(np.uint8)


def _brightness(images: np.ndarray, kind: str, timesteps: int, first: int) -> np.ndarray:
    """Values as float64. FrontendError where one is no brightness."""
    x = np.asarray(images)
    if x.dtype.kind not in "biuf":
        raise FrontendError(f"images have dtype {x.dtype}; a spike code takes real numbers from 0 to 1")
    x = x.astype(np.float64)
    top = 1.0 - 2.0**-timesteps if kind == "phase" else 1.0
    odd = ~((x >= 0) & (x <= top))  # true of NaN as well
    if odd.any():
        at = [int(i) for i in np.argwhere(odd)[0]]
        at[0] += first
        bound = f"1 - 2^-{timesteps}" if kind == "phase" else "1"
        raise FrontendError(
            f"images: {np.count_nonzero(odd)} values are outside 0..{bound}, which is what '{kind}' encodes, the first "
            f"({images[tuple(np.argwhere(odd)[0])]}) at {at}; scale the images"
        )
    return x


@dataclass(frozen=True)
class Coding:
    """That images are to be encoded as spikes: how, and the seed of ``poisson``."""

    kind: str
    seed: int = 0


@dataclass(frozen=True)
class SpikeCoded:
    """Images [N, C, H, W] as samples [N, T, C, H, W] of spikes, encoded when they are asked for."""

    images: np.ndarray
    timesteps: int
    code: Coding

    dtype = np.dtype(np.uint8)

    def __post_init__(self) -> None:
        """Every value is looked at once, before anything runs."""
        encode(self.images[:1], self.code.kind, self.timesteps, self.code.seed)
        _brightness(self.images, self.code.kind, self.timesteps, 0)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.images), self.timesteps, *self.images.shape[1:])

    @property
    def ndim(self) -> int:
        return self.images.ndim + 1

    @property
    def digest(self) -> str:
        """Names images, code and seed."""
        hasher = hashlib.sha256(f"{self.images.dtype.str}{self.images.shape}\0{self.timesteps}".encode())
        hasher.update(np.ascontiguousarray(self.images).data)
        return f"{hasher.hexdigest()} {self._how}"

    @property
    def _how(self) -> str:
        return f"{self.code.kind}, seed {self.code.seed}" if self.code.kind == "poisson" else self.code.kind

    @property
    def note(self) -> str:
        """What was made of the images."""
        return f"input: {len(self)} images as spikes over {self.timesteps} timesteps, code {self._how}"

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, which: slice) -> np.ndarray:
        first, last, _ = which.indices(len(self))
        return encode(self.images[first:last], self.code.kind, self.timesteps, self.code.seed, first)
