"""What would make a run cheaper: computed from its own numbers, largest first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nmc_emulator.energies import units_of
from nmc_emulator.price_profile import POWER_TERMS

WORTH = 0.02  # of the total; smaller savings are not told


def hints_of(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Hints with ``text``, ``saves_pj`` per sample (of a stream: timestep), ``share`` of the total, and ``profile``.

    The profile is the mapped one with the larger total. A saving supposes that all else stays as it is.
    """
    mapped = [e for e in data["energy"] if e["kind"] == "mapped"]
    energy = max(mapped, key=lambda e: (e["total_pj"], e["profile"]))
    total, n = energy["total_pj"], units_of(data)
    if not total:
        return []
    found = [
        {"text": text, "saves_pj": pj / n, "share": pj / total, "profile": energy["profile"]}
        for text, pj in _hints(data, energy)
        if pj / total >= WORTH
    ]
    return sorted(found, key=lambda h: (-h["saves_pj"], h["text"]))


def _hints(data: dict[str, Any], energy: dict[str, Any]) -> Iterator[tuple[str, float]]:
    terms = energy["terms_pj"]
    idle = terms.get("neuron_inactive", 0.0)
    window, busy = data["interval_ticks"], _busy(data)
    if busy < window and not data["stream"]:
        yield (
            f"a new sample every {busy} ticks instead of every {window} (--pipelined): somas are updated in every "
            "tick, and those between two samples for nothing",
            idle * (1 - busy / window),
        )
    if data["timesteps"] > 1 and not data["stream"]:
        dynamic = sum(terms.values()) - sum(terms.get(term, 0.0) for term in POWER_TERMS)
        yield (
            f"one timestep less than {data['timesteps']}, if the accuracy allows it (train for it)",
            dynamic / data["timesteps"],
        )
    yield ("a network without biases", terms.get("bias_event", 0.0))
    yield from _largest(data, energy)
    hops = terms.get("hop_ew", 0.0) + terms.get("hop_ns", 0.0)
    if data["packets"] and data["packets"] > data["spikes"] + data["relay_events"] + data["input_events"]:
        events = data["spikes"] + data["relay_events"] + data["input_events"]
        yield (
            "packets that are copied on their way (multicast): each event is sent "
            f"{data['packets'] / max(events, 1):.1f} times; this is what all but one of them "
            "cost, and the most that can be saved",
            (hops + terms.get("axon_out", 0.0)) * (1 - events / data["packets"]),
        )


def _busy(data: dict[str, Any]) -> int:
    """Ticks in which a population lives through the timesteps of one sample: T * P."""
    steps = data["timesteps"]
    levels = max((layer["level"] for layer in data["layers"]), default=0)
    first_to_last = int(data["latency_ticks"] - levels)  # (T - 1) * P + 1
    return first_to_last if steps < 2 else (first_to_last - 1) // (steps - 1) * steps


def _largest(data: dict[str, Any], energy: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """The layer whose synapses cost most: half its input spikes would halve that."""
    name = energy["profile"]
    synapses = [sum(v for k, v in layer["terms_pj"][name].items() if k.startswith("synop")) for layer in data["layers"]]
    if any(synapses):
        at = max(range(len(synapses)), key=lambda i: (synapses[i], -i))
        layer = data["layers"][at]["name"]
        yield f"half as many spikes into '{layer}', whose synapses cost most", synapses[at] / 2
