"""Runs the exported network in Lava.

    python run.py input.npz -o results.npz [--images N] [--unroll] [--hw]

input.npz: ``images`` [N, C, H, W] ([N, T, C, H, W] if the input has a time axis), or, of a network that takes
events, ``codes/<input>`` [timesteps, C, H, W]. results.npz: ``spikes/<population>`` int32 [N, T, C, H, W], what
every soma sent in its sample's window; ``outside/<population>``, how many events it sent outside of one;
``logits_int`` int64 [N, classes] and ``logits``. --hw takes Loihi2HwCfg instead of the simulation: NOT TESTED, for
want of a chip; the Processes marked generated have no model for one and would need microcode.
"""

import argparse
import os
import sys
import tempfile
import time
import warnings

import numpy as np
from assemble import build, load
from host import InputError, live_ticks, read_inputs, samples_in, ticks_of
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2HwCfg, Loihi2SimCfg
from lava.proc.monitor.process import Monitor
from processes import PORTS, Recorder
from scipy.sparse import SparseEfficiencyWarning


def main():
    args = _arguments()
    warnings.simplefilter("ignore", SparseEfficiencyWarning)  # of Lava's DelaySparse
    net, arrays = load()
    try:
        inputs = read_inputs(args.input, net, args.images)
        started = time.time()
        found = run(net, arrays, inputs, args.unroll, args.hw)
    except InputError as error:
        sys.exit(f"{args.input}: {error}")
    part = f"{args.out}.part.npz"
    np.savez_compressed(part, **found)
    os.replace(part, args.out)
    print(f"{len(net['processes'])} Processes, {samples_in(inputs, net)[0]} samples, {time.time() - started:.1f} s")


def _arguments():
    parser = argparse.ArgumentParser(description="Run the exported network in Lava.")
    parser.add_argument("input")
    parser.add_argument("-o", "--out", default="results.npz")
    parser.add_argument("--images", type=int, default=None, help="only the first so many")
    parser.add_argument("--unroll", action="store_true", help="Conv as Sparse: the same integers, faster")
    parser.add_argument("--hw", action="store_true", help="Loihi2HwCfg; not tested")
    return parser.parse_args()


def run(net, arrays, inputs, unroll=False, hw=False):
    """Name -> array, as results.npz holds them."""
    made = build(net, arrays, inputs, unroll)
    samples, steps = samples_in(inputs, net)
    ticks = ticks_of(net, samples, steps)
    config = Loihi2HwCfg(select_tag="fixed_pt") if hw else Loihi2SimCfg(select_tag="fixed_pt")
    with tempfile.TemporaryDirectory() as folder:
        tapes, monitors = _record(net, made, folder, ticks)
        any_process = next(iter(made.values()))
        any_process.run(condition=RunSteps(num_steps=ticks), run_cfg=config)
        seen = {name: next(iter(m.get_data().values()))["v"] for name, m in monitors.items()}
        any_process.stop()
        for tape in tapes:
            seen.update(_read(tape, ticks))
    return _results(net, seen, samples, steps)


def _record(net, made, folder, ticks):
    """Recorders for all that is sent, monitors for the potential of stock readouts."""
    parts = [part for p in net["populations"] for part in p["parts"]]
    heard = [part["process"] for part in parts if not part["monitor"]]
    tapes, monitors = [], {}
    for at in range(0, len(heard), PORTS):
        names = heard[at : at + PORTS]
        tapes.append((os.path.join(folder, str(at)), [(name, made[name].s_out.shape) for name in names]))
        recorder = Recorder(shapes=[made[name].s_out.shape for name in names], file=tapes[-1][0])
        for k, name in enumerate(names):
            made[name].s_out.connect(getattr(recorder, f"in{k}"))
    for part in parts:
        if part["monitor"]:
            monitors[part["process"]] = Monitor()
            monitors[part["process"]].probe(made[part["process"]].v, ticks)
    return tapes, monitors


def _read(tape, ticks):
    file, shapes = tape
    sizes = [int(np.prod(shape)) for _, shape in shapes]
    table = np.fromfile(file, "<i4").reshape(ticks, sum(sizes))
    ends = np.cumsum(sizes)
    columns = zip(shapes, sizes, ends, strict=True)
    return {name: table[:, end - size : end].reshape(ticks, *shape) for (name, shape), size, end in columns}


def _results(net, seen, samples, steps):
    found = {}
    for p in net["populations"]:
        channels, height, width = p["shape"]
        ticks = len(next(iter(seen.values())))
        whole = np.zeros((ticks, width, height, channels), np.int64)
        for part in p["parts"]:
            shape = (ticks, width, height, len(part["channels"]))
            whole[..., part["channels"]] = np.asarray(seen[part["process"]]).reshape(shape)
        live = live_ticks(net, samples, steps, p["level"])
        codes = whole[live].transpose(0, 1, 4, 3, 2)
        if p["readout"]:
            found["logits_int"] = codes[:, -1].reshape(samples, -1)
            found["logits"] = found["logits_int"] * p["scale"]
        else:
            found[f"spikes/{p['name']}"] = codes.astype(np.int32)
            found[f"outside/{p['name']}"] = np.count_nonzero(whole) - np.count_nonzero(codes)
    return found


if __name__ == "__main__":
    main()
