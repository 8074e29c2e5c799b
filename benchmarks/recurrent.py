"""The event engine on a random recurrent network, beside peers in the same run.

    python benchmarks/recurrent.py [--neurons N ...] [--cores 10 128] [--steps 1000] [--peer NAME=PYTHON ...]
    python benchmarks/recurrent.py --growth [--plot growth.png]
    python benchmarks/recurrent.py --memory

The network: N LIF neurons, one random projection of 100 synapses per neuron (targets uniform with
replacement), weights +-2, 4, 6, 8, no further delay, v = v * (1 - 41/4096) + sum w s + 25, a spike if v > 1000,
phases uniform at the start, so that about 2 % of the neurons fire per step. Neuron i is on core
i * cores // N. Each run takes all totals and, per tick, the largest loads of cores and links.

Peers: ``loop`` is a hand-written Numba loop over int32 arrays with the same totals and only one maximum
per tick (``run_axon`` of bench_numba.py); the others (sanafe, lava, brian2, nest) are run as
``bench_NAME.py`` by the Python given for them. All are read from --peers, a folder with those scripts;
without it only our own figures are shown. Only ratios within one run mean something.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np  # noqa: E402  (thread counts must be set first)

from nmc_compiler.mapping import split_evenly  # noqa: E402
from nmc_compiler.program.model import Program  # noqa: E402
from nmc_compiler.program.network import Network  # noqa: E402
from nmc_compiler.target import load_target  # noqa: E402
from nmc_emulator import Emulator  # noqa: E402

PEERS = Path(__file__).resolve().parents[2] / "shared" / "bench_peers"
FAN_OUT, THRESHOLD, BIAS, DECAY = 100, 1000, 25, 41
PERIOD = 51  # steps between the spikes of a neuron without input
# What bench_NAME.py takes after N and steps; SANA-FE is run with its simple timing on so many cores.
ARGUMENTS = {
    "sanafe": ("simple", "{cores}"),
    "lava": ("fixed_pt", "Sparse"),
    "brian2": ("cpp", "/tmp/nmc-brian2"),
    "nest": ("1",),
}
SLOW = {"sanafe": 20, "lava": 20}  # run so many times fewer steps


def network(neurons: int, seed: int = 7) -> Program:
    """The benchmark's network, built in parts so that no array of 64-bit numbers is as long as the synapses."""
    rng = np.random.default_rng(seed)
    synapses = neurons * FAN_OUT
    target, weight = np.empty(synapses, np.int32), np.empty(synapses, np.int8)
    for first in range(0, synapses, 1 << 22):
        part = slice(first, min(first + (1 << 22), synapses))
        count = part.stop - first
        target[part] = rng.integers(0, neurons, count, dtype=np.int32)
        weight[part] = rng.integers(1, 5, count, dtype=np.int8) * 2 * (1 - 2 * rng.integers(0, 2, count, dtype=np.int8))
    kept = 1.0 - DECAY / 4096
    start = np.floor(BIAS * (1 - kept ** rng.integers(0, PERIOD, neurons)) / (1 - kept)).astype(np.int32) << 6
    net = Network("random recurrent network")
    cells = net.lif("cells", neurons, dv=DECAY, vth=THRESHOLD, bias=BIAS << 6, start_v=start)
    net.sparse("recurrent", cells, cells, np.arange(0, synapses + 1, FAN_OUT, dtype=np.int64), target, weight)
    return net.program()


def mapped(neurons: int, cores: int) -> Program:
    return split_evenly(network(neurons), cores, load_target("loihi2"))


def best(call: Callable[[], object], repeats: int = 5) -> float:
    """Seconds of the fastest of several calls, after one that warms up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def ours(neurons: int, cores: int, steps: int) -> dict:
    """Our figures: counters on, totals included."""
    emulator = Emulator(mapped(neurons, cores) if cores else network(neurons), engine="events")
    spikes = emulator.run_events({}, steps).counters.total("events")
    return row("nmc", neurons, cores, steps, best(lambda: emulator.run_events({}, steps)), spikes)


def row(tool: str, neurons: int, cores: int, steps: int, seconds: float, spikes: float) -> dict:
    events = spikes * FAN_OUT
    return {
        "tool": tool,
        "neurons": neurons,
        "cores": cores,
        "us_per_step": seconds / steps * 1e6,
        "M_events_per_s": events / seconds / 1e6,
    }


def loop(folder: Path, neurons: int, cores: int, steps: int) -> dict:
    """The hand-written loop with counters per axon."""
    sys.path.insert(0, str(folder))
    peer, workload = importlib.import_module("bench_numba"), importlib.import_module("workload")
    target, weight, v0 = workload.make(neurons)
    v, on = (v0 << 6).astype(np.int32), np.arange(neurons) * cores // neurons
    pairs = np.unique(np.repeat(np.arange(neurons), FAN_OUT) * cores + on[target.ravel()], return_counts=True)
    source, core, width = pairs[0] // cores, (pairs[0] % cores).astype(np.int32), 16
    start = np.concatenate([[0], np.cumsum(np.bincount(source, minlength=neurons))])
    home = on[source]
    hops = (abs(home % width - core % width) + abs(home // width - core // width)).astype(np.int32)
    tables = cores, start, core, pairs[1].astype(np.int32), hops

    def run() -> int:
        return peer.run_axon(target, weight, v.copy(), steps, *tables)[0]

    spikes = run()
    return row("loop", neurons, cores, steps, best(run), spikes)


def script(folder: Path, name: str, python: str, neurons: int, cores: int, steps: int) -> dict:
    """A peer's script in its own process; it prints ``RESULT ... wall_s=... spikes=...``."""
    steps = max(steps // SLOW.get(name, 1), 10)
    arguments = [a.format(cores=cores) for a in ARGUMENTS[name]]
    command = [*python.split(), f"bench_{name}.py", str(neurons), str(steps), *arguments]
    out = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    found = re.search(r"RESULT .*wall_s=(\S+) spikes=(\S+)", out.stdout)
    if out.returncode or not found:
        raise RuntimeError(f"{' '.join(command)} failed: {(out.stderr or out.stdout).strip()[-400:]}")
    return row(name, neurons, cores, steps, float(found[1]), float(found[2]))


def compare(args: argparse.Namespace) -> list[dict]:
    rows = []
    for neurons in args.neurons:
        for cores in args.cores:
            mine = ours(neurons, cores, args.steps)
            group = [mine]
            if args.peers.is_dir():
                group.append(loop(args.peers, neurons, max(cores, 1), args.steps))
            for peer in args.peer:
                name, _, python = peer.partition("=")
                group.append(script(args.peers, name, python, neurons, cores, args.steps))
            for r in group:
                rows.append({**r, "ratio": r["us_per_step"] / mine["us_per_step"]})
    return rows


def growth(args: argparse.Namespace) -> list[dict]:
    """Events per second by size, of one stream and of two at once on two threads."""
    rows = []
    for neurons in args.neurons:
        steps = max(min(args.steps, 10**7 // neurons), 100)
        for threads in (1, 2):
            engines = [Emulator(network(neurons), engine="events") for _ in range(threads)]
            spikes = sum(e.run_events({}, steps).counters.total("events") for e in engines)
            seconds = best(lambda engines=engines, steps=steps: at_once(engines, steps), 3)
            rows.append({"threads": threads, **row("nmc", neurons, 0, steps, seconds, spikes)})
    return rows


def at_once(engines: list[Emulator], steps: int) -> None:
    """Run all, each on a thread of its own: the compiled loop does not hold Python's lock."""
    threads = [threading.Thread(target=e.run_events, args=({}, steps)) for e in engines]
    for t in threads:
        t.start()
    for t in threads:
        t.join()


def memory(cores: int) -> list[dict]:
    """Growth of resident memory from 1e5 to 1e6 neurons, each in a fresh process: after the run, and at its peak."""
    found = []
    for neurons in (10**5, 10**6):
        code = f"import recurrent; recurrent.hold({neurons}, {cores})"
        folder = Path(__file__).parent
        out = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
        found.append(json.loads(out.stdout))
    synapses = (10**6 - 10**5) * FAN_OUT
    return [
        {"cores": cores, "memory": what, "bytes_per_synapse": (found[1][what] - found[0][what]) / synapses}
        for what in ("VmRSS", "VmHWM")
    ]


def hold(neurons: int, cores: int) -> None:
    """Child of ``memory``: build and run, then print what the process holds."""
    emulator = Emulator(mapped(neurons, cores) if cores else network(neurons), engine="events")
    emulator.run_events({}, 5)
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    print(json.dumps({name: int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM")}))


def plot(rows: list[dict], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    for threads in (1, 2):
        mine = [r for r in rows if r["threads"] == threads]
        label = "one network, one thread" if threads == 1 else "two networks, two threads"
        axes.plot([r["neurons"] for r in mine], [r["M_events_per_s"] for r in mine], "o-", label=label)
    axes.set(xscale="log", xlabel="neurons (100 synapses each)", ylabel="synaptic events per second, millions", ylim=0)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def show(rows: list[dict]) -> None:
    names = list(rows[0])
    print("  ".join(f"{n:>14}" for n in names))
    for r in rows:
        print("  ".join(f"{v:14.2f}" if isinstance(v, float) else f"{v!s:>14}" for v in r.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--neurons", nargs="+", type=int)
    parser.add_argument("--cores", nargs="+", type=int, default=[10, 128], help="0: not mapped")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--peers", type=Path, default=PEERS, help="folder with the peers' scripts")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON", help=", ".join(ARGUMENTS))
    parser.add_argument("--growth", action="store_true", help="events/s from 1e3 to 1e6 neurons, 1 and 2 threads")
    parser.add_argument("--memory", action="store_true", help="bytes per synapse from 1e5 to 1e6 neurons")
    parser.add_argument("--plot", type=Path, help="with --growth: a PNG")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    args.neurons = args.neurons or ([10**3, 10**4, 10**5, 10**6] if args.growth else [10**4])
    if args.memory:
        rows = [r for cores in args.cores for r in memory(cores)]
    else:
        rows = growth(args) if args.growth else compare(args)
    if args.plot and args.growth:
        plot(rows, args.plot)
    print(json.dumps(rows, indent=1)) if args.json else show(rows)


if __name__ == "__main__":
    main()
