"""nmc_emulator: runs mapped Programs, exactly, and counts what happens (docs/counters.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .emulate import Emulator, run
    from .result import EventResult, RunResult
    from .streaming import Stream
    from .trace import Events, Trace

_HOME = {
    "Emulator": "emulate",
    "EventResult": "result",
    "Events": "trace",
    "RunResult": "result",
    "Stream": "streaming",
    "Trace": "trace",
    "run": "emulate",
}
__all__ = ["Emulator", "EventResult", "Events", "RunResult", "Stream", "Trace", "run"]


def __getattr__(name: str) -> Any:
    """Load on first use: numba takes half a second to import."""
    if name not in __all__:
        raise AttributeError(f"module 'nmc_emulator' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f".{_HOME[name]}", __name__), name)
