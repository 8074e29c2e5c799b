"""Child process of ``transformer.py``: peak RSS growth of emulating one sample of a build.

The same kernels are warmed up on the bundled example and a fixture first. Then the process's
high-water mark is reset, so that what counts is loading ``build`` and running it, and nothing before.
"""

import gc
import json
import sys
from pathlib import Path

import numpy as np

import nmc
from nmc_compiler.program.io import load_program
from nmc_emulator import Emulator

ROOT = Path(__file__).resolve().parents[1]
WARM = (ROOT / "examples" / "digits" / "model.pt", ROOT / "tests" / "fixtures" / "sdt_v1" / "model.pt")


def resident(field: str) -> int:
    """Bytes of VmRSS (now) or VmHWM (the high-water mark) of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}: this measurement needs Linux")


def main(build: str, images_file: str) -> None:
    images = np.load(images_file)
    for model in WARM:
        small = nmc.compile(model, target="loihi2", chips="auto").program
        Emulator(small).run(np.zeros((1, *small.input_shape), np.float32))
    del small
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM to VmRSS
    before = resident("VmRSS")
    program = load_program(build)
    Emulator(program).run(images)
    growth = resident("VmHWM") - before
    weights = {c.weight_key or c.name: c.weight.nbytes for c in program.convs}
    states = sum(4 * int(np.prod(p.shape)) for p in program.populations)
    states += sum(4 * int(np.prod(d.shape)) * d.ring for d in program.dendrites)
    print(json.dumps({"growth_bytes": growth, "program_bytes": sum(weights.values()) + states}))


if __name__ == "__main__":
    main(*sys.argv[1:])
