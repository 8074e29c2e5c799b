"""Clouds of points on eight kinds of surface: a small stand-in for ModelNet, made by a seeded generator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

POINTS = 160
Surface = tuple[np.ndarray, np.ndarray]  # points and unit normals, float64 [n, 3] each


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v, axis=1, keepdims=True)


def _ring(r: np.random.Generator, n: int) -> np.ndarray:
    angle = r.uniform(0, 2 * np.pi, n)
    return np.stack([np.cos(angle), np.sin(angle), np.zeros(n)], axis=1)


def sphere(r: np.random.Generator, n: int) -> Surface:
    v = _unit(r.normal(size=(n, 3)))
    return 0.9 * v, v


def _box(r: np.random.Generator, n: int, half: np.ndarray) -> Surface:
    areas = np.prod(half) / half
    axis = r.choice(3, n, p=areas / areas.sum())
    p, normal = r.uniform(-1, 1, (n, 3)) * half, np.zeros((n, 3))
    side = r.choice([-1.0, 1.0], n)
    p[np.arange(n), axis], normal[np.arange(n), axis] = side * half[axis], side
    return p, normal


def cube(r: np.random.Generator, n: int) -> Surface:
    return _box(r, n, np.array([0.65, 0.65, 0.65]))


def slab(r: np.random.Generator, n: int) -> Surface:
    return _box(r, n, np.array([0.85, 0.55, 0.15]))


def cylinder(r: np.random.Generator, n: int) -> Surface:
    side, ring = r.random(n) < 0.7, _ring(r, n)
    top = r.choice([-1.0, 1.0], n)
    p = ring * np.where(side, 0.5, 0.5 * np.sqrt(r.random(n)))[:, None]
    p[:, 2] = np.where(side, r.uniform(-0.8, 0.8, n), 0.8 * top)
    normal = np.where(side[:, None], ring, np.stack([np.zeros(n), np.zeros(n), top], axis=1))
    return p, normal


def cone(r: np.random.Generator, n: int) -> Surface:
    side, ring = r.random(n) < 0.7, _ring(r, n)
    height = np.where(side, np.sqrt(r.random(n)), 1.0)  # 0 at the tip
    p = ring * 0.7 * np.where(side, height, np.sqrt(r.random(n)))[:, None]
    p[:, 2] = 0.8 - 1.6 * height
    normal = np.where(side[:, None], _unit(ring + np.array([0, 0, 0.44])), np.array([0.0, 0.0, -1.0]))
    return p, normal


def torus(r: np.random.Generator, n: int) -> Surface:
    ring, angle = _ring(r, n), r.uniform(0, 2 * np.pi, n)
    normal = ring * np.cos(angle)[:, None] + np.array([0, 0, 1.0]) * np.sin(angle)[:, None]
    return 0.65 * ring + 0.22 * normal, normal


def octahedron(r: np.random.Generator, n: int) -> Surface:
    weights, sign = r.dirichlet(np.ones(3), n), r.choice([-1.0, 1.0], (n, 3))
    return 0.9 * weights * sign, sign / np.sqrt(3)


def cross(r: np.random.Generator, n: int) -> Surface:
    one, other = _box(r, n, np.array([0.85, 0.2, 0.2])), _box(r, n, np.array([0.2, 0.2, 0.85]))
    first = r.random(n) < 0.5
    return np.where(first[:, None], one[0], other[0]), np.where(first[:, None], one[1], other[1])


SHAPES: tuple[Callable[[np.random.Generator, int], Surface], ...] = (
    sphere, cube, slab, cylinder, cone, torus, octahedron, cross,
)  # fmt: skip


def cloud(r: np.random.Generator, label: int) -> np.ndarray:
    """One cloud: float32 [POINTS, 6], x, y, z and the normal; turned about z, scaled and jittered.

    Numbers are multiples of 1/256, so that files of them are small.
    """
    p, normal = SHAPES[label](r, POINTS)
    angle = r.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    p = p @ turn.T * r.uniform(0.8, 1.0, 3) + r.normal(scale=0.015, size=p.shape)
    both = np.concatenate([np.clip(p, -0.99, 0.99), normal @ turn.T], axis=1)
    return (np.rint(both * 256) / 256).astype(np.float32)


def clouds(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(clouds float32 [count, POINTS, 6], labels int64 [count]), classes in turn."""
    r = np.random.default_rng(seed)
    labels = np.arange(count) % len(SHAPES)
    return np.stack([cloud(r, int(label)) for label in labels]), labels.astype(np.int64)
