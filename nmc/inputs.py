"""Images and labels from an .npz file or from memory, checked before anything runs on them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from nmc.encoders import Coding, SpikeCoded
from nmc.events import EventWindows, holds_events
from nmc.npz import Npz
from nmc_compiler.errors import FrontendError, UsageError


@dataclass(frozen=True)
class Shape:
    """What a network takes and gives: one image, its time axis if it has one, and the number of classes."""

    image: tuple[int, int, int]
    timesteps: int
    has_time: bool
    classes: int

    @property
    def sample(self) -> tuple[int, ...]:
        """Shape of one sample: [C, H, W], or [T, C, H, W]."""
        return (self.timesteps, *self.image) if self.has_time else self.image


@dataclass(frozen=True)
class Samples:
    """``images`` [N, ...] finite numbers; ``labels`` int64 [N] or None."""

    images: np.ndarray
    labels: np.ndarray | None


@dataclass(frozen=True)
class Given:
    """What to run on: Samples, or the frames of a recording; ``note``: what was made of that."""

    images: np.ndarray | EventWindows | SpikeCoded
    labels: np.ndarray | None
    note: str = ""


def shape_of_program(program: Any) -> Shape:
    """The Shape of a Program."""
    last = next((p for p in program.populations if p.model == "readout"), None)
    classes = last.shape[0] if last is not None else 0
    return Shape(program.input_shape, program.timesteps, program.input_time, classes)


def shape_of_graph(graph: Any) -> Shape:
    """The Shape of a SpikeGraph."""
    source = next(n for n in graph if n.op == "input")
    last = next(n for n in graph if n.op in ("readout", "int_readout"))
    return Shape(source.type.shape, graph.timesteps, graph.input_time, last.type.shape[0])


def read_samples(path: str | os.PathLike[str], shape: Shape, limit: int | None = None) -> Samples:
    """``images`` and, where there are any, ``labels`` of an .npz; the first ``limit`` of them.

    Raises FrontendError for a file that is damaged, hostile, or does not fit the network.
    """
    with Npz(path) as file:
        header = file.header("images")
        _check_shape(header.shape, shape, f"{path}: images")
        labels = file.read("labels") if "labels" in file else None
        if labels is not None:
            _check_labels(labels, header.shape[0], shape.classes, f"{path}: labels")
        images = file.read("images", _limit(limit))
    _check_numbers(images, f"{path}: images")
    return Samples(images, None if labels is None else labels[: len(images)].astype(np.int64))


def as_samples(
    x: np.ndarray | str | os.PathLike[str],
    labels: Any,
    shape: Shape,
    limit: int | None = None,
    dt: int | None = None,
    code: Coding | None = None,
) -> Given:
    """Samples from arrays, or from the file that ``x`` names (``labels`` then replace the file's).

    dt: length of a timestep where the file is a recording of events.  code: how images become spikes.
    """
    if code is not None:
        return _coded(x, labels, shape, limit, dt, code)
    if isinstance(x, (str, os.PathLike)) and holds_events(x):
        return _recording(x, labels, shape, limit, dt)
    if dt is not None:
        raise UsageError("--dt is for recordings of events (x, y, t, p); images have their timesteps already")
    if isinstance(x, (str, os.PathLike)):
        read = read_samples(x, shape, limit)
        if labels is None:
            return Given(read.images, read.labels)
        x = read.images
    images = np.asarray(x)
    _check_shape(images.shape, shape, "images")
    known = None if labels is None else np.asarray(labels)
    if known is not None:
        _check_labels(known, len(images), shape.classes, "labels")
    images = images[: _limit(limit)]
    _check_numbers(images, "images")
    return Given(images, None if known is None else known[: len(images)].astype(np.int64))


def _coded(x: Any, labels: Any, shape: Shape, limit: int | None, dt: int | None, code: Coding) -> Given:
    """Images without a time axis as spikes."""
    if not shape.has_time:
        raise UsageError(
            f"--encode {code.kind}: the input of the network has no time axis; compile the model with"
            " `input_time: true` in its config"
        )
    if isinstance(x, (str, os.PathLike)) and holds_events(x):
        raise UsageError(f"--encode {code.kind}: {x} holds events already; it is for images")
    still = as_samples(x, labels, Shape(shape.image, shape.timesteps, False, shape.classes), limit, dt)
    assert isinstance(still.images, np.ndarray)
    coded = SpikeCoded(still.images, shape.timesteps, code)
    return Given(coded, still.labels, coded.note)


def _recording(path: str | os.PathLike[str], labels: Any, shape: Shape, limit: int | None, dt: int | None) -> Given:
    """A recording of events as samples, counted as they are needed."""
    if not shape.has_time:
        raise UsageError(
            f"{path}: holds events, but the input of the network has no time axis; compile the model with"
            " `input_time: true` in its config"
        )
    windows = EventWindows(path, shape.image, shape.timesteps, dt, _limit(limit))
    known = None if labels is None else np.asarray(labels)
    if known is not None:
        _check_labels(known, len(windows), shape.classes, "labels")
    return Given(windows, None if known is None else known.astype(np.int64), windows.note)


def _limit(limit: int | None) -> int | None:
    if limit is not None and limit < 1:
        raise UsageError(f"limit {limit}: at least 1 sample is needed")
    return limit


def _check_shape(found: tuple[int, ...], shape: Shape, where: str) -> None:
    axes = "N, T, C, H, W" if shape.has_time else "N, C, H, W"
    if found[1:] != shape.sample or not found:
        wanted = ", ".join(map(str, shape.sample))
        step = "reshape or resize them as in training"
        if len(found) == 5 and not shape.has_time:
            step = "for images with a time axis compile the model with `input_time: true` in its config"
        raise FrontendError(f"{where} have shape {list(found)}, but the network takes [N, {wanted}] ({axes}); {step}")
    if found[0] < 1:
        raise FrontendError(f"{where} hold no sample (shape {list(found)}); give at least one")


def _check_numbers(images: np.ndarray, where: str) -> None:
    if images.dtype.kind not in "iuf":
        raise FrontendError(f"{where} have dtype {images.dtype}; real numbers are needed")
    for index, image in enumerate(images if images.dtype.kind == "f" else ()):
        finite = np.isfinite(image)
        if not finite.all():
            at = tuple(int(i) for i in np.argwhere(~finite)[0])
            count = int(finite.size - np.count_nonzero(finite))
            raise FrontendError(
                f"{where}: sample {index} has {count} values that are NaN or infinite, "
                f"the first ({image[at]}) at {list(at)}; clean the input"
            )


def _check_labels(labels: np.ndarray, samples: int, classes: int, where: str) -> None:
    if labels.shape != (samples,):
        raise FrontendError(f"{where} have shape {list(labels.shape)}, but there are {samples} images")
    if labels.dtype.kind not in "iu":
        raise FrontendError(f"{where} have dtype {labels.dtype}; class numbers are whole numbers")
    check_classes(labels, classes, where)


def check_classes(labels: np.ndarray, classes: int, where: str) -> None:
    """FrontendError for a label that is none of 0..classes - 1; classes 0: nobody knows."""
    if not classes:
        return
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        first = int(np.argmax(wrong))
        raise FrontendError(
            f"{where}: sample {first} has class {labels[first]}, but the network tells {classes} apart "
            f"(0 to {classes - 1}); {int(wrong.sum())} such"
        )
