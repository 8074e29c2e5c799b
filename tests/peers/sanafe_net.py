"""The network that SANA-FE and we both run, and the record of what SANA-FE said.

    python tests/peers/sanafe_net.py PYTHON      writes sanafe.json anew, PYTHON being one that has sanafe

A recurrent network of LIF neurons, fan-out 50, weights +-2 to +-8, a steady bias: about 2 % of the neurons fire
per step. Loihi as SANA-FE ships it: 8 x 4 tiles of 4 cores, tile t at (t // 4, t % 4).
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
RECORD = HERE / "sanafe.json"
THRESHOLD, BIAS, DECAY, FAN_OUT, PERIOD = 1000, 25, 41, 50, 51
STEPS = 60


@dataclass(frozen=True)
class Case:
    """``neurons`` on ``cores``, neuron i on core i * cores // neurons; timing model of SANA-FE."""

    neurons: int
    cores: int
    timing: str = "simple"

    @property
    def name(self) -> str:
        return f"{self.neurons} on {self.cores}, {self.timing}"


CASES = (
    Case(400, 1), Case(400, 10), Case(400, 128), Case(900, 60),
    Case(400, 16, "detailed"), Case(400, 16, "cycle"), Case(900, 60, "detailed"), Case(900, 60, "cycle"),
)  # fmt: skip


def network(case: Case) -> dict[str, np.ndarray]:
    """Arrays of the network, as sanafe_side.py takes them; start potentials in units of 1/64."""
    rng, n = np.random.default_rng(case.neurons), case.neurons
    target = rng.integers(0, n, (n, FAN_OUT))
    weight = rng.integers(1, 5, (n, FAN_OUT)) * 2 * rng.choice([-1, 1], (n, FAN_OUT))
    left = 1 - DECAY / 4096
    start = np.floor(BIAS * (1 - left ** rng.integers(0, PERIOD, n)) / (1 - left)).astype(np.int64) * 64
    core = np.arange(n) * case.cores // n
    constants = {"threshold": THRESHOLD, "bias": BIAS, "decay": DECAY}
    arrays = {"target": target, "weight": weight, "start": start, "core": core}
    return arrays | {k: np.array(v) for k, v in constants.items()}


def digest(given: dict[str, np.ndarray]) -> str:
    """Tells whether two networks are the same, whatever made the random numbers."""
    found = hashlib.sha256()
    for name in sorted(given):
        found.update(name.encode() + np.ascontiguousarray(given[name], np.int64).tobytes())
    return found.hexdigest()


def ask(python: str, case: Case) -> dict:
    """What SANA-FE says about a case, run by another Python; CalledProcessError with its output if that fails."""
    with tempfile.TemporaryDirectory() as folder:
        given, result = Path(folder) / "network.npz", Path(folder) / "result.json"
        np.savez(given, **network(case))
        command = [python, str(HERE / "sanafe_side.py"), str(given), str(result), str(STEPS), case.timing]
        subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder)
        return json.loads(result.read_text()) | {"network": digest(network(case))}


def mapped(case: Case):
    """The same network as a Program, on the same cores."""
    from nmc_compiler.mapping import split_evenly
    from nmc_compiler.program.network import Network
    from nmc_compiler.target import load_target

    given, n = network(case), case.neurons
    net = Network(f"peer-{n}")
    # SANA-FE does not leak in the first step: start with what leaks to the potential it starts with.
    before = -(-given["start"] * 4096 // (4096 - DECAY))
    p = net.lif("pop", n, du=4095, dv=DECAY, vth=THRESHOLD, bias=BIAS << 6, start_v=before)
    rows = np.arange(n + 1) * FAN_OUT
    net.sparse("recurrent", p, p, rows, given["target"].reshape(-1), given["weight"].reshape(-1))
    program = split_evenly(net.program(), case.cores, load_target("loihi2"))
    tile, at = np.divmod(np.arange(case.cores), 4)
    cores = np.stack([np.zeros(case.cores), tile // 4, tile % 4, at], axis=1).astype(np.int32)
    return replace(program, mapping=replace(program.mapping, cores=cores))


def main() -> None:
    found = {case.name: ask(sys.argv[1], case) for case in CASES}
    rows = [f"{json.dumps(name)}: {json.dumps(result)}" for name, result in found.items()]
    RECORD.write_text("{\n" + ",\n".join(rows) + "\n}\n")


if __name__ == "__main__":
    main()
