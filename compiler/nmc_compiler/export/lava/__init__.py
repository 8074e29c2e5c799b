"""Export to Lava: a folder of plain Python and arrays that runs a Program under lava-nc 0.10.0 (docs/lava.md)."""

from nmc_compiler.export.lava.folders import export_lava

__all__ = ["export_lava"]
