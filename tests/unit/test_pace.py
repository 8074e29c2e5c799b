"""Latency and throughput of a report, as a bound and from the ticks of a simulation."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nmc.reporting import bound_pace
from nmc.timing import _pace


def program(timesteps: int, interval: int, depth: int = 1) -> Any:
    return SimpleNamespace(timesteps=timesteps, ticks_per_step=2, depth=depth, interval=interval)


def test_samples_one_after_another() -> None:
    """Three samples of two timesteps: four ticks each, (2 - 1) * 2 + 1 + 1."""
    ticks = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12.0])
    found = _pace(ticks, program(2, 4), 3)
    assert found["latency_mean"] == pytest.approx((10 + 26 + 42) / 3 * 1e-9) and found["latency_max"] == pytest.approx(
        42e-9
    )
    assert found["throughput"] == pytest.approx(2 / (68e-9))  # two samples between the end of the first and the last


def test_samples_that_overlap() -> None:
    found = _pace(np.full(8, 10.0), program(2, 2), 3)
    assert found["latency_mean"] == pytest.approx(40e-9) and found["throughput"] == pytest.approx(1 / 20e-9)


def test_one_sample_and_a_stream() -> None:
    assert _pace(np.full(4, 10.0), program(2, 4), 1)["throughput"] == pytest.approx(1 / 40e-9)
    stream = _pace(np.full(21, 10.0), program(0, 0), 10)  # a timestep every two ticks, each two ticks long
    assert stream["latency_mean"] == pytest.approx(20e-9) and stream["throughput"] == pytest.approx(1 / 20e-9)


def report(**changes: Any) -> dict[str, Any]:
    bounds = {"ticks": 12e-6, "synops": 30e-6, "neuron_updates": 6e-6}
    whole = {"samples": 3, "timesteps": 2, "stream": False, "run_ticks": 12, "latency_ticks": 4, "interval_ticks": 4}
    return {**whole, "seconds": {"bounds": bounds}, **changes}


def test_bounds() -> None:
    assert bound_pace(report()) == pytest.approx({"latency": 10e-6, "throughput": 1e5})
    overlapping = bound_pace(report(interval_ticks=2))
    assert overlapping == pytest.approx({"latency": 4e-6, "throughput": 1e5})
    stream = report(stream=True, samples=1, timesteps=6, latency_ticks=2, interval_ticks=2)
    assert bound_pace(stream) == pytest.approx({"latency": 5e-6, "throughput": 2e5})
    assert bound_pace(report(seconds={"bounds": {}})) == {"latency": 0.0, "throughput": 0.0}
