"""The neurocore in software: exact, with the counters of the RTL (docs/neurocore.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nmc_emulator.neurocore.machine import Machine

__all__ = ["Machine"]


def __getattr__(name: str) -> Any:
    """Load on first use: numba takes half a second to import."""
    if name != "Machine":
        raise AttributeError(f"module 'nmc_emulator.neurocore' has no attribute '{name}'")
    from nmc_emulator.neurocore.machine import Machine

    return Machine
