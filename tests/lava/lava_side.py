"""Runs described networks in Lava; a script for Python 3.10 with lava-nc 0.10.0.

    lava_side.py descriptions.json results.npz

``descriptions.json`` holds a list of descriptions (see ``lava_nets``). For network i and population p the
results hold ``i.p.s`` int32 [somas, steps], what it sent, and of a LIF ``i.p.u`` and ``i.p.v`` as well.
"""

import json
import sys

import numpy as np
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.conv.process import Conv
from lava.proc.dense.process import DelayDense, Dense
from lava.proc.io.sink import RingBuffer as Sink
from lava.proc.io.source import RingBuffer as Source
from lava.proc.lif.process import LIF, LIFReset, TernaryLIF
from lava.proc.monitor.process import Monitor
from lava.proc.sdn.process import ActivationMode, SigmaDelta
from lava.proc.sparse.process import DelaySparse, Sparse
from lava.utils.weightutils import SignMode
from scipy.sparse import csr_matrix

SIGN = {"mixed": SignMode.MIXED, "excitatory": SignMode.EXCITATORY, "inhibitory": SignMode.INHIBITORY}
SOMAS = {"LIF": LIF, "LIFReset": LIFReset, "TernaryLIF": TernaryLIF}
SYNAPSES = {"Dense": Dense, "Sparse": Sparse, "DelayDense": DelayDense, "DelaySparse": DelaySparse}


def population(p, steps):
    shape = tuple(p["shape"])
    if p["kind"] == "RingBuffer":
        return Source(data=np.array(p["data"], dtype=int).reshape(*shape, steps))
    given = {k: v for k, v in p.items() if k not in ("kind", "shape")}
    if p["kind"] == "SigmaDelta":
        given["act_mode"] = ActivationMode[given["act_mode"]]
        return SigmaDelta(shape=shape, **given)
    for key in ("u", "v", "bias_mant"):
        if key in given:
            given[key] = np.array(given[key], dtype=int).reshape(shape)
    return SOMAS[p["kind"]](shape=shape, **given)


def connect(c, d, processes):
    src, dst = processes[c["src"]], processes[c["dst"]]
    weights = np.array(c["weights"], dtype=int)
    if c["kind"] == "Conv":
        form = {k: c[k] if k == "groups" else tuple(c[k]) for k in ("stride", "padding", "dilation", "groups")}
        bits = {k: c[k] for k in ("weight_exp", "num_weight_bits", "num_message_bits")}
        conv = Conv(weight=weights, input_shape=tuple(d["populations"][c["src"]]["shape"]), **form, **bits)
        src.s_out.connect(conv.s_in)
        conv.a_out.connect(dst.a_in)
        return
    given = {k: c[k] for k in ("weight_exp", "num_weight_bits", "num_message_bits")}
    if c["sign_mode"] is not None:
        given["sign_mode"] = SIGN[c["sign_mode"]]
    sparse = c["kind"].endswith("Sparse")
    if "delays" in c:
        delays = np.array(c["delays"], dtype=int)
        if delays.ndim == 0:
            delays = np.full(weights.shape, delays)
        given["delays"] = csr_matrix(delays) if sparse else delays
    synapses = SYNAPSES[c["kind"]](weights=csr_matrix(weights) if sparse else weights, **given)
    flat = src.s_out if len(src.s_out.shape) == 1 else src.s_out.flatten()
    flat.connect(synapses.s_in)
    shape = tuple(d["populations"][c["dst"]]["shape"])
    out = synapses.a_out if len(shape) == 1 else synapses.a_out.reshape(new_shape=shape)
    out.connect(dst.a_in)


def run(d):
    """{(population, what): int32 [somas, steps]} of one network."""
    steps, processes = d["steps"], []
    sinks, monitors = {}, {}
    for i, p in enumerate(d["populations"]):
        process = population(p, steps)
        processes.append(process)
        if p["kind"] == "RingBuffer":
            continue
        sinks[i] = Sink(shape=tuple(p["shape"]), buffer=steps)
        process.s_out.connect(sinks[i].a_in)
        if p["kind"] in SOMAS:
            for var in ("u", "v"):
                monitors[i, var] = Monitor()
                monitors[i, var].probe(getattr(process, var), steps)
    for c in d["connections"]:
        connect(c, d, processes)
    last = processes[-1]
    last.run(condition=RunSteps(num_steps=steps), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
    found = {(i, "s"): sink.data.get().reshape(-1, steps) for i, sink in sinks.items()}
    for (i, var), monitor in monitors.items():
        data = next(iter(monitor.get_data().values()))[var]
        found[i, var] = data.reshape(steps, -1).T
    last.stop()
    return {k: np.rint(v).astype(np.int64) for k, v in found.items()}


def main(descriptions, results):
    with open(descriptions) as file:
        networks = json.load(file)
    found = {}
    for n, d in enumerate(networks):
        found.update({f"{n}.{i}.{what}": values for (i, what), values in run(d).items()})
    np.savez_compressed(results, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
