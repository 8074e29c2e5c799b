"""The Program: netlist and mapping, the artefact on disk, and the rules both must keep."""

from nmc_compiler.program.digest import program_digest
from nmc_compiler.program.facts import target_facts
from nmc_compiler.program.io import load_program, save_program
from nmc_compiler.program.validate import validate_program

__all__ = ["load_program", "program_digest", "save_program", "target_facts", "validate_program"]
