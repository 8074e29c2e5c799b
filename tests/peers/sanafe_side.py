"""Run by a Python that has SANA-FE, never by the tests' own: simulates a network given in a file.

    python sanafe_side.py network.npz result.json STEPS TIMING

SANA-FE (PyPI ``sanafe``) is GPL-3: it stays in its own process, and only numbers come back. TIMING:
simple, detailed or cycle. network.npz: target, weight [n, fan-out], start [n] potentials in units of
1/64, threshold, bias, decay (of 4096), core [n].
"""

import importlib.metadata
import json
import sys

import numpy as np
import sanafe


def build(given):
    """(architecture, network): the shipped Loihi chip, synapses of its sparse format."""
    n, fan_out = given["target"].shape
    arch, net = sanafe.load_loihi(), sanafe.Network()
    model = {
        "threshold": float(given["threshold"]), "reset": 0.0, "leak_decay": 1.0 - float(given["decay"]) / 4096.0,
        "input_decay": 0.0, "bias": float(given["bias"]), "force_update": True,
    }  # fmt: skip
    group = net.create_neuron_group("pop", n, model, default_synapse_hw_name="loihi_sparse_synapse")
    for i, potential in enumerate((given["start"] / 64.0).tolist()):
        group[i].set_attributes(model_attributes={"potential": potential}, log_spikes=True)
    pairs = np.stack([np.repeat(np.arange(n), fan_out), given["target"].reshape(-1)], 1).tolist()
    group.connect_neurons_sparse(group, {"weight": given["weight"].reshape(-1).astype(float).tolist()}, pairs)
    cores = arch.cores()
    for i, core in enumerate(given["core"].tolist()):
        group[i].map_to_core(cores[core])
    return arch, net


def main():
    network, result, steps, timing = sys.argv[1:]
    arch, net = build(np.load(network))
    chip = sanafe.SpikingChip(arch)
    chip.load(net)
    run = chip.sim(int(steps), timing_model=timing, spike_trace=True, perf_trace=True)
    perf = run["perf_trace"]
    found = {
        "sanafe": importlib.metadata.version("sanafe"),
        "timing": timing,
        "spikes": [sorted(a.neuron_offset for a in row) for row in run["spike_trace"]],
        "synapses": perf["spikes"],
        "updates": perf["updated"],
        "hops": perf["hops"],
        "seconds": perf["sim_time"],
        "packets": run["packets_sent"],
        "energy": run["energy"],
    }
    with open(result, "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main()
