"""Which class a sample is of where the network has no readout: its output population says it by what it sends."""

from __future__ import annotations

import math

import numpy as np

from nmc_compiler.program.model import Program
from nmc_emulator.recount import Chunk
from nmc_emulator.timing import edges_of


def output_of(program: Program) -> int | None:
    """The one population that feeds no other; None where there is not just one."""
    ends = _ends(program)
    return ends[0] if len(ends) == 1 else None


def classes_of(program: Program) -> int:
    """Classes that the readout, or else the output population, tells apart; 0 where there is neither."""
    telling = next((i for i, p in enumerate(program.populations) if p.model == "readout"), output_of(program))
    return 0 if telling is None else math.prod(program.populations[telling].shape)


def _ends(program: Program) -> list[int]:
    """Populations whose events reach no other population, inputs left out."""
    feeding = {e.src for e in edges_of(program) if _readers(program, e.dst) - {e.src}}
    return [i for i, p in enumerate(program.populations) if p.dendrite >= 0 and i not in feeding]


def _readers(program: Program, dendrite: int) -> set[int]:
    """Populations that read a dendrite, directly or behind transfers."""
    found = {i for i, p in enumerate(program.populations) if p.dendrite == dendrite}
    return found.union(*(_readers(program, t.dst) for t in program.transfers if t.src == dendrite))


class Scores:
    """Codes of the output population added up by sample and soma; a plain spike is 1."""

    def __init__(self, program: Program, population: int, samples: int) -> None:
        self.steps, self.population = program.timesteps, population
        self.sums = np.zeros((samples, math.prod(program.populations[population].shape)), np.int64)

    def add(self, chunk: Chunk) -> None:
        """The next chunk of a run."""
        e = chunk.trace.events[self.population]
        sample = chunk.first + e.step // self.steps if self.steps else np.zeros(len(e), np.int64)
        np.add.at(self.sums, (sample, e.soma), 1 if e.code is None else e.code)


def said(program: Program) -> str:
    """What a report says of classes where labels are given and there is no readout."""
    ends = _ends(program)
    if len(ends) == 1:
        p = program.populations[ends[0]]
        return (
            f"the class of a sample is the soma of '{p.name}' whose codes add up to the most, a plain spike being 1;"
            " of equal sums the first is taken, so a sample in which it sends nothing is of class 0"
        )
    names = ", ".join(f"'{program.populations[i].name}'" for i in ends) or "no population"
    return f"no accuracy: a network has one output if one population alone feeds no other; here {names} do"
