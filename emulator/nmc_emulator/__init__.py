"""nmc_emulator: runs mapped Programs, exactly, and counts what happens (docs/counters.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .emulate import Emulator, run
    from .result import RunResult

__all__ = ["Emulator", "RunResult", "run"]


def __getattr__(name: str) -> Any:
    """Load on first use: numba takes half a second to import."""
    if name not in __all__:
        raise AttributeError(f"module 'nmc_emulator' has no attribute '{name}'")
    from importlib import import_module

    module = {"Emulator": "emulate", "RunResult": "result", "run": "emulate"}[name]
    return getattr(import_module(f".{module}", __name__), name)
