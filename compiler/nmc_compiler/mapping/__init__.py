"""Mapping: partition, place, route and check a Program on a target."""

from nmc_compiler.mapping.check import check_mapping, find_problems
from nmc_compiler.mapping.even import split_evenly
from nmc_compiler.mapping.map import Layout, lay_out, map_program
from nmc_compiler.mapping.place import PlacementReport
from nmc_compiler.mapping.report import MappingReport
from nmc_compiler.mapping.route import RouteReport

__all__ = [
    "Layout",
    "MappingReport",
    "PlacementReport",
    "RouteReport",
    "check_mapping",
    "find_problems",
    "lay_out",
    "map_program",
    "split_evenly",
]
