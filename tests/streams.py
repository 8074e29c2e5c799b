"""Small networks that events drive, as folders, and inputs for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nmc_compiler.mapping import split_evenly
from nmc_compiler.program import save_program
from nmc_compiler.program.model import Program
from nmc_compiler.program.network import Network
from nmc_compiler.target import load_target

CORES = 4


def column(timesteps: int = 0, cores: int = CORES, seed: int = 0) -> Program:
    """8 inputs, 40 cells that talk to each other with delays, 3 somas that say what it was; about one in ten fires."""
    rng, net = np.random.default_rng(seed), Network("column", timesteps)
    light, cells = net.input("light", 8), net.lif("cells", 40, du=409, dv=205, vth=900)
    out = net.lif("out", 3, dv=205, vth=300)
    net.dense("sight", light, cells, rng.integers(0, 60, (40, 8)) * 2, exponent=2)
    net.dense("talk", cells, cells, rng.integers(-40, 20, (40, 40)) * 2, delay=rng.integers(0, 30, (40, 40)))
    net.dense("say", cells, out, rng.integers(-20, 60, (3, 40)) * 2)
    return split_evenly(net.program(), cores, load_target("loihi2")) if cores else net.program()


def pair(cores: int = 2) -> Program:
    """A stream with two inputs, one graded, two ends, and a population that fires by itself."""
    rng, net = np.random.default_rng(1), Network("pair")
    left, right = net.input("left", 3), net.input("right", (2, 1, 2), payload_bits=4, signed=True)
    a, b = net.lif("a", 5, vth=60), net.sigma_delta("b", 4, vth=8, state_exp=0)
    beat = net.lif("beat", 2, dv=0, vth=100, bias=900)
    net.dense("la", left, a, rng.integers(0, 40, (5, 3)) * 2)
    net.dense("rb", right, b, rng.integers(-20, 20, (4, 4)) * 2)
    net.dense("ta", beat, a, rng.integers(0, 20, (5, 2)) * 2)
    return split_evenly(net.program(), cores, load_target("loihi2"))


def alone() -> Program:
    """A stream without inputs: its somas fire by themselves."""
    net = Network("alone")
    beat, echo = net.lif("beat", 3, dv=0, vth=100, bias=900), net.lif("echo", 3, vth=10)
    net.dense("hear", beat, echo, np.eye(3, dtype=int) * 20, exponent=6)
    return split_evenly(net.program(), 2, load_target("loihi2"))


def light(steps: int, seed: int = 0, rate: float = 0.2) -> np.ndarray:
    """Spikes of the column's input, uint8 [steps, 8, 1, 1]."""
    return (np.random.default_rng(seed).random((steps, 8, 1, 1)) < rate).astype(np.uint8)


def saved(program: Program, folder: Path) -> Path:
    """The folder of a Program that no `nmc compile` wrote."""
    save_program(program, folder)
    return folder
