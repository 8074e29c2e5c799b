"""Targets: chip descriptions as YAML, every number with evidence and source.

A new chip is one more YAML file in this folder, or anywhere, given by path.
"""

from nmc_compiler.target.load import find_spec, list_names, list_targets, load_target, read_spec
from nmc_compiler.target.narrow import with_weight_bits
from nmc_compiler.target.spec import Cited, Feature, PlacedError, Row, Spec, Target, describe

__all__ = [
    "Cited",
    "Feature",
    "PlacedError",
    "Row",
    "Spec",
    "Target",
    "describe",
    "find_spec",
    "list_names",
    "list_targets",
    "load_target",
    "read_spec",
    "with_weight_bits",
]
