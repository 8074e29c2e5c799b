"""From an integer SpikeGraph to the netlist half of a Program."""

from nmc_compiler.lowering.lower import lower

__all__ = ["lower"]
