"""Child process of ``transformer.py``: peak RSS growth of emulating one sample of a build.

The JIT is warmed up on a slice of the same kernels by running the bundled digits example first; the
growth counted is the peak of running ``build`` over the RSS before it was loaded.
"""

import json
import resource
import sys
from pathlib import Path

import numpy as np

import nmc
from nmc_compiler.program.io import load_program
from nmc_emulator import run

DIGITS = Path(__file__).resolve().parents[1] / "examples" / "digits"


def rss_now() -> int:
    """Resident bytes of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def main(build: str, images_file: str) -> None:
    images = np.load(images_file)
    for model in (DIGITS / "model.pt", DIGITS.parents[1] / "tests" / "fixtures" / "sdt_v1" / "model.pt"):
        small = nmc.compile(model, target="loihi2", chips="auto").program
        run(small, np.zeros((1, *small.input_shape), np.float32))
    before = rss_now()
    program = load_program(build)
    run(program, images)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    weights = {c.weight_key or c.name: c.weight.nbytes for c in program.convs}
    states = sum(4 * int(np.prod(p.shape)) for p in program.populations)
    print(json.dumps({"growth_bytes": peak - before, "program_bytes": sum(weights.values()) + states}))


if __name__ == "__main__":
    main(*sys.argv[1:])
