"""Unions of integer boxes: rows c0, c1, y0, y1, x0, x1 of an int array [n, 6]."""

from __future__ import annotations

import numpy as np


def intersect(boxes: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the boxes [n, 6] that share a position with `box` [6], and the shared boxes."""
    low = np.maximum(boxes[:, 0::2], box[0::2])
    high = np.minimum(boxes[:, 1::2], box[1::2])
    some = np.flatnonzero((low < high).all(axis=1))
    shared = np.empty((len(some), 6), np.int64)
    shared[:, 0::2], shared[:, 1::2] = low[some], high[some]
    return some, shared


def sizes(boxes: np.ndarray) -> np.ndarray:
    """Number of positions of each box."""
    return np.prod(boxes[:, 1::2] - boxes[:, 0::2], axis=1, dtype=np.int64)


def union(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bool array [C, H, W] of the positions in any of the boxes, and the corner [3] that it starts from."""
    corner = boxes[:, 0::2].min(axis=0)
    mask = np.zeros(boxes[:, 1::2].max(axis=0) - corner, bool)
    for box in np.unique(boxes, axis=0):
        (c0, y0, x0), (c1, y1, x1) = box[0::2] - corner, box[1::2] - corner
        mask[c0:c1, y0:y1, x0:x1] = True
    return mask, corner


def outermost(boxes: np.ndarray) -> np.ndarray | None:
    """The box that contains all the others, or None where no single one does."""
    low, high = boxes[:, 0::2].min(axis=0), boxes[:, 1::2].max(axis=0)
    whole = (boxes[:, 0::2] == low).all(axis=1) & (boxes[:, 1::2] == high).all(axis=1)
    return boxes[int(np.argmax(whole))] if whole.any() else None


def axon_entries(boxes: np.ndarray, atoms: int) -> int:
    """Axon entries that name every neuron of a union of boxes: per position, ceil(channels / atoms)."""
    box = boxes[0] if len(boxes) == 1 else outermost(boxes)
    if box is not None:
        channels, rows, columns = (box[1::2] - box[0::2]).tolist()
        return rows * columns * -(-channels // atoms)
    channels_at = union(boxes)[0].sum(axis=0)
    return int(np.sum(-(-channels_at // atoms)))


def grouped(keys: np.ndarray) -> list[np.ndarray]:
    """Row numbers of an int array [n, k], one array per distinct row, in ascending order of the rows."""
    if not len(keys):
        return []
    order = np.lexsort(keys.T[::-1])
    changes = (keys[order][1:] != keys[order][:-1]).any(axis=1)
    return np.split(order, np.flatnonzero(changes) + 1)
