"""Networks, traces and prices for tests of time on the mesh: random traffic, and a transformer's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from nmc_compiler.mapping.even import split_evenly
from nmc_compiler.mapping.map import map_program
from nmc_compiler.program.model import Program
from nmc_compiler.program.network import Network
from nmc_compiler.target import load_target
from nmc_emulator import run
from nmc_emulator.price_profile import PriceProfile, load_profile
from nmc_emulator.trace import Events, Trace, trace_of

ROOT = Path(__file__).resolve().parents[1]
QUIET = "loihi2-assumed-rates"


def on_mesh(program: Program, routers: tuple[int, int], per_router: int, cores: int) -> Program:
    """The Program spread evenly over the first cores of a mesh, row after row."""
    mapped = split_evenly(program, cores, load_target("generic-mesh"))
    at = np.arange(cores) // per_router
    table = np.stack([np.zeros(cores), at % routers[0], at // routers[0], np.arange(cores) % per_router], axis=1)
    target = {
        **mapped.target,
        "mesh": {**mapped.target["mesh"], "routers": list(routers), "cores_per_router": per_router},
    }
    return replace(mapped, mapping=replace(mapped.mapping, cores=table.astype(np.int32), chips=1), target=target)


def random_network(somas: int, fan_out: int, seed: int, spread: float = 1.0) -> Program:
    """One population of LIF, synapses drawn at random; ``spread`` below 1 favours targets of low number."""
    rng = np.random.default_rng(seed)
    target = (somas * rng.random((somas, fan_out)) ** (1 / spread)).astype(np.int32)
    net = Network("random traffic")
    p = net.lif("pop", somas, vth=100)
    net.sparse("all", p, p, np.arange(somas + 1) * fan_out, target.reshape(-1), np.ones(target.size, np.int64))
    return net.program()


def random_trace(somas: int, rates: list[float], seed: int) -> Trace:
    """A timestep per rate, each soma firing with that probability."""
    rng = np.random.default_rng(seed)
    step, soma = np.nonzero(rng.random((len(rates), somas)) < np.array(rates)[:, None])
    return Trace({0: Events(step.astype(np.int64), soma.astype(np.int32), None)}, 1, len(rates))


def prices(**ns: float) -> PriceProfile:
    """Prices of loihi2-assumed-rates, some replaced, and nothing added to the time of a tick."""
    base = load_profile(QUIET)
    changed = {"barrier": 0.0, "timestep_floor": 0.0, **ns}
    entries = {
        k: base.prices[k].model_copy(update={"value": v, "evidence": "assumed", "source": "a test"})
        for k, v in changed.items()
    }
    return base.model_copy(update={"name": "test-rates", "prices": {**base.prices, **entries}})


def digits_on_small_cores(neurons: int, images: int, folder: Path) -> tuple[Program, Trace]:
    """The bundled transformer on a mesh of 8 x 8 cores of few neurons, and its trace of a few images."""
    import nmc

    program = nmc.compile(str(ROOT / "examples/digits/model.pt"), target="loihi2", out=str(folder)).program
    target = load_target("generic-mesh")
    mesh = target.mesh.model_copy(update={"routers": target.mesh.routers.model_copy(update={"value": (8, 8)})})
    limit = target.core.neurons.model_copy(update={"value": neurons})
    small = target.model_copy(update={"mesh": mesh, "core": target.core.model_copy(update={"neurons": limit})})
    mapped, _ = map_program(program, small)
    with np.load(ROOT / "examples/digits/test.npz") as data:
        pictures = data["images"][:images]
    codes = run(mapped, pictures, record="all").codes
    return mapped, trace_of(mapped, codes, images)
