"""Time on the mesh: how far ``queue`` is from ``cycle``, and what a packet costs to simulate.

    python benchmarks/noc.py [--agreement] [--speed] [--quick]

Agreement: tick times of ``queue`` against ``cycle`` on 8 x 8 cores, in four machines, for uniform and skewed
random traffic and for the bundled digits transformer, at loads from 10 to 80 % of saturation. Load: packets per
ns of a tick, as a share of the most that the sweep reaches; for the transformer, the time of a tick whose packets
are all ready when it opens, as a share of its time.

Speed: CPU time per packet, one thread, from a recorded trace to tick times, packets derived inside, best of 7:
recurrent networks, fan-out 100, 2 % active per timestep, on 10 and 128 cores, and the digits transformer.
"of that": without the tables of the mapping, which a Program needs once ("tables", ms). Nothing is compared with
other tools here; SANA-FE's ``detailed`` needs 2.4 to 8.8 us per packet for such networks, functional work included.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np  # noqa: E402  (thread counts must be set first)

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from noc_traffic import digits_on_small_cores, on_mesh, prices, random_network, random_trace  # noqa: E402

from nmc_emulator.layout import resolve  # noqa: E402
from nmc_emulator.noc import NocSpec, simulate  # noqa: E402
from nmc_emulator.trace import Events, Trace  # noqa: E402

FAST = {
    "neuron_active": 1.0, "neuron_inactive": 1.0, "spike_out": 0.5, "axon_out": 0.5, "axon_in": 0.5,
    "synop_sparse": 0.1, "synop_conv": 0.1, "synop_dense": 0.1,
}  # fmt: skip
EMISSION = ("neuron_active", "neuron_inactive", "spike_out", "axon_out")
MACHINES: dict[str, tuple[dict[str, float], NocSpec]] = {
    "times of Loihi 2": ({}, NocSpec()),
    "slow links": (FAST, NocSpec(flit_ns=1.0)),
    "packets of 4 flits": (FAST, NocSpec(flit_ns=0.5, flits=4)),
    "small buffers": (FAST | {"axon_in": 2.0}, NocSpec(flit_ns=1.0, buffer_flits=4)),
}
RATES = [0.004, 0.006, 0.008, 0.01, 0.013, 0.016, 0.02, 0.025, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 1.0]
HEAD = f"{'machine':20}{'traffic':24}{'ticks':>6}{'load %':>10}{'mean %':>8}{'worst %':>9}{'us/packet':>11}{'cycle':>8}"


def timed(*args: object, **options: object) -> tuple:
    """(result, CPU seconds) of one simulation."""
    start = time.process_time()
    result = simulate(*args, **options)
    return result, time.process_time() - start


def row(machine: str, traffic: str, pairs: list[tuple], loads: np.ndarray) -> None:
    """One line of the table: the errors at 10 to 80 % load, and the worst at any load in brackets."""
    queue, cycle = (np.concatenate([p[i][0].busy for p in pairs]) for i in (0, 1))
    packets = sum(int(p[0][0].packets.sum()) for p in pairs)
    cost = [sum(p[i][1] for p in pairs) / packets * 1e6 for i in (0, 1)]
    error = 100 * np.abs(queue / cycle - 1)
    judged = (loads >= 0.1) & (loads <= 0.8)
    span = f"{100 * loads[judged].min():.0f}-{100 * loads[judged].max():.0f}"
    print(
        f"{machine:20}{traffic:24}{judged.sum():6}{span:>10}{error[judged].mean():8.2f}{error[judged].max():9.2f}"
        f"{cost[0]:11.2f}{cost[1]:8.1f}   worst at any load {error.max():.1f} %",
        flush=True,
    )


def random_rows(somas: int) -> None:
    for name, spread in (("uniform", 1.0), ("skewed", 0.5)):
        program = on_mesh(random_network(somas, 32, 1, spread), (8, 8), 1, 64)
        trace = random_trace(somas, RATES, 2)
        for machine, (ns, spec) in MACHINES.items():
            pair = tuple(timed(program, trace, fidelity=f, profile=prices(**ns), spec=spec) for f in ("queue", "cycle"))
            rate = pair[1][0].packets / pair[1][0].busy
            row(machine, f"random, {name}", [pair], rate / rate.max())


def transformer_rows(images: int, slower: tuple[float, ...]) -> None:
    """The digits transformer, its cores emitting at several speeds so that loads differ."""
    with tempfile.TemporaryDirectory() as folder:
        program, trace = digits_on_small_cores(512, images, Path(folder))
    for machine, (ns, spec) in MACHINES.items():
        if not ns:
            continue  # served by slow cores: the mesh is idle, hours of cycles
        pairs, loads = [], []
        at_once = prices(**ns | dict.fromkeys(EMISSION, 0.0))
        least = simulate(program, trace, fidelity="cycle", profile=at_once, spec=spec).busy
        for factor in slower:
            profile = prices(**ns | {term: factor * ns[term] for term in EMISSION})
            pair = tuple(timed(program, trace, fidelity=f, profile=profile, spec=spec) for f in ("queue", "cycle"))
            pairs.append(pair)
            loads.append(np.where(pair[1][0].packets > 0, least / pair[1][0].busy, 0.0))
        row(machine, f"transformer, {len(program.mapping.cores)} cores", pairs, np.concatenate(loads))


def speed_row(name: str, program: object, trace: object, profile: object, multicast: bool) -> None:
    layout = resolve(program)
    simulate(program, trace, profile=profile, multicast=multicast, layout=layout)  # compiled
    none = Trace({i: Events(e.step[:0], e.soma[:0], None) for i, e in trace.events.items()}, trace.samples, 0)
    runs = [timed(program, trace, profile=profile, multicast=multicast, layout=layout) for _ in range(7)]
    empty = min(timed(program, none, profile=profile, multicast=multicast, layout=layout)[1] for _ in range(7))
    times, best = runs[0][0], min(seconds for _, seconds in runs)
    packets = int(times.packets.sum())
    print(
        f"{name:34}{'trees' if multicast else 'unicast':>9}{packets:>10}{packets / len(times.busy):>12.0f}"
        f"{best / packets * 1e6:>11.3f}{(best - empty) / packets * 1e6:>11.3f}{empty * 1e3:>8.0f}"
        f"{times.busy.mean():>12.0f}   {times.critical[0][0]}",
        flush=True,
    )


def speed(quick: bool) -> None:
    columns = f"{'network':34}{'':>9}{'packets':>10}{'per tick':>12}{'us/packet':>11}{'of that':>11}{'tables':>8}"
    print(f"\n{columns}{'ns a tick':>12}   most often busiest")
    profile = prices()
    for somas, steps in ((1000, 1000), (10_000, 100)):
        network, trace = random_network(somas, 100, 7), random_trace(somas, [0.0196] * steps, 7)
        for cores in (10, 128):
            program = on_mesh(network, (8, 4), 4, cores)
            for multicast in (False, True):
                speed_row(f"recurrent, N {somas}, {cores} cores", program, trace, profile, multicast)
    with tempfile.TemporaryDirectory() as folder:
        program, trace = digits_on_small_cores(512, 10 if quick else 40, Path(folder))
    for multicast in (False, True):
        speed_row(f"transformer, {len(program.mapping.cores)} cores", program, trace, profile, multicast)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agreement", action="store_true", help="only the agreement")
    parser.add_argument("--speed", action="store_true", help="only the speed")
    parser.add_argument("--quick", action="store_true", help="smaller networks: about a minute")
    args = parser.parse_args()
    both = args.agreement == args.speed
    if args.agreement or both:
        print(HEAD)
        random_rows(2048 if args.quick else 4096)
        transformer_rows(1 if args.quick else 2, (0.5, 1.0, 4.0))
    if args.speed or both:
        speed(args.quick)


if __name__ == "__main__":
    main()
